"""The CUDA half built, checked and measured on this machine's GPU: ``python -m benchmarks gpu [STAGE ...]``.

Stages, each of its own use and under nine minutes: ``build test sanitize bench`` (what runs when none is named), and
``endure train``. Figures go into ``benchmarks/results/<gpu>.json`` as soon as they are measured, merged with what is
there, and from it the table ``<gpu>.md`` is written anew. Without a GPU the kernels are compiled, and that is said.
docs/gpu.md tells the rest.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .deadline import Deadline
from .results import RESULTS, Results

ROOT = Path(__file__).resolve().parent.parent.parent
STAGES = ("build", "test", "sanitize", "bench")
FURTHER = ("endure", "train")
#: Seconds over its time after which a stage is cut off.
MARGIN = 35


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.add_argument(
        "stages", nargs="*", metavar="STAGE", help=f"of: {' '.join(STAGES + FURTHER)} (default: the first four)"
    )
    parser.add_argument(
        "--results", type=Path, default=RESULTS, metavar="FOLDER", help="where figures go (%(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=500, help="time of each stage (default 500)")
    parser.add_argument("--only", default="", metavar="WORD", help="of the bench only what has this in its name")
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds, to try the program itself")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run, with the kernels emulated"
    )
    parser.add_argument("--data", type=Path, help="train: folder of pairs, such as trainer.pack writes")
    parser.add_argument(
        "--parts", type=Path, metavar="FOLDER", help="train: go on from what an earlier run brought away"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="train: an option of it"
    )
    options = parser.parse_args(argv)
    stages = options.stages or list(STAGES)
    if unknown := set(stages) - {*STAGES, *FURTHER}:
        parser.error(f"unknown stage {', '.join(sorted(unknown))}; known: {' '.join(STAGES + FURTHER)}")
    carried_wheels()
    if options.device == "cpu":
        options.results = Path(tempfile.mkdtemp(prefix="dry-run-"))  # never among the measured figures
        limit_threads()
        print(f"A dry run: its figures mean nothing and go to {options.results}")
    elif why := no_gpu():
        return compile_only(why, Deadline(options.seconds))
    results = Results.open(options.results, options.device)
    print(", ".join(f"{key} {value}" for key, value in results.environment.items()))
    failed = []
    for stage in stages:
        print(f"\n== {stage}", flush=True)
        start, deadline = time.monotonic(), Deadline(options.seconds)
        # Work that hangs in a kernel is beyond Python's reach: the process then ends, and the figures so far are kept.
        faulthandler.dump_traceback_later(options.seconds + MARGIN, exit=True)
        try:
            fine = run(stage, options, results, deadline)
        finally:
            faulthandler.cancel_dump_traceback_later()
        if not fine:
            failed.append(stage)
        for name in deadline.skipped:
            print(f"no time was left for: {name}")
        print(f"== {stage}: {time.monotonic() - start:.0f} s", flush=True)
        results.write_table()
    print(f"\n{results.path}\n{results.table_path}")
    if failed:
        print(f"failed: {' '.join(failed)}")
    return 1 if failed else 0


def run(stage: str, options: argparse.Namespace, results: Results, deadline: Deadline) -> bool:
    """Whether the stage went well. Stages import what they need: the build must work before anything else does."""
    from . import checks

    if stage == "build":
        return checks.build(results, deadline)
    if stage == "test":
        return checks.test(results, deadline, options)
    if stage == "sanitize":
        return checks.sanitize(results, deadline, options)
    from . import bench, endure, training

    if stage == "bench":
        return bench.run(results, deadline, options)
    if stage == "endure":
        return endure.run(results, deadline, options)
    return training.train(results, deadline, options)


def limit_threads() -> None:
    """One thread for a dry run: it has little to compute, and others may be computing."""
    import torch

    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


def no_gpu() -> str:
    """Why there is no GPU to use; empty when there is one."""
    try:
        import torch
    except ImportError:
        return f"{sys.executable} has no torch"
    return "" if torch.cuda.is_available() else f"torch {torch.__version__} sees no GPU"


def compile_only(why: str, deadline: Deadline) -> int:
    """What can be checked without a GPU: that every kernel compiles."""
    from . import checks

    print(f"No GPU to measure on: {why}.")
    if not shutil.which("nvcc"):
        print("There is no nvcc either, so nothing was compiled.")
        return 0
    print("Compiling the kernels is what can be done.")
    fine = checks.compile_kernels(deadline)
    if deadline.skipped:
        print(f"no time was left for: {' '.join(deadline.skipped)}")
    return 0 if fine else 1


def carried_wheels() -> None:
    """Installs the wheels of ./wheels beside the interpreter's own packages, for machines that reach no index."""
    wheels = sorted((ROOT / "wheels").glob("*.whl"))
    if not wheels:
        return
    site = ROOT / "build" / "gpu" / "site"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--upgrade",
        "--target",
        site,
    ]
    subprocess.run([*map(str, command), *map(str, wheels)], check=True)
    sys.path.insert(0, str(site))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
