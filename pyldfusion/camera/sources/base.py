"""A camera: a thread that reads a device and comes back to it when it was gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ...errors import CameraError
from ..events import Events
from ..frame import Frame, Stamper

__all__ = ["BadFrame", "Camera", "Device", "Taken", "back_off"]

#: Seconds to the first and at most between later attempts to open a device that was lost.
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0


class BadFrame(CameraError):  # noqa: N818  (the name of the thing)
    """One frame could not be used; the device goes on."""


class Taken(NamedTuple):
    """A frame as a device gives it: its picture, its time (None if it knows none), and frames lost just before."""

    image: NDArray[Any]
    stamp: float | None = None
    lost: int = 0


class Device(Protocol):
    """What there is for each back end. One thread at a time uses it."""

    @property
    def live(self) -> bool:
        """Whether frames come in real time, so that late ones are worthless, and losing it is not its end."""

    @property
    def rate(self) -> float | None:
        """Frames a second, if it is known."""

    def open(self, stop: threading.Event) -> None:
        """Get ready; ``stop`` ends every wait in :meth:`read`. Raises CameraError or InputError."""

    def read(self) -> Taken | None:
        """The next frame; None at the end. Raises BadFrame for one bad frame, CameraError when the device is lost."""

    def close(self) -> None:
        """Give everything back. May be called again."""


def back_off(attempt: int) -> float:
    """Seconds to wait before attempt 0, 1, 2, ... to open a lost device."""
    return float(min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE))


class Camera:
    """Reads a device in a thread of its own.

    Args:
        name: ``"ir"`` or ``"vis"``, for events.
        device: what to read.
        events: where to tell of what goes wrong.
        flip: ``"none"``, ``"horizontal"``, ``"vertical"``, ``"rotate-90"`` (clockwise), ``"rotate-180"`` or
            ``"rotate-270"``.

    Attributes:
        received, bad, lost, returns: frames that came, that could not be used, that the device says it lost, and how
            often the device came back.
    """

    def __init__(self, name: str, device: Device, events: Events, flip: str = "none") -> None:
        self.name, self.device, self._events, self._flip = name, device, events, flip
        self.received = self.bad = self.lost = self.returns = 0
        self.clock = ""
        self.size: tuple[int, int] | None = None
        self._stop = threading.Event()
        self._stamper = Stamper()
        self._thread: threading.Thread | None = None
        self._kind: tuple[Any, ...] | None = None

    def open(self) -> None:
        """Open the device. Raises CameraError or InputError."""
        try:
            self.device.open(self._stop)
        except BaseException:
            self.device.close()
            raise

    def start(self, deliver: Callable[[Frame], Any], ended: Callable[[], Any]) -> None:
        """Begin to read; ``deliver`` is called in the camera's thread, ``ended`` after the last frame."""
        self._thread = threading.Thread(
            target=self._run, args=(deliver, ended), name=f"pyldfusion-{self.name}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; does not wait."""
        self._stop.set()

    def join(self, timeout: float = 10.0) -> None:
        """Wait for the thread, which closes the device. Without a thread, closes it here."""
        self._stop.set()
        if self._thread is None:
            self.device.close()
        elif self._thread is not threading.current_thread():
            self._thread.join(timeout)
            if self._thread.is_alive():
                self._events.tell(f"{self.name} hangs", f"{self.name}: the device does not give its thread back")

    def _run(self, deliver: Callable[[Frame], Any], ended: Callable[[], Any]) -> None:
        try:
            while not self._stop.is_set():
                try:
                    taken = self.device.read()
                except BadFrame as error:
                    self.bad += 1
                    self._events.tell(f"{self.name} bad frame", f"{self.name}: {error}")
                    continue
                except Exception as error:  # whatever a driver or decoder raises, the other camera goes on
                    if not self._survive(error):
                        return
                    continue
                if taken is None:
                    return
                deliver(self._frame(taken))
        finally:
            with suppress(Exception):
                self.device.close()
            ended()

    def _frame(self, taken: Taken) -> Frame:
        arrived = time.monotonic()
        self.lost += taken.lost
        if self.device.live:
            stamp, self.clock = self._stamper(taken.stamp, arrived)
            if self._stamper.jumps:
                self._stamper.jumps = 0
                self._events.tell(f"{self.name} time jumps", f"{self.name}: the camera's clock jumped")
        else:
            stamp, self.clock = taken.stamp or 0.0, "file"
        image = _flipped(taken.image, self._flip)
        kind = (*image.shape, image.dtype.str)
        if self._kind is not None and kind != self._kind:
            self._events.tell(
                f"{self.name} changes size",
                f"{self.name}: frames are now {image.dtype} {image.shape}, not {self._kind[:-1]} as before",
            )
        self._kind, self.size = kind, (image.shape[1], image.shape[0])
        dropped = self.lost + self.bad
        frame = Frame(image, stamp, self.clock, arrived, self.received + dropped, dropped)
        self.received += 1
        return frame

    def _survive(self, error: Exception) -> bool:
        """After the device failed: open it again, for a camera as often as it takes. False: it is over."""
        text = f"{self.name}: {str(error) or type(error).__name__}"
        if not self.device.live:
            self._events.fail(f"{self.name} lost", text)
            return False
        self._events.tell(f"{self.name} lost", text)
        since, attempt = time.monotonic(), 0
        while not self._stop.wait(back_off(attempt)):
            with suppress(Exception):
                self.device.close()
            try:
                self.device.open(self._stop)
            except Exception:
                attempt += 1
                continue
            self.returns += 1
            gone = time.monotonic() - since
            self._events.tell(f"{self.name} back", f"{self.name}: is back after {gone:.1f} s")
            return True
        return False


def _flipped(image: NDArray[Any], flip: str) -> NDArray[Any]:
    if flip == "none":
        return image
    quarters = {"rotate-90": -1, "rotate-180": 2, "rotate-270": 1}  # counter-clockwise, as NumPy turns
    turned = np.rot90(image, quarters[flip]) if flip in quarters else np.flip(image, int(flip == "horizontal"))
    return np.ascontiguousarray(turned)
