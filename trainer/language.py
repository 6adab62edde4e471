"""LDFusion's objective: a sentence says what the fused picture should look like, CLIP and VGG judge it (Eq. 16)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyldfusion.errors import InputError

from .config import Config, ConfigError
from .entropy import patch_entropy
from .losses import direction_loss, direction_regularization, fidelity_loss
from .objective import Batch, Losses
from .patches import Patches, cut_patches, draw_patches
from .pieces import in_pieces
from .towers.clip import Clip
from .towers.prompts import find_content
from .towers.vgg import FidelityTower

__all__ = ["LanguageDriven"]


class LanguageDriven:
    """The loss of LDFusion for the training loop: L = L_d + lambda Phi + alpha L_v.

    Parts, each with its weight in it and left out where that is 0: ``whole`` and ``patches`` (Eq. 3), ``regulariser``
    (Eq. 7), ``fidelity`` (Eq. 13). Shown besides: ``kept``, the share of patches that pass the entropy filter (Eq. 17).
    The network runs once; no gradient goes through the sources. Losses are taken in float32, or in float64 where the
    network's output is.

    Args:
        config: weights (``loss``), ``patches``, ``run.seed`` and ``prompts.content_for`` are read.
        clip: the judge and its sentences; None is enough where only ``fidelity`` counts.
        vgg: None is enough where ``fidelity`` is 0.

    Raises:
        ConfigError: every weight is 0, or a tower is missing that a weight asks for.
    """

    def __init__(self, config: Config, clip: Clip | None, vgg: FidelityTower | None) -> None:
        self.weights, self.patches, self.seed = config.loss, config.patches, config.run.seed
        self.with_patches = self.weights.patches != 0 and self.patches.count > 0
        self.with_whole = self.weights.whole != 0 or self.weights.regulariser != 0
        self.with_clip = self.with_whole or self.with_patches
        if not self.with_clip and not self.weights.fidelity:
            raise ConfigError("all weights of [loss] are 0; expected whole, patches, regulariser or fidelity above it")
        for tower, wanted, name in ((clip, self.with_clip, "CLIP"), (vgg, self.weights.fidelity, "VGG-19")):
            if wanted and tower is None:
                raise ConfigError(f"the weights of [loss] ask for {name}, and there is none; give it or set them to 0")
        self.clip, self.vgg, self.content_for = clip, vgg, config.prompts.content_for

    def __call__(self, generator: nn.Module, batch: Batch) -> Losses:
        fused = generator(batch.ir, batch.vis)
        fused = fused.to(torch.promote_types(fused.dtype, torch.float32))
        ir, vis = batch.clean_ir.to(fused.dtype), batch.clean_vis.to(fused.dtype)
        with torch.autocast(fused.device.type, enabled=False):  # the towers turn their own on
            parts, shown = self._language(fused, ir, vis, batch) if self.with_clip else ({}, {})
            if self.weights.fidelity:
                parts["fidelity"] = self.weights.fidelity * self._fidelity(fused, ir, vis)
        return Losses(parts, shown)

    def _language(
        self, fused: Tensor, ir: Tensor, vis: Tensor, batch: Batch
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The parts that CLIP judges, and what is shown of them."""
        weights = self.weights
        with torch.no_grad():
            sources = self.clip.tower(torch.cat([ir, vis])).chunk(2)  # embeddings of ir and of vis, [B,D] each
        texts = self._texts(batch.names, len(fused))
        chosen = self._choose(fused, ir, vis, batch.step) if self.with_patches else None
        whole, patches = self._embed(fused if self.with_whole else fused[:0], chosen)
        parts, shown = {}, {}
        if weights.whole:
            parts["whole"] = weights.whole * direction_loss(whole, *sources, *texts)
        if chosen:

            def loss_of(embeddings: Tensor, piece: slice) -> Tensor:
                return chosen.loss(embeddings, piece, *sources, texts)

            loss = self._in_pieces(chosen.fused, loss_of) if patches is None else loss_of(patches, slice(None))
            parts["patches"], shown["kept"] = weights.patches * loss, chosen.kept
        if weights.regulariser:
            parts["regulariser"] = weights.regulariser * direction_regularization(whole, *sources)
        return parts, shown

    def _embed(self, whole: Tensor, chosen: Chosen | None) -> tuple[Tensor, Tensor | None]:
        """Embeddings of whole fused pictures [K,1,H,W] (K may be 0) and of the patches, by one call of the tower.

        None instead of those of patches that are too many for one call.
        """
        patches = chosen.fused if chosen else whole[:0]
        if len(patches) and len(whole) + len(patches) > self.clip.at_once:
            return encode(self.clip.tower, [whole])[0], None
        of_whole, of_patches = encode(self.clip.tower, [whole, patches])
        return of_whole, of_patches

    def _in_pieces(self, pictures: Tensor, loss_of: Callable[[Tensor, slice], Tensor]) -> Tensor:
        """Loss of patches that are too many to be encoded in one piece."""
        tower = self.clip.tower
        late = tower.precision == "fp16"
        return in_pieces(lambda some, piece: loss_of(tower(some), piece), pictures, self.clip.at_once, late)

    def _choose(self, fused: Tensor, ir: Tensor, vis: Tensor, step: int) -> Chosen:
        """Cut the fused patches and say which of them count: those with enough to see in both sources (Eq. 17)."""
        config, size = self.patches, self.clip.tower.size
        patches = draw_patches(config, *fused.shape[-2:], seed=self.seed, step=step)
        cut = cut_patches(fused[:, 0], patches, size).reshape(-1, 1, size, size)  # [crops x B,1,size,size]
        numbers = torch.arange(len(cut), device=cut.device)
        if config.entropy < 0:
            return Chosen(cut, numbers, None, cut.new_ones(()), len(cut))
        mask = self._enough_to_see(ir, vis, patches)
        kept = mask.to(cut.dtype).mean()
        if config.compact == "yes" or (config.compact == "auto" and cut.device.type == "cpu"):
            return Chosen(cut[mask], numbers[mask], None, kept, len(cut))
        return Chosen(cut, numbers, mask.to(cut.dtype), kept, len(cut))

    def _enough_to_see(self, ir: Tensor, vis: Tensor, patches: Patches) -> Tensor:
        """Bool [crops x B]: the entropy of both sources' patches is above sigma, on the patch as CLIP would see it."""
        bits = patch_entropy(torch.cat([ir, vis])[:, 0], patches, self.clip.tower.size)
        return (bits > self.patches.entropy).view(len(patches), 2, len(ir)).all(1).flatten()

    def _fidelity(self, fused: Tensor, ir: Tensor, vis: Tensor) -> Tensor:
        with torch.no_grad():
            sources = [features.chunk(2) for features in self.vgg(torch.cat([ir, vis]))]
        features_ir, features_vis = zip(*sources, strict=True)
        return fidelity_loss(self.vgg(fused), features_ir, features_vis)

    def _texts(self, names: Sequence[str], count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Objective, infrared and visible sentence, each [1,D], or [B,D] where pictures have sentences of their own."""
        clip = self.clip
        if not clip.content:
            return clip.objective, clip.infrared, clip.visible
        if len(names) != count:
            raise InputError(f"{len(names)} names for {count} pictures; expected one each, to find their sentences")

        def own(default: Tensor) -> Tensor:
            keys = (find_content(clip.content, name) for name in names)
            return torch.cat([default if key is None else clip.content[key] for key in keys])

        if self.content_for == "objective":
            return own(clip.objective), clip.infrared, clip.visible
        return clip.objective, own(clip.infrared), own(clip.visible)


@dataclass(frozen=True)
class Chosen:
    """Fused patches to encode, and how they count.

    Attributes:
        fused: [K,1,size,size]: the patches, crop-major; all of them, or only those that count.
        numbers: [K], which of the crops x B patches these are.
        weight: [K] of 0 and 1, or None where all of ``fused`` count.
        kept: scalar, the share of all patches that count.
        total: crops x B.
    """

    fused: Tensor
    numbers: Tensor
    weight: Tensor | None
    kept: Tensor
    total: int

    def loss(self, embeddings: Tensor, piece: slice, ir: Tensor, vis: Tensor, texts: Sequence[Tensor]) -> Tensor:
        """What a piece adds to L_d, the mean over all patches, those that do not count too.

        Args:
            embeddings: of ``fused[piece]``, which are compared with those of the whole sources.
            ir, vis: [B,D].
            texts: each [1,D] or [B,D].
        """
        if not len(embeddings):
            return self.fused.sum()  # 0, with a gradient of 0
        picture = self.numbers[piece] % len(ir)
        texts = [text if len(text) == 1 else text[picture] for text in texts]
        weight = None if self.weight is None else self.weight[piece]
        share = len(embeddings) / self.total
        return share * direction_loss(embeddings, ir[picture], vis[picture], *texts, weight)


def encode(tower: nn.Module, pictures: Sequence[Tensor]) -> list[Tensor]:
    """Embeddings of several stacks of planes, in one call of the tower where they are of its size."""
    counts = [len(stack) for stack in pictures]
    if len({stack.shape[1:] for stack in pictures}) == 1 and sum(counts):
        return list(tower(torch.cat(list(pictures))).split(counts))
    return [tower(stack) if len(stack) else stack.new_empty(0, tower.dim) for stack in pictures]
