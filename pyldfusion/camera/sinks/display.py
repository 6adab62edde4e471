"""A window on this machine's screen."""

from __future__ import annotations

import os
from typing import Any

import cv2
from numpy.typing import NDArray

from ...errors import CameraError
from ...media import to_eight_bits
from .base import Sink

__all__ = ["DisplaySink"]

TITLE = "pyldfusion"


class DisplaySink(Sink):
    """OpenCV's window; Escape or q ends the stream."""

    def __init__(self) -> None:
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise CameraError("there is no screen here (DISPLAY is not set); use another output such as http://@:8080")
        if not _has_windows():
            raise CameraError(
                "this OpenCV is built without windows; install opencv-python in place of opencv-python-headless, or "
                "use another output such as http://@:8080"
            )
        self._shown = False

    def write(self, picture: NDArray[Any], time: float) -> None:
        cv2.imshow(TITLE, to_eight_bits(picture))
        self._shown = True
        self.quit = cv2.waitKey(1) & 0xFF in (27, ord("q"))

    def close(self) -> None:
        if self._shown:
            cv2.destroyWindow(TITLE)
            self._shown = False


def _has_windows() -> bool:
    for line in cv2.getBuildInformation().splitlines():
        if line.strip().startswith("GUI:"):
            return "NONE" not in line
    return False
