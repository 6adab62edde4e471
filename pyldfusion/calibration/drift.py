"""Following cameras that slowly move against each other: small steps, never far, none where the scene does not tell."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..camera.events import Events
from ..errors import InputError
from ..registration import Registration
from .blocks import Level, Plane, refine, spread, support
from .geometry import Matrix, Size, corners, from_corner_shifts, grid_error, resizing
from .structure import grey

__all__ = ["Drift"]

LEVEL = Level(640, (8, 6), 8, 1e-3)
#: Pairs that are looked at together.
PAIRS = 4
#: At a longer side of 640 pixels: the least that is corrected, the most of one step, the error that is allowed, and
#: how far two looks may differ.
LEAST, STEP, MOST_ERROR, AGREE = 0.7, 1.0, 1.0, 1.0
#: Share of the blocks that must support a look: less than for a calibration from nothing, as two looks must agree.
LEAST_SUPPORT = 0.45


@dataclass(frozen=True, eq=False)
class _Look:
    """What one look at ``PAIRS`` pairs found: how the placed infrared should move in the box, and how sure that is."""

    matrix: Matrix
    error: float
    support: float


class Drift:
    """Corrects a registration while a stream runs.

    Every ``interval`` seconds some placed pairs are compared, in a thread of its own. Only if that look and the one
    before agree, and both are sure, is the picture moved, by at most a pixel (at 640), and never by more than ``limit``
    away from the registration it began with. Each step is logged.

    Args:
        limit: pixels of the visible frame, at its corners.
        interval: seconds between two looks.
        events: where to tell.

    Attributes:
        wait: whether frames wait for a look: files then give the same pictures each time.

    Raises:
        InputError: numbers that are not above 0.
    """

    def __init__(self, limit: float = 10.0, interval: float = 10.0, events: Events | None = None) -> None:
        for name, value in (("limit", limit), ("interval", interval)):
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} of the drift is {value}; expected a number above 0")
        self.wait = False
        self.correction: Matrix = np.eye(3)
        self._limit, self._interval = limit, interval
        self._events = events or Events()
        self._base: Registration | None = None
        self._size: Size | None = None
        self._pairs: list[tuple[Plane, Plane]] = []
        self._next = -math.inf
        self._thread: threading.Thread | None = None
        self._look: _Look | None = None
        self._before: _Look | None = None

    def __call__(self, registration: Registration, ir: NDArray[Any], vis: NDArray[Any], time: float) -> Registration:
        """One more pair, as it is before it is placed; returns the registration to go on with.

        Args:
            registration: what the call before returned.
            ir: uint8 [H,W]; vis: the visible frame.
            time: of the pair, in seconds, rising.
        """
        size = vis.shape[1], vis.shape[0]
        if self._base is None or self._size != size:
            if self._size is not None:
                change = resizing(self._size, size)
                self.correction = change @ self.correction @ np.linalg.inv(change)
            self._base, self._size = self._base or registration, size
            self._restart()
        if self._thread is not None:
            if not self.wait and self._thread.is_alive():
                return registration
            self._thread.join()
            self._thread = None
            return self._judge(registration, registration.field((ir.shape[1], ir.shape[0]), size).box)
        if time >= self._next:
            placed, seen, _ = registration.join(ir, vis)
            self._pairs.append((grey(placed), grey(seen)))
            self._next = time + self._interval / PAIRS
        if len(self._pairs) == PAIRS:
            self._thread = threading.Thread(target=self._compare, args=(self._pairs,), daemon=True)
            self._thread.start()
            self._pairs = []
        return registration

    def close(self) -> None:
        """Wait for a look that is under way, about a second."""
        if self._thread is not None:
            self._thread.join()

    def _restart(self) -> None:
        """Forget what was seen, and what a look that is under way will find."""
        self._pairs, self._look, self._before, self._thread = [], None, None, None

    def _compare(self, pairs: list[tuple[Plane, Plane]]) -> None:
        irs, viss = [ir for ir, _ in pairs], [vis for _, vis in pairs]
        try:
            matrix, blocks, shifts = refine(irs, viss, np.eye(3), LEVEL)
            scale = max(viss[0].shape) / max(blocks.size)
            look = _Look(matrix, scale * spread(blocks, LEVEL.stiffness), support(blocks, shifts))
        except (cv2.error, np.linalg.LinAlgError):  # a picture without any structure
            return
        if self._thread is threading.current_thread():  # else pictures have another size by now
            self._look = look

    def _judge(self, registration: Registration, box: tuple[int, int, int, int]) -> Registration:
        now, before = self._look, self._before
        self._look, self._before = None, now
        assert self._base is not None and self._size is not None
        unit = max(self._size) / 640
        if now is None or now.support < LEAST_SUPPORT or now.error > MOST_ERROR * unit:
            self._before = None
            return registration
        shifts = _corner_shifts(now.matrix, box[2:])
        size = float(np.linalg.norm(shifts, axis=1).max())
        if before is None or size < LEAST * unit or grid_error(now.matrix, before.matrix, box[2:]) > AGREE * unit:
            return registration
        step = from_corner_shifts(box[2:], shifts * min(1.0, STEP * unit / size))
        to_box = np.array([[1, 0, -box[0]], [0, 1, -box[1]], [0, 0, 1.0]])
        correction = np.linalg.inv(to_box) @ step @ to_box @ self.correction
        total = float(np.linalg.norm(_corner_shifts(correction, self._size), axis=1).max())
        if total > self._limit:
            self._events.tell(
                "drift limit",
                f"drift: infrared is off by more than {self._limit:g} px and is not followed further; calibrate anew",
            )
            return registration
        self.correction = correction / correction[2, 2]
        self._restart()  # what was seen until now was placed otherwise
        self._events.tell("drift", f"drift: infrared moved by {min(size, STEP * unit):.1f} px, {total:.1f} in all", 0)
        return self._base.corrected(self.correction, self._size)


def _corner_shifts(matrix: Matrix, size: Size) -> NDArray[np.float64]:
    places = corners(size).astype(np.float64)
    return np.asarray(cv2.perspectiveTransform(places[:, None], matrix)[:, 0] - places, np.float64)
