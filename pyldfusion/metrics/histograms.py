"""Metrics that depend only on how often levels, or pairs of levels, occur: EN, SD, CC, CC_uint8, MI.

A joint histogram of two 8-bit pictures holds all they need, and its counts are whole numbers: sums are exact.
"""

from __future__ import annotations

from math import nan, sqrt

import numpy as np
from numpy.typing import NDArray

from .pictures import Grey

Counts = NDArray[np.int64]

_LEVELS = np.arange(256, dtype=np.int64)


def histogram(picture: Grey) -> Counts:
    """How often each level occurs, [256]."""
    return np.bincount(picture.ravel(), minlength=256)


def joint_histogram(rows: Grey, columns: Grey) -> Counts:
    """How often each pair of levels occurs at the same pixel, [256, 256]."""
    pairs = (rows.astype(np.uint16) << 8) | columns
    return np.bincount(pairs.ravel(), minlength=65536).reshape(256, 256)


def entropy(counts: Counts) -> float:
    """-sum p log2 p in bits, empty bins skipped."""
    p = counts[counts > 0] / counts.sum()
    return abs(float((p * np.log2(p)).sum()))  # no term is positive


def deviation(counts: Counts) -> float:
    """Population standard deviation of the levels."""
    n, total, squares = (int(counts @ _LEVELS**power) for power in (0, 1, 2))
    return sqrt(n * squares - total * total) / n


def correlation(joint: Counts) -> float:
    """Pearson's correlation; NaN where a picture is constant."""
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    n = int(rows.sum())
    sum_x, sum_y = int(rows @ _LEVELS), int(columns @ _LEVELS)
    var_x = n * int(rows @ _LEVELS**2) - sum_x**2
    var_y = n * int(columns @ _LEVELS**2) - sum_y**2
    cov = n * int(_LEVELS @ joint @ _LEVELS) - sum_x * sum_y
    return cov / (sqrt(var_x) * sqrt(var_y)) if var_x and var_y else nan


def correlation_uint8(joint: Counts) -> float:
    """Pearson's correlation as MATLAB computes it when the pictures were left in uint8.

    Deviations from the mean are rounded and clipped to 0..255, so that those below the mean vanish, and
    products are clipped to 255 before they are summed. NaN where nothing is left of a picture.
    """
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    dx, dy = _saturated_deviations(rows), _saturated_deviations(columns)
    cov = int((np.minimum(np.outer(dx, dy), 255) * joint).sum())
    var_x = int(np.minimum(dx * dx, 255) @ rows)
    var_y = int(np.minimum(dy * dy, 255) @ columns)
    return cov / (sqrt(var_x) * sqrt(var_y)) if var_x and var_y else nan


def mutual_information(joint: Counts) -> float:
    """H(X) + H(Y) - H(X, Y) in bits, never negative."""
    return max(0.0, entropy(joint.sum(axis=1)) + entropy(joint.sum(axis=0)) - entropy(joint))


def _saturated_deviations(counts: Counts) -> Counts:
    mean = int(counts @ _LEVELS) / int(counts.sum())
    return np.maximum(np.floor(_LEVELS - mean + 0.5), 0).astype(np.int64)
