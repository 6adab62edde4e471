"""Video4Linux as its header has it (linux/videodev2.h, 64-bit): requests, structures, and frames out of buffers."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .sources.base import BadFrame

__all__ = ["RAW_FORMATS", "Buffer", "PixelFormat", "decode", "fourcc"]

CAPTURE = 1  # V4L2_BUF_TYPE_VIDEO_CAPTURE
MMAP = 1  # V4L2_MEMORY_MMAP
CAP_VIDEO_CAPTURE, CAP_STREAMING, CAP_DEVICE_CAPS = 0x1, 0x04000000, 0x80000000
FLAG_ERROR = 0x40
FLAG_TIMESTAMP_MASK, FLAG_TIMESTAMP_MONOTONIC = 0xE000, 0x2000

#: Structures, by their names without v4l2_: size in bytes.
SIZES = {"capability": 104, "format": 208, "requestbuffers": 20, "buffer": 88, "streamparm": 204, "int": 4}


def _request(direction: int, number: int, kind: str) -> int:
    """_IOR (2), _IOW (1), _IOWR (3) of asm-generic/ioctl.h, type 'V'."""
    return direction << 30 | SIZES[kind] << 16 | ord("V") << 8 | number


QUERYCAP = _request(2, 0, "capability")
S_FMT = _request(3, 5, "format")
REQBUFS = _request(3, 8, "requestbuffers")
QUERYBUF = _request(3, 9, "buffer")
QBUF = _request(3, 15, "buffer")
DQBUF = _request(3, 17, "buffer")
STREAMON = _request(1, 18, "int")
S_PARM = _request(3, 22, "streamparm")

_FORMAT = struct.Struct("<I4x12I")  # v4l2_format: type, v4l2_pix_format
_BUFFER = struct.Struct("<5I4xqq16xIIQI12x")  # up to length, and what is reserved
_PARM = struct.Struct("<6I")  # v4l2_streamparm: type, capability, capturemode, timeperframe, extendedmode

#: Formats that are handed over as the camera sends them: channels and dtype.
RAW_FORMATS: dict[str, tuple[int, str]] = {
    "Y16": (1, "<u2"), "Y14": (1, "<u2"), "Y12": (1, "<u2"), "Y10": (1, "<u2"), "GREY": (1, "u1"), "YUYV": (2, "u1"),
    "UYVY": (2, "u1"), "MJPG": (0, "u1"),
}  # fmt: skip


class PixelFormat(NamedTuple):
    """What a device sends: pixels, four letters, bytes from row to row."""

    width: int
    height: int
    code: str
    stride: int

    def pack(self) -> bytearray:
        """As v4l2_format."""
        fields = (CAPTURE, self.width, self.height, fourcc(self.code), 1, self.stride, *[0] * 7)  # 1: progressive
        return bytearray(_FORMAT.pack(*fields).ljust(SIZES["format"], b"\0"))

    @classmethod
    def unpack(cls, data: bytes) -> PixelFormat:
        """Of v4l2_format."""
        _, width, height, code, _, stride, *_ = _FORMAT.unpack_from(data)
        return cls(width, height, code.to_bytes(4, "little").decode("latin-1").rstrip(), stride)


class Buffer(NamedTuple):
    """A v4l2_buffer: which one (its index), how much of it is filled, when, and where it lies."""

    slot: int
    used: int = 0
    flags: int = 0
    seconds: float = 0.0
    sequence: int = 0
    offset: int = 0
    length: int = 0

    def pack(self) -> bytearray:
        """As v4l2_buffer."""
        whole, part = divmod(round(self.seconds * 1e6), 1_000_000)
        fields = (
            self.slot,
            CAPTURE,
            self.used,
            self.flags,
            0,
            whole,
            part,
            self.sequence,
            MMAP,
            self.offset,
            self.length,
        )
        return bytearray(_BUFFER.pack(*fields).ljust(SIZES["buffer"], b"\0"))

    @classmethod
    def unpack(cls, data: bytes) -> Buffer:
        """Of v4l2_buffer."""
        slot, _, used, flags, _, whole, part, sequence, _, offset, length = _BUFFER.unpack_from(data)
        return cls(slot, used, flags, whole + part / 1e6, sequence, offset & 0xFFFFFFFF, length)

    @property
    def stamp(self) -> float | None:
        """Seconds on the monotonic clock, None where the driver uses another one."""
        return self.seconds if self.flags & FLAG_TIMESTAMP_MASK == FLAG_TIMESTAMP_MONOTONIC else None


def pack_rate(rate: float) -> bytearray:
    """A v4l2_streamparm that asks for so many frames a second."""
    return bytearray(_PARM.pack(CAPTURE, 0, 0, 1000, round(1000 * rate), 0).ljust(SIZES["streamparm"], b"\0"))


def unpack_rate(data: bytes) -> float | None:
    """Frames a second of a v4l2_streamparm, None where the device knows none."""
    _, _, _, part, whole, _ = _PARM.unpack_from(data)
    return whole / part if part and whole else None


def fourcc(code: str) -> int:
    """Four letters as a number. Raises InputError for more than four, or others than ASCII."""
    if not (1 <= len(code) <= 4 and code.isascii()):
        raise InputError(f"format is {code!r}; expected up to four letters such as Y16 or YUYV")
    return int.from_bytes(code.ljust(4).encode(), "little")


def decode(data: bytes, form: PixelFormat) -> NDArray[Any]:
    """A frame of a buffer's bytes.

    Returns:
        A new array: uint16 [H,W] of Y10 to Y16, uint8 [H,W] of GREY, uint8 [H,W,2] of YUYV and UYVY as they come, and
        uint8 BGR [H,W,3] of MJPG.

    Raises:
        BadFrame: too few bytes, or a JPEG that cannot be decoded.
    """
    channels, dtype = RAW_FORMATS[form.code]
    if channels == 0:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
        if picture is None:
            raise BadFrame(f"{len(data)} bytes are no JPEG picture")
        return np.asarray(picture)
    row = form.width * channels * np.dtype(dtype).itemsize
    stride = max(form.stride, row)
    if len(data) < stride * (form.height - 1) + row:
        raise BadFrame(
            f"{len(data)} bytes; a frame of {form.width}x{form.height} {form.code} has {stride * form.height}"
        )
    rows = np.lib.stride_tricks.as_strided(np.frombuffer(data, np.uint8), (form.height, row), (stride, 1))
    pixels = np.array(rows).view(dtype)
    if channels == 1:
        return np.asarray(pixels, pixels.dtype.newbyteorder("="))
    return pixels.reshape(form.height, form.width, channels)
