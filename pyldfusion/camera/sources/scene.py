"""The two views of a generated street as cameras, with the faults that real ones have, on purpose."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from functools import lru_cache
from typing import Any

import numpy as np

from ...errors import InputError
from ...scene import Scene
from ..uri import Address
from .base import Taken

__all__ = ["SceneDevice"]

#: Time 0 of every live scene in this process, so that both views show the same moment.
_EPOCH = time.monotonic()


#: Frames that one view may be ahead of the other with both drawn once; a pair of files is read ahead by 6.
KEPT = 8


class _Street:
    """A scene of which two devices show a view each: what was drawn for one is there for the other."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._scene = Scene(*args, **options)
        self._drawn: dict[float, Future[Any]] = {}
        self._lock = threading.Lock()

    def view(self, name: str, t: float) -> Any:
        """A view (``"ir"`` or ``"vis"``) of the moment ``t``; waits where it is being drawn already."""
        with self._lock:
            drawn = self._drawn.get(t)
            known = drawn is not None
            if drawn is None:
                drawn = self._drawn[t] = Future()
                if len(self._drawn) > KEPT:
                    del self._drawn[next(iter(self._drawn))]
        if not known:
            try:
                drawn.set_result(self._scene.render(t))
            except BaseException as error:
                drawn.set_exception(error)
        return getattr(drawn.result(), name)

    def forget(self) -> None:
        """Give the pictures back."""
        with self._lock:
            self._drawn.clear()


#: Drawing what stands still takes a second or more, and both views have it in common.
_street = lru_cache(maxsize=4)(_Street)


class SceneDevice:
    """One view of a scene. Exposure ``k`` is at ``k / rate`` and shows that moment.

    Live, a frame arrives ``lag`` and a random ``jitter`` after its exposure and has no time but its arrival's;
    otherwise its time is that sum. Jitter and drops follow from the seed.
    """

    def __init__(self, address: Address) -> None:
        options = address.options
        if options["bits"] not in (8, 16):
            raise InputError(f"{address}: bits is {options['bits']}; expected 8 or 16")
        self._view = address.target
        self._options = options
        self.live: bool = options["live"]
        self.rate: float = options["rate"]
        self._street: _Street | None = None
        self._drawn: dict[int, Any] = {}

    def open(self, stop: threading.Event) -> None:
        options = self._options
        noise = {} if options["noise"] is None else {f"{self._view}_noise": options["noise"]}
        size = options["width"], options["height"]
        self._street = _street(options["seed"], size, options["kind"], bits=options["bits"], **noise)
        for k in range(options["repeat"]):  # before the clock counts
            self._draw(k)
        self._stop = stop
        self._rng = np.random.default_rng([options["seed"], 0 if self._view == "ir" else 1])
        self._next: int | None = None

    def read(self) -> Taken | None:
        options, lost = self._options, 0
        if self._next is None:
            self._first = self._next = int((time.monotonic() - _EPOCH) * self.rate) + 1 if self.live else 0
        while True:
            k = self._next
            if options["frames"] and k - self._first >= options["frames"]:
                return None
            self._next += 1
            jitter, fate = self._rng.standard_normal(), self._rng.random()
            arrival = k / self.rate + (options["lag"] + options["jitter"] * jitter) / 1000
            late = self.live and time.monotonic() - _EPOCH > arrival + 1 / self.rate
            if fate >= options["drops"] and not late:
                break
            lost += 1
        image = self._draw(k)
        if not self.live:
            return Taken(image, arrival, lost)
        if self._stop.wait(max(0.0, arrival - (time.monotonic() - _EPOCH))):
            return None
        return Taken(image, None, lost)

    def close(self) -> None:
        self._drawn.clear()
        if self._street is not None:
            self._street.forget()

    def _draw(self, k: int) -> Any:
        assert self._street is not None
        repeat = self._options["repeat"]
        if not repeat:
            return self._street.view(self._view, k / self.rate)
        k %= repeat
        if k not in self._drawn:
            self._drawn[k] = self._street.view(self._view, k / self.rate)
        return self._drawn[k]
