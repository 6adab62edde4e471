"""Is the file that was written the network it was written from?

It runs in every runtime of this machine, on real or generated pairs, against torch in float64. Accuracy is that of the
float planes: rounding to 8 bits alone leaves 58.9 dB, too little to tell precisions apart. Where a file gives frames,
a twin of it that leaves out the rounding is run for that, and the file itself for what people see.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyldfusion import metrics
from pyldfusion.errors import EngineError
from pyldfusion.generator import Generator
from pyldfusion.image import LUMA_BGR

from .calibration import neutral_inputs
from .pairs import Pair, generated
from .runners import Runner, open_runners
from .shape import Shape

if TYPE_CHECKING:
    import onnx

    from .formats import Format

__all__ = ["METRICS", "Bounds", "Report", "Row", "verify"]

#: Whose change is reported.
METRICS = ("EN", "CC", "SD", "EI", "VIFF")
#: Bound of PSNR, dB, for frames of an engine, which has no twin: a little below what rounding leaves.
ROUNDED = 58.0
#: (height, width) of what a file in fp32 must get right as well: odd, and the smallest there is.
ODD = ((93, 171), (16, 16), (41, 17))


@dataclass(frozen=True)
class Bounds:
    """What is still the same network.

    Attributes:
        psnr: least PSNR of planes in dB, by what is computed in.
        error: largest error of frames computed in fp32, in grey levels of 255.
    """

    psnr: dict[str, float]
    error: float


@dataclass(frozen=True)
class Row:
    """One runtime over all pairs.

    Attributes:
        runtime: engine and precision, such as ``"openvino bf16"``.
        psnr: lowest PSNR of the planes to float64, dB.
        least: its bound.
        error: largest error of what the file gives, in grey levels of 255.
        most: its bound; infinite where it has none.
        ssim: lowest structural similarity of the fused luma to that of float64.
        change: mean change of each of :data:`METRICS`.
    """

    runtime: str
    psnr: float
    least: float
    error: float
    most: float
    ssim: float
    change: dict[str, float]

    @property
    def passed(self) -> bool:
        return self.psnr >= self.least and self.error <= self.most  # both false for NaN

    def __str__(self) -> str:
        changes = ", ".join(f"{name} {value:+.3f}" for name, value in self.change.items())
        return f"PSNR {self.psnr:.1f} dB, largest error {self.error:.2f} levels, SSIM {self.ssim:.4f}, {changes}"


@dataclass(frozen=True)
class Report:
    """What :func:`verify` found: on which pairs, and a row for each runtime."""

    pairs: str
    rows: list[Row]

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)

    def metadata(self) -> dict[str, str]:
        """For the file itself."""
        return {"verified_on": self.pairs} | {f"verified {row.runtime}": str(row) for row in self.rows}

    def __str__(self) -> str:
        """A table for the screen."""
        lines = [
            ["", "PSNR", "bound", "error", "bound", "SSIM", *METRICS, ""],
            ["", "dB", "dB", "levels", "levels", "", *[""] * len(METRICS), ""],
        ]
        for row in self.rows:
            most = f"{row.most:g}" if np.isfinite(row.most) else "-"
            cells = [row.runtime, f"{row.psnr:.1f}", f"{row.least:g}", f"{row.error:.2f}", most, f"{row.ssim:.4f}"]
            lines.append([*cells, *(f"{row.change[name]:+.3f}" for name in METRICS), "" if row.passed else "FAILED"])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        texts = [f"verified on {self.pairs}, against torch in float64; metrics by how much they change:"]
        for first, *others in lines:
            cells = [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))]
            texts.append(("  " + "  ".join(cells)).rstrip())
        return "\n".join(texts)


def verify(
    path: Path,
    model: onnx.ModelProto,
    network: Generator,
    *,
    row: Format,
    write: Callable[[onnx.ModelProto, Path], object],
    io: str,
    precision: str,
    shape: Shape,
    bounds: Bounds,
    pairs: Sequence[Pair],
    about_pairs: str,
) -> Report:
    """Run a file that was written, and compare it with the network.

    Args:
        path: the file.
        model: the graph it was written from.
        network: the network the graph is of.
        row: the file's format.
        write: how a graph becomes such a file, for the twin.
        io: ``"frames"`` or ``"planes"``.
        precision: the recipe of the graph.
        shape: sizes that the file takes; pairs are resized to them.
        bounds: see :class:`Bounds`.
        pairs: what to run.
        about_pairs: what they are, in words.

    Raises:
        EngineError: a runtime does not run the file.
        DependencyError: no runtime is here that could.
    """
    network = load_double(network)
    pairs = [pair.resized(*fitting(shape, *pair.ir.shape)) for pair in pairs]
    odd = [(h, w) for h, w in ODD if fitting(shape, h, w) == (h, w)]
    batch = shape.batch if isinstance(shape.batch, int) else 1
    others = neutral_inputs(model, batch)
    judged = [Case.of(pair, network, batch, others) for pair in pairs]
    few = [generated(1, "verify", size)[0] for size in odd] if precision == "fp32" else []
    small = [Case.of(pair, network, batch, others) for pair in few]
    with tempfile.TemporaryDirectory() as folder:
        runners = twins = open_runners(path, row)
        if io == "frames" and not row.built:
            twin_path = Path(folder) / f"twin{row.suffix}"
            write(without_rounding(model), twin_path)
            twins = open_runners(twin_path, row)
        rows = [
            _judge(runner, twin, judged, small, io, precision, bounds)
            for runner, twin in zip(runners, twins, strict=True)
        ]
    return Report(about_pairs, rows)


def _judge(
    runner: Runner, twin: Runner, cases: Sequence[Case], small: Sequence[Case], io: str, precision: str, bounds: Bounds
) -> Row:
    exact = runner.precision == precision == "fp32"
    rounded = io == "frames" and twin is runner
    psnrs, errors, similar, changes = [], [], [], []
    for case in cases:
        given = _run(runner, case, io)
        planes = given if twin is runner else _run(twin, case, io)
        psnrs.append(_psnr(case.plane_error(planes, io)))
        errors.append(case.error(given, io))
        ours, theirs = case.levels(given, io), case.levels(case.expected(io), io)
        similar.append(_quiet(metrics.ssim, ours, theirs, theirs))
        changes.append(_change(case, ours, theirs))
    errors += [case.error(_run(runner, case, io), io) for case in small if exact]
    return Row(
        runner.name,
        min(psnrs),
        min(bounds.psnr[precision], bounds.psnr.get(runner.precision, np.inf), ROUNDED if rounded else np.inf),
        max(errors),
        bounds.error if exact else np.inf,
        min(similar),
        metrics.mean(changes),
    )


@dataclass(frozen=True)
class Case:
    """A pair and what the network makes of it.

    Attributes:
        pair: the frames.
        batch: how often they are given at once.
        others: what is given with them, see :func:`~export.calibration.neutral_inputs`.
        luma: of the visible frame, float64 [H,W], in grey levels.
        fused: the fused plane, the same.
    """

    pair: Pair
    batch: int
    others: dict[str, NDArray[np.float32]]
    luma: NDArray[np.float64]
    fused: NDArray[np.float64]

    @classmethod
    def of(cls, pair: Pair, network: Generator, batch: int, others: dict[str, NDArray[np.float32]]) -> Case:
        luma = pair.vis @ np.array(LUMA_BGR, np.float64)
        planes = [torch.from_numpy(plane[None, None] / 255) for plane in (pair.ir.astype(np.float64), luma)]
        with torch.inference_mode():
            fused = network(*planes)[0, 0].numpy() * 255
        return cls(pair, batch, others, luma, fused)

    def inputs(self, io: str) -> dict[str, NDArray[np.uint8] | NDArray[np.float32]]:
        if io == "frames":
            ir, vis = self.pair.ir[None, ..., None], self.pair.vis[None]
        else:
            ir, vis = ((plane[None, None] / 255).astype(np.float32) for plane in (self.pair.ir, self.luma))
        return {"ir": np.repeat(ir, self.batch, 0), "vis": np.repeat(vis, self.batch, 0)} | self.others

    def expected(self, io: str) -> NDArray[np.float64]:
        """What a file of that io gives, exactly; frames before they are rounded."""
        return self.pair.vis + (self.fused - self.luma)[..., None] if io == "frames" else self.fused / 255

    def plane_error(self, result: NDArray[np.float64], io: str) -> NDArray[np.float64]:
        """Of what a twin or a file of planes gave, in grey levels."""
        error: NDArray[np.float64] = result - self.expected(io)
        return error if io == "frames" else 255 * error

    def error(self, result: NDArray[np.float64], io: str) -> float:
        """The largest of what the file gave, in grey levels."""
        expected = self.expected(io)
        scale = 255.0
        if io == "frames":
            expected, scale = np.rint(np.clip(expected, 0, 255)), 1.0
        return float(scale * np.abs(result - expected).max())

    def levels(self, result: NDArray[np.float64], io: str) -> NDArray[np.uint8]:
        """As a picture that metrics take."""
        return np.rint(np.clip(result if io == "frames" else 255 * result, 0, 255)).astype(np.uint8)


def _run(runner: Runner, case: Case, io: str) -> NDArray[np.float64]:
    """The first of the batch, float64: [H,W,3] of frames, [H,W] of planes."""
    try:
        result = runner.run(case.inputs(io))
    except Exception as error:
        height, width = case.luma.shape
        raise EngineError(f"{runner.name} fails at {width}x{height}, {case.batch} at once: {error}") from error
    return np.asarray(result[0] if io == "frames" else result[0, 0], np.float64)


def _change(case: Case, ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> dict[str, float]:
    after, before = (_quiet(metrics.evaluate, fused, case.pair.ir, case.pair.vis) for fused in (ours, theirs))
    return {name: after[name] - before[name] for name in METRICS}


def _quiet(function: Callable[..., Any], *pictures: NDArray[np.uint8]) -> Any:
    """Pictures too small for a metric have none; that is no news here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return function(*pictures)


