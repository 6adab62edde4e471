"""Where pictures go: a sink takes them one by one, and an output feeds a sink from a thread and queue of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple

from numpy.typing import NDArray

from ..events import Events
from ..handover import Ended, Handover

__all__ = ["Output", "Shown", "Sink"]


class Shown(NamedTuple):
    """A picture on its way out: uint8 or uint16, [H,W] or BGR [H,W,3]; its time and its arrival (``Frame``)."""

    picture: NDArray[Any]
    time: float
    arrived: float


class Sink:
    """Base of all sinks; a context manager that finishes what was begun. One thread at a time uses it.

    Attributes:
        quit: whether the person in front of it wants the stream to end.
        url: where a server is, with the port that was taken for port 0; "" of others.
    """

    quit = False
    url = ""

    def write(self, picture: NDArray[Any], time: float) -> None:
        """Take a picture, uint8 or uint16, [H,W] or BGR [H,W,3], of that time. Raises InputError or CameraError."""

    def close(self) -> None:
        """Finish and give everything back; may be called again. Raises InputError if a file did not get whole."""

    def __enter__(self) -> Sink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Output:
    """A sink with its queue and thread. One that is slow, or fails, does not disturb the others.

    Args:
        name: for events and statistics, without a password.
        wait: whether :meth:`put` waits when the queue is full; otherwise the oldest picture is dropped.
        quit: called when the sink's person wants to end.
        timing: called with the seconds from a picture's arrival to its end in this sink.

    Attributes:
        written: pictures that went through.
        failed: whether the sink has ended by an error; what comes then is thrown away.
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        queue: int,
        wait: bool,
        events: Events,
        quit: Callable[[], Any],
        timing: Callable[[float], Any],
    ) -> None:
        self.name, self.sink = name, sink
        self.written = 0
        self.failed = False
        self._queue = Handover[Shown](queue, wait)
        self._events, self._quit, self._timing = events, quit, timing
        self._thread = threading.Thread(target=self._run, name=f"pyldfusion-{name}", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Pictures that the sink was too slow for."""
        return self._queue.dropped

    def put(self, shown: Shown) -> None:
        """Hand a picture over."""
        self._queue.put(shown)

    def close(self, timeout: float = 30.0) -> None:
        """Write what waits, finish the sink."""
        self._queue.close()
        self._thread.join(timeout)
        if self._thread.is_alive():
            self.failed = True
            self._events.fail("output hangs", f"{self.name}: does not come to an end")

    def _run(self) -> None:
        while True:
            try:
                shown = self._queue.get()
            except Ended:
                break
            if shown is None or self.failed:
                continue
            try:
                self.sink.write(shown.picture, shown.time)
            except Exception as error:  # whatever it is, the other outputs go on
                self._fail(error)
                with suppress(Exception):
                    self.sink.close()
                continue
            self.written += 1
            self._timing(time.monotonic() - shown.arrived)
            if self.sink.quit:
                self._quit()
        try:
            self.sink.close()
        except Exception as error:
            if not self.failed:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.failed = True
        text = str(error) or type(error).__name__
        self._events.fail("output failed", text if text.startswith(self.name) else f"{self.name}: {text}")
