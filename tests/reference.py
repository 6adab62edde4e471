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


def percentiles16(frame: NDArray[np.uint16], low: float = 0.5, high: float = 99.5) -> tuple[float, float]:
    """Two percentiles of the counts, linear between neighbours."""
    below, above = np.percentile(frame, (low, high))
    return float(below), float(above)


def colours(frame: Any, format: str, full_range: bool = False) -> NDArray[np.float64]:
    """Blue, green, red and luma of every pixel, [H,W,4], in counts; of Y, U and V by BT.601, unclipped."""
    if format == "grey":
        return np.repeat(frame.reshape(*frame.shape[:2], 1).astype(np.float64), 4, 2)
    if format in ("bgr", "rgb"):
        bgr = (frame if format == "bgr" else frame[..., ::-1]).astype(np.float64)
        return np.dstack([bgr, bgr @ (0.114, 0.587, 0.299)])
    y, u, v = (part.astype(np.float64) for part in yuv(frame, format))
    black, luma, chroma = (0, 1, 1) if full_range else (16, 219 / 255, 224 / 255)
    y, u, v = (y - black) / luma, (u - 128) / chroma, (v - 128) / chroma
    return np.dstack([y + 1.772 * u, y - 0.344136 * u - 0.714136 * v, y + 1.402 * v, y])


