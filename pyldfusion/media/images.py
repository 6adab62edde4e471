"""Still pictures from and to files, at the bit depth they have."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .atomic import atomic_path

__all__ = [
    "RAW_SUFFIXES",
    "READABLE_SUFFIXES",
    "WRITABLE_SUFFIXES",
    "grey_if_grey",
    "is_result",
    "read_image",
    "read_raw",
    "to_eight_bits",
    "write_image",
]

Image = NDArray[Any]

WRITABLE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".webp", ".pgm", ".ppm")
READABLE_SUFFIXES = (*WRITABLE_SUFFIXES, ".jp2", ".jpe", ".pnm", ".avif")
RAW_SUFFIXES = (".raw", ".y16", ".gray16", ".gray16le", ".bin", ".dat")
DEEP_SUFFIXES = (".png", ".tif", ".tiff", ".pgm", ".ppm")  # those that hold 16 bits

MARK = b"Software\0pyldfusion"  # a PNG text, or a JPEG comment: who wrote the picture

LARGEST_FILE = 1 << 30  # bytes; a camera frame is a thousand times smaller
SENSOR_SIZES = (  # widths and heights that thermal cameras have
    *[(80, 60), (160, 120), (206, 156), (256, 192), (320, 240), (320, 256), (336, 256), (384, 288)],
    *[(640, 480), (640, 512), (1024, 768), (1280, 1024)],
)


def read_image(path: str | Path, temperatures: bool = False) -> Image:
    """Read a picture: uint8 or uint16, [H, W] if the file is grey, [H, W, 3] in BGR order if it is in colour.

    With `temperatures`, grey floats and signed integers (radiometric TIFF) come as they are.

    An EXIF orientation is applied; an alpha channel is dropped, since cameras do not give it a meaning.
    Raises InputError for anything that is not a whole picture of 8 or 16 bits.
    """
    data = _read_bytes(Path(path))
    try:
        image = cv2.imdecode(data, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    except (cv2.error, MemoryError) as error:  # larger than OPENCV_IO_MAX_IMAGE_PIXELS or memory
        raise InputError(f"{path}: OpenCV cannot read this picture ({_reason(error)})") from error
    if image is None or _is_cut_off(data):
        raise InputError(
            f"{path}: not a whole picture that OpenCV can read ({data.size} bytes); "
            "expected a complete PNG, TIFF, JPEG, BMP, WebP or PGM file"
        )
    if image.dtype not in (np.uint8, np.uint16) and not (temperatures and image.ndim == 2):
        raise InputError(
            f"{path}: pixels of type {image.dtype}; expected unsigned integers of 8 or 16 bits; convert it, "
            "for example by scaling the temperatures of interest to 0..65535"
        )
    return image


def read_raw(path: str | Path, size: tuple[int, int]) -> NDArray[np.uint16]:
    """Read one raw Y16 frame (little-endian 16-bit values, row after row, no header) as uint16 [H, W].

    `size` is (width, height). Raises InputError when the file does not hold exactly that many values.
    """
    width, height = size
    data = _read_bytes(Path(path))
    if data.size != 2 * width * height:
        fits = " or ".join(f"{w}x{h}" for w, h in SENSOR_SIZES if 2 * w * h == data.size)
        hint = f"a size that fits is {fits}" if fits else "check the size, and that the file has no header"
        expected = f"{width}x{height} values of 16 bits take {2 * width * height}"
        raise InputError(f"{path}: {data.size} bytes, but {expected}; {hint}")
    return data.view("<u2").reshape(height, width).astype(np.uint16, copy=False)


def write_image(path: str | Path, image: Image, mark: bool = False) -> None:
    """Write `image`, uint8 or uint16, [H, W] or BGR [H, W, 3], in the format of the suffix, whole or not.

    16-bit pictures stay 16-bit in PNG, TIFF and PGM/PPM; other formats get their upper 8 bits. With
    `mark`, PNG and JPEG files say that pyldfusion wrote them, see `is_result`.
    Raises InputError for an unknown suffix, a picture the format cannot hold, a place one cannot write to.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in WRITABLE_SUFFIXES:
        known = " ".join(WRITABLE_SUFFIXES)
        raise InputError(f"{path}: the suffix {suffix!r} is not a picture format; use one of {known}")
    if suffix not in DEEP_SUFFIXES:
        image = to_eight_bits(image)
    try:
        ok, encoded = cv2.imencode(suffix, image)
    except cv2.error:
        ok = False
    if not ok:
        raise InputError(f"{path}: OpenCV cannot write an array of shape {image.shape} as {suffix}; use .png")
    with atomic_path(path) as part:
        part.write_bytes(_marked(encoded.tobytes()) if mark else encoded.tobytes())


def is_result(path: str | Path) -> bool:
    """Whether the file says that pyldfusion wrote it; only PNG and JPEG files can."""
    try:
        with Path(path).open("rb") as file:
            return MARK in file.read(128)  # the mark is the first thing after the header
    except OSError:
        return False


def to_eight_bits(image: Image) -> NDArray[np.uint8]:
    """A uint8 picture of the same shape; uint16 is divided by 257 and rounded, so white stays white."""
    if image.dtype == np.uint8:
        return image
    return np.asarray(cv2.convertScaleAbs(image, alpha=1 / 257))


def grey_if_grey(image: Image) -> Image:
    """One plane of a picture whose channels are equal, or so nearly that lossy coding did it; others as they are."""
    if image.ndim != 3:
        return image
    blue, green, red = (channel.astype(np.int32) for channel in cv2.split(image))
    if max(np.abs(blue - red).mean(), np.abs(blue - green).mean()) > 2:
        return image
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))


def _marked(data: bytes) -> bytes:
    """A PNG with a text chunk after its header, a JPEG with a comment after its first segment; others as they are."""
    if data.startswith(b"\x89PNG"):
        chunk, at = b"tEXt" + MARK, 33  # a signature of 8 bytes and the header of 25
        return data[:at] + struct.pack(">I", len(MARK)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[at:]
    if data.startswith(b"\xff\xd8\xff\xe0"):
        at = 4 + int(struct.unpack(">H", data[4:6])[0])
        return data[:at] + b"\xff\xfe" + struct.pack(">H", 2 + len(MARK)) + MARK + data[at:]
    return data


def _read_bytes(path: Path) -> NDArray[np.uint8]:
    """The bytes of a file; np.fromfile and not cv2.imread, which knows only some paths on some systems."""
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise InputError(f"{path}: a directory where a file was expected")
        if not path.is_file():
            raise InputError(f"{path}: not a regular file")
        if not 0 < size <= LARGEST_FILE:
            raise InputError(f"{path}: {size} bytes; expected a picture of 1 byte to 1 GiB")
        return np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _is_cut_off(data: NDArray[np.uint8]) -> bool:
    """Some OpenCV versions fill the rest of a truncated JPEG or PNG with grey, so look for the end mark."""
    tail = data[-65536:].tobytes()
    if data[:2].tobytes() == b"\xff\xd8":
        return b"\xff\xd9" not in tail
    return data[:4].tobytes() == b"\x89PNG" and b"IEND" not in tail


def _reason(error: Exception) -> str:
    return getattr(error, "err", "") or str(error).strip().splitlines()[0] if str(error) else "out of memory"
