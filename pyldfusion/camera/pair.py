"""Which infrared frame goes with which visible frame: by their times alone, without threads or clocks.

One camera leads: each of its frames makes a pair or is dropped. Under ``hold`` and ``repeat`` the faster camera leads
and the slower one's frames are used several times; under ``drop`` the slower one leads, so that every frame is used
once at most. Cameras of about one rate: the visible one leads.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ..errors import InputError, did_you_mean
from ..registration import Registration
from .frame import Frame

__all__ = ["POLICIES", "SIDES", "FramePair", "Pairer"]

SIDES = ("ir", "vis")

#: What becomes of a leading frame without a partner within the greatest skew: it takes the other camera's latest
#: frame, or its nearest one (which may be the next, so live it waits for that), or goes.
POLICIES = ("hold", "repeat", "drop")

#: Rates within this factor count as one.
SAME_RATE = 1.25
#: A frame may come this much of a period after the one before, at the earliest.
EARLIEST = 0.75
#: Frames of one live camera that wait for the other's.
DEPTH = 8
#: Seconds between frames where nothing is known.
UNKNOWN_PERIOD = 0.04


@dataclass(frozen=True, eq=False)
class FramePair:
    """An infrared and a visible frame of one moment; unpacks as their pictures, ``ir, vis = pair``, registered.

    Attributes:
        ir, vis: the frames; None where that camera is lost.
        skew: time of the infrared less that of the visible frame, in seconds, None without one of them.
        held: whether they are further apart than the greatest skew, or one was in a pair before (under ``repeat``,
            whose pairs are the nearest whether used or not, only the former).
        number: from 0.
        registration: how the pictures that it unpacks as are laid on each other; None leaves them as they are.
    """

    ir: Frame | None
    vis: Frame | None
    skew: float | None
    held: bool
    number: int
    registration: Registration | None = None

    def __iter__(self) -> Iterator[NDArray[Any] | None]:
        if self.registration is not None and self.ir is not None and self.vis is not None:
            yield from self.registration.join(self.ir.image, self.vis.image)[:2]
            return
        yield None if self.ir is None else self.ir.image
        yield None if self.vis is None else self.vis.image

    @property
    def arrived(self) -> float:
        """``time.monotonic()`` when the later of the two was there."""
        return max(frame.arrived for frame in (self.ir, self.vis) if frame is not None)


class _Side:
    """What is known of one camera."""

    def __init__(self, rate: float | None) -> None:
        self.waiting: deque[tuple[float, Frame]] = deque()
        self.latest: tuple[float, Frame] | None = None  # of a pair before
        self.last = float("-inf")
        self.heard: float | None = None
        self.received = self.dropped = 0
        self.ended = False
        self._intervals: deque[float] = deque(maxlen=15)
        #: seconds between frames: measured, else by the camera's rate
        self.period = None if rate is None else 1 / rate

    def add(self, time: float, frame: Frame, measure: bool) -> None:
        if measure and self.received:
            self._intervals.append(time - self.last)
            if len(self._intervals) >= 8:
                self.period = max(statistics.median(self._intervals), 1e-6)
        self.waiting.append((time, frame))
        self.last, self.heard = time, frame.arrived
        self.received += 1


class Pairer:
    """Takes frames in, gives pairs out.

    Args:
        policy: one of :data:`POLICIES`.
        max_skew: seconds by which the times of a pair may differ; None takes half a frame of the faster camera.
        ir_delay: seconds by which infrared frames are stamped too late.
        rates: frames a second of (ir, vis), None where unknown; live ones are measured.
        live: whether to decide as soon as nothing better can be expected, rather than when all is known.
        lost_after: seconds of silence (at least three periods) after which a live camera counts as lost and the
            other's frames go on alone.

    Raises:
        InputError: an unknown policy.
    """

    def __init__(
        self,
        policy: str = "hold",
        max_skew: float | None = None,
        ir_delay: float = 0.0,
        rates: Sequence[float | None] = (None, None),
        live: bool = False,
        lost_after: float = 1.0,
    ) -> None:
        if policy not in POLICIES:
            close = did_you_mean(policy, POLICIES)
            raise InputError(f"pairing policy is {policy!r}; expected {', '.join(POLICIES)}{close}")
        self.policy, self.live = policy, live
        self._max_skew, self._ir_delay, self._lost_after = max_skew, ir_delay, lost_after
        self._sides = {name: _Side(rate) for name, rate in zip(SIDES, rates, strict=True)}
        self._leader = ""
        self.paired = self.held = self.alone = 0
        self.skews: deque[float] = deque(maxlen=1000)

    @property
    def max_skew(self) -> float:
        """Seconds: as given, or half a frame of the faster camera."""
        if self._max_skew is not None:
            return self._max_skew
        return 0.5 * min(self._period(name) for name in SIDES) * (1 + 1e-6)

    def add(self, name: str, frame: Frame) -> None:
        """Take a frame of ``"ir"`` or ``"vis"``. One that is not later than the last of its side is dropped."""
        side = self._sides[name]
        time = frame.time - (self._ir_delay if name == "ir" else 0.0)
        if time <= side.last:
            side.received += 1
            side.dropped += 1
            return
        side.add(time, frame, self.live)
        if self.live and len(side.waiting) > DEPTH:
            side.waiting.popleft()
            side.dropped += 1

    def end(self, name: str) -> None:
        """That camera has no more frames."""
        self._sides[name].ended = True

    def start(self, now: float) -> None:
        """Cameras that say nothing from ``now`` on are lost after a while."""
        for side in self._sides.values():
            side.heard = now if side.heard is None else side.heard

    def last_time(self, name: str) -> float:
        """Time of the latest frame of a side, the infrared delay taken off; -inf before the first."""
        return self._sides[name].last

    def lost(self, name: str, now: float) -> bool:
        """Whether a live camera has been silent for so long that the other goes on alone."""
        side = self._sides[name]
        patience = max(self._lost_after, 3 * self._period(name))
        return self.live and side.heard is not None and not side.waiting and now - side.heard > patience

    def reach(self, name: str) -> float:
        """How far, in seconds, the frames of a side may be held."""
        patience = self._lost_after if self.live else 0.0
        return max(1.5 * self._period(name), patience, self.max_skew)

    def take(self, now: float | None = None) -> list[FramePair]:
        """The pairs that can be decided, oldest first. ``now`` (``time.monotonic()``) is needed for live cameras."""
        found = []
        while (pair := self._next(now)) is not None:
            found.append(pair)
        return found

    def counts(self) -> dict[str, Any]:
        """Counters: received and dropped by side; paired (of them held), alone; skew in ms, p50 and p99 of its size."""
        skews = sorted(abs(skew) for skew in self.skews)
        return {
            **{
                name: {"received": side.received, "dropped": side.dropped, "waiting": len(side.waiting)}
                for name, side in self._sides.items()
            },
            "paired": self.paired,
            "held": self.held,
            "alone": self.alone,
            "skew_ms": {
                f"p{p}": round(1000 * skews[min(len(skews) - 1, p * len(skews) // 100)], 3) if skews else None
                for p in (50, 99)
            },
        }

    def _period(self, name: str) -> float:
        return self._sides[name].period or self._sides[_other(name)].period or UNKNOWN_PERIOD

    def _choose_leader(self) -> tuple[_Side, _Side]:
        ir, vis = self._period("ir"), self._period("vis")
        slower = "ir" if ir > vis * SAME_RATE else "vis" if vis > ir * SAME_RATE else ""
        leader = "vis" if not slower else slower if self.policy == "drop" else _other(slower)
        if leader != self._leader:
            self._leader = leader
            for side in self._sides.values():
                side.latest = None
        return self._sides[leader], self._sides[_other(leader)]

    def _next(self, now: float | None) -> FramePair | None:
        if now is not None:
            for name in SIDES:
                waiting = self._sides[_other(name)].waiting
                if waiting and self.lost(name, now):
                    self.alone += 1
                    return self._pair({_other(name): waiting.popleft()}, False)
        leader, follower = self._choose_leader()
        while leader.waiting:
            time, _ = leader.waiting[0]
            candidates = list(follower.waiting)
            if follower.latest is not None and self.policy != "drop":
                candidates.insert(0, follower.latest)
            best = min(candidates, key=lambda item: abs(item[0] - time), default=None)
            if not self._is_certain(time, best, candidates, follower, now):
                return None
            led = leader.waiting.popleft()
            partner = self._partner(time, best, candidates)
            if partner is None:
                leader.dropped += 1
                continue
            again = partner is follower.latest
            while follower.waiting and follower.waiting[0][0] <= partner[0]:
                follower.dropped += follower.waiting.popleft() is not partner
            follower.latest = partner
            held = abs(partner[0] - time) > self.max_skew or (again and self.policy != "repeat")
            self.paired += 1
            self.held += held
            return self._pair({self._leader: led, _other(self._leader): partner}, held)
        return None

    def _is_certain(
        self,
        time: float,
        best: tuple[float, Frame] | None,
        candidates: list[tuple[float, Frame]],
        follower: _Side,
        now: float | None,
    ) -> bool:
        """Whether no frame that is still to come could be a better partner for one at ``time``, or it is too late."""
        newest = max((item[0] for item in candidates), default=-math.inf)  # one that is taken is none (under drop)
        if follower.ended or newest > time:
            return True
        if not self.live:
            return False
        expected = follower.last + EARLIEST * self._period(_other(self._leader))
        if best is not None and expected - time >= abs(best[0] - time):
            return True
        if self.policy != "repeat" and expected - time > self.max_skew:
            return True
        leader = self._sides[self._leader]
        patience = self._period(_other(self._leader) if self.policy == "repeat" else self._leader)
        overdue = now is not None and now - leader.waiting[0][1].arrived > patience
        return overdue or len(leader.waiting) >= DEPTH

    def _partner(
        self, time: float, best: tuple[float, Frame] | None, candidates: list[tuple[float, Frame]]
    ) -> tuple[float, Frame] | None:
        """The frame for one at ``time`` by the policy."""
        if best is None:
            return None
        distance, reach = abs(best[0] - time), self.reach(_other(self._leader))
        if distance <= self.max_skew:
            return best
        if self.policy == "repeat":
            return best if distance <= reach else None
        if self.policy == "hold":
            past = [item for item in candidates if time - reach <= item[0] <= time]
            return past[-1] if past else None
        return None

    def _pair(self, items: dict[str, tuple[float, Frame]], held: bool) -> FramePair:
        skew = items["ir"][0] - items["vis"][0] if len(items) == 2 else None
        if skew is not None and not held:
            self.skews.append(skew)
        ir, vis = (items[name][1] if name in items else None for name in SIDES)
        return FramePair(ir, vis, skew, held, self.paired + self.alone - 1)


def _other(name: str) -> str:
    return "vis" if name == "ir" else "ir"
