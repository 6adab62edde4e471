"""What the export command understands: its options, and the job that a set of them is.

The words are those of Ultralytics' exporter where it has one for the same thing.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyldfusion import hardware
from pyldfusion.artefact import BUNDLED, Artefact, open_artefact
from pyldfusion.errors import InputError, did_you_mean
from pyldfusion.image import MIN_SIDE

from . import formats
from .formats import FORMATS, Format
from .opset import OPSET, OPSETS, check_opset
from .precision import RECIPES
from .shape import ANY, Axis, Shape
from .tensorrt import HARDWARE, engine_name

__all__ = ["OPTIONS", "Job", "Option", "add_arguments", "plan"]

#: Bounds of PSNR in dB, by what is stored and computed.
MIN_PSNR = {"fp32": 60.0, "fp16-stored": 45.0, "fp16": 45.0, "int8": 38.0}
#: Bound of the error of frames in fp32, in grey levels: runtimes sum in another order.
TOLERANCE = 1.0
#: Precisions of graphs that smooth over time: a step of it is finer than 16 bits are.
TEMPORAL = ("fp32", "fp16-stored")


@dataclass(frozen=True)
class Option:
    """One option of the command, and the keyword of :func:`plan` of the same name.

    Attributes:
        name: with underscores; the flag has dashes.
        help: for a person.
        argparse: further arguments of ``add_argument``.
    """

    name: str
    help: str
    argparse: dict[str, Any] = field(default_factory=dict)

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def axis(text: str) -> Axis:
    """``"640"`` or ``"320/640/1280"`` (least, usual, largest); for argparse's `type`."""
    if not re.fullmatch(r"\d{1,6}(/\d{1,6}/\d{1,6})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, or least/usual/largest such as 320/640/1280")
    numbers = tuple(int(number) for number in text.split("/"))
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1], numbers[2])


def _listed(meanings: dict[str, str]) -> str:
    return "; ".join(f"{word}: {meaning}" for word, meaning in meanings.items())


