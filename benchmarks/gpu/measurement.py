"""What every measurement of the bench stage is given."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .clock import Clock
from .deadline import Deadline
from .results import Results


@dataclass
class Bench:
    """Where a measurement puts its figures, how long it has, and with what it measures."""

    results: Results
    deadline: Deadline
    clock: Clock
    quick: bool

    @property
    def device(self) -> torch.device:
        return self.clock.device

    def peak(self, name: str) -> float:
        """A rate that ``peaks.py`` measured, in its unit (GB/s, TFLOP/s)."""
        return float(self.results.sections["peaks"][name]["value"])
