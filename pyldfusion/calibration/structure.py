"""What an infrared and a visible picture have in common: where edges are and how they run, not which side is bright."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..image import infrared_to_8bit
from .geometry import Matrix, Size, resizing

__all__ = ["Structure", "grey", "placed", "structure"]

#: float32 [H,W,3]: strength times the cosine and the sine of twice the edge's angle, and strength less its local mean.
Structure = NDArray[np.float32]

#: Edges are compared with the strength around them, within this share of the longer side.
AROUND = 1 / 24
#: A picture is shrunk with all its pixels before it is warped to less than this share of its size.
PREFILTER = 0.7


def grey(frame: NDArray[Any]) -> NDArray[np.float32]:
    """Luma of any frame that ``Fuser`` takes as infrared or (BGR) visible, float32 [H,W], 0 to 255."""
    return np.asarray(infrared_to_8bit(frame, "bgr", None), np.float32)


def structure(plane: NDArray[Any], sigma: float = 1.0) -> Structure:
    """Edges of a plane [H,W], [H,W,3].

    Twice the angle, so that the two directions across an edge are one: where it is warm, paint may be dark or light.
    Scalar products of such maps are those of normalised gradient fields (Haber & Modersitzki 2006) with the strength
    left in, but compressed, so that one strong edge cannot decide.
    """
    smooth = cv2.GaussianBlur(plane, (0, 0), sigma)
    x, y = (cv2.Sobel(smooth, cv2.CV_32F, *order, scale=0.125) for order in ((1, 0), (0, 1)))
    square = x * x + y * y
    strength = np.sqrt(square)
    reach = AROUND * max(plane.shape)
    ratio = strength / (cv2.GaussianBlur(strength, (0, 0), reach) + 0.25 * float(strength.mean()) + 1e-4)
    ratio /= 1 + ratio / 2
    factor = ratio / (square + 1e-9)
    edges = np.dstack([(x * x - y * y) * factor, 2 * x * y * factor, ratio - cv2.GaussianBlur(ratio, (0, 0), reach)])
    return np.asarray(cv2.GaussianBlur(edges, (0, 0), sigma), np.float32)


def placed(plane: NDArray[np.float32], matrix: Matrix, size: Size) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A plane warped by ``matrix`` into a picture of ``size``, without aliasing, and where it truly is there."""
    shrink = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
    before = plane.shape[1], plane.shape[0]
    if shrink < PREFILTER:
        small = max(8, round(before[0] * shrink)), max(8, round(before[1] * shrink))
        plane = np.asarray(cv2.resize(plane, small, interpolation=cv2.INTER_AREA), np.float32)
        matrix = matrix @ np.linalg.inv(resizing(before, small))
    warped = cv2.warpPerspective(plane, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpPerspective(np.full(plane.shape, 255, np.uint8), matrix, size)
    inside = cv2.erode(inside, np.ones((7, 7), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(warped, np.float32), inside == 255
