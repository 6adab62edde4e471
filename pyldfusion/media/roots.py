"""Which files make a pair: folders under the names that data sets use, or a CSV manifest."""

from __future__ import annotations

import csv
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError
from .images import READABLE_SUFFIXES
from .pairing import list_images, match_stems

__all__ = ["FOLDERS", "PairFiles", "Root", "find_roots", "parse_root"]

#: Folder names of public data sets, (infrared, visible); upper and lower case do not matter.
FOLDERS = (
    ("ir", "vi"),
    ("ir", "vis"),
    ("ir", "visible"),
    ("ir", "rgb"),
    ("infrared", "visible"),
    ("infrared", "vis"),
    ("infrared", "rgb"),
    ("cropinfrared", "crop_LR_visible"),
    ("thermal", "rgb"),
    ("thermal", "visible"),
    ("thermal", "vis"),
    ("tir", "rgb"),
    ("tir", "vis"),
    ("lwir", "visible"),
    ("lwir", "rgb"),
)


Folders = tuple[Path, Path]


@dataclass(frozen=True)
class PairFiles:
    """Where one pair is, and what is said of it.

    Attributes:
        name: ``root/stem``, one of its kind.
        ir, vis: the two files.
        group: what frames of one scene share.
        weight: how often it is seen, against the others.
    """

    name: str
    ir: Path
    vis: Path
    group: str
    weight: float = 1.0


@dataclass
class Root:
    """One place with pairs: a folder with the two folders of pictures in it, or a CSV manifest.

    Attributes:
        label: first part of the names of its pairs.
        path: the folder or the manifest.
        weight: of every pair in it (a manifest may weigh its pairs besides).
        files: its pairs, by name.
        skipped: name -> why a file of it is no part of a pair.
        note: what a person should know of how it was read, "" if nothing.
    """

    label: str
    path: Path
    weight: float
    files: list[PairFiles] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    note: str = ""


def parse_root(text: str | Path) -> tuple[Path, float]:
    """``DIR``, ``DIR=2`` or ``pairs.csv=0.5`` -> (path, weight). A path that exists as it is written has weight 1.

    Raises:
        InputError: nothing is there, or the weight is no finite number above 0.
    """
    path, weight = Path(text), 1.0
    before, equals, after = str(text).rpartition("=")
    if not path.exists() and equals:
        path = Path(before)
        try:
            weight = float(after)
        except ValueError:
            weight = math.nan
        if path.exists() and not 0 < weight < math.inf:
            raise InputError(f"{text}: the weight {after!r} is no number above 0; expected such as {before}=2")
    if not path.exists():
        raise InputError(f"{path}: no such folder or file; expected a folder of pairs or a CSV manifest")
    return path, weight


def find_roots(texts: Sequence[str | Path]) -> list[Root]:
    """Find the pairs of every root without opening a picture.

    A folder holds two folders named as in :data:`FOLDERS`. They may lie one level deeper (``train/ir``), or their
    pictures may (``infrared/train``); of several such parts ``train`` is taken alone if there is one, else all.
    Files are paired by stem.

    Args:
        texts: as :func:`parse_root` takes them.

    Raises:
        InputError: a root that does not exist, is given twice, has no pictures or none that pair; a manifest that
            cannot be read, has other columns, or no row that can be used. A single wrong row is skipped.
    """
    roots: list[Root] = []
    labels: set[str] = set()
    places: set[Path] = set()
    for text in texts:
        path, weight = parse_root(text)
        place = path.resolve()
        if place in places:
            raise InputError(f"{path} is given twice; give it once, with a weight: {path}=2")
        places.add(place)
        if path.is_file():
            root = Root(_label(path.with_suffix(""), labels), path, weight)
            _read_manifest(root)
            roots.append(root)
        else:
            roots += _read_folder(path, weight, labels)
    return roots


def _label(path: Path, taken: set[str]) -> str:
    """The last part of a path, with the one before it where that is taken (two data sets' ``train``)."""
    whole = Path(os.path.abspath(path))
    label = whole.name
    if label in taken:
        label = base = f"{whole.parent.name}-{label}"
        number = 2
        while label in taken:
            label, number = f"{base}-{number}", number + 1
    taken.add(label)
    return label


def _read_folder(path: Path, weight: float, labels: set[str]) -> list[Root]:
    """The roots in a folder: itself, or its parts."""
    here = _named_folders(path)
    if here:
        parts = _parts(*here) or {"": here}
    else:
        parts = {folder.name: two for folder in _folders(path) if (two := _named_folders(folder))}
        if not parts:
            known = ", ".join("/".join(names) for names in FOLDERS)
            raise InputError(
                f"{path} has no folders of infrared and visible pictures, nor has any folder in it; looked for "
                f"{known}. A CSV file with the columns ir and vis serves for any other layout"
            )
    chosen, note = _chosen(parts)
    roots = []
    for name, (ir, vis) in chosen.items():
        root = Root(_label(path / name, labels), path if here else path / name, weight, note=note)
        _read_pictures(root, ir, vis)
        roots.append(root)
    return roots


