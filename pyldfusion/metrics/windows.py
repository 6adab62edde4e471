"""Metrics of local statistics under a sliding Gaussian window: VIFF and SSIM.

Sums run in float64: the variances are differences of large numbers, and float32 would leave noise in flat areas.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from .pictures import Grey
from .strips import strips

Floats = NDArray[np.float64]

#: Smallest side that leaves VIFF's fourth scale a whole window, and SSIM one window; pixels.
VIFF_SIDE = 41
SSIM_SIDE = 11

# Han et al. 2013: (window size, weight) of each scale; sigma is a fifth of the size.
_VIFF_SCALES = ((17, 1.0), (9, 0.0), (5, 0.15), (3, 1.0))
_VIFF_NOISE = 0.005 * 255**2
_VIFF_C = 1e-7
_FLAT = 1e-10

# Wang et al. 2004
_SSIM_SIGMA = 1.5
_SSIM_C1, _SSIM_C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


class Local(NamedTuple):
    """A picture with its local mean and variance."""

    levels: Floats
    mean: Floats
    variance: Floats


class Window:
    """A normalised, separable Gaussian window of odd ``size``, used only where it lies wholly inside the picture."""

    def __init__(self, size: int, sigma: float) -> None:
        self._margin = size // 2
        self._kernel = cv2.getGaussianKernel(size, sigma, cv2.CV_64F)

    def mean(self, picture: NDArray[Any]) -> Floats:
        """[H, W] -> [H - size + 1, W - size + 1]"""
        m = self._margin
        full = cv2.sepFilter2D(picture, cv2.CV_64F, self._kernel, self._kernel)
        return full[m : full.shape[0] - m, m : full.shape[1] - m]

    def local(self, picture: Floats) -> Local:
        mean = self.mean(picture)
        return Local(picture, mean, np.maximum(self.mean(picture * picture) - mean * mean, 0))

    def covariance(self, a: Local, b: Local) -> Floats:
        return self.mean(a.levels * b.levels) - a.mean * b.mean


def structural_similarity(fused: Grey, ir: Grey, vis: Grey) -> float:
    window = Window(SSIM_SIDE, _SSIM_SIGMA)
    total = 0.0
    for strip in strips(fused, ir, vis, overlap=SSIM_SIDE - 1):
        f, a, b = (window.local(rows.astype(np.float64)) for rows in strip)
        total += _similarity(window, a, f) + _similarity(window, b, f)
    height, width = fused.shape
    return total / 2 / ((height - SSIM_SIDE + 1) * (width - SSIM_SIDE + 1))


def _similarity(window: Window, a: Local, b: Local) -> float:
    means = a.mean * b.mean
    luminance = (2 * means + _SSIM_C1) / (a.mean * a.mean + b.mean * b.mean + _SSIM_C1)
    structure = (2 * window.covariance(a, b) + _SSIM_C2) / (a.variance + b.variance + _SSIM_C2)
    return float((luminance * structure).sum())


def visual_fidelity(fused: Grey, ir: Grey, vis: Grey) -> float:
    pictures: list[NDArray[Any]] = [fused, ir, vis]
    total = 0.0
    for scale, (size, weight) in enumerate(_VIFF_SCALES):
        window = Window(size, size / 5)
        if scale > 0:
            pictures = [np.ascontiguousarray(window.mean(picture)[::2, ::2]) for picture in pictures]
        if weight > 0:
            parts = [_information(window, *rows) for rows in strips(*pictures, overlap=size - 1)]
            kept, held = (sum(part) for part in zip(*parts, strict=True))
            total += weight * kept / held
    return total / sum(weight for _, weight in _VIFF_SCALES)


def _information(window: Window, fused: NDArray[Any], ir: NDArray[Any], vis: NDArray[Any]) -> tuple[float, float]:
    """Visual information at one scale: what the fused picture keeps of its sources, and what they hold."""
    f, a, b = (window.local(rows.astype(np.float64, copy=False)) for rows in (fused, ir, vis))
    gain, residual, variance = _transfer(window, a, f)
    other_gain, other_residual, other_variance = _transfer(window, b, f)
    first = gain < other_gain
    gain = np.where(first, gain, other_gain)
    residual = np.where(first, residual, other_residual)
    variance = np.where(first, variance, other_variance)
    kept = np.log10(1 + gain * gain * variance / (residual + _VIFF_NOISE)) + _VIFF_C
    held = np.log10(1 + variance / _VIFF_NOISE) + _VIFF_C
    return float(kept.sum()), float(held.sum())


def _transfer(window: Window, source: Local, fused: Local) -> tuple[Floats, Floats, Floats]:
    """Model ``fused`` as gain * source + residual: the gain, the residual's variance and the source's variance."""
    covariance = window.covariance(source, fused)
    gain = covariance / (source.variance + _FLAT)
    residual = fused.variance - gain * covariance
    # The order of these three rules is part of the definition.
    empty = source.variance < _FLAT
    gain[empty] = 0
    residual[empty] = fused.variance[empty]
    variance = np.where(empty, 0, source.variance)
    lost = fused.variance < _FLAT
    gain[lost] = 0
    residual[lost] = 0
    against = gain < 0
    residual[against] = fused.variance[against]
    gain[against] = 0
    return gain, np.maximum(residual, _FLAT), variance
