"""What the bench stage measures, in the order in which later figures need earlier ones."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from . import checks, entropy, frames, fuse, norms, peaks
from .clock import Clock
from .deadline import Deadline
from .measurement import Bench
from .results import Results


def run(results: Results, deadline: Deadline, options: argparse.Namespace) -> bool:
    if options.device == "cpu":
        from tests.host_cuda import build

        build.stand_in()
    bench = Bench(results, deadline, Clock(options.device, options.quick), options.quick)
    measurements: dict[str, Callable[[Bench], None]] = {
        "peaks": peaks.peaks,
        "adain": norms.adain,
        "sample norm": norms.sample_norm,
        "entropy": entropy.entropy,
        "frames": frames.frames,
        "fuse": fuse.fuse,
        "train": train,
        "compiled": fuse.compiled,
    }
    fine = True
    for name, measure in measurements.items():
        if options.only not in name and name != "peaks":
            continue
        if not deadline.allows(name):
            continue
        try:
            measure(bench)
        except Exception as error:  # the others' figures are worth having
            print(f"{name} failed: {type(error).__name__}: {error}")
            fine = False
        if bench.clock.cuda:
            with suppress(RuntimeError):  # what torch says after a recording that failed
                torch.cuda.empty_cache()
    return fine


def train(bench: Bench) -> None:
    """One step against the authors' way, in a process of its own: `python -m benchmarks train`."""
    if not bench.deadline.allows("a training step against the authors'", 90):
        return
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "train.json"
        command = [sys.executable, "-m", "benchmarks", "train", "--device", bench.device.type, "--json", report]
        if bench.quick:
            command += ["--batch", "1", "--patches", "2", "--rounds", "1"]
        code, _ = checks.run(command, limit=bench.deadline.left)
        if not report.is_file():
            raise RuntimeError(f"python -m benchmarks train ended with {code}")
        found = json.loads(report.read_text())
    about = found["environment"]
    figures = {key: found[key] for key in ("authors_s", "ours_s", "ratio", "ratio_low", "ratio_high", "rounds")}
    figures |= {f"peak_{side}_mb": peak for side, peak in found["peak_mb"].items()}
    bench.results.record("train", f"batch {about['batch']}, {about['crops']} crops", figures)
