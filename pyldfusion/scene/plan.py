"""What stands where: a street laid out at random from the seed. Rooms: :mod:`.room`.

Everything here is plain data. Positions across the road are given from its axis, which may bend: ``Road.axis(z)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from .camera import Camera
from .kinds import Kind
from .texture import smoothstep

__all__ = [
    "Block",
    "Climate",
    "Plan",
    "Post",
    "Prop",
    "Road",
    "Room",
    "Tree",
    "pick",
    "place_camera",
    "plan_street",
    "weather",
]

Colour = tuple[float, float, float]


def pick(rng: np.random.Generator, span: tuple[float, float]) -> float:
    return float(rng.uniform(*span))


@dataclass(frozen=True)
class Climate:
    """One draw from a :class:`Kind`: the weather and camera settings of a scene. Temperatures in degrees Celsius.

    ``wet`` is how much the road mirrors, ``dim`` scales the light of the sky, ``ego``: the camera's car has its head
    lamps on, ``rain``: drops in a cubic metre of air.
    """

    air: float
    road: float
    wall: float
    sky: float
    fog: float
    exposure: float
    lit: float
    wet: float
    dim: float
    lamps: bool
    ego: bool
    rain: float = 0.0


@dataclass(frozen=True)
class Road:
    """Metres across from the axis: asphalt to ``half``, kerb, pavement to ``half + walk``, then the ``verge``.

    Nobody walks behind ``end``.
    """

    half: float
    lanes: int
    walk: float
    bend: float
    verge: str
    crossing: float | None
    seed: int
    end: float = math.inf

    def axis(self, z: float) -> float:
        """X of the road's axis at depth ``z``."""
        return self.bend * z * abs(z)


@dataclass(frozen=True)
class Block:
    """A building: a box with its facade ``x`` metres from the axis on ``side`` (-1 left, 1 right)."""

    side: int
    x: float
    z0: float
    z1: float
    height: float
    style: str
    colour: Colour
    floor: float
    pitch: float
    window: tuple[float, float]
    shop: bool
    roof: float
    warmth: float
    seed: int


@dataclass(frozen=True)
class Tree:
    x: float
    z: float
    height: float
    species: int
    seed: int


@dataclass(frozen=True)
class Post:
    """A street lamp ``height`` metres high with an arm of ``arm`` metres towards the road."""

    x: float
    z: float
    height: float
    arm: float
    colour: Colour
    power: float


@dataclass(frozen=True)
class Prop:
    """Something small: "sign", "bin", "bollard" or "cabinet"."""

    what: str
    x: float
    z: float
    seed: int


@dataclass(frozen=True)
class Room:
    """A room along Z: from ``-half`` to ``half`` across, ``height`` high, closed at ``depth``.

    ``dado``: up to where the walls are darker; ``pitch``: of what hangs on them; ``windows``: on the left (-1), on the
    right (1) or nowhere; ``heated``: from below the floor; ``lamps``: X, Z and whether it is on.
    """

    half: float
    height: float
    depth: float
    paint: Colour
    floor: Colour
    dado: float
    pitch: float
    windows: int
    heated: bool
    lamps: tuple[tuple[float, float, bool], ...]
    seed: int


@dataclass(frozen=True)
class Plan:
    camera: Camera
    climate: Climate
    road: Road
    blocks: tuple[Block, ...]
    trees: tuple[Tree, ...]
    posts: tuple[Post, ...]
    props: tuple[Prop, ...]
    seed: int
    room: Room | None = None


WALLS: dict[str, tuple[Colour, ...]] = {  # linear BGR
    "brick": ((0.09, 0.12, 0.26), (0.12, 0.16, 0.30), (0.10, 0.13, 0.20), (0.20, 0.26, 0.34)),
    "plaster": ((0.42, 0.50, 0.55), (0.30, 0.42, 0.50), (0.44, 0.44, 0.42), (0.28, 0.36, 0.46), (0.45, 0.40, 0.33)),
    "concrete": ((0.30, 0.31, 0.32), (0.24, 0.25, 0.25), (0.36, 0.36, 0.35)),
    "glass": ((0.09, 0.08, 0.07), (0.12, 0.10, 0.07)),
}
LAMP_COLOURS: tuple[Colour, ...] = ((0.28, 0.62, 1.0), (0.38, 0.70, 1.0), (0.80, 0.95, 1.0), (1.0, 0.96, 0.88))


