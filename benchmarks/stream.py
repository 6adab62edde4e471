"""The camera pipeline: what it costs beside the engine, whether it keeps the engine's rate, and whether memory grows.

The cameras are two generated scenes, drawn before the clock runs and shown again and again at the rate that the engine
alone reached. Both rates are measured one after the other, so a machine that others use falsifies the share; figures of
such a run are not to be kept.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pyldfusion import Fuser
from pyldfusion.camera import CameraPair, Frame, FramePair, Preparer, Stream
from pyldfusion.camera.overlay import overlay
from pyldfusion.registration import Registration, visible_outside
from pyldfusion.scene import Scene
from pyldfusion.thermal import GainControl
from pyldfusion.views import view_picture


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks stream", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="of the endurance run (default: 600)")
    parser.add_argument("--size", default="320x256", help="of the endurance run (default: 320x256)")
    parser.add_argument("--model", default="lite")
    parser.add_argument("--out", help="one more output, such as http://@127.0.0.1:8080")
    args = parser.parse_args(argv)
    if args.seconds < 4:
        parser.error("--seconds is too short; expected at least 4, of which the first two are not counted")
    print("beside the engine, 640x480, one thread, CPU time a frame in ms (least and median of 60):")
    for name, (least, median) in overhead().items():
        print(f"  {name:<46} {least:6.2f} {median:6.2f}")
    print(
        json.dumps(
            endure(args.size, args.seconds, args.model, ["null://", *([args.out] if args.out else [])]), indent=2
        )
    )
    return 0


def overhead() -> dict[str, tuple[float, float]]:
    """CPU milliseconds of every step that is not the engine's: least and median."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    street = cv2.GaussianBlur(rng.normal(7000, 300, (512, 640)), (0, 0), 5)
    counts = [(street + rng.normal(0, 4, street.shape)).astype(np.uint16) for _ in range(8)]
    vis = rng.integers(0, 256, (480, 640, 3), np.uint8)
    homography = np.array([[1.0, 0.01, 5], [-0.01, 0.93, 3], [0, 0, 1]])

    def preparing(**options: Any) -> Callable[[int], Any]:
        prepare = Preparer(Registration(homography), **options)

        def step(k: int) -> Any:
            ir, visible = (Frame(image, k / 30, "arrival", 0.0, k, 0) for image in (counts[k % 8], vis))
            return prepare(FramePair(ir, visible, 0.0, False, k))

        return step

    cover = preparing()(0).cover
    assert cover is not None
    grey = np.ascontiguousarray(vis[..., 0])
    steps: dict[str, Callable[[int], Any]] = {
        "prepare: freeze, percentiles, warp of 640x512": preparing(),
        "prepare: the same, plateau equalisation": preparing(gain=GainControl("plateau")),
        "prepare: the same, dead pixels, column noise": preparing(dead_pixels=True, column_noise=True),
        "visible outside the infrared": lambda k: visible_outside(vis, vis, cover),
        "overlay": lambda k: overlay(vis, "25.0 fps  38 ms  skew +3 ms"),
        "view side": lambda k: view_picture("side", grey, vis, vis),
    }
    return {name: _cpu_milliseconds(step) for name, step in steps.items()}


def _cpu_milliseconds(step: Callable[[int], Any]) -> tuple[float, float]:
    taken = []
    for k in range(60):
        start = time.thread_time()
        step(k)
        taken.append(1000 * (time.thread_time() - start))
    return min(taken), float(np.median(taken))


def endure(size: str, seconds: float, model: str, outputs: list[str]) -> dict[str, Any]:
    """The stream at the rate of the engine alone: its share of that rate, memory, latency, pairs."""
    width, height = map(int, size.split("x"))
    with Fuser(model) as fuser:
        alone = _engine_rate(fuser, (width, height), min(10.0, seconds / 3))
        scene = f"size={size}&rate={alone:.3f}&repeat=24&seed=1"
        with (
            CameraPair(f"scene://ir?{scene}", f"scene://vis?{scene}", alone=True) as pairs,
            Stream(fuser, pairs, outputs) as stream,
        ):
            memory, shown = _watch(stream, seconds)
            stats = stream.stats()
    settled = memory[len(memory) // 5 :]
    slope = float(np.polyfit([t for t, _ in settled], [m for _, m in settled], 1)[0]) * 60 if len(settled) > 2 else None
    return {
        "engine_alone_per_s": round(alone, 2),
        "stream_per_s": round(shown, 2),
        "share": round(shown / alone, 4),
        "rss_mb_last": memory[-1][1] if memory else None,
        "rss_slope_mb_per_minute": None if slope is None else round(slope, 3),
        "latency_ms": stats["latency_ms"],
        "cameras": stats["cameras"],
        "events": stats["events"],
    }


def _engine_rate(fuser: Fuser, size: tuple[int, int], seconds: float) -> float:
    ir, vis = Scene(1, size).render(0.0)
    fuser.fuse(ir, vis)
    start, frames = time.monotonic(), 0
    while time.monotonic() - start < seconds:
        fuser.fuse(ir, vis)
        frames += 1
    return frames / (time.monotonic() - start)


def _watch(stream: Stream, seconds: float) -> tuple[list[tuple[float, float]], float]:
    """Run it; (seconds, MB of resident memory) each second, and pictures a second from the second second on."""
    memory: list[tuple[float, float]] = []
    counts: list[tuple[float, int]] = []
    done = threading.Event()

    def look() -> None:
        start = time.monotonic()
        while not done.wait(1.0):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            memory.append((time.monotonic() - start, pages * 4096 / 1e6))
            counts.append((time.monotonic(), stream.shown))

    watcher = threading.Thread(target=look)
    watcher.start()
    stream.run(duration=seconds)
    done.set()
    watcher.join()
    (first, before), (last, after) = counts[1], counts[-1]
    return memory, (after - before) / (last - first)
