"""CLIP, the frozen judge of the language-driven loss: an image tower and the embeddings of the prompts.

Any model of open_clip. The sentences are embedded once and the text tower is let go, so that training keeps only
what looks at pictures. Source of the use: LDFusion, Sec. 3.2; planes are shown to CLIP as grey pictures.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyldfusion.errors import InputError

from ..config import ClipConfig, ConfigError, PromptConfig
from ..pieces import kept_bytes
from .common import GreyConv, autocast, warn_if_slow
from .lean import lighten
from .open_clip_model import load_open_clip
from .prompts import read_content

__all__ = ["Clip", "ImageTower", "load_clip"]

#: sentences embedded at once
BATCH = 64


class ImageTower(nn.Module):
    """CLIP's image encoder for grey planes, frozen; gradients flow to the planes alone.

    Where the model begins with an unpadded convolution (every ViT), the repeat to three channels and the
    normalisation are folded into it (:class:`~trainer.towers.common.GreyConv`); elsewhere they are done as written.
    Blocks of open_clip's transformers are replaced by cheaper ones of the same function (:mod:`~trainer.towers.lean`).

    Attributes:
        size: side of its input in pixels, the longer one if it is not square.
        image_size: (height, width) of its input; planes of that size are not resized.
        dim: length D of an embedding.
        folded: whether the first convolution takes the plane itself.
    """

    def __init__(
        self, visual: nn.Module, mean: Sequence[float], std: Sequence[float], precision: str = "fp32", fold: bool = True
    ) -> None:
        """
        Args:
            visual: image tower of an open_clip model; it is taken over: frozen, parts of it replaced.
            mean, std: of the three channels of its input.
            precision: "fp32", or "bf16" or "fp16" by autocast.
            fold: False keeps repeat and normalisation apart, to compare with.
        """
        super().__init__()
        size = visual.image_size
        self.image_size = tuple(size) if isinstance(size, Sequence) else (size, size)
        self.size = max(self.image_size)
        self.mean, self.std, self.precision = tuple(mean), tuple(std), precision
        self.folded = fold and _fold(visual, mean, std)
        lighten(visual)
        self.visual = visual
        self.requires_grad_(False).eval()
        if not self.folded:
            self.visual.to(memory_format=torch.channels_last)
        self.dim = _dim(self)

    def forward(self, planes: Tensor) -> Tensor:
        """Embeddings, not normalised.

        Args:
            planes: [M,1,H,W] float in [0, 1], M may be 0; resized to ``image_size`` (bilinear, ``align_corners=False``)
                if they have another size.

        Returns:
            [M,D] float32, or float64 if the tower is (after ``tower.double()``).

        Raises:
            InputError: planes of another shape.
        """
        if planes.ndim != 4 or planes.shape[1] != 1:
            raise InputError(f"planes have shape {list(planes.shape)}; expected [M,1,H,W]")
        x = planes.to(next(self.visual.parameters()).dtype)
        if not len(x):
            return x.new_zeros(0, self.dim)
        if x.shape[2:] != self.image_size:
            x = F.interpolate(x, self.image_size, mode="bilinear", align_corners=False)
        if not self.folded:
            channels = [(x - mean) / std for mean, std in zip(self.mean, self.std, strict=True)]
            x = torch.cat(channels, 1).contiguous(memory_format=torch.channels_last)
        with autocast(x, self.precision):
            embeddings = self.visual(x)
        if isinstance(embeddings, tuple):  # CoCa's come with the tokens
            embeddings = embeddings[0]
        return embeddings.to(x.dtype)


def _fold(visual: nn.Module, mean: Sequence[float], std: Sequence[float]) -> bool:
    """Have the first convolution take the plane itself; False where that would not be exact."""
    for path in ("conv1", "trunk.patch_embed.proj"):  # open_clip's ViT; timm's, of SigLIP and others
        owner, _, name = path.rpartition(".")
        try:
            parent = visual.get_submodule(owner)
        except AttributeError:
            continue
        first = getattr(parent, name, None)
        if GreyConv.replaces(first):
            setattr(parent, name, GreyConv(first, mean, std))
            return True
    return False


@torch.no_grad()
def _dim(tower: ImageTower) -> int:
    """Length of an embedding. The model says it, or (timm's) is asked with an empty picture."""
    if known := getattr(tower.visual, "output_dim", None):
        return known
    parameter = next(tower.visual.parameters())
    return tower(parameter.new_zeros(1, 1, *tower.image_size)).shape[1]


@dataclass(frozen=True)
class Clip:
    """What judges: the image tower and the embeddings of the prompts, [1,D] of unit length.

    Attributes:
        content: objectives of single pictures, by ``root/stem`` or stem, as the file of prompts has it.
        at_once: as many pictures are judged in one piece, so that activations keep within ``clip.memory_gb``.
    """

    tower: ImageTower
    objective: Tensor
    infrared: Tensor
    visible: Tensor
    content: dict[str, Tensor]
    at_once: int = 1024


def load_clip(clip: ClipConfig, prompts: PromptConfig, device: torch.device | str, seed: int = 0) -> Clip:
    """The frozen image tower on a device and the embeddings of all prompts; the text tower is freed.

    Args:
        seed: of the weights where ``clip.pretrained`` is "none".

    Raises:
        ConfigError: an unknown model or tag (names the closest), a model configuration or prompts of another form.
        ArtefactError: no weights, or those of another model; says which file to put where.
        DependencyError: open_clip, torchvision or what a tokenizer needs is not there.
    """
    texts = {
        "objective": list(prompts.objective),
        "infrared": list(prompts.infrared),
        "visible": list(prompts.visible),
    }
    for name, sentences in texts.items():
        if not sentences or not all(sentence.strip() for sentence in sentences):
            raise ConfigError(f"prompts.{name} is {sentences}; expected a sentence, or a list of sentences")
    content = read_content(prompts.content) if prompts.content else {}

    model, tokenizer, normalisation = load_open_clip(clip, seed)
    model.to(device)
    warn_if_slow("clip.precision", clip.precision, device)
    embeddings = _embed(model, tokenizer, [*texts.values(), *content.values()], device)
    tower = ImageTower(model.visual, **normalisation, precision=clip.precision)
    if clip.checkpoint:
        tower.visual.set_grad_checkpointing(True)
        if hasattr(tower.visual, "attnpool"):
            warnings.warn(f"clip.checkpoint has no effect: open_clip cannot recompute {clip.model}", stacklevel=2)
    objective, infrared, visible, *own = embeddings
    at_once = max(1, int(clip.memory_gb * 1e9 / max(1, _bytes_a_picture(tower))))
    return Clip(tower, objective, infrared, visible, dict(zip(content, own, strict=True)), at_once)


def _bytes_a_picture(tower: ImageTower) -> int:
    """Of activations kept for the backward pass; what does not grow with the pictures (cast weights) is left out."""
    one = next(tower.parameters()).new_zeros(1, 1, *tower.image_size)
    return kept_bytes(tower, one.expand(2, -1, -1, -1)) - kept_bytes(tower, one)


def _embed(
    model: nn.Module, tokenizer: Callable[..., Tensor], groups: list[list[str]], device: torch.device | str
) -> list[Tensor]:
    """One embedding a group of sentences, [1,D] of unit length: the raw embeddings are averaged, then normalised."""
    sentences = list(dict.fromkeys(sentence for group in groups for sentence in group))
    for sentence in sentences:
        _warn_if_cut(tokenizer, sentence)
    with torch.no_grad(), torch.autocast(torch.device(device).type, enabled=False):
        raw = torch.cat(
            [
                model.encode_text(tokenizer(sentences[start : start + BATCH]).to(device), normalize=False).float()
                for start in range(0, len(sentences), BATCH)
            ]
        )
    of = dict(zip(sentences, raw, strict=True))
    return [F.normalize(torch.stack([of[s] for s in group]).mean(0, keepdim=True), dim=1) for group in groups]


def _warn_if_cut(tokenizer: Callable[..., Tensor], sentence: str) -> None:
    """The usual tokenizer drops what does not fit, without a word."""
    if not hasattr(tokenizer, "encode"):
        return
    tokens, most = len(tokenizer.encode(sentence)), tokenizer.context_length - 2  # start and end
    if tokens > most:
        warnings.warn(f"this prompt has {tokens} tokens, CLIP reads the first {most}: {sentence!r}", stacklevel=4)
