"""What the metrics accept, and how it becomes grey 8-bit pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DtypeError, InputError

Grey = NDArray[np.uint8]

#: MATLAB's rgb2gray weights in millionths, in BGR order. They sum to one million, so grey colours keep their level.
_BGR_WEIGHTS = (114_021, 587_043, 298_936)


def grey(name: str, image: Any) -> Grey:
    """One picture as C-contiguous uint8 [H, W].

    ``image`` is [H, W], [H, W, 1] or [H, W, 3] in BGR; uint8, uint16 (0..65535) or float in [0, 1]. Each channel is
    brought to 8 bits first (uint16 / 257, float * 255, rounded), colour is then turned to grey by MATLAB's rgb2gray
    weights and rounded.

    Raises DtypeError and InputError, which name the argument.
    """
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise InputError(f"{name}: expected shape [H, W], [H, W, 1] or [H, W, 3] (BGR), got {list(array.shape)}")
    if array.size == 0:
        raise InputError(f"{name}: the picture is empty, its shape is {list(array.shape)}")
    levels = _to_8_bits(name, array)
    return np.ascontiguousarray(levels if levels.ndim == 2 else _bgr_to_grey(levels))


def triple(fused: Any, ir: Any, vis: Any) -> tuple[Grey, Grey, Grey]:
    """The three pictures as grey 8 bits; raises as ``grey`` does, and InputError if their sizes differ."""
    pictures = grey("fused", fused), grey("ir", ir), grey("vis", vis)
    if len({picture.shape for picture in pictures}) > 1:
        sizes = ", ".join(
            f"{name} {picture.shape[1]}x{picture.shape[0]}"
            for name, picture in zip(("fused", "ir", "vis"), pictures, strict=True)
        )
        raise InputError(f"the three pictures must be of one size, got {sizes}; resize them before measuring")
    return pictures


def _to_8_bits(name: str, array: NDArray[Any]) -> Grey:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # also true of NaN
            raise InputError(f"{name}: floats must lie in [0, 1], got {low:g} to {high:g}; divide by the range")
        return (array.astype(np.float64) * 255 + 0.5).astype(np.uint8)
    raise DtypeError(f"{name}: expected uint8, uint16 or float in [0, 1], got {array.dtype}; convert it first")


def _bgr_to_grey(levels: Grey) -> Grey:
    blue, green, red = (levels[:, :, i].astype(np.uint32) for i in range(3))
    total = blue * _BGR_WEIGHTS[0] + green * _BGR_WEIGHTS[1] + red * _BGR_WEIGHTS[2]
    return ((total + 500_000) // 1_000_000).astype(np.uint8)
