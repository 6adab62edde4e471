"""The supervised objective: look like the teacher's picture."""

from __future__ import annotations

import torch
from torch import Tensor

from pyldfusion.generator import Generator

from .config import Config
from .data import Batch
from .losses import gradient_loss, grid_loss, pixel_loss, structure_loss
from .teacher import teach

__all__ = ["Supervised"]


class Supervised:
    """Weighted parts of the distance between G's picture and :func:`trainer.teacher.teach`'s.

    An objective for :func:`trainer.loop.train`: called with the generator and a batch, it returns the parts of the
    loss, whose sum is minimised.
    """

    def __init__(self, config: Config) -> None:
        self.loss, self.teacher = config.loss, config.teacher

    def __call__(self, generator: Generator, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad(), torch.autocast(batch.ir.device.type, enabled=False):
            target = teach(batch.clean_ir, batch.clean_vis, self.teacher)
        fused = generator(batch.ir, batch.vis).float()
        return {
            "pixel": self.loss.pixel * pixel_loss(fused, target),
            "gradient": self.loss.gradient * gradient_loss(fused, target),
            "grid": self.loss.grid * grid_loss(fused, target),
            "structure": self.loss.structure * structure_loss(fused, target),
        }
