"""The kinds of scene: how much light of which colour, how warm the world is, what is in the air.

Light is linear and in BGR; a lamp lights the road under it with about 1. Temperatures are in degrees Celsius as a
thermal camera would report them, so the clear sky is far below zero. Ranges are drawn from once per seed.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError

__all__ = ["KINDS", "Kind", "find_kind"]

Range = tuple[float, float]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Kind:
    """One row of the table; see the module for units.

    Attributes:
        ambient: light of the sky on level ground.
        zenith, skyline: colour of the sky overhead and at the horizon (linear).
        sun: light of the sun on a surface that faces it (0: none); sun_height: its elevation in degrees.
        exposure: of the visible camera.
        lit: share of windows with light; lamps: whether street lamps and head lamps are on.
        air: temperature of the air; road: of asphalt over the air; wall: of walls over the air.
        sky: apparent temperature of the zenith over the air (the horizon's is nearer the air).
        fog: extinction of visible light per metre.
        smoke: number of plumes; thick: their optical depth in the visible.
        rain: drops in a cubic metre of air; where there are any, the road is wet.
        room: a room instead of a street: its floor is the road, ``lit`` the share of lamps that are on.
    """

    ambient: Colour
    zenith: Colour
    skyline: Colour
    exposure: Range
    lit: Range
    lamps: bool
    air: Range
    road: Range
    wall: Range
    sky: Range
    sun: Range = (0.0, 0.0)
    sun_height: Range = (0.0, 0.0)
    fog: Range = (0.0005, 0.003)
    smoke: tuple[int, int] = (0, 1)
    thick: Range = (1.0, 2.5)
    rain: Range = (0.0, 0.0)
    room: bool = False


KINDS: dict[str, Kind] = {
    "night": Kind(
        ambient=(0.022, 0.016, 0.012),
        zenith=(0.006, 0.003, 0.002),
        skyline=(0.022, 0.019, 0.020),
        exposure=(1.0, 2.5),
        lit=(0.05, 0.30),
        lamps=True,
        air=(4, 18),
        road=(1, 5),
        wall=(0.5, 4),
        sky=(-38, -14),
        smoke=(0, 1),
    ),
    "dusk": Kind(
        ambient=(0.20, 0.135, 0.11),
        zenith=(0.17, 0.085, 0.050),
        skyline=(0.20, 0.34, 0.70),
        exposure=(1.6, 2.8),
        lit=(0.08, 0.3),
        lamps=True,
        air=(6, 22),
        road=(3, 8),
        wall=(1.5, 6),
        sky=(-34, -12),
        smoke=(0, 1),
    ),
    "day": Kind(
        ambient=(0.55, 0.48, 0.42),
        zenith=(0.80, 0.48, 0.26),
        skyline=(0.95, 0.82, 0.70),
        exposure=(1.3, 2.0),
        lit=(0.0, 0.03),
        lamps=False,
        air=(5, 28),
        road=(5, 16),
        wall=(2, 10),
        sky=(-32, -8),
        sun=(0.7, 1.6),
        sun_height=(22, 60),
        smoke=(0, 1),
    ),
    "fog": Kind(
        ambient=(0.30, 0.27, 0.25),
        zenith=(0.34, 0.32, 0.30),
        skyline=(0.36, 0.34, 0.33),
        exposure=(1.3, 2.2),
        lit=(0.05, 0.3),
        lamps=True,
        air=(2, 12),
        road=(1, 4),
        wall=(0.5, 3),
        sky=(-12, -3),
        fog=(0.02, 0.06),
    ),
    "smoke": Kind(
        ambient=(0.30, 0.27, 0.25),
        zenith=(0.40, 0.34, 0.30),
        skyline=(0.48, 0.46, 0.46),
        exposure=(1.3, 2.4),
        lit=(0.05, 0.25),
        lamps=True,
        air=(6, 22),
        road=(2, 7),
        wall=(1, 5),
        sky=(-25, -8),
        fog=(0.002, 0.008),
        smoke=(3, 6),
        thick=(3.0, 7.0),
    ),
    "rain": Kind(
        ambient=(0.115, 0.100, 0.090),
        zenith=(0.130, 0.112, 0.100),
        skyline=(0.155, 0.138, 0.128),
        exposure=(1.5, 2.6),
        lit=(0.10, 0.35),
        lamps=True,
        air=(5, 14),
        road=(0.2, 1.2),  # all is wet, and nearly as warm as the air
        wall=(0.3, 1.6),
        sky=(-9, -3),
        fog=(0.006, 0.014),
        rain=(4.0, 10.0),
        smoke=(0, 0),
    ),
    "indoor": Kind(
        ambient=(0.055, 0.060, 0.062),
        zenith=(0.0, 0.0, 0.0),
        skyline=(0.05, 0.05, 0.05),
        exposure=(1.2, 2.2),
        lit=(0.25, 0.9),
        lamps=True,
        air=(17, 23),
        road=(-1.5, 0.3),
        wall=(-1.2, 0.4),
        sky=(-1, 0),
        fog=(0.0, 0.002),
        smoke=(0, 0),
        room=True,
    ),
}


def find_kind(name: object) -> Kind:
    """The table's row ``name``.

    Raises:
        InputError: no such kind.
    """
    if not isinstance(name, str) or name not in KINDS:
        raise InputError(f"kind is {name!r}; expected one of {', '.join(KINDS)}")
    return KINDS[name]