def _folders(path: Path) -> list[Path]:
    """The folders in ``path`` that may be read."""
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir() and os.access(entry, os.R_OK | os.X_OK))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _named_folders(path: Path) -> Folders | None:
    """The infrared and the visible folder in ``path``, if it has two of a known pair of names."""
    there = {folder.name.lower(): folder for folder in _folders(path)}
    for names in FOLDERS:
        ir, vis = (there.get(name.lower()) for name in names)
        if ir and vis:
            return ir, vis
    return None


def _parts(ir: Path, vis: Path) -> dict[str, Folders]:
    """Folders that are in both of two folders without pictures of their own (``infrared/train``)."""
    if any(entry.suffix.lower() in READABLE_SUFFIXES for folder in (ir, vis) for entry in folder.iterdir()):
        return {}
    both = {folder.name for folder in _folders(ir)} & {folder.name for folder in _folders(vis)}
    return {name: (ir / name, vis / name) for name in sorted(both)}


def _chosen(parts: dict[str, Folders]) -> tuple[dict[str, Folders], str]:
    """``train`` of the parts of a data set, else all of them; and a note on what is left out."""
    train = {name: two for name, two in parts.items() if name.lower() == "train"}
    left = ", ".join(sorted(parts.keys() - train.keys()))
    return (train, f"{left} left out" if left else "") if train else (parts, "")


def _read_pictures(root: Root, ir: Path, vis: Path) -> None:
    """Pair the files of two folders by stem."""
    sides = []
    for kind, folder in (("infrared", ir), ("visible", vis)):
        files = list_images(folder)
        often = {stem for stem, count in Counter(path.stem for path in files).items() if count > 1}
        for stem in often:
            root.skipped[f"{root.label}/{stem}"] = f"several {kind} files have this name"
        sides.append([path for path in files if path.stem not in often])
    pairs, alone = match_stems(*sides)
    for path in alone:
        root.skipped.setdefault(f"{root.label}/{path.stem}", f"{path} has no partner")
    for ir_file, vis_file in sorted(pairs, key=lambda pair: pair[1].stem):
        name = f"{root.label}/{vis_file.stem}"
        root.files.append(PairFiles(name, ir_file, vis_file, _group(name), root.weight))


def _group(name: str) -> str:
    """``m3svd/0111_1716_v0060`` -> ``m3svd/0111_1716``: without the last number, which counts frames."""
    return re.sub(r"_v?\d+$", "", name)


def _read_manifest(root: Root) -> None:
    """Rows of a CSV file: columns ir and vis (paths, relative to the file), optional name, weight, group.

    A wrong row is skipped as a picture that cannot be read is, under the number of its line.
    """
    path = root.path
    lines: dict[str, int] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a byte order mark
            reader = csv.DictReader(file, skipinitialspace=True)
            if missing := {"ir", "vis"} - set(reader.fieldnames or ()):
                raise InputError(
                    f"{path}: line 1 has no column {' nor '.join(sorted(missing))}; expected a header with ir and vis, "
                    f"and maybe name, weight, group; found {', '.join(reader.fieldnames or ()) or 'nothing'}"
                )
            for row in reader:
                try:
                    files = _manifest_row(root, row)
                    if files.name in lines:
                        raise InputError(
                            f"the name {files.name!r} is that of line {lines[files.name]}; expected names that differ: "
                            "give them in a column 'name'"
                        )
                except InputError as error:
                    root.skipped[f"{root.label}/line {reader.line_num}"] = str(error)
                    continue
                lines[files.name] = reader.line_num
                root.files.append(files)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV manifest that can be read ({error})") from error
    if not root.files and root.skipped:
        first, why = next(iter(root.skipped.items()))
        raise InputError(f"{path}: none of its {len(root.skipped)} rows can be used; {first.rpartition('/')[2]}: {why}")
    if not root.files:
        raise InputError(f"{path}: no line after the header; expected one for every pair")
    root.files.sort(key=lambda files: files.name)


def _manifest_row(root: Root, row: dict[str, str]) -> PairFiles:
    """Raises InputError: a value that is missing or wrong, a picture that is not there."""
    values = {key: (row.get(key) or "").strip() for key in ("ir", "vis", "name", "weight", "group")}
    for key in ("ir", "vis"):
        if not values[key]:
            raise InputError(f"no value in the column {key}; expected the path of a picture")
    try:
        weight = float(values["weight"] or 1)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise InputError(f"the weight is {values['weight']!r}; expected a number above 0")
    ir, vis = (root.path.parent / values[key] for key in ("ir", "vis"))
    for file in (ir, vis):
        if not file.is_file():
            raise InputError(f"{file}: no such file; expected a path that is whole, or relative to the manifest")
    name = f"{root.label}/{values['name'] or vis.stem}"
    group = f"{root.label}/{values['group']}" if values["group"] else _group(name)
    return PairFiles(name, ir, vis, group, weight * root.weight)
