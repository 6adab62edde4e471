"""The time that a stage has."""

from __future__ import annotations

import time


class Deadline:
    """A stage begins nothing new once its time is over; what it left out is said and can be measured another time."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self.skipped: list[str] = []

    @property
    def left(self) -> float:
        return max(self._end - time.monotonic(), 0.0)

    def allows(self, name: str, seconds: float = 5.0) -> bool:
        """Whether there is time for something that takes about this long."""
        if self.left > seconds:
            return True
        self.skipped.append(name)
        return False
