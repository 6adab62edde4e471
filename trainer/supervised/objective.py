"""The supervised objective: look like the teacher's picture."""

from __future__ import annotations

import torch

from ..config import Config
from ..objective import Batch, Losses, Network
from .imitation import gradient_loss, grid_loss, pixel_loss, shade_loss, structure_loss
from .teacher import teach

__all__ = ["Supervised"]


class Supervised:
    """Weighted parts of the distance between G's picture and :func:`trainer.supervised.teacher.teach`'s.

    The seam is :class:`trainer.objective.Objective`.
    """

    def __init__(self, config: Config) -> None:
        self.weights, self.teacher = config.imitation, config.teacher

    def __call__(self, generator: Network, batch: Batch) -> Losses:
        with torch.no_grad():
            target = teach(batch.clean_ir, batch.clean_vis, self.teacher)
        fused = generator(batch.ir, batch.vis)
        return Losses(
            {
                "pixel": self.weights.pixel * pixel_loss(fused, target),
                "gradient": self.weights.gradient * gradient_loss(fused, target),
                "grid": self.weights.grid * grid_loss(fused, target),
                "shade": self.weights.shade * shade_loss(fused, target),
                "structure": self.weights.structure * structure_loss(fused, target),
            }
        )
