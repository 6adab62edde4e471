"""CLIP, the frozen judge of the language-driven loss: an image tower and the embeddings of the prompts.

Any model of open_clip. The sentences are embedded once and the text tower is let go, so that training keeps only
what looks at pictures. Source of the use: LDFusion, Sec. 3.2; planes are shown to CLIP as grey pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyldfusion.errors import InputError

from .config import ClipConfig, ConfigError, PromptConfig
from .open_clip_model import load_open_clip
from .prompts import read_content

__all__ = ["Clip", "ImageTower", "load_clip"]

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
#: sentences embedded at once
BATCH = 64


class ImageTower(nn.Module):
    """CLIP's image encoder for grey planes, frozen; gradients flow to the planes alone.

    Where the model begins with an unpadded convolution (every ViT), the repeat to three channels and the
    normalisation are part of that convolution: ``sum_c W_c * (x - mean_c) / std_c`` is one convolution of one plane
    and a constant. It then takes a third of the input's memory, and there is nothing to undo in the backward pass.

    Attributes:
        size: side of its input in pixels, the longer one if it is not square; a picture of that size is not resized.
        dim: length of an embedding.
        image_size: (height, width) of its input.
    """

    def __init__(
        self, visual: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], precision: str = "fp32",
        fold: bool = True,
    ) -> None:  # fmt: skip
        """``fold=False`` keeps repeat and normalisation apart, which a test compares with."""
        super().__init__()
        height, width = visual.image_size if isinstance(visual.image_size, (tuple, list)) else [visual.image_size] * 2
        self.image_size = (int(height), int(width))
        self.size = max(self.image_size)
        self.precision = precision
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.visual = visual.requires_grad_(False).eval()
        self.folded = fold and _fold(visual, mean, std)
        with torch.no_grad():
            self.dim = self(torch.zeros(1, 1, *self.image_size)).shape[1]

    def forward(self, planes: Tensor) -> Tensor:
        """Embeddings, not normalised.

        Args:
            planes: [M,1,H,W] float in [0, 1]; resized (bilinear, ``align_corners=False``) if it is not ``image_size``.

        Returns:
            [M,D] float32, or float64 if the tower is.

        Raises:
            InputError: planes of another shape.
        """
        if planes.ndim != 4 or planes.shape[1] != 1:
            raise InputError(f"planes have shape {list(planes.shape)}; expected [M,1,H,W]")
        x = planes.to(self.mean.dtype)
        if x.shape[2:] != self.image_size:
            x = F.interpolate(x, self.image_size, mode="bilinear", align_corners=False)
        if not self.folded:
            x = ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)  # [M,1,..] -> [M,3,..]
        lower = AUTOCAST.get(self.precision) if x.dtype == torch.float32 else None
        with torch.autocast(x.device.type, lower or torch.bfloat16, enabled=lower is not None):
            embeddings = self.visual(x)
        return embeddings.to(x.dtype)


def _fold(visual: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> bool:
    """Make the first convolution take the grey plane itself; False where that would not be exact."""
    for owner, name in (("", "conv1"), ("trunk.patch_embed", "proj")):  # open_clip's ViT, timm's
        try:
            parent = visual.get_submodule(owner)
        except AttributeError:
            continue
        first = getattr(parent, name, None)
        if not isinstance(first, nn.Conv2d) or first.in_channels != 3 or first.groups != 1 or any(_padding(first)):
            continue
        weight = first.weight.detach().double()
        scaled = weight / torch.tensor(std, dtype=torch.float64).view(1, 3, 1, 1)
        shift = -(scaled * torch.tensor(mean, dtype=torch.float64).view(1, 3, 1, 1)).sum((1, 2, 3))
        if first.bias is not None:
            shift += first.bias.detach().double()
        grey = nn.Conv2d(1, first.out_channels, first.kernel_size, first.stride, dilation=first.dilation)
        grey.weight = nn.Parameter(scaled.sum(1, keepdim=True).to(first.weight), requires_grad=False)
        grey.bias = nn.Parameter(shift.to(first.weight), requires_grad=False)
        setattr(parent, name, grey)
        return True
    return False


def _padding(layer: nn.Conv2d) -> tuple[int, ...]:
    return (1,) if isinstance(layer.padding, str) and layer.padding != "valid" else tuple(layer.padding)


@dataclass(frozen=True)
class Clip:
    """What judges: the image tower and the embeddings of the prompts, [1,D] of unit length.

    Attributes:
        content: objectives of single pictures, by ``root/stem`` or stem, as the file of prompts has it.
    """

    tower: ImageTower
    objective: Tensor
    infrared: Tensor
    visible: Tensor
    content: dict[str, Tensor]


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
    embeddings = _embed(model, tokenizer, [*texts.values(), *content.values()], device)
    tower = ImageTower(model.visual, **normalisation, precision=clip.precision)
    if clip.checkpoint:
        tower.visual.set_grad_checkpointing(True)
    objective, infrared, visible, *own = embeddings
    return Clip(tower, objective, infrared, visible, dict(zip(content, own, strict=True)))


def _embed(
    model: nn.Module, tokenizer: Callable[..., Tensor], groups: list[list[str]], device: torch.device | str
) -> list[Tensor]:
    """One embedding a group of sentences, [1,D] of unit length: the raw embeddings are averaged, then normalised."""
    sentences = list(dict.fromkeys(sentence for group in groups for sentence in group))
    with torch.no_grad(), torch.autocast(torch.device(device).type, enabled=False):
        raw = torch.cat(
            [
                model.encode_text(tokenizer(sentences[start : start + BATCH]).to(device)).float()
                for start in range(0, len(sentences), BATCH)
            ]
        )
    of = dict(zip(sentences, raw, strict=True))
    return [F.normalize(torch.stack([of[s] for s in group]).mean(0, keepdim=True), dim=1) for group in groups]
