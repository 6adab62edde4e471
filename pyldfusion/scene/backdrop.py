"""The static picture behind everything that moves, drawn once per scene."""

from __future__ import annotations

import cv2
import numpy as np

from .building import paint_block
from .camera import Camera
from .canvas import Air, Patch, lay
from .ground import paint_ground
from .kinds import Kind
from .light import Lighting
from .mirror import mirror, streak
from .plan import Climate, Plan
from .room import paint_room
from .shadow import shade_ground
from .sky import paint_sky
from .surface import SKY, Surfaces
from .texture import Array

__all__ = ["Backdrop"]

FINE = 2  # samples a side of a pixel
BAND = 96  # rows drawn at a time, so that a large picture needs little memory
COARSE = 4  # pixels a side of a sample of the moving light


class Backdrop:
    """Sky, ground and buildings under the lights that stand still, and what moving lights need to know of them."""

    def __init__(self, plan: Plan, kind: Kind, lighting: Lighting, air: Air) -> None:
        camera = plan.camera
        shape = (camera.height, camera.width)
        self._canvas = np.empty((*shape, 4), np.float32)
        self._albedo = np.empty((*shape, 3), np.float32)
        self.gloss = np.zeros(shape, np.float32)
        z = np.empty(shape, np.float32)
        normal = np.empty((*shape, 3), np.float32)
        for top in range(0, camera.height, BAND):
            rows = min(BAND, camera.height - top)
            band = camera.window(0, top, camera.width, rows)
            surfaces = _draw(band, plan, kind, lighting)
            lit, bare = _light(surfaces, lighting, air)
            size = (camera.width, rows)
            self._canvas[top : top + rows] = cv2.resize(lit, size, interpolation=cv2.INTER_AREA)
            self._albedo[top : top + rows] = cv2.resize(bare, size, interpolation=cv2.INTER_AREA)
            z[top : top + rows] = surfaces.z[::FINE, ::FINE]
            normal[top : top + rows] = surfaces.normal[::FINE, ::FINE]
            self.gloss[top : top + rows] = np.where(z[top : top + rows] < SKY, 1, 0) * cv2.resize(
                surfaces.gloss, size, interpolation=cv2.INTER_AREA
            )

        if plan.climate.wet:
            self.gloss *= normal[..., 1] > 0.9
            mirror(self._canvas, camera, self.gloss, plan.seed % 97)
            for lamp in lighting.lamps:
                streak(self._canvas, camera, self.gloss, lamp.position, 1.8 * np.asarray(lamp.colour))
        self._size = (camera.width, camera.height)
        step = slice(COARSE // 2 if min(shape) > 64 else 0, None, COARSE if min(shape) > 64 else 1)
        slope_x, slope_y = camera.slopes()
        z = np.minimum(z[step, step], 400)
        self._points = slope_x[step] * z, camera.eye + slope_y[step][:, None] * z, z
        self._normals = tuple(np.ascontiguousarray(normal[step, step, k]) for k in range(3))
        self.heat = self._canvas[..., 3]

    def bake(self, patch: Patch) -> None:
        """Make ``patch`` part of the picture: something that nothing moving passes behind."""
        lay(self._canvas, patch)

    def canvas(self, lighting: Lighting) -> Array:
        """A fresh canvas [H,W,4] with the moving lights of ``lighting`` on it."""
        canvas = self._canvas.copy()
        if lighting.beams:
            light = lighting.swept(*self._points, *self._normals)
            canvas[..., :3] += self._albedo * cv2.resize(light, self._size, interpolation=cv2.INTER_LINEAR)
        return canvas

    def gain(self, rng: np.random.Generator, climate: Climate) -> tuple[float, float, float]:
        """Gain control for 8 bits: the temperatures to show as 0 and 255, and a gamma. Fixed over time."""
        ground = self.heat[self.heat > climate.air - 4.5]
        cold, warm = np.percentile(ground if ground.size else self.heat, [2, 99])
        low = float(cold) - rng.uniform(0.3, 4)
        high = max(climate.air + (33.5 - climate.air) * rng.uniform(0.55, 1.0), float(warm) + 2.0)
        return low, max(high, low + 6), float(rng.uniform(0.75, 1.2))


def _draw(band: Camera, plan: Plan, kind: Kind, lighting: Lighting) -> Surfaces:
    surfaces = Surfaces(band.scaled(FINE))
    if plan.room is not None:
        paint_room(surfaces, plan.room, plan.climate)
        return surfaces
    paint_sky(surfaces, kind, plan.climate, plan.seed % (1 << 20))
    paint_ground(surfaces, plan.road, plan.climate)
    if lighting.sun is not None:
        shade_ground(surfaces, plan, lighting.sun[0])
    for block in plan.blocks:
        paint_block(surfaces, block, plan.climate)
    return surfaces


def _light(surfaces: Surfaces, lighting: Lighting, air: Air) -> tuple[Array, Array]:
    """Radiance and temperature [h,w,4] through the air, and the reflectance [h,w,3] as dimmed by it."""
    x, y = surfaces.points()
    near = surfaces.z < 500
    z = np.where(near, surfaces.z, 500)
    nx, ny, nz = (surfaces.normal[..., k] for k in range(3))
    light = lighting.on(np.where(near, x, 0), np.where(near, y, 0), z, nx, ny, nz, surfaces.shade)
    lit = np.empty((*z.shape, 4), np.float32)
    lit[..., :3] = surfaces.albedo * light + surfaces.glow
    lit[..., 3] = surfaces.heat
    through = np.where(surfaces.z < SKY / 2, surfaces.z, 300.0)
    lit = air.apply(lit, through)
    return lit, surfaces.albedo * np.exp(-air.extinction * through)[..., None]
