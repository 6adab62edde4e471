"""GStreamer through PyGObject: loaded when it is first needed, and how its frames become arrays."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CameraError, DependencyError

__all__ = ["elements", "has_element", "launch", "load", "message_of", "picture_of", "why_not"]

_ADVICE = (
    "install GStreamer and PyGObject (docs/cameras.md): on Debian and Ubuntu the packages gstreamer1.0-plugins-base, "
    "-good, -bad, -ugly, gstreamer1.0-libav, gstreamer1.0-x, gir1.2-gst-plugins-base-1.0, gir1.2-gst-rtsp-server-1.0, "
    "and pip install 'pyldfusion[gstreamer]'"
)

#: Format to channels and dtype.
_PIXELS: dict[str, tuple[int, str]] = {
    "BGR": (3, "u1"), "BGRx": (4, "u1"), "BGRA": (4, "u1"), "GRAY8": (1, "u1"), "GRAY16_LE": (1, "<u2"),
}  # fmt: skip


def _libgcc_first() -> None:
    """Keep C++ exceptions working in modules that are loaded after GStreamer.

    PyGObject loads libgstreamer with global symbols, and with it libunwind, whose ``_Unwind_Resume`` then stands before
    libgcc's for every library loaded later (OpenVINO, our own): the first exception there aborts the process. What is
    global first wins.
    """
    with suppress(OSError):
        ctypes.CDLL("libgcc_s.so.1", mode=ctypes.RTLD_GLOBAL)


@cache
def why_not() -> str:
    """Why GStreamer cannot be used here; empty where it can."""
    try:
        _libgcc_first()
        import gi

        gi.require_version("Gst", "1.0")
        gi.require_version("GstApp", "1.0")
        gi.require_version("GstVideo", "1.0")
        from gi.repository import Gst, GstApp, GstVideo  # noqa: F401

        Gst.init(None)
    except (ImportError, ValueError) as error:
        return f"{error}; {_ADVICE}"
    return ""


def load() -> Any:
    """The module Gst. Raises DependencyError."""
    if why_not():
        raise DependencyError(f"GStreamer cannot be used: {why_not()}")
    from gi.repository import Gst

    return Gst


def has_element(name: str) -> bool:
    """Whether GStreamer has an element of this name."""
    return load().ElementFactory.find(name.split()[0]) is not None


def launch(description: str, name: str) -> Any:
    """The pipeline of a description, not started. Raises CameraError with GStreamer's words."""
    Gst = load()
    from gi.repository import GLib

    try:
        return Gst.parse_launch(description)
    except GLib.Error as error:
        advice = "; install the plug-in that has it (docs/cameras.md)" if "no element" in error.message else ""
        raise CameraError(f"{name}: GStreamer cannot build its pipeline: {error.message}{advice}") from None


def elements(pipeline: Any, kind: str) -> list[Any]:
    """All elements of a kind (``"appsink"``) in a pipeline; a description of one element is no bin."""
    if not hasattr(pipeline, "iterate_recurse"):
        return [pipeline] if pipeline.get_factory().get_name() == kind else []
    found: list[Any] = []
    iterator = pipeline.iterate_recurse()
    while True:
        result, element = iterator.next()
        if result != load().IteratorResult.OK:
            return found
        if element.get_factory() is not None and element.get_factory().get_name() == kind:
            found.append(element)


def message_of(pipeline: Any) -> tuple[str, str]:
    """What a pipeline has to say: ("error", text), ("end", "") or ("", "")."""
    Gst = load()
    message = pipeline.get_bus().pop_filtered(Gst.MessageType.ERROR | Gst.MessageType.EOS)
    if message is None:
        return "", ""
    if message.type == Gst.MessageType.EOS:
        return "end", ""
    error, _ = message.parse_error()
    return "error", str(error.message)


def picture_of(data: bytes, form: str, width: int, height: int, stride: int) -> NDArray[Any]:
    """A frame's bytes as a picture.

    Args:
        form: GStreamer's name of the pixel format, one of ``pipelines.FORMATS``.
        stride: bytes from row to row.

    Returns:
        uint8 BGR [H,W,3], or uint8 or uint16 [H,W]; a new array.

    Raises:
        CameraError: another format, or too few bytes.
    """
    if form not in _PIXELS:
        known = ", ".join(_PIXELS)
        raise CameraError(f"frames come as {form}; expected {known}: put videoconvert before the appsink")
    channels, dtype = _PIXELS[form]
    row = width * channels * np.dtype(dtype).itemsize
    if stride < row or len(data) < stride * (height - 1) + row:
        raise CameraError(f"a frame of {len(data)} bytes is too short for {width}x{height} {form}")
    rows = np.lib.stride_tricks.as_strided(np.frombuffer(data, np.uint8), (height, row), (stride, 1))
    pixels = np.ascontiguousarray(rows).view(dtype)
    if channels == 1:
        return np.array(pixels, pixels.dtype.newbyteorder("="))
    return np.ascontiguousarray(pixels.reshape(height, width, channels)[..., :3])
