"""The CUDA kernels, for arrays that are in GPU memory already; the only door to the module ``_cuda``.

Arrays of torch, CuPy and whoever speaks DLPack or ``__cuda_array_interface__`` (version 3) are taken without a copy.
Results are :class:`DeviceArray`, which ``torch.from_dlpack`` and ``cupy.from_dlpack`` take without a copy, or go where
``out`` says.

Streams. Work is put on ``stream``: a stream of torch or CuPy, or a CUDA stream's handle as an int (0 and 1 are the
legacy default stream). With None it is the stream that the first array's library works on now: torch's current stream,
the one in ``__cuda_array_interface__``, a DeviceArray's own, else the legacy default stream. What a producer has put on
its own stream comes before. Functions return as soon as the work is on the stream; as with every library on GPUs, an
input may be freed or overwritten from then on only by work that comes later on that stream. A stream given as an int
must exist as long as the results.

All functions raise, besides what they say:
    DeviceError: no GPU, a build without CUDA, an array in CPU memory or on another GPU.
    DtypeError: another element type.
    InputError: another shape or layout, a read-only or overlapping ``out``, a pointer that is null or points to memory
        that was freed.
    CudaError: CUDA refused; the message has the kernel's name and CUDA's words.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import CudaError, DeviceError, DtypeError, InputError
from .kernels import checked_affine, checked_boxes

if TYPE_CHECKING:
    from ._cuda import DeviceArray

__all__ = [
    "DeviceArray",
    "adain",
    "adain_backward",
    "asarray",
    "available",
    "entropy",
    "entropy_affine",
    "frame_to_plane",
    "histogram16",
    "instance_norm",
    "percentiles16",
    "plane_to_frame",
    "sample_norm",
    "sample_norm_backward",
    "to_device",
    "to_host",
    "why_not",
]


def available() -> bool:
    """Whether this build has the CUDA kernels and this machine a GPU to run them."""
    return not why_not()


@functools.cache
def why_not() -> str:
    """Why :func:`available` is False, and what to do; "" when it is True."""
    try:
        from . import _cuda
    except ImportError as error:
        if getattr(error, "name", "") == f"{__package__}._cuda" or "cannot import name" in str(error):
            return (
                "this build of pyldfusion has no CUDA kernels: install it again with the CUDA toolkit's nvcc on PATH "
                "(PYLDFUSION_CUDA=1 makes sure)"
            )
        return f"the CUDA kernels cannot be loaded ({error}): build them again with `pip install .`"
    try:
        return "" if _cuda.device_count() else "no NVIDIA GPU was found"
    except CudaError as error:
        return f"no NVIDIA GPU can be used ({error}); see whether `nvidia-smi` works"


def __getattr__(name: str) -> Any:
    if name == "DeviceArray":  # late: a build without CUDA has none
        return _module().DeviceArray
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _module() -> Any:
    if reason := why_not():
        raise DeviceError(reason)
    from . import _cuda

    return _cuda


# arrays


def asarray(array: Any, *, stream: Any = None) -> DeviceArray:
    """``array`` of any library as a :class:`DeviceArray`, without a copy; it keeps the memory.

    Args:
        array: anything with ``__dlpack__`` or ``__cuda_array_interface__``.
        stream: where the result will be worked on.
    """
    made: DeviceArray = _module().import_array(array, stream)
    return made


def to_device(array: NDArray[Any], device: int = 0, *, stream: Any = None) -> DeviceArray:
    """A copy of a NumPy array in the memory of GPU number ``device``.

    uint8, uint16, uint32, int32, float16, float32 or float64. ``array`` may be changed as soon as this returns.
    """
    packed = np.asarray(array, order="C")
    if not packed.dtype.isnative:
        raise DtypeError(f"array is {packed.dtype}; expected the machine's byte order. Convert with .astype()")
    made: DeviceArray = _module().to_device(packed, packed.dtype.name, device, stream)
    return made


def to_host(array: Any, *, stream: Any = None) -> NDArray[Any]:
    """A copy of an array in GPU memory as a NumPy array, after the work on it. Waits for the stream.

    Raises:
        DtypeError: bfloat16, which NumPy has not.
        InputError: not in C order.
    """
    on_device = asarray(array, stream=stream)
    if on_device.dtype.startswith("bfloat"):
        raise DtypeError(f"array is {on_device.dtype}, which NumPy has not; convert it to float32 on the GPU first")
    host = np.empty(on_device.shape, on_device.dtype)
    _module().to_host(on_device, host, stream)
    return host


# norms


def adain(
    x: Any,
    weight: Any,
    bias: Any,
    eps: float = 1e-5,
    *,
    relu: bool = False,
    residual: Any = None,
    save: bool = False,
    out: Any = None,
    stream: Any = None,
) -> Any:
    """Adaptive instance normalisation (Huang & Belongie 2017): ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Mean and biased variance are each plane's own, computed in float32 with care for a mean far above the spread.

    Args:
        x: [N,C,H,W], float32, float16 or bfloat16; dense, in C order or channels-last.
        weight: float32 [N,C], the style's deviations; None: 1.
        bias: float32 [N,C], the style's means; None: 0.
        eps: added to the variance; above 0.
        relu: take ``max(y, 0)`` of the result.
        residual: like ``x``, added to the result; not together with ``relu``.
        save: also give what :func:`adain_backward` needs: float32 [N,C] each, the mean minus the plane's first value,
            and ``1 / sqrt(var + eps)``.
        out: where to write ``y``, or ``(y, offset, rstd)`` with ``save``: like ``x``, not ``x`` itself; ``y`` may be
            ``residual``.

    Returns:
        ``y`` like ``x``; with ``save`` a tuple ``(y, offset, rstd)``.
    """
    y, offset, rstd = out if save and out is not None else (out, None, None)
    return _module().adain(x, weight, bias, residual, eps, relu, save, y, offset, rstd, stream)


def instance_norm(x: Any, eps: float = 1e-5, **options: Any) -> Any:
    """Zero mean and unit biased variance in each plane: :func:`adain` without weight and bias, with its options."""
    return adain(x, None, None, eps, **options)


def adain_backward(
    grad_y: Any,
    x: Any,
    weight: Any,
    bias: Any,
    offset: Any,
    rstd: Any,
    *,
    relu: bool = False,
    out: Any = None,
    stream: Any = None,
) -> Any:
    """Gradients of :func:`adain`. (The gradient to ``residual`` is ``grad_y`` itself.)

    Args:
        grad_y: the loss's gradient to ``y``, like ``x`` in type and layout.
        x, weight, bias, relu: as they were given to :func:`adain`.
        offset, rstd: what it saved.
        out: where to write the results, a tuple of as many arrays.

    Returns:
        ``(grad_x, grad_weight, grad_bias)``, like ``x`` and float32 [N,C]; without a weight only ``grad_x``.
    """
    grad_x, grad_weight, grad_bias = _three(out) if weight is not None else (out, None, None)
    return _module().adain_backward(grad_y, x, weight, bias, relu, offset, rstd, grad_x, grad_weight, grad_bias, stream)


def sample_norm(
    x: Any,
    gamma: Any,
    beta: Any,
    eps: float = 1e-5,
    *,
    relu: bool = False,
    save: bool = False,
    out: Any = None,
    stream: Any = None,
) -> Any:
    """The decoder's LayerNorm: ``(x - mean) / (std + eps) * gamma + beta``, one mean and *unbiased* std a sample.

    Args:
        x: [N,C,H,W], float32, float16 or bfloat16; dense, in C order or channels-last.
        gamma, beta: float32 [C].
        eps: added to the deviation; above 0.
        relu: take ``max(y, 0)`` of the result.
        save: also give what :func:`sample_norm_backward` needs: float32 [N] each, the mean minus the sample's first
            value, and the deviation.
        out: where to write ``y``, or ``(y, offset, std)`` with ``save``; not ``x`` itself.

    Returns:
        ``y`` like ``x``; with ``save`` a tuple ``(y, offset, std)``. A sample of one value is NaN, as in torch.
    """
    y, offset, std = out if save and out is not None else (out, None, None)
    return _module().sample_norm(x, gamma, beta, eps, relu, save, y, offset, std, stream)


def sample_norm_backward(
    grad_y: Any,
    x: Any,
    gamma: Any,
    beta: Any,
    offset: Any,
    std: Any,
    eps: float = 1e-5,
    *,
    relu: bool = False,
    out: Any = None,
    stream: Any = None,
) -> Any:
    """Gradients of :func:`sample_norm`; arguments as there, ``offset`` and ``std`` as it saved them.

    Returns:
        ``(grad_x, grad_gamma, grad_beta)``: like ``x``, and float32 [C] summed over the samples.
    """
    return _module().sample_norm_backward(grad_y, x, gamma, beta, eps, relu, offset, std, *_three(out), stream)


def _three(out: Sequence[Any] | None) -> Sequence[Any]:
    return (None, None, None) if out is None else out


# entropy


def entropy(pixels: Any, boxes: Any = None, *, trust_boxes: bool = False, out: Any = None, stream: Any = None) -> Any:
    """Shannon entropy of grey-level histograms, in bits (0 to 8): the patch filter of LDFusion (Eq. 17).

    As :func:`pyldfusion.kernels.entropy`, with the same bins and counts.

    Args:
        pixels: patches [N,H,W], or with ``boxes`` one image [H,W]; uint8, float16, bfloat16, float32 or float64, any
            strides.
        boxes: int32 [N,4] as x, y, width, height in pixels, inside the image: a NumPy array (or list), which is
            checked, or with ``trust_boxes`` an array in GPU memory.
        trust_boxes: boxes in GPU memory are inside the image. They are not looked at: one that is not reads memory
            of others.
        out: float64 [N] to write to.

    Returns:
        float64 [N].
    """
    if boxes is None:
        return _module().entropy(pixels, None, 0, out, stream)
    rows: Any
    if trust_boxes:
        rows = asarray(boxes, stream=stream)
    else:
        image = asarray(pixels, stream=stream)
        if image.ndim != 2:
            raise InputError(f"image has shape {image.shape}; expected [H,W], as boxes are given")
        pixels, rows = image, checked_boxes(_host("boxes", boxes), *image.shape)
    return _module().entropy(pixels, rows, rows.shape[0], out, stream)


def entropy_affine(
    planes: Any,
    boxes: Any,
    maps: Any,
    size: int,
    *,
    trust_boxes: bool = False,
    out: Any = None,
    stream: Any = None,
) -> Any:
    """Entropy of square boxes cut from planes and resampled through an affine map, without storing the patches.

    Pixel (x, y) of a patch lies at ``((x + 1/2) side / size - side / 2, the same of y)`` from the centre of its box;
    its map leads from there to where it is looked up, also from the centre. Bilinear between pixel centres; 0 beyond
    the box; in the outermost half pixel the outermost pixel.

    Args:
        planes: [P,H,W], float32, float16 or bfloat16, any strides.
        boxes: int32 [M,3] as left, top, side, inside the planes; see :func:`entropy`.
        maps: float32 [M,2,3], finite: (x, y, 1) of the patch to x and y in the box; where ``boxes`` are.
        size: side of a patch in pixels.
        trust_boxes: see :func:`entropy`; also that ``maps`` are finite.
        out: float64 [M,P] to write to.

    Returns:
        float64 [M,P].
    """
    rows: Any
    affine: Any
    if trust_boxes:
        rows, affine = asarray(boxes, stream=stream), asarray(maps, stream=stream)
    else:
        planes = asarray(planes, stream=stream)
        if planes.ndim != 3:
            raise InputError(f"planes have shape {planes.shape}; expected [P,H,W]")
        host = _host("boxes", boxes), _host("maps", maps)
        rows, affine, size = checked_affine(*host, size, *planes.shape[1:])
    return _module().entropy_affine(planes, rows, affine, rows.shape[0], size, out, stream)


# frames


def frame_to_plane(
    frame: Any,
    format: str = "bgr",
    *,
    size: tuple[int, int] | None = None,
    matrix: Any = None,
    border: str | float = "replicate",
    gain: Any = None,
    full_range: bool = False,
    dtype: str = "float32",
    mask: bool = False,
    out: Any = None,
    stream: Any = None,
) -> Any:
    """A camera's frame as the network takes it: luma, resize or warp, and gain control, in one pass.

    :func:`pyldfusion.kernels.frame_to_plane` on the GPU, the same to the bit.

    Args:
        frame: [H,W] or [H,W,1] for ``grey``, [H,W,3] for ``bgr`` and ``rgb``, uint8 or uint16; uint8 [H*3/2,W] or a
            tuple (Y [H,W], UV [H/2,W/2,2]) for ``nv12``; uint8 [H,W,2] for ``yuyv``. Rows and pixels may have gaps
            (not those of ``nv12`` and ``yuyv``), channels may not.
        format: "grey", "bgr", "rgb", "nv12" or "yuyv".
        size: (width, height) of the plane; None takes the frame's, or that of ``out``.
        matrix: 3x3, from pixels of the plane to pixels of the frame; None resizes where the sizes differ.
        border: what lies outside the frame: "replicate", or a count.
        gain: ``(low, high)``, the counts that become 0 and 1; an array in GPU memory, float32 [2], with the same, such
            as :func:`percentiles16` gives; or a table float32 [256] (uint8) or [65536] (uint16), a NumPy array or one
            in GPU memory, with the value of each count. None takes the whole range of the format.
        full_range: whether black and white of ``nv12`` and ``yuyv`` are 0 and 255 in place of 16 and 235.
        dtype: "float32", "float16", "bfloat16" or "uint8" (0..255) of the plane.
        mask: also return where the plane's pixels lie on the frame.
        out: [height, width] of one of these types to write to, any strides.

    Returns:
        The plane [height, width]; with ``mask`` a pair (plane, uint8 [height, width]: 255 on the frame, 0 elsewhere).
    """
    shape: Any = None if size is None else _size(size)[::-1]
    if out is not None and size is None:
        shape = tuple(out.shape)
        if len(shape) != 2:
            raise InputError(f"out has shape {shape}; expected [height,width]")
    low_high, numbers = _gain(gain)
    constant = border != "replicate"
    try:
        border_value = float(border) if constant else 0.0
    except (TypeError, ValueError):
        raise InputError(f"border is {border!r}; expected 'replicate' or a count") from None
    return _module().frame_to_plane(
        frame, format, shape, _matrix(matrix), constant, border_value, low_high, numbers, full_range, dtype, mask, out,
        stream,
    )  # fmt: skip


def plane_to_frame(
    fused: Any,
    vis: Any,
    format: str = "bgr",
    *,
    to: str | None = None,
    full_range: bool = False,
    cover: Any = None,
    out: Any = None,
    stream: Any = None,
) -> Any:
    """The fused plane with the visible frame's colour, in one pass.

    :func:`pyldfusion.kernels.plane_to_frame` on the GPU, the same to the bit.

    Args:
        fused: [H,W], float32, float16 or bfloat16 in [0, 1], or uint8; any strides. NaN reads as 0.
        vis: the visible frame of the same size, see :func:`frame_to_plane`.
        format: its format.
        to: the result's format, any but "yuyv"; None takes ``format``. It is as deep as ``vis``; ``nv12`` is 8-bit.
        full_range: whether Y, U and V use the full range in place of the video range.
        cover: uint8 [H,W], how much of the fused luma is taken: 255 all, 0 none.
        out: a frame to write to, may be ``vis`` itself if the formats agree.

    Returns:
        The frame: ``out`` if it was given, else [H,W], [H,W,3] or, ``nv12``, [H*3/2,W].
    """
    return _module().plane_to_frame(fused, vis, format, to or format, full_range, cover, out, stream)


def histogram16(frame: Any, *, out: Any = None, stream: Any = None) -> Any:
    """How often each value occurs in a 16-bit frame: uint16 [H,W], any strides -> uint32 [65536]."""
    return _module().histogram16(frame, out, stream)


def percentiles16(frame: Any, low: float, high: float, *, out: Any = None, stream: Any = None) -> Any:
    """Two percentiles of a 16-bit frame as ``numpy.percentile`` (linear) has them, without leaving the GPU.

    Args:
        frame: uint16 [H,W] of at least one pixel, any strides.
        low, high: percentages, 0 to 100.
        out: float32 or float64 [2] to write to.

    Returns:
        ``out``, or float32 [2], which :func:`frame_to_plane` takes as its ``gain``.
    """
    return _module().percentiles16(frame, float(low), float(high), out, stream)


def _size(size: Any) -> tuple[int, int]:
    try:
        width, height = (side.__index__() for side in size)
    except (AttributeError, TypeError, ValueError):
        width = height = -1
    if width < 0 or height < 0:
        raise InputError(f"size is {size!r}; expected (width, height) in pixels")
    return width, height


def _matrix(matrix: Any) -> list[float] | None:
    if matrix is None:
        return None
    try:
        given = np.array(matrix, np.float64)
    except (TypeError, ValueError):
        given = np.empty(0)
    if given.shape != (3, 3) or not np.isfinite(given).all():
        raise InputError(f"matrix is {matrix!r}; expected 3x3 finite numbers, from pixels of the plane to the frame's")
    numbers: list[float] = given.ravel().tolist()
    return numbers


def _gain(gain: Any) -> tuple[tuple[float, float] | None, Any]:
    """(low, high) that are known here, or an array."""
    if isinstance(gain, np.ndarray) and gain.shape != (2,):
        return None, np.ascontiguousarray(gain)
    if not isinstance(gain, (tuple, list, np.ndarray)):
        return None, gain
    try:
        low, high = (float(count) for count in gain)
    except (TypeError, ValueError):
        low = high = float("nan")
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"gain is {gain!r}; expected two finite counts (low, high), or a table")
    return (low, high), None


def _host(name: str, value: Any) -> NDArray[Any]:
    if hasattr(value, "__cuda_array_interface__"):
        raise InputError(
            f"{name} is in GPU memory, where it cannot be checked without waiting; expected a NumPy array, or "
            "trust_boxes=True"
        )
    return np.asarray(value)
