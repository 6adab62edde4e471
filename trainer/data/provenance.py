"""What weights were trained on, in words that go into their file."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

from pyldfusion.errors import InputError

from .pairs import PairSet

__all__ = ["MANIFEST", "describe_data", "provenance_of"]

#: Written by ``python -m trainer.prepare`` beside ir/ and vi/: one row a pair.
MANIFEST = "manifest.csv"


def describe_data(pairs: PairSet) -> dict[str, str]:
    """``trained_on`` (sources and numbers of pairs), ``terms`` and ``data_sha256`` of what a run has loaded.

    Sources and terms are the columns of those names in the manifest: :data:`MANIFEST` in a folder of pairs, or the CSV
    file that is itself the root.

    Args:
        pairs: what :func:`trainer.data.pairs.load_pairs` returned.

    Raises:
        InputError: a manifest cannot be read.
    """
    stated = provenance_of(pairs)
    sources = Counter(source for source, _ in stated)
    return {
        "trained_on": "; ".join(f"{source}: {count} pairs" for source, count in sorted(sources.items())),
        "terms": "; ".join(sorted({terms for _, terms in stated})),
        "data_sha256": pairs.digest(),
    }


def provenance_of(pairs: PairSet) -> list[tuple[str, str]]:
    """Source and terms of every pair, in words, in the pairs' order."""
    stated: dict[str, tuple[str, str]] = {}
    for root in pairs.roots:
        rows = _rows(root.path if root.path.is_file() else root.path / MANIFEST)
        unknown = f"not stated ({root.label} has no {MANIFEST})" if rows is None else "not stated"
        for files in root.files:
            row = (rows or {}).get(files.name.removeprefix(f"{root.label}/"), {})
            stated[files.name] = row.get("source") or root.label, row.get("terms") or unknown
    return [stated[pair.name] for pair in pairs.pairs]


def _rows(manifest: Path) -> dict[str, dict[str, str]] | None:
    """Rows of a manifest by the name of the pair; None where there is none."""
    if not manifest.is_file():
        return None
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            named = [
                ((row.get("name") or "").strip() or Path((row.get("vis") or "").strip()).stem, row) for row in rows
            ]
            return dict(reversed(named))  # of two rows of one name the first is the pair's
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{manifest}: no manifest that can be read ({error}); expected a CSV file in UTF-8 that says of every pair "
            "where it comes from, or none"
        ) from error
