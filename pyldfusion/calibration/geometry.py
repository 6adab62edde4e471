"""Homographies between pictures whose pixel centres are whole coordinates."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Matrix", "Size", "corners", "from_corner_shifts", "grid_error", "largest_rectangle", "resized", "resizing"]

Matrix = NDArray[np.float64]
Size = tuple[int, int]


def resizing(before: Size, after: Size) -> Matrix:
    """What resizing a picture from (width, height) ``before`` to ``after`` does to its pixels' places, 3x3."""
    x, y = after[0] / before[0], after[1] / before[1]
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])


def resized(homography: Matrix, ir: tuple[Size, Size], vis: tuple[Size, Size]) -> Matrix:
    """A homography from infrared to visible pixels after both pictures were resized, each (before, after)."""
    matrix = resizing(*vis) @ homography @ np.linalg.inv(resizing(*ir))
    return matrix / matrix[2, 2]


def corners(size: Size) -> NDArray[np.float32]:
    """The centres of the four corner pixels, float32 [4,2], clockwise from the upper left."""
    right, low = size[0] - 1, size[1] - 1
    return np.array([[0, 0], [right, 0], [right, low], [0, low]], np.float32)


def from_corner_shifts(size: Size, shifts: NDArray[Any]) -> Matrix:
    """The homography that moves the corners of a picture of ``size`` by ``shifts`` [4,2]."""
    before = corners(size)
    after = (before + np.asarray(shifts).reshape(4, 2)).astype(np.float32)
    return np.asarray(cv2.getPerspectiveTransform(before, after), np.float64)


def grid_error(first: Matrix, second: Matrix, size: Size) -> float:
    """Mean distance in pixels between where two homographies put a 9x9 grid over a picture of ``size``."""
    columns, rows = (np.linspace(0, side - 1, 9) for side in size)
    grid = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 1, 2)
    apart = cv2.perspectiveTransform(grid, first) - cv2.perspectiveTransform(grid, second)
    return float(np.linalg.norm(apart, axis=2).mean())


def largest_rectangle(inside: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The largest (x, y, width, height) of even numbers in which ``inside`` [H,W] is true everywhere.

    ``inside`` is taken to have no holes within a row, as the picture of a frame has none. Width 0 if there is none.
    """
    height, width = inside.shape
    left = np.where(inside.any(axis=1), inside.argmax(axis=1), width)
    right = np.where(inside.any(axis=1), width - inside[:, ::-1].argmax(axis=1), 0)
    left, right = left + left % 2, right - right % 2
    best = 0, 0, 0, 0
    for top in range(0, height - 1, 2):
        widths = np.minimum.accumulate(right[top:]) - np.maximum.accumulate(left[top:])
        areas = widths * np.arange(1, height - top + 1)
        areas[::2] = 0  # odd heights
        rows = int(areas.argmax()) + 1
        if areas[rows - 1] > best[2] * best[3]:
            best = int(left[top : top + rows].max()), top, int(widths[rows - 1]), rows
    return best
