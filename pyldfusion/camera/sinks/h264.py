"""H.264 videos on disk through GStreamer: OpenCV's packages cannot encode it, nor be told a bit rate."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ...errors import InputError
from ...media import VideoReader, atomic_path, to_eight_bits
from .. import gst
from ..pipelines import file_pipeline
from .gstreamer import bgrx

__all__ = ["H264Writer"]

#: Seconds that the encoder and the file may take to finish.
PATIENCE = 60.0


class H264Writer:
    """Like ``media.video.VideoWriter``: a video of a constant rate, under a temporary name until it is closed.

    Args:
        kilobits: a second, at most about.

    Raises:
        InputError: a suffix other than .mp4, .m4v, .mov, .mkv. DependencyError: no GStreamer. CameraError: no encoder.
    """

    def __init__(self, path: str, rate: float, kilobits: int) -> None:
        gst.load()
        self.path, self.rate, self.frames = Path(path), rate, 0
        self._kilobits = kilobits
        file_pipeline(path, kilobits, gst.has_element)  # a wrong suffix is said before the first picture
        self._stack = ExitStack()
        self._pipeline: Any = None

    def write(self, frame: NDArray[Any]) -> None:
        """Add a frame, uint8 or uint16, [H,W] or BGR [H,W,3], of the first one's size. Raises InputError."""
        Gst = gst.load()
        frame = to_eight_bits(frame)
        frame = frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]  # colours have half the resolution
        if self._pipeline is None:
            self._start(frame.shape[1], frame.shape[0])
        buffer = Gst.Buffer.new_wrapped(bgrx(frame, (frame.shape[1], frame.shape[0])).tobytes())
        buffer.pts = round(self.frames * Gst.SECOND / self.rate)
        buffer.duration = round(Gst.SECOND / self.rate)
        if self._appsrc.emit("push-buffer", buffer) != Gst.FlowReturn.OK:
            self._check()
            raise InputError(f"{self.path}: the encoder takes no more frames")
        self._check()
        self.frames += 1

    def close(self) -> None:
        """Finish the file and give it its name. Raises InputError if it did not get whole, as on a full disk."""
        with self._stack:
            if self._pipeline is None:
                return
            Gst, pipeline = gst.load(), self._pipeline
            self._pipeline = None
            self._appsrc.emit("end-of-stream")
            kinds = Gst.MessageType.EOS | Gst.MessageType.ERROR
            message = pipeline.get_bus().timed_pop_filtered(round(PATIENCE * Gst.SECOND), kinds)
            pipeline.set_state(Gst.State.NULL)
            if message is None or message.type == Gst.MessageType.ERROR:
                text = "it takes too long" if message is None else message.parse_error()[0].message
                raise InputError(f"{self.path}: the video could not be finished: {text}")
            VideoReader(self._part)

    def _start(self, width: int, height: int) -> None:
        Gst = gst.load()
        self._part = self._stack.enter_context(atomic_path(self.path))
        self._pipeline = gst.launch(file_pipeline(str(self._part), self._kilobits, gst.has_element), str(self.path))
        self._appsrc = self._pipeline.get_by_name("pyldfusion")
        rate = f"{round(1000 * self.rate)}/1000"
        caps = f"video/x-raw,format=BGRx,width={width},height={height},framerate={rate}"
        self._appsrc.set_property("caps", Gst.Caps.from_string(caps))
        self._pipeline.set_state(Gst.State.PLAYING)

    def _check(self) -> None:
        kind, text = gst.message_of(self._pipeline)
        if kind == "error":
            self._pipeline.set_state(gst.load().State.NULL)
            self._pipeline = None
            with self._stack:  # what is there is no video
                raise InputError(f"{self.path}: {text}")
