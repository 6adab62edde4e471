"""Pictures cut into tiles, so that a metric's many temporary arrays stay small and in cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

#: Side of a tile in pixels. 128 KiB as float64: larger arrays are handed back to the system each time they are
#: freed, and getting their pages anew takes longer than the arithmetic.
_SIDE = 128


def tiles(*pictures: NDArray[Any], overlap: int = 0) -> Iterator[tuple[NDArray[Any], ...]]:
    """The same tile of all pictures, which are of one size, as views; row by row.

    Neighbours share ``overlap`` pixels: every place where a window of ``overlap + 1`` pixels lies inside the
    picture is inside one tile, and one only.
    """
    height, width = pictures[0].shape
    step = _SIDE - overlap
    for top in range(0, height - overlap, step):
        for left in range(0, width - overlap, step):
            yield tuple(picture[top : top + _SIDE, left : left + _SIDE] for picture in pictures)
