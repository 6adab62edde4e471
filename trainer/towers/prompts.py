"""Sentences of single pictures ("content prompts") from a CSV or JSON file, and which picture has which."""

from __future__ import annotations

import csv
import json
from collections.abc import Container, Iterable
from pathlib import Path, PurePosixPath

from ..config import ConfigError

__all__ = ["find_content", "read_content", "report_content"]

#: So many names without a pair are listed.
LISTED = 5
PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


def read_content(path: str | Path) -> dict[str, list[str]]:
    """Texts of each picture that has some of its own.

    Args:
        path: CSV with the columns ``name`` and ``text`` (several rows of one name: its texts are averaged), or JSON
            ``{name: text}`` or ``{name: [text, ...]}``; UTF-8. A name is ``root/stem`` or a stem; the suffix of a
            picture file is dropped.

    Raises:
        ConfigError: the file cannot be read or an entry is not of this form; names the file and the line or entry.
    """
    path = Path(path).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"prompts.content: {path} cannot be read ({error}); expected a CSV or JSON file") from error
    entries = _from_json(path, text) if path.suffix.lower() == ".json" else _from_csv(path, text)
    content: dict[str, list[str]] = {}
    for where, name, sentence in entries:
        for what, value in (("name", name), ("text", sentence)):
            if not isinstance(value, str) or not value.strip():
                raise ConfigError(f"{path}, {where}: {what} is {value!r}; expected words")
        name = name.strip()
        if PurePosixPath(name).suffix.lower() in PICTURES:
            name = str(PurePosixPath(name).with_suffix(""))
        content.setdefault(name, []).append(sentence.strip())
    if not content:
        raise ConfigError(f"{path} holds no prompts; expected rows of name and text")
    return content


def find_content(content: Container[str], name: str) -> str | None:
    """The name under which the sentences of the pair ``root/stem`` are: this one before the stem alone, else None."""
    return next((key for key in (name, name.rpartition("/")[2]) if key in content), None)


def report_content(path: str | Path, names: Iterable[str]) -> str:
    """A line for a person: how many rows of a file of prompts are of a pair that is trained on, and which are not.

    Args:
        path: as :func:`read_content` takes it.
        names: ``root/stem`` of every pair.

    Raises:
        ConfigError: the file is wrong, or no row of it is of any pair, so that it would have no effect.
    """
    content, names = read_content(path), list(names)
    used = {find_content(content, name) for name in names}
    rows = sum(map(len, content.values()))
    idle = [key for key in content if key not in used]
    matched = rows - sum(len(content[key]) for key in idle)
    listed = ", ".join(map(repr, idle[:LISTED])) + (
        f" and {len(idle) - LISTED} more names" if len(idle) > LISTED else ""
    )
    if not matched:
        expected = " or ".join(map(repr, (names[0], names[0].rpartition("/")[2])))
        raise ConfigError(
            f"prompts.content: no row of {path} is of a pair, of {rows} in all ({listed}); expected names of pairs, "
            f"such as {expected}"
        )
    told = f"prompts.content: {matched} of {rows} rows are of a pair"
    return told + (f", {rows - matched} of none: {listed}" if idle else "")


def _from_csv(path: Path, text: str) -> list[tuple[str, object, object]]:
    rows = csv.DictReader(text.splitlines(keepends=True), strict=True)
    columns = rows.fieldnames or []
    if not {"name", "text"} <= set(columns):
        raise ConfigError(f"{path}, line 1: columns are {', '.join(columns) or 'none'}; expected name,text")
    entries = []
    try:
        for row in rows:
            if None in row:
                raise ConfigError(
                    f"{path}, line {rows.line_num}: more values than columns; put a text with commas in double quotes"
                )
            entries.append((f"line {rows.line_num}", row["name"], row["text"]))
    except csv.Error as error:
        raise ConfigError(f"{path}, line {rows.reader.line_num}: {error}") from error
    return entries


def _from_json(path: Path, text: str) -> list[tuple[str, object, object]]:
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}, line {error.lineno}: {error.msg}") from error
    if not isinstance(given, dict):
        raise ConfigError(f"{path} holds a {type(given).__name__}; expected {{name: text}}")
    return [
        (f"entry {name!r}", name, sentence)
        for name, value in given.items()
        for sentence in (value if isinstance(value, list) and value else [value])
    ]
