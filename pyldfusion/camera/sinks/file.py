"""Videos and pictures on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
from numpy.typing import NDArray

from ...errors import InputError
from ...media.outputs import PictureOutput, is_video, picture_pattern
from ...media.video import DEFAULT_RATE, VideoWriter
from ..disk import Disk
from ..uri import Address
from .base import Sink

if TYPE_CHECKING:
    from .h264 import H264Writer

__all__ = ["PicturesSink", "VideoSink", "open_file_sink"]

#: A pause longer than this many seconds is cut out of a video.
LONGEST_PAUSE = 5.0
#: A second, of H.264.
KILOBITS = 4000


def open_file_sink(address: Address, rate: float | None, live: bool) -> Sink:
    """A sink for a video or for pictures, by the suffix. Raises InputError."""
    asked, codec, kilobits = (address.options[name] for name in ("rate", "codec", "bitrate"))
    if kilobits and codec != "h264":
        raise InputError(f"{address}: bitrate is of codec=h264; the others take what the picture needs")
    if is_video(address.target):
        rate = asked or rate or DEFAULT_RATE
        if codec != "h264":
            return VideoSink(VideoWriter(address.target, rate), rate, live)
        from .h264 import H264Writer

        return VideoSink(H264Writer(address.target, rate, kilobits or KILOBITS), rate, live)
    for name in ("rate", "codec"):
        if address.options[name] not in (None, "auto"):
            raise InputError(f"{address}: {name} is for a video; pictures have none")
    return PicturesSink(address.target)


class PicturesSink(Sink):
    """One file a picture: ``img_%05d.png``, ``{index}`` in the name, or a directory."""

    def __init__(self, out: str) -> None:
        self._output = PictureOutput(picture_pattern(out, "{index:06d}"), ["fused"])
        self._index = 0

    def write(self, picture: NDArray[Any], time: float) -> None:
        self._output.write("", self._index, "fused", picture)
        self._index += 1


class VideoSink(Sink):
    """A video of a constant rate.

    Live, each place of the video has the latest picture of its time: gaps are filled by repeating, what comes faster
    than the rate is left out. Pictures of another size than the first are resized to it.
    """

    def __init__(self, writer: VideoWriter | H264Writer, rate: float, live: bool) -> None:
        self._writer, self._rate, self._live = writer, rate, live
        self._disk = Disk(writer.path)
        self._size: tuple[int, int] | None = None
        self._start = self._last_time = 0.0

    def write(self, picture: NDArray[Any], time: float) -> None:
        self._disk.check()
        if self._size is None:
            self._size = picture.shape[1], picture.shape[0]
            self._start = time
        elif (picture.shape[1], picture.shape[0]) != self._size:
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        for _ in range(self._places(time) if self._live else 1):
            self._writer.write(picture)

    def _places(self, time: float) -> int:
        """How many places of the video this picture takes."""
        if time - self._last_time > LONGEST_PAUSE and self._writer.frames:
            self._start = time - self._writer.frames / self._rate
        self._last_time = time
        return max(0, round((time - self._start) * self._rate) + 1 - self._writer.frames)

    def close(self) -> None:
        self._writer.close()
