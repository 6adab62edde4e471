"""Metrics of edges and fine detail: EI, SF, AG and Qabf."""

from __future__ import annotations

from math import nan, pi, sqrt
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from .pictures import Grey
from .tiles import tiles

Plane = NDArray[Any]

# Xydeas & Petrovic 2000: the sigmoids that turn kept edge strength and direction into perceived quality.
_STRENGTH_TOP, _STRENGTH_SLOPE, _STRENGTH_CENTRE = 0.9994, -15.0, 0.5
_ANGLE_TOP, _ANGLE_SLOPE, _ANGLE_CENTRE = 0.9879, -22.0, 0.8


class Gradients(NamedTuple):
    """Sobel gradients along x and y, int16 [H, W], border replicated, no 1/8."""

    x: Plane
    y: Plane


def gradients(picture: Grey) -> Gradients:
    return Gradients(
        cv2.Sobel(picture, cv2.CV_16S, 1, 0, ksize=3, borderType=cv2.BORDER_REPLICATE),
        cv2.Sobel(picture, cv2.CV_16S, 0, 1, ksize=3, borderType=cv2.BORDER_REPLICATE),
    )


def edge_intensity(of: Gradients) -> float:
    total = sum(float(_length(*(g.astype(np.float64) for g in tile)).sum()) for tile in tiles(*of))
    return total / of.x.size


def spatial_frequency(picture: Grey) -> float:
    height, width = picture.shape
    rows = cv2.norm(picture[:, 1:], picture[:, :-1], cv2.NORM_L2SQR) if width > 1 else 0.0
    columns = cv2.norm(picture[1:], picture[:-1], cv2.NORM_L2SQR) if height > 1 else 0.0
    return sqrt((rows + columns) / picture.size)


def average_gradient(picture: Grey) -> float:
    """NaN where the picture is one pixel wide or high."""
    height, width = picture.shape
    if min(height, width) < 2:
        return nan
    total = 0.0
    for (tile,) in tiles(picture, overlap=1):
        levels = tile.astype(np.float64)
        corner = levels[:-1, :-1]
        total += float(_length(levels[:-1, 1:] - corner, levels[1:, :-1] - corner).sum())
    return total / sqrt(2) / ((height - 1) * (width - 1))


def edge_preservation(fused: Gradients, ir: Gradients, vis: Gradients) -> float:
    """Qabf from the three pictures' gradients; NaN where neither source has an edge."""
    kept = weight = 0.0
    for tile in tiles(*fused, *ir, *vis):
        fx, fy, ax, ay, bx, by = (g.astype(np.float32) for g in tile)  # whole numbers below 2^11
        f_length = _length(fx, fy)
        fy += f_length == 0  # no gradient counts as a vertical one, as atan(y / 0) makes it
        for x, y in ((ax, ay), (bx, by)):
            length = _length(x, y)
            quality = _kept_strength(length, f_length) * _kept_angle(x, y, fx, fy)
            kept += float((quality * length).sum(dtype=np.float64))
            weight += float(length.sum(dtype=np.float64))
    return kept / weight if weight else nan


def _length(x: Plane, y: Plane) -> Plane:
    return np.sqrt(x * x + y * y)


def _kept_strength(a: Plane, b: Plane) -> Plane:
    ratio = np.minimum(a, b) / np.maximum(np.maximum(a, b), 1)  # a gradient is 0 or at least 1 long
    return _STRENGTH_TOP / (1 + np.exp(_STRENGTH_SLOPE * (ratio - _STRENGTH_CENTRE)))


def _kept_angle(ax: Plane, ay: Plane, bx: Plane, by: Plane) -> Plane:
    """From the angle between two lines: opposite directions are one, and the angle at most a right one."""
    angle = np.arctan2(np.abs(ax * by - ay * bx), np.abs(ax * bx + ay * by))
    return _ANGLE_TOP / (1 + np.exp(_ANGLE_SLOPE * (1 - angle * (2 / pi) - _ANGLE_CENTRE)))
