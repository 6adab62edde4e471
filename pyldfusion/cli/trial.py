"""A model tried and timed in a process of its own: a crash stays there, and its memory is its own."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import EngineError

__all__ = ["Trial", "percentiles", "run_trial"]


@dataclass(frozen=True)
class Trial:
    """What to run: the arguments of Fuser, a frame size (width, height), and for how long."""

    model: str | None
    size: tuple[int, int]
    engine: str | None = None
    precision: str | None = None
    device: str | None = None
    threads: int | None = None
    seconds: float = 0.0


def run_trial(trial: Trial) -> dict[str, Any]:
    """Run `trial` in a new process and return what it measured.

    Keys: those of `Fuser.info` that name the engine, ``load_ms``, ``first_ms`` (the first frame, with compiling),
    ``milliseconds`` (of every later frame), ``peak_mb`` (memory of the process, None where the system does not tell).
    Raises the PyldfusionError that the process met, EngineError if it died.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_measure, asdict(trial)).result()
        except BrokenProcessPool as error:
            raise EngineError("its process died; the runtime does not work on this machine") from error


def percentiles(milliseconds: list[float]) -> dict[str, float]:
    """p50, p90, p99 and the frames a second that the mean gives."""
    import numpy as np

    p50, p90, p99 = np.percentile(milliseconds, (50, 90, 99))
    return {"p50": float(p50), "p90": float(p90), "p99": float(p99), "fps": 1000 / float(np.mean(milliseconds))}


def _measure(fields: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    from ..fuser import Fuser

    trial = Trial(**fields)
    width, height = trial.size
    noise = np.random.default_rng(0)
    ir = noise.integers(0, 256, (height, width), np.uint8)
    vis = noise.integers(0, 256, (height, width, 3), np.uint8)
    start = time.perf_counter()
    with Fuser(trial.model, trial.device, trial.engine, precision=trial.precision, threads=trial.threads) as fuser:
        load_ms = _since(start)
        start = time.perf_counter()
        fuser.fuse(ir, vis)
        first_ms = _since(start)
        fuser.warmup(trial.size)  # a GPU's graph is recorded at the second frame
        milliseconds: list[float] = []
        end = time.perf_counter() + trial.seconds
        while time.perf_counter() < end or len(milliseconds) < 3:
            start = time.perf_counter()
            fuser.fuse(ir, vis)
            milliseconds.append(_since(start))
        info = {
            name: fuser.info[name] for name in ("model", "engine", "engine_version", "precision", "device", "threads")
        }
    return {**info, "load_ms": load_ms, "first_ms": first_ms, "milliseconds": milliseconds, "peak_mb": _peak_mb()}


def _since(start: float) -> float:
    return 1000 * (time.perf_counter() - start)


def _peak_mb() -> float | None:
    """Largest resident memory of this process. Not from getrusage, which counts what the parent had before exec."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)
