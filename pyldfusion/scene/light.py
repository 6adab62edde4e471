"""Light in the visible: the sky, the sun, street lamps and head lamps. The thermal camera sees none of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .texture import Array

__all__ = ["Beam", "Lamp", "Lighting", "Rays"]

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Lamp:
    """A street lamp: shines downwards; ``power`` is the light on the ground right under it times height squared."""

    position: Vector
    colour: Vector
    power: float

    def reach(self, x: Any, y: Any, z: Any) -> tuple[Any, Any, Any, Any]:
        """Unit direction to the lamp from points, and the light on a surface that faces it."""
        dx, dy, dz = self.position[0] - x, self.position[1] - y, self.position[2] - z
        square = dx * dx + dy * dy + dz * dz + 0.3
        inverse = 1 / np.sqrt(square)
        down = np.clip(dy * inverse + 0.12, 0, 1)  # a little spill above the lamp's own height
        return dx * inverse, dy * inverse, dz * inverse, self.power * down * down / square


@dataclass(frozen=True)
class Beam:
    """A pair of head lamps on low beam, as one wide spot along ``heading`` (unit vector in the X, Z plane)."""

    position: Vector
    heading: tuple[float, float]
    colour: Vector
    power: float

    def reach(self, x: Any, y: Any, z: Any) -> tuple[Any, Any, Any, Any]:
        dx, dy, dz = self.position[0] - x, self.position[1] - y, self.position[2] - z
        hx, hz = self.heading
        ahead = -(dx * hx + dz * hz)
        near = np.maximum(ahead, 0.3)
        side = (dx * hz - dz * hx) / near
        rise = -dy / near + 0.03
        shape = np.exp(-((side / 0.5) ** 2) - (rise / np.where(rise > 0, 0.06, 0.25)) ** 2) * (ahead > 0)
        square = dx * dx + dy * dy + dz * dz + 9.0
        inverse = 1 / np.sqrt(square)
        return dx * inverse, dy * inverse, dz * inverse, self.power * shape / square


@dataclass(frozen=True)
class Rays:
    """Light at one place: ``ambient`` [3] from all over the sky and directed rays ``(direction [3], colour [3])``."""

    ambient: Array
    directed: tuple[tuple[Array, Array], ...]

    def on(self, nx: Any, ny: Any, nz: Any) -> Array:
        """Light on surfaces of the given normals: [..., 3]; the sky above counts twice the ground below."""
        nx, ny, nz = (np.asarray(v, np.float32) for v in (nx, ny, nz))
        total = (0.66 + 0.34 * ny)[..., None] * self.ambient
        for (lx, ly, lz), colour in self.directed:
            total = total + np.maximum(nx * lx + ny * ly + nz * lz, 0)[..., None] * colour
        return total

    def total(self) -> Array:
        """All light that passes here, whatever its direction: what smoke scatters, [3]."""
        return self.ambient + sum((0.5 * colour for _, colour in self.directed), np.zeros(3, np.float32))


@dataclass(frozen=True)
class Lighting:
    """All lights of a moment.

    Attributes:
        ambient: light of the sky on level ground, BGR.
        sun: direction to it and its colour, or None.
        lamps: what shines always; beams: what moves.
    """

    ambient: Vector
    sun: tuple[Vector, Vector] | None = None
    lamps: tuple[Lamp | Beam, ...] = ()
    beams: tuple[Beam, ...] = field(default=())

    def on(self, x: Any, y: Any, z: Any, nx: Any, ny: Any, nz: Any, shade: Any = 1.0) -> Array:
        """Light [..., 3] from sky, sun and street lamps on points with normals; ``shade`` scales the sun."""
        total = (0.66 + 0.34 * ny)[..., None] * np.asarray(self.ambient, np.float32)
        if self.sun is not None:
            (sx, sy, sz), colour = self.sun
            facing = np.maximum(nx * sx + ny * sy + nz * sz, 0) * shade
            total = total + facing[..., None] * np.asarray(colour, np.float32)
        return total + _sum(self.lamps, x, y, z, nx, ny, nz, wrap=0.0)

    def swept(self, x: Any, y: Any, z: Any, nx: Any, ny: Any, nz: Any) -> Array:
        """Light [..., 3] of the moving beams alone; rough ground throws some back even at a grazing angle."""
        return _sum(self.beams, x, y, z, nx, ny, nz, wrap=0.16)

    def at(self, x: float, y: float, z: float) -> Rays:
        """The light at one place, for objects small enough that it is the same all over them."""
        directed = []
        for source in (*self.lamps, *self.beams):
            lx, ly, lz, strength = source.reach(x, y, z)
            if strength > 0.004:
                colour = np.asarray(source.colour, np.float32) * np.float32(strength)
                directed.append((np.array([lx, ly, lz], np.float32), colour))
        directed.sort(key=lambda ray: -float(ray[1].sum()))
        if self.sun is not None:
            directed.insert(0, (np.asarray(self.sun[0], np.float32), np.asarray(self.sun[1], np.float32)))
        return Rays(np.asarray(self.ambient, np.float32), tuple(directed[:4]))


def _sum(sources: Any, x: Any, y: Any, z: Any, nx: Any, ny: Any, nz: Any, wrap: float) -> Array:
    total = np.zeros((*np.shape(x), 3), np.float32)
    for source in sources:
        lx, ly, lz, strength = source.reach(x, y, z)
        facing = np.maximum(nx * lx + ny * ly + nz * lz, 0)
        light = strength * (facing * (1 - wrap) + wrap)
        for channel in range(3):
            total[..., channel] += light * np.float32(source.colour[channel])
    return total
