"""Network and USB cameras that OpenCV reads by itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

from ...errors import CameraError
from ..uri import Address
from ..v4l2 import fourcc
from .base import Taken

__all__ = ["OpenCVDevice"]

_ENVIRONMENT = threading.Lock()


class OpenCVDevice:
    """A ``cv2.VideoCapture``: FFmpeg for the network, V4L2 for ``/dev/video*``. 8 bits, BGR.

    Frames have no time but their arrival's: what FFmpeg and OpenCV tell is the position in the stream.
    """

    live = True

    def __init__(self, address: Address) -> None:
        self._address = address
        self._capture: cv2.VideoCapture | None = None
        self._code = fourcc(address.options["format"]) if address.options.get("format") else None
        self.rate: float | None = address.options.get("rate")

    def open(self, stop: threading.Event) -> None:
        self.close()
        self._capture = self._open_v4l2() if self._address.scheme.name == "v4l2" else self._open_network()
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        if self.rate is None and 0.01 <= rate <= 1000:
            self.rate = float(rate)

    def read(self) -> Taken | None:
        assert self._capture is not None
        whole, image = self._capture.read()
        if not whole or image is None or image.size == 0:
            raise CameraError(f"{self._address} gives no more frames")
        return Taken(image)

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _open_network(self) -> cv2.VideoCapture:
        options = self._address.options
        wait = round(1000 * options["timeout"])
        words = ["fflags;nobuffer", "flags;low_delay"]
        if "transport" in options:
            words.append(f"rtsp_transport;{options['transport']}")
        with _ffmpeg_options("|".join(words)):
            capture = cv2.VideoCapture(
                self._address.url,
                cv2.CAP_FFMPEG,
                [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, wait, cv2.CAP_PROP_READ_TIMEOUT_MSEC, wait],
            )
        if not capture.isOpened():
            raise CameraError(
                f"{self._address} cannot be opened within {options['timeout']:g} s; is the camera on, and the address "
                "right? `ffprobe` tells more"
            )
        return capture

    def _open_v4l2(self) -> cv2.VideoCapture:
        options, path = self._address.options, self._address.target
        if not os.path.exists(path):
            raise CameraError(f"{path}: no such device; `v4l2-ctl --list-devices` shows what there is")
        capture = cv2.VideoCapture(path, cv2.CAP_V4L2)
        if not capture.isOpened():
            raise CameraError(f"{path} is not a camera that OpenCV can open, or another program has it")
        asked = {
            "format": (cv2.CAP_PROP_FOURCC, self._code),
            "width": (cv2.CAP_PROP_FRAME_WIDTH, options["width"]),
            "height": (cv2.CAP_PROP_FRAME_HEIGHT, options["height"]),
            "rate": (cv2.CAP_PROP_FPS, options["rate"]),
        }
        for prop, value in asked.values():
            if value:
                capture.set(prop, value)
        refused = [name for name, (prop, value) in asked.items() if value and abs(capture.get(prop) - value) > 0.5]
        if refused:
            capture.release()
            raise CameraError(
                f"{path} does not give {' and '.join(f'{name} {options[name]}' for name in refused)}; "
                f"`v4l2-ctl -d {path} --list-formats-ext` shows what it has"
            )
        return capture


@contextmanager
def _ffmpeg_options(words: str) -> Iterator[None]:
    """OpenCV takes FFmpeg's options from the environment alone, when it opens; what the user set wins."""
    name = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
    with _ENVIRONMENT:
        users = os.environ.get(name)
        os.environ.setdefault(name, words)
        try:
            yield
        finally:
            if users is None:
                del os.environ[name]
