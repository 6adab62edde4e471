"""The two views of a generated street as cameras, with the faults that real ones have, on purpose."""

from __future__ import annotations

import threading
import time
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


#: Drawing what stands still takes a second or more, and both views have it in common.
_scene = lru_cache(maxsize=4)(Scene)


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
        self._drawn: dict[int, Any] = {}

    def open(self, stop: threading.Event) -> None:
        options = self._options
        noise = {} if options["noise"] is None else {f"{self._view}_noise": options["noise"]}
        size = options["width"], options["height"]
        self._scene = _scene(options["seed"], size, options["kind"], bits=options["bits"], **noise)
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

    def _draw(self, k: int) -> Any:
        repeat = self._options["repeat"]
        if not repeat:
            return getattr(self._scene.render(k / self.rate), self._view)
        k %= repeat
        if k not in self._drawn:
            self._drawn[k] = getattr(self._scene.render(k / self.rate), self._view)
        return self._drawn[k]
