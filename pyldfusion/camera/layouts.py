"""What thermal cameras send, by layout: how the counts lie in the pictures that a driver hands over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, did_you_mean
from .sources.base import BadFrame

__all__ = ["LAYOUTS", "Layout", "find_layout", "register_layout"]

#: From a picture as it came (uint8 or uint16, [H,W], [H,W,2] or [H,W,3]) to the frame; raises BadFrame.
Layout = Callable[[NDArray[Any]], NDArray[Any]]


def _plain(image: NDArray[Any]) -> NDArray[Any]:
    """The frame as it is."""
    if image.shape[2:] == (2,):
        raise BadFrame(
            f"frames of {image.shape} are bytes of counts or packed pixels; a layout says which (--ir-layout y16, "
            "lower-half, ...), or leave raw out"
        )
    return image


def _words(image: NDArray[Any]) -> NDArray[np.uint16]:
    """16-bit counts, also of bytes that came as [H,W,2] or [H,2W] (a YUYV camera's packed pixels), little-endian."""
    if image.dtype == np.uint16 and image.ndim == 2:
        return image
    if image.dtype == np.uint8 and ((image.ndim == 2 and image.shape[1] % 2 == 0) or image.shape[2:] == (2,)):
        flat = np.ascontiguousarray(image).reshape(image.shape[0], -1)
        return flat.view("<u2").astype(np.uint16, copy=False)
    raise BadFrame(f"expected 16-bit counts or their bytes, got {image.dtype} of shape {image.shape}")


def _halves(image: NDArray[Any]) -> NDArray[np.uint16]:
    words = _words(image)
    if words.shape[0] % 2:
        raise BadFrame(f"expected a double frame, an even number of rows; got {words.shape}")
    return words


def _lower_half(image: NDArray[Any]) -> NDArray[np.uint16]:
    """The lower half of a double frame: counts under a picture (InfiRay P2 Pro, TOPDON TC001: 256x384)."""
    words = _halves(image)
    return words[words.shape[0] // 2 :]


def _upper_half(image: NDArray[Any]) -> NDArray[np.uint16]:
    """The upper half of a double frame."""
    words = _halves(image)
    return words[: words.shape[0] // 2]


def _packed_14(image: NDArray[Any]) -> NDArray[np.uint16]:
    """14-bit counts without gaps, four in seven bytes, lowest bits first; rows of uint8 [H, W*7/4]."""
    if image.dtype != np.uint8 or image.ndim != 2 or image.shape[1] % 7:
        raise BadFrame(f"expected rows of 7 bytes for 4 counts, got {image.dtype} of shape {image.shape}")
    bits = np.unpackbits(image, axis=1, bitorder="little").reshape(image.shape[0], -1, 14)
    return np.asarray(bits @ (1 << np.arange(14, dtype=np.uint16)), np.uint16)


#: Layouts by name; ``telemetry-N`` and ``telemetry-top-N`` take N rows off the bottom or top, ``mask-14`` the two
#: highest bits, which some cameras use for flags.
LAYOUTS: dict[str, Layout] = {
    "plain": _plain,
    "y16": _words,
    "mask-14": lambda image: _words(image) & np.uint16(0x3FFF),
    "lower-half": _lower_half,
    "upper-half": _upper_half,
    "packed-14": _packed_14,
}


def register_layout(name: str, layout: Layout) -> None:
    """Add a camera's own layout under a name, for ``--layout``. Raises InputError if the name is taken."""
    if name in LAYOUTS:
        raise InputError(f"there is a layout {name!r} already; choose another name")
    LAYOUTS[name] = layout


def find_layout(name: str) -> Layout:
    """A layout by its name. Raises InputError for an unknown one."""
    if name in LAYOUTS:
        return LAYOUTS[name]
    word, _, rows = name.rpartition("-")
    if word in ("telemetry", "telemetry-top") and rows.isdecimal() and 0 < int(rows) < 1000:
        return _without_rows(int(rows), word == "telemetry-top")
    known = [*LAYOUTS, "telemetry-N", "telemetry-top-N"]
    raise InputError(f"layout is {name!r}; expected {', '.join(known)}{did_you_mean(name, known)}")


def _without_rows(rows: int, top: bool) -> Layout:
    def cut(image: NDArray[Any]) -> NDArray[Any]:
        words = image if image.ndim == 2 and image.dtype == np.uint16 else _words(image)
        if words.shape[0] <= rows:
            raise BadFrame(f"{rows} telemetry rows, but the frame has {words.shape[0]} rows")
        return words[rows:] if top else words[:-rows]

    return cut