def weather(rng: np.random.Generator, kind: Kind) -> dict[str, float]:
    """What a :class:`Climate` draws from its kind alone."""
    return {name: pick(rng, getattr(kind, name)) for name in ("air", "road", "wall", "sky", "fog", "exposure", "lit")}


def plan_street(seed: int, size: tuple[int, int], kind: Kind) -> Plan:
    """Lay out the street of ``seed``: independent of ``size`` but for the camera's pixels."""
    rng = np.random.default_rng([seed, 11])
    camera = place_camera(rng, size)
    climate = Climate(
        **weather(rng, kind),
        wet=float(rng.uniform(0.3, 1.0)) if rng.random() < 0.3 and not kind.sun[1] else 0.0,
        dim=float(rng.uniform(0.45, 1.4)),
        lamps=kind.lamps,
        ego=kind.lamps and camera.eye < 2.2 and bool(rng.random() < 0.6),
    )
    if kind.rain[1]:  # drawn apart, so that the street of a seed is the same in all weathers
        apart = np.random.default_rng([seed, 59])
        climate = replace(climate, wet=pick(apart, (0.6, 1.0)), rain=pick(apart, kind.rain))
    lanes = int(rng.choice([2, 2, 2, 3, 4]))
    road = Road(
        half=lanes * pick(rng, (3.0, 3.6)) / 2,
        lanes=lanes,
        walk=pick(rng, (1.8, 4.0)),
        bend=0.0 if rng.random() < 0.4 else pick(rng, (-0.0007, 0.0007)),
        verge=str(rng.choice(["grass", "grass", "paving", "gravel"])),
        crossing=pick(rng, (9, 24)) if rng.random() < 0.5 else None,
        seed=int(rng.integers(1 << 30)),
    )
    urban = float(rng.choice([0.0, 0.55, 0.9, 1.0], p=[0.15, 0.25, 0.35, 0.25]))
    blocks = [b for side in (-1, 1) for b in _row(rng, side, road, urban * float(rng.uniform(0.7, 1.0)))]
    return Plan(
        camera=camera,
        climate=climate,
        road=road,
        blocks=tuple(sorted(blocks, key=lambda b: -b.z0)),
        trees=tuple(_trees(rng, road, urban)),
        posts=tuple(_posts(rng, road)),
        props=tuple(_props(rng, road)),
        seed=seed,
    )


def place_camera(rng: np.random.Generator, size: tuple[int, int]) -> Camera:
    """From a dashboard to a pole; the field of view goes with the larger side, so tall pictures see the same street."""
    width, height = size
    high = float(rng.random() ** 2.4)
    eye = 1.35 + 4.2 * high
    focal = pick(rng, (0.85, 1.35)) * max(width, 1.15 * height)
    horizon = (pick(rng, (0.36, 0.52)) - 0.10 * high) * height
    return Camera(width, height, focal, pick(rng, (0.34, 0.66)) * width, horizon, eye)


def _row(rng: np.random.Generator, side: int, road: Road, urban: float) -> list[Block]:
    """The buildings along one side of the road, out to where fog and size hide them."""
    blocks: list[Block] = []
    edge = road.half + road.walk + float(rng.choice([0.2, 1.5, 5.0, 9.0]))
    tall = float(rng.choice([6.5, 9.5, 13.0, 22.0]))
    z = pick(rng, (-12, 14))
    while z < 230:
        length = pick(rng, (8, 26))
        if rng.random() < urban:
            style = str(rng.choice(["brick", "brick", "plaster", "plaster", "concrete", "glass"]))
            colours = WALLS[style]
            base = np.array(colours[int(rng.integers(len(colours)))]) * rng.uniform(0.75, 1.2)
            middle = z + length / 2
            x = edge + pick(rng, (0, 1.5)) + side * road.axis(middle)
            floor = pick(rng, (2.8, 3.6))
            height = max(1, round(tall * pick(rng, (0.6, 1.35)) / floor)) * floor + 0.9
            blocks.append(
                Block(
                    side=side,
                    x=x,
                    z0=z,
                    z1=z + length,
                    height=height,
                    style=style,
                    colour=(float(base[0]), float(base[1]), float(base[2])),
                    floor=floor,
                    pitch=pick(rng, (1.9, 3.8)) if style != "glass" else pick(rng, (1.2, 1.8)),
                    window=(pick(rng, (0.36, 0.6)), pick(rng, (0.42, 0.62))) if style != "glass" else (0.9, 0.82),
                    shop=bool(rng.random() < 0.4),
                    roof=pick(rng, (1.6, 3.2)) if rng.random() < 0.5 and height < 12 else 0.0,
                    warmth=pick(rng, (-0.8, 1.6)),
                    seed=int(rng.integers(1 << 30)),
                )
            )
        z += length + (0.0 if rng.random() < 0.55 else pick(rng, (2, 14)))
    return blocks


