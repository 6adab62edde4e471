"""Cars: their shapes, where they drive or stand, and the light they throw. How they look: :mod:`.body`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .light import Beam
from .plan import Road, pick
from .texture import Array, bgr

__all__ = ["RINGS", "WHEELS", "Car", "Stance", "outline", "plan_cars", "turned"]

Colour = tuple[float, float, float]

# Outlines of a body from the sill up: height, rear end, front end, half width, corner radius (metres), and what the
# band up to the next outline is made of.
RINGS: dict[str, list[tuple[float, float, float, float, float, str]]] = {
    "sedan": [
        (0.22, -2.05, 2.05, 0.78, 0.25, "sill"),
        (0.36, -2.22, 2.22, 0.87, 0.34, "bumper"),
        (0.52, -2.26, 2.27, 0.90, 0.36, "face"),
        (0.66, -2.24, 2.22, 0.905, 0.36, "lamp"),
        (0.80, -2.20, 2.05, 0.89, 0.32, "tail"),
        (0.90, -2.14, 1.65, 0.86, 0.28, "paint"),
        (0.95, -1.95, 1.25, 0.82, 0.20, "paint"),
        (0.98, -1.72, 0.98, 0.78, 0.16, "glass"),
        (1.17, -1.38, 0.58, 0.70, 0.16, "glass"),
        (1.36, -1.02, 0.16, 0.61, 0.16, "paint"),
        (1.42, -0.84, -0.02, 0.54, 0.20, "paint"),
        (1.45, -0.55, -0.25, 0.36, 0.15, "roof"),
    ],
    "hatch": [
        (0.24, -1.80, 1.90, 0.78, 0.25, "sill"),
        (0.38, -1.96, 2.00, 0.87, 0.34, "bumper"),
        (0.56, -2.00, 2.04, 0.90, 0.36, "face"),
        (0.72, -1.98, 1.98, 0.905, 0.36, "lamp"),
        (0.86, -1.96, 1.80, 0.89, 0.32, "tail"),
        (0.97, -1.93, 1.40, 0.86, 0.26, "tail"),
        (1.02, -1.90, 1.12, 0.82, 0.20, "glass"),
        (1.22, -1.78, 0.70, 0.75, 0.18, "glass"),
        (1.44, -1.60, 0.26, 0.66, 0.18, "paint"),
        (1.51, -1.42, 0.06, 0.58, 0.22, "paint"),
        (1.54, -1.0, -0.3, 0.38, 0.2, "roof"),
    ],
    "suv": [
        (0.30, -2.10, 2.15, 0.84, 0.25, "sill"),
        (0.46, -2.26, 2.30, 0.94, 0.32, "bumper"),
        (0.68, -2.30, 2.33, 0.97, 0.34, "face"),
        (0.86, -2.28, 2.28, 0.97, 0.34, "lamp"),
        (1.02, -2.25, 2.14, 0.955, 0.30, "tail"),
        (1.12, -2.22, 1.70, 0.92, 0.26, "tail"),
        (1.16, -2.18, 1.30, 0.88, 0.20, "glass"),
        (1.40, -2.08, 0.92, 0.81, 0.18, "glass"),
        (1.64, -1.94, 0.52, 0.72, 0.18, "paint"),
        (1.72, -1.75, 0.30, 0.64, 0.22, "paint"),
        (1.75, -1.3, -0.2, 0.42, 0.2, "roof"),
    ],
    "van": [
        (0.28, -2.50, 2.35, 0.88, 0.18, "sill"),
        (0.45, -2.60, 2.52, 0.96, 0.26, "bumper"),
        (0.72, -2.62, 2.55, 0.98, 0.26, "face"),
        (0.92, -2.62, 2.48, 0.98, 0.26, "lamp"),
        (1.08, -2.61, 2.30, 0.98, 0.24, "tail"),
        (1.22, -2.60, 1.95, 0.97, 0.20, "cab"),
        (1.55, -2.58, 1.58, 0.95, 0.18, "cab"),
        (1.88, -2.55, 1.22, 0.92, 0.18, "panel"),
        (2.10, -2.50, 1.00, 0.88, 0.20, "panel"),
        (2.16, -2.2, 0.7, 0.6, 0.2, "roof"),
    ],
    "bus": [
        (0.30, -5.4, 5.3, 1.18, 0.15, "sill"),
        (0.55, -5.5, 5.45, 1.24, 0.22, "face"),
        (0.80, -5.5, 5.48, 1.25, 0.22, "lamp"),
        (1.00, -5.5, 5.48, 1.25, 0.22, "tail"),
        (1.25, -5.5, 5.46, 1.25, 0.22, "glass"),
        (1.75, -5.5, 5.42, 1.24, 0.22, "glass"),
        (2.30, -5.48, 5.36, 1.23, 0.22, "paint"),
        (2.75, -5.46, 5.28, 1.21, 0.24, "paint"),
        (2.95, -5.3, 5.1, 1.05, 0.25, "roof"),
    ],
}
#: Where the axles are along the car, and the radius of a wheel.
WHEELS = {
    "sedan": (-1.32, 1.38, 0.32),
    "hatch": (-1.2, 1.25, 0.31),
    "suv": (-1.35, 1.42, 0.37),
    "van": (-1.6, 1.6, 0.35),
    "bus": (-2.9, 2.9, 0.48),
}
PAINTS: tuple[Colour, ...] = (
    (0.012, 0.012, 0.012),
    (0.04, 0.04, 0.042),
    (0.45, 0.45, 0.45),
    (0.60, 0.60, 0.59),
    (0.22, 0.22, 0.22),
    (0.03, 0.03, 0.30),
    (0.22, 0.07, 0.03),
    (0.08, 0.10, 0.06),
    (0.05, 0.22, 0.40),
    (0.16, 0.14, 0.10),
)


@dataclass(frozen=True)
class Stance:
    """Where a car is at a time: metres, and its heading (0: away from the camera, pi: towards it)."""

    x: float
    z: float
    heading: float


@dataclass(frozen=True)
class Car:
    """A car on its lane: ``z`` at time 0, ``speed`` in m/s (negative towards the camera, 0 parked or waiting)."""

    shape: str
    across: float
    z: float
    speed: float
    heading: float
    bend: float
    paint: Colour
    running: bool
    brake: bool
    lamps: bool
    engine: float
    seed: int

    SPAN = 260.0  # metres of road a car drives before it comes again, from behind the camera

    def stance(self, t: float) -> Stance:
        z = (self.z + self.speed * t + 14.0) % self.SPAN - 14.0 if self.speed else self.z
        lean = float(np.arctan(2 * self.bend * abs(z)))
        return Stance(self.across + self.bend * z * abs(z), z, self.heading + lean)

    def blocks(self, x: float, z: float, reach: tuple[float, float]) -> bool:
        """Whether someone who moves up to ``reach`` around X, Z would meet this car."""
        _, rear, front, half, _, _ = RINGS[self.shape][2]
        at = self.stance(0.0)
        ahead = 1e3 if self.speed else front - rear
        return abs(x - at.x) < half + reach[0] + 0.45 and abs(z - at.z) < ahead / 2 + reach[1] + 0.6

    def beam(self, t: float) -> Beam | None:
        """Its low beam at ``t``, if it drives with light."""
        if not (self.lamps and self.running):
            return None
        at = self.stance(t)
        front = RINGS[self.shape][2][2]
        hx, hz = float(np.sin(at.heading)), float(np.cos(at.heading))
        return Beam((at.x + hx * front, 0.68, at.z + hz * front), (hx, hz), (0.82, 0.95, 1.0), 34.0)

    def glints(self, t: float) -> list[tuple[tuple[float, float, float], Array]]:
        """Its lamps that look at the camera at ``t``, as (place, brightness [3])."""
        if not (self.lamps and self.running):
            return []
        at = self.stance(t)
        away = np.cos(at.heading) > 0
        end = RINGS[self.shape][2][1 if away else 2]
        light = bgr(0.05, 0.08, 1.0) * (3.0 if self.brake else 1.0) if away else bgr(5.1, 5.8, 6.0)
        places = (turned(at, side, end) for side in (-0.65, 0.65))
        return [((float(x), 0.7, float(z)), light) for x, z in places]


def plan_cars(rng: np.random.Generator, road: Road, count: int, lamps: bool, calm: bool) -> tuple[Car, ...]:
    """``count`` cars: on their lanes with room between them, or parked at the kerb; in a ``calm`` street all stand."""
    cars: list[Car] = []
    lane = 2 * road.half / road.lanes
    speeds = {-1: -pick(rng, (5, 14)), 1: pick(rng, (5, 14))}
    taken: dict[tuple[int, float], list[float]] = {}
    for k in range(count):
        away = 1 if rng.random() < 0.5 else -1
        parked = rng.random() < 0.3
        index = int(rng.integers(max(road.lanes // 2, 1)))
        shape = str(rng.choice(["sedan", "hatch", "suv", "van", "bus"], p=[0.34, 0.26, 0.24, 0.1, 0.06]))
        across = away * (road.half - 0.45 if parked else road.half - (index + 0.5) * lane - 0.4 * (index == 0))
        z = pick(rng, (7.5, 16)) if k == 0 else float(8 + 55 * rng.random() ** 1.3)
        row = taken.setdefault((away, round(across, 1)), [])
        while any(abs(z - other) < 9.5 for other in row):
            z += 9.5
        row.append(z)
        waits = not parked and (calm or rng.random() < 0.1)
        paint = np.array(PAINTS[int(rng.integers(len(PAINTS)))]) * rng.uniform(0.7, 1.15)
        cars.append(
            Car(
                shape=shape,
                across=across,
                z=z,
                speed=0.0 if parked or waits else speeds[away],
                heading=0.0 if away > 0 else np.pi,
                bend=road.bend,
                paint=(float(paint[0]), float(paint[1]), float(paint[2])),
                running=not parked or rng.random() < 0.1,
                brake=bool(waits or rng.random() < 0.2),
                lamps=lamps,
                engine=pick(rng, (6, 20)) if not parked else pick(rng, (-1.0, 5)) * (rng.random() < 0.6),
                seed=int(rng.integers(1 << 20)),
            )
        )
    return tuple(cars)


def outline(car: Car, at: Stance, margin: float = 0.0) -> tuple[Array, Array]:
    """X and Z of the car's rounded footprint on the ground, ``margin`` metres larger."""
    _, rear, front, half, _, _ = RINGS[car.shape][2]
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    side = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.4 * (half + margin)
    ahead = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** 0.4 * ((front - rear) / 2 + margin) + (front + rear) / 2
    return turned(at, side, ahead)


def turned(at: Stance, side: Any, ahead: Any) -> tuple[Any, Any]:
    """X and Z in the world of points to the right and ahead of a car's middle."""
    c, s = np.cos(at.heading), np.sin(at.heading)
    return at.x + side * c + ahead * s, at.z - side * s + ahead * c
