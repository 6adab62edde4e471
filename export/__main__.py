"""``python -m export WEIGHTS -o model.onnx``"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pyldfusion.artefact import open_artefact
from pyldfusion.cli.parser import Parser
from pyldfusion.errors import DependencyError, EngineError, PyldfusionError

from .options import add_arguments, plan

__all__ = ["add_arguments", "main", "run"]


def run(args: argparse.Namespace) -> int:
    """Export and verify as the parsed arguments say; raises PyldfusionError."""
    job = plan(**vars(args))
    if job.format.missing:
        raise DependencyError(
            f"--format {job.format.name} needs {' and '.join(job.format.missing)}: {job.format.install}"
        )
    from .pipeline import export

    result = export(job)
    size = open_artefact(result.path).size / 1e6
    print(f"{result.path}: {job.source.variant}, {job.precision}, {job.io} {job.shape}, {size:.2f} MB")
    if result.report is not None:
        print(result.report)
    if not result.passed:
        raise EngineError(
            f"the file differs from the network by more than is allowed and was kept as {result.path}; "
            f"more accurate is --precision {job.format.precisions[0]}. {result.advice}".rstrip()
        )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser("python -m export", "Write the fusion network as a file that runtimes open, and prove it equal.")
    add_arguments(parser)
    try:
        return run(parser.parse(sys.argv[1:] if argv is None else argv))
    except (PyldfusionError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
