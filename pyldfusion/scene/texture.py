"""Procedural texture: value noise sampled in world coordinates, and the small helpers drawn shapes need.

Noise is anchored in metres, not in pixels, so that a scene looks alike at every size and does not swim when things
move. An octave that is finer than the pixel footprint fades out instead of aliasing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "bgr", "fbm", "hash_table", "ramp", "sample", "smoothstep", "stripe"]

#: float32 unless said otherwise.
Array = NDArray[Any]


def bgr(blue: float, green: float, red: float) -> Array:
    """A linear colour as an array [3]."""
    return np.array([blue, green, red], np.float32)


LATTICE = 128  # cells of the repeating noise tile
TEXELS = 4  # stored samples per cell
SIDE = LATTICE * TEXELS


@lru_cache(maxsize=8)
def _tile(seed: int) -> Array:
    """Repeating value noise [SIDE+1, SIDE+1] of zero mean and unit deviation; one extra texel closes the wrap."""
    cells = np.random.default_rng(seed).standard_normal((LATTICE, LATTICE)).astype(np.float32)
    wrapped = np.pad(cells, 4, mode="wrap")
    big = cv2.resize(wrapped, None, fx=TEXELS, fy=TEXELS, interpolation=cv2.INTER_CUBIC)
    tile = big[4 * TEXELS : -4 * TEXELS, 4 * TEXELS : -4 * TEXELS]
    tile = (tile - tile.mean()) / tile.std()
    return np.pad(tile, ((0, 1), (0, 1)), mode="wrap")


def sample(x: Array, y: Array, seed: int = 0) -> Array:
    """Value noise (mean 0, deviation 1) at ``x``, ``y`` of one shape, one cell per unit, repeating every 128."""

    def wrap(v: Array) -> Array:
        v = np.asarray(v, np.float32) * np.float32(1 / LATTICE)
        return (v - np.floor(v)) * np.float32(SIDE)

    return cv2.remap(_tile(seed % 8), wrap(x), wrap(y), cv2.INTER_LINEAR)


def fbm(
    x: Any, y: Any, footprint: Any = 0.0, *, frequency: float, octaves: int = 4, gain: float = 0.5, seed: int = 0
) -> Array:
    """Fractal noise of about unit deviation.

    Args:
        x, y: coordinates (any unit), broadcast against each other.
        footprint: size of a pixel in that unit, scalar or array; finer octaves fade out.
        frequency: noise cells per unit of the coarsest octave; each next has twice as many and ``gain`` of the weight.
    """
    x, y = np.broadcast_arrays(np.asarray(x, np.float32), np.asarray(y, np.float32))
    shape = x.shape
    x, y = x.reshape(shape[0], -1), y.reshape(shape[0], -1)
    total = np.zeros(x.shape, np.float32)
    norm = 0.0
    for octave in range(octaves):
        f, weight = frequency * 2.0**octave, gain**octave
        norm += weight**2
        visible = np.clip(1.6 - 2.0 * f * np.asarray(footprint, np.float32), 0, 1)
        if not np.any(visible > 0):
            continue
        shift = 17.3 * octave + 5.13 * (seed % 101)  # small: float32 must keep the cells apart
        total += sample(x * np.float32(f) + np.float32(shift), y * np.float32(f) - np.float32(shift), seed + octave) * (
            np.float32(weight) * visible
        )
    return (total / np.float32(norm**0.5)).reshape(shape)


def hash_table(seed: int, shape: tuple[int, int] = (64, 64)) -> Array:
    """Uniform numbers to be looked up by cell index modulo ``shape``: the stable whims of windows, tiles and bricks."""
    return np.random.default_rng(seed).random(shape, np.float32)


def smoothstep(lo: float, hi: float, x: Any) -> Any:
    """0 below ``lo``, 1 above ``hi``, smooth between (``lo`` > ``hi`` falls instead)."""
    t = np.clip((x - lo) / (hi - lo), 0, 1)
    return t * t * (3 - 2 * t)


def ramp(signed: Any, footprint: Any) -> Any:
    """Box-filtered coverage of an edge: 0 where ``signed`` distance is outside (<0), 1 inside."""
    return np.clip(signed / np.maximum(footprint, 1e-6) + 0.5, 0, 1)


def stripe(x: Any, period: float, width: float, footprint: Any) -> Any:
    """Coverage of stripes of ``width`` around multiples of ``period``, filtered to their mean when too fine."""
    off = np.abs(x - period * np.round(x / period))
    sharp = np.clip((width / 2 - off) / np.maximum(footprint, 1e-6) + 0.5, 0, 1)
    fade = np.clip(footprint / period * 2 - 0.5, 0, 1)
    return sharp * (1 - fade) + (width / period) * fade
