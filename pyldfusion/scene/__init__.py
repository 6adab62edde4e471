"""A generated street scene, seen by a thermal and a visible camera: pairs for demos, tests and training.

>>> from pyldfusion.scene import Scene
>>> ir, vis = Scene(seed=1, size=(640, 480), kind="night").render(t=0.0)

One geometry carries two materials, reflectance and emission for the visible, temperature for the thermal, so
the pair is registered by construction. Only NumPy and OpenCV are needed.
"""

from __future__ import annotations

from .kinds import KINDS
from .scene import Frame, Scene
from .sensor import KELVIN_PER_COUNT

__all__ = ["KELVIN_PER_COUNT", "KINDS", "Frame", "Scene"]
