"""A hall or corridor by lamplight: what a wall hides (pipes, studs, cold glass) only the thermal camera sees."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .kinds import Kind
from .light import Lamp
from .plan import Climate, Colour, Plan, Prop, Road, Room, pick, place_camera, weather
from .surface import Surfaces
from .texture import Array, bgr, fbm, hash_table, ramp, stripe

__all__ = ["paint_room", "plan_room", "room_lamps"]

PAINTS: tuple[Colour, ...] = ((0.46, 0.52, 0.55), (0.40, 0.48, 0.44), (0.34, 0.46, 0.54), (0.50, 0.50, 0.48))
FLOORS: tuple[Colour, ...] = ((0.20, 0.23, 0.25), (0.12, 0.20, 0.30), (0.26, 0.27, 0.27), (0.13, 0.15, 0.14))
PANEL = (0.28, 0.62)  # half width and half length of a lamp in the ceiling, metres
GLOW = np.array((0.92, 1.0, 1.0), np.float32)
DOOR = (0.50, 2.05)  # half width and height


def plan_room(seed: int, size: tuple[int, int], kind: Kind) -> Plan:
    """Furnish the room of ``seed``. The road is the part of the floor where people walk."""
    rng = np.random.default_rng([seed, 61])
    half, height, depth = pick(rng, (1.9, 4.5)), pick(rng, (2.7, 3.8)), pick(rng, (18, 34))
    camera = replace(place_camera(rng, size), eye=pick(rng, (1.4, height - 0.7)))
    climate = Climate(
        **weather(rng, kind),
        wet=pick(rng, (0.15, 0.5)),
        dim=pick(rng, (0.5, 1.3)),
        lamps=True,
        ego=False,
    )
    rows = (0.0,) if half < 3 else (-half / 2, half / 2)
    step = pick(rng, (2.6, 4.0))
    places = [(x, float(z)) for z in np.arange(pick(rng, (1.5, 3.0)), depth - 1, step) for x in rows]
    room = Room(
        half=half,
        height=height,
        depth=depth,
        paint=PAINTS[int(rng.integers(len(PAINTS)))],
        floor=FLOORS[int(rng.integers(len(FLOORS)))],
        dado=float(rng.choice([0.0, 1.0, 1.2])),
        pitch=pick(rng, (2.6, 4.2)),
        windows=int(rng.choice([-1, 0, 1])),
        heated=bool(rng.random() < 0.5),
        lamps=tuple((x, z, bool(rng.random() < climate.lit)) for x, z in places),
        seed=int(rng.integers(1 << 20)),
    )
    side = (-1, 1)[int(rng.integers(2))]
    props = [
        Prop(str(rng.choice(["bin", "cabinet"])), side * (half - 0.4), pick(rng, (5, depth - 3)), int(rng.integers(99)))
        for _ in range(int(rng.integers(1, 4)))
    ]
    road = Road(
        half=0.4 * half, lanes=2, walk=0.5 * half, bend=0.0, verge="", crossing=None, seed=room.seed, end=depth - 0.6
    )
    return Plan(camera, climate, road, (), (), (), tuple(props), seed, room)


def room_lamps(room: Room) -> list[Lamp]:
    """Those that are on; one below which the floor has a light of about 0.6."""
    return [
        Lamp((x, room.height - 0.05, z), (0.90, 0.98, 1.0), 0.6 * room.height**2) for x, z, lit in room.lamps if lit
    ]


def paint_room(surfaces: Surfaces, room: Room, climate: Climate) -> None:
    """Paint floor, ceiling, both sides and the end; every ray of the camera meets one of them."""
    camera = surfaces.camera
    dx, dy = surfaces.slope_x[None, :], surfaces.slope_y[:, None]
    tiny = np.float32(1e-6)
    to_level = np.where(dy > 0, room.height - camera.eye, camera.eye) / np.maximum(np.abs(dy), tiny)
    to_side = room.half / np.maximum(np.abs(dx), tiny)
    z = np.minimum(np.minimum(to_level, to_side), np.float32(room.depth))
    x, y = dx * z, camera.eye + dy * z
    fine = z / np.float32(camera.focal)
    every = slice(None), slice(None)

    level, side = (to_level <= to_side) & (to_level < room.depth), (to_side < to_level) & (to_side < room.depth)
    below, above = level & (dy < 0), level & (dy >= 0)
    deep = fine * z / camera.eye  # metres a pixel covers along the floor; then along the ceiling, and the walls
    albedo, heat, gloss = _floor(room, climate, x, z, fine, deep, camera.eye)
    surfaces.paint(*every, below, z=z, normal=(0, 1, 0), albedo=albedo, heat=heat)
    surfaces.gloss[...] = gloss * below
    albedo, glow, heat = _ceiling(room, climate, x, z, fine, fine * z / (room.height - camera.eye))
    surfaces.paint(*every, above, z=z, normal=(0, -1, 0), albedo=albedo, glow=glow, heat=heat)
    for sign in (-1, 1):
        albedo, glow, heat = _wall(room, climate, z, y, fine * z / room.half, fine, room.windows == sign, 7 + sign)
        mask = side & (np.sign(dx) == sign)
        surfaces.paint(*every, mask, z=z, normal=(-sign, 0, 0), albedo=albedo, glow=glow, heat=heat)
    albedo, glow, heat = _wall(room, climate, x + 50 * room.pitch, y, fine, fine, False, 11)
    albedo, glow, heat = _exit_sign(room, x, y, fine, albedo, glow, heat)
    surfaces.paint(*every, ~(level | side), z=z, normal=(0, 0, -1), albedo=albedo, glow=glow, heat=heat)


def _floor(
    room: Room, climate: Climate, x: Array, z: Array, fine: Array, deep: Array, eye: float
) -> tuple[Array, Array, Array]:
    """Tiles, worn and polished, with the loops of a heating below them in some rooms."""
    whim = hash_table(room.seed)[np.floor(x / 0.6).astype(int) % 64, np.floor(z / 0.6).astype(int) % 64]
    seam = np.maximum(stripe(x, 0.6, 0.012, fine), stripe(z, 0.6, 0.012, deep))
    dirt = fbm(x, z * 0.5, np.sqrt(fine * deep), frequency=0.6, octaves=5, gain=0.6, seed=room.seed)
    fade = np.clip(1.4 - deep / 0.3, 0, 1)
    tone = (1 + 0.10 * dirt + 0.14 * (whim - 0.5) * fade) * (1 - 0.4 * seam)
    heat = climate.air + climate.road + 0.25 * dirt
    if room.heated:
        heat = heat + 2.2 * stripe(x, 0.3, 0.10, fine) * ramp(room.half - 0.35 - np.abs(x), fine)
    steep = eye / np.hypot(z, eye)
    gloss = climate.wet * (0.04 + 0.6 * (1 - steep) ** 4) * (1 - 0.2 * np.clip(dirt, 0, 1))
    return np.asarray(room.floor, np.float32) * tone[..., None], heat, gloss


def _ceiling(room: Room, climate: Climate, x: Array, z: Array, fine: Array, deep: Array) -> tuple[Array, Array, Array]:
    """Panels in a grid, lamps between them, and a heating pipe along one side."""
    grid = np.maximum(stripe(x, 0.6, 0.02, fine), stripe(z, 0.6, 0.02, deep))
    speckle = fbm(x, z, np.maximum(fine, deep), frequency=12, octaves=3, gain=0.8, seed=room.seed + 1)
    albedo = bgr(0.55, 0.57, 0.57) * (1 + 0.05 * speckle - 0.35 * grid)[..., None]
    glow = np.zeros_like(albedo)
    heat = climate.air + 0.9 + 0.2 * speckle - 0.4 * grid
    for at_x, at_z, lit in room.lamps:
        frame = ramp(PANEL[0] + 0.04 - np.abs(x - at_x), fine) * ramp(PANEL[1] + 0.04 - np.abs(z - at_z), deep)
        pane = ramp(PANEL[0] - np.abs(x - at_x), fine) * ramp(PANEL[1] - np.abs(z - at_z), deep)
        albedo += (bgr(0.35, 0.36, 0.36) - albedo) * frame[..., None]
        glow += (5.0 if lit else 0.0) * GLOW * pane[..., None]
        heat += (11.0 if lit else 0.4) * pane
    pipe = ramp(0.07 - np.abs(np.abs(x) - room.half + 0.25), fine) * (x > 0)
    lagging = 1 - 0.8 * stripe(z, 2.4, 0.12, deep)  # the flanges have none
    albedo += (bgr(0.30, 0.32, 0.33) - albedo) * pipe[..., None]
    heat += (16.0 - 9.0 * lagging) * pipe
    return albedo, glow, heat


def _wall(
    room: Room, climate: Climate, along: Array, y: Array, fine_a: Any, fine_y: Any, windows: bool, shift: int
) -> tuple[Array, Array, Array]:
    """Paint over studs and pipes; doors, notice boards and radiators in turn, or windows over radiators."""
    along, y, fine_a, fine_y = np.broadcast_arrays(along, y, fine_a, fine_y)
    whim = hash_table(room.seed + shift)
    stain = fbm(along, y, np.maximum(fine_a, fine_y), frequency=0.7, octaves=5, gain=0.6, seed=room.seed + shift)
    tone = 1 + 0.06 * stain
    if room.dado:
        tone = tone * (1 - 0.35 * ramp(room.dado - y, fine_y)) * (1 - 0.3 * ramp(0.03 - np.abs(y - room.dado), fine_y))
    albedo = np.asarray(room.paint, np.float32) * (tone * (1 - 0.45 * ramp(0.10 - y, fine_y)))[..., None]
    glow = np.zeros_like(albedo)
    warmth = climate.air + climate.wall + 0.25 * y - 0.5  # warm air rises
    heat = warmth + 0.25 * stain - 0.35 * stripe(along, 0.6, 0.06, fine_a)  # studs
    heat = heat + 2.6 * stripe(along - 1.1, 3 * room.pitch, 0.08, fine_a)  # a riser behind the plaster

    cell = np.floor(along / room.pitch)
    a, which = along - (cell + 0.5) * room.pitch, whim[cell.astype(int) % 64, 0]

    def box(half: Any, low: float, high: float, at: float = 0.0) -> Array:
        return ramp(half - np.abs(a - at), fine_a) * ramp((high - low) / 2 - np.abs(y - (low + high) / 2), fine_y)

    def put(cover: Array, colour: Any, warm: Any) -> None:
        nonlocal albedo, heat
        albedo = albedo + (np.asarray(colour, np.float32) - albedo) * cover[..., None]
        heat = heat + (warm - heat) * cover

    if windows:
        glass = climate.air - 3.5 + 0.5 * stain
        put(box(0.85, 0.95, 2.25), bgr(0.45, 0.46, 0.46), climate.air - 1.2)
        put(box(0.80, 1.00, 2.20) * (1 - ramp(0.03 - np.abs(a), fine_a)), bgr(0.012, 0.009, 0.008), glass)
        radiator = np.ones_like(a, bool)
    else:
        radiator = which > 0.75
        door, board = which < 0.42, (which >= 0.42) & ~radiator
        put(box(DOOR[0] + 0.07, 0, DOOR[1] + 0.07) * door, bgr(0.20, 0.22, 0.24), warmth + 0.2)
        wood = bgr(0.10, 0.19, 0.30) * (0.8 + 0.4 * whim[cell.astype(int) % 64, 1])[..., None]
        put(box(DOOR[0], 0, DOOR[1]) * door, wood, warmth - 0.5)
        put(box(DOOR[0], 0, 0.03) * door, bgr(0.01, 0.01, 0.01), climate.air - 2.5)  # draught
        put(box(0.05, 1.0, 1.06, 0.4) * door, bgr(0.5, 0.5, 0.5), warmth + 0.4)
        put(box(0.62, 1.15, 1.95) * board, bgr(0.10, 0.16, 0.22), warmth + 0.1)
        column, row = np.floor((a + 0.62) / 0.31).astype(int), np.floor((y - 1.15) / 0.4).astype(int)
        sheet = whim[(cell.astype(int) * 8 + column) % 64, (row + 30) % 64]
        paper = bgr(0.35, 0.35, 0.35) + 0.4 * whim[(column * 5 + cell.astype(int)) % 64][..., 40:43]
        inner = ramp(0.13 - np.abs((a + 0.62) % 0.31 - 0.155), fine_a) * ramp(
            0.17 - np.abs((y - 1.15) % 0.4 - 0.2), fine_y
        )
        text = 1 - 0.7 * stripe(y, 0.045, 0.018, fine_y) * ramp(0.10 - np.abs((a + 0.62) % 0.31 - 0.155), fine_a)
        put(inner * box(0.62, 1.15, 1.95) * board * (sheet > 0.3), paper * text[..., None], warmth + 0.1)
    ribs = 0.75 + 0.25 * np.cos(2 * np.pi * a / 0.06) * np.clip(1.3 - fine_a / 0.03, 0, 1)
    hot = climate.air + 20 + 6 * (y - 0.4)
    put(box(0.6, 0.16, 0.70) * radiator, bgr(0.55, 0.56, 0.56) * ribs[..., None], hot * (0.92 + 0.08 * ribs))
    return albedo, glow, heat


def _exit_sign(
    room: Room, x: Array, y: Array, fine: Array, albedo: Array, glow: Array, heat: Array
) -> tuple[Array, Array, Array]:
    """A double door at the end, its lit sign over it."""
    leaf = ramp(0.95 - np.abs(x), fine) * ramp(2.1 - y, fine)
    albedo = (
        albedo
        + (bgr(0.16, 0.20, 0.22) * (1 - 0.6 * ramp(0.015 - np.abs(x), fine))[..., None] - albedo) * (leaf[..., None])
    )
    heat = heat - 0.8 * leaf
    sign = ramp(0.22 - np.abs(x), fine) * ramp(0.1 - np.abs(y - 2.35), fine)
    arrow = ramp(0.03 - np.abs(y - 2.35), fine) * ramp(0.14 - np.abs(x), fine)
    glow = glow + (bgr(0.25, 0.9, 0.15) + 0.6 * arrow[..., None]) * sign[..., None]
    return albedo, glow, heat + 4.0 * sign
