"""Shadows: of buildings and trees in the sun, and of whatever walks or drives under the strongest light near it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from .building import DEEP
from .camera import Camera
from .canvas import darken
from .light import Rays
from .plan import Plan
from .surface import Surfaces
from .texture import Array, fbm, ramp, smoothstep

__all__ = ["cast", "shade_ground"]


def shade_ground(surfaces: Surfaces, plan: Plan, sun: tuple[float, float, float]) -> None:
    """Set the sun's share of light on the ground to what buildings and trees let through; cooler where it is dark."""
    below = np.flatnonzero(surfaces.slope_y < -1e-5)
    if below.size == 0:
        return
    rows = slice(int(below[0]), surfaces.camera.height)
    z = (-surfaces.camera.eye / surfaces.slope_y[rows])[:, None]
    x = surfaces.slope_x[None, :] * z
    z = np.broadcast_to(z, x.shape)
    shade = np.ones(x.shape, np.float32)
    sx, sy, sz = sun
    for block in plan.blocks:
        if block.z0 < 90:
            edges = sorted((block.side * block.x, block.side * (block.x + DEEP)))
            shade = np.minimum(shade, 1 - _box(x, z, sun, (edges[0], edges[1]), (block.z0, block.z1), block.height))
    ragged = 0.35 * fbm(x, z, z / surfaces.camera.focal, frequency=1.4, octaves=4, gain=0.7, seed=plan.seed % 97)
    for tree in plan.trees:
        if tree.z < 60:
            crown, radius = 0.6 * tree.height, 0.34 * tree.height
            cx, cz = tree.x - sx / sy * crown, tree.z - sz / sy * crown
            along = ((x - cx) * sx + (z - cz) * sz) / max((sx * sx + sz * sz) ** 0.5, 1e-3)
            square = (x - cx) ** 2 + (z - cz) ** 2 - along**2 + (along * sy) ** 2
            shade = np.minimum(shade, 1 - 0.85 * smoothstep(1.15, 0.7, np.sqrt(square) / radius + ragged))
    surfaces.shade[rows] = shade
    surfaces.heat[rows] -= 0.45 * plan.climate.road * (1 - shade)


def _box(
    x: Array, z: Array, sun: tuple[float, float, float], xs: tuple[float, float], zs: tuple[float, float], height: float
) -> Array:
    """Share of the sun that a box keeps from ground points: does the ray to the sun enter it below its top?"""
    enter = np.zeros(x.shape, np.float32)
    leave = np.full(x.shape, 1e4, np.float32)
    for at, step, (lo, hi) in ((x, sun[0], xs), (z, sun[2], zs)):
        step = step if abs(step) > 1e-3 else 1e-3
        a, b = (lo - at) / step, (hi - at) / step
        enter = np.maximum(enter, np.minimum(a, b))
        leave = np.minimum(leave, np.maximum(a, b))
    soft = 0.05 + 0.02 * enter
    return ramp(height - enter * sun[1], soft * 4) * ramp(leave - enter, soft * 2)


def cast(
    canvas: Array, camera: Camera, rays: Rays, x: Any, z: Any, height: float, *, soft: float, warmth: float = 0.0
) -> None:
    """Darken the ground, in place, under an upright object with footprint ``x``, ``z`` (metres) and ``height``.

    A contact shadow always; a cast one away from the strongest light, as dark as that light's share.
    """
    x, z = np.asarray(x, np.float32), np.asarray(z, np.float32)
    darken(canvas, camera, x, z, soft=soft, depth=0.55, warmth=warmth)
    if not rays.directed:
        return
    direction, colour = rays.directed[0]
    light = float(colour.sum()) * max(float(direction[1]), 0.0)
    if light <= 0 or direction[1] < 0.12:
        return
    others = float(rays.ambient.sum()) + sum(float(c.sum()) * max(float(d[1]), 0.0) for d, c in rays.directed[1:])
    throw = min(height / float(direction[1]), 2.5 * height + 1.0)
    dx, dz = -float(direction[0]) * throw, -float(direction[2]) * throw
    points = np.concatenate([np.stack([x, z], -1), np.stack([x + dx, z + dz], -1)]).astype(np.float32)
    hull = cv2.convexHull(points)[:, 0]
    darken(canvas, camera, hull[:, 0], hull[:, 1], soft=soft * 0.5, depth=0.85 * light / (light + others))
