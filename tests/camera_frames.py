"""Frames with given times, for tests of the cameras."""

from __future__ import annotations

import numpy as np

from pyldfusion.camera import Frame

PICTURE = np.zeros((16, 16), np.uint8)


def frame(time: float, number: int = 0, arrived: float | None = None, image=PICTURE) -> Frame:
    return Frame(image, time, "arrival", time if arrived is None else arrived, number, 0)
