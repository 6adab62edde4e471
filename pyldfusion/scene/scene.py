"""Scene: a street at night, rendered for a thermal and a visible camera that stand in one place."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count as counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from . import sensor
from .backdrop import Backdrop
from .body import draw_car
from .canvas import Air, Patch, lay
from .car import outline, plan_cars
from .figure import draw_person
from .grow import BUSH, grow
from .kinds import find_kind
from .lamp import draw_post, shine
from .light import Beam, Lamp, Lighting
from .mirror import streak
from .person import plan_people
from .plan import Tree, plan_street
from .prop import draw_prop
from .rain import draw_rain
from .room import plan_room, room_lamps
from .shadow import cast
from .smoke import draw_plume, plan_smoke
from .texture import Array
from .tree import stand, sway

__all__ = ["Frame", "Scene"]

MIN_SIDE, MAX_SIDE = 16, 8192

Painter = Callable[[Array, float], None]


class Frame(NamedTuple):
    """A registered pair.

    Attributes:
        ir: thermal, uint8 or uint16 [H,W]; brighter is hotter.
        vis: visible, uint8 [H,W,3], BGR.
    """

    ir: NDArray[Any]
    vis: NDArray[np.uint8]


class Scene:
    """A street that lives: cars drive, people walk, smoke drifts, leaves sway.

    Everything follows from the arguments: the same scene at the same time gives the same bytes. Building one draws
    what stands still (about a second at 640x480); rendering then costs a frame of what moves. A scene never
    changes, so threads may share it.

    Args:
        seed: which street, 0 or more.
        size: (width, height) in pixels, each 16 to 8192.
        kind: ``"night"``, ``"dusk"``, ``"day"``, ``"fog"``, ``"smoke"``, ``"rain"`` or ``"indoor"``.
        bits: of the thermal frame: 8 gives a gain-controlled uint8 picture, 16 a uint16 one of raw counts of 0.04 K
            (kelvin = 0.04 * count, at most 16383), as a 14-bit camera does.
        people, cars, plumes: how many, or None to leave it to the seed. Indoors there are people alone.
        ir_noise: temporal noise of the thermal camera in kelvin; its fixed pattern has 0.8 times that. 0: none.
        vis_noise: noise of the visible camera in grey levels, up to 1.8 times that in the dark. 0: none.
        ir_blur, vis_blur: standard deviation of a Gaussian blur in pixels. 0: none.
        ir_offset, vis_offset: (right, down) in pixels by which that camera's picture is off. (0, 0): registered.

    Raises:
        InputError: an argument that is not as described.

    Example:
        >>> ir, vis = Scene(seed=1, size=(640, 480)).render(t=0.5)
    """

    def __init__(
        self,
        seed: int = 0,
        size: tuple[int, int] = (640, 480),
        kind: str = "night",
        *,
        bits: int = 8,
        people: int | None = None,
        cars: int | None = None,
        plumes: int | None = None,
        ir_noise: float = 0.05,
        vis_noise: float = 1.5,
        ir_blur: float = 0.6,
        vis_blur: float = 0.0,
        ir_offset: tuple[float, float] = (0.0, 0.0),
        vis_offset: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self.seed = _whole("seed", seed, 0, 2**63 - 1)
        self.size = _size(size)
        self.kind = kind
        row = find_kind(kind)
        if _whole("bits", bits, 8, 16) not in (8, 16):
            raise InputError(f"bits is {bits}; expected 8 (gain-controlled picture) or 16 (raw counts)")
        self.bits = int(bits)

        rng = np.random.default_rng([self.seed, 29])
        self._plan = plan = (plan_room if row.room else plan_street)(self.seed, self.size, row)
        outdoors = 0 if row.room else 200
        default = int(rng.integers(2, 8)), int(rng.integers(1, 6)), int(rng.integers(row.smoke[0], row.smoke[1] + 1))
        number = [
            min(d, most) if n is None else _whole(name, n, 0, most)
            for name, n, d, most in (
                ("people", people, default[0], 200),
                ("cars", cars, default[1], outdoors),
                ("plumes", plumes, default[2], outdoors),
            )
        ]
        calm = bool(rng.random() < 0.4)
        self._cars = plan_cars(np.random.default_rng([self.seed, 37]), plan.road, number[1], row.lamps, calm)
        self._people = plan_people(
            np.random.default_rng([self.seed, 31]), plan.road, number[0], plan.camera, self._cars
        )
        self._plumes = plan_smoke(np.random.default_rng([self.seed, 41]), plan.road, number[2], row.thick)

        sun = None
        if row.sun[1]:
            height, round_ = math.radians(rng.uniform(*row.sun_height)), rng.uniform(0, 2 * math.pi)
            direction = (math.cos(height) * math.sin(round_), math.sin(height), math.cos(height) * math.cos(round_))
            strength = float(rng.uniform(*row.sun))
            sun = (direction, (0.78 * strength, 0.92 * strength, strength))
        lamps: list[Lamp | Beam] = [lamp for lamp in map(shine, plan.posts) if lamp is not None] if row.lamps else []
        if plan.room is not None:
            lamps += room_lamps(plan.room)
        if plan.climate.ego:
            lamps.append(Beam((0.0, 0.7, 0.3), (0.0, 1.0), (0.80, 0.94, 1.0), 60.0))
        dim = plan.climate.dim if sun is None else 1.0
        ambient = (row.ambient[0] * dim, row.ambient[1] * dim, row.ambient[2] * dim)
        self._lighting = Lighting(ambient, sun, tuple(lamps))
        haze = tuple(0.5 * a + 0.5 * s for a, s in zip(ambient, row.skyline, strict=True))
        self._air = Air(plan.climate.fog, haze, plan.climate.air)  # type: ignore[arg-type]
        self._backdrop = Backdrop(plan, row, self._lighting, self._air)
        self._standing = self._plant()
        self._visible = sensor.Visible(
            exposure=plan.climate.exposure,
            veil=0.10 if plan.climate.fog < 0.01 else 0.25,
            noise=_amount("vis_noise", vis_noise),
            offset=_offset("vis_offset", vis_offset),
            blur=_amount("vis_blur", vis_blur),
        )
        low, high, gamma = self._backdrop.gain(rng, plan.climate)
        shape = (self.size[1], self.size[0])
        self._thermal = sensor.Thermal(
            bits=self.bits,
            low=low,
            high=high,
            gamma=gamma,
            noise=_amount("ir_noise", ir_noise),
            pattern=sensor.fixed_pattern(shape, np.random.default_rng([self.seed, 43])),
            offset=_offset("ir_offset", ir_offset),
            blur=_amount("ir_blur", ir_blur),
        )

    def render(self, t: float = 0.0) -> Frame:
        """The pair at ``t`` seconds (0 or more), freshly allocated.

        Raises:
            InputError: ``t`` is negative or not a finite number.
        """
        t = _amount("t", t)
        canvas = self._paint(t)
        micro = round(t * 1e6)
        vis = self._visible.read(canvas[..., :3], np.random.Generator(np.random.SFC64([self.seed, micro, 1])))
        ir = self._thermal.read(canvas[..., 3], np.random.Generator(np.random.SFC64([self.seed, micro, 2])))
        return Frame(ir, vis)

    def frames(self, fps: float = 25.0, count: int | None = None, start: float = 0.0) -> Iterator[Frame]:
        """Frames ``1 / fps`` seconds apart from ``start`` on: ``count`` of them, or without end.

        Raises:
            InputError: ``fps`` is not over 0, or ``count`` or ``start`` under 0.
        """
        if _amount("fps", fps) == 0:
            raise InputError("fps is 0; expected a number over 0")
        start = _amount("start", start)
        numbers = counter() if count is None else range(_whole("count", count, 0, 2**31))
        return (self.render(start + k / fps) for k in numbers)

    def _plant(self) -> list[tuple[float, Painter]]:
        """What stands still but may be walked behind: trees that sway, lamps, signs; (depth, painter) each."""
        plan, camera = self._plan, self._plan.camera
        standing: list[tuple[float, Painter]] = []

        def seen(patch: Patch, z: float) -> Patch:
            return replace(patch, data=self._air.apply(patch.data, z))

        for tree in sorted(plan.trees, key=lambda tree: -tree.z):
            pixels = tree.height * camera.focal / tree.z
            detail = next((d for limit, d in ((24, 0.08), (80, 0.25), (200, 0.5)) if pixels < limit), 1.0)
            grown = grow(tree.species, plan.seed % 4096 * 8 + tree.seed % 2, detail)
            patch = stand(camera, tree, grown, plan.climate, self._lighting)
            if patch is None:
                continue
            patch = seen(patch, tree.z)
            if tree.species == BUSH or tree.z > 60:
                self._backdrop.bake(patch)
            else:
                standing.append((tree.z, self._tree(patch, tree)))
        for z, small in (
            *((post.z, draw_post(camera, post, plan.climate, self._lighting)) for post in plan.posts),
            *((prop.z, draw_prop(camera, prop, plan.climate, self._lighting)) for prop in plan.props),
        ):
            if small is not None:
                standing.append((z, partial(_lay, seen(small, z))))
        return standing

    def _tree(self, patch: Patch, tree: Tree) -> Painter:
        camera = self._plan.camera
        tall = round(tree.height * camera.focal / tree.z)
        root = round(camera.project(tree.x, 0.0, tree.z)[1])
        return lambda canvas, t: lay(canvas, sway(patch, tall, root, t, tree.seed) if tall > 24 else patch)

    def _paint(self, t: float) -> Array:
        """Radiance and temperature [H,W,4] at ``t``, from far to near."""
        plan, camera, air = self._plan, self._plan.camera, self._air
        climate = plan.climate
        beams = tuple(beam for beam in (car.beam(t) for car in self._cars) if beam is not None)
        lighting = Lighting(self._lighting.ambient, self._lighting.sun, self._lighting.lamps, beams)
        canvas = self._backdrop.canvas(lighting)

        if climate.wet and climate.lamps:
            for car in self._cars:
                for place, light in car.glints(t):
                    streak(canvas, camera, self._backdrop.gloss, place, light)

        items: list[tuple[float, Painter]] = list(self._standing)
        for car in self._cars:
            at = car.stance(t)

            def paint_car(canvas: Array, t: float, car: Any = car, at: Any = at) -> None:
                rays = lighting.at(at.x, 1.0, at.z - 1.5)
                patch = draw_car(camera, car, at, climate, rays)
                if patch is not None:
                    x, z = outline(car, at, 0.05)
                    cast(canvas, camera, rays, x, z, 1.1, soft=0.5, warmth=0.15 * max(car.engine, 0.0))
                    lay(canvas, patch, air, at.z)

            items.append((at.z, paint_car))
        for walker in self._people:
            pose = walker.pose(t)

            def paint_person(canvas: Array, t: float, walker: Any = walker, pose: Any = pose) -> None:
                rays = lighting.at(pose.x, 1.1, pose.z - 0.2)
                patch = draw_person(camera, walker, pose, climate, rays)
                if patch is not None:
                    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
                    x, z = pose.x + 0.2 * np.cos(angle), pose.z + 0.16 * np.sin(angle)
                    cast(canvas, camera, rays, x, z, 0.95 * walker.height, soft=0.2)
                    lay(canvas, patch, air, pose.z)

            items.append((pose.z, paint_person))
        for plume in self._plumes:

            def paint_plume(canvas: Array, t: float, plume: Any = plume) -> None:
                draw_plume(canvas, camera, plume, climate, lighting, t)

            items.append((plume.z, paint_plume))
        for _, paint in sorted(items, key=lambda item: -item[0]):
            paint(canvas, t)
        draw_rain(canvas, camera, climate, lighting, self.seed, t)
        return canvas


def _lay(patch: Patch, canvas: Array, t: float) -> None:
    lay(canvas, patch)


def _whole(name: str, value: Any, low: int, high: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if isinstance(value, bool) or not low <= number <= high:
        raise InputError(f"{name} is {value!r}; expected a whole number from {low} to {high}")
    return number


def _amount(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise InputError(f"{name} is {value!r}; expected a finite number of 0 or more")
    return number


def _size(size: Any) -> tuple[int, int]:
    try:
        width, height = size
    except (TypeError, ValueError):
        raise InputError(f"size is {size!r}; expected (width, height) in pixels") from None
    return _whole("width of size", width, MIN_SIDE, MAX_SIDE), _whole("height of size", height, MIN_SIDE, MAX_SIDE)


def _offset(name: str, value: Any) -> tuple[float, float]:
    try:
        right, down = (float(v) for v in value)
    except (TypeError, ValueError):
        right = down = math.nan
    if not (math.isfinite(right) and math.isfinite(down)):
        raise InputError(f"{name} is {value!r}; expected (right, down) in pixels, two finite numbers")
    return right, down
