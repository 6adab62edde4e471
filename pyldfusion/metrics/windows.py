"""Metrics of local statistics under a sliding Gaussian window: VIFF and SSIM.

All in float64: variances are small differences of large numbers, and float32 would leave noise in flat areas.
"""

from __future__ import annotations

from math import log
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from .pictures import Grey
from .tiles import tiles

Plane = NDArray[Any]  # grey levels of any type on the way in, float64 on the way out

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
    """A float64 picture [H, W] with its local mean and variance."""

    levels: Plane
    mean: Plane
    variance: Plane


class Window:
    """A normalised Gaussian window of odd ``size``, used only where it lies wholly inside the picture."""

    def __init__(self, size: int, sigma: float) -> None:
        self._margin = size // 2
        self._kernel = cv2.getGaussianKernel(size, sigma, cv2.CV_64F)

    def mean(self, picture: Plane) -> Plane:
        """[H, W] -> [H - size + 1, W - size + 1], float64"""
        m = self._margin
        full = cv2.sepFilter2D(picture, cv2.CV_64F, self._kernel, self._kernel)
        return full[m : full.shape[0] - m, m : full.shape[1] - m]

    def local(self, picture: Plane) -> Local:
        levels = picture.astype(np.float64, copy=False)
        mean = self.mean(levels)
        return Local(levels, mean, np.maximum(self.mean(levels * levels) - mean * mean, 0))

    def covariance(self, a: Local, b: Local) -> Plane:
        return self.mean(a.levels * b.levels) - a.mean * b.mean


def structural_similarity(fused: Grey, ir: Grey, vis: Grey) -> float:
    window = Window(SSIM_SIDE, _SSIM_SIGMA)
    total = 0.0
    for tile in tiles(fused, ir, vis, overlap=SSIM_SIDE - 1):
        f, a, b = (part.astype(np.float64) for part in tile)
        f_mean = window.mean(f)
        total += _similarity(window, a, f, f_mean) + _similarity(window, b, f, f_mean)
    height, width = fused.shape
    return total / 2 / ((height - SSIM_SIDE + 1) * (width - SSIM_SIDE + 1))


def _similarity(window: Window, a: Plane, b: Plane, b_mean: Plane) -> float:
    """Sum of the similarity index over all places of the window."""
    a_mean = window.mean(a)
    product, energy = a_mean * b_mean, a_mean * a_mean + b_mean * b_mean
    covariance = window.mean(a * b) - product
    variances = window.mean(a * a + b * b) - energy
    luminance = (2 * product + _SSIM_C1) / (energy + _SSIM_C1)
    structure = (2 * covariance + _SSIM_C2) / (variances + _SSIM_C2)
    return float((luminance * structure).sum())


def visual_fidelity(fused: Grey, ir: Grey, vis: Grey) -> float:
    pictures: list[Plane] = [fused, ir, vis]
    total = 0.0
    for scale, (size, weight) in enumerate(_VIFF_SCALES):
        window = Window(size, size / 5)
        if scale > 0:
            pictures = [np.ascontiguousarray(window.mean(picture)[::2, ::2]) for picture in pictures]
        if weight > 0:
            parts = [_information(window, *tile) for tile in tiles(*pictures, overlap=size - 1)]
            kept, held = (sum(part) for part in zip(*parts, strict=True))
            total += weight * kept / held
    return total / sum(weight for _, weight in _VIFF_SCALES)


def _information(window: Window, fused: Plane, ir: Plane, vis: Plane) -> tuple[float, float]:
    """Visual information at one scale: what the fused picture keeps of its sources, and what they hold."""
    f, a, b = (window.local(picture) for picture in (fused, ir, vis))
    gain, covariance = _gain(window, a, f)
    other_gain, other_covariance = _gain(window, b, f)
    second = other_gain <= gain
    np.copyto(gain, other_gain, where=second)
    np.copyto(covariance, other_covariance, where=second)
    variance = np.where(second, b.variance, a.variance)
    variance *= variance >= _FLAT
    residual = np.maximum(f.variance - gain * covariance, _FLAT)
    kept = np.log(1 + gain * gain * variance / (residual + _VIFF_NOISE)).sum()
    held = np.log(1 + variance / _VIFF_NOISE).sum()
    floor = _VIFF_C * variance.size
    return float(kept) / log(10) + floor, float(held) / log(10) + floor


def _gain(window: Window, source: Local, fused: Local) -> tuple[Plane, Plane]:
    """The gain of the model ``fused = gain * source + residual``, and the covariance it comes from.

    The definition's rules for flat and reversed areas all come down to a gain of 0, which leaves the fused
    picture's own variance as the residual's.
    """
    covariance = window.covariance(source, fused)
    gain = np.maximum(covariance / (source.variance + _FLAT), 0)
    gain *= (source.variance >= _FLAT) & (fused.variance >= _FLAT)
    return gain, covariance
