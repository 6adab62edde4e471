"""Thermal frames of 9 to 16 bits brought to the 8 bits that the network sees.

A single frame by :func:`to_8bit`; the frames of a camera by :class:`GainControl`, which remembers the ones before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, did_you_mean
from .kernels import histogram16, percentiles16, scale16

__all__ = ["GAINS", "PERCENTILES", "GainControl", "check_range", "percentile_range", "to_8bit", "to_counts"]

#: Ways of gain control: the range of the percentiles, a histogram flattened up to a plateau, a fixed range of counts.
GAINS = ("percentiles", "plateau", "fixed")

#: Default range: what is left when the coldest and the hottest half percent of the pixels are left out.
PERCENTILES = (0.5, 99.5)


def check_range(thermal: Sequence[float] | None) -> tuple[float, float] | None:
    """``thermal`` as a pair of floats.

    Raises:
        InputError: it is not None nor two finite numbers in rising order.
    """
    if thermal is None:
        return None
    try:
        low, high = (float(value) for value in thermal)
    except (TypeError, ValueError) as error:
        raise InputError(f"thermal is {thermal!r}; expected (low, high) in the infrared's unit, or None") from error
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"thermal is ({low:g}, {high:g}); expected two finite numbers, the lower one first")
    return low, high


def percentile_range(ir: NDArray[np.uint16], percentiles: tuple[float, float] = PERCENTILES) -> tuple[float, float]:
    """Percentiles of a frame's counts, as ``numpy.percentile`` (linear) gives them, from one histogram.

    Args:
        ir: uint16 [H,W], not empty.
        percentiles: two numbers in 0..100.

    Returns:
        The counts below which that many percent of the pixels lie.
    """
    return percentiles16(ir, *percentiles)


def to_8bit(ir: NDArray[np.uint16], thermal: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """Scale counts linearly to 0..255, rounded; what lies outside the range is 0 or 255.

    Args:
        ir: uint16 [H,W], any strides.
        thermal: the counts that become 0 and 255; None takes :func:`percentile_range`. A frame of one count, or so
            nearly that both percentiles are one, becomes 0 with whatever is hotter at 255.

    Returns:
        uint8 [H,W], C-contiguous.
    """
    low, high = percentile_range(ir) if thermal is None else thermal
    return scale16(ir, low, high if high > low else low + 1)


def to_counts(temperatures: NDArray[Any], thermal: tuple[float, float] | None = None) -> NDArray[np.uint16]:
    """Temperatures, or whatever else a float or signed number means, as counts: linear over 0..65535, rounded.

    Args:
        temperatures: float or signed integer [H,W] or [H,W,1], in any unit; no value (NaN) is cold.
        thermal: what becomes 0 and 65535; None takes :data:`PERCENTILES` of the finite values.

    Returns:
        uint16 of that shape, C-contiguous.

    Raises:
        InputError: no finite value to take a range from.
    """
    if thermal is None:
        finite = temperatures[np.isfinite(temperatures)]
        if not finite.size:
            raise InputError("ir has no finite value; expected temperatures")
        low, high = (float(value) for value in np.percentile(finite, PERCENTILES))
    else:
        low, high = thermal
    scaled = (temperatures.astype(np.float64, order="C") - low) * (65535 / ((high - low) or 1))
    return np.rint(np.nan_to_num(scaled, nan=0).clip(0, 65535)).astype(np.uint16)


class GainControl:
    """Brings frame after frame of a thermal camera to 8 bits, without jumps between them.

    What the mapping follows (the percentiles, or the flattened histogram) is averaged over time: after ``smoothing``
    seconds 63 % of a change are followed. So a hot object that comes in saturates at first, and the rest of the
    picture keeps its grey instead of pumping. A picture of little contrast is not stretched beyond ``max_gain``, which
    would show the detector's noise.

    Args:
        gain: one of :data:`GAINS`. ``"plateau"`` is histogram equalisation in which one count has at most the share
            ``plateau`` of the pixels (Vickers, "Plateau equalization algorithm for real-time display of high-quality
            infrared imagery", Opt. Eng. 35, 1996): detail in large even areas without their noise taking all greys.
        counts: ``(low, high)`` for ``"fixed"``: the counts that become black and white, the same in every frame.
        smoothing: time constant in seconds; 0 treats every frame by itself.
        plateau: greatest share of the pixels for one count, in (0, 1].
        max_gain: greatest grey levels a count, over 0.
        percentiles: for ``"percentiles"``.

    Raises:
        InputError: an unknown gain, a number outside its bounds, or ``counts`` missing for ``"fixed"``.

    Example:
        >>> gain = GainControl("plateau", smoothing=2.0)
        >>> grey = gain(counts, time.monotonic())
    """

    def __init__(
        self,
        gain: str = "percentiles",
        counts: Sequence[float] | None = None,
        *,
        smoothing: float = 1.0,
        plateau: float = 0.002,
        max_gain: float = 4.0,
        percentiles: tuple[float, float] = PERCENTILES,
    ) -> None:
        if gain not in GAINS:
            raise InputError(f"gain is {gain!r}; expected {', '.join(GAINS)}{did_you_mean(str(gain), GAINS)}")
        if (gain == "fixed") != (counts is not None):
            raise InputError(f"gain is {gain!r} and counts are {counts}; a range (low, high) goes with 'fixed' alone")
        for name, value, least, most in (
            ("smoothing", smoothing, 0, 3600), ("plateau", plateau, 1e-9, 1), ("max_gain", max_gain, 1e-6, 255),
        ):  # fmt: skip
            if not least <= value <= most:
                raise InputError(f"{name} is {value}; expected a number from {least:g} to {most:g}")
        self.gain = gain
        self._counts = check_range(counts)
        self._smoothing, self._plateau, self._max_gain = smoothing, plateau, max_gain
        self._percentiles = percentiles
        self._state: NDArray[np.float64] | None = None
        self._time = 0.0

    def reset(self) -> None:
        """Forget the frames before, as after a change of camera."""
        self._state = None

    def __call__(self, ir: NDArray[np.uint16], time: float) -> NDArray[np.uint8]:
        """A frame in 8 bits.

        Args:
            ir: uint16 [H,W].
            time: of the frame, in seconds. When it goes back the frames before are forgotten.

        Returns:
            uint8 [H,W], C-contiguous.
        """
        if self._counts is not None:
            return to_8bit(ir, self._counts)
        target = self._table(ir) if self.gain == "plateau" else self._line(ir)
        state = self._follow(target, time)
        if self.gain == "plateau":
            return np.take(np.floor(state + 0.5).astype(np.uint8), ir)
        slope, offset = (float(value) for value in state)
        return to_8bit(ir, (-offset / slope, (255 - offset) / slope))

    def _follow(self, target: NDArray[np.float64], time: float) -> NDArray[np.float64]:
        passed = time - self._time
        if self._state is None or passed < 0 or self._smoothing == 0:
            self._state = target
        else:
            self._state = self._state + (1 - math.exp(-passed / self._smoothing)) * (target - self._state)
        self._time = time
        return self._state

    def _line(self, ir: NDArray[np.uint16]) -> NDArray[np.float64]:
        """Slope and offset of the grey level over the count: the percentiles, moved apart where it is too steep.

        The line is averaged, not its ends: each count's grey level then moves evenly, however far a hot end leaps.
        """
        low, high = percentile_range(ir, self._percentiles)
        spare = max(0.0, 255 / self._max_gain - (high - low)) / 2
        slope = 255 / (high - low + 2 * spare)
        return np.array([slope, -slope * (low - spare)])

    def _table(self, ir: NDArray[np.uint16]) -> NDArray[np.float64]:
        """The grey level of each of the 65536 counts: the sum of the histogram cut off at the plateau."""
        histogram = np.minimum(histogram16(ir), max(1.0, self._plateau * ir.size))
        total = np.cumsum(histogram)
        level = (total - 0.5 * histogram) / total[-1]
        levels = min(255.0, self._max_gain * np.count_nonzero(histogram))  # a picture of one count stays mid-grey
        return np.asarray(127.5 + levels * (level - 0.5))
