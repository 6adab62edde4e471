"""The only door to the native module: every kernel with its arguments checked.

All of them take any strides, run on up to ``threads`` threads (default: ``PYLDFUSION_THREADS``, else the CPUs this
process may use) without holding the GIL, and return freshly allocated C-contiguous arrays. Arguments are not
modified; they must not be written to by others during the call. What was wrong with an argument comes as
:class:`~pyldfusion.errors.InputError` or :class:`~pyldfusion.errors.DtypeError`.
"""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DtypeError, InputError
from .frame_kernels import FORMATS, frame_to_plane, plane_to_frame
from .native import _native, checked_array, packed, same_place, thread_count
from .pyramid import PyramidLook, pyramid, pyramid_workspace

__all__ = [
    "FORMATS",
    "PyramidLook",
    "adain",
    "add_luma",
    "cuda_compiled",
    "cuda_version",
    "entropy",
    "entropy_affine",
    "frame_to_plane",
    "histogram16",
    "percentiles16",
    "plane_to_frame",
    "pyramid",
    "pyramid_workspace",
    "scale16",
    "thread_count",
]

#: Whether this build has the CUDA kernels (:mod:`pyldfusion.cuda`), which takes a toolkit and no GPU.
cuda_compiled: bool = importlib.util.find_spec(f"{__package__}._cuda") is not None

_PIXELS = (np.uint8, np.float32, np.float64)


def entropy(
    pixels: NDArray[Any], boxes: NDArray[np.int32] | None = None, *, threads: int | None = None
) -> NDArray[np.float64]:
    """Shannon entropy of grey-level histograms, in bits (0 to 8): the patch filter of LDFusion (Eq. 17).

    ``entropy(patches)`` takes a batch, ``entropy(image, boxes)`` cuts the patches from one image without copying.

    The histogram has 256 equal bins on [0, 1], the last one closed: bin ``floor(256 * value)``, and 255 for 1. Values
    outside and NaN are not counted; a histogram with nothing in it has 0 bits. For uint8 the value is the bin, as it
    would be for ``value / 255``. Equal to ``numpy.histogram(patch, 256, (0, 1))`` and ``-sum(p * log2(p))``.

    Args:
        pixels: patches [N, H, W], or with boxes one image [H, W]; uint8, float32 or float64.
        boxes: int32 [N, 4] as x, y, width, height in pixels, inside the image.
        threads: at most this many.

    Returns:
        float64 [N].

    Raises:
        DtypeError: another element type.
        InputError: another shape, an empty patch or box, or a box that leaves the image (``boxes[i]`` is named).
    """
    if boxes is None:
        patches = checked_array("patches", pixels, ("N", "H", "W"), *_PIXELS)
        if len(patches) and not patches.size:
            raise InputError(f"patches are empty: shape {patches.shape}; height and width must be at least 1")
        return _native.entropy(patches, None, thread_count(threads))
    image = checked_array("image", pixels, ("H", "W"), *_PIXELS)
    return _native.entropy(image, checked_boxes(boxes, *image.shape), thread_count(threads))


def entropy_affine(
    planes: NDArray[np.float32],
    boxes: NDArray[np.int32],
    maps: NDArray[np.floating[Any]],
    size: int,
    *,
    threads: int | None = None,
) -> NDArray[np.float64]:
    """:func:`entropy` of square boxes cut from planes through affine maps, without storing the patches.

    The entropy of ``cut_patches(planes, ...)`` of ``trainer/patches.py``: box, map and resize are one bilinear
    lookup, 0 beyond the box, the box's own outermost pixels at its edge; pixels beside it are not looked at. Computed
    in float32. Where the map is the identity and the box as large as the patch, exactly the entropy of the box.

    Args:
        planes: float32 [P, H, W], in [0, 1].
        boxes: int32 [M, 3] as left, top and side in pixels, inside the planes.
        maps: float32 or float64 [M, 2, 3]: from a point (x, y, 1) of the patch to one of the box, both in pixels of
            the box from its centre.
        size: side of a patch, in pixels.
        threads: at most this many.

    Returns:
        float64 [M, P], in bits.

    Raises:
        DtypeError: another element type.
        InputError: other shapes, a box that leaves the planes (``boxes[i]`` is named), maps with NaN or infinity, a
            size that is not a whole number from 1.
    """
    planes = checked_array("planes", planes, ("P", "H", "W"), np.float32)
    checked, maps, size = checked_affine(boxes, maps, size, *planes.shape[1:])
    if not planes.flags.aligned or any(stride % planes.itemsize for stride in planes.strides):
        planes = planes.copy()
    return _native.entropy_affine(planes, checked, maps, size, thread_count(threads))