def _psnr(error: NDArray[np.float64]) -> float:
    mse = float(np.mean(error**2))
    return float("inf") if mse == 0 else float(10 * np.log10(255**2 / mse))


def without_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph of frames, that gives them as floats, before they are rounded and clipped."""
    import onnx

    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    (rounding,) = (node for node in twin.graph.node if node.op_type == "Round")
    output = twin.graph.output[0]
    shape = [dim.dim_param or dim.dim_value for dim in output.type.tensor_type.shape.dim]
    producer = next(node for node in twin.graph.node if rounding.input[0] in node.output)
    for node in twin.graph.node:
        if output.name in node.output:
            node.output[list(node.output).index(output.name)] = f"{output.name}.rounded"
    producer.output[list(producer.output).index(rounding.input[0])] = output.name
    rounding.input[0] = output.name
    output.CopyFrom(onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, shape))
    return twin


def fitting(shape: Shape, height: int, width: int) -> tuple[int, int]:
    """The size nearest to (height, width) that a file of that shape takes."""
    sizes = []
    for value, side in ((shape.height, height), (shape.width, width)):
        least, _, most = (value, value, value) if isinstance(value, int) else value or (side, side, side)
        sizes.append(min(max(side, least), most))
    return sizes[0], sizes[1]


def load_double(generator: Generator) -> Generator:
    """A float64 copy of ``generator`` in evaluation mode."""
    copied = Generator(generator.shape)
    copied.load_state_dict(generator.state_dict())
    return copied.double().eval()
