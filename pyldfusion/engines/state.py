"""What a graph carries from frame to frame, kept by the engine that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["State"]


class State:
    """The inputs ``state_*`` of a temporal graph, which are its outputs ``new_state_*`` of the frame before.

    Args:
        sizes: how many numbers each has, by its name; none of a graph that fuses every frame alone.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = dict(sizes)
        self._arrays: dict[str, NDArray[np.float32]] = {}

    @property
    def outputs(self) -> list[str]:
        """Names of the graph's outputs that :meth:`take` is given, in order."""
        return [f"new_{name}" for name in self._sizes]

    def inputs(self, keep: float, frames: int) -> dict[str, NDArray[np.float32]]:
        """What the graph takes beside the frames, ``frames`` of them at once; ``keep`` is the weight of the past."""
        if not self._sizes:
            return {}
        if any(array.shape[0] != frames for array in self._arrays.values()) or not self._arrays:
            self._arrays = {name: np.zeros((frames, size), np.float32) for name, size in self._sizes.items()}
            keep = 0.0
        return {"keep": np.array([keep], np.float32), **self._arrays}

    def take(self, outputs: list[Any]) -> None:
        """Keep what the graph gave for the next frame."""
        self._arrays = {name: np.array(output, np.float32) for name, output in zip(self._sizes, outputs, strict=True)}
