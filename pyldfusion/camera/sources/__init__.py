"""Devices by their addresses."""

from __future__ import annotations

from ...errors import InputError
from ..uri import Address, options_of
from .base import BadFrame, Camera, Device, Taken

__all__ = ["BadFrame", "Camera", "Device", "Taken", "open_device"]

#: Options of network cameras that OpenCV cannot follow.
_GSTREAMER_ONLY = ("codec", "latency", "decoder")


def open_device(address: Address) -> Device:
    """The device of a source's address, not opened yet."""
    name = address.scheme.name
    if name == "file":
        from .file import FileDevice

        return FileDevice(address)
    if name == "scene":
        from .scene import SceneDevice

        return SceneDevice(address)
    if name in ("csi", "rtp", "gst", "shm") or (name == "rtsp" and _by_gstreamer(address)):
        from .gstreamer import GstDevice

        return GstDevice(address)
    if name == "v4l2" and (address.options["raw"] or _is_counts(address)):
        from .v4l2 import V4L2Device

        return V4L2Device(address)
    from .opencv import OpenCVDevice

    return OpenCVDevice(address)


def _is_counts(address: Address) -> bool:
    """Whether a USB camera is asked for more than 8 bits."""
    return (address.options["format"] or "").strip() in ("Y16", "Y14", "Y12", "Y10")


def _by_gstreamer(address: Address) -> bool:
    """Whether a network camera is read by GStreamer."""
    from .. import gst

    options = address.options
    if options["backend"] == "gstreamer" or (options["backend"] == "auto" and not gst.why_not()):
        return True
    only = {option.name: option.default for option in options_of(address.scheme) if option.name in _GSTREAMER_ONLY}
    if any(options[name] != default for name, default in only.items()):
        raise InputError(f"{address}: {', '.join(only)} need GStreamer, and it is read by OpenCV")
    return False
