"""Pairs as the cameras gave them, on disk without loss, and from there again: the same times, the same result.

A recording is a folder: ``ir.mkv`` and ``vis.mkv`` (FFV1; 16-bit grey stays 16-bit), each frame once, and
``pairs.jsonl``: a line a pair, with the places, kinds and times of its frames.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import CameraError, InputError, PyldfusionError
from ..media import atomic_path
from .disk import Disk
from .events import Events
from .frame import Frame
from .handover import Ended, Handover
from .pair import SIDES, FramePair

__all__ = ["Recorder", "Recording", "check_is_new", "recording_files"]

#: Pairs that may wait for the disk.
WAITING = 64
INDEX = "pairs.jsonl"


def recording_files(folder: str | Path) -> list[Path]:
    """The files that a recording in ``folder`` has, or would have."""
    return [Path(folder, name) for name in (INDEX, *(f"{side}.mkv" for side in SIDES))]


def check_is_new(folder: str | Path) -> None:
    """Raises InputError if there is a recording in ``folder``, or a part of one: a new one would replace it."""
    there = [path.name for path in recording_files(folder) if os.path.lexists(path)]
    if there:
        raise InputError(f"{folder} already holds a recording ({', '.join(there)}); choose another folder to record in")


class Recorder:
    """Records pairs in a thread of its own; a context manager.

    Live, pairs that the disk is too slow for are left out (:attr:`dropped`); from files it waits. A camera that is
    lost is recorded as lost. The folder's files get their names when they are finished.

    Args:
        folder: is made if it is not there; it must hold no recording.
        events: where to tell of a disk that is full, or a camera whose frames change, which end the recording.
        live: whether to leave pairs out rather than to wait.
        rates: frames a second of (ir, vis), None where unknown.

    Attributes:
        written: pairs.

    Raises:
        InputError: a folder that cannot be written to, or that holds a recording.
    """

    def __init__(
        self, folder: str | Path, events: Events, live: bool, rates: tuple[float | None, ...] = (None, None)
    ) -> None:
        check_is_new(folder)
        self._folder, self._events = Path(folder), events
        self._files = _Folder(self._folder, dict(zip(SIDES, rates, strict=True)))
        self.written = 0
        self.failed = False
        self._queue = Handover[FramePair](WAITING, wait=not live)
        self._thread = threading.Thread(target=self._run, name="pyldfusion-record", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Pairs that are missing because the disk was too slow."""
        return self._queue.dropped

    def put(self, pair: FramePair) -> None:
        """Record a pair."""
        self._queue.put(pair)

    def close(self) -> None:
        """Write what waits, and give the files their names."""
        self._queue.close()
        self._thread.join()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            with self._files as folder:
                while True:
                    try:
                        pair = self._queue.get()
                    except Ended:
                        return
                    assert pair is not None
                    try:
                        folder.write(pair)
                    except PyldfusionError as error:  # what is there gets finished
                        self._fail(error)
                        return
                    self.written += 1
        except (PyldfusionError, OSError) as error:
            self._fail(error)
        finally:
            self._queue.close(discard=True)

    def _fail(self, error: Exception) -> None:
        self.failed = True
        self._events.fail("recording ended", f"recording {self._folder}: {error}")


class _Folder:
    """The files of a recording while it is made."""

    def __init__(self, folder: Path, rates: dict[str, float | None]) -> None:
        self._disk = Disk(folder / INDEX)
        self._videos: dict[str, _Video] = {name: _Video(folder / f"{name}.mkv", rates[name]) for name in SIDES}
        with ExitStack() as stack:
            part = stack.enter_context(atomic_path(folder / INDEX))
            for video in self._videos.values():
                stack.enter_context(video)
            self._index = stack.enter_context(part.open("w", encoding="utf-8"))
            self._stack = stack.pop_all()

    def __enter__(self) -> _Folder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, pair: FramePair) -> None:
        self._disk.check()
        line: dict[str, Any] = {"skew": pair.skew, "held": pair.held}
        for name in SIDES:
            frame: Frame | None = getattr(pair, name)
            if frame is not None:
                place = self._videos[name].add(frame)
                line[name] = {
                    "frame": place, "kind": self._videos[name].kind, "time": frame.time, "clock": frame.clock,
                    "number": frame.number, "dropped": frame.dropped,
                }  # fmt: skip
        self._index.write(json.dumps(line) + "\n")


