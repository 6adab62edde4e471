"""What of a pair to show: the fused picture, the infrared in a palette, all three side by side, or one in the other."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .media.images import to_eight_bits
from .thermal import to_8bit

__all__ = ["PALETTES", "VIEWS", "palette_picture", "view_picture"]

#: Names of views: fused, (infrared | visible | fused), infrared in a palette, fused with the infrared in a corner.
VIEWS = ("fused", "side", "ir", "pip")

#: Names of palettes, and OpenCV's colour maps for them; grey is white-hot, as it comes.
PALETTES = {
    "inferno": cv2.COLORMAP_INFERNO,
    "magma": cv2.COLORMAP_MAGMA,
    "plasma": cv2.COLORMAP_PLASMA,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "cividis": cv2.COLORMAP_CIVIDIS,
    "turbo": cv2.COLORMAP_TURBO,
    "jet": cv2.COLORMAP_JET,
    "hot": cv2.COLORMAP_HOT,
    "bone": cv2.COLORMAP_BONE,
    "grey": None,
}


def view_picture(
    view: str,
    ir: NDArray[Any],
    vis: NDArray[Any],
    fused: NDArray[Any],
    palette: str = "inferno",
    thermal: tuple[float, float] | None = None,
) -> NDArray[Any]:
    """The picture for one of `VIEWS`: frames of one size, uint8 or uint16, [H, W] or BGR [H, W, 3].

    `fused` comes back as it is; the other views are uint8 BGR [H, W, 3], or [H, 3 W, 3] side by side.
    Raises InputError for an unknown view or palette.
    """
    if view == "fused":
        return fused
    if view == "ir":
        return palette_picture(ir, palette, thermal)
    if view == "side":
        return np.hstack([palette_picture(ir, palette, thermal), _colour(vis), _colour(fused)])
    if view == "pip":
        return _inset(_colour(fused), palette_picture(ir, palette, thermal))
    raise InputError(f"unknown view {view!r}; expected {', '.join(VIEWS)}")


def palette_picture(
    ir: NDArray[Any], palette: str = "inferno", thermal: tuple[float, float] | None = None
) -> NDArray[np.uint8]:
    """Infrared [H, W], uint8 or uint16, in false colours: uint8 BGR [H, W, 3]; see `thermal.to_8bit` for 16 bits.

    An infrared frame that already is in colours [H, W, 3] is left as it is.
    """
    if palette not in PALETTES:
        raise InputError(f"unknown palette {palette!r}; expected {', '.join(PALETTES)}")
    if ir.ndim == 3 and ir.shape[2] == 3:
        return _colour(ir)
    plane = to_8bit(ir, thermal) if ir.dtype != np.uint8 else ir
    colours = PALETTES[palette]
    return _colour(plane) if colours is None else np.asarray(cv2.applyColorMap(plane, colours))


def _inset(picture: NDArray[np.uint8], small: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy of `picture` with `small`, a third as wide and high, in its lower right corner."""
    height, width = (max(1, side // 3) for side in picture.shape[:2])
    out = picture.copy()
    out[-height:, -width:] = cv2.resize(small, (width, height), interpolation=cv2.INTER_AREA)
    return out


def _colour(frame: NDArray[Any]) -> NDArray[np.uint8]:
    frame = to_eight_bits(frame)
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)) if frame.ndim == 2 else frame
