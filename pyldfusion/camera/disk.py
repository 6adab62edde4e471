"""Whether there is room to go on writing a video: OpenCV says nothing when there is not."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from ..errors import InputError

__all__ = ["Disk"]

#: A video is finished while there is this much room: what is written, and the index at its end.
RESERVE = 8 << 20
#: Seconds between looks.
LOOK = 1.0


class Disk:
    """The disk that a file is on."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._looked = -LOOK

    def check(self) -> None:
        """Look, now and then. Raises InputError when it is nearly full."""
        if time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        folder = next(parent for parent in self._path.resolve().parents if parent.exists())
        disk = shutil.disk_usage(folder)
        if disk.total and disk.free < RESERVE:  # without a size it is none, as /proc
            raise InputError(f"{self._path}: the disk is nearly full, so the video is finished here")
