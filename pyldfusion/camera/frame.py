"""A frame of a camera with its time, and how times become trustworthy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

__all__ = ["Frame", "Stamper"]

#: A device's clock that leaves the arrival times by more than this was set anew, in seconds.
JUMP = 1.0


@dataclass(frozen=True, eq=False)
class Frame:
    """What a camera gave.

    Attributes:
        image: uint8 or uint16, [H,W] or BGR [H,W,3]; nobody writes to it.
        time: seconds: when it was exposed or arrived, on ``time.monotonic()`` for cameras, and from the start of the
            file for files.
        clock: whose time that is: ``"device"``, ``"arrival"`` or ``"file"``.
        arrived: ``time.monotonic()`` when it was there, for latencies.
        number: from 0, with gaps where frames are known to be lost.
        dropped: how many were lost before this one, since the start.
    """

    image: NDArray[Any]
    time: float
    clock: str
    arrived: float
    number: int
    dropped: int


class Stamper:
    """Device times on the monotonic clock, in rising order, whatever the device does with its clock.

    A device whose clock is not the monotonic one is put onto it by its first frame. When its times then depart from
    the arrivals by more than a second, or stand still, it is put on anew and :attr:`jumps` counts it.
    """

    def __init__(self) -> None:
        self.jumps = 0
        self._offset: float | None = None
        self._last = float("-inf")

    def __call__(self, stamp: float | None, arrived: float) -> tuple[float, str]:
        """``stamp`` (the device's seconds, or None) as (time, clock)."""
        time, clock = arrived, "arrival"
        if stamp is not None:
            if self._offset is None:
                # A driver on the monotonic clock stamps shortly before the arrival; any other clock is far away.
                self._offset = 0.0 if 0 <= arrived - stamp < JUMP else arrived - stamp
            time, clock = stamp + self._offset, "device"
            if abs(arrived - time) > JUMP or time <= self._last:
                self.jumps += 1
                self._offset = arrived - stamp
                time = arrived
        if time <= self._last:  # two arrivals in one tick, or a device clock that was ahead
            time = self._last + 1e-6
        self._last = time
        return time, clock
