"""The road, its markings, kerbs and pavements, and what grows beside them."""

from __future__ import annotations

import numpy as np

from .plan import Climate, Road
from .surface import Surfaces
from .texture import Array, fbm, hash_table, ramp, smoothstep, stripe

__all__ = ["paint_ground"]

WEARS = {"grass": (0.035, 0.085, 0.055), "paving": (0.25, 0.27, 0.28), "gravel": (0.17, 0.20, 0.22)}


def paint_ground(surfaces: Surfaces, road: Road, climate: Climate) -> None:
    """Paint all that lies at Y = 0, to the horizon."""
    camera = surfaces.camera
    below = np.flatnonzero(surfaces.slope_y < -1e-5)
    if below.size == 0:
        return
    rows = slice(int(below[0]), camera.height)
    z = (-camera.eye / surfaces.slope_y[rows])[:, None]
    x = surfaces.slope_x[None, :] * z
    s = x - np.float32(road.bend) * z * np.abs(z)  # metres across from the axis
    fine = z / np.float32(camera.focal)  # metres a pixel, across
    deep = z * z / np.float32(camera.focal * camera.eye)  # and along
    z = np.broadcast_to(z, s.shape)
    coarse = np.sqrt(fine * np.minimum(deep, 60 * fine))

    albedo, heat = _asphalt(road, climate, s, z, fine, deep, coarse)
    side = np.abs(s) - np.float32(road.half)
    for inner, colour, warmth in _verges(road, climate, s, z, fine, deep, coarse):
        cover = ramp(side - inner, fine)
        albedo += (colour - albedo) * cover[..., None]
        heat += (warmth - heat) * cover
    if climate.wet:
        puddle = fbm(s, z * 0.6, coarse, frequency=0.4, octaves=4, gain=0.6, seed=road.seed + 8)
        film = climate.wet * smoothstep(-1.2, 0.9, puddle) * ramp(road.walk - side, fine)
        steep = np.float32(camera.eye) / np.hypot(z, camera.eye)
        surfaces.gloss[rows] = film * (0.03 + 0.8 * (1 - steep) ** 5)
        albedo *= (1 - 0.45 * film)[..., None]
        heat = heat - 0.8 * film
    surfaces.paint(rows, slice(None), True, z=z, normal=(0, 1, 0), albedo=albedo, heat=heat)


def _asphalt(
    road: Road, climate: Climate, s: Array, z: Array, fine: Array, deep: Array, coarse: Array
) -> tuple[Array, Array]:
    seed = road.seed
    grain = fbm(s, z, fine * 2, frequency=14, octaves=3, gain=0.8, seed=seed)
    stain = fbm(s, z * 0.35, coarse, frequency=0.35, octaves=5, gain=0.6, seed=seed + 1)
    lane = 2 * road.half / road.lanes
    track = np.exp(-(((np.abs(s / lane - np.floor(s / lane) - 0.5) * lane - 0.78) / 0.28) ** 2))
    oil = np.exp(-(((s / lane - np.floor(s / lane) - 0.5) * lane / 0.3) ** 2))
    level = 0.105 * (1 + 0.10 * grain + 0.16 * stain - 0.12 * track - 0.18 * oil * smoothstep(-0.5, 1.5, stain))
    heat = climate.air + climate.road + 0.7 * stain + 0.9 * track + 0.12 * grain

    crack = np.abs(fbm(s, z * 0.6, coarse, frequency=0.45, octaves=4, gain=0.55, seed=seed + 2))
    old = smoothstep(0.2, 1.2, fbm(s, z, frequency=0.1, octaves=1, seed=seed + 3))
    crack = ramp(0.02 - crack, 0.02 + coarse * 1.5) * old
    level = level * (1 - 0.5 * crack)
    heat = heat + 0.5 * crack

    rng = np.random.default_rng(seed)
    for _ in range(3):  # repairs: darker, newer squares
        cs, cz = rng.uniform(-road.half, road.half), rng.uniform(4, 50)
        ws, wz = rng.uniform(0.4, 1.4), rng.uniform(0.6, 4)
        patch = ramp(ws - np.abs(s - cs), fine) * ramp(wz - np.abs(z - cz), deep)
        level = level * (1 - rng.uniform(0.1, 0.3) * patch)
        heat = heat + rng.uniform(-0.2, 0.9) * patch
    for _ in range(4):  # manhole covers
        cs, cz = rng.uniform(-road.half * 0.8, road.half * 0.8), rng.uniform(5, 40)
        distance = np.hypot(s - cs, (z - cz))
        cover = ramp(0.36 - distance, np.maximum(fine, deep))
        rib = stripe(s - cs, 0.12, 0.05, fine)
        level = level + (0.06 * (1 + 0.5 * rib) - level) * cover
        heat = heat + rng.uniform(1.0, 4.0) * cover
        rim = ramp(0.04 - np.abs(distance - 0.38), np.maximum(fine, deep))
        level = level * (1 - 0.4 * rim)

    mark, yellow = _markings(road, lane, s, z, fine, deep)
    worn = 0.9 - 0.35 * smoothstep(0.0, 1.4, grain * 0.6 + stain)
    mark, yellow = mark * worn, yellow * worn
    albedo = level[..., None] * np.array([0.96, 1.0, 1.03], np.float32)
    albedo = albedo + (np.array([0.55, 0.56, 0.56], np.float32) - albedo) * mark[..., None]
    albedo = albedo + (np.array([0.06, 0.36, 0.52], np.float32) - albedo) * yellow[..., None]
    heat = heat - 0.9 * (mark + yellow)  # paint reflects more sky
    return albedo.astype(np.float32), heat.astype(np.float32)


