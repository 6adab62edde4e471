"""Two cameras on a command line: their addresses, their options, and what is said of them."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..camera.uri import SCHEMES, source_options
from .console import Console

if TYPE_CHECKING:
    from ..camera.uri import Address

__all__ = ["add_camera_options", "cameras_of", "events_to"]


def add_camera_options(parser: argparse.ArgumentParser) -> None:
    """``--ir-OPTION`` and ``--vis-OPTION`` for every option that a camera may have."""
    add = parser.add_argument_group("cameras (--vis-... is the same for the other one)").add_argument
    for option, schemes in source_options():
        where = (
            "all" if len(schemes) == len({row.name for row in SCHEMES if row.role == "source"}) else ", ".join(schemes)
        )
        add(f"--ir-{option.name}", metavar="X", help=f"{option.help} ({where})".replace("%", "%%"))
        add(f"--vis-{option.name}", help=argparse.SUPPRESS)


def cameras_of(args: argparse.Namespace, uris: Sequence[str]) -> list[Address]:
    """The addresses of the infrared and the visible camera, with the options that the command line has for them."""
    from ..camera import parse

    return [
        parse(uri, "source", {
            option.name: value
            for option, _ in source_options()
            if (value := getattr(args, f"{name}_{option.name}".replace("-", "_"))) is not None
        })
        for name, uri in zip(("ir", "vis"), uris, strict=False)
    ]  # fmt: skip


@contextmanager
def events_to(console: Console) -> Iterator[None]:
    """Events of cameras and outputs, as notes; what has failed for good as errors."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say = console.error if record.levelno >= logging.ERROR else console.note
            say(record.getMessage())

    log, handler = logging.getLogger("pyldfusion.camera"), Handler()
    log.addHandler(handler)
    propagate, log.propagate = log.propagate, False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagate
