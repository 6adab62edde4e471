"""What both cameras see, pixel for pixel: one array with three visible channels and one thermal.

Everything is laid over it with one coverage for both, which is what makes a rendered pair registered. The only
thing that differs between the two is what air, smoke and fog let through.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .camera import Camera
from .texture import Array

__all__ = ["Air", "Patch", "Shape", "darken", "lay", "veil"]


@dataclass(frozen=True)
class Patch:
    """A picture of an object, to be laid over a canvas at pixel (``x0``, ``y0``).

    Attributes:
        data: [h,w,4] float32: linear B, G, R radiance and temperature in degrees Celsius, *not* premultiplied.
        alpha: [h,w] coverage in [0, 1].
    """

    x0: int
    y0: int
    data: Array
    alpha: Array


@dataclass(frozen=True)
class Air:
    """What lies between an object and the eye.

    Attributes:
        extinction: of visible light, per metre; ``glow``: the colour of infinitely thick air; temperature: of the air.
    """

    extinction: float
    glow: tuple[float, float, float]
    temperature: float

    #: Water droplets and dust are small against 10 um: thermal light passes this much better.
    THERMAL = 0.12

    def apply(self, data: Array, z: Any) -> Array:
        """``data`` [...,4] as seen through ``z`` metres of air (scalar or [...])."""
        z = np.minimum(np.asarray(z, np.float32), 1e4)
        seen = np.exp(-self.extinction * z)[..., None]
        felt = np.exp(-(self.extinction * self.THERMAL + 0.0006) * z)
        out = np.empty_like(data)
        out[..., :3] = data[..., :3] * seen + np.asarray(self.glow, np.float32) * (1 - seen)
        out[..., 3] = data[..., 3] * felt + self.temperature * (1 - felt)
        return out


def lay(canvas: Array, patch: Patch, air: Air | None = None, z: float = 0.0) -> None:
    """Lay ``patch`` over ``canvas`` [H,W,4] in place, seen through ``z`` metres of ``air``; clips at the borders."""
    height, width = canvas.shape[:2]
    ph, pw = patch.alpha.shape
    x0, x1 = max(patch.x0, 0), min(patch.x0 + pw, width)
    y0, y1 = max(patch.y0, 0), min(patch.y0 + ph, height)
    if x0 >= x1 or y0 >= y1:
        return
    inside = slice(y0 - patch.y0, y1 - patch.y0), slice(x0 - patch.x0, x1 - patch.x0)
    data, alpha = patch.data[inside], patch.alpha[inside]
    if air is not None:
        data = air.apply(data, z)
    target = canvas[y0:y1, x0:x1]
    target += (data - target) * alpha[..., None]


def veil(canvas: Array, x0: int, y0: int, depth: Array, colour: Array, temperature: float, thermal: float) -> None:
    """Smoke of optical ``depth`` [h,w] in the visible and ``thermal`` times that in the thermal, in place."""
    h, w = depth.shape
    target = canvas[y0 : y0 + h, x0 : x0 + w]
    seen = np.exp(-depth)[..., None]
    target[..., :3] = target[..., :3] * seen + colour * (1 - seen)
    felt = np.exp(-thermal * depth)
    target[..., 3] = target[..., 3] * felt + temperature * (1 - felt)


class Shape:
    """A small drawing board of polygons with ``fine`` x ``fine`` samples a pixel, that becomes a :class:`Patch`.

    Args:
        camera: the view; box: (x0, y0, x1, y1) continuous pixel bounds of the object, clipped to the view.
        fine: samples a side of a pixel.
    """

    BLANK = -1000.0  # the temperature of what is not drawn on
    BITS = 4  # sub-sample precision of polygon corners, so that slow things move smoothly

    def __init__(self, camera: Camera, box: tuple[float, float, float, float], fine: int) -> None:
        self.x0 = int(np.clip(np.floor(box[0]) - 1, 0, camera.width))
        self.y0 = int(np.clip(np.floor(box[1]) - 1, 0, camera.height))
        self.width = int(np.clip(np.ceil(box[2]) + 1, 0, camera.width)) - self.x0
        self.height = int(np.clip(np.ceil(box[3]) + 1, 0, camera.height)) - self.y0
        self.fine = fine
        size = (max(self.height, 0) * fine, max(self.width, 0) * fine)
        self.data = np.zeros((*size, 4), np.float32)
        self.data[..., 3] = self.BLANK

    @property
    def empty(self) -> bool:
        return self.width <= 0 or self.height <= 0

    def polygon(self, u: Any, v: Any, value: Any) -> None:
        """Fill the convex polygon with corners ``u``, ``v`` (continuous pixels) with ``value`` [4]."""
        self.polygons([self.corners(u, v)], [value])

    def corners(self, u: Any, v: Any) -> NDArray[np.int32]:
        """Continuous pixels [...] -> the drawing's fixed-point coordinates [..., 2]."""
        points = np.stack([np.asarray(u) - self.x0, np.asarray(v) - self.y0], -1) * self.fine - 0.5
        return np.round(np.clip(points, -8000, 8000) * (1 << self.BITS)).astype(np.int32)

    def polygons(self, corners: Any, values: Any) -> None:
        """Fill convex polygons given as :meth:`corners`, one after the other."""
        for points, value in zip(corners, np.asarray(values, np.float64).tolist(), strict=True):
            cv2.fillConvexPoly(self.data, points, value, cv2.LINE_8, self.BITS)

    def patch(self) -> Patch:
        """The drawing at the view's resolution."""
        drawn = (self.data[..., 3] > self.BLANK).astype(np.float32)
        data = self.data * drawn[..., None]
        if self.fine == 1:
            return Patch(self.x0, self.y0, data, drawn)
        size = (self.width, self.height)
        alpha = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)
        mixed = cv2.resize(data, size, interpolation=cv2.INTER_AREA)
        return Patch(self.x0, self.y0, mixed / np.maximum(alpha, 1e-4)[..., None], alpha)


def darken(canvas: Array, camera: Camera, x: Any, z: Any, *, soft: float, depth: float, warmth: float = 0.0) -> None:
    """A soft shadow on the ground, in place: the convex outline ``x``, ``z`` (metres), ``depth`` in [0, 1].

    ``soft`` is the width of its edge in metres; ``warmth`` (kelvin) is added to the ground there.
    """
    x, z = np.asarray(x, np.float64), np.maximum(np.asarray(z, np.float64), 0.8)
    u, v = camera.project(x, 0.0, z)
    blur = max(0.6, soft * camera.focal / float(z.mean()) / 2)
    pad = int(2 * blur) + 2
    x0, x1 = (int(np.clip(w, 0, camera.width)) for w in (u.min() - pad, u.max() + pad))
    y0, y1 = (int(np.clip(w, 0, camera.height)) for w in (v.min() - pad, v.max() + pad))
    if x0 >= x1 or y0 >= y1:
        return
    mask = np.zeros((y1 - y0, x1 - x0), np.float32)
    corners = np.round(np.clip(np.stack([u - x0, v - y0], -1) - 0.5, -8000, 8000) * 16).astype(np.int32)
    cv2.fillConvexPoly(mask, corners, 1.0, cv2.LINE_8, 4)
    flat = max(0.5, blur * min(1.0, 2 * camera.eye / float(z.mean())))
    cv2.GaussianBlur(mask, (0, 0), blur, dst=mask, sigmaY=flat)
    target = canvas[y0:y1, x0:x1]
    target[..., :3] *= (1 - np.float32(depth) * mask)[..., None]
    target[..., 3] += np.float32(warmth) * mask
