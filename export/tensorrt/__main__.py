"""``python -m export.tensorrt GRAPH.onnx``: build a TensorRT engine from an ONNX file, for a GPU of this machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pyldfusion import hardware
from pyldfusion.errors import InputError, PyldfusionError

from ..options import axis
from ..shape import Shape
from .builder import HARDWARE, BuildOptions, build_engine, engine_name


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m export.tensorrt", description=__doc__.partition(": ")[2])
    made.add_argument("onnx", type=Path, help="the graph, as python -m export writes it; it carries its precision")
    made.add_argument(
        "-o", "--output", type=Path, help="the engine (default: beside the graph, named by what it is for)"
    )
    made.add_argument(
        "--imgsz", type=axis, nargs=2, metavar=("H", "W"), help="size of frames, each a number or least/usual/largest"
    )
    made.add_argument("--batch", type=axis, metavar="N", help="frames at once, a number or least/usual/largest")
    made.add_argument("--device", type=int, default=0, metavar="N", help="number of the GPU (default: 0)")
    made.add_argument(
        "--workspace", type=float, metavar="GIB", help="GPU memory for a layer (default: half of what is free)"
    )
    made.add_argument(
        "--optimization-level", type=int, metavar="0-5", help="0 builds fastest, 5 runs fastest (default: 3)"
    )
    made.add_argument("--timing-cache", type=Path, metavar="FILE", help="measurements to use again; made if not there")
    made.add_argument("--low-memory", action="store_true", help="for boards of 4 to 8 GB")
    made.add_argument(
        "--hardware",
        default="none",
        choices=HARDWARE,
        help="other GPUs it is to run on, at some cost in speed (default: none)",
    )
    made.add_argument("--version-compatible", action="store_true", help="run with later versions of TensorRT too")
    made.add_argument(
        "--weak-typing", action="store_true", help="TensorRT 10: let it choose among the precision's types"
    )
    made.add_argument("--force", action="store_true", help="replace an engine that is newer than the graph")
    return made


def run(args: argparse.Namespace) -> Path:
    """Build what the arguments say; the engine's path."""
    shape = Shape(1 if args.imgsz and args.batch is None else args.batch, *(args.imgsz or (None, None)))
    names = BuildOptions.__dataclass_fields__
    options = BuildOptions(**{name: getattr(args, name) for name in names})
    output = args.output
    if output is None:
        from pyldfusion.artefact import open_artefact

        if not hardware.cuda_devices():
            raise InputError("an engine is named by the GPU it is for, and none is here; give a name with -o")
        output = args.onnx.with_name(
            engine_name(args.onnx.stem, open_artefact(args.onnx).precision, shape, args.device)
        )
    made = build_engine(args.onnx, output, shape, options)
    layers = ", ".join(f"{count} in {name}" for name, count in made.layers.items())
    print(f"{output}: {made.precision}, {made.profiles[0]}, TensorRT {made.tensorrt}, {made.gpu}; layers: {layers}")
    return Path(output)


def main(argv: Sequence[str] | None = None) -> int:
    try:
        run(parser().parse_args(argv))
    except (PyldfusionError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