def _markings(road: Road, lane: float, s: Array, z: Array, fine: Array, deep: Array) -> tuple[Array, Array]:
    white, yellow = np.zeros_like(s), np.zeros_like(s)

    def line(at: float, width: float) -> Array:
        return ramp(width / 2 - np.abs(s - at), fine)

    dash = stripe(z - 2.0, 9.0, 3.5, deep)
    for k in range(1, road.lanes):
        at = k * lane - road.half
        if road.lanes % 2 == 0 and k == road.lanes // 2:
            if road.seed % 3 == 0:
                yellow = np.maximum(yellow, np.maximum(line(at - 0.13, 0.12), line(at + 0.13, 0.12)))
            else:
                white = np.maximum(white, line(at, 0.15) * dash)
        else:
            white = np.maximum(white, line(at, 0.13) * dash)
    if road.seed % 2:
        for at in (-road.half + 0.3, road.half - 0.3):
            white = np.maximum(white, line(at, 0.14))
    if road.crossing is not None:
        along = ramp(1.6 - np.abs(z - road.crossing), deep)
        bars = stripe(s, 1.0, 0.5, fine) * ramp(road.half - 0.3 - np.abs(s), fine)
        gap = ramp(2.6 - np.abs(z - road.crossing), deep)
        white, yellow = white * (1 - gap), yellow * (1 - gap)
        white = np.maximum(white, along * bars)
        stop = ramp(0.2 - np.abs(z - road.crossing + 3.4), deep) * ramp(road.half / 2 - np.abs(s - road.half / 2), fine)
        white = np.maximum(white, stop)
    return white, yellow


def _verges(
    road: Road, climate: Climate, s: Array, z: Array, fine: Array, deep: Array, coarse: Array
) -> list[tuple[float, Array, Array]]:
    """What follows the asphalt outwards: where it begins, its reflectance and its temperature."""
    seed = road.seed
    grain = fbm(s, z, fine * 2, frequency=9, octaves=3, gain=0.8, seed=seed + 4)
    dirt = fbm(s, z * 0.5, coarse, frequency=0.5, octaves=5, gain=0.6, seed=seed + 5)
    grey = np.array([0.97, 1.0, 1.02], np.float32)

    gutter = (0.07 * (1 + 0.2 * grain))[..., None] * grey
    joint = stripe(z, 1.0, 0.02, deep)
    kerb = (0.34 * (1 + 0.06 * grain + 0.1 * dirt) * (1 - 0.5 * joint))[..., None] * grey

    size = 0.4 + 0.3 * (seed % 3)
    whim = hash_table(seed)[np.floor(s / size).astype(int) % 64, np.floor(z / size).astype(int) % 64]
    seam = np.maximum(stripe(s, size, 0.018, fine), stripe(z, size, 0.018, deep))
    fade = np.clip(1.4 - deep / size * 2, 0, 1)
    tiles = (0.24 * (1 + 0.08 * grain + 0.12 * dirt + 0.16 * (whim - 0.5) * fade) * (1 - 0.45 * seam))[..., None] * grey

    cool = climate.air + climate.road
    rows = [
        (-0.35, gutter, cool + 0.2 + 0.2 * dirt),
        (0.0, kerb, cool - 0.9 + 0.15 * grain),
        (0.16, tiles, cool - 0.7 + 0.6 * dirt + 0.15 * grain - 0.4 * seam),
    ]
    tufts = fbm(s, z * 0.8, fine * 1.5, frequency=5, octaves=4, gain=0.8, seed=seed + 6)
    if road.verge == "grass":
        patchy = fbm(s, z, coarse, frequency=0.25, octaves=4, gain=0.6, seed=seed + 7)
        base = np.array(WEARS["grass"], np.float32)
        dry = np.array([0.06, 0.14, 0.16], np.float32)
        colour = base + (dry - base) * smoothstep(-0.4, 1.8, patchy)[..., None]
        colour = colour * np.clip(1 + 0.45 * tufts, 0.25, 2.5)[..., None]
        warmth = climate.air + 0.25 * climate.road - 0.8 + 1.0 * patchy + 0.7 * tufts
    else:
        base = np.array(WEARS[road.verge], np.float32)
        rough = 0.25 if road.verge == "gravel" else 0.08
        colour = base * np.clip(1 + rough * tufts + 0.12 * dirt, 0.3, 2)[..., None]
        warmth = cool - 1.0 + 0.5 * dirt + 0.25 * tufts
    rows.append((0.16 + road.walk, colour, warmth))
    return rows
