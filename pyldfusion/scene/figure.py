"""The human figure: tapered limbs on a skeleton that walks, dressed, with skin that is warm.

Every limb is a signed distance field in the picture: its edge gives the coverage, its inside the roundness that light
and heat are shaded by. Cloth texture is bound to the limb, so it walks along.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .camera import NEAR, Camera
from .canvas import Patch
from .light import Rays
from .person import Pose, Walker
from .plan import Climate
from .texture import Array, fbm

__all__ = ["draw_person"]


def draw_person(camera: Camera, walker: Walker, pose: Pose, climate: Climate, rays: Rays) -> Patch | None:
    """The person as both cameras see them; None when out of view. Costs about 1 us a covered pixel and limb."""
    if pose.z < NEAR * 1.3:
        return None
    scale = camera.focal / pose.z
    u, v = camera.project(pose.x, 0.0, pose.z)
    tall = walker.height * scale
    x0, x1 = (int(np.clip(w, 0, camera.width)) for w in (np.floor(u - 0.34 * tall) - 2, np.ceil(u + 0.34 * tall) + 2))
    y0, y1 = (int(np.clip(w, 0, camera.height)) for w in (np.floor(v - 1.06 * tall) - 2, np.ceil(v + 0.06 * tall) + 2))
    if x0 >= x1 or y0 >= y1:
        return None
    figure = _Figure(walker, climate, rays, scale, u - x0, v - y0, (y1 - y0, x1 - x0), pose.heading)
    for limb in sorted(_limbs(walker, pose), key=lambda limb: -limb.depth):
        figure.limb(limb)
    return Patch(x0, y0, figure.data, figure.alpha)


@dataclass(frozen=True)
class _Limb:
    """A tapered capsule in the picture plane (metres right of and over the feet), nearer ones with less ``depth``.

    ``squash`` narrows it; ``cut`` leaves the end at ``a`` straight, as a hem is.
    """

    a: tuple[float, float]
    b: tuple[float, float]
    ra: float
    rb: float
    stuff: str
    depth: float
    squash: float = 1.0
    cut: bool = False


def _limbs(walker: Walker, pose: Pose) -> list[_Limb]:
    """The skeleton: joints in body axes (left, up, ahead), turned by the heading into the picture."""
    h, build = walker.height, walker.build
    c, s = float(np.cos(pose.heading)), float(np.sin(pose.heading))

    def joint(side: float, up: float, ahead: float) -> tuple[tuple[float, float], float]:
        return (side * c + ahead * s, up), -side * s + ahead * c

    limbs: list[_Limb] = []

    def add(p: Any, q: Any, ra: float, rb: float, stuff: str, bias: float = 0.0, **shape: Any) -> None:
        limbs.append(_Limb(p[0], q[0], ra, rb, stuff, (p[1] + q[1]) / 2 + bias, **shape))

    swing = 0.52 * pose.stride
    bob = 0.018 * h * pose.stride * abs(float(np.cos(pose.phase)))
    hip, shoulder = 0.52 * h - 0.02 * h * pose.stride + bob, 0.815 * h + bob
    thigh, shin = 0.245 * h, 0.25 * h
    for side in (-1, 1):
        angle = swing * float(np.sin(pose.phase + (0 if side < 0 else np.pi)))
        lift = float(np.cos(pose.phase + (0 if side < 0 else np.pi)))
        bend = pose.stride * (0.12 + 0.75 * max(lift, 0.0) ** 1.5)
        top = joint(side * 0.052 * h * build, hip, 0)
        knee_up, knee_ahead = hip - thigh * np.cos(angle), thigh * np.sin(angle)
        knee = joint(side * 0.05 * h, knee_up, knee_ahead)
        ankle_up, ankle_ahead = knee_up - shin * np.cos(angle - bend), knee_ahead + shin * np.sin(angle - bend)
        ankle_up = max(ankle_up, 0.045 * h)
        ankle = joint(side * 0.048 * h, ankle_up, ankle_ahead)
        heel = joint(side * 0.05 * h, ankle_up - 0.022 * h, ankle_ahead - 0.02 * h)
        toe = joint(side * 0.058 * h, max(ankle_up - 0.034 * h, 0.014 * h), ankle_ahead + 0.085 * h)
        add(heel, toe, 0.022 * h, 0.017 * h, "shoe")
        add(knee, ankle, 0.040 * h * build, 0.029 * h, "trousers", 0.005)
        add(top, knee, 0.061 * h * build, 0.042 * h * build, "trousers")

        arm = -0.75 * angle
        elbow_bend = 0.25 + 0.35 * pose.stride
        joint_a = joint(side * 0.106 * h * build, shoulder - 0.030 * h, 0)
        elbow_up, elbow_ahead = shoulder - 0.030 * h - 0.165 * h * np.cos(arm), 0.165 * h * np.sin(arm)
        elbow = joint(side * 0.134 * h * build, elbow_up, elbow_ahead)
        lower = arm + elbow_bend
        fall, push = h * np.cos(lower), h * np.sin(lower)
        wrist = joint(side * 0.140 * h * build, elbow_up - 0.135 * fall, elbow_ahead + 0.135 * push)
        hand = joint(side * 0.138 * h * build, elbow_up - 0.185 * fall, elbow_ahead + 0.185 * push)
        out = 0.09 * h  # arms hang outside the trunk: pull them nearer on the near side, further on the far
        bias = -out if -side * s < 0 else out
        add(joint_a, elbow, 0.037 * h * build, 0.031 * h * build, "jacket", bias)
        add(elbow, wrist, 0.031 * h * build, 0.022 * h, "jacket", bias)
        add(wrist, hand, 0.017 * h, 0.019 * h, "skin", bias + 0.001)
        if walker.bag and side > 0:
            hold = joint(0.142 * h * build, elbow_up - 0.30 * h, elbow_ahead + 0.1 * h)
            add(hand, hold, 0.03 * h, 0.062 * h, "bag", bias)

    wide = 0.092 * h * build * (abs(c) + 0.72 * abs(s))
    chest = joint(0, shoulder - 0.085 * h, 0)
    add(joint(0, hip - 0.035 * h, 0), chest, wide * 0.88, wide * 0.98, "jacket", -0.06, cut=True)
    for side in (-1, 1):
        add(
            joint(side * 0.012 * h, shoulder + 0.006 * h, 0),
            joint(side * 0.098 * h * build, shoulder - 0.030 * h, 0),
            0.030 * h,
            0.034 * h * build,
            "jacket",
            -0.061,
        )
    add(joint(0, hip - 0.01 * h, 0), joint(0, hip + 0.02 * h, 0), wide * 0.93, wide * 0.9, "trousers", 0.001)
    if walker.coat:
        add(joint(0, 0.30 * h, 0), joint(0, hip + 0.05 * h, 0.0), wide * 1.08, wide * 0.93, "jacket", -0.10, cut=True)
    if walker.pack:
        low, high = joint(0, hip + 0.09 * h, -0.10 * h), joint(0, shoulder - 0.05 * h, -0.10 * h)
        add(low, high, wide * 0.72, wide * 0.66, "bag")
    nape, jaw = joint(0, shoulder + 0.012 * h, 0), joint(0, 0.875 * h + bob, 0.012 * h)
    add(nape, jaw, 0.034 * h, 0.03 * h, "skin", -0.0605, cut=True)
    head = joint(0, 0.928 * h + bob, 0.014 * h)
    add(head, head, 0.066 * h, 0.066 * h, "head", -0.07, squash=0.80 + 0.10 * abs(s))
    return limbs


class _Figure:
    """The patch under construction."""

    def __init__(
        self,
        walker: Walker,
        climate: Climate,
        rays: Rays,
        scale: float,
        u: float,
        v: float,
        shape: tuple[int, int],
        heading: float,
    ) -> None:
        self.walker, self.climate, self.rays = walker, climate, rays
        self.scale, self.u, self.v, self.heading = scale, u, v, heading
        self.data = np.zeros((*shape, 4), np.float32)
        self.alpha = np.zeros(shape, np.float32)

    def limb(self, limb: _Limb) -> None:
        height, width = self.alpha.shape
        k = self.scale
        ax, ay = self.u + limb.a[0] * k, self.v - limb.a[1] * k
        bx, by = self.u + limb.b[0] * k, self.v - limb.b[1] * k
        ra, rb = max(limb.ra * k, 0.45), max(limb.rb * k, 0.45)
        x0, x1 = (int(np.clip(w, 0, width)) for w in (min(ax - ra, bx - rb) - 1, max(ax + ra, bx + rb) + 2))
        y0, y1 = (int(np.clip(w, 0, height)) for w in (min(ay - ra, by - rb) - 1, max(ay + ra, by + rb) + 2))
        if x0 >= x1 or y0 >= y1:
            return
        px = (np.arange(x0, x1, dtype=np.float32) + np.float32(0.5 - ax))[None, :]
        py = (np.arange(y0, y1, dtype=np.float32) + np.float32(0.5 - ay))[:, None]
        px = px / np.float32(limb.squash)
        dx, dy = np.float32(bx - ax), np.float32(by - ay)
        square = float(dx * dx + dy * dy)
        free = (px * dx + py * dy) / max(square, 1e-6)
        along = np.clip(free, 0, 1)
        qx, qy = px - along * dx, py - along * dy
        radius = ra + (rb - ra) * along
        distance = np.sqrt(qx * qx + qy * qy)
        cover = np.clip(radius - distance + 0.5, 0, 1).astype(np.float32)
        if limb.cut:
            cover *= np.clip(free * square**0.5 + 0.5, 0, 1)
        if not cover.any():
            return
        nx, up = qx / radius, -qy / radius
        flat = np.clip(nx * nx + up * up, 0, 1)
        out = np.sqrt(1 - flat)
        colour, heat = self._material(limb, along, nx, up, out, square**0.5 / k)
        light = self.rays.on(nx, up, -out)
        value = np.empty((*cover.shape, 4), np.float32)
        value[..., :3] = colour * light * (0.62 + 0.38 * out)[..., None]
        value[..., 3] = heat - (0.6 + 0.06 * np.clip(heat - self.climate.air, 0, 30)) * flat**2

        window = slice(y0, y1), slice(x0, x1)
        below = self.alpha[window]
        total = cover + below * (1 - cover)
        share = cover / np.maximum(total, 1e-4)
        self.data[window] += (value - self.data[window]) * share[..., None]
        self.alpha[window] = total

    def _material(
        self, limb: _Limb, along: Array, nx: Array, up: Array, out: Array, length: float
    ) -> tuple[Array, Array]:
        """Reflectance [h,w,3] and temperature [h,w] at ``along`` (0 to 1) a limb, normal (nx, up, -out)."""
        w, air = self.walker, self.climate.air
        body = 33.5 - air
        pixel = 1 / self.scale
        if limb.stuff == "head":
            return self._head(nx, up, out)
        if limb.stuff == "skin":
            skin = np.broadcast_to(np.asarray(w.skin, np.float32), (*nx.shape, 3))
            return skin, np.full(nx.shape, air + 0.88 * body, np.float32)
        if limb.stuff == "shoe":
            dark = np.asarray(w.trousers, np.float32) * 0.4 + 0.015
            return np.broadcast_to(dark, (*nx.shape, 3)), np.full(nx.shape, air + 0.18 * body, np.float32)
        across = nx * 0.1
        lie = along * max(length, 0.06)
        key = w.seed + len(limb.stuff) * 7 + int(limb.ra * 1000)
        folds = fbm(lie * 0.6 + 0.5 * across, across, pixel, frequency=16, octaves=3, gain=0.6, seed=key)
        weave = fbm(lie, across, pixel, frequency=90, octaves=2, seed=key + 1)
        if limb.stuff == "bag":
            base = np.asarray(w.hair, np.float32) + 0.04
            level = 1 + 0.15 * folds
            return base * level[..., None], (air + 0.12 * body + 0.4 * folds).astype(np.float32)
        base = np.asarray(w.jacket if limb.stuff == "jacket" else w.trousers, np.float32)
        level = 1 + 0.22 * folds + 0.10 * weave
        if limb.stuff == "jacket" and w.pattern:
            fade = np.clip(1.3 - pixel * 30, 0, 1)
            bars = np.sin(lie * (70 if w.pattern == 1 else 120)) > (0.3 if w.pattern == 1 else 0.85)
            level = level * (1 + (0.8 if w.pattern < 3 else -0.35) * bars * fade * 0.6)
        share = (0.34 if limb.stuff == "jacket" else 0.40) * w.warmth
        heat = air + body * (share + 0.055 * folds) + 0.05 * body * (along if limb.stuff == "jacket" else 1 - along)
        return base * np.clip(level, 0.2, 2.5)[..., None], heat.astype(np.float32)

    def _head(self, nx: Array, up: Array, out: Array) -> tuple[Array, Array]:
        """A ball that knows where its face is."""
        w, air = self.walker, self.climate.air
        body = 33.5 - air
        c, s = np.cos(self.heading), np.sin(self.heading)
        ahead = nx * s - out * c  # out points at the camera, to -Z
        side = nx * c + out * s
        hair = np.clip((0.30 * up - 0.05 - ahead + 0.75 * np.clip(up - 0.42, 0, 1) * 2.2) * 9 + 0.5, 0, 1)
        if w.hat:
            hair = np.maximum(hair, np.clip((up - 0.28) * 12, 0, 1))

        def spot(x: float, y: float, size: float) -> Array:
            near = (np.abs(side) - x) ** 2 + (up - y) ** 2
            return np.exp(-near / size**2) * (ahead > 0)

        eyes, brows = spot(0.34, 0.06, 0.13), spot(0.36, 0.26, 0.15)
        mouth = np.exp(-((side / 0.28) ** 2) - (((up + 0.50) / 0.07) ** 2)) * (ahead > 0)
        nose = np.exp(-((side / 0.14) ** 2) - (((up + 0.16) / 0.22) ** 2)) * (ahead > 0)
        skin = np.asarray(w.skin, np.float32)
        top = np.asarray(w.jacket if w.hat else w.hair, np.float32) * (1 + 0.2 * np.sin(side * 40))[..., None]
        face = skin * (1 - 0.72 * eyes - 0.4 * brows - 0.25 * mouth + 0.15 * nose)[..., None]
        colour = face + (top - face) * hair[..., None]
        warm = air + body * (0.97 + 0.03 * eyes + 0.02 * mouth - 0.12 * nose)
        if w.glasses:
            lens = np.clip(spot(0.34, 0.04, 0.19) * 2, 0, 1)
            warm = warm - 0.28 * body * lens
            colour = colour * (1 - 0.6 * lens * (1 - hair))[..., None]
        heat = warm + (air + (0.45 if not w.hat else 0.3) * body - warm) * hair
        return colour.astype(np.float32), heat.astype(np.float32)
