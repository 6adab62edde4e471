"""The bundled recipe, trained on the GPU in pieces of one stage each, and brought away in parts."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time

from pyldfusion.errors import PyldfusionError
from trainer.run.checkpoint import load_state

from . import checks, parts
from .deadline import Deadline
from .results import Results

#: What a GPU changes in the recipe: larger crops, made by several processes; and full starts from the bundled lite.
ON_GPU = ("network.start=lite", "crops.batch_pixels=800000", "data.workers=12")
#: And a dry run: as little as there can be.
DRY = (
    "network.start=lite",
    "run.steps=2",
    "crops.batch_pixels=16384",
    'crops.crops=["64x64"]',
    'crops.late_crops=["64x64"]',
)
#: Seconds for the parts, behind the run.
PACKING = 20


def train(results: Results, deadline: Deadline, options: argparse.Namespace) -> bool:
    """Goes on with the run in ``build/gpu/train``, else with the parts in ``--parts``, else begins.

    The parts of what it comes to are written to ``<results>/train``: a whole run, to go on from elsewhere.
    """
    if not options.data:
        print("train needs --data: a folder of pairs, such as trainer.pack writes")
        return False
    run = options.results / "run" if options.device == "cpu" else checks.WORK / "train"
    out = options.results / "train"
    if options.parts and not (run / "state.pt").is_file():
        try:
            print(f"{options.parts} holds a run at step {parts.join(options.parts, run)}")
        except PyldfusionError as error:
            print(f"train: {error}")
            return False
    first = load_state(run / "state.pt")["step"] if (run / "state.pt").is_file() else 0
    command: list[object] = [sys.executable, "-m", "trainer", "--data", options.data, "--out", run]
    command += ["--device", options.device, "--preset", "supervised-full"]
    for change in (*(ON_GPU if options.device == "cuda" else DRY), *options.set):
        command += ["--set", change]
    if first:
        command.append("--resume")
    start = time.monotonic()
    code, _ = checks.run(command, limit=max(deadline.left - PACKING, 1))
    if code not in (0, 124) or not (run / "state.pt").is_file():
        return False
    for part in parts.split(run, out):
        print(f"{part}: {part.stat().st_size / 1e6:.1f} MB")
    shutil.copy(run / "log.csv", out)
    done, seconds = load_state(run / "state.pt")["step"], time.monotonic() - start
    figures = {"steps": done, "complete": "yes" if code == 0 else "no", "steps_s": (done - first) / seconds}
    if code == 0:
        figures["loss"] = json.loads((run / "summary.json").read_text())["losses"]["loss"]
    results.record("trained", "supervised-full", figures)
    return True
