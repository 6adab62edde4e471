"""Pictures cut into bands of rows, so that a metric's many temporary arrays stay small, in cache and few."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

#: Pixels a strip holds: half a megabyte as float64.
_PIXELS = 1 << 15


def strips(*pictures: NDArray[Any], overlap: int = 0) -> Iterator[tuple[NDArray[Any], ...]]:
    """The same rows of all pictures, from top to bottom, as views.

    Neighbours share ``overlap`` rows: the rows at which a window of ``overlap + 1`` rows can start are each covered
    once.
    """
    height, width = pictures[0].shape
    step = max(_PIXELS // width, overlap, 1)
    for top in range(0, height - overlap, step):
        yield tuple(picture[top : top + step + overlap] for picture in pictures)
