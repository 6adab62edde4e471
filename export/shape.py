"""The sizes a graph is made for: each axis one number, a range, or any."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeAlias

from pyldfusion.errors import InputError
from pyldfusion.image import MIN_SIDE

__all__ = ["ANY", "Axis", "Shape"]

#: A number; the least, the usual and the largest number; or None for any.
Axis: TypeAlias = "int | tuple[int, int, int] | None"

#: What an axis that may be anything is built for where a runtime wants bounds (TensorRT): least, usual, largest.
ANY = {"batch": (1, 1, 4), "height": (MIN_SIDE, 480, 1088), "width": (MIN_SIDE, 640, 1920)}


@dataclass(frozen=True)
class Shape:
    """Frames at once and their size in pixels.

    Attributes:
        batch: N, from 1 up.
        height: H, from 16 up.
        width: W, from 16 up.

    Raises:
        InputError: numbers that cannot be, or a range that is not (least, usual, largest).

    Example:
        >>> Shape(batch=1, height=480, width=640)
        >>> Shape(batch=(1, 1, 8))  # any size, but at most 8 frames at once
    """

    batch: Axis = None
    height: Axis = None
    width: Axis = None

    def __post_init__(self) -> None:
        for axis in fields(self):
            value: Axis = getattr(self, axis.name)
            least = 1 if axis.name == "batch" else MIN_SIDE
            if value is None:
                continue
            numbers = value if isinstance(value, tuple) else (value,)
            whole = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
            if not whole or len(numbers) not in (1, 3) or list(numbers) != sorted(numbers) or numbers[0] < least:
                raise InputError(
                    f"{axis.name} is {value!r}; expected a whole number from {least} up, (least, usual, largest) of "
                    "them in order, or None for any"
                )

    @classmethod
    def dynamic(cls) -> Shape:
        """Any number of frames of any size."""
        return cls()

    @property
    def is_fixed(self) -> bool:
        """Whether every axis is one number."""
        return all(isinstance(getattr(self, axis.name), int) for axis in fields(self))

    @property
    def dims(self) -> tuple[int | str, int | str, int | str]:
        """N, H and W as a graph has them: numbers where they are fixed, else their names."""
        n, h, w = (
            value if isinstance(value, int) else name
            for name, value in (("N", self.batch), ("H", self.height), ("W", self.width))
        )
        return n, h, w

    @property
    def profile(self) -> tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]:
        """(N, H, W) at the least, the usual and the largest, with :data:`ANY` for what may be anything."""
        ranges = []
        for name, usual in ANY.items():
            value: Axis = getattr(self, name)
            ranges.append(usual if value is None else (value, value, value) if isinstance(value, int) else value)
        (n, h, w) = ranges
        return (n[0], h[0], w[0]), (n[1], h[1], w[1]), (n[2], h[2], w[2])

    def __str__(self) -> str:
        """As metadata say it: ``N,H,W``, ``1,480,640``, ``1:1:8,H,W``."""
        values = (self.batch, self.height, self.width)
        return ",".join(
            ":".join(map(str, value)) if isinstance(value, tuple) else str(dim)
            for value, dim in zip(values, self.dims, strict=True)
        )
