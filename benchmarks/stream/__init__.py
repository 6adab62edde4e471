"""The camera pipeline: what it costs beside the engine, whether it keeps the engine's rate, and whether memory grows.

Without an option: the cost, and a run at the engine's rate, see :mod:`benchmarks.stream.endurance`. The cameras of that
are two generated scenes, drawn before the clock runs and shown again and again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from pyldfusion.cli import set_up_opencv

set_up_opencv()  # as for the command, before OpenCV is imported

from . import faults, pairing  # noqa: E402
from .cost import overhead, pipeline  # noqa: E402
from .endurance import endure  # noqa: E402


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks stream", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--faults", action="store_true", help="inject every fault; a Markdown table")
    what.add_argument("--pairing", action="store_true", help="pairing and sync against known times, simulated")
    what.add_argument("--cost", action="store_true", help="the cost alone")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the endurance run (default: 10)")
    parser.add_argument("--size", default="320x256", help="of the endurance run (default: 320x256)")
    parser.add_argument("--model", default="lite")
    parser.add_argument("--out", help="one more output, such as http://@127.0.0.1:8080")
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file too")
    args = parser.parse_args(argv)
    if args.minutes * 60 < 4:
        parser.error("--minutes is too short; expected at least 0.07, of which the first two seconds are not counted")
    figures: dict[str, Any] = {}
    if args.faults:
        figures["faults"] = faults.inject_all()
        print(faults.markdown(figures["faults"]))
    elif args.pairing:
        figures = {"pairing": pairing.pairing(), "sync": pairing.synchronise()}
        print(json.dumps(figures, indent=2))
    else:
        figures["cost_ms"] = overhead()
        print("beside the engine, 640x480, one thread, CPU time a frame in ms (least and median of 60):")
        for name, (least, median) in figures["cost_ms"].items():
            print(f"  {name:<46} {least:6.2f} {median:6.2f}")
        figures["pipeline_cost_ms"] = pipeline()
        print(f"all of it in a stream whose engine does nothing, all threads: {figures['pipeline_cost_ms']:.2f}")
        if not args.cost:
            outputs = ["null://", *([args.out] if args.out else [])]
            figures["endurance"] = endure(args.size, 60 * args.minutes, args.model, outputs)
            print(json.dumps(figures["endurance"], indent=2))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)
    return 0
