"""Times of work on a GPU: events round replays of a CUDA graph, over as many sets of buffers as the cache cannot hold.

On a CPU the same calls are made and timed by the wall, for dry runs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .results import l2_bytes

Call = Callable[[], Any]


class Clock:
    """
    Args:
        device: ``cuda`` or ``cpu``.
        quick: a few repeats only.
    """

    def __init__(self, device: str, quick: bool = False) -> None:
        self.device = torch.device(device)
        self.cuda = self.device.type == "cuda"
        self.quick = quick
        self.cache = l2_bytes() if self.cuda else 1 << 16

    def sets(self, bytes_each: int, most: int = 64) -> int:
        """How many sets of buffers to go round, so that none is still in the cache when it comes again."""
        return max(2, min(most, -(-3 * self.cache // max(bytes_each, 1))))

    def seconds(self, calls: Sequence[Call], *, graph: bool = True, budget: float = 1.0) -> float:
        """Median time of one call; ``calls`` do the same on different buffers.

        With ``graph`` all of them are recorded once and replayed, so that launching costs next to nothing. Without,
        or where they cannot be recorded, they are launched one by one.
        """
        for call in calls[:2]:
            call()
        self.synchronize()
        once = (self._recorded(calls) if graph and self.cuda else None) or (lambda: [call() for call in calls])
        once()
        self.synchronize()
        found = []
        end = time.perf_counter() + (0.05 if self.quick else budget)
        while len(found) < 3 or (time.perf_counter() < end and len(found) < 200):
            found.append(self._timed(once) / len(calls))
        return statistics.median(found)

    def latencies(self, call: Call, count: int) -> list[float]:
        """Seconds of each of ``count`` calls by the wall, the device done at the end of each; sorted."""
        for _ in range(5):
            call()
        self.synchronize()
        found = []
        for _ in range(count):
            start = time.perf_counter()
            call()
            self.synchronize()
            found.append(time.perf_counter() - start)
        return sorted(found)

    def synchronize(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def _timed(self, run: Call) -> float:
        if not self.cuda:
            start = time.perf_counter()
            run()
            return time.perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3

    def _recorded(self, calls: Sequence[Call]) -> Call | None:
        """The calls as one CUDA graph; None where one of them does what a graph cannot hold."""
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):  # what is made at the first call is made on the stream that records
            calls[0]()
        torch.cuda.current_stream(self.device).wait_stream(stream)
        self.synchronize()
        recorded = torch.cuda.CUDAGraph()
        kept: list[Any] = []  # so that every call writes to memory of its own
        try:
            # the outer one: torch stays on the stream of a recording that failed
            with (
                torch.cuda.stream(stream),
                torch.cuda.graph(recorded, stream=stream, capture_error_mode="thread_local"),
            ):
                kept.extend(call() for call in calls)
        except RuntimeError as error:
            print(f"  (launched one by one: {str(error).splitlines()[0]})")
            self.synchronize()
            return None

        def replay() -> list[Any]:
            recorded.replay()
            return kept

        return replay
