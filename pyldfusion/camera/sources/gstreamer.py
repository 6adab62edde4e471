"""Cameras read by a GStreamer pipeline that ends in an appsink."""

from __future__ import annotations

import threading
import time
from typing import Any

from ...errors import CameraError
from .. import gst
from ..pipelines import source_pipeline
from ..uri import Address
from .base import Taken

__all__ = ["GstDevice"]

#: Seconds of one wait for a frame, between looks at whether to stop.
SLICE = 0.1


class GstDevice:
    """A pipeline of :func:`source_pipeline`. Frames have the time at which they came into the pipeline."""

    live = True

    def __init__(self, address: Address) -> None:
        gst.load()
        self._address = address
        self._text = source_pipeline(address, gst.has_element)
        self._timeout: float = address.options["timeout"]
        self.rate: float | None = address.options.get("rate")
        self._pipeline: Any = None

    def open(self, stop: threading.Event) -> None:
        self.close()
        self._stop = stop
        Gst = gst.load()
        pipeline = gst.launch(self._text, str(self._address))
        self._pipeline = pipeline
        sinks = gst.elements(pipeline, "appsink")
        if not sinks:
            raise CameraError(f"{self._address}: the pipeline has no appsink")
        self._sink = sinks[0]
        pipeline.set_state(Gst.State.PLAYING)
        self._first: Taken | None = self._take()  # a camera that is not there is said here
        if self._first is None and not stop.is_set():
            raise CameraError(f"{self._address} ends before its first frame")

    def read(self) -> Taken | None:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        taken = self._take()
        if taken is None and self._address.scheme.name != "gst" and not self._stop.is_set():
            raise CameraError(f"{self._address} has ended the stream")
        return taken

    def close(self) -> None:
        if self._pipeline is not None:
            Gst = gst.load()
            self._pipeline.set_state(Gst.State.NULL)
            self._pipeline = self._sink = None

    def _take(self) -> Taken | None:
        Gst = gst.load()
        until = time.monotonic() + self._timeout
        while not self._stop.is_set():
            sample = self._sink.try_pull_sample(round(SLICE * Gst.SECOND))
            if sample is not None:
                return self._taken(sample)
            kind, text = gst.message_of(self._pipeline)
            if kind == "error":
                raise CameraError(f"{self._address}: {text}")
            if kind == "end" or self._sink.is_eos():
                return None
            if time.monotonic() > until:
                raise CameraError(f"{self._address}: no frame for {self._timeout:g} s")
        return None

    def _taken(self, sample: Any) -> Taken:
        Gst = gst.load()
        from gi.repository import GstVideo

        info = GstVideo.VideoInfo.new_from_caps(sample.get_caps())
        if info is None:
            raise CameraError(f"{self._address}: not raw video ({sample.get_caps().to_string()})")
        if self.rate is None and info.fps_n > 0:
            self.rate = info.fps_n / info.fps_d
        buffer = sample.get_buffer()
        mapped, view = buffer.map(Gst.MapFlags.READ)
        if not mapped:
            raise CameraError(f"{self._address}: a frame cannot be read from its memory")
        try:
            picture = gst.picture_of(view.data, info.finfo.name, info.width, info.height, info.stride[0])
        finally:
            buffer.unmap(view)
        stamp = None
        if buffer.pts != Gst.CLOCK_TIME_NONE:
            running = sample.get_segment().to_running_time(Gst.Format.TIME, buffer.pts)
            stamp = (self._pipeline.get_base_time() + running) / Gst.SECOND
        return Taken(picture, stamp)
