"""Houses along the street: facades with windows, shops, brickwork and what leaks out of them as heat."""

from __future__ import annotations

from typing import Any

import numpy as np

from .camera import NEAR
from .plan import Block, Climate
from .surface import Surfaces
from .texture import Array, bgr, fbm, hash_table, ramp, smoothstep, stripe

__all__ = ["paint_block"]

DEEP = 13.0  # metres a building goes back from the road
ROOM_LIGHTS = np.array([(0.18, 0.52, 0.95), (0.30, 0.66, 1.0), (0.62, 0.88, 1.0), (1.0, 0.92, 0.78)], np.float32)


def paint_block(surfaces: Surfaces, block: Block, climate: Climate) -> None:
    """Paint the faces of ``block`` that the camera sees; blocks must come from far to near."""
    _front(surfaces, block, climate)
    _side(surfaces, block, climate)


def _window(
    surfaces: Surfaces, xs: tuple[float, ...], zs: tuple[float, float], top: float
) -> tuple[slice, slice] | None:
    """Pixel window (rows, columns) around the part of the box between the two corners, or None."""
    camera = surfaces.camera
    u, v = [], []
    for x in xs:
        for z in zs:
            for y in (0.0, top):
                a, b = camera.project(x, y, max(z, NEAR))
                u.append(a)
                v.append(b)
    c0, c1 = (int(np.clip(w, 0, camera.width)) for w in (np.floor(min(u)) - 1, np.ceil(max(u)) + 1))
    r0, r1 = (int(np.clip(w, 0, camera.height)) for w in (np.floor(min(v)) - 1, np.ceil(max(v)) + 1))
    return None if c0 >= c1 or r0 >= r1 else (slice(r0, r1), slice(c0, c1))


def _front(surfaces: Surfaces, block: Block, climate: Climate) -> None:
    """The face at z0 that looks at the camera, with a gable if the roof is pitched."""
    if block.z0 < NEAR:
        return
    near, far = block.side * block.x, block.side * (block.x + DEEP)
    window = _window(surfaces, (near, far), (block.z0, block.z0), block.height + block.roof)
    if window is None:
        return
    rows, columns = window
    z = np.float32(block.z0)
    along = np.abs(surfaces.slope_x[columns] * z - near)[None, :]
    outside = (surfaces.slope_x[columns] * z * block.side < block.x)[None, :]
    y = (surfaces.camera.eye + surfaces.slope_y[rows] * z)[:, None]
    top = block.height + block.roof * (1 - np.abs(along - DEEP / 2) / (DEEP / 2))
    mask = ~outside & (along <= DEEP) & (y >= 0) & (y <= top)
    footprint = z / np.float32(surfaces.camera.focal)
    albedo, glow, heat = _facade(block, climate, along, y, footprint, footprint, length=DEEP, shop=False, shift=7)
    surfaces.paint(rows, columns, mask, z=z, normal=(0, 0, -1), albedo=albedo, glow=glow, heat=heat)


def _side(surfaces: Surfaces, block: Block, climate: Climate) -> None:
    """The face along the road, and the roof above it where it can be seen."""
    camera = surfaces.camera
    x = np.float32(block.side * block.x)
    zs = (max(block.z0, NEAR), block.z1)
    if zs[1] <= NEAR:
        return
    window = _window(surfaces, (float(x),), zs, block.height)
    if window is not None:
        rows, columns = window
        slope = surfaces.slope_x[columns]
        z = (x / np.where(np.abs(slope) < 1e-6, 1e-6, slope))[None, :]
        y = camera.eye + surfaces.slope_y[rows][:, None] * z
        mask = (z >= zs[0]) & (z <= zs[1]) & (y >= 0) & (y <= block.height)
        z = np.clip(z, *zs)
        fine = z / np.float32(camera.focal)
        deep = z * z / np.float32(camera.focal * block.x)
        along, length = z - np.float32(block.z0), block.z1 - block.z0
        albedo, glow, heat = _facade(block, climate, along, y, deep, fine, length=length, shop=block.shop)
        surfaces.paint(rows, columns, mask, z=z, normal=(-block.side, 0, 0), albedo=albedo, glow=glow, heat=heat)
    if block.roof:
        _roof(surfaces, block, climate, zs)


