"""What is wrong with a thermal frame before anyone looks at it: frozen, dead pixels, columns. All off by default."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .frame import Frame

__all__ = ["ColumnNoise", "DeadPixels", "Freeze"]


class Freeze:
    """Tells when a camera sends the same picture again and again, as during its shutter calibration.

    A detector's noise makes every true frame differ. Cameras that send each frame twice or three times (9 Hz as
    27 Hz) are not meant: only sameness for longer than ``after`` seconds counts.
    """

    def __init__(self, after: float = 0.3) -> None:
        self._after = after
        self._frame: Frame | None = None
        self._since = 0.0

    def __call__(self, frame: Frame) -> bool:
        """Whether the camera is frozen at this frame. The same frame may be given again."""
        before, self._frame = self._frame, frame
        if before is None or (before is not frame and not _same(before.image, frame.image)):
            self._since = frame.time
            return False
        return frame.time - self._since > self._after


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    # frames that differ nearly always do so in their first rows
    return np.array_equal(a[:8], b[:8]) and np.array_equal(a, b)


class DeadPixels:
    """Replaces pixels that stay away from their neighbours: found over frames, mended by the neighbours' median.

    A pixel that in each of ``frames`` frames is more than ``threshold`` robust standard deviations off the median of
    its 3x3 neighbourhood is dead from then on. Small hot things pass, because they move.
    """

    def __init__(self, frames: int = 50, threshold: float = 8.0) -> None:
        self._frames, self._threshold = frames, threshold
        self._often: NDArray[np.uint16] | None = None
        self.dead: NDArray[np.bool_] | None = None

    def __call__(self, ir: NDArray[Any]) -> NDArray[Any]:
        """``ir`` [H,W] mended; itself where nothing is dead."""
        if self._often is None or self._often.shape != ir.shape:
            self._often, self.dead = np.zeros(ir.shape, np.uint16), np.zeros(ir.shape, bool)
        assert self.dead is not None
        median = cv2.medianBlur(ir, 3)
        off = np.abs(ir.astype(np.float32) - median)
        far = off > self._threshold * (1.4826 * float(np.median(off[::4, ::4])) + 1.0)
        self._often = np.where(far, np.minimum(self._often + 1, self._frames), 0).astype(np.uint16)
        self.dead |= self._often >= self._frames
        return np.where(self.dead, median, ir) if self.dead.any() else ir


class ColumnNoise:
    """Takes off what each column differs from its neighbours by, on average over ``seconds``.

    What a column has more than the mean of the columns around it, in the median over its rows, is fixed pattern when
    it lasts. Upright edges that stand still for long are weakened too, so it is an option.
    """

    def __init__(self, seconds: float = 10.0, reach: int = 4) -> None:
        self._seconds, self._reach = seconds, reach
        self._pattern: NDArray[np.float32] | None = None
        self._time = 0.0

    def __call__(self, ir: NDArray[Any], time: float) -> NDArray[Any]:
        """``ir`` [H,W] of the same dtype."""
        plane = ir.astype(np.float32)
        width = 2 * self._reach + 1
        around = cv2.blur(plane, (width, 1), borderType=cv2.BORDER_REFLECT)
        pattern = np.median((plane - around)[::4], axis=0).astype(np.float32)  # a quarter of the rows is enough
        if self._pattern is None or self._pattern.shape != pattern.shape or time < self._time:
            self._pattern = pattern
        else:
            share = np.float32(1 - np.exp(-(time - self._time) / self._seconds))
            self._pattern = self._pattern + share * (pattern - self._pattern)
        self._time = time
        top = np.iinfo(ir.dtype).max
        return np.clip(np.rint(plane - self._pattern), 0, top).astype(ir.dtype)
