"""A wet road mirrors: the still picture upside down, and lamps as long streaks. Visible only; to 10 um it is rough."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from .camera import Camera
from .texture import Array, fbm

__all__ = ["mirror", "streak"]


def mirror(canvas: Array, camera: Camera, gloss: Array, seed: int) -> None:
    """Add the reflection of what stands over the horizon to the ground, in place; ``gloss`` [H,W] in [0, 1]."""
    height, width = gloss.shape
    rows = np.arange(height, dtype=np.float32)[:, None]
    columns = np.arange(width, dtype=np.float32)[None, :]
    depth = np.maximum(rows + 0.5 - camera.horizon, 0.5)
    ripple = fbm(columns / depth, 30 * np.log(depth), frequency=3, octaves=3, gain=0.7, seed=seed)
    map_y = (2 * camera.horizon - rows - 1 + ripple * 0.06 * depth).astype(np.float32)
    map_x = (columns + ripple * 0.012 * depth).astype(np.float32)
    image = cv2.remap(canvas[..., :3], map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    image = cv2.GaussianBlur(image, (0, 0), 0.8, sigmaY=max(0.012 * height, 0.8))
    canvas[..., :3] += (image - 0.3 * canvas[..., :3]) * gloss[..., None]


def streak(canvas: Array, camera: Camera, gloss: Array, at: tuple[float, float, float], light: Any) -> None:
    """Add the streak of a lamp at X, Y, Z on the wet ground, in place; ``light`` [3] is its brightness."""
    if at[2] < 2:
        return
    u, v = camera.project(at[0], -at[1], at[2])
    across = max(0.10 * camera.focal / at[2], 0.7)
    along = max(0.30 * (v - camera.horizon), 1.5)
    x0, x1 = (int(np.clip(w, 0, camera.width)) for w in (u - 3 * across - 1, u + 3 * across + 2))
    y0, y1 = (int(np.clip(w, 0, camera.height)) for w in (v - 3 * along - 1, v + 3 * along + 2))
    if x0 >= x1 or y0 >= y1:
        return
    gx = np.exp(-(((np.arange(x0, x1) + 0.5 - u) / across) ** 2) / 2).astype(np.float32)
    gy = np.exp(-(((np.arange(y0, y1) + 0.5 - v) / along) ** 2) / 2).astype(np.float32)
    rows, columns = np.arange(y0, y1)[:, None] - v, np.arange(x0, x1)[None, :] - u
    broken = np.clip(1 + 0.6 * fbm(columns / across * 0.35, rows / along * 9, frequency=1.0, octaves=2), 0, 2)
    shape = gy[:, None] * gx[None, :] * broken * gloss[y0:y1, x0:x1]
    canvas[y0:y1, x0:x1, :3] += shape[..., None] * np.asarray(light, np.float32)
