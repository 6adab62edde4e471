"""Trees as they stand: drawn at their size, lit, and swayed by the wind."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from .camera import NEAR, Camera
from .canvas import Patch
from .grow import Grown
from .light import Lighting
from .plan import Climate, Tree

__all__ = ["stand", "sway"]

MARGIN = 8  # pixels drawn beyond the view, for the wind to move in


def stand(camera: Camera, tree: Tree, grown: Grown, climate: Climate, lighting: Lighting) -> Patch | None:
    """``grown`` as it stands at ``tree``, lit, at the view's resolution; None if it is out of view."""
    if tree.z < NEAR * 2:
        return None
    h = max(round(tree.height * camera.focal / tree.z), 2)
    w = max(round(h * grown.width), 2)
    u, v = camera.project(tree.x, 0.0, tree.z)
    x0, y0 = round(u - w / 2), round(v - h)
    left, right = max(0, -x0 - MARGIN), min(w, camera.width - x0 + MARGIN)
    top, bottom = max(0, -y0 - MARGIN), min(h, camera.height - y0 + MARGIN)
    if left >= right or top >= bottom:
        return None
    data, alpha = grown.draw(h, (left, top, right, bottom))

    across = (np.arange(left, right, dtype=np.float32) + 0.5) / w * 2 - 1
    up = 1 - (np.arange(top, bottom, dtype=np.float32) + 0.5) / h
    nx = np.broadcast_to(0.75 * across, alpha.shape)
    ny = np.broadcast_to(np.clip(1.6 * (up - 0.55), -0.5, 0.8)[:, None], alpha.shape)
    nz = -np.sqrt(np.clip(1 - nx**2 - ny**2, 0.05, 1))
    x = tree.x + nx * tree.height * 0.3
    y = np.broadcast_to((up * tree.height)[:, None], alpha.shape)
    light = lighting.on(x, y, np.full_like(x, tree.z), nx, ny, nz)
    data[..., :3] *= light * np.float32(1.15)
    data[..., 3] += np.float32(climate.air) + 0.03 * np.float32(climate.sky) * np.clip(ny, 0, 1)
    return Patch(x0 + left, y0 + top, data, alpha)


def sway(patch: Patch, height: int, root: int, t: float, seed: int) -> Patch:
    """``patch`` bent by the wind at time ``t``: the top moves most, and gusts run through the leaves.

    ``height`` and ``root`` are the tree's height and its root's row in pixels, which the patch may not show.
    """
    h, w = patch.alpha.shape
    phase = seed % 628 / 100
    up = np.clip((root - patch.y0 - np.arange(h, dtype=np.float32)) / max(height, 1), 0, 1)[:, None]
    across = np.arange(w, dtype=np.float32)[None, :] / max(height, 1)
    bend = 0.010 * height * np.sin(0.9 * t + phase) * (0.7 + 0.3 * np.sin(0.23 * t + phase))
    gust = 0.0035 * height
    dx = bend * up**1.6 + gust * up * np.sin(2.3 * t + 9 * across + 14 * up + phase)
    dy = 0.5 * gust * up * np.sin(2.9 * t + 13 * across - 9 * up + phase)
    map_x = (np.arange(w, dtype=np.float32)[None, :] - dx).astype(np.float32)
    map_y = (np.arange(h, dtype=np.float32)[:, None] - dy).astype(np.float32)
    alpha = cv2.remap(patch.alpha, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    data = cv2.remap(patch.data, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return replace(patch, data=data, alpha=alpha)