def _trees(rng: np.random.Generator, road: Road, urban: float) -> list[Tree]:
    trees: list[Tree] = []
    for side in (-1, 1):
        if rng.random() < 0.25:
            continue
        offset = road.half + float(rng.choice([0.9, road.walk + 0.8, road.walk + 3.0]))
        step = pick(rng, (7, 18))
        species = int(rng.integers(3))
        size = pick(rng, (5.0, 10.0))
        z = pick(rng, (4, 16))
        while z < 110:
            jitter = pick(rng, (-0.5, 0.5))
            trees.append(
                Tree(
                    side * offset + jitter + road.axis(z),
                    z,
                    size * pick(rng, (0.75, 1.2)),
                    species,
                    int(rng.integers(1 << 30)),
                )
            )
            z += step * pick(rng, (0.7, 1.5))
    for side in (-1, 1):
        if rng.random() < 0.3:  # a hedge
            offset, height = road.half + road.walk + 0.7, pick(rng, (0.8, 1.5))
            for z in np.arange(pick(rng, (3, 12)), pick(rng, (25, 60)), 0.8 * height):
                x = side * offset + road.axis(float(z)) + pick(rng, (-0.1, 0.1))
                trees.append(Tree(x, float(z), height * pick(rng, (0.9, 1.15)), 3, int(rng.integers(1 << 30))))
    for _ in range(int(rng.integers(2, 9) * (1.4 - urban))):  # some stand free, away from the road
        z = pick(rng, (14, 100))
        side = -1 if rng.random() < 0.5 else 1
        x = side * (road.half + road.walk + pick(rng, (3, 30) if urban < 0.3 else (1, 5))) + road.axis(z)
        trees.append(Tree(x, z, pick(rng, (2.0, 9.5)), int(rng.integers(3)), int(rng.integers(1 << 30))))
    return trees


def _props(rng: np.random.Generator, road: Road) -> list[Prop]:
    props = []
    for _ in range(int(rng.integers(1, 8))):
        side, z = (-1 if rng.random() < 0.5 else 1), pick(rng, (6, 50))
        what = str(rng.choice(["sign", "sign", "bin", "cabinet"]))
        edge = 0.75 if what in ("sign", "bin") else road.walk - 0.5
        props.append(Prop(what, side * (road.half + edge) + road.axis(z), z, int(rng.integers(1 << 20))))
    if rng.random() < 0.25:
        side = -1 if rng.random() < 0.5 else 1
        for z in np.arange(4.0, 40.0, 2.5):
            props.append(Prop("bollard", side * (road.half + 0.7) + road.axis(float(z)), float(z), 0))
    return props


def _posts(rng: np.random.Generator, road: Road) -> list[Post]:
    height, step, first = pick(rng, (5.0, 9.0)), pick(rng, (16, 30)), pick(rng, (7, 20))
    colour = LAMP_COLOURS[int(rng.integers(len(LAMP_COLOURS)))]
    sides = [-1, 1] if rng.random() < 0.35 else [int(rng.choice([-1, 1]))]
    strength = pick(rng, (0.35, 1.2))
    if rng.random() < 0.15:  # a road without lamps
        return []
    posts: list[Post] = []
    for side in sides:
        z = first + (0.0 if side < 0 else step / 2 * float(rng.random()))
        while z < 140:
            reach = 1.0 if smoothstep(0, 1, rng.random()) > 0.06 else 0.0  # here and there one is broken
            posts.append(
                Post(
                    side * (road.half + 0.75) + road.axis(z),
                    z,
                    height,
                    -side * 1.7,
                    colour,
                    reach * strength * height * height,
                )
            )
            z += step
    return posts
