"""What the metrics accept, and how it becomes grey 8-bit pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DtypeError, InputError

Grey = NDArray[np.uint8]

#: MATLAB's rgb2gray weights in millionths, in BGR order. They sum to one million: a grey colour keeps its level.
_BGR_WEIGHTS = (114_021, 587_043, 298_936)


def grey(name: str, image: Any) -> Grey:
    """One picture as C-contiguous uint8 [H, W].

    ``image`` is [H, W], [H, W, 1] or [H, W, 3] in BGR; uint8, uint16 (0..65535) or float in [0, 1]. Each channel
    is brought to 8 bits first, colour is then turned to grey and rounded again.

    Raises DtypeError and InputError, which name the argument.
    """
    if not isinstance(image, np.ndarray):  # other image types keep their channels in another order
        raise DtypeError(f"{name}: expected a NumPy array, got {type(image).__name__}; convert it first")
    shape = list(image.shape)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
        raise InputError(f"{name}: expected shape [H, W], [H, W, 1] or [H, W, 3] (BGR), got {shape}")
    if image.size == 0:
        raise InputError(f"{name}: the picture is empty, its shape is {shape}; expected at least one pixel")
    levels = _to_8_bits(name, image)
    if levels.ndim == 3:
        levels = levels[:, :, 0] if shape[2] == 1 else _bgr_to_grey(levels)
    return np.ascontiguousarray(levels)


def triple(fused: Any, ir: Any, vis: Any) -> tuple[Grey, Grey, Grey]:
    """The three pictures as grey 8 bits; raises as ``grey`` does, and InputError if their sizes differ."""
    f, a, b = grey("fused", fused), grey("ir", ir), grey("vis", vis)
    if not f.shape == a.shape == b.shape:
        sizes = (f"{name} {x.shape[1]}x{x.shape[0]}" for name, x in (("fused", f), ("ir", a), ("vis", b)))
        raise InputError(f"all three pictures must be of one size, got {', '.join(sizes)}; resize them first")
    return f, a, b


def _to_8_bits(name: str, array: NDArray[Any]) -> Grey:
    kind, size = array.dtype.kind, array.dtype.itemsize
    if (kind, size) == ("u", 1):
        return array
    if (kind, size) == ("u", 2):
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # NaN gets here too
            raise InputError(f"{name}: floats must be in [0, 1], got {low:g} to {high:g}; scale or mend them")
        return (array.astype(np.float64) * 255 + 0.5).astype(np.uint8)
    raise DtypeError(f"{name}: expected uint8, uint16 or float in [0, 1], got {array.dtype}; convert it first")


def _bgr_to_grey(levels: Grey) -> Grey:
    blue, green, red = (levels[:, :, i].astype(np.uint32) for i in range(3))
    total = blue * _BGR_WEIGHTS[0] + green * _BGR_WEIGHTS[1] + red * _BGR_WEIGHTS[2]
    return ((total + 500_000) // 1_000_000).astype(np.uint8)
