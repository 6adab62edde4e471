"""What every measurement of the bench stage is given."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from .clock import Clock
from .deadline import Deadline
from .results import Results


@dataclass
class Bench:
    """Where a measurement puts its figures, how long it has, and with what it measures.

    Attributes:
        rates: frames a second by contender, of this run, for ratios.
    """

    results: Results
    deadline: Deadline
    clock: Clock
    quick: bool
    rates: dict[str, float] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return self.clock.device

    def peak(self, name: str) -> float:
        """A rate that ``peaks.py`` measured, in its unit (GB/s, TFLOP/s)."""
        return float(self.results.sections["peaks"][name]["value"])
