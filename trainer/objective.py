"""What the loop asks of a loss, and what it hands to it: the seam between the two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Batch", "Batches", "Losses", "Network", "Objective"]

#: (ir, vis) [N,1,H,W] -> fused [N,1,H,W] in [0, 1]: the generator, as the loop runs it (many processes, precision).
Network = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Batch:
    """The pairs of one step that this process works on.

    Attributes:
        step: number of the step, from 0; draws of a loss depend on it and the seed alone.
        ir, vis: [N,1,H,W] float in [0, 1] (noise may leave it): what the network sees.
        clean_ir, clean_vis: the same shape in [0, 1]: what the loss compares with.
        names: of the N pairs, ``root/stem``.
    """

    step: int
    ir: Tensor
    vis: Tensor
    clean_ir: Tensor
    clean_vis: Tensor
    names: tuple[str, ...] = ()

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Batch:
        """On another device; from pinned memory without waiting."""
        planes = {
            name: getattr(self, name).to(device, dtype, non_blocking=True)
            for name in ("ir", "vis", "clean_ir", "clean_vis")
        }
        return replace(self, **planes)


class Batches(Protocol):
    """Step -> batch, a function of (seed, step) alone."""

    #: steps that make an epoch; where pairs are drawn at random, those that see as many as there are.
    steps_per_epoch: int

    def __call__(self, step: int) -> Batch: ...


@dataclass(frozen=True)
class Losses:
    """What an objective says of one batch.

    Attributes:
        parts: weighted parts of the loss by name, scalars, means over the samples; their sum is minimised.
        shown: other numbers worth a column in the log, scalars, means over the samples.
    """

    parts: dict[str, Tensor]
    shown: dict[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """A loss: runs the network on a batch once and says what is wrong with the result."""

    def __call__(self, generator: Network, batch: Batch) -> Losses: ...
