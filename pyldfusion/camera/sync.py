"""By how much one camera's frames come later than the other's, found from what moves before both.

Between two frames of the slower camera something has moved, and the difference of the two pictures says where and how
much. The faster camera, read at the same two moments less an assumed delay, differs likewise where the assumption is
right. The delay of the best correlation is the answer, over all shifts of one view against the other, since two
cameras never stand in one place. Nothing is brought to a common clock, so jitter, drops and different rates do no
harm; and only how motion comes and goes counts, not how things look.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, PyldfusionError
from .cameras import begin_together, make_cameras
from .events import Events
from .frame import Frame
from .layouts import find_layout
from .pair import SIDES
from .recording import Recording
from .uri import Given

__all__ = ["Delay", "Track", "find_delay", "watch", "watch_recording"]

#: Pictures are compared at this size, (width, height), and with such a border, so that views may be shifted by so much.
SMALL, BORDER = (48, 36), (16, 12)
#: Parts of a pixel in which the shift is found: who sees things half a pixel further on sees them earlier.
FINER = 2
#: Motion counts as it differs from its mean over so many seconds around: what comes and goes, not what goes on.
WINDOW = 1.0
#: Delays are looked for up to this many seconds.
REACH = 0.5
#: Seconds between delays that are tried near the best one, and how far around it.
STEP, AROUND = 0.004, 0.04
#: The delay is trusted if its standard error is at most this, in seconds, ...
LARGEST_ERROR = 0.005
#: ... if motion of the two agrees at least so well (correlation), and so much better than at any other delay.
LEAST_CORRELATION, LEAST_LEAD = 0.25, 1.3
#: Least number of intervals to compare, and parts whose agreement tells the standard error.
LEAST_INTERVALS, PARTS = 40, 8


@dataclass(frozen=True)
class Delay:
    """What was found.

    Attributes:
        seconds: by which infrared frames come later than visible ones; negative if earlier.
        error: its standard error in seconds, by leaving out each of eight parts in turn.
        correlation: of the motion at that delay, -1 to 1.
        lead: that divided by the best one at delays that are not near it.
        shift: (right, down) of things in the infrared view against the visible one, as shares of its width and height.
        intervals: how many were compared.
    """

    seconds: float
    error: float
    correlation: float
    lead: float
    shift: tuple[float, float]
    intervals: int

    @property
    def doubt(self) -> str:
        """Why it is not to be trusted; empty if it is."""
        advice = "move the cameras, or wave something warm before both, and give it more seconds"
        if self.correlation < LEAST_CORRELATION:
            return f"the two cameras do not see the same motion (correlation {self.correlation:.2f}); {advice}"
        if self.lead < LEAST_LEAD:
            return f"another delay fits nearly as well (the best one leads by {self.lead:.2f}); {advice}"
        if not self.error <= LARGEST_ERROR:
            return f"there is too little motion (standard error {1000 * self.error:.0f} ms); {advice}"
        return ""


class Track:
    """One camera's frames, made small, with their times.

    Args:
        layout: how counts lie in the frames, see ``camera.layouts``.
    """

    def __init__(self, layout: str = "plain") -> None:
        self._layout = find_layout(layout)
        self._times: list[float] = []
        self._pictures: list[NDArray[np.float32]] = []
        self._last: Frame | None = None

    def add(self, frame: Frame) -> None:
        """One more frame. The same one again, or the same picture (a camera that sends each twice), does not count."""
        last, self._last = self._last, frame
        if last is not None and (last is frame or np.array_equal(last.image, frame.image)):
            return
        if self._times and frame.time <= self._times[-1]:
            return
        image = self._layout(frame.image)
        small = np.asarray(cv2.resize(image, SMALL, interpolation=cv2.INTER_AREA), np.float32)
        small = small.mean(axis=2) if small.ndim == 3 else small
        self._times.append(frame.time)
        self._pictures.append(small - np.median(small))  # all of it brighter is no motion

    def __len__(self) -> int:
        return len(self._times)

    @property
    def times(self) -> NDArray[np.float64]:
        """[N], rising."""
        return np.array(self._times)

    @property
    def pictures(self) -> NDArray[np.float32]:
        """[N,36,48]."""
        return np.stack(self._pictures)

    @property
    def period(self) -> float:
        """Seconds between frames, in the median."""
        return float(np.median(np.diff(self._times)))


def watch(
    ir: Given,
    vis: Given,
    seconds: float,
    *,
    layout: str = "plain",
    events: Events | None = None,
) -> tuple[Track, Track]:
    """What two cameras or files show in so many seconds.

    Args:
        ir, vis: addresses as for :class:`CameraPair`.
        layout: of the infrared camera's counts.
        events: where to tell of what goes wrong.

    Raises:
        InputError, CameraError: a camera that cannot be opened, or a layout that does not fit its frames.
    """
    cameras = make_cameras(ir, vis, events or Events())
    tracks = {name: Track(layout if name == "ir" else "plain") for name in SIDES}
    live = any(camera.device.live for camera in cameras.values())
    ended = {name: threading.Event() for name in SIDES}
    errors: list[PyldfusionError] = []

    def taking(name: str) -> Callable[[Frame], None]:
        def take(frame: Frame) -> None:
            try:
                tracks[name].add(frame)
            except PyldfusionError as error:
                errors.append(error)
            if not live and frame.time > seconds:
                cameras[name].stop()

        return take

    with ExitStack() as stack:
        for camera in cameras.values():
            stack.callback(camera.join)
            camera.open()
        begin_together(cameras)
        for name, camera in cameras.items():
            camera.start(taking(name), ended[name].set)
        until = time.monotonic() + seconds if live else math.inf
        while time.monotonic() < until and not errors and not all(event.wait(0.05) for event in ended.values()):
            pass
    if errors:
        raise errors[0]
    return tracks["ir"], tracks["vis"]


def watch_recording(recording: Recording, layout: str = "plain") -> tuple[Track, Track]:
    """What the two cameras of a recording showed."""
    tracks = Track(layout), Track()
    for pair in recording:
        for track, frame in zip(tracks, (pair.ir, pair.vis), strict=True):
            if frame is not None:
                track.add(frame)
    return tracks


def find_delay(ir: Track, vis: Track, reach: float = REACH) -> Delay:
    """The delay of the infrared camera.

    Args:
        ir, vis: what the two gave in the same time, some ten seconds or more.
        reach: greatest delay that is looked for, in seconds.

    Raises:
        InputError: too few frames of one of them at the same time, or nothing moves.
    """
    for name, track in (("ir", ir), ("vis", vis)):
        if len(track) < 3:
            raise InputError(f"{name}: {len(track)} different frames; expected {LEAST_INTERVALS} at least")
    slow, fast, sign = (ir, vis, 1) if ir.period >= vis.period else (vis, ir, -1)
    compare = _Comparison(slow, fast, reach)
    step = min(fast.period / 2, 0.02)
    delays = np.arange(-math.ceil(reach / step), math.ceil(reach / step) + 1) * step
    coarse = np.array([compare.shifts(delay) for delay in delays])  # [delay, down, right]
    place, *shift = (int(each) for each in np.unravel_index(np.argmax(coarse), coarse.shape))
    best, elsewhere = delays[place], coarse[np.abs(delays - delays[place]) > max(1.5 * slow.period, 0.1)]
    fine = best + np.arange(-round(AROUND / STEP), round(AROUND / STEP) + 1) * STEP
    parts = np.array([compare.parts(delay, shift) for delay in fine])  # [delay, part, down, right], finer
    whole = parts.sum(axis=1)
    without = np.array([_peak(fine, whole - parts[:, k]) for k in range(PARTS)])
    error = math.sqrt((PARTS - 1) / PARTS * float(((without - without.mean()) ** 2).sum()))
    correlation = float(whole.max())
    lead = correlation / max(float(elsewhere.max(initial=0.0)), 1e-6)
    _, *finer = np.unravel_index(np.argmax(whole), whole.shape)
    down, right = (
        sign * (_signed(at, axis) + (int(more) - FINER) / FINER) / SMALL[axis]
        for axis, at, more in zip((1, 0), shift, finer, strict=True)
    )
    return Delay(sign * _peak(fine, whole), error, correlation, lead, (right, down), compare.intervals)


class _Comparison:
    """Motion in the intervals of the slower camera, against the faster one's at any delay."""

    def __init__(self, slow: Track, fast: Track, reach: float) -> None:
        times = slow.times
        self._times, self._pictures = fast.times, fast.pictures
        self._period = fast.period
        self._longest = max(3 * fast.period, 0.1)  # a gap in the faster one, over which it is not known
        self._window = max(3, round(WINDOW / slow.period) | 1)
        kept = np.diff(times) < max(3 * slow.period, 0.1)
        kept &= (times[:-1] - reach > self._times[0]) & (times[1:] + reach < self._times[-1])
        self._begins, self._ends = times[:-1][kept], times[1:][kept]
        self.intervals = int(kept.sum())
        if self.intervals < LEAST_INTERVALS:
            raise InputError(
                f"both cameras have frames in {self.intervals} intervals; expected {LEAST_INTERVALS} at least: give it "
                "more seconds"
            )
        motion = _fluctuation(np.abs(np.diff(slow.pictures, axis=0))[kept], self._window)
        self._size = float(np.linalg.norm(motion))
        if not self._size:
            raise InputError("nothing moves before the cameras")
        self._shape = [side + border for side, border in zip(SMALL[::-1], BORDER[::-1], strict=True)]
        self._spectra = np.fft.rfft2(motion, self._shape)
        self._starts = np.arange(PARTS) * self.intervals // PARTS

    def shifts(self, delay: float) -> NDArray[np.float64]:
        """The correlation at this delay of the slower camera, [down, right] by the shift of its view."""
        return np.asarray(np.fft.irfft2(self._products(delay, self._starts[:1])[0], self._shape))

    def parts(self, delay: float, shift: Sequence[int]) -> NDArray[np.float64]:
        """The same as the sum over parts of the time, near a shift in steps of a part of a pixel: [part, 5, 5]."""
        finer = [FINER * side for side in self._shape]
        whole = FINER**2 * np.fft.irfft2(self._products(delay, self._starts), finer)
        down, right = (FINER * at + np.arange(-FINER, FINER + 1) for at in shift)
        return np.asarray(whole[:, down[:, None] % finer[0], right % finer[1]])

    def _products(self, delay: float, starts: NDArray[np.int_]) -> NDArray[np.complex128]:
        """The correlation's spectrum for each part of the time."""
        (begins, known), (ends, also) = self._at(self._begins - delay), self._at(self._ends - delay)
        motion = _fluctuation(np.abs(ends - begins), self._window)
        motion[~(known & also)] = 0
        size = max(self._size * float(np.linalg.norm(motion)), 1e-12)
        products = self._spectra * np.conj(np.fft.rfft2(motion, self._shape))
        return np.asarray(np.add.reduceat(products, starts, axis=0) / size, np.complex128)

    def _at(self, times: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The faster camera's picture at each of these times, and whether it is known.

        Linear between frames, in the mean over the time of one frame: as blurred at a frame as between two, else
        cameras of one rate would seem to agree best where their frames coincide.
        """
        pictures, known = np.zeros((len(times), *SMALL[::-1]), np.float32), np.ones(len(times), bool)
        for part in (-0.375, -0.125, 0.125, 0.375):
            moments = times + part * self._period
            after = np.clip(np.searchsorted(self._times, moments), 1, len(self._times) - 1)
            start, end = self._times[after - 1], self._times[after]
            share = ((moments - start) / (end - start)).astype(np.float32)[:, None, None]
            pictures += (1 - share) * self._pictures[after - 1] + share * self._pictures[after]
            known &= (moments >= start) & (moments <= end) & (end - start <= self._longest)
        return np.asarray(pictures / 4, np.float32), known


def _fluctuation(motion: NDArray[np.float32], window: int) -> NDArray[np.float32]:
    """The square root (so that few great changes do not decide alone) of [N,H,W] less its mean over ``window`` of N."""
    level = np.sqrt(motion).reshape(len(motion), -1)
    mean = cv2.blur(level, (1, window), borderType=cv2.BORDER_REFLECT)
    return np.asarray((level - mean).reshape(motion.shape), np.float32)


def _signed(place: Any, axis: int) -> int:
    """A place in the correlation as a shift in pixels."""
    return int(place) if place < SMALL[axis] else int(place) - SMALL[axis] - BORDER[axis]


def _peak(delays: NDArray[np.float64], correlation: NDArray[np.float64]) -> float:
    """The delay of the greatest of [delay, down, right]: the top of a parabola through the best shifts near it."""
    value = correlation.max(axis=(1, 2))
    best = int(np.argmax(value))
    near = slice(max(0, best - 4), best + 5)
    a, b, _ = np.polyfit(delays[near] - delays[best], value[near], 2)
    top = float(np.clip(-b / (2 * a), -AROUND, AROUND)) if a < 0 else 0.0
    return float(delays[best]) + top
