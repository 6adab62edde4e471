"""The metrics once more, straight from their definitions, in plain NumPy and float64.

Literal on purpose: ``pyldfusion.metrics`` is compared with it, and its speed is quoted against it.
Everything takes grey uint8 [H, W] pictures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Plane = NDArray[np.float64]


def en(fused: Picture) -> float:
    counts, _ = np.histogram(fused, bins=256, range=(0, 256))
    p = counts[counts > 0] / fused.size
    return float(-(p * np.log2(p)).sum())


def sd(fused: Picture) -> float:
    return float(np.std(fused.astype(np.float64)))


def pearson(x: Picture, y: Picture) -> float:
    dx = x.astype(np.float64) - x.mean()
    dy = y.astype(np.float64) - y.mean()
    return float((dx * dy).sum() / np.sqrt((dx * dx).sum() * (dy * dy).sum()))


def cc(fused: Picture, ir: Picture, vis: Picture) -> float:
    return (pearson(ir, fused) + pearson(vis, fused)) / 2


def pearson_uint8(x: Picture, y: Picture) -> float:
    def saturate(values: Plane) -> Plane:
        return np.clip(np.floor(values + 0.5), 0, 255)

    dx = saturate(x - x.mean())
    dy = saturate(y - y.mean())
    return float(saturate(dx * dy).sum() / np.sqrt(saturate(dx * dx).sum() * saturate(dy * dy).sum()))


def cc_uint8(fused: Picture, ir: Picture, vis: Picture) -> float:
    return (pearson_uint8(ir, fused) + pearson_uint8(vis, fused)) / 2


def sobel(picture: Picture) -> tuple[Plane, Plane]:
    """Gradients along x and y with a replicated border."""
    p = np.pad(picture.astype(np.float64), 1, mode="edge")
    rows = p[:-2] + 2 * p[1:-1] + p[2:]
    columns = p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]
    return rows[:, :-2] - rows[:, 2:], columns[:-2] - columns[2:]


def ei(fused: Picture) -> float:
    gx, gy = sobel(fused)
    return float(np.sqrt(gx**2 + gy**2).mean())


def sf(fused: Picture) -> float:
    x = fused.astype(np.float64)
    rows = ((x[:, 1:] - x[:, :-1]) ** 2).sum() / x.size
    columns = ((x[1:, :] - x[:-1, :]) ** 2).sum() / x.size
    return float(np.sqrt(rows + columns))


def ag(fused: Picture) -> float:
    x = fused.astype(np.float64)
    dx = x[:-1, 1:] - x[:-1, :-1]
    dy = x[1:, :-1] - x[:-1, :-1]
    return float(np.sqrt((dx**2 + dy**2) / 2).mean())


def information(x: Picture, y: Picture) -> float:
    """I(X; Y) = H(X) + H(Y) - H(X, Y) in bits."""
    joint, _, _ = np.histogram2d(x.ravel(), y.ravel(), bins=256, range=[[0, 256], [0, 256]])
    p = joint[joint > 0] / x.size
    return en(x) + en(y) + float((p * np.log2(p)).sum())


def mi(fused: Picture, ir: Picture, vis: Picture) -> float:
    return information(ir, fused) + information(vis, fused)


def qabf(fused: Picture, ir: Picture, vis: Picture) -> float:
    def strength_and_angle(picture: Picture) -> tuple[Plane, Plane]:
        gx, gy = sobel(picture)
        upright = gx == 0
        angle = np.where(upright, np.pi / 2, np.arctan(gy / np.where(upright, 1, gx)))
        return np.sqrt(gx**2 + gy**2), angle

    def preserved(source: Picture) -> tuple[Plane, Plane]:
        g, a = strength_and_angle(source)
        strength = np.minimum(g, g_f) / np.maximum(np.maximum(g, g_f), 1e-300)
        angle = np.abs(np.abs(a - a_f) - np.pi / 2) / (np.pi / 2)
        q_strength = 0.9994 / (1 + np.exp(-15 * (strength - 0.5)))
        q_angle = 0.9879 / (1 + np.exp(-22 * (angle - 0.8)))
        return q_strength * q_angle, g

    g_f, a_f = strength_and_angle(fused)
    q_ir, w_ir = preserved(ir)
    q_vis, w_vis = preserved(vis)
    return float((q_ir * w_ir + q_vis * w_vis).sum() / (w_ir + w_vis).sum())


def gaussian(size: int, sigma: float) -> Plane:
    axis = np.arange(size) - (size - 1) / 2
    window = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * sigma**2))
    return window / window.sum()


def smooth(picture: Plane, window: Plane) -> Plane:
    """Correlation with a separable symmetric window where it lies wholly inside the picture."""
    weights = window.sum(axis=1)
    height, width = (side - len(weights) + 1 for side in picture.shape)
    rows = sum(weight * picture[k : k + height] for k, weight in enumerate(weights))
    return sum(weight * rows[:, k : k + width] for k, weight in enumerate(weights))


def ssim(fused: Picture, ir: Picture, vis: Picture) -> float:
    window = gaussian(11, 1.5)

    def similarity(x: Plane, y: Plane) -> float:
        mx, my = smooth(x, window), smooth(y, window)
        vx = smooth(x * x, window) - mx * mx
        vy = smooth(y * y, window) - my * my
        cov = smooth(x * y, window) - mx * my
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        return float(((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())

    f, a, b = (picture.astype(np.float64) for picture in (fused, ir, vis))
    return (similarity(a, f) + similarity(b, f)) / 2


def viff(fused: Picture, ir: Picture, vis: Picture) -> float:
    noise, c = 0.005 * 255**2, 1e-7
    f, a, b = (picture.astype(np.float64) for picture in (fused, ir, vis))

    def transfer(s: Plane) -> tuple[Plane, Plane, Plane]:
        """Gain, residual variance and source variance of ``f`` seen as a distorted ``s``."""
        ms, mf = smooth(s, window), smooth(f, window)
        vs = smooth(s * s, window) - ms * ms
        vf = smooth(f * f, window) - mf * mf
        cov = smooth(s * f, window) - ms * mf
        vs[vs < 0] = 0
        vf[vf < 0] = 0
        g = cov / (vs + 1e-10)
        res = vf - g * cov
        flat = vs < 1e-10
        g[flat], res[flat], vs[flat] = 0, vf[flat], 0
        flat = vf < 1e-10
        g[flat], res[flat] = 0, 0
        against = g < 0
        res[against], g[against] = vf[against], 0
        res[res < 1e-10] = 1e-10
        return g, res, vs

    total = 0.0
    for scale, (size, weight) in enumerate(zip((17, 9, 5, 3), (1, 0, 0.15, 1), strict=True)):
        window = gaussian(size, size / 5)
        if scale > 0:
            f, a, b = (smooth(x, window)[::2, ::2] for x in (f, a, b))
        g_a, res_a, v_a = transfer(a)
        g_b, res_b, v_b = transfer(b)
        first = g_a < g_b
        g, res, vs = np.where(first, g_a, g_b), np.where(first, res_a, res_b), np.where(first, v_a, v_b)
        vid = np.log10(1 + g**2 * vs / (res + noise))
        vind = np.log10(1 + vs / noise)
        total += weight * (vid + c).sum() / (vind + c).sum()
    return float(total / 2.15)


def evaluate(fused: Picture, ir: Picture, vis: Picture) -> dict[str, float]:
    return {
        "EN": en(fused),
        "CC": cc(fused, ir, vis),
        "CC_uint8": cc_uint8(fused, ir, vis),
        "SD": sd(fused),
        "EI": ei(fused),
        "VIFF": viff(fused, ir, vis),
        "SF": sf(fused),
        "AG": ag(fused),
        "MI": mi(fused, ir, vis),
        "Qabf": qabf(fused, ir, vis),
        "SSIM": ssim(fused, ir, vis),
    }
