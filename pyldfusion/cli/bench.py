"""Measure how long fusion takes on this machine: latency percentiles, frames a second and memory.

With --format, models are first exported to files of those formats. Every row is a process of its own, so that memory
and thread pools are not shared. The frames are noise: the network takes the same time for every picture. Times are from
frame to frame (uint8 in and out), after the first frame of a size, for which engines compile. Let nothing else run
meanwhile.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import PyldfusionError
from .console import Console
from .options import size
from .trial import Trial, percentiles, run_trial

HELP = "measure latency, frames a second and memory"

COLUMNS = {
    "model": "model",
    "engine": "engine",
    "precision": "precision",
    "device": "device",
    "size": "size",
    "p50": "p50 ms",
    "p90": "p90 ms",
    "p99": "p99 ms",
    "fps": "frames/s",
    "first_ms": "load + first ms",
    "peak_mb": "peak MB",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--size", type=size, nargs="+", default=[(640, 480)], metavar="WxH", help="frame sizes (default: 640x480)")
    add("--model", nargs="+", default=["lite", "full"], metavar="NAME|FILE", help="default: lite full")
    add("--format", nargs="+", metavar="FORMAT", help="export to these first, such as openvino or onnx:fp16-stored")
    add("--engine", nargs="+", metavar="ENGINE", help="such as openvino:bf16 (default: all that are installed)")
    add("--device", help="cpu, cuda or cuda:N")
    add("--threads", type=int, metavar="N", help="CPU threads (default: the physical cores)")
    add("--seconds", type=float, default=5.0, metavar="S", help="how long to measure each row (default: 5)")
    add("--json", action="store_true", help="a JSON document instead of a Markdown table")


def run(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        return _run(args, dict(_models(args, Path(folder))))


def _models(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, str]]:
    """What to call each model in the table, and its file or name."""
    from .programs import need, program

    for number, model in enumerate(dict.fromkeys(args.model)):
        place = folder / str(number)  # two models may have one name
        place.mkdir()
        for word in args.format or ():
            need("torch", "pyldfusion bench --format", "export")
            name, _, precision = word.partition(":")
            row = program("export", "formats").find(name)
            file = f"{Path(model).stem}-{precision or row.precisions[0]}{row.suffix}"
            job = program("export", "options").plan(
                model, place / file, format=name, precision=precision or None, no_verify=True
            )
            yield str(Path(model).with_name(file)), str(program("export", "pipeline").export(job).path)
        if not args.format:
            yield model, model


def _run(args: argparse.Namespace, models: dict[str, str]) -> int:
    from .. import hardware
    from . import machine

    trials = [
        (label, Trial(model, frame, engine, None, device, args.threads, args.seconds))
        for label, model in models.items()
        for engine, device in _engines(model, args)
        for frame in args.size
    ]
    rows: list[dict[str, Any]] = []
    failed = 0
    with Console("bench", len(trials), "rows") as console:
        for label, trial in trials:
            row: dict[str, Any] = {"engine": trial.engine, "size": "{}x{}".format(*trial.size)}
            try:
                measured = run_trial(trial)
                row |= {**measured, **percentiles(measured["milliseconds"]), "frames": len(measured["milliseconds"])}
                del row["milliseconds"]
                row["first_ms"] += row.pop("load_ms")
            except PyldfusionError as error:
                failed += 1
                row["error"] = str(error)
                console.error(f"{label}, {trial.engine}: {error}")
            rows.append(row | {"model": label})
            console.advance()
    if args.json:
        print(json.dumps({"cpu": machine.cpu_name(), "cores": hardware.cores(), "rows": rows}, indent=2))
    else:
        print(f"{machine.cpu_name()}, {hardware.cores()} cores\n\n{_table(rows)}")
    return 0 if not failed else 1 if failed < len(trials) else 2


def _engines(model: str, args: argparse.Namespace) -> list[tuple[str, str | None]]:
    """The engines that were asked for, else all that are installed and open the model; and on which device."""
    from ..artefact import open_artefact
    from ..engines.choice import RUNTIMES, available

    if args.engine:
        return [(engine, args.device) for engine in args.engine]
    artefact = open_artefact(model)
    opening = {name: row for name, row in RUNTIMES.items() if row.opens(artefact)}
    if built := [name for name, row in opening.items() if row.as_built]:
        return [(built[0], args.device)]
    found = [found for found in available(artefact.kind, args.device) if found[0] in opening]
    # A device that is not there has no engines; one row says so.
    return [(f"{name}:{precision}", device) for name, precision, device in found] or [("torch", args.device)]


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [list(COLUMNS.values())]
    for row in rows:
        if "error" in row:
            lines.append([str(row["model"]), str(row["engine"]), "", "", row["size"], "failed"] + [""] * 5)
        else:
            lines.append([_cell(row[name]) for name in COLUMNS])
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
