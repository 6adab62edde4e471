"""The recipe int8: calibrate, quantise, and leave in float what costs more than the bound allows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .calibration import Feed, calibration_pairs, feeds
from .half import compute_in_half
from .quantize import Calibrated, calibrate
from .sensitivity import Choice, choose_layers, layer_costs, name_costs

if TYPE_CHECKING:
    import onnx

__all__ = ["BOUND", "MARGIN", "Int8", "to_int8"]

#: Least PSNR of planes, dB, if nobody says otherwise.
BOUND = 38.0
#: dB by which the pairs that were calibrated with must be better, since others are worse than them.
MARGIN = 3.0


@dataclass(frozen=True)
class Int8:
    """A graph in INT8 and how it came about.

    Attributes:
        model: the graph.
        metadata: for the file: pairs, scheme of the activations, layers in float, what layers cost if it was measured.
    """

    model: onnx.ModelProto
    metadata: dict[str, str]
    calibrated: Calibrated
    feeds: list[Feed]
    choice: Choice

    def advice(self) -> str:
        """Which layers cost most, for a file that failed; measured now if it was not."""
        costs = self.choice.costs or layer_costs(self.calibrated, self.feeds, keep=self.choice.keep)
        left = name_costs((cost for cost in costs if cost.layer not in self.choice.keep), 8)
        return f"{left}Calibrate with --data on pairs like those that it will see"


def to_int8(model: onnx.ModelProto, data: Path | None = None, *, bound: float = BOUND, tensorrt: bool = False) -> Int8:
    """Quantise a graph so that it is near the network.

    Args:
        model: the graph in FP32; may be changed.
        data: pairs to calibrate with, see :func:`~export.calibration.calibration_pairs`.
        bound: least PSNR of planes in dB that will be asked of it; layers stay in float until the pairs it was
            calibrated with are :data:`MARGIN` above.
        tensorrt: symmetric activations, and what is not in INT8 in FP16 as :func:`~export.half.compute_in_half`.

    Raises:
        InputError: pairs that cannot be used, weights that 16 bits cannot hold.
        DependencyError: ONNX Runtime's quantiser cannot be imported.
    """
    pairs, about = calibration_pairs(data)
    inputs = feeds(model, pairs)
    activations = "symmetric" if tensorrt else "asymmetric"
    calibrated = calibrate(compute_in_half(model) if tensorrt else model, inputs, activations=activations)
    choice = choose_layers(calibrated, inputs, bound + MARGIN)
    metadata = {"int8_calibrated_on": about, "int8_activations": activations, **choice.metadata()}
    return Int8(choice.model, metadata, calibrated, inputs, choice)
