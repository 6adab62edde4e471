"""Write model files for inference runtimes from weights; the same program as `python -m export`."""

from __future__ import annotations

import argparse

from .programs import need, program

HELP = "write model files for runtimes (needs torch)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    program("export").add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    need("torch", "pyldfusion export", "export")
    return int(program("export").run(args))