def _roof(surfaces: Surfaces, block: Block, climate: Climate, zs: tuple[float, float]) -> None:
    """The tiled slope over the facade: the plane y = height + k (side x - block.x), hidden from a low eye."""
    camera = surfaces.camera
    k = block.roof / (DEEP / 2)
    rise = block.height - camera.eye - k * block.x
    corners = (block.side * (block.x - 0.4), block.side * (block.x + DEEP / 2))
    window = _window(surfaces, corners, zs, block.height + block.roof)
    if rise > -0.3 or window is None:
        return
    rows, columns = window
    tilt = surfaces.slope_y[rows][:, None] - block.side * k * surfaces.slope_x[columns][None, :]
    z = rise / np.where(np.abs(tilt) < 1e-6, 1e-6, tilt)
    out = block.side * surfaces.slope_x[columns] * z - np.float32(block.x)
    mask = (z >= zs[0]) & (z <= zs[1]) & (out >= -0.4) & (out <= DEEP / 2)
    z = np.clip(z, *zs)
    course = stripe(out, 0.3, 0.05, z / camera.focal)
    mottle = fbm(z, out, z / camera.focal, frequency=1.2, octaves=4, gain=0.7, seed=block.seed)
    albedo = bgr(0.07, 0.08, 0.11) * (1 + 0.15 * mottle - 0.4 * course)[..., None]
    norm = (1 + k * k) ** 0.5
    surfaces.paint(
        rows,
        columns,
        mask,
        z=z,
        normal=(-block.side * k / norm, 1 / norm, 0),
        albedo=albedo,
        heat=climate.air - 2.5 + 0.4 * mottle + 0.4 * block.warmth,
    )


def _facade(
    block: Block,
    climate: Climate,
    along: Array,
    y: Array,
    fine_a: Any,
    fine_y: Any,
    *,
    length: float,
    shop: bool,
    shift: int = 0,
) -> tuple[Array, Array, Array]:
    """Reflectance, emission and temperature at ``along`` the wall and ``y`` over the ground (metres, [h,w])."""
    pitch = length / max(round(length / block.pitch), 1)
    along, y = (np.asarray(v, np.float32) for v in np.broadcast_arrays(along, y))
    fine_a, fine_y = np.broadcast_to(fine_a, y.shape), np.broadcast_to(fine_y, y.shape)
    seed = block.seed + shift
    whim = hash_table(seed)
    stain = fbm(along, y * 0.3, np.maximum(fine_a, fine_y), frequency=0.5, octaves=5, gain=0.6, seed=seed)
    rough = fbm(along, y, np.maximum(fine_a, fine_y) * 1.5, frequency=7, octaves=3, gain=0.8, seed=seed + 1)
    level = 1 + 0.11 * stain + 0.07 * rough
    warm = climate.air + climate.wall + block.warmth + 0.6 * stain + 0.15 * rough + 0.9 * smoothstep(4, 0, y)

    if block.style == "brick":
        row = np.floor(y / 0.078)
        shifted = along + 0.12 * (row % 2)
        bed = np.maximum(stripe(y, 0.078, 0.012, fine_y), stripe(shifted, 0.24, 0.012, fine_a))
        bond = whim[row.astype(int) % 64, np.floor(shifted / 0.24).astype(int) % 64]
        detail = np.clip(1.5 - np.maximum(fine_a / 0.12, fine_y / 0.04), 0, 1)
        level = level * (1 + 0.35 * (bond - 0.5) * detail) * (1 + 0.35 * bed)
        warm = warm - 0.15 * bed
    elif block.style == "concrete":
        level = level * (1 - 0.3 * np.maximum(stripe(along, pitch, 0.03, fine_a), stripe(y, block.floor, 0.04, fine_y)))

    slab = stripe(y - 0.15, block.floor, 0.3, fine_y)  # floors conduct heat outwards
    warm = warm + 0.6 * slab
    if block.style == "plaster":
        level = level * (1 + 0.10 * slab)
    plinth = ramp(0.55 - y, fine_y)
    cornice = ramp(0.35 - np.abs(y - block.height + 0.2), fine_y)
    level = level * (1 - 0.35 * plinth) * (1 + 0.25 * cornice)
    albedo = np.asarray(block.colour, np.float32) * level[..., None]
    glow = np.zeros_like(albedo)
    heat = warm + 0.5 * plinth - 0.6 * cornice

    _windows(block, climate, pitch, along, y, fine_a, fine_y, shop, whim, seed, albedo, glow, heat)
    return albedo, glow, heat


