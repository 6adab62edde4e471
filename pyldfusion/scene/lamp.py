"""Street lamps as things: a pole, an arm and a head that is blinding in the visible and merely warm in the thermal."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .camera import NEAR, Camera
from .canvas import Patch, Shape
from .light import Lamp, Lighting
from .plan import Climate, Post

__all__ = ["draw_post", "shine"]


def shine(post: Post) -> Lamp | None:
    """The light of ``post``, None if it is broken."""
    if post.power <= 0:
        return None
    return Lamp((post.x + post.arm, post.height - 0.05, post.z), post.colour, post.power)


def draw_post(camera: Camera, post: Post, climate: Climate, lighting: Lighting) -> Patch | None:
    """The pole, arm and head; None when out of view."""
    if post.z < NEAR * 2:
        return None
    u, v = camera.project(np.array([post.x, post.x + post.arm]), np.array([post.height + 0.4, 0.0]), post.z)
    scale = camera.focal / post.z
    pad = 0.5 * scale
    shape = Shape(camera, (min(u) - pad, float(v[0]), max(u) + pad, float(v[1])), 4)
    if shape.empty:
        return None
    steps = 8 if scale > 12 else 3
    heights = np.linspace(0, post.height, steps + 1)
    widths = np.maximum(0.085 - 0.045 * heights / post.height, 0.25 / scale)
    for k in range(steps):
        rays = lighting.at(post.x, float(heights[k]), post.z - 0.3)
        for part, tone in ((-1.0, 0.7), (-0.3, 1.1), (0.3, 0.8)):
            colour = np.array([0.10, 0.11, 0.11]) * rays.on(part * 0.8, 0.0, -0.7) * tone
            edge = np.array([part, part + 0.7, part + 0.7, part])
            wide = np.array([widths[k], widths[k], widths[k + 1], widths[k + 1]])
            tops = heights[[k, k, k + 1, k + 1]]
            where = camera.project(post.x + edge * wide, tops, post.z)
            shape.polygon(*where, (*colour, climate.air + 0.8 - 0.3 * part))
    arm = np.linspace(0, 1, 9)
    thick = max(0.035, 0.2 / scale)
    for a, b in pairwise(arm):
        x = post.x + post.arm * np.array([a, b, b, a])
        y = post.height + 0.25 * np.sqrt(np.array([a, b, b, a])) - 0.15 + thick * np.array([-1, -1, 1, 1])
        shape.polygon(*camera.project(x, y, post.z), (0.004, 0.004, 0.004, climate.air + 0.4))
    on = post.power > 0 and climate.lamps
    x = post.x + post.arm + np.sign(post.arm) * np.array([-0.35, 0.30, 0.36, 0.1, -0.3])
    y = post.height + np.array([0.0, 0.0, 0.08, 0.17, 0.14])
    shape.polygon(*camera.project(x, y, post.z), (0.03, 0.03, 0.03, climate.air + (7.0 if on else 0.3)))
    if on:
        x = post.x + post.arm + np.sign(post.arm) * np.array([-0.28, 0.28, 0.26, -0.26])
        y = post.height + np.array([0.02, 0.02, -0.07, -0.07]) - 0.1 / max(scale, 4)
        shape.polygon(*camera.project(x, y, post.z), (*(22.0 * np.array(post.colour)), climate.air + 11.0))
    return shape.patch()