class _Video:
    """One camera's frames, each once."""

    def __init__(self, path: Path, rate: float | None) -> None:
        self._path, self._rate = path, rate or 25.0
        self.kind: list[Any] | None = None
        self._last: tuple[Frame, int] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> _Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.kind is not None:
            self._writer.release()
        self._stack.__exit__(kind, error, trace)

    def add(self, frame: Frame) -> int:
        """The place of a frame in the video, where it is written unless it is the last one again."""
        if self._last is not None and self._last[0] is frame:
            return self._last[1]
        picture = _storable(frame.image)
        kind = [str(picture.dtype), *picture.shape]
        if self.kind is None:
            self._start(picture)
            self.kind = kind
        elif kind != self.kind:
            raise InputError(f"{self._path}: frames are {kind} now, not {self.kind}; the recording ends")
        self._writer.write(_even(picture))
        self._last = frame, 0 if self._last is None else self._last[1] + 1
        return self._last[1]

    def _start(self, picture: NDArray[Any]) -> None:
        part = self._stack.enter_context(atomic_path(self._path))
        height, width = _even(picture).shape[:2]
        depth = cv2.CV_16U if picture.dtype == np.uint16 else cv2.CV_8U
        how = [cv2.VIDEOWRITER_PROP_DEPTH, depth, cv2.VIDEOWRITER_PROP_IS_COLOR, int(picture.ndim == 3)]
        codec = cv2.VideoWriter.fourcc(*"FFV1")
        self._writer = cv2.VideoWriter(str(part), cv2.CAP_FFMPEG, codec, self._rate, (width, height), how)
        if not self._writer.isOpened():
            raise CameraError(f"{self._path}: OpenCV cannot write FFV1 here; its FFmpeg is needed")


class Recording:
    """The pairs of a recording, in order; what :class:`CameraPair` is for cameras.

    Raises:
        InputError: no recording, or a damaged one.
    """

    live = False
    skipped = 0
    registration = None  # is not recorded: the frames are as they came

    def __init__(self, folder: str | Path, events: Events | None = None) -> None:
        self.events = events or Events()
        self._folder = Path(folder)
        self._stopped = False
        self._given = 0
        try:
            lines = (self._folder / INDEX).read_text("utf-8").splitlines()
            self._pairs = [json.loads(line) for line in lines]
        except OSError as error:
            raise InputError(f"{folder}: no recording ({INDEX}: {error.strerror}); --record makes one") from None
        except (ValueError, RecursionError):
            raise InputError(f"{folder}: {INDEX} is damaged") from None
        self.rates = tuple(_rate(self._folder / f"{name}.mkv") for name in SIDES)

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[FramePair]:
        readers = {name: _Reader(self._folder / f"{name}.mkv") for name in SIDES}
        try:
            for number, line in enumerate(self._pairs):
                if self._stopped:
                    return
                ir, vis = (readers[name].frame(line[name]) if name in line else None for name in SIDES)
                self._given += 1
                yield FramePair(ir, vis, line["skew"], line["held"], number)
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self._folder}: {INDEX} is damaged ({error})") from None
        finally:
            for reader in readers.values():
                reader.close()

    def stop(self) -> None:
        """Make the iterator end; from any thread."""
        self._stopped = True

    def close(self) -> None:
        """Stop."""
        self.stop()

    def stats(self) -> dict[str, Any]:
        """How many pairs there are and have been given."""
        return {"recorded": len(self._pairs), "given": self._given}


class _Reader:
    """Frames of a recorded video in rising order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._capture: cv2.VideoCapture | None = None
        self._place = -1
        self._frame: Frame | None = None

    def frame(self, line: dict[str, Any]) -> Frame:
        """The frame of a line of the index; the same object where it is the last one again."""
        dtype, *shape = line["kind"]
        while self._frame is None or self._place < line["frame"]:
            if self._capture is None:
                if not self._path.is_file():
                    raise InputError(f"{self._path}: no such file; the recording is damaged")
                self._capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
                if len(shape) == 2:
                    self._capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)  # which would make colours of 8 bits of it
            whole, picture = self._capture.read()
            if not whole:
                raise InputError(f"{self._path}: ends before frame {line['frame']}; the recording is damaged")
            self._place += 1
            picture = np.ascontiguousarray(picture[: shape[0], : shape[1]])
            if picture.shape != tuple(shape) or picture.dtype != dtype:
                raise InputError(f"{self._path}: {picture.dtype} {picture.shape}, not {line['kind']}; it is damaged")
            self._frame = Frame(
                picture, line["time"], line["clock"], time.monotonic(), line["number"], line["dropped"]
            )  # of the last one read, which is the one that is asked for
        if self._place != line["frame"]:
            raise InputError(f"{self._path}: frame {line['frame']} after frame {self._place}; the recording is damaged")
        return self._frame

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()


def _storable(image: NDArray[Any]) -> NDArray[Any]:
    """What a video can hold: pairs of bytes (a raw YUYV frame) as 16-bit words, which layouts take as well."""
    if image.ndim == 3 and image.shape[2] == 2:
        return np.ascontiguousarray(image).view("<u2")[..., 0]
    return image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image


def _even(picture: NDArray[Any]) -> NDArray[Any]:
    """The picture with its last row and column twice where their number is odd: OpenCV leaves the odd ones out."""
    height, width = picture.shape[:2]
    if height % 2 == width % 2 == 0:
        return picture
    return cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)


def _rate(path: Path) -> float | None:
    rate = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG).get(cv2.CAP_PROP_FPS) if path.exists() else 0.0
    return float(rate) if 0 < rate <= 1000 else None
