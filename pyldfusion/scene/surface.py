"""The static world as one buffer of surfaces: what each pixel's surface reflects, emits, how warm and where it is.

Geometry is written once; reflectance and emission make the visible picture of it, temperature the thermal one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .camera import Camera
from .texture import Array

__all__ = ["Surfaces"]

SKY = 1e4  # depth of what is infinitely far, in metres


class Surfaces:
    """A view's surfaces, painted from far to near.

    Attributes (float32, [H,W] or [H,W,3]):
        albedo: linear BGR reflectance; glow: linear BGR emission; heat: degrees Celsius.
        z: depth in metres; normal: X, Y, Z.
        shade: share of the sun's light that arrives; gloss: how much wet ground mirrors.
    """

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        shape = (camera.height, camera.width)
        self.slope_x, self.slope_y = camera.slopes()
        self.albedo = np.zeros((*shape, 3), np.float32)
        self.glow = np.zeros((*shape, 3), np.float32)
        self.heat = np.zeros(shape, np.float32)
        self.z = np.full(shape, SKY, np.float32)
        self.normal = np.zeros((*shape, 3), np.float32)
        self.shade = np.ones(shape, np.float32)
        self.gloss = np.zeros(shape, np.float32)

    def points(self) -> tuple[Array, Array]:
        """World X and Y of every pixel's surface."""
        return self.slope_x * self.z, self.camera.eye + self.slope_y[:, None] * self.z

    def paint(
        self,
        rows: slice,
        columns: slice,
        mask: Any,
        *,
        z: Any,
        normal: tuple[float, float, float],
        albedo: Any,
        heat: Any,
        glow: Any = None,
    ) -> None:
        """Put a surface where ``mask`` [h,w] is true; values broadcast to the window."""
        where = np.broadcast_to(mask, self.heat[rows, columns].shape)
        deep = where[..., None]
        for target, value, cover in (
            (self.z, z, where),
            (self.normal, normal, deep),
            (self.albedo, albedo, deep),
            (self.heat, heat, where),
            (self.glow, 0.0 if glow is None else glow, deep),
        ):
            np.copyto(target[rows, columns], np.asarray(value, np.float32), where=cover)