_BOUNDS = ", ".join(f"{name} {least:g}" for name, least in MIN_PSNR.items())
#: In the order of the help.
OPTIONS = {
    option.name: option
    for option in (
        Option("format", f"{_listed({row.name: row.about for row in FORMATS.values()})} (default: by -o, or onnx)"),
        Option("half", "16 bits: what the format calls fp16 or fp16-stored", {"action": "store_true"}),
        Option("int8", "8 bits; give --data with pairs like those it will see", {"action": "store_true"}),
        Option(
            "precision",
            f"the same by name. {_listed({name: recipe.meaning for name, recipe in RECIPES.items()})}",
            {"metavar": "NAME"},
        ),
        Option("imgsz", "the size of frames; each a number or least/usual/largest (default: any size)",
               {"type": axis, "nargs": "+", "metavar": "H W"}),
        Option("batch", "frames at once, a number or least/usual/largest (default: 1 with --imgsz, else any)",
               {"type": axis, "metavar": "N"}),
        Option("dynamic", "any size and batch, with those given as the usual ones", {"action": "store_true"}),
        Option("io", "frames: uint8 pictures in and out; planes: float luma planes in [0,1] (default: frames)"),
        Option("warp", "an input homography, 3x3 per frame, and infrared of its own size, laid onto the visible inside",
               {"action": "store_true"}),
        Option("temporal", "for videos: norms and style codes smoothed over time, with the state as inputs and outputs",
               {"action": "store_true"}),
        Option("simplify", "the graph always is: constants folded, shapes asked of no tensor that need not be",
               {"action": "store_true"}),
        Option("opset", f"version of ONNX's operators, {OPSETS[0]} to {OPSETS[-1]} (default: {OPSET})",
               {"type": int, "metavar": "N"}),
        Option("data", "folder of real pairs, to verify with and for int8 to calibrate with (default: generated ones)",
               {"type": Path, "metavar": "DIR"}),
        Option("triton", "also add the file to this model repository of Triton Inference Server",
               {"type": Path, "metavar": "DIR"}),
        Option("device", "number of the GPU to build on and for (default: 0)", {"type": int, "metavar": "N"}),
        Option("workspace", "memory that a layer may use for itself (default: half of what is free)",
               {"type": float, "metavar": "GIB"}),
        Option("optimization_level", "0 builds fastest, 5 runs fastest (default: TensorRT's, 3)",
               {"type": int, "metavar": "0-5"}),
        Option("timing_cache", "measurements of earlier builds, made if it is not there",
               {"type": Path, "metavar": "FILE"}),
        Option("low_memory", "for boards of 4 to 8 GB", {"action": "store_true"}),
        Option("hardware", "other GPUs it is to run on, at some cost in speed (default: none)", {"choices": HARDWARE}),
        Option("version_compatible", "run with later versions of TensorRT too", {"action": "store_true"}),
        Option("weak_typing", "TensorRT 10: let it choose among the precision's types", {"action": "store_true"}),
        Option("force", "replace an engine that is there", {"action": "store_true"}),
        Option("no_verify", "do not run the file after writing it", {"action": "store_true"}),
        Option("min_psnr", f"least PSNR to the network, of planes (default: {_BOUNDS})",
               {"type": float, "metavar": "DB"}),
        Option("tolerance", f"largest error of fp32 frames, in grey levels of 255 (default: {TOLERANCE:g})",
               {"type": float, "metavar": "LEVELS"}),
    )
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line: weights, ``-o`` and :data:`OPTIONS`."""
    parser.add_argument("weights", help=".safetensors, an exported .onnx, or full or lite for the bundled ones")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="what to write (default: beside the weights)")
    for option in OPTIONS.values():
        others = [row for row in FORMATS.values() if option.name in row.options]
        only = f" (only {', '.join(row.name for row in others)})" if others else ""
        parser.add_argument(option.flag, default=None, help=option.help + only, **option.argparse)


@dataclass(frozen=True)
class Job:
    """What to write, from what, and how; made by :func:`plan`.

    Attributes:
        source: the file that holds the weights.
        output: the file to write.
        format: its row in the table.
        precision: a recipe of :data:`~export.precision.RECIPES`.
        io: ``"frames"`` or ``"planes"``.
        warp: whether it takes a homography (:mod:`export.warp`).
        temporal: whether it smooths its statistics over time (:mod:`pyldfusion.smoothing`).
        shape: the sizes it takes.
        opset: version of ONNX's operators.
        data: folder of real pairs, or None for generated ones.
        triton: model repository of Triton Inference Server to add the file to, or None.
        verify: whether to run the file after writing it.
        min_psnr: least PSNR of planes to the network, dB.
        tolerance: largest error of fp32 frames, grey levels.
        own: the options that only this format has, by name; None where not given.
    """

    source: Artefact
    output: Path
    format: Format
    precision: str
    io: str
    warp: bool
    temporal: bool
    shape: Shape
    opset: int
    data: Path | None
    triton: Path | None
    verify: bool
    min_psnr: float
    tolerance: float
    own: dict[str, Any]


def plan(weights: str | Path, output: Path | None = None, **options: Any) -> Job:
    """Check a set of options and fill in what was not given.

    Args:
        weights: a file, or ``"full"`` or ``"lite"``.
        output: the file to write; None: beside the weights, or in the working directory for the bundled ones.
        options: by the names of :data:`OPTIONS`; None stands for not given.

    Raises:
        InputError: an unknown option, format or value, with what comes close; options that exclude each other or that
            the format does not have, with the reason.
        ArtefactError: the weights are no file that can be read.
    """
    for name in options.keys() - OPTIONS.keys():
        raise InputError(f"{name!r} is not an option of export{did_you_mean(name, OPTIONS)}")
    given = {name: value for name, value in options.items() if value is not None and value is not False}
    row = _format(given.get("format"), output)
    for name in given:
        owners = [other.name for other in FORMATS.values() if name in other.options]
        if owners and row.name not in owners:
            raise InputError(
                f"{OPTIONS[name].flag} is for --format {' and '.join(owners)}; {row.name} has no use for it"
            )
    precision = _precision(row, given)
    io = given.get("io", "frames")
    if io not in ("frames", "planes"):
        raise InputError(f"io is {io!r}; expected frames or planes{did_you_mean(io, ('frames', 'planes'), 0.5)}")
    if "warp" in given and precision == "int8":
        raise InputError("--warp and int8 exclude each other: calibration runs on registered pairs")
    if "temporal" in given:
        _check_temporal(row, precision, io, given)
    if "triton" in given and {"warp", "temporal"} & given.keys():
        raise InputError("--triton serves graphs of two frames alone; leave out --warp and --temporal, or --triton")
    opset = given.get("opset", OPSET)
    check_opset(opset)
    data = given.get("data")
    if data is not None and not Path(data).is_dir():
        raise InputError(f"--data {str(data)!r} is not a folder; expected one with pairs, in ir/ and vis/")
    min_psnr, tolerance = given.get("min_psnr", MIN_PSNR[precision]), given.get("tolerance", TOLERANCE)
    for name, bound in (("min_psnr", min_psnr), ("tolerance", tolerance)):
        if not bound >= 0:  # also true for NaN
            raise InputError(f"{OPTIONS[name].flag} is {bound}; expected a number from 0 up")
        if name in given and "no_verify" in given:
            raise InputError(f"{OPTIONS[name].flag} is a bound of the verification that --no-verify leaves out")
    source = open_artefact(weights)
    shape = _shape(given)
    if output is None:
        output = _name(weights, source, row, precision, shape, given)
    _check_output(source, row, output, "force" in given)
    return Job(
        source=source,
        output=output,
        format=row,
        precision=precision,
        io=io,
        warp="warp" in given,
        temporal="temporal" in given,
        shape=shape,
        opset=opset,
        data=None if data is None else Path(data),
        triton=Path(given["triton"]) if "triton" in given else None,
        verify="no_verify" not in given,
        min_psnr=min_psnr,
        tolerance=tolerance,
        own={name: given.get(name) for name in row.options},
    )


def _format(name: str | None, output: Path | None) -> Format:
    if name is None:
        return FORMATS["onnx"] if output is None else formats.find_suffix(output)
    row = formats.find(name)
    if output is not None and output.suffix != row.suffix:
        raise InputError(f"--format {row.name} writes {row.suffix} files; the output is {output}")
    return row


def _precision(row: Format, given: dict[str, Any]) -> str:
    words = {
        **({"--half": row.half} if "half" in given else {}),
        **({"--int8": "int8"} if "int8" in given else {}),
        **({f"--precision {given['precision']}": given["precision"]} if "precision" in given else {}),
    }
    if len(set(words.values())) > 1:
        raise InputError(f"{' and '.join(words)} exclude each other: a file has one precision")
    (precision,) = set(words.values()) or {row.precisions[0]}
    if precision not in RECIPES:
        raise InputError(
            f"{precision!r} is not a precision{did_you_mean(precision, RECIPES, 0.5)}; there are: {', '.join(RECIPES)}"
        )
    if precision not in row.precisions:
        raise InputError(f"--format {row.name} does not come in {precision}; it has: {', '.join(row.precisions)}")
    return precision


def _shape(given: dict[str, Any]) -> Shape:
    imgsz: Sequence[Axis] = given.get("imgsz", (None,))
    if isinstance(imgsz, int):
        imgsz = (imgsz,)
    if len(imgsz) > 2:
        raise InputError(f"--imgsz has {len(imgsz)} values; expected H W, or one for a square")
    height, width = imgsz[0], imgsz[-1]
    batch: Axis = given.get("batch", 1 if "imgsz" in given and "dynamic" not in given else None)
    if "dynamic" in given:
        batch, height, width = (
            (1 if name == "batch" else MIN_SIDE, value, max(value, ANY[name][2])) if isinstance(value, int) else value
            for name, value in (("batch", batch), ("height", height), ("width", width))
        )
    return Shape(batch, height, width)


def _check_temporal(row: Format, precision: str, io: str, given: dict[str, Any]) -> None:
    if row.built:
        raise InputError(f"--temporal is for onnx and openvino; {row.name} has no use for it yet")
    clashes = {"--warp": "warp" in given, "--io planes": io == "planes", precision: precision not in TEMPORAL}
    for word, clash in clashes.items():
        if clash:
            raise InputError(f"--temporal and {word} exclude each other: it is for frames, in {' or '.join(TEMPORAL)}")


def _name(
    weights: str | Path, source: Artefact, row: Format, precision: str, shape: Shape, given: dict[str, Any]
) -> Path:
    """Beside the weights, or in the working directory for the bundled ones."""
    bundled = str(weights) in BUNDLED
    stem = (str(weights) if bundled else source.path.stem) + ("-temporal" if "temporal" in given else "")
    if row.built:
        if not hardware.cuda_devices():
            raise InputError(f"{row.about.split(',')[0]} is named by that GPU, and none is here; give a name with -o")
        name = engine_name(stem, precision, shape, given.get("device", 0))
    else:
        name = f"{stem}{'' if precision == row.precisions[0] else f'-{precision}'}{row.suffix}"
    return Path(name) if bundled else source.path.with_name(name)


def _check_output(source: Artefact, row: Format, output: Path, force: bool) -> None:
    if not output.parent.is_dir():
        raise InputError(f"the folder {output.parent} does not exist")
    written = [output, output.with_suffix(".onnx")] if row.built else [output]
    for path in written:
        if path.resolve() == source.path.resolve():
            raise InputError(f"{path}, which would be written, is the file the weights come from; give another with -o")
        if row.built and path.exists() and not force:
            raise InputError(f"{path} is there, and building an engine takes minutes; --force replaces it")
