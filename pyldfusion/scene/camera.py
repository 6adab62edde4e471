"""The one pinhole camera that both sensors share: registration is exact because there is no second one.

World axes: X right, Y up, Z forward, in metres, the eye at (0, eye, 0). Verticals stay vertical (a shifted lens
instead of a tilt), so the horizon is a row and the vanishing point of the road a column.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .texture import Array

__all__ = ["NEAR", "Camera"]

#: Nothing nearer than this is drawn, in metres.
NEAR = 1.2


@dataclass(frozen=True)
class Camera:
    """Pixel (column i, row j) covers the continuous square [i, i+1] x [j, j+1].

    Attributes:
        width, height: picture size in pixels.
        focal: focal length in pixels.
        cx: column of the vanishing point; horizon: row of the horizon (either may lie outside the picture).
        eye: height over the road in metres.
    """

    width: int
    height: int
    focal: float
    cx: float
    horizon: float
    eye: float

    def project(self, x: Any, y: Any, z: Any) -> tuple[Any, Any]:
        """World metres -> continuous pixel coordinates; ``z`` must be positive."""
        return self.cx + self.focal * x / z, self.horizon + self.focal * (self.eye - y) / z

    def scaled(self, factor: int) -> Camera:
        """The same view with ``factor`` times the pixels a side."""
        return Camera(
            self.width * factor,
            self.height * factor,
            self.focal * factor,
            self.cx * factor,
            self.horizon * factor,
            self.eye,
        )

    def window(self, x0: int, y0: int, width: int, height: int) -> Camera:
        """The part of the view that starts at pixel (``x0``, ``y0``)."""
        return replace(self, width=width, height=height, cx=self.cx - x0, horizon=self.horizon - y0)

    def slopes(self) -> tuple[Array, Array]:
        """dX/dZ for each column [W] and dY/dZ for each row [H] of the rays through the pixel centres."""
        columns = (np.arange(self.width, dtype=np.float32) + np.float32(0.5 - self.cx)) / np.float32(self.focal)
        rows = (np.float32(self.horizon - 0.5) - np.arange(self.height, dtype=np.float32)) / np.float32(self.focal)
        return columns, rows
