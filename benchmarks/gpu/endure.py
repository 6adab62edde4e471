"""Five hundred steps of the full recipe: memory stays flat, every loss is a number."""

from __future__ import annotations

import argparse
import math
import time
import warnings

import torch

from .deadline import Deadline
from .results import Results

STEPS = 500
#: Memory may settle until then; from then on it must not grow.
SETTLED = 50


def run(results: Results, deadline: Deadline, options: argparse.Namespace) -> bool:
    """The language-driven recipe with both towers, random weights: memory stays flat, every loss is a number."""
    from benchmarks.train import make_batch, our_step, peak_megabytes, synchronise
    from trainer.config import load_config

    warnings.simplefilter("ignore", UserWarning)  # random towers are meant
    device, quick = torch.device(options.device), options.quick
    size = ["samples.batch=1", "patches.count=2"] if quick else ["samples.batch=16", "patches.count=32"]
    config = load_config("paper", [*size, "clip.pretrained=none", "vgg.weights=none"])
    step = our_step(config, make_batch(config, device), device)
    steps, settled = (2, 1) if quick else (STEPS, SETTLED)
    non_finite, first, done = 0, 0.0, 0
    start = time.perf_counter()
    for number in range(steps):
        if not deadline.allows(f"steps from {number} on", 5):
            break
        loss, _ = step(number)
        non_finite += not math.isfinite(loss)
        done = number + 1
        if done == settled:
            synchronise(device)
            first, start = peak_megabytes(device), time.perf_counter()
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
        if done % 50 == 0:
            print(f"step {done}: loss {loss:.4f}", flush=True)
    synchronise(device)
    seconds = time.perf_counter() - start
    last = peak_megabytes(device)
    figures = {
        "steps": done,
        "steps_s": (done - settled) / seconds if done > settled else None,
        "first_mb": first,
        "last_mb": last,
        "non_finite": non_finite,
    }
    results.record("endure", f"batch {config.samples.batch}, {config.patches.count} crops", figures)
    # two steps are not enough for an allocator to settle: a dry run says nothing of memory
    flat = quick or last <= 1.01 * first + 64
    return done == steps and non_finite == 0 and flat
