"""People: who they are, how they are dressed and where they walk. How they look: :mod:`.figure`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .camera import Camera
from .car import Car
from .plan import Road, pick

__all__ = ["Pose", "Walker", "plan_people"]

Colour = tuple[float, float, float]
CLOTH: tuple[Colour, ...] = (
    (0.02, 0.02, 0.02),
    (0.05, 0.045, 0.04),
    (0.10, 0.05, 0.03),
    (0.16, 0.12, 0.10),
    (0.05, 0.05, 0.22),
    (0.06, 0.16, 0.30),
    (0.30, 0.32, 0.33),
    (0.05, 0.12, 0.06),
    (0.30, 0.16, 0.06),
    (0.50, 0.52, 0.52),
    (0.04, 0.30, 0.45),
    (0.10, 0.08, 0.16),
)
SKIN: tuple[Colour, ...] = ((0.28, 0.38, 0.58), (0.20, 0.28, 0.46), (0.10, 0.16, 0.30), (0.05, 0.08, 0.15))
HAIR: tuple[Colour, ...] = ((0.012, 0.012, 0.014), (0.02, 0.03, 0.05), (0.05, 0.10, 0.18), (0.16, 0.17, 0.18))


@dataclass(frozen=True)
class Pose:
    """Where a person is at a time: metres, heading (0: away from the camera, to +Z; pi/2: to the right), step phase."""

    x: float
    z: float
    heading: float
    phase: float
    stride: float


@dataclass(frozen=True)
class Walker:
    """A person and their loop: ``reach`` metres to each side, out and back, at ``speed`` m/s (0: stands)."""

    x: float
    z: float
    reach: tuple[float, float]
    speed: float
    start: float
    height: float
    build: float
    jacket: Colour
    trousers: Colour
    skin: Colour
    hair: Colour
    coat: bool
    pattern: int
    pack: bool
    bag: bool
    hat: bool
    glasses: bool
    warmth: float
    seed: int
    facing: float = 0.0

    def pose(self, t: float) -> Pose:
        """The pose at ``t`` seconds: a continuous, periodic function of time."""
        if self.speed == 0:
            idle = 0.06 * np.sin(0.7 * t + self.start)
            return Pose(self.x, self.z, self.facing + idle, self.start, 0.0)
        radius, straight = min(self.reach), max(self.reach) - min(self.reach)
        way = self.start + self.speed * t
        along = way % (4 * straight + 2 * np.pi * radius)
        half = 2 * straight + np.pi * radius
        back = -1.0 if along >= half else 1.0
        along -= half if along >= half else 0.0
        turn = max(along - 2 * straight, 0.0) / radius  # a straight, then half a circle
        side = back * radius * float(np.cos(turn))
        ahead = back * (min(along, 2 * straight) - straight + radius * float(np.sin(turn)))
        step_side, step_ahead = -back * float(np.sin(turn)), back * float(np.cos(turn))
        if self.reach[0] > self.reach[1]:  # across the road
            side, ahead, step_side, step_ahead = ahead, side, step_ahead, step_side
        heading = float(np.arctan2(step_side, step_ahead))
        steps = way / (0.42 * self.height)
        return Pose(self.x + side, self.z + ahead, heading, np.pi * steps, min(self.speed / 1.3, 1.15))


def _loop(
    rng: np.random.Generator, road: Road, camera: Camera, floor: float, k: int
) -> tuple[float, float, tuple[float, float]]:
    """Centre X, Z and half axes of the loop of person ``k``; the first ones are the nearest."""
    close = rng.random() < (0.8, 0.4, 0.1)[min(k, 2)]
    near = pick(rng, (0.9, 1.6)) * floor if close else pick(rng, (7, min(45, road.end - 5)))
    across = pick(rng, (0, 1)) * 0.40 * camera.width / camera.focal * near  # where the close ones are in view
    if rng.random() < 0.35:
        at_crossing = road.crossing is not None and not close and rng.random() < 0.7
        z = road.crossing + pick(rng, (-1, 1)) if road.crossing is not None and at_crossing else near + 0.5
        x = pick(rng, (-0.5, 0.5)) * road.half + road.axis(z)
        return x, z, (min(pick(rng, (0.6, 1.1)) * road.half, max(across, 1.0) if close else 99), pick(rng, (0.3, 0.7)))
    side = -1 if rng.random() < 0.5 else 1
    ahead = pick(rng, (0.5, 3)) if close else min(pick(rng, (3, 14)), max(near - 1.1 * floor, 0.5))
    ahead = min(ahead, (road.end - near) / 2)
    z = near + ahead
    x = side * (road.half + pick(rng, (0.4, max(road.walk - 0.3, 0.6))))
    x = side * min(abs(x), across) if close else x + road.axis(z)
    return x, z, (pick(rng, (0.3, 0.5)), ahead)


def plan_people(
    rng: np.random.Generator, road: Road, count: int, camera: Camera, cars: tuple[Car, ...]
) -> tuple[Walker, ...]:
    """``count`` people, the first near enough to fill a good part of the picture more often than not."""
    people = []
    floor = max(camera.focal * camera.eye / max(camera.height - camera.horizon, 1.0), 3.0)  # depth at the lower border
    for k in range(count):
        for _ in range(12):  # a place where no car stands or drives
            x, z, reach = _loop(rng, road, camera, floor, k)
            if not any(car.blocks(x, z, reach) for car in cars):
                break
        speed = 0.0 if rng.random() < 0.2 else pick(rng, (0.9, 1.6))

        def colour(palette: tuple[Colour, ...]) -> Colour:
            base = np.array(palette[int(rng.integers(len(palette)))]) * rng.uniform(0.7, 1.25)
            return float(base[0]), float(base[1]), float(base[2])

        people.append(
            Walker(
                x=x,
                z=z,
                reach=reach,
                speed=speed,
                start=pick(rng, (0, 60)),
                height=pick(rng, (1.56, 1.9)),
                build=pick(rng, (0.9, 1.2)),
                jacket=colour(CLOTH),
                trousers=colour(CLOTH[:9]),
                skin=colour(SKIN),
                hair=colour(HAIR),
                coat=bool(rng.random() < 0.3),
                pattern=int(rng.integers(4)),
                pack=bool(rng.random() < 0.25),
                bag=bool(rng.random() < 0.3),
                hat=bool(rng.random() < 0.2),
                glasses=bool(rng.random() < 0.2),
                warmth=pick(rng, (0.75, 1.25)),
                seed=int(rng.integers(1 << 20)),
                facing=pick(rng, (0, 6.28)),
            )
        )
    return tuple(people)
