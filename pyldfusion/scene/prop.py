"""Small things at the roadside: signs, bins, bollards, cabinets. Detail at the scale between a window and a leaf."""

from __future__ import annotations

import numpy as np

from .camera import NEAR, Camera
from .canvas import Patch, Shape
from .light import Lighting
from .plan import Climate, Prop

__all__ = ["draw_prop"]

RED, BLUE, WHITE, YELLOW = (0.03, 0.03, 0.45), (0.35, 0.09, 0.02), (0.62, 0.62, 0.62), (0.03, 0.42, 0.58)


def draw_prop(camera: Camera, prop: Prop, climate: Climate, lighting: Lighting) -> Patch | None:
    """The thing as both cameras see it; None when out of view."""
    if prop.z < NEAR * 1.5:
        return None
    u, v = camera.project(np.array([prop.x - 0.7, prop.x + 0.7]), np.array([3.2, 0.0]), prop.z)
    shape = Shape(camera, (float(u[0]), float(v[0]), float(u[1]), float(v[1])), 3)
    if shape.empty:
        return None
    rays = lighting.at(prop.x, 1.0, prop.z - 0.4)
    light = rays.on(0.0, 0.0, -1.0)
    upward = rays.on(0.0, 1.0, 0.0)

    def part(x: object, y: object, colour: tuple[float, float, float], heat: float, lit: object = light) -> None:
        where = camera.project(prop.x + np.asarray(x, np.float32), np.asarray(y, np.float32), prop.z)
        shape.polygon(*where, (*(np.asarray(colour) * lit), climate.air + heat))

    def box(half: float, low: float, high: float, colour: tuple[float, float, float], heat: float) -> None:
        for k in range(6):  # a little roundness, in light and in heat
            a, b = -half + 2 * half * k / 6, -half + 2 * half * (k + 1) / 6
            tone = 1.05 - 0.10 * abs(k - 1.5)
            shade = (colour[0] * tone, colour[1] * tone, colour[2] * tone)
            part([a, b, b, a], [low, low, high, high], shade, heat - 0.12 * abs(k - 2.5))

    if prop.what == "sign":
        box(0.035, 0.0, 2.6, (0.25, 0.25, 0.25), 0.6)
        _plate(part, prop.seed)
    elif prop.what == "bin":
        box(0.28, 0.08, 0.95, ((0.05, 0.10, 0.04), (0.10, 0.10, 0.10), (0.03, 0.16, 0.20))[prop.seed % 3], 0.9)
        part([-0.3, 0.3, 0.26, -0.26], [0.95, 0.95, 1.04, 1.04], (0.05, 0.05, 0.05), -0.6, upward)
    elif prop.what == "bollard":
        box(0.07, 0.0, 0.85, (0.06, 0.06, 0.06), 0.5)
        box(0.072, 0.62, 0.74, WHITE, 0.2)
    else:  # a cabinet with electronics inside
        box(0.45, 0.05, 1.25, (0.26, 0.28, 0.28), 3.5)
        part([-0.48, 0.48, 0.46, -0.46], [1.25, 1.25, 1.31, 1.31], (0.3, 0.3, 0.3), 0.5, upward)
        part([-0.01, 0.01, 0.01, -0.01], [0.12, 0.12, 1.2, 1.2], (0.08, 0.08, 0.08), 3.0)
    return shape.patch()


def _plate(part: object, seed: int) -> None:
    """The face of a sign: a round ban, a triangle of warning, a blue board or a yellow one."""
    circle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    shapes = [
        ((np.cos(circle), np.sin(circle)), RED, WHITE, 0.72),
        ((np.array([0, 0.95, -0.95]), np.array([1.0, -0.65, -0.65])), RED, WHITE, 0.62),
        ((np.array([-0.8, 0.8, 0.8, -0.8]), np.array([-0.8, -0.8, 0.8, 0.8])), BLUE, BLUE, 0.85),
        ((np.array([0, 1.1, 0, -1.1]), np.array([-1.1, 0, 1.1, 0])), WHITE, YELLOW, 0.75),
    ]
    (x, y), rim, face, inner = shapes[seed % len(shapes)]
    size, middle = 0.36, 2.35
    part(x * size, middle + y * size, rim, -0.9)  # type: ignore[operator]
    part(x * size * inner, middle + y * size * inner, face, -1.1)  # type: ignore[operator]
    mark = WHITE if face is BLUE else (0.02, 0.02, 0.02)
    part(np.array([-0.05, 0.05, 0.05, -0.05]), middle + size * np.array([-0.4, -0.4, 0.45, 0.45]), mark, -0.8)  # type: ignore[operator]
