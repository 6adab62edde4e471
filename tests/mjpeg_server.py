"""A small MJPEG camera on loopback that can stall, send rubbish, change size, leave and come back."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

__all__ = ["MjpegServer"]


class MjpegServer:
    """Serves frames whose grey is their number; a context manager.

    Attributes:
        stalled: while set, nothing is sent; torn: while set, frames are cut off; size: (width, height) of the frames.
    """

    def __init__(self, rate: float = 30.0, size: tuple[int, int] = (64, 48), port: int = 0) -> None:
        self.rate, self.size = rate, size
        self.stalled, self.torn = threading.Event(), threading.Event()
        self._gone = threading.Event()
        self._clients: set[socket.socket] = set()
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera._clients.add(self.connection)
                with suppress(OSError):
                    camera._serve(self)
                camera._clients.discard(self.connection)

            def log_message(self, format, *args) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address) -> None:
                pass

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/video"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        number = 0
        while not self._gone.wait(1 / self.rate):
            if self.stalled.is_set():
                continue
            width, height = self.size
            jpeg = cv2.imencode(".jpg", np.full((height, width, 3), number % 200 + 20, np.uint8))[1].tobytes()
            if self.torn.is_set():
                jpeg = jpeg[: len(jpeg) // 2]
            handler.wfile.write(
                f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode() + jpeg + b"\r\n"
            )
            number += 1

    def close(self) -> None:
        """Disappear, with every connection."""
        self._gone.set()
        for client in list(self._clients):
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> MjpegServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
