"""How long things took: percentiles of the latest measurements, by name."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque

__all__ = ["Latencies", "Rate"]

#: Measurements that are kept of each.
KEPT = 2000


class Latencies:
    """Durations by name, from any thread."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._lock = threading.Lock()

    def add(self, name: str, seconds: float) -> None:
        """One more of ``name``."""
        with self._lock:
            self._seconds[name].append(seconds)

    def milliseconds(self) -> dict[str, dict[str, float]]:
        """By name: p50, p95 and p99 in ms."""
        with self._lock:
            kept = {name: sorted(values) for name, values in self._seconds.items()}
        return {
            name: {f"p{p}": round(1000 * values[min(len(values) - 1, p * len(values) // 100)], 2) for p in (50, 95, 99)}
            for name, values in kept.items()
        }

    def last(self, name: str) -> float | None:
        """The latest of ``name``, in seconds."""
        with self._lock:
            return self._seconds[name][-1] if name in self._seconds else None


class Rate:
    """Events a second, over the last few seconds, from any thread; it falls when none come any more."""

    def __init__(self, seconds: float = 2.0) -> None:
        self._seconds = seconds
        self._times: deque[float] = deque()
        self._lock = threading.Lock()

    def tick(self, now: float | None = None) -> None:
        """One more event, at ``time.monotonic()``."""
        with self._lock:
            self._times.append(time.monotonic() if now is None else now)
            self._forget(self._times[-1])

    def value(self, now: float | None = None) -> float:
        """The rate at ``time.monotonic()``."""
        with self._lock:
            now = time.monotonic() if now is None else now
            self._forget(now)
            if len(self._times) < 2:
                return 0.0
            first, last = self._times[0], self._times[-1]
            return (len(self._times) - 1) / max(last - first, now - last, 1e-6)

    def _forget(self, now: float) -> None:
        while len(self._times) > 2 and now - self._times[0] > self._seconds:
            self._times.popleft()
