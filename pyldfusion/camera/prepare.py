"""From a pair as cameras gave it to one that can be fused: counts, gain, the infrared onto the visible frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..calibration.drift import Drift
from ..errors import InputError, did_you_mean
from ..image import is_palette
from ..registration import Registration
from ..thermal import GainControl
from .corrections import ColumnNoise, DeadPixels, Freeze
from .events import Events
from .frame import Frame
from .layouts import find_layout
from .pair import FramePair
from .sources import BadFrame

__all__ = ["FROZEN", "Prepared", "Preparer"]

#: What a frozen infrared camera's picture is good for: it is held, or left out so that the visible one is shown alone.
FROZEN = ("hold", "visible")


@dataclass(frozen=True, eq=False)
class Prepared:
    """A pair that can be fused, or what is left of one.

    Attributes:
        ir: uint8 [H,W] on the visible frame; None where there is no infrared to fuse.
        grey: the same before it was laid there, at its own size.
        homography: from its pixels to those of ``vis``; None where that is not by one.
        vis: as the camera gave it, or the common view of it; None where that camera is lost.
        cover: where infrared is, as of ``Registration.place``.
        flags: what is not as it should be: ``"ir lost"``, ``"vis lost"``, ``"ir frozen"``, ``"ir unusable"``,
            ``"held"``.
        pair: where it is from.
    """

    ir: NDArray[np.uint8] | None
    grey: NDArray[np.uint8] | None
    homography: NDArray[np.float64] | None
    vis: NDArray[Any] | None
    cover: NDArray[np.float32] | None
    flags: tuple[str, ...]
    pair: FramePair


class Preparer:
    """Prepares pair after pair; remembers what gain control and corrections need.

    Args:
        registration: of the infrared onto the visible frame.
        gain: from counts to 8 bits; frames that are 8-bit already are left as they are.
        layout: how the camera's counts lie in its frames, see ``camera.layouts``.
        frozen: one of :data:`FROZEN`.
        dead_pixels, column_noise: whether to mend them.
        drift: what follows cameras that slowly move against each other; None leaves the registration as it is.
        events: where to tell of what cannot be used.

    Raises:
        InputError: an unknown layout or word.
    """

    def __init__(
        self,
        registration: Registration | None = None,
        gain: GainControl | None = None,
        *,
        layout: str = "plain",
        frozen: str = "hold",
        dead_pixels: bool = False,
        column_noise: bool = False,
        drift: Drift | None = None,
        events: Events | None = None,
    ) -> None:
        if frozen not in FROZEN:
            raise InputError(f"frozen is {frozen!r}; expected {' or '.join(FROZEN)}{did_you_mean(frozen, FROZEN)}")
        self._registration = registration or Registration()
        self._gain = gain or GainControl()
        self._layout = find_layout(layout)
        self._hide_frozen = frozen == "visible"
        self._freeze = Freeze()
        self._dead = DeadPixels() if dead_pixels else None
        self._columns = ColumnNoise() if column_noise else None
        self.drift = drift
        self._events = events or Events()
        calibration = self._registration.calibration
        # Of both frames, the latest; before the first ones those of the calibration.
        self._ir_size = None if calibration is None else calibration.ir_size
        self._size = None if calibration is None else calibration.vis_size
        self._worked = False
        self._last: tuple[Frame, NDArray[np.uint8]] | None = None

    def __call__(self, pair: FramePair) -> Prepared:
        """Prepare a pair.

        Raises:
            InputError: the very first pair does not go together (sizes of two views, a layout that does not fit);
                later such pairs are told as events, and their visible frames go on alone.
        """
        flags = [f"{name} lost" for name, frame in (("ir", pair.ir), ("vis", pair.vis)) if frame is None]
        flags += ["held"] * pair.held
        vis = None if pair.vis is None else pair.vis.image
        if vis is not None:
            self._size = vis.shape[1], vis.shape[0]
        if pair.ir is None:
            return self._alone(vis, flags, pair)
        if self._freeze(pair.ir):
            flags.append("ir frozen")
            self._events.tell("ir frozen", "ir: the same picture again and again; a shutter calibration?")
            if self._hide_frozen and vis is not None:
                return self._alone(vis, flags, pair)
        try:
            grey = self._grey(pair.ir)
            self._ir_size = grey.shape[1], grey.shape[0]
            if self.drift is not None and vis is not None and not flags:
                self._registration = self.drift(self._registration, grey, vis, pair.ir.time)
            if self._size is None:  # infrared alone so far, and nothing says where it will lie
                return Prepared(grey, grey, None, None, None, tuple(flags), pair)
            placed, cover = self._registration.place(grey, self._size)
        except (BadFrame, InputError) as error:
            if not self._worked:
                raise InputError(str(error)) from None
            self._events.tell("ir unusable", f"ir: {error}")
            return self._alone(vis, [*flags, "ir unusable"], pair)
        self._worked = True
        matrix = self._registration.only_homography(self._ir_size, self._size)
        return Prepared(placed, grey, matrix, self._box(vis), cover, tuple(flags), pair)

    def close(self) -> None:
        """Wait for what is under way."""
        if self.drift is not None:
            self.drift.close()

    def _alone(self, vis: NDArray[Any] | None, flags: list[str], pair: FramePair) -> Prepared:
        return Prepared(None, None, None, self._box(vis), None, tuple(flags), pair)

    def _box(self, vis: NDArray[Any] | None) -> NDArray[Any] | None:
        """What of the visible frame is shown, with or without an infrared one, so that pictures keep their size."""
        if vis is None or self._ir_size is None:
            return vis
        try:
            return self._registration.field(self._ir_size, (vis.shape[1], vis.shape[0])).crop(vis)
        except InputError:  # of another aspect, which is told where infrared comes with it
            return vis

    def _grey(self, frame: Frame) -> NDArray[np.uint8]:
        """The infrared frame in 8 bits, at its own size."""
        if self._last is not None and self._last[0] is frame:  # held: once is enough
            return self._last[1]
        image = self._layout(frame.image)
        if image.ndim == 3:
            if is_palette(image):
                self._events.tell(
                    "ir in colours", "ir: false colours; give the camera's white-hot or 16-bit output instead"
                )
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
        if self._dead is not None:
            image = self._dead(image)
        if self._columns is not None:
            image = self._columns(image, frame.time)
        grey = self._gain(image, frame.time) if image.dtype == np.uint16 else image
        self._last = frame, grey
        return grey
