"""What each layer loses in fewer bits, and which ones to keep in float so that a bound is met."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .calibration import Feed
from .quantize import KEEP, Calibrated, runner
from .verify import without_rounding

if TYPE_CHECKING:
    import onnx

__all__ = ["Choice", "Cost", "choose_layers", "costs_alone", "layer_costs", "name_costs", "psnr"]

#: Pairs that layers are judged by; costs keep their order with more.
JUDGED = 4
#: So many layers are named where a file fails.
NAMED = 5
_UINT8 = 2  # onnx.TensorProto.UINT8, in graphs of frames


@dataclass(frozen=True)
class Cost:
    """One layer in fewer bits alone, all others in float.

    Attributes:
        layer: its name.
        psnr: lowest over the pairs, dB of the float planes or frames to the graph in float.
        share: of the squared error that all layers make, each alone: near what it has in all of them together.
    """

    layer: str
    psnr: float
    share: float

    def __str__(self) -> str:
        return f"{self.layer} {self.psnr:.1f} dB ({100 * self.share:.0f} %)"


@dataclass(frozen=True)
class Choice:
    """What :func:`choose_layers` settled on.

    Attributes:
        model: the graph in INT8.
        keep: layers in float.
        psnr: lowest over the pairs, dB.
        costs: of the layers, if they were needed; the most costly first.
    """

    model: onnx.ModelProto
    keep: tuple[str, ...]
    psnr: float
    costs: tuple[Cost, ...]

    def metadata(self) -> dict[str, str]:
        """For the file itself."""
        about = {"int8_float_layers": ", ".join(self.keep) or "none", "int8_calibration_psnr": f"{self.psnr:.1f} dB"}
        return about | ({"int8_costs": ", ".join(map(str, self.costs))} if self.costs else {})


def layer_costs(calibrated: Calibrated, pairs: Sequence[Feed], *, keep: Iterable[str] = ()) -> list[Cost]:
    """Quantise one layer at a time and compare with the graph in float; the most costly first.

    Args:
        calibrated: the graph with its ranges.
        pairs: what to run; :data:`JUDGED` of them, spread over them, are used. A progress bar is shown on a terminal.
        keep: layers to leave out.
    """
    left = [name for name in calibrated.layers if name not in set(keep)]
    return costs_alone(
        calibrated.model, left, lambda name: calibrated.quantized(set(calibrated.layers) - {name}), pairs
    )


def costs_alone(
    exact: onnx.ModelProto, layers: Sequence[str], alone: Callable[[str], onnx.ModelProto], pairs: Sequence[Feed]
) -> list[Cost]:
    """Compare graphs that have one layer in fewer bits with the one that has none; the most costly first.

    Args:
        exact: the graph in float.
        layers: their names.
        alone: the graph with that layer in fewer bits.
        pairs: as in :func:`layer_costs`.
    """
    judge = _Judge(exact, pairs)
    errors = {}
    with _progress(len(layers), "sensitivity") as advance:
        for name in layers:
            errors[name] = judge.errors(alone(name))
            advance()
    total = sum(error.mean() for error in errors.values()) or 1.0
    costs = [Cost(name, psnr(error.max()), float(error.mean() / total)) for name, error in errors.items()]
    return sorted(costs, key=lambda cost: (-cost.share, cost.layer))


def name_costs(costs: Iterable[Cost], bits: int) -> str:
    """The most costly layers in a sentence, for a file that failed; "" if there are none."""
    most = [str(cost) for cost in costs][:NAMED]
    return f"the layers that cost most in {bits} bits, each alone: {', '.join(most)}. " if most else ""


def choose_layers(calibrated: Calibrated, pairs: Sequence[Feed], bound: float, *, keep: Iterable[str] = KEEP) -> Choice:
    """Quantise as much as a bound allows: layers go back to float, the most costly first, until it is met.

    If even the last one does not help, the graph has no layer in INT8 and the PSNR is infinite: whoever asks for that
    bound should export in float.

    Args:
        calibrated: the graph with its ranges.
        pairs: what to judge by, as in :func:`layer_costs`.
        bound: least PSNR in dB.
        keep: layers in float from the start, as patterns.
    """
    judge = _Judge(calibrated.model, pairs)
    kept = calibrated.matching(keep)
    costs: list[Cost] = []
    while True:
        model = calibrated.quantized(kept)
        reached = psnr(judge.errors(model).max())
        if reached >= bound or len(kept) == len(calibrated.layers):
            ordered = tuple(name for name in calibrated.layers if name in kept)
            return Choice(model, ordered, reached, tuple(costs))
        costs = costs or layer_costs(calibrated, pairs, keep=kept)
        kept |= _most_costly([cost for cost in costs if cost.layer not in kept], 10 ** ((reached - bound) / 10))


def _most_costly(costs: Sequence[Cost], share: float) -> frozenset[str]:
    """The first layers, at least one, without which the others make at most that share of the error of all."""
    errors = np.array([cost.share for cost in costs])
    rest = 1 - np.cumsum(errors) / max(errors.sum(), 1e-30)
    count = 1 + int(np.argmax(rest <= max(share, 1e-9)))
    return frozenset(cost.layer for cost in costs[:count])


def psnr(error: float) -> float:
    """dB of a mean squared error to a peak of 1."""
    return float("inf") if error == 0 else float(-10 * np.log10(error))  # NaN stays NaN, which meets no bound


class _Judge:
    """Mean squared errors of graphs to one in float, of planes or frames in [0, 1] before they are rounded."""

    def __init__(self, model: onnx.ModelProto, pairs: Sequence[Feed]) -> None:
        self.pairs = [pairs[i * len(pairs) // JUDGED] for i in range(JUDGED)] if len(pairs) > JUDGED else list(pairs)
        self.exact = list(self._run(model))

    def errors(self, model: onnx.ModelProto) -> NDArray[np.float64]:
        """One a pair."""
        runs = zip(self._run(model), self.exact, strict=True)
        return np.array([np.mean((ours - exact) ** 2) for ours, exact in runs])

    def _run(self, model: onnx.ModelProto) -> Iterator[NDArray[np.float64]]:
        types = [values[0].type.tensor_type.elem_type for values in (model.graph.input, model.graph.output)]
        peak = 255 if types[0] == _UINT8 else 1
        run = runner(without_rounding(model) if types[1] == _UINT8 else model, ["fused"])
        for feed in self.pairs:
            yield run(feed)[0].astype(np.float64) / peak


@contextmanager
def _progress(total: int, what: str) -> Iterator[Callable[[], None]]:
    """A line on the terminal that counts."""
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if sys.stderr.isatty():
            print(f"\r{what}: {done} of {total} layers", end="", file=sys.stderr, flush=True)

    yield advance
    if sys.stderr.isatty():
        print(file=sys.stderr)
