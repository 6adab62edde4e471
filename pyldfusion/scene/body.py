"""How a car looks: outlines lofted into a body of paint and glass, with lamps, wheels and an engine that is hot."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .camera import NEAR, Camera
from .canvas import Patch, Shape
from .car import RINGS, WHEELS, Car, Stance, turned
from .light import Rays
from .plan import Climate
from .texture import Array, bgr

__all__ = ["draw_car"]


def _ring(rear: float, front: float, half: float, corner: float, segments: int) -> tuple[Array, Array, Array]:
    """A rounded rectangle as side, ahead [n], and which part each segment that starts there belongs to.

    Parts: 0 front, 1 a corner, 2 the right side, 3 rear, 4 the left side; the fraction says how far along it.
    """
    corner = min(corner, half * 0.9, (front - rear) * 0.45)
    a, b = half - corner, max(front - rear, 0.1) / 2 - corner * 0.6
    mid = (front + rear) / 2
    bend = np.linspace(0, np.pi / 2, 4 if segments < 10 else 6)
    sides, aheads, parts = [], [], []

    def run(x0: float, z0: float, x1: float, z1: float, count: int, part: int) -> None:
        for t in np.linspace(0, 1, count, endpoint=False):
            sides.append(x0 + (x1 - x0) * t)
            aheads.append(z0 + (z1 - z0) * t)
            parts.append(part + 0.999 * t)

    def turn(cx: float, cz: float, start: float) -> None:
        for angle in bend[:-1]:
            sides.append(cx + corner * np.sin(start + angle))
            aheads.append(cz + corner * 0.6 * np.cos(start + angle))
            parts.append(1)

    top, bottom = mid + b + corner * 0.6, mid - b - corner * 0.6
    run(-a, top, a, top, segments, 0)
    turn(a, mid + b, 0)
    run(half, mid + b, half, mid - b, segments, 2)
    turn(a, mid - b, np.pi / 2)
    run(a, bottom, -a, bottom, segments, 3)
    turn(-a, mid - b, np.pi)
    run(-half, mid - b, -half, mid + b, segments, 4)
    turn(-a, mid + b, 3 * np.pi / 2)
    return np.array(sides, np.float32), np.array(aheads, np.float32), np.array(parts)


@lru_cache(maxsize=16)
def _mesh(shape: str, near: bool) -> tuple[Array, Array, Array, Array, list[str]]:
    """The body's corners: side, up, ahead [outlines, n], the part [n] and the label [outlines - 1] of each band."""
    rings = _smooth(RINGS[shape], 3 if near else 1)
    loops = [_ring(*ring[1:5], 12 if near else 6) for ring in rings]
    side, ahead = (np.stack([loop[k] for loop in loops]) for k in (0, 1))
    up = np.broadcast_to(np.array([ring[0] for ring in rings], np.float32)[:, None], side.shape)
    return side, up, ahead, loops[0][2], [ring[5] for ring in rings[:-1]]


def draw_car(camera: Camera, car: Car, at: Stance, climate: Climate, rays: Rays, fine: int = 2) -> Patch | None:
    """The car as both cameras see it; None when out of view or partly behind the eye."""
    reach = RINGS[car.shape][2][2] + 0.3
    if at.z - reach < NEAR:
        return None
    scale = camera.focal / at.z
    side, up, ahead, parts, labels = _mesh(car.shape, scale > 25)
    x, z = turned(at, side, ahead)
    u, v = camera.project(x, up, z)
    ground = camera.project(at.x, 0.0, float(z.min()))[1]
    box = (float(u.min()), float(v.min()), float(u.max()), float(ground))
    shape = Shape(camera, box, fine if scale > 6 else fine + 1)
    if shape.empty:
        return None
    _wheels_end_on(shape, camera, car, at, climate)
    _loft(shape, camera, car, at, climate, rays, (side, up, ahead), (x, z, u, v), parts, labels)
    if camera.eye > up[-1, 0]:
        _cap(shape, car, climate, rays, u[-1], v[-1])
    _wheels(shape, camera, car, at, climate, rays)
    _exhaust(shape, camera, car, at, climate)
    return shape.patch()


