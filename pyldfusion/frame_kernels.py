"""Everything around the network in two passes: a camera's frame to a plane, and the fused plane back to a frame.

CPU side; :mod:`pyldfusion.kernels` offers both. The arithmetic is single precision and the same, to the bit, as on a
GPU. In between lies what the network takes and gives: planes [H, W] of numbers in [0, 1].
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import DtypeError, InputError
from .native import _native, checked_dtype, same_place, thread_count

__all__ = ["FORMATS", "frame_to_plane", "plane_to_frame"]

#: Frames as arrays, by format. ``grey``: [H,W] or [H,W,1], ``bgr`` and ``rgb``: [H,W,3], all uint8 or uint16. ``nv12``:
#: uint8 [H*3/2,W], U and V of 2x2 pixels below Y as OpenCV has them, or both apart as (Y [H,W], UV [H/2,W/2,2]).
#: ``yuyv``: uint8 [H,W,2].
FORMATS = ("grey", "bgr", "rgb", "nv12", "yuyv")

Pixels = NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]

_CHANNELS = {"bgr": 3, "rgb": 3, "yuyv": 2}
_PLANES = (np.uint8, np.float16, np.float32)


def frame_to_plane(
    frame: Pixels,
    format: str = "bgr",
    *,
    size: tuple[int, int] | None = None,
    matrix: Any = None,
    border: str | float = "replicate",
    gain: Any = None,
    full_range: bool = False,
    dtype: Any = np.float32,
    mask: bool = False,
    out: NDArray[Any] | None = None,
    threads: int | None = None,
) -> Any:
    """A camera's frame as the network takes it: luma, resize or warp, and gain control, in one pass.

    Each pixel of the plane is read in the frame by bilinear interpolation (whole coordinates are pixel centres) of
    the luma ``0.114 B + 0.587 G + 0.299 R`` (ITU-R BT.601; the Y of ``nv12`` and ``yuyv``; the value of ``grey``),
    and the interpolated count is mapped to [0, 1] by the gain, clipped.

    Args:
        frame: the frame, see :data:`FORMATS`. Any strides.
        format: one of :data:`FORMATS`.
        size: (width, height) of the plane; None takes the frame's.
        matrix: 3x3, from pixels of the plane to pixels of the frame (the inverse of an infrared-to-visible
            homography); points with W <= 0 are outside. None resizes if ``size`` differs, as ``cv2.resize`` with
            ``INTER_LINEAR``: ``x_in = (x + 0.5) * width_in / width - 0.5``, no prefilter.
        border: what lies outside the frame: ``"replicate"``, or a count. Points with W <= 0 get the count, or 0.
        gain: ``(low, high)``, the counts that become 0 and 1 (high <= low reads as low + 1); or a table, float32 [256]
            for uint8 and [65536] for uint16, with the value of each count (after interpolation, nearest). None takes
            the whole range of the format.
        full_range: whether black and white of ``nv12`` and ``yuyv`` are 0 and 255 in place of 16 and 235.
        dtype: float32, float16 or uint8 (0..255, rounded to nearest, halves to even).
        mask: also return where the plane's pixels lie on the frame.
        out: where to write: [height, width] of one of these dtypes, any strides; allocated when None.
        threads: at most this many.

    Returns:
        The plane [height, width]; with ``mask`` a pair (plane, uint8 [height, width]: 255 on the frame's area, 0
        elsewhere).

    Raises:
        DtypeError: another element type.
        InputError: another shape, odd sides of ``nv12`` or an odd width of ``yuyv``, an empty frame, a matrix that is
            not 3x3 and finite, or another option that cannot be used, by name.
    """
    source = _frame("frame", frame, format)
    width, height = (source.width, source.height) if size is None else _size(size)
    if out is None:
        out = np.empty((height, width), _plane_dtype(dtype))
    else:
        check_out("out", out, (height, width), *_PLANES)
    _refuse_overlap(out, source)
    inside = np.empty((height, width), np.uint8) if mask else None
    constant = border != "replicate"
    try:
        border_value = float(border) if constant else 0.0
    except (TypeError, ValueError):
        raise InputError(f"border is {border!r}; expected 'replicate' or a count") from None
    low_high, table = _gain(gain, source, full_range)
    _call(
        _native.frame_to_plane,
        source.native, source.pixels, source.chroma, _matrix(matrix), constant, border_value, *low_high, table, out,
        inside, thread_count(threads),
    )  # fmt: skip
    return (out, inside) if mask else out


def plane_to_frame(
    fused: NDArray[Any],
    vis: Pixels,
    format: str = "bgr",
    *,
    to: str | None = None,
    full_range: bool = False,
    cover: NDArray[np.uint8] | None = None,
    out: Pixels | None = None,
    threads: int | None = None,
) -> Any:
    """The fused plane with the visible frame's colour, in one pass.

    The luma's change is added to B, G and R alike, so the chroma stays: ``round(c + (fused * top - luma))``, clipped,
    with top 255 or 65535; halves to even. From ``nv12`` and ``yuyv`` the channels are BT.601's, unclipped before the
    change. To ``nv12``: Y is the fused luma, U and V are kept (``nv12``), averaged over two rows (``yuyv``), or
    computed from the visible colour, averaged over 2x2 pixels.

    Args:
        fused: [H, W], float32 or float16 in [0, 1], or uint8; NaN reads as 0.
        vis: the visible frame of the same size, see :data:`FORMATS`.
        format: its format.
        to: the result's format, any but ``yuyv``; None takes ``format``. It is as deep as ``vis``; ``nv12`` is 8-bit.
        full_range: whether Y, U and V, in ``vis`` and in the result, use the full range in place of the video range.
        cover: uint8 [H, W], how much of the fused luma is taken: 255 all, 0 none (the visible frame stays). For
            frames that the infrared covers in part.
        out: where to write, may be ``vis`` itself if the formats agree; allocated when None. A row's pixels must be
            packed.
        threads: at most this many.

    Returns:
        The frame in the shape that :data:`FORMATS` gives for ``to``: ``out`` if it was given.

    Raises:
        DtypeError: another element type.
        InputError: another shape, sizes that differ, odd sides of ``nv12``, or formats that do not go together.
    """
    fused = np.asarray(fused)
    if fused.dtype not in _PLANES or fused.ndim != 2:
        raise (DtypeError if fused.dtype not in _PLANES else InputError)(
            f"fused is {fused.dtype} of shape {fused.shape}; expected float32, float16 or uint8 [H,W]"
        )
    source = _frame("vis", vis, format)
    to = format if to is None else to
    _check_format("to", to)
    if to == "yuyv":
        raise InputError("to is 'yuyv', which cannot be written; expected grey, bgr, rgb or nv12")
    if to == "nv12" and source.pixels.dtype != np.uint8:
        raise InputError("to is 'nv12', which has 8 bits, and vis is uint16; expected a uint8 vis")
    if fused.shape != (source.height, source.width):
        raise InputError(
            f"fused is {fused.shape[1]}x{fused.shape[0]} and vis is {source.width}x{source.height} (width x height); "
            "expected one size"
        )
    if cover is not None:
        cover = np.asarray(cover)
        if cover.dtype != np.uint8:
            raise DtypeError(f"cover is {cover.dtype}; expected uint8, 0 to 255")
        if cover.shape != fused.shape:
            raise InputError(f"cover has shape {cover.shape}; expected {fused.shape}, the size of fused")
        cover = cover if cover.strides[1] == 1 else np.ascontiguousarray(cover)
    if out is None:
        out = np.empty(_shape(to, source.height, source.width), source.pixels.dtype)
    target = _frame("out", out, to, written=True)
    if (target.height, target.width) != fused.shape or target.pixels.dtype != source.pixels.dtype:
        raise InputError(
            f"out is {target.pixels.dtype} {target.width}x{target.height}; expected {source.pixels.dtype} "
            f"{source.width}x{source.height}, as vis is"
        )
    in_place = to == format and _same_frame(source, target)
    _refuse_overlap(fused, target)
    if not in_place:
        for part in source.parts:
            _refuse_overlap(part, target)
    if cover is not None:
        _refuse_overlap(cover, target)
    _call(
        _native.plane_to_frame,
        fused, source.native, source.pixels, source.chroma, full_range, cover, target.native, target.pixels,
        target.chroma, thread_count(threads),
    )  # fmt: skip
    return out


class _Frame(NamedTuple):
    native: str  # csrc/frame.h's name of the format
    pixels: NDArray[Any]
    chroma: NDArray[Any] | None
    height: int
    width: int

    @property
    def parts(self) -> list[NDArray[Any]]:
        return [self.pixels] if self.chroma is None else [self.pixels, self.chroma]


def _check_format(name: str, format: str) -> None:
    if format not in FORMATS:
        raise InputError(f"{name} is {format!r}; expected one of {', '.join(FORMATS)}")


def _frame(name: str, frame: Pixels, format: str, written: bool = False) -> _Frame:
    """A frame as the native module takes it: pixels packed in their row, but for grey.

    Sources that are not are copied; frames to be written are refused.
    """
    _check_format("format" if name != "out" else "to", format)
    if format == "nv12":
        return _nv12(name, frame, written)
    pixels = _array(name, frame, written, *([np.uint8] if format == "yuyv" else [np.uint8, np.uint16]))
    channels = _CHANNELS.get(format, 1)
    if pixels.ndim == 2 and channels == 1:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] != channels:
        expected = "[H,W] or [H,W,1]" if channels == 1 else f"[H,W,{channels}]"
        raise InputError(f"{name} has shape {pixels.shape}; expected {expected} for {format!r}")
    if channels > 1 and pixels.shape[2] and pixels.strides[2] != pixels.itemsize:
        pixels = _repacked(name, pixels, written)
    if format == "yuyv" and pixels.strides[1] != 2:
        pixels = _repacked(name, pixels, written)
    height, width = pixels.shape[:2]
    _check_sides(name, format, height, width)
    depth = "16" if pixels.dtype == np.uint16 else "8"
    return _Frame(format if format == "yuyv" else format + depth, pixels, None, height, width)


def _nv12(name: str, frame: Pixels, written: bool) -> _Frame:
    if isinstance(frame, tuple):
        if len(frame) != 2:
            raise InputError(f"{name} is a tuple of {len(frame)}; expected (Y, UV) for 'nv12'")
        luma, chroma = (_array(name, part, written, np.uint8) for part in frame)
        if chroma.ndim == 3 and chroma.shape[2] == 2:
            pairs_packed = chroma.strides[2] == 1 and chroma.strides[1] == 2
            chroma = chroma if pairs_packed else _repacked(name, chroma, written)
            chroma = np.lib.stride_tricks.as_strided(
                chroma, (len(chroma), 2 * chroma.shape[1]), (chroma.strides[0], 1), writeable=written
            )
        if luma.ndim != 2 or chroma.ndim != 2 or chroma.shape != (luma.shape[0] // 2, luma.shape[1]):
            shapes = " and ".join(str(np.shape(part)) for part in frame)
            raise InputError(f"{name} has shapes {shapes}; expected Y [H,W] and UV [H/2,W/2,2] for 'nv12'")
    else:
        whole = _array(name, frame, written, np.uint8)
        if whole.ndim != 2 or len(whole) % 3:
            raise InputError(
                f"{name} has shape {whole.shape}; expected [H*3/2,W] for 'nv12', U and V below Y, or (Y, UV)"
            )
        height = len(whole) // 3 * 2
        luma, chroma = whole[:height], whole[height:]
    _check_sides(name, "nv12", *luma.shape)
    luma = luma if luma.strides[1] == 1 else _repacked(name, luma, written)
    chroma = chroma if chroma.strides[1] == 1 else _repacked(name, chroma, written)
    return _Frame("nv12", luma, chroma, *luma.shape)


def _check_sides(name: str, format: str, height: int, width: int) -> None:
    if not height or not width:
        raise InputError(f"{name} is empty: {width}x{height} (width x height); expected at least one pixel")
    if (format == "nv12" and (height % 2 or width % 2)) or (format == "yuyv" and width % 2):
        sides = "an even width and height" if format == "nv12" else "an even width"
        raise InputError(
            f"{name} is {width}x{height} (width x height); {format!r} needs {sides}, as pixels share chroma: crop it"
        )


def _array(name: str, value: Any, written: bool, *dtypes: type[np.generic]) -> NDArray[Any]:
    array = value if written else np.asarray(value)
    names = " or ".join(np.dtype(dtype).name for dtype in dtypes)
    if not isinstance(array, np.ndarray):
        raise DtypeError(f"{name} is a {type(array).__name__}; expected an array of {names} to write to")
    if not any(array.dtype == dtype for dtype in dtypes):
        raise DtypeError(f"{name} is {array.dtype}; expected {names}")
    if written and not array.flags.writeable:
        raise InputError(f"{name} is read-only; expected an array that can be written")
    return array


def _repacked(name: str, pixels: NDArray[Any], written: bool) -> NDArray[Any]:
    if written:
        raise InputError(f"{name} has strides {pixels.strides}; expected pixels that are packed in their row")
    return np.ascontiguousarray(pixels)


def check_out(name: str, out: Any, shape: tuple[int, ...], *dtypes: type[np.generic]) -> None:
    array = _array(name, out, True, *dtypes)
    if array.shape != shape:
        raise InputError(f"{name} has shape {array.shape}; expected {shape}")
    if not array.flags.aligned or any(stride % array.itemsize for stride in array.strides):
        raise InputError(f"{name} has strides {array.strides} that split elements; expected aligned ones")


def _shape(format: str, height: int, width: int) -> tuple[int, ...]:
    if format == "nv12":
        if height % 2 or width % 2:
            raise InputError(
                f"to is 'nv12' and vis is {width}x{height} (width x height); nv12 needs even sides: crop it"
            )
        return (height // 2 * 3, width)
    return (height, width) if format == "grey" else (height, width, 3)


def _same_frame(a: _Frame, b: _Frame) -> bool:
    return all(same_place(x, y) for x, y in zip(a.parts, b.parts, strict=True))


def _refuse_overlap(array: NDArray[Any], frame: _Frame) -> None:
    if any(np.may_share_memory(array, part) for part in frame.parts):
        raise InputError("out overlaps an input; expected memory of its own")


def _size(size: Any) -> tuple[int, int]:
    try:
        width, height = (side.__index__() for side in size)
    except (AttributeError, TypeError, ValueError):
        width = height = -1
    if width < 0 or height < 0:
        raise InputError(f"size is {size!r}; expected (width, height) in pixels")
    return width, height


def _plane_dtype(dtype: Any) -> np.dtype[Any]:
    return checked_dtype(dtype, *_PLANES)


def _matrix(matrix: Any) -> NDArray[np.float64] | None:
    if matrix is None:
        return None
    try:
        given = np.array(matrix, np.float64)
    except (TypeError, ValueError):
        given = np.empty(0)
    if given.shape != (3, 3) or not np.isfinite(given).all():
        shown = matrix.tolist() if isinstance(matrix, np.ndarray) else matrix
        raise InputError(f"matrix is {shown!r}; expected 3x3 finite numbers, from pixels of the plane to the frame's")
    return given


def _gain(gain: Any, frame: _Frame, full_range: bool) -> tuple[tuple[float, float], NDArray[np.float32] | None]:
    counts = 65536 if frame.pixels.dtype == np.uint16 else 256
    if gain is None:
        video = frame.native in ("nv12", "yuyv") and not full_range
        return ((16.0, 235.0) if video else (0.0, counts - 1.0)), None
    given = np.asarray(gain)
    if given.shape == (2,) and given.dtype.kind in "iuf" and np.isfinite(given).all():
        return (float(given[0]), float(given[1])), None
    if given.shape == (counts,):
        if given.dtype != np.float32:
            raise DtypeError(f"gain is a table of {given.dtype}; expected float32")
        return (0.0, 1.0), np.ascontiguousarray(given)
    raise InputError(
        f"gain has shape {given.shape}; expected two finite numbers (low, high), or a table of {counts} values for "
        f"{frame.pixels.dtype} frames"
    )


def _call(kernel: Any, *args: Any) -> None:
    try:
        kernel(*args)
    except ValueError as error:  # what csrc/frame_check.h refuses
        raise InputError(str(error)) from None
