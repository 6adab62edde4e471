"""Which infrared file belongs to which visible file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import InputError
from .images import READABLE_SUFFIXES

__all__ = ["list_images", "match_stems"]

# Words that data sets put at the ends of their names to say which camera it was: `0001_ir.png`, `RGB-7.jpg`.
MODALITY = r"(?:infrared|thermal|lwir|ir|t|visible|visual|vis|vi|rgb|color|colour)"
MODALITY_AFFIX = re.compile(rf"^{MODALITY}[-_. ]+|[-_. ]+{MODALITY}$", re.IGNORECASE)


def list_images(folder: str | Path, suffixes: Sequence[str] = READABLE_SUFFIXES) -> list[Path]:
    """The picture files directly in `folder`, in the order of the numbers in their names; no hidden files.

    Raises InputError if `folder` is no directory or holds none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: not a directory")
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    found = [path for path in files if path.suffix.lower() in suffixes]
    if not found:
        raise InputError(f"{folder}: no pictures in this directory; expected *{' *'.join(suffixes)}")
    return sorted(found, key=natural_order)


def match_stems(irs: Sequence[Path], viss: Sequence[Path]) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """Pair files of the same stem: the pairs, in the order of `viss`, and the files that have no partner.

    If no stem is in both, words for the camera at either end are ignored: `7_ir.png` goes with `7_vis.png`.
    Raises InputError if two files of one side have the same stem, or if nothing pairs.
    """
    for name in (_stem, _bare_stem):
        ir_of, vis_of = _by_name(irs, name), _by_name(viss, name)
        common = vis_of.keys() & ir_of.keys()
        if common:
            pairs = [(ir_of[stem], path) for stem, path in vis_of.items() if stem in common]
            alone = [path for side in (ir_of, vis_of) for stem, path in side.items() if stem not in common]
            return pairs, alone
    raise InputError(
        f"no infrared file has the name of a visible one: {_some(irs)} against {_some(viss)}; "
        "pairs need the same file name, such as ir/7.png and vis/7.jpg"
    )


def natural_order(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key that counts digits in names as numbers."""
    parts = re.findall(r"\d+|\D+", path.stem)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts], path.name


def _stem(path: Path) -> str:
    return path.stem


def _bare_stem(path: Path) -> str:
    return MODALITY_AFFIX.sub("", path.stem)


def _by_name(paths: Sequence[Path], name: Callable[[Path], str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        stem = name(path)
        if stem in found:
            raise InputError(f"{found[stem]} and {path} have the same name {stem!r}; keep one of them")
        found[stem] = path
    return found


def _some(paths: Sequence[Path]) -> str:
    names = ", ".join(path.name for path in paths[:2])
    return f"{names}{', ...' if len(paths) > 2 else ''} ({len(paths)})"