def _loft(
    shape: Shape,
    camera: Camera,
    car: Car,
    at: Stance,
    climate: Climate,
    rays: Rays,
    local: tuple[Array, Array, Array],
    world: tuple[Array, Array, Array, Array],
    parts: Array,
    labels: list[str],
) -> None:
    """The bands between outlines, quad by quad from far to near."""
    side, up, ahead = local
    x, z, u, v = world
    rolled = [np.roll(a, -1, axis=1) for a in (x, up, z, u, v, side, ahead)]
    x1, up1, z1, u1, v1, side1, ahead1 = rolled
    ax, ay, az = x1[:-1] - x[:-1], up1[:-1] - up[:-1], z1[:-1] - z[:-1]
    bx, by, bz = x[1:] - x[:-1], up[1:] - up[:-1], z[1:] - z[:-1]
    normal = np.stack([by * az - bz * ay, bz * ax - bx * az, bx * ay - by * ax], -1)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
    centre = np.stack([(x[:-1] + x1[1:]) / 2, (up[:-1] + up1[1:]) / 2, (z[:-1] + z1[1:]) / 2], -1)
    middle = np.array([at.x, 0.7, at.z], np.float32)
    flip = np.sum(normal * (centre - middle), -1) < 0
    normal = np.where(flip[..., None], -normal, normal)
    view = np.array([0.0, camera.eye, 0.0], np.float32) - centre
    distance = np.linalg.norm(view, axis=-1)
    view /= distance[..., None]
    facing = np.sum(normal * view, -1)

    mid_side, mid_ahead = (side[:-1] + side1[1:]) / 2, (ahead[:-1] + ahead1[1:]) / 2
    value = _materials(car, climate, rays, normal, view, facing, centre[..., 1], mid_side, mid_ahead, parts, labels)
    quads = shape.corners(*(np.stack([a[:-1], b[:-1], b[1:], a[1:]], -1) for a, b in ((u, u1), (v, v1))))
    seen = facing > 0
    order = np.argsort(-distance[seen])
    shape.polygons(quads[seen][order], value[seen][order])


