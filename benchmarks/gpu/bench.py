"""What the bench stage measures, in the order in which later figures need earlier ones."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from . import checks, entropy, frames, fuse, norms
from .clock import Clock
from .results import Results

if TYPE_CHECKING:
    from . import Deadline


@dataclass
class Bench:
    """What every measurement is given."""

    results: Results
    deadline: Deadline
    clock: Clock
    quick: bool

    @property
    def device(self) -> torch.device:
        return self.clock.device

    def peak(self, name: str) -> float:
        """A rate that :func:`peaks` measured, in its unit (GB/s, TFLOP/s)."""
        return float(self.results.sections["peaks"][name]["value"])


def run(results: Results, deadline: Deadline, options: argparse.Namespace) -> bool:
    if options.device == "cpu":
        from tests.host_cuda import build

        build.stand_in()
    bench = Bench(results, deadline, Clock(options.device, options.quick), options.quick)
    measurements: dict[str, Callable[[Bench], None]] = {
        "peaks": peaks,
        "adain": norms.adain,
        "sample norm": norms.sample_norm,
        "entropy": entropy.entropy,
        "frames": frames.frames,
        "fuse": fuse.fuse,
        "train": train,
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
            torch.cuda.empty_cache()
    return fine


def peaks(bench: Bench) -> None:
    """What the device can do: copy, read, and multiply matrices."""
    _bandwidth(bench)
    _products(bench)


def _bandwidth(bench: Bench) -> None:
    clock, device = bench.clock, bench.device
    size = (1 << 20) if bench.quick else (1 << 30)
    source, target = (torch.empty(size, dtype=torch.uint8, device=device).fill_(1) for _ in range(2))
    seconds = clock.seconds([lambda: target.copy_(source)])
    bench.results.record("peaks", "copy", {"value": 2 * size / seconds / 1e9, "unit": "GB/s, read and written"})
    words = source.view(torch.float32)
    seconds = clock.seconds([words.sum])
    bench.results.record("peaks", "read", {"value": size / seconds / 1e9, "unit": "GB/s"})


def _products(bench: Bench) -> None:
    clock, device = bench.clock, bench.device
    side = 256 if bench.quick else 8192
    for name, dtype, tf32 in (
        ("fp32 product", torch.float32, False),
        ("tf32 product", torch.float32, True),
        ("fp16 product", torch.float16, False),
        ("bf16 product", torch.bfloat16, False),
    ):
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = tf32
        try:
            seconds = clock.seconds([lambda a=a, b=b: a @ b])
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before
        bench.results.record("peaks", name, {"value": 2 * side**3 / seconds / 1e12, "unit": "TFLOP/s"})


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
        if code:
            raise RuntimeError(f"python -m benchmarks train ended with {code}")
        found = json.loads(report.read_text())
    about = found["environment"]
    figures = {key: found[key] for key in ("authors_s", "ours_s", "ratio", "ratio_low", "ratio_high", "rounds")}
    figures |= {f"peak_{side}_mb": peak for side, peak in found["peak_mb"].items()}
    bench.results.record("train", f"batch {about['batch']}, {about['crops']} crops", figures)
