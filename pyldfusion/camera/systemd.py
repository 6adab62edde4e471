"""What systemd is told: that the stream runs, that it still makes pictures, that it ends (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

__all__ = ["notify", "service"]


def notify(state: str) -> None:
    """Send a state such as ``READY=1`` to the service manager; nothing where none listens."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path.startswith(("/", "@")):
        address = "\0" + path[1:] if path[0] == "@" else path  # @: the abstract namespace
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(state.encode(), address)


@contextmanager
def service(made: Callable[[], int]) -> Iterator[None]:
    """Ready at the start, stopping at the end, and with ``WatchdogSec=`` a sign of life while ``made()`` rises."""
    stop = threading.Event()

    def live(pause: float) -> None:
        last = -1
        while not stop.wait(pause):
            if (now := made()) != last:
                last = now
                notify("WATCHDOG=1")

    threads = []
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if microseconds.isdecimal() and int(microseconds) > 0:
        threads.append(threading.Thread(target=live, args=(int(microseconds) / 3e6,), daemon=True))
    notify("READY=1")
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        notify("STOPPING=1")
        stop.set()
        for thread in threads:
            thread.join()
