"""The stream at the rate of the engine alone, for minutes: its share of that rate, memory, latency.

A machine that others use changes its speed by the minute. So the engine alone and the stream take turns; each turn of
the stream is compared with the engine just before and just after it, and judged where these two agree.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pyldfusion import Fuser
from pyldfusion.camera import CameraPair, Stream
from pyldfusion.scene import Scene

__all__ = ["endure"]

LOOK = 1.0  # seconds between two looks at memory and pictures
DRAWN = 24  # frames of the scene, shown again and again
TURN = 15.0  # seconds of the stream, of which the first two looks are not counted
ALONE = 4.0  # seconds of the engine alone
STEADY = 0.05  # part by which the engine's rates before and after a turn may differ for it to be judged


def endure(size: str, seconds: float, model: str, outputs: list[str]) -> dict[str, Any]:
    """Turns of the stream for ``seconds`` in all: share of the engine's own rate, memory, latency, pairs."""
    width, height = map(int, size.split("x"))
    count = max(1, round(seconds / TURN))
    with Fuser(model) as fuser, _memory() as memory:
        alone = [_engine_rate(fuser, (width, height), min(ALONE, seconds / 3))]
        rates, stats = [], []
        for _ in range(count):
            scene = f"size={size}&rate={min(alone[-1], 1000):.3f}&repeat={DRAWN}&seed=1"
            with (
                CameraPair(f"scene://ir?{scene}", f"scene://vis?{scene}", alone=True) as pairs,
                Stream(fuser, pairs, outputs) as stream,
            ):
                rates.append(_shown_per_second(stream, seconds / count))
                stats.append(stream.stats())
            alone.append(_engine_rate(fuser, (width, height), min(ALONE, seconds / 3)))
    turns = [(rate, *alone[k : k + 2]) for k, rate in enumerate(rates)]
    shares = [2 * rate / (before + after) for rate, before, after in turns]
    steady = [
        share
        for share, (_, before, after) in zip(shares, turns, strict=True)
        if abs(before - after) <= STEADY * max(before, after)
    ]
    settled = memory[len(memory) // 5 :]
    slope = float(np.polyfit([t for t, _ in settled], [m for _, m in settled], 1)[0]) * 60 if len(settled) > 2 else None
    counters = [turn["cameras"] for turn in stats]
    return {
        "turns": count,
        "turns_judged": len(steady),
        "engine_alone_per_s": round(statistics.mean(alone), 2),
        "engine_alone_least_and_most": [round(min(alone), 2), round(max(alone), 2)],
        "stream_per_s": round(statistics.mean(rates), 2),
        "share": round(statistics.median(steady), 4) if steady else None,
        "share_least_and_most": [round(min(steady), 4), round(max(steady), 4)] if steady else None,
        "share_of_all_turns": round(statistics.median(shares), 4),
        "rss_mb_last": memory[-1][1] if memory else None,
        "rss_slope_mb_per_minute": None if slope is None else round(slope, 3),
        # the median turn's and the worst one's
        "latency_ms": {
            stage: {
                "p50": statistics.median(turn["latency_ms"][stage]["p50"] for turn in stats),
                "p99": max(turn["latency_ms"][stage]["p99"] for turn in stats),
            }
            for stage in stats[0]["latency_ms"]
        },
        "paired": sum(turn["paired"] for turn in counters),
        "held": sum(turn["held"] for turn in counters),
        "alone": sum(turn["alone"] for turn in counters),
        "skew_ms_p99": max(turn["skew_ms"]["p99"] or 0 for turn in counters),
        "events": dict(sum((Counter(turn["events"]) for turn in stats), Counter())),
    }


def _engine_rate(fuser: Fuser, size: tuple[int, int], seconds: float) -> float:
    ir, vis = Scene(1, size).render(0.0)
    fuser.fuse(ir, vis)
    start, frames = time.monotonic(), 0
    while time.monotonic() - start < seconds:
        fuser.fuse(ir, vis)
        frames += 1
    return frames / (time.monotonic() - start)


@contextmanager
def _memory() -> Iterator[list[tuple[float, float]]]:
    """(seconds, MB of resident memory) at each look, as long as it is open."""
    memory: list[tuple[float, float]] = []
    done = threading.Event()

    def look() -> None:
        start = time.monotonic()
        while not done.wait(LOOK):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            memory.append((time.monotonic() - start, pages * 4096 / 1e6))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield memory
    finally:
        done.set()
        watcher.join()


def _shown_per_second(stream: Stream, seconds: float) -> float:
    """Run it; pictures a second after the first two looks."""
    counts: list[tuple[float, int]] = []
    begun = threading.Timer(2 * LOOK, lambda: counts.append((time.monotonic(), stream.shown)))
    begun.start()
    stream.run(duration=seconds)
    counts.append((time.monotonic(), stream.shown))
    begun.join()
    (first, before), (last, after) = counts
    return (after - before) / (last - first)