def _materials(
    car: Car,
    climate: Climate,
    rays: Rays,
    normal: Array,
    view: Array,
    facing: Array,
    y: Array,
    side: Array,
    ahead: Array,
    parts: Array,
    labels: list[str],
) -> Array:
    """[bands, n, 4] of radiance and temperature: the paint mirrors the sky in both, glass more so."""
    length = RINGS[car.shape][2][2]
    light = rays.on(normal[..., 0], normal[..., 1], normal[..., 2])
    mirror_up = 2 * facing * normal[..., 1] - view[..., 1]
    fresnel = 0.04 + 0.5 * (1 - np.clip(facing, 0, 1)) ** 4
    sky = rays.ambient * (0.25 + 1.1 * np.clip(mirror_up * 2 + 0.3, 0, 1))[..., None]
    shine = np.zeros_like(light)
    for direction, colour in rays.directed:
        half = view + direction
        half /= np.maximum(np.linalg.norm(half, axis=-1, keepdims=True), 1e-6)
        shine += (np.clip(np.sum(normal * half, -1), 0, 1) ** 60)[..., None] * colour * 0.9

    paint = np.asarray(car.paint, np.float32) * light + (fresnel * 1.4)[..., None] * sky + shine * 0.35
    under = np.clip((y - 0.2) / 0.5, 0.35, 1)[..., None]
    value = np.empty((*y.shape, 4), np.float32)
    value[..., :3] = paint * under
    engine = car.engine * np.exp(-(((ahead - length * 0.75) / 0.8) ** 2)) * np.exp(-((side / 0.8) ** 2))
    if car.shape == "bus":
        engine = car.engine * np.exp(-(((ahead + 5.2) / 1.0) ** 2)) * (y < 1.4)
    heat = climate.air + 1.2 + 0.08 * climate.sky * np.clip(mirror_up, 0, 1)
    heat += engine * np.clip(normal[..., 1] + 0.75, 0, 1.2)
    heat += (0.15 * car.engine + 0.6) * np.clip((0.75 - y) / 0.5, 0, 1)

    glass = bgr(0.012, 0.012, 0.010) * light + ((fresnel * 2.2 + 0.06)[..., None] * sky) + 0.25 * shine
    cold = climate.air + 0.16 * climate.sky * np.clip(mirror_up + 0.35, 0.1, 1) + (1.5 if car.running else 0.0)
    black = bgr(0.02, 0.02, 0.02) * light + 0.5 * fresnel[..., None] * sky
    place, parts = parts % 1.0, np.floor(parts)
    doors = 6 if car.shape == "bus" else 2
    front, rear, flank = parts == 0, parts == 3, (parts == 2) | (parts == 4)
    toward = np.clip(facing, 0, 1)
    width = RINGS[car.shape][2][3]
    upper = next(ring[0] for ring in RINGS[car.shape] if ring[5] == "tail") + 0.07
    for i, label in enumerate(labels):
        if label in ("glass", "cab"):
            step = ahead[i] / length
            pillar = np.abs((place * doors) % 1.0 - 0.5) < 0.085 * doors / 2
            pane = front | (rear & (label == "glass")) | (flank & ~pillar & ((label == "glass") | (step > 0.25)))
            value[i, pane, :3] = glass[i, pane]
            heat[i, pane] = cold[i, pane]
        elif label == "sill":
            value[i, :, :3] = black[i] * 0.6
            heat[i] += 0.15 * car.engine
        elif label in ("face", "bumper"):
            grille = front & (np.abs(side[i]) < 0.52 * width)
            value[i, grille, :3] = black[i, grille]
            heat[i, grille] += 0.45 * car.engine
            plate = (front | rear) & (np.abs(side[i]) < 0.28)
            if label == "face":
                pale = bgr(0.5, 0.55, 0.55) * light[i, plate] * 0.9
                value[i, plate, :3] = pale
                heat[i, plate] = climate.air + 0.5
        if label == "lamp":
            lamp = (front | (parts == 1)) & (np.abs(side[i]) > 0.50 * width) & (ahead[i] > 0)
            lens = bgr(0.35, 0.36, 0.36) * light[i, lamp] + sky[i, lamp] * 0.4
            on = (5.0 + 30.0 * toward[i, lamp] ** 3) if car.lamps and car.running else 0.0
            value[i, lamp, :3] = lens + bgr(0.85, 0.96, 1.0) * np.reshape(on, (-1, 1))
            heat[i, lamp] += 5.0 if car.running and car.lamps else 0.6
        if label in ("lamp", "tail"):
            tail = (rear | (parts == 1)) & (np.abs(side[i]) > 0.62 * width) & (ahead[i] < 0) & (y[i] < upper)
            on = (1.1 if car.lamps else 0.05) + (4.5 if car.brake else 0.0)
            red = bgr(0.02, 0.02, 0.25) * light[i, tail] + sky[i, tail] * 0.15
            value[i, tail, :3] = red + bgr(0.03, 0.05, 1.0) * (on * car.running)
            heat[i, tail] += 2.0 * car.running
    value[..., 3] = heat
    return value


def _cap(shape: Shape, car: Car, climate: Climate, rays: Rays, u: Array, v: Array) -> None:
    """The flat of the roof."""
    colour = np.asarray(car.paint, np.float32) * rays.on(0.0, 1.0, 0.0) + 0.12 * rays.ambient
    shape.polygon(u, v, (*colour, climate.air + 0.10 * climate.sky))


def _wheels_end_on(shape: Shape, camera: Camera, car: Car, at: Stance, climate: Climate) -> None:
    """Tyres and the dark under the car, as seen from its ends; the body is drawn over them."""
    rear, front, radius = WHEELS[car.shape]
    half = RINGS[car.shape][2][3]
    warm = climate.air + (0.35 * car.engine + 2.0 if car.running else 0.5)
    for ends in sorted((rear, front), key=lambda a: -turned(at, 0.0, a)[1]):
        x, z = turned(at, np.array([-half * 0.92, half * 0.92]), np.array([ends, ends]))
        u, v = camera.project(x[[0, 1, 1, 0]], np.array([0.12, 0.12, 0.5, 0.5]), z[[0, 1, 1, 0]])
        shape.polygon(u, v, (0.0004, 0.0004, 0.0004, climate.air + 0.35 * max(car.engine, 0.0) + 0.5))
        for s in (-1, 1):
            near = ends - radius * 0.8 * np.sign(np.cos(at.heading))
            x, z = turned(at, np.array([s * half * 0.68, s * half * 0.97]), np.array([near, near]))
            u, v = camera.project(x[[0, 1, 1, 0]], np.array([0.0, 0.0, radius, radius]), z[[0, 1, 1, 0]])
            shape.polygon(u, v, (0.0015, 0.0015, 0.0015, warm))


