"""The kernels of pyldfusion.kernels, written plainly in NumPy. Same names, same arguments, no threads."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def entropy(pixels: NDArray[Any], boxes: NDArray[np.int32] | None = None) -> NDArray[np.float64]:
    """Shannon entropy in bits of patches [N,H,W], or of boxes [N,4] (x, y, width, height) of an image [H,W]."""
    patches = pixels if boxes is None else [pixels[y : y + h, x : x + w] for x, y, w, h in boxes.tolist()]
    return np.array([_patch_entropy(patch) for patch in patches], dtype=np.float64)


def _patch_entropy(patch: NDArray[Any]) -> float:
    if patch.dtype == np.uint8:
        counts = np.bincount(patch.ravel(), minlength=256)
    else:
        counts, _ = np.histogram(patch[~np.isnan(patch)], bins=256, range=(0.0, 1.0))
    p = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(p * np.log2(p)).sum())


def entropy_affine(
    planes: NDArray[Any], boxes: NDArray[np.int32], maps: NDArray[Any], size: int
) -> NDArray[np.float64]:
    """Entropy of patches [M,size,size] that affine maps [M,2,3] cut from boxes [M,3] of planes [P,H,W]: [M,P]."""
    cut = np.array([cut_affine(planes, box, map, size) for box, map in zip(boxes.tolist(), maps, strict=True)])
    return np.array([entropy(patches) for patches in cut]).reshape(len(boxes), len(planes))


def cut_affine(planes: NDArray[Any], box: list[int], map: NDArray[Any], size: int) -> NDArray[np.float64]:
    """One patch [P,size,size] in float64, bilinear, 0 beyond the box (left, top, side)."""
    left, top, side = box
    inside = planes[:, top : top + side, left : left + side].astype(np.float64)
    steps = ((np.arange(size) + 0.5) / size - 0.5) * side
    x, y = np.meshgrid(steps, steps)
    points = np.einsum("ij,jyx->iyx", map.astype(np.float64), np.stack([x, y, np.ones_like(x)]))
    beyond = (np.abs(points) > side / 2).any(0)
    column, row = np.clip(points + (side - 1) / 2, 0, side - 1)
    x0, y0 = np.floor(column).astype(int), np.floor(row).astype(int)
    x1, y1 = np.minimum(x0 + 1, side - 1), np.minimum(y0 + 1, side - 1)
    upper = inside[:, y0, x0] * (x0 + 1 - column) + inside[:, y0, x1] * (column - x0)
    lower = inside[:, y1, x0] * (x0 + 1 - column) + inside[:, y1, x1] * (column - x0)
    return np.where(beyond, 0, upper * (y0 + 1 - row) + lower * (row - y0))


def adain(x: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any], eps: float = 1e-5) -> NDArray[np.float64]:
    """Adaptive instance normalisation of x [N,C,H,W] with weight and bias [N,C], in float64."""
    x = x.astype(np.float64)
    mean = x.mean(axis=(2, 3), keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=(2, 3), keepdims=True)
    scale, shift = (style.astype(np.float64)[:, :, None, None] for style in (weight, bias))
    return (x - mean) / np.sqrt(variance + eps) * scale + shift


def histogram16(frame: NDArray[np.uint16]) -> NDArray[np.int64]:
    """How often each of the 65536 values occurs."""
    return np.bincount(frame.ravel(), minlength=65536)


def scale16(frame: NDArray[np.uint16], lo: float, hi: float) -> NDArray[np.uint8]:
    """lo..hi onto 0..255, nearest, halves up, clipped."""
    grey = np.floor((frame.astype(np.float64) - lo) * (255.0 / (hi - lo)) + 0.5)
    return np.clip(grey, 0, 255).astype(np.uint8)


def add_luma(vis: NDArray[Any], luma_delta: NDArray[np.int16]) -> NDArray[Any]:
    """A luma difference in 8-bit grey levels added to every channel, in the depth of vis, clipped."""
    delta = luma_delta if vis.ndim == 2 else luma_delta[:, :, None]
    if vis.dtype == np.uint16:
        return np.clip(vis.astype(np.int64) + delta.astype(np.int64) * 257, 0, 65535).astype(np.uint16)
    return np.clip(vis + delta.astype(vis.dtype) / vis.dtype.type(255), 0, 1)
