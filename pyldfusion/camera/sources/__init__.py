"""Devices by their addresses."""

from __future__ import annotations

from ..uri import Address
from .base import BadFrame, Camera, Device, Taken

__all__ = ["BadFrame", "Camera", "Device", "Taken", "open_device"]


def open_device(address: Address) -> Device:
    """The device of a source's address, not opened yet."""
    name = address.scheme.name
    if name == "file":
        from .file import FileDevice

        return FileDevice(address)
    if name == "scene":
        from .scene import SceneDevice

        return SceneDevice(address)
    from .opencv import OpenCVDevice

    return OpenCVDevice(address)