def yuv(frame: Any, format: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Y, U and V of every pixel, [H,W] each."""
    if format == "yuyv":
        return frame[..., 0], frame[:, ::2, 1].repeat(2, 1), frame[:, 1::2, 1].repeat(2, 1)
    rows = len(frame) // 3 * 2
    pairs = frame[rows:].repeat(2, 0)
    return frame[:rows], pairs[:, ::2].repeat(2, 1), pairs[:, 1::2].repeat(2, 1)


def frame_to_plane(
    frame: Any,
    format: str = "bgr",
    *,
    size: tuple[int, int] | None = None,
    matrix: Any = None,
    border: Any = "replicate",
    gain: Any = None,
    full_range: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """A frame's plane in [0, 1] and where it lies on the frame."""
    deep = format in ("grey", "bgr", "rgb") and frame.dtype == np.uint16
    counts = colours(frame, format)[..., 3] if format not in ("nv12", "yuyv") else yuv(frame, format)[0].astype(float)
    height, width = counts.shape
    across, down = (width, height) if size is None else size
    if matrix is None:
        sx, sy = width / across, height / down
        matrix = [[sx, 0, sx / 2 - 0.5], [0, sy, sy / 2 - 0.5], [0, 0, 1]]
    y, x = np.mgrid[:down, :across]
    X, Y, W = np.einsum("ij,jhw->ihw", np.asarray(matrix, np.float64), np.stack([x, y, np.ones_like(x)]))
    ahead = W > 0
    X, Y = (np.divide(part, W, out=np.full(W.shape, -9.0), where=ahead) for part in (X, Y))
    inside = ahead & (np.abs(2 * X - (width - 1)) <= width) & (np.abs(2 * Y - (height - 1)) <= height)
    far = np.pad(counts, 2, "edge") if border == "replicate" else np.pad(counts, 2, constant_values=border)
    X, Y = X.clip(-1, width) + 2, Y.clip(-1, height) + 2
    i, j = np.floor(Y).astype(int), np.floor(X).astype(int)
    down_by, right_by = Y - i, X - j
    upper = far[i, j] * (1 - right_by) + far[i, j + 1] * right_by
    lower = far[i + 1, j] * (1 - right_by) + far[i + 1, j + 1] * right_by
    seen = upper * (1 - down_by) + lower * down_by
    seen = np.where(ahead, seen, 0.0 if border == "replicate" else border)
    if gain is not None and len(gain) > 2:
        shown = np.asarray(gain, np.float64)[np.rint(seen.clip(0, len(gain) - 1)).astype(int)]
    else:
        video = format in ("nv12", "yuyv") and not full_range
        low, high = gain if gain is not None else (16, 235) if video else (0, 65535 if deep else 255)
        shown = (seen - low) / (high - low if high > low else 1)
    return shown.clip(0, 1), np.where(inside, 255, 0).astype(np.uint8)


def plane_to_frame(
    fused: NDArray[Any],
    vis: Any,
    format: str = "bgr",
    *,
    to: str | None = None,
    full_range: bool = False,
    cover: NDArray[np.uint8] | None = None,
) -> NDArray[np.float64]:
    """The fused frame, clipped but not rounded."""
    to = to or format
    deep = format in ("grey", "bgr", "rgb") and vis.dtype == np.uint16
    top = 65535.0 if deep else 255.0
    plane = np.nan_to_num(fused.astype(np.float64), nan=0.0) / (255 if fused.dtype == np.uint8 else 1)
    seen = colours(vis, format, full_range)
    luma = plane * top
    if cover is not None:
        luma = seen[..., 3] + (luma - seen[..., 3]) * (cover / 255)
    if to == "grey":
        return luma.clip(0, top)
    if to == "nv12":
        black, scale, step = (0, 1, 1) if full_range else (16, 219 / 255, 224 / 255)
        if format in ("nv12", "yuyv"):
            u, v = (part.astype(np.float64) for part in yuv(vis, format)[1:])
        else:
            u = 0.5 / (1 - 0.114) * (seen[..., 0] - seen[..., 3]) * step + 128
            v = 0.5 / (1 - 0.299) * (seen[..., 2] - seen[..., 3]) * step + 128
        blocks = [part.reshape(len(part) // 2, 2, -1, 2).mean((1, 3)) for part in (u, v)]
        pairs = np.stack(blocks, -1).reshape(len(luma) // 2, -1)
        return np.vstack([luma * scale + black, pairs]).clip(0, 255)
    bgr = (seen[..., :3] + (luma - seen[..., 3])[..., None]).clip(0, top)
    return bgr if to == "bgr" else bgr[..., ::-1]


def pyramid(ir: NDArray[Any], vis: NDArray[Any], look: Any) -> NDArray[np.float64]:
    """The edge-preserving pyramid of csrc/pyramid.h with a ``PyramidLook``: planes in [0, 1] or uint8 to [0, 1]."""
    planes = [x.astype(np.float64) / (255 if x.dtype == np.uint8 else 1) for x in (ir, vis)]
    planes = [np.clip(np.nan_to_num(x, nan=0.0, posinf=1.0, neginf=0.0), 0, 1) for x in planes]
    sources, scales = [], []
    for x in planes:
        mean = _halved(x).mean()
        variance = max(_halved(x * x).mean() - mean * mean, 0)
        scales.append(1 / np.sqrt(variance + look.least_contrast**2))
        sources.append((x - mean) * scales[-1])
    levels, smooth = [], sources
    for edge in look.edge:
        level = []
        for x, keep in zip(smooth, (look.hot_keep, 0), strict=True):
            mean, square = _halved(x), _halved(x * x)
            centre = _box(mean)
            variance = np.maximum(_box(square) - centre**2, 0)
            near_hot = np.clip(centre + np.sqrt(variance) - look.hot, 0, 1)
            kept = variance / (variance + edge * (1 - keep * near_hot**2 * (3 - 2 * near_hot)))
            a, b = _box(kept), _box((1 - kept) * centre)
            level.append((a, b, (1 - a) ** 2 * variance, a * mean + b))
        smooth = [x for *_, x in level]
        levels.append(level)
    hot = np.clip(smooth[0] - look.hot + 0.5, 0, 1)
    share = 0.5 + 0.5 * look.hot_lift * hot**2 * (3 - 2 * hot) * np.clip(2 * (smooth[0] - smooth[1]), 0, 1)
    kept = 1 / np.sqrt(1 + (np.maximum(smooth[0] - look.hot, 0) / look.hot_room) ** 2)
    k, rest = [share * kept, 1 - share], share * (1 - kept) * look.hot
    for index, level in reversed(list(enumerate(levels))):
        if index + 1 < len(levels):
            k, rest = [_doubled(x, level[0][0].shape) for x in k], _doubled(rest, level[0][0].shape)
        claims, gains = [], []
        for (_, _, energy, _), scale in zip(level, scales, strict=True):
            least = max(look.least_noise, look.coding_noise * scale)
            quiet = np.sort(energy, None)[int(np.float32(look.quiet) * np.float64(energy.size))]
            noise = max(np.sqrt(quiet), least)
            claims.append((np.maximum(np.sqrt(energy) - noise, 0) + 1e-4) ** look.choice[index])
            clear = (energy / (look.coring * noise) ** 2) ** 2
            strong = energy / look.strong**2
            gains.append((look.floor_gain + clear) / (1 + clear) * (look.gain[index] + strong) / (1 + strong))
        weights = [gain * claim / (claims[0] + claims[1]) for gain, claim in zip(gains, claims, strict=True)]
        rest = rest + sum((k[s] - weights[s]) * level[s][1] for s in (0, 1))
        k = [weights[s] + (k[s] - weights[s]) * level[s][0] for s in (0, 1)]
    small = sum(k[s] * _halved(sources[s]) for s in (0, 1)) + rest
    up = [_doubled(x, ir.shape) for x in (*k, rest)]
    fused = up[0] * sources[0] + up[1] * sources[1] + up[2]
    x = (fused - small.mean()) * look.deviation / np.sqrt(small.var() + 0.04)
    for side in (1, -1):
        room = max((1 - look.mean if side > 0 else look.mean) - look.knee, 0.02)
        over = np.maximum(side * x - look.knee, 0)
        x = x - side * (over - room * _bend(over / room))
    return np.clip(x + look.mean, 0, 1)


def _bend(x: NDArray[Any]) -> NDArray[Any]:
    return x / np.sqrt(1 + x * x)


def _halved(x: NDArray[Any]) -> NDArray[Any]:
    """Means of 2x2 pixels; an odd last row or column stands twice."""
    x = np.pad(x, [(0, side % 2) for side in x.shape], "edge")
    return (x[::2, ::2] + x[::2, 1::2] + x[1::2, ::2] + x[1::2, 1::2]) / 4


def _box(x: NDArray[Any]) -> NDArray[Any]:
    """Means of 3x3 pixels, the border repeated."""
    return np.lib.stride_tricks.sliding_window_view(np.pad(x, 1, "edge"), (3, 3)).mean(axis=(2, 3))


def _doubled(x: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Bilinear, pixel centres at halves, the border repeated; cut to ``shape``."""
    for axis in (0, 1):
        x = np.moveaxis(x, axis, 0)
        padded = np.concatenate((x[:1], x, x[-1:]))
        rows = np.stack((0.25 * padded[:-2] + 0.75 * x, 0.25 * padded[2:] + 0.75 * x), axis=1)
        x = np.moveaxis(rows.reshape(-1, *x.shape[1:]), 0, axis)
    return x[: shape[0], : shape[1]]
