"""The native kernels against NumPy's own `histogram`, `bincount`, `mean` and `var`: `python -m benchmarks kernels`.

Both run in turn on the same arrays in one process, one after the other in every round; the ratio is of the shortest
times, which what else runs on the machine disturbs least.
NumPy's side is written as one would write it for speed, not as the plain reference of the tests.

Last come whole frames through ``Fuser("pyramid")``, colour in and out, which NumPy has nothing against.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pyldfusion import Fuser, kernels
from pyldfusion.scene import Scene

from .turns import in_turns

SIZE = 224  # what CLIP's image tower takes
FRAMES = ((640, 480), (1280, 720), (1920, 1080))


def entropy_by_bincount(patches: np.ndarray) -> list[float]:
    return [_bits(np.bincount(patch.ravel(), minlength=256)) for patch in patches]


def entropy_by_histogram(patches: np.ndarray) -> list[float]:
    return [_bits(np.histogram(patch, bins=256, range=(0.0, 1.0))[0]) for patch in patches]


def _bits(counts: np.ndarray) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())


def adain_by_numpy(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    scale = weight / np.sqrt(x.var(axis=(2, 3)) + np.float32(1e-5))
    shift = bias - x.mean(axis=(2, 3)) * scale
    return x * scale[:, :, None, None] + shift[:, :, None, None]


def compare(theirs: Callable[[], Any], ours: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Shortest seconds of each, taken in turn; the first round only warms up."""
    theirs_s, ours_s = in_turns(theirs, ours, rounds=rounds)
    return min(theirs_s), min(ours_s)


def crops_of_scenes(n: int, rng: np.random.Generator) -> np.ndarray:
    """Pieces of generated street scenes, uint8 [n, SIZE, SIZE]: neighbouring pixels are alike, as in any picture."""
    frames = np.stack([Scene(seed=seed, size=(640, 480), kind="dusk").render().vis for seed in range(2)])[..., 1]
    tops, lefts = (rng.integers(0, size - SIZE + 1, n) for size in frames.shape[1:])
    return np.stack(
        [frames[i % 2, y : y + SIZE, x : x + SIZE] for i, (y, x) in enumerate(zip(tops, lefts, strict=True))]
    )


def pyramid_times(rounds: int) -> list[dict[str, Any]]:
    """Shortest milliseconds of a frame of each size on one thread and on two, and of CPU time, all threads together."""
    rows = []
    for size in FRAMES:
        scene = Scene(seed=0, size=size, kind="dusk").render()
        for threads in (1, 2):
            with Fuser("pyramid", threads=threads) as fuser:
                fuser.warmup(size)
                wall, cpu = [], []
                for _ in range(3 * rounds):
                    starts = time.perf_counter(), time.process_time()
                    fuser.fuse(scene.ir, scene.vis)
                    wall.append(time.perf_counter() - starts[0])
                    cpu.append(time.process_time() - starts[1])
            times = {"ms": min(wall) * 1e3, "cpu_ms": min(cpu) * 1e3}
            rows.append({"size": "{}x{}".format(*size), "threads": threads} | times)
    return rows


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks kernels", description=__doc__)
    parser.add_argument("--patches", type=int, default=1024, help="patches of 224x224 (default 1024, at least 64)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=None, help="for our side (default: all CPUs; NumPy uses one)")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    options = parser.parse_args(argv)
    if options.patches < 64 or options.rounds < 1:
        parser.error("--patches must be at least 64 and --rounds at least 1")

    n, threads = options.patches, kernels.thread_count(options.threads)
    rng = np.random.default_rng(0)
    greys = {
        "random": rng.integers(0, 256, (n, SIZE, SIZE), dtype=np.uint8),
        "pictures": crops_of_scenes(n, rng),
        "constant": np.full((n, SIZE, SIZE), 128, np.uint8),
    }
    real = rng.random((n, SIZE, SIZE), dtype=np.float32)
    planes = real[: n // 64 * 64].reshape(-1, 64, SIZE, SIZE)
    weight, bias = (rng.normal(size=planes.shape[:2]).astype(np.float32) for _ in range(2))
    cases: list[tuple[str, str, Callable[[], Any], Callable[[], Any]]] = [
        *(
            (
                f"entropy uint8, {name}",
                "bincount",
                lambda patches=patches: entropy_by_bincount(patches),
                lambda patches=patches: kernels.entropy(patches, threads=threads),
            )
            for name, patches in greys.items()
        ),
        (
            "entropy float32, random",
            "histogram",
            lambda: entropy_by_histogram(real),
            lambda: kernels.entropy(real, threads=threads),
        ),
        (
            f"adain {'x'.join(map(str, planes.shape))}",
            "var, mean",
            lambda: adain_by_numpy(planes, weight, bias),
            lambda: kernels.adain(planes, weight, bias, threads=threads),
        ),
    ]
    rows = []
    for name, against, theirs, ours in cases:
        numpy_s, ours_s = compare(theirs, ours, options.rounds)
        row = {"kernel": name, "numpy": against, "numpy_ms": numpy_s * 1e3, "ours_ms": ours_s * 1e3}
        rows.append(row | {"ratio": numpy_s / ours_s})
        if not options.json:
            print(
                f"{name:28} numpy {against:10} {numpy_s * 1e3:9.1f} ms   ours {ours_s * 1e3:8.1f} ms   "
                f"{numpy_s / ours_s:6.1f} x"
            )
    frames = pyramid_times(options.rounds)
    if not options.json:
        for row in frames:
            times = f"{row['ms']:9.1f} ms a frame, {row['cpu_ms']:.1f} of CPU"
            print(f"pyramid {row['size']:>9}, {row['threads']} thread(s) {times}")
    if options.json:
        about = {
            "patches": n,
            "size": SIZE,
            "rounds": options.rounds,
            "threads": threads,
            "cpus": os.cpu_count(),
            "machine": platform.machine(),
            "numpy": np.__version__,
        }
        print(json.dumps(about | {"results": rows, "pyramid": frames}, indent=2))
    return 0
