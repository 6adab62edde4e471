"""Sinks by their addresses."""

from __future__ import annotations

from ..uri import Address
from .base import Output, Shown, Sink

__all__ = ["Output", "Shown", "Sink", "open_sink"]


def open_sink(address: Address, rate: float | None = None, live: bool = False) -> Sink:
    """The sink of an address.

    Args:
        rate: frames a second of the pictures to come, if it is known.
        live: whether they come in real time, with gaps; a video then repeats frames so that it plays as it was.

    Raises:
        InputError, CameraError: it cannot be opened.
    """
    name = address.scheme.name
    if name == "file":
        from .file import open_file_sink

        return open_file_sink(address, rate, live)
    if name == "http":
        from .http import HttpSink

        return HttpSink(address)
    if name == "rtsp":
        from .gstreamer import RtspSink

        return RtspSink(address)
    if name in ("rtp", "v4l2", "shm"):
        from .gstreamer import GstSink

        return GstSink(address)
    if name == "display":
        from .display import open_display

        return open_display(address)
    return Sink()
