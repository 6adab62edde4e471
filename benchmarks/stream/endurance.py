"""The stream at the rate of the engine alone, for minutes: its share of that rate, memory, latency."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from pyldfusion import Fuser
from pyldfusion.camera import CameraPair, Stream
from pyldfusion.scene import Scene

__all__ = ["endure"]

LOOK = 1.0  # seconds between two looks at memory and pictures
DRAWN = 24  # frames of the scene, shown again and again


def endure(size: str, seconds: float, model: str, outputs: list[str]) -> dict[str, Any]:
    """The stream at the rate of the engine alone: its share of that rate, memory, latency, pairs."""
    width, height = map(int, size.split("x"))
    with Fuser(model) as fuser:
        alone = _engine_rate(fuser, (width, height), min(10.0, seconds / 3))
        scene = f"size={size}&rate={alone:.3f}&repeat={DRAWN}&seed=1"
        with (
            CameraPair(f"scene://ir?{scene}", f"scene://vis?{scene}", alone=True) as pairs,
            Stream(fuser, pairs, outputs) as stream,
        ):
            memory, shown = _watch(stream, seconds)
            stats = stream.stats()
        # once more: a machine that others use changes its speed by the minute
        after = _engine_rate(fuser, (width, height), min(10.0, seconds / 3))
    settled = memory[len(memory) // 5 :]
    slope = float(np.polyfit([t for t, _ in settled], [m for _, m in settled], 1)[0]) * 60 if len(settled) > 2 else None
    return {
        "engine_alone_per_s": round(alone, 2),
        "engine_alone_after_per_s": round(after, 2),
        "stream_per_s": round(shown, 2),
        "share": round(shown / alone, 4),
        "share_of_both": round(2 * shown / (alone + after), 4),
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
    """Run it; (seconds, MB of resident memory) at each look, and pictures a second from the second look on."""
    memory: list[tuple[float, float]] = []
    counts: list[tuple[float, int]] = []
    done = threading.Event()

    def look() -> None:
        start = time.monotonic()
        while not done.wait(LOOK):
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
