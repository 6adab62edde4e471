"""Train the network; the same program as `python -m trainer`."""

from __future__ import annotations

from collections.abc import Sequence

from .programs import need, program

HELP = "train the network (needs torch)"


def main(argv: Sequence[str]) -> int:
    """Hand the command line over to the trainer."""
    need("torch", "pyldfusion train", "train")
    return int(program("trainer").main(list(argv)))
