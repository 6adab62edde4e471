"""Rain: streaks that the visible camera sees bright against the dark, and the thermal one as a thin, cool veil."""

from __future__ import annotations

import cv2
import numpy as np

from .camera import Camera
from .light import Lighting
from .plan import Climate
from .texture import Array

__all__ = ["draw_rain"]

#: Depths of the sheets that stand for all drops, in metres; a drop that is further away is no more than haze.
SHEETS = (2.5, 4.0, 6.5, 10.0, 16.0)
#: Metres a second that a drop of 2 mm falls, how wide it is, and how long the shutter of a camera is open in the rain.
FALL, WIDTH, SHUTTER = 6.5, 0.002, 1 / 60
#: What a drop hides of what is behind it, and how much of that the thermal camera feels: it is slower and coarser.
COVER, FELT = 0.55, 0.35
#: Drops of a sheet at the most.
MOST = 6000
BITS = 4


def draw_rain(canvas: Array, camera: Camera, climate: Climate, lighting: Lighting, seed: int, t: float) -> None:
    """Let it rain over ``canvas`` [H,W,4] in place, as at ``t`` seconds; nothing where the climate is dry."""
    if not climate.rain:
        return
    height, width = canvas.shape[:2]
    for layer, z in enumerate(SHEETS):
        rng = np.random.default_rng([seed, 53, layer])
        sides = (np.array([0.0, width]) - camera.cx) * z / camera.focal
        left, right = sides[0] - 1.0, sides[1] + 1.0
        top, tall = camera.eye + camera.horizon * z / camera.focal + 0.5, height * z / camera.focal + 1.0
        thick = z - (SHEETS[layer - 1] if layer else 1.0)
        count = min(int(climate.rain * (right - left) * tall * thick), MOST)
        x = rng.uniform(left, right, count)
        fall = FALL * rng.uniform(0.75, 1.2, count)
        y = top - (rng.uniform(0, tall, count) + fall * t) % tall  # what leaves below comes in again above
        lean = 0.12 * np.sin(0.4 * seed) + rng.normal(0, 0.02, count)
        u0, v0 = camera.project(x, y, z)
        u1, v1 = camera.project(x + lean * fall * SHUTTER, y - fall * SHUTTER, z)
        # A streak is drawn a pixel wide, so what is finer has less cover.
        wide = max(1, round(WIDTH * camera.focal / z))
        share = COVER * min(1.0, WIDTH * camera.focal / z + 0.15)
        mask = np.zeros((height, width), np.uint8)
        ends = np.stack([np.stack([u0, v0], -1), np.stack([u1, v1], -1)], 1)
        for line in np.round(np.clip(ends - 0.5, -8000, 8000) * (1 << BITS)).astype(np.int32):
            cv2.line(mask, line[0].tolist(), line[1].tolist(), 255, wide, cv2.LINE_AA, BITS)
        cover = cv2.GaussianBlur(mask, (0, 0), 0.5 + 0.15 * wide).astype(np.float32) * np.float32(share / 255)
        # A drop gathers light from nearly all round: that of the sky and half of that of the lamps.
        light = lighting.at(0.0, camera.eye, z).total().astype(np.float32)
        canvas[..., :3] += (light - canvas[..., :3]) * cover[..., None]
        canvas[..., 3] += (np.float32(climate.air - 1.0) - canvas[..., 3]) * (np.float32(FELT) * cover)
