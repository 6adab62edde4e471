"""A window on this machine's screen: GStreamer's where it is installed, else OpenCV's where it has windows."""

from __future__ import annotations

import os
from typing import Any

import cv2
from numpy.typing import NDArray

from ...errors import CameraError
from ...media import to_eight_bits
from .. import gst
from ..pipelines import WINDOWS
from ..uri import Address
from .base import Sink
from .gstreamer import GstSink

__all__ = ["OpenCVWindow", "Window", "open_display"]

TITLE = "pyldfusion"


def open_display(address: Address) -> Sink:
    """A window. Raises CameraError with what to do where there can be none."""
    if not any(os.environ.get(name) for name in WINDOWS):
        raise CameraError(
            f"{address}: there is no screen here ({' and '.join(WINDOWS)} are not set); use another output, such as "
            "http://@:8080 for a browser, or over SSH ssh -X"
        )
    if not gst.why_not() and any(gst.has_element(element) for element in WINDOWS.values()):
        return Window(address)
    if _has_windows():
        return OpenCVWindow()
    raise CameraError(
        f"{address}: this OpenCV is built without windows, and GStreamer or its plug-in for windows is not installed; "
        "install gstreamer1.0-x and PyGObject (docs/cameras.md), or opencv-python in place of opencv-python-headless, "
        "or use another output such as http://@:8080"
    )


class Window(GstSink):
    """GStreamer's window; q, Escape or closing it ends the stream."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        Gst = gst.load()
        if self._pipeline.set_state(Gst.State.READY) == Gst.StateChangeReturn.FAILURE:
            _, text = gst.message_of(self._pipeline)
            self.close()
            raise CameraError(f"{address}: {text or 'no window'}; is the screen there, and may we use it?")
        pad = self._pipeline.get_by_name("pyldfusion").get_static_pad("src")
        pad.add_probe(Gst.PadProbeType.EVENT_UPSTREAM, self._key)

    def write(self, picture: NDArray[Any], time: float) -> None:
        try:
            super().write(picture, time)
        except CameraError as error:
            if "closed" not in str(error):
                raise
            self.quit = True

    def _key(self, _: Any, info: Any) -> Any:
        Gst = gst.load()
        event = info.get_event()
        if event.type == Gst.EventType.NAVIGATION:
            told = event.get_structure()
            if told.get_string("event") == "key-press" and told.get_string("key") in ("q", "Q", "Escape"):
                self.quit = True
        return Gst.PadProbeReturn.OK


class OpenCVWindow(Sink):
    """OpenCV's window; Escape or q ends the stream."""

    def __init__(self) -> None:
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
