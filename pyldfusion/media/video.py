"""Videos and other streams of frames: read in order, written so that the finished file is whole."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .atomic import atomic_path
from .images import read_image, to_eight_bits

__all__ = ["VIDEO_CODECS", "VIDEO_SUFFIXES", "FrameStream", "ImageStream", "RawStream", "VideoReader", "VideoWriter"]

#: What is written for a suffix. Codecs that the OpenCV packages of the package indexes carry themselves.
VIDEO_CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".avi": "MJPG", ".mkv": "FFV1"}
VIDEO_SUFFIXES = (*VIDEO_CODECS, ".webm", ".mpg", ".mpeg", ".ts", ".m2ts", ".wmv", ".flv", ".ogv", ".3gp")

SPARE_BYTES = 1 << 16  # a disk with less was full while the last frames were written
DEFAULT_RATE = 25.0  # frames a second where nothing says another


class FrameStream(Protocol):
    """Frames in order, each uint8 or uint16, [H, W] or BGR [H, W, 3]."""

    @property
    def rate(self) -> float | None:
        """Frames a second, None if unknown."""

    @property
    def count(self) -> int | None:
        """Number of frames if it is known; for a video what its header says, which may be wrong."""

    def __iter__(self) -> Iterator[NDArray[Any]]: ...


class VideoReader:
    """The frames of a video file, uint8 BGR [H, W, 3], decoded by OpenCV; sound is left out.

    Raises InputError if OpenCV cannot decode it or if it has no frame.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"{path}: no such file")
        capture = self._open()
        whole, _ = capture.read()
        rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        capture.release()
        if not whole:
            raise InputError(f"{path}: OpenCV finds no frame in this video; is it damaged, or of a codec it lacks?")
        self.rate = float(rate) if 0 < rate < 1000 else None
        self.count = int(count) if 0 < count < 1e9 else None

    def __iter__(self) -> Iterator[NDArray[Any]]:
        capture = self._open()
        try:
            while True:
                whole, frame = capture.read()
                if not whole:
                    return
                yield frame
        finally:
            capture.release()

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            raise InputError(f"{self.path}: not a video that OpenCV can decode; expected for example an .mp4 file")
        return capture


class ImageStream:
    """Picture files as frames, in the order given."""

    rate = None

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self.count = len(self.paths)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return map(read_image, self.paths)  # which goes on after a file that cannot be read


class RawStream:
    """Raw Y16 frames (little-endian 16 bits, no headers) one after another in one file, as uint16 [H, W].

    `size` is (width, height). Raises InputError if the file does not hold a whole number of them.
    """

    rate = None

    def __init__(self, path: str | Path, size: tuple[int, int]) -> None:
        self.path, self.size = Path(path), size
        if not self.path.is_file():
            raise InputError(f"{path}: no such file")
        held, frame = self.path.stat().st_size, 2 * size[0] * size[1]
        if held == 0 or held % frame:
            raise InputError(
                f"{path}: {held} bytes are not a whole number of {size[0]}x{size[1]} frames of 16 bits "
                f"({frame} bytes each); check --raw-size, and that the file has no header"
            )
        self.count = held // frame

    def __iter__(self) -> Iterator[NDArray[Any]]:
        width, height = self.size
        with self.path.open("rb") as file:
            for _ in range(self.count):
                values = np.frombuffer(file.read(2 * width * height), "<u2")
                yield values.reshape(height, width).astype(np.uint16)


class VideoWriter:
    """Writes a video by the codec of its suffix, under a temporary name until it is closed; a context manager.

    Leaving the block finishes the file, also after Ctrl-C: what was written so far is a whole video. Without any
    frame nothing appears. Frames are uint8 or uint16 (the upper 8 bits are kept), grey or BGR, all of one size; an odd
    last column or row is lost, since codecs halve the colour's resolution.
    """

    def __init__(self, path: str | Path, rate: float | None = None) -> None:
        self.path, self.rate = Path(path), rate or DEFAULT_RATE
        self.size: tuple[int, int] | None = None
        self.frames = 0
        self._codec = VIDEO_CODECS.get(self.path.suffix.lower(), "")
        if not self._codec:
            known = " ".join(VIDEO_CODECS)
            raise InputError(f"{path}: cannot write {self.path.suffix or 'a video without suffix'}; use one of {known}")
        self._stack = ExitStack()

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, frame: NDArray[Any]) -> None:
        """Add a frame. Raises InputError if its size is not the first one's, or if the file cannot be written."""
        frame = to_eight_bits(frame)
        if frame.ndim == 2:
            frame = cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)
        size = frame.shape[1], frame.shape[0]
        if self.size is None:
            self._start(size)
        elif size != self.size:
            raise InputError(
                f"{self.path}: a frame of {size[0]}x{size[1]} in a video of {self.size[0]}x{self.size[1]}; "
                "write pictures instead, or make the sizes the same"
            )
        self._writer.write(frame)
        self.frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Finish the file and give it its name. Raises InputError if it did not get whole, as on a full disk."""
        with self._stack:
            if self.size is not None:
                self._writer.release()
                self.size = None
                self._check_whole()

    def _start(self, size: tuple[int, int]) -> None:
        with ExitStack() as stack:
            self._part = stack.enter_context(atomic_path(self.path))
            self._writer = cv2.VideoWriter(str(self._part), cv2.VideoWriter.fourcc(*self._codec), self.rate, size)
            if not self._writer.isOpened():
                raise InputError(
                    f"{self.path}: OpenCV cannot write {self._codec} video here; check the folder and its free space, "
                    "or write .avi or pictures"
                )
            self._stack = stack.pop_all()
        self.size = size
        if size[0] % 2 or size[1] % 2:
            whole = f"{size[0] // 2 * 2}x{size[1] // 2 * 2}"
            warnings.warn(
                f"{self.path}: of {size[0]}x{size[1]} the last column or row is left out, since codecs want even sides "
                f"({whole}); pictures keep all",
                stacklevel=3,
            )

    def _check_whole(self) -> None:
        """OpenCV reports no error while writing, so look at what is there: room on the disk, and frames."""
        if shutil.disk_usage(self._part.parent).free < SPARE_BYTES:
            raise InputError(f"{self.path}: the disk is full; free some space, or write elsewhere")
        try:
            held = VideoReader(self._part).count
        except InputError:
            held = 0
        if held is not None and held < self.frames - 1:  # some containers tell a duration, not a count
            raise InputError(f"{self.path}: only {held} of {self.frames} frames got into the video; write .avi instead")
