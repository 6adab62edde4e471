"""Words on the picture: rate, latency, skew, and what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..media import to_eight_bits

__all__ = ["overlay", "overlay_text"]


def overlay_text(rate: float, latency: float | None, skew: float | None, flags: Sequence[str]) -> str:
    """One line: frames a second, milliseconds, and flags in capitals."""
    words = [f"{rate:.1f} fps"]
    if latency is not None:
        words.append(f"{1000 * latency:.0f} ms")
    if skew is not None:
        words.append(f"skew {1000 * skew:+.0f} ms")
    return "  ".join([*words, *(flag.upper() for flag in flags)])


def overlay(picture: NDArray[Any], text: str) -> NDArray[np.uint8]:
    """A copy of ``picture`` [H,W] or [H,W,3], in 8 bits, with a line of text in the upper left corner."""
    out = to_eight_bits(picture).copy()
    scale = max(0.35, out.shape[1] / 1280)
    x, y = round(10 * scale) + 2, round(28 * scale) + 2
    for right, down, level in ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, 255)):
        # White with a black edge is seen on anything; a thicker stroke below would be a wider one in OpenCV 5.
        at = (x + right, y + down)
        cv2.putText(out, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (level, level, level), 1, cv2.LINE_AA)
    return out
