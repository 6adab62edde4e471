"""Boxes of objects: Pascal VOC XML and YOLO text read, YOLO text written.

A YOLO file has a line for each object: number of its class from 0, then centre x, centre y, width and height of its box
as shares of the picture. A VOC file names the classes and gives corners in pixels; what it calls difficult is left out,
as detectors trained on VOC leave it out.
"""

from __future__ import annotations

import difflib
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from pyldfusion.errors import InputError

__all__ = ["read_boxes", "read_text", "voc_names"]

#: class, centre x, centre y, width, height
Box = tuple[int, float, float, float, float]
#: By how much a share may leave [0, 1]: labelling tools round.
SLACK = 1e-3


def read_boxes(path: Path, names: Sequence[str], size: tuple[int, int]) -> str:
    """The YOLO text of a label file.

    Args:
        path: ``.txt`` (YOLO) or ``.xml`` (VOC).
        names: of the classes, in the order of their numbers.
        size: (width, height) of the picture.

    Returns:
        A line for each box; "" where there is none. Boxes are clipped to the picture.

    Raises:
        InputError: the file cannot be read or is not of this form, a class that is not in ``names``, a VOC file for a
            picture of another size; names file and line or object.
    """
    boxes = _from_voc(path, names, size) if path.suffix.lower() == ".xml" else _from_yolo(path, names)
    return "".join(f"{kind} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for kind, x, y, w, h in map(_clipped, boxes) if w * h)


def voc_names(paths: Sequence[Path]) -> list[str]:
    """The classes that VOC files speak of, sorted.

    Raises:
        InputError: a file cannot be read.
    """
    return sorted({_text(item, "name", path) for path in paths for item in _annotation(path).iter("object")})


def _from_yolo(path: Path, names: Sequence[str]) -> list[Box]:
    boxes = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        where = f"{path}, line {number}"
        try:
            kind, shares = int(words[0]), [float(word) for word in words[1:]]
        except ValueError:
            kind, shares = -1, []
        if len(shares) != 4 or not all(math.isfinite(share) for share in shares):
            raise InputError(
                f"{where}: {line!r}; expected a class number and four shares: centre x and y, width, height"
            )
        if not 0 <= kind < len(names):
            raise InputError(f"{where}: class {kind}; expected 0 to {len(names) - 1} ({', '.join(names)})")
        if min(shares) < -SLACK or max(shares) > 1 + SLACK:
            raise InputError(f"{where}: {line!r}; expected shares of the picture, 0 to 1, not pixels")
        boxes.append((kind, *shares))
    return boxes


def _from_voc(path: Path, names: Sequence[str], size: tuple[int, int]) -> list[Box]:
    root = _annotation(path)
    try:
        declared = tuple(int(float(root.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: its size is no two numbers; expected Pascal VOC annotations") from error
    if all(declared) and declared != size:
        raise InputError(
            f"{path} labels a picture of {declared[0]}x{declared[1]} and the fused one is {size[0]}x{size[1]}; "
            "expected labels of these pictures"
        )
    boxes = []
    for item in root.iter("object"):
        name = _text(item, "name", path)
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
            raise InputError(f"{path}: class {name!r} is not among the names; {hint}")
        if (item.findtext("difficult") or "0").strip() == "1":
            continue
        try:
            left, top, right, bottom = (
                float(_text(item, f"bndbox/{k}", path)) for k in ("xmin", "ymin", "xmax", "ymax")
            )
        except ValueError:
            left = right = math.nan
        if not (left <= right and top <= bottom):
            raise InputError(f"{path}: the box of a {name!r} is no four numbers xmin <= xmax, ymin <= ymax")
        width, height = size
        centre = (left + right) / 2 / width, (top + bottom) / 2 / height
        boxes.append((names.index(name), *centre, (right - left) / width, (bottom - top) / height))
    return boxes


def _clipped(box: Box) -> Box:
    kind, x, y, w, h = box
    left, right = max(0.0, x - w / 2), min(1.0, x + w / 2)
    top, bottom = max(0.0, y - h / 2), min(1.0, y + h / 2)
    return kind, (left + right) / 2, (top + bottom) / 2, max(0.0, right - left), max(0.0, bottom - top)


def _annotation(path: Path) -> ElementTree.Element:
    try:
        root = ElementTree.fromstring(read_text(path))
    except ElementTree.ParseError as error:
        raise InputError(f"{path} is not an XML file ({error}); expected Pascal VOC annotations") from error
    if root.tag != "annotation":
        raise InputError(f"{path} begins with <{root.tag}>; expected Pascal VOC's <annotation>")
    return root


def _text(item: ElementTree.Element, name: str, path: Path) -> str:
    found = (item.findtext(name) or "").strip()
    if not found:
        raise InputError(f"{path}: an object without {name}; expected Pascal VOC annotations")
    return found


def read_text(path: Path) -> str:
    """A UTF-8 file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error})") from error
