"""Scores as tables: Markdown and LaTeX with the best value of every column in bold, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pyldfusion import metrics

from .scoring import Scores

__all__ = ["FORMATS", "Row", "Table", "markdown", "summarise"]


@dataclass(frozen=True)
class Row:
    """One method on one set.

    Attributes:
        count: of the pairs it was measured on.
        total: of the pairs of the set; a row with fewer is not comparable and never the best.
        values: metric -> mean.
    """

    count: int
    total: int
    values: dict[str, float]


#: Set -> method -> row.
Table = dict[str, dict[str, Row]]


def summarise(scores: Mapping[str, Scores], every: str = "") -> Table:
    """Means over the pairs of each set.

    Args:
        scores: of each set.
        every: name of one more group at the end, the mean over the pairs of all sets; "" for none.
    """
    groups = dict(scores)
    if every and len(groups) > 1:
        names = dict.fromkeys(name for each in groups.values() for name in each)
        groups[every] = {
            name: {pair: row for each in scores.values() for pair, row in each.get(name, {}).items()} for name in names
        }
    table: Table = {}
    for group, each in groups.items():
        total = len({pair for rows in each.values() for pair in rows})
        table[group] = {name: Row(len(rows), total, metrics.mean(rows.values())) for name, rows in each.items() if rows}
    return table


def markdown(table: Table, columns: Sequence[str], bold: bool = True) -> str:
    """A section for each set."""
    parts = []
    for group, rows in table.items():
        best = _best(rows, columns) if bold else {}
        total = max((row.total for row in rows.values()), default=0)
        lines = [f"### {group} ({total} pair{'' if total == 1 else 's'})", ""]
        lines += ["| method | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
        for name, row in rows.items():
            cells = (_cell(row, key, best, "**{}**") for key in columns)
            lines.append(f"| {_label(name, row).replace('|', chr(92) + '|')} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def latex(table: Table, columns: Sequence[str]) -> str:
    """One table, the sets side by side as in papers; no package is needed."""
    best = {group: _best(rows, columns) for group, rows in table.items()}
    names = dict.fromkeys(name for rows in table.values() for name in rows)
    lines = [r"\begin{tabular}{l" + ("|" + "c" * len(columns)) * len(table) + "}", r"\hline"]
    heads = [rf"\multicolumn{{{len(columns)}}}{{c}}{{{_escape(group)}}}" for group in table]
    lines.append(" & ".join(["", *heads]) + r" \\")
    lines.append(" & ".join(["Method", *[_escape(key) for _ in table for key in columns]]) + r" \\")
    lines.append(r"\hline")
    for name in names:
        cells = [_escape(name)]
        for group, rows in table.items():
            row = rows.get(name)
            partial = rf"\textsuperscript{{{row.count}/{row.total}}}" if row and row.count < row.total else ""
            cells += [_cell(row, key, best[group], r"\textbf{{{}}}") + partial if row else "--" for key in columns]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\hline", r"\end{tabular}", ""])


def as_csv(table: Table, columns: Sequence[str]) -> str:
    """A line for each set and method, all digits; no value is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["set", "method", "measured", "pairs", *columns])
    for group, rows in table.items():
        for name, row in rows.items():
            values = ("" if math.isnan(row.values[key]) else repr(row.values[key]) for key in columns)
            writer.writerow([group, name, row.count, row.total, *values])
    return text.getvalue()


def as_json(table: Table, columns: Sequence[str]) -> str:
    """``{set: {method: {"measured": n, "pairs": n, "metrics": {name: value}}}}``; no value is null."""
    return (
        json.dumps(
            {
                group: {
                    name: {
                        "measured": row.count,
                        "pairs": row.total,
                        "metrics": {key: None if math.isnan(row.values[key]) else row.values[key] for key in columns},
                    }
                    for name, row in rows.items()
                }
                for group, rows in table.items()
            },
            indent=1,
            allow_nan=False,
        )
        + "\n"
    )


#: ``--format`` -> (usual suffix, writer).
FORMATS: dict[str, tuple[str, Callable[[Table, Sequence[str]], str]]] = {
    "markdown": (".md", markdown),
    "csv": (".csv", as_csv),
    "latex": (".tex", latex),
    "json": (".json", as_json),
}


def _best(rows: Mapping[str, Row], columns: Sequence[str]) -> dict[str, str]:
    """Column -> the largest value as it is shown, among several complete rows."""
    complete = [row for row in rows.values() if row.count == row.total]
    best = {}
    for key in columns:
        values = [row.values[key] for row in complete if not math.isnan(row.values[key])]
        if len(values) > 1:
            best[key] = f"{max(values):.3f}"
    return best


def _cell(row: Row, key: str, best: Mapping[str, str], bold: str) -> str:
    text = "--" if math.isnan(row.values[key]) else f"{row.values[key]:.3f}"
    return bold.format(text) if row.count == row.total and best.get(key) == text else text


def _label(name: str, row: Row) -> str:
    return name if row.count == row.total else f"{name} ({row.count} of {row.total})"


def _escape(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
