"""Two cameras as one iterator of pairs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from ..calibration.file import Calibration
from ..registration import Registration, as_registration
from .events import Events
from .frame import Frame
from .handover import Ended, Handover
from .pair import SIDES, FramePair, Pairer
from .sources import Camera, open_device
from .sources.file import FileDevice
from .uri import Address, Given, as_address

__all__ = ["CameraPair", "begin_together", "make_cameras"]

#: Frames of a file that are decoded ahead.
AHEAD = 4
#: Longest wait before the clock is looked at again, in seconds.
TICK = 0.05


class CameraPair:
    """An infrared and a visible camera, paired; a context manager and an iterator of :class:`FramePair`.

    From files every pair is given, the same ones each time; from cameras the newest one, and what the caller was too
    slow for is dropped. If one of the two is live, so is the other: files are then played at their rate.

    Args:
        ir, vis: addresses as in ``pyldfusion stream --help``, parsed ones, paths, or numbers of USB cameras (0 is
            ``/dev/video0``).
        policy, max_skew, ir_delay, lost_after: as for :class:`Pairer`, times in seconds.
        alone: whether to give pairs of which one frame is None while its camera is lost.
        events: where to tell of what goes wrong.
        registration: how infrared lies on visible pictures, a ``Registration``, a calibration or the path of one: pairs
            then unpack as pictures of one view. Their frames stay as they came.

    Attributes:
        skipped: pairs of cameras that were left out because a newer one was there.

    Raises:
        InputError: an address, a policy or a calibration that cannot be.
        CameraError: a camera that cannot be opened.

    Example:
        >>> with CameraPair("ir.mp4", "vis.mp4") as pairs:
        ...     for ir, vis in pairs:
        ...         fused = fuser.fuse(ir, vis)
    """

    def __init__(
        self,
        ir: Given,
        vis: Given,
        *,
        policy: str = "hold",
        max_skew: float | None = None,
        ir_delay: float = 0.0,
        lost_after: float = 1.0,
        alone: bool = False,
        events: Events | None = None,
        registration: Registration | Calibration | str | Path | None = None,
    ) -> None:
        self.registration = as_registration(registration)
        self.events = events or Events()
        self._alone = alone
        self.cameras = make_cameras(ir, vis, self.events)
        self.live = any(camera.device.live for camera in self.cameras.values())
        self._lock = threading.Condition()
        self._queues = {name: Handover[Frame](AHEAD, wait=True) for name in SIDES}
        self._ended: set[str] = set()
        self._stopped = False
        Pairer(policy)  # an unknown policy is said before a camera is opened
        try:
            for camera in self.cameras.values():
                camera.open()
            self.rates = tuple(camera.device.rate for camera in self.cameras.values())
            self.pairer = Pairer(policy, max_skew, ir_delay, self.rates, self.live, lost_after)
        except BaseException:
            self.close()
            raise
        self._started = False
        self.skipped = 0

    def __enter__(self) -> CameraPair:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[FramePair]:
        if not self._started:
            self._started = True
            self.pairer.start(begin_together(self.cameras))
            for name, camera in self.cameras.items():
                camera.start(self._deliver(name), self._end(name))
        pairs = self._newest() if self.live else self._every()
        return pairs if self.registration is None else (replace(p, registration=self.registration) for p in pairs)

    def stop(self) -> None:
        """Make the iterator end; may be called from another thread or a signal handler."""
        self._stopped = True
        for camera in self.cameras.values():
            camera.stop()
        for queue in self._queues.values():
            queue.close(discard=True)

    def close(self) -> None:
        """Stop the cameras and give the devices back."""
        self.stop()
        for camera in self.cameras.values():
            camera.join()

    def stats(self) -> dict[str, Any]:
        """Counters of the cameras and of the pairing, as a new dict."""
        with self._lock:
            counts = self.pairer.counts()
        for name, camera in self.cameras.items():
            counts[name] |= {
                "bad": camera.bad, "lost": camera.lost, "returns": camera.returns, "clock": camera.clock,
                "size": camera.size,
            }  # fmt: skip
        return counts

    def _deliver(self, name: str) -> Any:
        if not self.live:
            return self._queues[name].put

        def deliver(frame: Frame) -> None:
            with self._lock:
                self.pairer.add(name, frame)
                self._lock.notify_all()

        return deliver

    def _end(self, name: str) -> Any:
        def end() -> None:
            with self._lock:
                self._ended.add(name)
                self._lock.notify_all()
            self._queues[name].close()

        return end

    def _newest(self) -> Iterator[FramePair]:
        """Pairs of live cameras."""
        while not self._stopped:
            with self._lock:
                for name in self._ended:
                    self.pairer.end(name)
                pairs = self.pairer.take(time.monotonic())
                if not self._alone:
                    pairs = [pair for pair in pairs if pair.skew is not None]
                if not pairs:
                    if self._ended:
                        return
                    self._lock.wait(TICK)
                    continue
            self.skipped += len(pairs) - 1
            yield pairs[-1]

    def _every(self) -> Iterator[FramePair]:
        """Pairs of files: frames are taken in the order of their times, so that threads do not matter."""
        ended: list[str] = []
        while len(ended) < 2 and not self._stopped:
            name = min((side for side in SIDES if side not in ended), key=self.pairer.last_time)
            try:
                frame = self._queues[name].get()
            except Ended:
                frame = None
                ended.append(name)
            with self._lock:  # stats() counts meanwhile
                if frame is None:
                    self.pairer.end(name)
                else:
                    self.pairer.add(name, frame)
                pairs = self.pairer.take()
            yield from pairs
            last, reach = self.pairer.last_time, self.pairer.reach
            if any(last(name) > last(gone) + reach(gone) for gone in ended):
                return


def make_cameras(ir: Given, vis: Given, events: Events) -> dict[str, Camera]:
    """``"ir"`` and ``"vis"``, not opened yet; if one of the two is live, a file is played at its rate. Raises
    InputError."""
    addresses = [as_address(given, "source") for given in (ir, vis)]
    devices = [open_device(address) for address in addresses]
    if any(device.live for device in devices):
        addresses = [_paced(address) for address in addresses]
        devices = [open_device(address) for address in addresses]
    return {
        name: Camera(name, device, events, address.options["flip"])
        for name, device, address in zip(SIDES, devices, addresses, strict=True)
    }


def begin_together(cameras: dict[str, Camera]) -> float:
    """Now is time 0 of files that are played at their rate; ``time.monotonic()``."""
    now = time.monotonic()
    for camera in cameras.values():
        if isinstance(camera.device, FileDevice):
            camera.device.begin(now)
    return now


def _paced(address: Address) -> Address:
    """The address of a source that comes in real time."""
    word = {"file": "pace", "scene": "live"}.get(address.scheme.name)
    return address if word is None else replace(address, options={**address.options, word: True})
