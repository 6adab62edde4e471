"""``python -m export WEIGHTS -o model.onnx``"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pyldfusion.errors import PyldfusionError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", help=".safetensors, an exported .onnx, or full or lite for the bundled ones")
    parser.add_argument("-o", "--output", type=Path, help="the .onnx file to write (default: beside the weights)")
    parser.add_argument(
        "--precision",
        default="fp32",
        choices=("fp32", "fp16-stored"),
        help="fp16-stored: 16-bit weights, computed in 32 bits, half the size (default: fp32)",
    )
    parser.add_argument(
        "--io",
        default="frames",
        choices=("frames", "planes"),
        help="frames: uint8 pictures in and out; planes: float luma planes in [0,1] (default: frames)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=None,
        metavar="LEVELS",
        help="largest difference to the network allowed, in grey levels of 255 (default: 1)",
    )
    parser.add_argument("--no-verify", action="store_true", help="do not run the file after writing it")


def run(args: argparse.Namespace) -> int:
    """Export and verify as the parsed arguments say; raises PyldfusionError."""
    from pyldfusion.artefact import BUNDLED, open_artefact
    from pyldfusion.errors import DependencyError

    try:
        from pyldfusion.generator import load_generator

        from .onnx import export_onnx
        from .verify import TOLERANCE, verify_onnx
    except ModuleNotFoundError as error:
        raise DependencyError(f"exporting needs {error.name}: pip install 'pyldfusion[export]'") from error

    source = open_artefact(args.weights)
    generator = load_generator(source)
    output = args.output
    if output is None:
        output = Path(f"{args.weights}.onnx") if args.weights in BUNDLED else source.path.with_suffix(".onnx")
    if output.resolve() == source.path.resolve():
        raise PyldfusionError(f"the output {output} is the file the weights come from; give another with -o")
    if not output.parent.is_dir():
        raise PyldfusionError(f"the folder {output.parent} does not exist")
    export_onnx(generator, output, io=args.io, precision=args.precision, metadata=source.metadata)
    print(f"{output}: {generator.variant}, {args.precision}, {args.io}, {output.stat().st_size / 1e6:.2f} MB")
    if args.no_verify:
        return 0
    checks = verify_onnx(output, generator, TOLERANCE if args.tolerance is None else args.tolerance)
    for check in checks:
        size = f"{check.size[0]}x{check.size[1]}"
        print(f"  {check.runtime:12} {size:>8}  max error {check.max_error:.4f} levels, PSNR {check.psnr:.1f} dB")
    if args.precision == "fp16-stored":
        print(f"  16-bit weights change the result by at most {max(c.storage_error for c in checks):.4f} levels")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m export", description="Write the fusion network as an ONNX file that any runtime opens."
    )
    add_arguments(parser)
    try:
        return run(parser.parse_args(argv))
    except (PyldfusionError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
