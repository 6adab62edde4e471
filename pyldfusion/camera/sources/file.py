"""Videos, pictures and raw recordings as cameras."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ...errors import InputError
from ...media import FrameStream, open_stream
from ...media.images import RAW_SUFFIXES
from ...media.video import DEFAULT_RATE
from ..uri import Address
from .base import BadFrame, Taken

__all__ = ["FileDevice"]


class FileDevice:
    """The frames of files in order, each timed by the file's rate; see the table's options.

    With ``pace`` they come in real time, like those of a camera.
    """

    def __init__(self, address: Address) -> None:
        options = address.options
        self._text = address.target
        size = options["width"], options["height"]
        if (size[0] is None) != (size[1] is None):
            raise InputError(f"{address}: width without height, or height without width; a raw file needs both")
        self._raw_size: tuple[int, int] | None = None if size[0] is None else (size[0], size[1])
        self._asked: float | None = options["rate"]
        self._plays: int = options["loop"]
        self._pace: bool = options["pace"]
        self.live = self._pace
        self.rate: float | None = self._asked
        self._stream: FrameStream | None = None
        self._start: float | None = None

    def begin(self, now: float) -> None:
        """Time 0 of a paced file, on ``time.monotonic()``; without it, the first :meth:`read`."""
        self._start = now

    def open(self, stop: threading.Event) -> None:
        self._stop = stop
        path = Path(self._text)
        if self._raw_size is None and path.suffix.lower() in RAW_SUFFIXES and path.is_file():
            raise InputError(
                f"{path}: raw infrared has no size in the file; give it as '{path}#size=WIDTHxHEIGHT', or with "
                "--ir-width and --ir-height"
            )
        self._stream = open_stream(self._text, self._raw_size)
        self.rate = self._asked or self._stream.rate or DEFAULT_RATE
        self._frames: Iterator[NDArray[Any]] = iter(self._stream)
        self._left = self._plays - 1 if self._plays else -1
        self._index = self._in_this_play = 0
        self._start = None

    def read(self) -> Taken | None:
        assert self._stream is not None and self.rate is not None
        while True:
            try:
                image = next(self._frames)
                break
            except StopIteration:
                if self._left == 0 or self._in_this_play == 0:
                    return None
                self._left -= 1
                self._frames, self._in_this_play = iter(self._stream), 0
            except InputError as error:
                self._index += 1
                raise BadFrame(str(error)) from None
        stamp = self._index / self.rate
        self._index += 1
        self._in_this_play += 1
        if not self._pace:
            return Taken(image, stamp)
        if self._start is None:
            self._start = time.monotonic()
        late = time.monotonic() - self._start - stamp
        if self._stop.wait(max(0.0, -late)):
            return None
        return Taken(image, self._start + stamp)

    def close(self) -> None:
        if self._stream is not None:
            close = getattr(self._frames, "close", None)  # of a generator: gives the decoder back
            if close is not None:
                close()
            self._stream = None
