"""What weights were trained on, in words that go into their file."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

from .data import PairSet

__all__ = ["MANIFEST", "describe_data"]

#: Written by ``python -m trainer.prepare`` beside ir/ and vi/: one row a pair.
MANIFEST = "manifest.csv"


def describe_data(roots: list[str], pairs: PairSet) -> dict[str, str]:
    """``trained_on`` (sources and numbers of pairs), ``terms`` and ``data_sha256`` of what a run has loaded."""
    used = {pair.name for pair in pairs.pairs}
    sources: Counter[str] = Counter()
    terms: set[str] = set()
    for root in map(Path, roots):
        names = {name.split("/", 1)[1] for name in used if name.startswith(f"{root.name}/")}
        manifest = root / MANIFEST
        if manifest.is_file():
            with manifest.open(newline="") as file:
                rows = {row["name"]: row for row in csv.DictReader(file)}
            for name in names:
                row = rows.get(name, {})
                sources[row.get("source", root.name)] += 1
                terms.add(row.get("terms", "not stated"))
        else:
            sources[root.name] += len(names)
            terms.add(f"not stated ({root.name} has no {MANIFEST})")
    return {
        "trained_on": "; ".join(f"{source}: {count} pairs" for source, count in sorted(sources.items())),
        "terms": "; ".join(sorted(terms)),
        "data_sha256": pairs.digest(),
    }
