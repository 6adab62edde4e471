"""What an output of ``stream`` must not be written over: inputs, recordings, other outputs."""

from __future__ import annotations

import argparse
import glob
import os
import re
import string
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from ..camera import Address

__all__ = ["check_nothing_is_replaced"]


def check_nothing_is_replaced(args: argparse.Namespace, cameras: list[Address], outputs: list[Address]) -> None:
    """Raises InputError where an output, ``--record`` or ``--stats`` would replace what is read or was recorded."""
    _check_recordings(args, outputs)
    _check_files(args, [address.target for address in cameras if address.scheme.name == "file"], outputs)


def _check_recordings(args: argparse.Namespace, outputs: list[Address]) -> None:
    """Raises InputError where the recording that is replayed, or an earlier one, would be replaced."""
    from ..camera.recording import check_is_new, recording_files

    if args.replay:
        kept = {path.resolve() for path in recording_files(args.replay)}
        for address in outputs:
            if address.scheme.name == "file" and Path(address.target).resolve() in kept:
                raise InputError(f"{address} is a file of the recording that --replay reads; choose another name")
        if args.record and Path(args.record).resolve() == Path(args.replay).resolve():
            raise InputError(f"--record {args.record} is the folder that --replay reads; choose another folder")
    if args.record:
        check_is_new(args.record)


def _check_files(args: argparse.Namespace, inputs: list[str], outputs: list[Address]) -> None:
    """Raises InputError where an output would replace an input, another output or a part of a recording."""
    from ..camera.recording import recording_files
    from ..media import check_not_input
    from ..media.outputs import is_video, picture_pattern

    folders, files = _places_of(inputs)
    taken = {Path(text).resolve() for text in inputs}
    for folder in (args.replay, args.record):
        taken |= {path.resolve() for path in recording_files(folder)} if folder else set()
    for address in outputs:
        if address.scheme.name != "file":
            continue
        path = Path(address.target).resolve()
        if path in taken:
            raise InputError(f"{address} would replace an input or another output; choose another name")
        taken.add(path)
        if not is_video(address.target):
            pattern = picture_pattern(address.target, "{index:06d}")
            folder, name = os.path.split(pattern)
            folder = os.path.realpath(folder)
            if any(_names(folder).fullmatch(str(place)) for place in folders):
                raise InputError(
                    f"{address} would write pictures among those of an input, and over them where the names are the "
                    "same; choose another folder"
                )
            for file in files:
                if _names(os.path.join(folder, name)).fullmatch(str(file)):
                    raise InputError(f"{address} would write over the input {file}; choose another name or folder")
    if args.stats not in (None, "-"):
        check_not_input("--stats", args.stats, inputs)
        if Path(args.stats).resolve() in taken:
            raise InputError(f"--stats {args.stats} would replace an output or a recording; choose another file")


def _places_of(inputs: list[str]) -> tuple[set[Path], set[Path]]:
    """Of inputs that are many pictures the folders, and of the others the files; links are followed."""
    folders: set[Path] = set()
    files: set[Path] = set()
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            folders.add(path.resolve())
            found = list(path.iterdir()) if os.access(path, os.R_OK | os.X_OK) else []
        elif not path.exists() and glob.has_magic(text):
            found = [Path(name) for name in glob.glob(text, recursive=True)]
            folders |= {file.parent.resolve() for file in found}
        else:
            files |= {path.resolve(), path.parent.resolve() / path.name}
            continue
        folders |= {file.resolve().parent for file in found if file.is_file()}
    return folders, files


def _names(pattern: str) -> re.Pattern[str]:
    """What the names that a pattern of pictures makes look like."""
    looks = {"index": r"\d+", "view": "fused", "stem": ""}
    parts = [re.escape(text) + (looks[field] if field else "") for text, field, *_ in string.Formatter().parse(pattern)]
    return re.compile("".join(parts), re.DOTALL)
