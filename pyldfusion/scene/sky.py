"""The sky and what closes the view at the horizon: hills, woods, far houses."""

from __future__ import annotations

import numpy as np

from .kinds import Kind
from .plan import Climate
from .surface import SKY, Surfaces
from .texture import fbm, hash_table, smoothstep

__all__ = ["paint_sky"]


def paint_sky(surfaces: Surfaces, kind: Kind, climate: Climate, seed: int) -> None:
    """Paint everything above the horizon that no one will walk past."""
    camera = surfaces.camera
    above = np.flatnonzero(surfaces.slope_y > -1e-5)
    if above.size == 0:
        return
    rng = np.random.default_rng([seed, 3])
    rows = slice(0, int(above[-1]) + 1)
    east = surfaces.slope_x[None, :]
    up = np.maximum(surfaces.slope_y[rows], 0)[:, None]
    pixel = 1 / camera.focal

    climb = 1 - np.exp(-up * rng.uniform(3.0, 8.0))
    zenith, skyline = (np.array(c, np.float32) for c in (kind.zenith, kind.skyline))
    colour = skyline + (zenith - skyline) * climb[..., None]
    colour = colour * np.float32(rng.uniform(0.75, 1.3))

    # Clouds on a flat ceiling: stretched towards the horizon.
    cover = rng.uniform(-0.8, 1.4)
    ceiling = 1 / (up + 0.12)
    noise = fbm(east * ceiling * 1.2, ceiling * 1.6, pixel * ceiling, frequency=0.9, octaves=6, gain=0.55, seed=seed)
    cloud = smoothstep(0.9 - cover, 2.1 - cover, noise) * smoothstep(0.0, 0.12, up)
    lit = 0.5 * zenith + 0.75 * skyline
    shade = (1.0 + 0.25 * noise)[..., None]
    colour = colour + (lit * (1.25 if kind.sun[1] else 0.9) * shade - colour) * (0.75 * cloud)[..., None]
    heat = climate.air + climate.sky * (0.25 + 0.75 * climb) + (-0.55 * climate.sky) * cloud + 0.5 * noise * cloud

    if kind.zenith[0] < 0.05:
        stars = hash_table(seed, (512, 512))
        cell = 2.2 / 700
        si, sj = np.floor(up / cell).astype(int), np.floor(east / cell).astype(int)
        twinkle = stars[si % 512, sj % 512]
        bright = np.where(twinkle > 0.9985, (twinkle - 0.9985) / 0.0015, 0) * 0.10 * (1 - cloud) * climb
        colour = colour + bright[..., None].astype(np.float32)

    surfaces.paint(rows, slice(None), True, z=SKY, normal=(0, 0, 0), albedo=0.0, glow=colour, heat=heat)
    _horizon(surfaces, rows, kind, climate, seed, rng)


def _horizon(
    surfaces: Surfaces, rows: slice, kind: Kind, climate: Climate, seed: int, rng: np.random.Generator
) -> None:
    """Hills, then a town or a wood in front of them, as heights over the horizon by direction."""
    east = surfaces.slope_x[None, :]
    up = surfaces.slope_y[rows][:, None]
    pixel = 1 / surfaces.camera.focal
    one = np.zeros_like(east)

    hills = 0.03 + 0.02 * fbm(east, one, frequency=1.3, octaves=5, gain=0.5, seed=seed + 1)
    surfaces.paint(
        rows,
        slice(None),
        up < hills * rng.uniform(0.5, 1.8),
        z=900.0,
        normal=(0, 0.5, -0.8),
        albedo=np.array([0.05, 0.06, 0.05], np.float32),
        heat=climate.air - 1.5,
    )
    town = rng.random() < 0.6
    if town:
        whim = hash_table(seed + 2)
        cell = 0.028
        k = np.floor(east / cell).astype(int)
        tall = 0.015 + 0.075 * whim[k % 64, 0] ** 2.2
        local = east / cell - k
        y, x = np.floor(up / 0.0060), np.floor(local * 6)
        dots = whim[(y.astype(int) * 7 + k * 13) % 64, (x.astype(int) + k * 6) % 64]
        hole = (np.abs(up / 0.0060 - y - 0.5) < 0.28) & (np.abs(local * 6 - x - 0.5) < 0.3)
        on = hole & (dots < climate.lit * 1.2)
        warm = np.array([0.35, 0.68, 1.0], np.float32) * 0.55
        surfaces.paint(
            rows,
            slice(None),
            (up < tall) & (up > 0),
            z=420.0,
            normal=(0, 0.1, -1),
            albedo=(0.10 + 0.16 * whim[k % 64, 1])[..., None] * (1 - 0.45 * hole[..., None]),
            glow=on[..., None] * warm,
            heat=climate.air + 0.4 * climate.wall + 1.2 * whim[k % 64, 2] + 0.6 * hole - 0.3,
        )
    wood = 0.022 + 0.011 * fbm(east, one, pixel, frequency=9, octaves=6, gain=0.62, seed=seed + 4)
    wood = wood * rng.uniform(0.5, 1.6)
    leaf = fbm(east, up, pixel, frequency=120, octaves=4, gain=0.8, seed=seed + 5)
    green = np.array([0.025, 0.06, 0.04], np.float32) * np.clip(1 + 0.4 * leaf, 0.3, 2)[..., None]
    surfaces.paint(
        rows, slice(None), up < wood, z=260.0, normal=(0, 0.5, -0.85), albedo=green, heat=climate.air - 0.3 + 0.5 * leaf
    )
