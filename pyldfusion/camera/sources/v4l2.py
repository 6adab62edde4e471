"""Cameras whose frames are wanted as they are sent: 16-bit counts, which OpenCV would crush to 8 bits."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import select
import threading
import time

from ...errors import CameraError, InputError, did_you_mean
from .. import v4l2
from ..uri import Address
from .base import BadFrame, Taken

__all__ = ["V4L2Device"]

#: Buffers that the driver fills in turn.
BUFFERS = 4
#: Seconds of one wait for a frame, between looks at whether to stop.
SLICE = 0.1


class V4L2Device:
    """Streams from ``/dev/videoN`` through mapped buffers. Frames have the driver's time and number."""

    live = True

    def __init__(self, address: Address) -> None:
        options = address.options
        code = (options["format"] or "Y16").strip()
        if code not in v4l2.RAW_FORMATS:
            known = ", ".join(v4l2.RAW_FORMATS)
            raise InputError(
                f"{address}: raw format is {code!r}; expected {known}{did_you_mean(code, v4l2.RAW_FORMATS)}"
            )
        self._path, self._code = address.target, code
        self._asked = options["width"] or 0, options["height"] or 0
        self._timeout: float = options["timeout"]
        self.rate: float | None = options["rate"]
        self._file = -1
        self._maps: list[mmap.mmap] = []

    def open(self, stop: threading.Event) -> None:
        self.close()
        self._stop = stop
        self._sequence: int | None = None
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            self._check_kind()
            self._set_format()
            self._map_buffers()
            self._call(v4l2.STREAMON, bytearray(v4l2.CAPTURE.to_bytes(4, "little")))
        except OSError as error:
            self.close()
            hint = "another program has it" if error.errno == errno.EBUSY else os.strerror(error.errno or 0)
            raise CameraError(
                f"{self._path} cannot be opened: {hint}; `v4l2-ctl --list-devices` shows what there is"
            ) from None

    def read(self) -> Taken | None:
        until = time.monotonic() + self._timeout
        while not self._stop.is_set():
            if not select.select([self._file], [], [], SLICE)[0]:
                if time.monotonic() > until:
                    raise CameraError(f"{self._path}: no frame for {self._timeout:g} s")
                continue
            try:
                buffer = v4l2.Buffer.unpack(self._call(v4l2.DQBUF, v4l2.Buffer(0).pack()))
                data = self._maps[buffer.slot][: buffer.used]
                self._call(v4l2.QBUF, v4l2.Buffer(buffer.slot).pack())
            except BlockingIOError:
                continue
            except OSError as error:
                raise CameraError(f"{self._path}: {os.strerror(error.errno or 0)}") from None
            return self._taken(buffer, data)
        return None

    def close(self) -> None:
        for mapped in self._maps:
            mapped.close()
        self._maps = []
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)  # which ends the stream

    def _taken(self, buffer: v4l2.Buffer, data: bytes) -> Taken:
        lost = 0 if self._sequence is None else max(0, buffer.sequence - self._sequence - 1)
        self._sequence = buffer.sequence
        if buffer.flags & v4l2.FLAG_ERROR:
            raise BadFrame(f"{self._path}: the driver says that frame {buffer.sequence} is damaged")
        return Taken(v4l2.decode(data, self._form), buffer.stamp, lost)

    def _check_kind(self) -> None:
        answer = self._call(v4l2.QUERYCAP, bytearray(v4l2.SIZES["capability"]))
        all_, own = (int.from_bytes(answer[at : at + 4], "little") for at in (84, 88))
        caps = own if all_ & v4l2.CAP_DEVICE_CAPS else all_
        if not (caps & v4l2.CAP_VIDEO_CAPTURE and caps & v4l2.CAP_STREAMING):
            raise CameraError(f"{self._path} is no camera that streams; a camera often has several nodes, try the next")

    def _set_format(self) -> None:
        wanted = v4l2.PixelFormat(*self._asked, self._code, 0)
        self._form = v4l2.PixelFormat.unpack(self._call(v4l2.S_FMT, wanted.pack()))
        size = self._form.width, self._form.height
        if self._form.code != self._code or (all(self._asked) and size != self._asked):
            asked = f"{self._asked[0]}x{self._asked[1]} {self._code}" if all(self._asked) else self._code
            raise CameraError(
                f"{self._path} gives {size[0]}x{size[1]} {self._form.code}, not {asked}; "
                f"`v4l2-ctl -d {self._path} --list-formats-ext` shows what it has"
            )
        if self.rate is not None:
            self.rate = v4l2.unpack_rate(self._call(v4l2.S_PARM, v4l2.pack_rate(self.rate))) or self.rate

    def _map_buffers(self) -> None:
        request = BUFFERS.to_bytes(4, "little") + bytes((v4l2.CAPTURE, 0, 0, 0, v4l2.MMAP, 0, 0, 0)) + bytes(8)
        count = int.from_bytes(self._call(v4l2.REQBUFS, bytearray(request))[:4], "little")
        for index in range(count):
            buffer = v4l2.Buffer.unpack(self._call(v4l2.QUERYBUF, v4l2.Buffer(index).pack()))
            flags, access = mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE
            self._maps.append(mmap.mmap(self._file, buffer.length, flags, access, offset=buffer.offset))
            self._call(v4l2.QBUF, v4l2.Buffer(index).pack())

    def _call(self, request: int, data: bytearray) -> bytes:
        """An ioctl; what the driver wrote. Raises OSError."""
        fcntl.ioctl(self._file, request, data, True)
        return bytes(data)
