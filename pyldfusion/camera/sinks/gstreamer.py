"""Outputs through GStreamer: RTP, a loopback device, shared memory, and an RTSP server."""

from __future__ import annotations

import socket
import threading
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ...errors import CameraError
from ...media import to_eight_bits
from .. import gst
from ..pipelines import rtsp_server_pipeline, sink_pipeline
from ..uri import Address
from .base import Sink

__all__ = ["Feed", "GstSink", "RtspSink", "bgrx"]


class GstSink(Sink):
    """A pipeline of :func:`sink_pipeline`, fed through its appsrc. It starts with the first picture."""

    def __init__(self, address: Address) -> None:
        self._name = str(address)
        self._pipeline = gst.launch(sink_pipeline(address, gst.has_element), self._name)
        self._feed = Feed()
        self._feed.attach(self._pipeline.get_by_name("pyldfusion"))
        self._started = False

    def write(self, picture: NDArray[Any], time: float) -> None:
        if not self._started:
            self._started = True
            self._feed.fit(picture)
            self._pipeline.set_state(gst.load().State.PLAYING)
        self._feed.push(picture)
        kind, text = gst.message_of(self._pipeline)
        if kind == "error":
            raise CameraError(f"{self._name}: {text}")

    def close(self) -> None:
        self._pipeline.set_state(gst.load().State.NULL)
        self._feed.detach()


class RtspSink(Sink):
    """An RTSP server at ``rtsp://@:port/name``; encodes for each client by itself, and only while there are any."""

    def __init__(self, address: Address) -> None:
        gst.load()
        import gi

        try:
            gi.require_version("GstRtspServer", "1.0")
            from gi.repository import GLib, GstRtspServer
        except (ImportError, ValueError) as error:
            raise CameraError(
                f"{address}: needs GStreamer's RTSP server (gir1.2-gst-rtsp-server-1.0): {error}"
            ) from None
        host, port = address.host_port
        mount = address.target.partition("/")[2]
        self._feed = Feed()
        self._loop = GLib.MainLoop.new(_context(), False)
        self._server = GstRtspServer.RTSPServer.new()
        self._server.set_address(host or "0.0.0.0")
        self._server.set_service(str(port))
        self._server.get_thread_pool().set_max_threads(0)  # clients are served, and so dismissed, by our one thread
        factory = GstRtspServer.RTSPMediaFactory.new()
        factory.set_launch(rtsp_server_pipeline(address, gst.has_element))
        factory.set_shared(False)  # a shared one that ends as the next client comes leaves that without frames
        factory.connect("media-configure", self._configure)
        self._server.get_mount_points().add_factory(f"/{mount}", factory)
        self._source = self._server.create_source(None) if _can_listen(host, port) else None
        if self._source is None:
            raise CameraError(f"{address}: cannot listen there; is the port in use?")
        self._source.attach(_context())
        self.url = f"rtsp://{host or '127.0.0.1'}:{self._server.get_bound_port()}/{mount}"
        self._thread = threading.Thread(target=self._loop.run, name="pyldfusion-rtsp", daemon=True)
        self._thread.start()

    def write(self, picture: NDArray[Any], time: float) -> None:
        self._feed.push(picture)

    def close(self) -> None:
        if self._source is None:
            return
        from gi.repository import GLib, GstRtspServer

        source, self._source = self._source, None

        def end(*_: Any) -> bool:
            self._server.client_filter(lambda *_: GstRtspServer.RTSPFilterResult.REMOVE)
            source.destroy()
            self._loop.quit()
            return False

        idle = GLib.idle_source_new()
        idle.set_callback(end)
        idle.attach(_context())  # clients are dismissed by the thread that serves them
        self._thread.join(5)
        self._feed.detach()

    def _configure(self, _: Any, media: Any) -> None:
        appsrc = media.get_element().get_by_name("pyldfusion")
        media.connect("unprepared", lambda *_: self._feed.detach(appsrc))
        self._feed.attach(appsrc)


@cache
def _context() -> Any:
    """What all servers wait in. One for all: PyGObject does not give a context's file back."""
    from gi.repository import GLib

    return GLib.MainContext.new()


class Feed:
    """Pictures into every appsrc that is attached; all of the first one's size."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._appsrcs: list[Any] = []
        self._size: tuple[int, int] | None = None

    def attach(self, appsrc: Any) -> None:
        """From now on into this one."""
        for name, value in (("max-buffers", 2), ("max-bytes", 0), ("leaky-type", 2)):  # the newest; from 1.20 on
            if appsrc.find_property(name) is not None:
                appsrc.set_property(name, value)
        with self._lock:
            self._appsrcs.append(appsrc)
            if self._size is not None:
                self._set_caps(appsrc)

    def detach(self, appsrc: Any = None) -> None:
        """No longer into this one, or into any."""
        with self._lock:
            self._appsrcs = [each for each in self._appsrcs if appsrc is not None and each is not appsrc]

    def fit(self, picture: NDArray[Any]) -> None:
        """From now on all are of this one's size, unless they are of another already."""
        with self._lock:
            if self._size is None:
                self._size = picture.shape[1], picture.shape[0]
                for appsrc in self._appsrcs:
                    self._set_caps(appsrc)

    def push(self, picture: NDArray[Any]) -> None:
        """Give one picture, uint8 or uint16, [H,W] or BGR [H,W,3].

        Only to those that play: an appsrc stamps what it is given by its clock and base time. While its pipeline starts
        it has the one and not yet the other, and a picture stamped then is hours ahead: the sink waits for its time.
        """
        Gst = gst.load()
        self.fit(picture)
        with self._lock:
            playing = [each for each in self._appsrcs if each.get_state(0).state == Gst.State.PLAYING]
            if playing:
                assert self._size is not None
                data = bgrx(picture, self._size).tobytes()
            for appsrc in playing:
                appsrc.emit("push-buffer", Gst.Buffer.new_wrapped(data))

    def _set_caps(self, appsrc: Any) -> None:
        assert self._size is not None
        caps = f"video/x-raw,format=BGRx,width={self._size[0]},height={self._size[1]},framerate=0/1"
        appsrc.set_property("caps", gst.load().Caps.from_string(caps))


def bgrx(picture: NDArray[Any], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture as uint8 [H,W,4], whose rows need no padding."""
    picture = to_eight_bits(picture)
    if (picture.shape[1], picture.shape[0]) != size:
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    code = cv2.COLOR_GRAY2BGRA if picture.ndim == 2 else cv2.COLOR_BGR2BGRA
    return np.asarray(cv2.cvtColor(picture, code))


def _can_listen(host: str, port: int) -> bool:
    """GStreamer's server says no more than a warning on the terminal when it cannot."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
