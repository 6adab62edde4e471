"""Thermal frames of 9 to 16 bits brought to the 8 bits that the network sees."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .kernels import percentiles16, scale16

__all__ = ["PERCENTILES", "check_range", "percentile_range", "to_8bit"]

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
        raise InputError(f"thermal is {thermal!r}; expected (low, high) in counts of the camera, or None") from error
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
