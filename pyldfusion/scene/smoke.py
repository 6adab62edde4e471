"""Smoke: plumes that rise and drift, and banks that hide the road; nearly clear in the thermal picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .camera import Camera
from .canvas import veil
from .light import Lighting
from .plan import Climate, Road, pick
from .texture import Array, fbm, smoothstep

__all__ = ["Plume", "draw_plume", "plan_smoke"]


@dataclass(frozen=True)
class Plume:
    """A sheet of smoke at depth ``z``: from ``x`` on the ground, ``height`` m high, leaning with the ``wind`` (m/s).

    ``thick`` is its optical depth in the visible at the densest; ``white`` its reflectance; ``bank``: lies rather
    than rises.
    """

    x: float
    z: float
    height: float
    width: float
    wind: float
    rise: float
    thick: float
    white: float
    warmth: float
    bank: bool
    seed: int

    #: Smoke of fine particles: optical depth at 10 um over that in the visible.
    THERMAL = 0.05


def plan_smoke(rng: np.random.Generator, road: Road, count: int, thick: tuple[float, float]) -> tuple[Plume, ...]:
    plumes = []
    for k in range(count):
        z = pick(rng, (8, 18)) if k == 0 else pick(rng, (9, 34))
        bank = count > 1 and (k == 0 or rng.random() < 0.6)
        plumes.append(
            Plume(
                x=pick(rng, (-1, 1)) * (road.half + 3) + road.axis(z),
                z=z,
                height=pick(rng, (2.5, 6.0)) if bank else pick(rng, (5, 12)),
                width=pick(rng, (9, 26)) if bank else pick(rng, (0.5, 1.4)),
                wind=pick(rng, (-1.6, 1.6)),
                rise=pick(rng, (0.1, 0.3)) if bank else pick(rng, (0.9, 2.0)),
                thick=pick(rng, thick),
                white=pick(rng, (0.45, 0.9)),
                warmth=pick(rng, (0.5, 4)),
                bank=bank,
                seed=int(rng.integers(1 << 20)),
            )
        )
    return tuple(plumes)


def draw_plume(canvas: Array, camera: Camera, plume: Plume, climate: Climate, lighting: Lighting, t: float) -> None:
    """Lay ``plume`` at ``t`` seconds over what is behind it on ``canvas``, in place."""
    lean = plume.wind / max(plume.rise, 0.2) * plume.height * 0.35
    reach = plume.width * (1.3 if plume.bank else 2.5) + abs(lean) + 1.5
    sides, ends = np.array([plume.x - reach, plume.x + reach]), np.array([plume.height * 1.25, -1.2])
    u, v = camera.project(sides, ends, plume.z)
    x0, x1 = (int(np.clip(w, 0, camera.width)) for w in (np.floor(u[0]), np.ceil(u[1])))
    y0, y1 = (int(np.clip(w, 0, camera.height)) for w in (np.floor(v[0]), np.ceil(v[1]) + 2))
    if x1 - x0 < 2 or y1 - y0 < 2:
        return
    step = 1 if (x1 - x0) * (y1 - y0) < 4000 else 4  # smoke is smooth: a coarse grid will do
    w, h = -(-(x1 - x0) // step), -(-(y1 - y0) // step)
    metre = plume.z / camera.focal
    across = (x0 - camera.cx + (np.arange(w) + 0.5) * step) * metre
    over = camera.eye + (camera.horizon - y0 - (np.arange(h) + 0.5) * step) * metre
    x, y = (a.astype(np.float32) for a in np.meshgrid(across, over))

    drift = plume.wind * t
    size = 0.28 if plume.bank else 0.55
    coarse = fbm(x - drift, y * 1.3 - plume.rise * t, frequency=size, octaves=5, gain=0.6, seed=plume.seed)
    faster = y * 1.2 - 1.4 * plume.rise * t
    other = fbm(x - 0.6 * drift + 31, faster, frequency=size * 1.7, octaves=4, gain=0.6, seed=plume.seed + 1)
    noise = 0.65 * coarse + 0.45 * other
    up = np.clip(y / plume.height, 0, 1.3)
    if plume.bank:
        across = (x - plume.x) / plume.width + 0.10 * noise
        body = np.exp(-(np.abs(across) ** 3)) * smoothstep(0.95, 0.35, up + 0.30 * noise)
    else:
        middle = plume.x + lean * up**1.5 + 0.25 * up * other
        spread = plume.width * (0.35 + 1.9 * up**0.8)
        across = (x - middle) / spread + 0.30 * noise * np.minimum(up * 3, 1)
        body = np.exp(-(across**2)) * smoothstep(1.2, 0.45, up) / (0.6 + 0.9 * up)
    lumps = np.clip(0.7 + (0.75 if plume.bank else 0.55) * noise, 0.02, 2.2)
    depth = plume.thick * body * lumps * smoothstep(-1.1, 0.5, y + 0.35 * noise)
    light = lighting.at(plume.x, plume.height * 0.4, plume.z).total()
    shade = (0.75 + 0.18 * np.clip(coarse - 0.5 * other, -1.5, 1.5) + 0.25 * up)[..., None]
    colour = np.float32(plume.white) * light * shade
    if step > 1:
        whole = (w * step, h * step)
        depth = cv2.resize(depth, whole, interpolation=cv2.INTER_CUBIC)[: y1 - y0, : x1 - x0]
        colour = cv2.resize(colour, whole, interpolation=cv2.INTER_LINEAR)[: y1 - y0, : x1 - x0]
    warm = climate.air + plume.warmth
    veil(canvas, x0, y0, np.maximum(depth, 0), colour.astype(np.float32), warm, plume.THERMAL)
