"""A page with the moving picture, for any browser: MJPEG over HTTP."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
from numpy.typing import NDArray

from ...errors import CameraError
from ...media import to_eight_bits
from ..uri import Address
from .base import Sink

__all__ = ["HttpSink"]

#: Clients at a time.
MOST_CLIENTS = 16
#: Seconds after which a client that takes nothing is left.
PATIENCE = 10.0
BOUNDARY = "pyldfusion-frame"

PAGE = b"""<!doctype html><title>pyldfusion</title>
<body style="margin:0;background:#111;height:100vh;display:grid;place-items:center">
<img src="/stream" alt="fused stream" style="max-width:100vw;max-height:100vh">
"""


class HttpSink(Sink):
    """Serves ``/`` (a page), ``/stream`` (multipart JPEG) and ``/snapshot.jpg``.

    Every client has a thread and gets the newest picture when it is ready for one, so a slow one only misses
    pictures. A picture is encoded once, and only if someone looks.

    Attributes:
        clients: how many look on; left: how many have left.
    """

    def __init__(self, address: Address) -> None:
        host, port = address.host_port
        self._quality: int = address.options["quality"]
        self._changed = threading.Condition()
        self._encoding = threading.Lock()
        self._picture: NDArray[Any] | None = None
        self._number = 0
        self._encoded = 0, b""
        self._sockets: set[socket.socket] = set()
        self._closed = False
        self.left = 0
        try:
            self._server = _Server((host, port), _Handler)
        except OSError as error:
            raise CameraError(
                f"{address}: cannot listen there ({error.strerror or error}); is the port in use?"
            ) from None
        self._server.sink = self
        self.url = f"http://{host or '127.0.0.1'}:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="pyldfusion-http", daemon=True
        )
        self._thread.start()

    @property
    def clients(self) -> int:
        """How many look on."""
        return len(self._sockets)

    def write(self, picture: NDArray[Any], time: float) -> None:
        with self._changed:
            self._picture = picture
            self._number += 1
            self._changed.notify_all()

    def close(self) -> None:
        if self._closed:
            return
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            sockets = list(self._sockets)
        for client in sockets:  # one that takes nothing must not keep its thread
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def newest(self, after: int) -> tuple[int, bytes] | None:
        """Number and JPEG of a picture newer than ``after``; waits for one. None once there will be none."""
        with self._changed:
            while self._number <= after and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            number, picture = self._number, self._picture
        with self._encoding:
            if self._encoded[0] < number:
                assert picture is not None
                quality = [cv2.IMWRITE_JPEG_QUALITY, self._quality]
                self._encoded = number, cv2.imencode(".jpg", to_eight_bits(picture), quality)[1].tobytes()
            return self._encoded

    def enter(self, client: socket.socket) -> bool:
        """Count a client in; False when there are too many."""
        with self._changed:
            if self._closed or len(self._sockets) >= MOST_CLIENTS:
                return False
            self._sockets.add(client)
            return True

    def leave(self, client: socket.socket) -> None:
        """Count it out."""
        with self._changed:
            self._sockets.discard(client)
            self.left += 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = True
    sink: HttpSink

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no error."""


class _Handler(BaseHTTPRequestHandler):
    timeout = PATIENCE
    server: _Server

    def do_GET(self) -> None:
        sink = self.server.sink
        path = self.path.partition("?")[0]
        if path == "/":
            self._send("text/html; charset=utf-8", PAGE)
        elif path not in ("/stream", "/snapshot.jpg"):
            self.send_error(404, "try /, /stream or /snapshot.jpg")
        elif not sink.enter(self.connection):
            self.send_error(503, "too many clients")
        else:
            try:
                self._stream(sink) if path == "/stream" else self._snapshot(sink)
            except OSError:  # it left, or took nothing for too long
                self.close_connection = True
            finally:
                sink.leave(self.connection)

    def _snapshot(self, sink: HttpSink) -> None:
        newest = sink.newest(0)
        if newest is not None:
            self._send("image/jpeg", newest[1])

    def _stream(self, sink: HttpSink) -> None:
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.close_connection = True
        number = 0
        while (newest := sink.newest(number)) is not None:
            number, jpeg = newest
            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            self.wfile.write(head.encode() + jpeg + b"\r\n")

    def _send(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""