def adain(
    x: NDArray[np.float32],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    eps: float = 1e-5,
    *,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Adaptive instance normalisation (Huang & Belongie 2017): ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Mean and biased variance are taken over each plane in double precision and two passes, so a mean far above the
    spread does no harm. NaN or infinity spoil their own plane only.

    Args:
        x: float32 [N, C, H, W].
        weight: float32 [N, C], the style's deviations.
        bias: float32 [N, C], the style's means.
        eps: added to the variance; above 0.
        threads: at most this many.

    Returns:
        float32 [N, C, H, W].

    Raises:
        DtypeError: not float32.
        InputError: other shapes, planes without pixels, or an eps that is not a positive number.
    """
    x = checked_array("x", x, ("N", "C", "H", "W"), np.float32)
    weight = checked_array("weight", weight, ("N", "C"), np.float32)
    bias = checked_array("bias", bias, ("N", "C"), np.float32)
    for name, style in (("weight", weight), ("bias", bias)):
        if style.shape != x.shape[:2]:
            raise InputError(
                f"{name} has shape {style.shape}; expected {x.shape[:2]}, one number for each plane of x {x.shape}"
            )
    if x.shape[0] * x.shape[1] and not x.size:
        raise InputError(f"x has planes without pixels: shape {x.shape}; height and width must be at least 1")
    if not (eps > 0 and math.isfinite(eps)):
        raise InputError(f"eps is {eps}; expected a finite number above 0")
    if not x.flags.aligned or any(stride % x.itemsize for stride in x.strides):
        x = x.copy()
    return _native.adain(x, packed(weight), packed(bias), float(eps), thread_count(threads))


def histogram16(frame: NDArray[np.uint16]) -> NDArray[np.int64]:
    """How often each value occurs in a 16-bit frame: uint16 [H, W] -> int64 [65536].

    Raises:
        DtypeError, InputError: not uint16 [H, W].
    """
    return _native.histogram16(checked_array("frame", frame, ("H", "W"), np.uint16))


def percentiles16(frame: NDArray[np.uint16], low: float = 0.5, high: float = 99.5) -> tuple[float, float]:
    """Two percentiles of a 16-bit frame's counts, as ``numpy.percentile`` (linear) gives them, from one histogram.

    Args:
        frame: uint16 [H, W], at least one pixel.
        low: a percentage, 0..100.
        high: another.

    Returns:
        The counts below which that many percent of the pixels lie.

    Raises:
        DtypeError, InputError: not uint16 [H, W], an empty frame, or percentages outside 0..100.
    """
    frame = checked_array("frame", frame, ("H", "W"), np.uint16)
    if not frame.size:
        raise InputError(f"frame is empty: shape {frame.shape}; it has no percentiles")
    if not (0 <= low <= 100 and 0 <= high <= 100):
        raise InputError(f"the percentiles are {low} and {high}; expected numbers from 0 to 100")
    return _native.percentiles16(frame, float(low), float(high))


def scale16(frame: NDArray[np.uint16], lo: float, hi: float, *, threads: int | None = None) -> NDArray[np.uint8]:
    """Bring a 16-bit frame to 8 bits: ``lo`` and below become 0, ``hi`` and above 255, linear between.

    Nearest grey level, halves up: ``floor((frame - lo) * (255 / (hi - lo)) + 0.5)`` in double precision, clipped.
    With ``lo=0, hi=65535`` this is ``round(frame / 257)``.

    Args:
        frame: uint16 [H, W].
        lo: value that becomes 0; may lie outside the 16-bit range.
        hi: value that becomes 255; above ``lo``.
        threads: at most this many.

    Returns:
        uint8 [H, W].

    Raises:
        DtypeError, InputError: not uint16 [H, W], or not finite ``lo < hi``.
    """
    frame = checked_array("frame", frame, ("H", "W"), np.uint16)
    if not (math.isfinite(lo) and math.isfinite(hi) and lo < hi):
        raise InputError(f"lo is {lo} and hi is {hi}; expected finite numbers with lo below hi")
    return _native.scale16(frame, float(lo), float(hi), thread_count(threads))


def add_luma(
    vis: NDArray[Any],
    luma_delta: NDArray[np.int16],
    out: NDArray[Any] | None = None,
    *,
    threads: int | None = None,
) -> NDArray[Any]:
    """Add a luma difference to a frame deeper than 8 bits, in every channel, clipped to the frame's range.

    Adding one number to B, G and R changes the luma by it and leaves the chroma: how a fused luma, computed in 8
    bits, comes back into a frame of another depth.

    Args:
        vis: [H, W] or [H, W, 1 or 3], uint16, or float32/float64 in [0, 1].
        luma_delta: int16 [H, W], fused minus visible luma in 8-bit grey levels; counted times 257 for uint16 and
            over 255 for floats.
        out: where to write: C-contiguous, shape and dtype of ``vis``, may be ``vis``; allocated when None.
        threads: at most this many.

    Returns:
        ``out``, or a new array. Float NaN in ``vis`` becomes 0.

    Raises:
        DtypeError: another element type.
        InputError: another shape, or an ``out`` that does not fit.
    """
    vis = np.asarray(vis)
    axes = ("H", "W") if vis.ndim == 2 else ("H", "W", "channels")
    vis = checked_array("vis", vis, axes, np.uint16, np.float32, np.float64)
    if vis.ndim == 3 and vis.shape[2] not in (1, 3):
        raise InputError(f"vis has {vis.shape[2]} channels; expected [H,W], [H,W,1] or [H,W,3]")
    delta = checked_array("luma_delta", luma_delta, ("H", "W"), np.int16)
    if delta.shape != vis.shape[:2]:
        raise InputError(f"luma_delta has shape {delta.shape}; expected {vis.shape[:2]}, the size of vis")
    if out is None:
        out = np.empty(vis.shape, vis.dtype)
    elif not isinstance(out, np.ndarray) or out.dtype != vis.dtype:
        given = getattr(out, "dtype", type(out).__name__)
        raise DtypeError(f"out is {given}; expected an array of {vis.dtype}, like vis")
    elif out.shape != vis.shape or not out.flags.carray:
        raise InputError(
            f"out has shape {out.shape} and strides {out.strides}; expected a writable, aligned, C-contiguous array "
            f"of shape {vis.shape}"
        )
    elif np.may_share_memory(out, delta) or (np.may_share_memory(out, vis) and not same_place(out, vis)):
        raise InputError("out overlaps an input; expected memory of its own, or vis itself")
    _native.add_luma(packed(vis), packed(delta), out, thread_count(threads))
    return out


def cuda_version() -> str:
    """The CUDA toolkit that the CUDA kernels were compiled with, "" in a build without them."""
    if not cuda_compiled:
        return ""
    from . import _cuda

    return _cuda.version


def checked_affine(
    boxes: Any, maps: Any, size: Any, height: int, width: int
) -> tuple[NDArray[np.int32], NDArray[np.float32], int]:
    """Square boxes, maps and size of :func:`entropy_affine` for planes of ``height`` x ``width``, as private copies."""
    squares = checked_array("boxes", boxes, ("M", "3"), np.int32)
    if squares.shape[1] != 3:
        raise InputError(f"boxes have shape {squares.shape}; expected [M,3]: left, top, side")
    checked = checked_boxes(squares[:, [0, 1, 2, 2]], height, width)[:, :3]
    if checked[:, 2].max(initial=0) > 2**24:
        raise InputError(f"boxes are up to {checked[:, 2].max()} pixels wide; expected at most {2**24}")
    with np.errstate(over="ignore"):
        maps = checked_array("maps", maps, ("M", "2", "3"), np.float32, np.float64).astype(np.float32)
    if maps.shape != (len(checked), 2, 3):
        raise InputError(f"maps have shape {maps.shape}; expected {(len(checked), 2, 3)}, one for each box")
    if not np.isfinite(maps).all():
        raise InputError("maps hold NaN or infinity; expected finite numbers")
    if not hasattr(size, "__index__") or not 1 <= size <= 2**24:
        raise InputError(f"size is {size!r}; expected a whole number of pixels from 1 to {2**24}")
    return packed(checked), packed(maps), size.__index__()


def checked_boxes(boxes: Any, height: int, width: int) -> NDArray[np.int32]:
    """Boxes as a private copy, so that what was checked is what the kernel reads."""
    checked = checked_array("boxes", boxes, ("N", "4"), np.int32).copy()
    if checked.shape[1] != 4:
        raise InputError(f"boxes have shape {checked.shape}; expected [N,4]: x, y, width, height")
    x, y, w, h = checked.astype(np.int64).T
    bad = (x < 0) | (y < 0) | (w < 1) | (h < 1) | (x + w > width) | (y + h > height)
    if bad.any():
        i = int(bad.argmax())
        raise InputError(
            f"boxes[{i}] is x={x[i]} y={y[i]} width={w[i]} height={h[i]}; expected at least 1x1 pixels inside the "
            f"{width}x{height} image"
        )
    return checked
