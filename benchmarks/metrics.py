"""The eleven metrics of one fused picture against the tests' plain NumPy reference: `python -m benchmarks metrics`.

Both run in turn on the same pictures in one process; the ratio is of the medians. The reference filters by separable
windows and computes each metric by itself, in float64, on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from pyldfusion import metrics
from pyldfusion.scene import Scene
from tests import reference_metrics

from .turns import in_turns

Case = tuple[str, Callable[[], Any], Callable[[], Any]]


def cases(width: int, height: int) -> list[Case]:
    """(name, the reference, ours) for all metrics at once and for each by itself."""
    ir, colour = Scene(seed=1, size=(width, height)).render(t=0.0)
    ir, vis = np.asarray(ir, np.uint8), cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY)
    fused = cv2.addWeighted(ir, 0.6, vis, 0.6, 0)
    found: list[Case] = []
    for name in ("evaluate", *(name.lower() for name in metrics.NAMES)):
        pictures = (fused,) if name in ("en", "sd", "ei", "sf", "ag") else (fused, ir, vis)
        theirs, ours = getattr(reference_metrics, name), getattr(metrics, name)
        found.append((name, lambda f=theirs, p=pictures: f(*p), lambda f=ours, p=pictures: f(*p)))
    return found


def compare(case: Case, rounds: int) -> dict[str, Any]:
    """Median milliseconds of both, taken in turn; the first round only warms up."""
    name, theirs, ours = case
    reference_s, ours_s = (statistics.median(taken) for taken in in_turns(theirs, ours, rounds=rounds))
    return {"name": name, "reference_ms": reference_s * 1e3, "ours_ms": ours_s * 1e3, "ratio": reference_s / ours_s}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks metrics", description=__doc__)
    parser.add_argument("--size", default="640x480", help="WIDTHxHEIGHT (default 640x480)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    options = parser.parse_args(argv)
    try:
        width, height = (int(side) for side in options.size.lower().split("x"))
    except ValueError:
        parser.error(f"--size is {options.size!r}; expected WIDTHxHEIGHT")
    if min(width, height) < 64 or options.rounds < 1:
        parser.error("--size must be at least 64x64 and --rounds at least 1")
    rows = []
    for case in cases(width, height):
        row = compare(case, options.rounds)
        rows.append(row)
        if not options.json:
            print(
                f"{row['name']:10} reference {row['reference_ms']:8.1f} ms   ours {row['ours_ms']:7.2f} ms   "
                f"{row['ratio']:6.1f} x",
                flush=True,
            )
    if options.json:
        about = {"size": [width, height], "rounds": options.rounds, "cpus": os.cpu_count()}
        versions = {"machine": platform.machine(), "numpy": np.__version__, "opencv": cv2.__version__}
        print(json.dumps(about | versions | {"results": rows}, indent=2))
    return 0