def _windows(
    block: Block,
    climate: Climate,
    pitch: float,
    along: Array,
    y: Array,
    fine_a: Array,
    fine_y: Array,
    shop: bool,
    whim: Array,
    seed: int,
    albedo: Array,
    glow: Array,
    heat: Array,
) -> None:
    """Set windows and shop fronts into a facade, in place."""
    column, row = np.floor(along / pitch), np.floor(y / block.floor)
    a, b = along - (column + 0.5) * pitch, y - (row + 0.53) * block.floor
    half_a = np.full_like(a, block.window[0] * pitch / 2)
    half_b = np.full_like(b, block.window[1] * block.floor / 2)
    ground = row < 1
    if shop:
        half_a = np.where(ground, pitch * 0.46, half_a)
        half_b = np.where(ground, block.floor * 0.36, half_b)
        b = np.where(ground, b + 0.05 * block.floor, b)
    i, j = row.astype(int) % 64, column.astype(int) % 64
    door = ground & (whim[(i + 9) % 64, j] > 0.86) & (not shop)
    half_b = np.where(door, block.floor * 0.36, half_b)
    half_a = np.where(door, 0.55, half_a)
    b = np.where(door, b + 0.18 * block.floor, b)
    fits = (row >= 0) & (y < block.height - 0.5) & ((row + 1) * block.floor < block.height + 0.2)
    fits &= whim[(i + 5) % 64, (j + 3) % 64] > 0.06

    frame = ramp(half_a + 0.09 - np.abs(a), fine_a) * ramp(half_b + 0.09 - np.abs(b), fine_y) * fits
    pane = ramp(half_a - np.abs(a), fine_a) * ramp(half_b - np.abs(b), fine_y) * fits
    bars = np.maximum(ramp(0.035 - np.abs(a), fine_a), ramp(0.03 - np.abs(b - half_b * 0.35), fine_y))
    glass = pane * (1 - bars * (~door))
    sill = ramp(0.06 - np.abs(b + half_b + 0.1), fine_y) * ramp(half_a + 0.16 - np.abs(a), fine_a) * fits

    cooler = ramp(0.40 - np.abs(a - 0.1), fine_a) * ramp(0.28 - np.abs(b + half_b + 0.5), fine_y)
    cooler = cooler * fits * (whim[(i + 40) % 64, (j + 17) % 64] > 0.88) * (row > 0)
    grid = 0.30 - 0.15 * stripe(a, 0.11, 0.05, fine_a)
    albedo += (grid[..., None] - albedo) * cooler[..., None]
    heat += (3.0 + 9.0 * (whim[i, (j + 1) % 64] > 0.5)) * cooler

    trim = np.float32(0.42 if whim[0, 0] > 0.4 else 0.08)
    trim_colour = np.array([0.95, 1, 1], np.float32) * trim
    edge = np.clip(np.maximum(frame, sill) - glass, 0, 1)[..., None]
    albedo += (trim_colour - albedo) * edge

    if shop:  # a board over the front, now and then lit
        which = np.floor(along / (2.5 * pitch)).astype(int) % 64
        colour = ROOM_LIGHTS[3] * whim[which][:, :, 40:43] ** 1.5
        board = ramp(0.27 - np.abs(y - 0.93 * block.floor), fine_y) * (whim[which, 44] > 0.35)
        place = along / (2.5 * pitch)
        board = board * ramp(0.46 - np.abs(place - np.floor(place) - 0.5), fine_a / pitch)
        letters = stripe(along, 0.42, 0.24, fine_a) * ramp(0.12 - np.abs(y - 0.93 * block.floor), fine_y)
        albedo += (0.5 * colour - albedo) * board[..., None]
        on = (whim[which, 45] < 2.2 * climate.lit + 0.02) * board
        glow += (0.9 * colour + (0.9 - 0.5 * colour) * letters[..., None]) * on[..., None]
        heat += (1.0 + 2.5 * (on > 0)) * board

    # What is behind the glass: a lit room, a curtain, or the dark.
    share = climate.lit * (2.2 if shop else 1.0)
    lit = whim[i, j] < np.where(ground & shop, min(share * 1.6, 0.75), climate.lit)
    lit &= ~door
    strength = np.where(ground & shop, 1.1, 0.28 + 0.6 * whim[(i + 21) % 64, j])
    curtain = whim[(i + 33) % 64, (j + 11) % 64]
    drawn = smoothstep(-0.02, 0.02, np.abs(a) / half_a - curtain * 1.4)
    clutter = fbm(along, y, np.maximum(fine_a, fine_y), frequency=2.2, octaves=3, seed=seed + 3)
    room = 0.75 + 0.3 * b / half_b + 0.22 * clutter
    folds = 0.5 + 0.08 * np.sin(a * 60) * np.clip(1.2 - fine_a * 25, 0, 1)
    inside = np.clip(np.where(drawn > 0.5, folds, room), 0.12, 1.6) * strength * lit
    lamp = ROOM_LIGHTS[(whim[(i + 45) % 64, (j + 29) % 64] * 3.99).astype(int)]
    glow += lamp * (inside * glass)[..., None]
    pale = np.array([0.16, 0.17, 0.18], np.float32) * ((curtain < 0.55) & (drawn > 0.5))[..., None]
    dark = np.float32(0.02) + pale * 0.6
    dark = np.where(door[..., None], np.array([0.05, 0.07, 0.10], np.float32) * (0.6 + whim[3, 4]), dark)
    albedo += (dark - albedo) * glass[..., None]

    # Glass is a mirror to thermal light: half sky, half what is behind it; frames leak.
    mirror = climate.air + 0.06 * climate.sky + 1.2 * whim[(i + 13) % 64, (j + 50) % 64] + np.where(lit, 1.8, 0.0)
    mirror = np.where(door, climate.air + climate.wall + 0.8, mirror)
    heat += (mirror - heat) * glass
    heat += 1.0 * np.clip(frame - pane, 0, 1) + 1.6 * sill * (whim[(i + 27) % 64, j] > 0.6)
