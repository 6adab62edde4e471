"""Metrics of edges and fine detail: EI, SF, AG and Qabf."""

from __future__ import annotations

from math import nan, pi, sqrt
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from .pictures import Grey
from .strips import strips

Floats = NDArray[np.float32]
F = TypeVar("F", np.float32, np.float64)

# Xydeas & Petrovic 2000: the sigmoids that turn kept edge strength and orientation into perceived quality.
_STRENGTH_TOP, _STRENGTH_SLOPE, _STRENGTH_CENTRE = 0.9994, -15.0, 0.5
_ANGLE_TOP, _ANGLE_SLOPE, _ANGLE_CENTRE = 0.9879, -22.0, 0.8


class Gradients(NamedTuple):
    """Sobel gradients along x and y, int16 [H, W], border replicated, no 1/8."""

    x: NDArray[np.int16]
    y: NDArray[np.int16]


def gradients(picture: Grey) -> Gradients:
    return Gradients(
        cv2.Sobel(picture, cv2.CV_16S, 1, 0, ksize=3, borderType=cv2.BORDER_REPLICATE),
        cv2.Sobel(picture, cv2.CV_16S, 0, 1, ksize=3, borderType=cv2.BORDER_REPLICATE),
    )


def edge_intensity(of: Gradients) -> float:
    total = sum(float(_strength(*(g.astype(np.float64) for g in strip)).sum()) for strip in strips(*of))
    return total / of.x.size


def spatial_frequency(picture: Grey) -> float:
    along_rows = cv2.norm(picture[:, 1:], picture[:, :-1], cv2.NORM_L2SQR) if picture.shape[1] > 1 else 0.0
    along_columns = cv2.norm(picture[1:], picture[:-1], cv2.NORM_L2SQR) if picture.shape[0] > 1 else 0.0
    return sqrt((along_rows + along_columns) / picture.size)


def average_gradient(picture: Grey) -> float:
    """NaN where the picture is one pixel wide or high."""
    if min(picture.shape) < 2:
        return nan
    total = 0.0
    for (rows,) in strips(picture, overlap=1):
        levels = rows.astype(np.float64)
        dx, dy = levels[:-1, 1:] - levels[:-1, :-1], levels[1:, :-1] - levels[:-1, :-1]
        total += float(_strength(dx, dy).sum())
    height, width = picture.shape
    return total / sqrt(2) / ((height - 1) * (width - 1))


def edge_preservation(fused: Gradients, ir: Gradients, vis: Gradients) -> float:
    """Qabf from the three pictures' gradients; NaN where neither source has an edge."""
    kept = weight = 0.0
    for strip in strips(*fused, *ir, *vis):
        fx, fy, ax, ay, bx, by = (g.astype(np.float32) for g in strip)
        f_strength = _strength(fx, fy)
        fy += f_strength == 0  # a line without length counts as upright, as atan(y / 0) makes it
        for x, y in ((ax, ay), (bx, by)):
            strength = _strength(x, y)
            quality = _kept_strength(strength, f_strength) * _kept_angle(x, y, fx, fy)
            kept += float((quality * strength).sum(dtype=np.float64))
            weight += float(strength.sum(dtype=np.float64))
    return kept / weight if weight else nan


def _strength(x: NDArray[F], y: NDArray[F]) -> NDArray[F]:
    return np.sqrt(x * x + y * y)


def _kept_strength(a: Floats, b: Floats) -> Floats:
    ratio = np.minimum(a, b) / np.maximum(np.maximum(a, b), 1)  # a gradient is 0 or at least 1
    return _STRENGTH_TOP / (1 + np.exp(_STRENGTH_SLOPE * (ratio - _STRENGTH_CENTRE)))


def _kept_angle(ax: Floats, ay: Floats, bx: Floats, by: Floats) -> Floats:
    """From the angle between two lines, which have no direction: 1 where they are parallel, 0 where upright."""
    angle = np.arctan2(np.abs(ax * by - ay * bx), np.abs(ax * bx + ay * by))
    return _ANGLE_TOP / (1 + np.exp(_ANGLE_SLOPE * (1 - angle * (2 / pi) - _ANGLE_CENTRE)))