def _wheels(shape: Shape, camera: Camera, car: Car, at: Stance, climate: Climate, rays: Rays) -> None:
    """Arches, tyres and rims of the side that is in view."""
    rear, front, radius = WHEELS[car.shape]
    half = RINGS[car.shape][2][3]
    c, s = float(np.cos(at.heading)), float(np.sin(at.heading))
    sign = -1.0 if at.x * c - at.z * s > 0 else 1.0  # the flank whose outward normal looks back at the eye
    if (at.x * c - at.z * s) * sign + half >= 0:
        return
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    light = rays.on(sign * c, 0.0, -sign * s)
    tyre = (0.015 * light).tolist()
    rim = (0.20 * light + 0.05 * rays.ambient).tolist()
    warm = climate.air + (0.35 * car.engine + 2.0 if car.running else 0.6)
    hub = warm + (6.0 if car.running and car.speed else 0.3)
    for ends in (rear, front):
        for size, inset, value in (
            (1.17, 0.0, (0.0008, 0.0008, 0.0008, warm + 1.0)),
            (1.0, 0.01, (*tyre, warm)),
            (0.66, 0.015, (*rim, hub)),
            (0.56, 0.02, (*(0.35 * np.array(rim)), hub + 2.0)),
            (0.5, 0.02, None),
            (0.16, 0.02, (*rim, hub)),
        ):
            if value is None:
                _spokes(shape, camera, at, sign * half, ends, radius, (*rim, hub))
                continue
            x, z = turned(at, sign * (half - inset), ends + radius * size * np.cos(angle))
            y = np.maximum(radius * 0.98 + radius * size * np.sin(angle), 0.0 if size <= 1 else 0.18)
            u, v = camera.project(x, y, z)
            shape.polygon(u, v, value)


def _exhaust(shape: Shape, camera: Camera, car: Car, at: Stance, climate: Climate) -> None:
    """The pipe's end, the hottest spot of all, when the rear is in view."""
    if np.cos(at.heading) < 0.3:
        return
    angle = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    x, z = turned(at, 0.45 + 0.055 * np.cos(angle), RINGS[car.shape][1][1] - 0.02)
    u, v = camera.project(x, RINGS[car.shape][1][0] - 0.06 + 0.05 * np.sin(angle), z)
    hot = climate.air + (3.2 * max(car.engine, 0.0) if car.running else 0.5)
    shape.polygon(u, v, (0.002, 0.002, 0.002, hot))


def _smooth(
    rings: list[tuple[float, float, float, float, float, str]], parts: int
) -> list[tuple[float, float, float, float, float, str]]:
    """``parts`` outlines for each one, on a Catmull-Rom curve through them."""
    if parts == 1:
        return rings
    points = np.array([ring[:5] for ring in rings])
    padded = np.concatenate([points[:1], points, points[-1:]])
    out: list[tuple[float, float, float, float, float, str]] = []
    for i in range(len(rings) - 1):
        a, b, c, d = padded[i : i + 4]
        for t in np.arange(parts) / parts:
            p = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
            out.append((float(p[0]), float(p[1]), float(p[2]), float(p[3]), float(p[4]), rings[i][5]))
    return [*out, rings[-1]]


def _spokes(
    shape: Shape, camera: Camera, at: Stance, side: float, ends: float, radius: float, value: tuple[float, ...]
) -> None:
    """Five spokes that turn with the way gone."""
    roll = at.z / radius
    for k in range(5):
        angle = roll + k * 2 * np.pi / 5
        c, s = np.cos(angle), np.sin(angle)
        ahead = radius * np.array([-0.06 * s, 0.06 * s, 0.62 * c + 0.06 * s, 0.62 * c - 0.06 * s])
        up = radius * np.array([0.06 * c, -0.06 * c, 0.62 * s - 0.06 * c, 0.62 * s + 0.06 * c])
        x, z = turned(at, side, ends + ahead)
        u, v = camera.project(x, radius * 0.98 + up, z)
        shape.polygon(u, v, value)
