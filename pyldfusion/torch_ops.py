"""The norms and the patch entropy as custom operators of torch, ``torch.ops.pyldfusion.*``. Imports torch.

On CUDA they are the kernels of :mod:`pyldfusion.cuda`, on torch's current stream and without copies; on the CPU plain
torch computes the same. They know their gradients and their shapes, so autograd and ``torch.compile(fullgraph=True)``
take them. Under autocast they follow the type of ``x``: only the small per-channel inputs are cast, and statistics are
float32 for every 16-bit input (float64 for float64, which the CPU alone takes).

:func:`wants` says where the network uses them: on CUDA, in float32, float16 and bfloat16, when the kernels are there.
``use(False)`` or the environment variable ``PYLDFUSION_TORCH_OPS=0`` bring back plain torch everywhere, to compare.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import cuda, kernels
from .errors import DtypeError, InputError

__all__ = ["adain", "has_kernels", "patch_entropy", "patch_entropy_affine", "sample_norm", "use", "wants"]

_DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
_PIXELS = _DTYPES | {torch.float64: "float64", torch.uint8: "uint8"}
_NAMES = _PIXELS | {torch.int32: "int32"}
#: Kinds of devices whose tensors the network gives to the operators.
_DEVICES = {"cuda"}
_on = os.environ.get("PYLDFUSION_TORCH_OPS", "1") != "0"


class use:  # noqa: N801 - a switch in the manner of torch.set_grad_enabled
    """Turn the operators in the network on or off, for the whole process: as a call, or for the time of a ``with``.

    >>> with use(False):
    ...     plain = generator(ir, vis)
    """

    def __init__(self, on: bool) -> None:
        global _on
        self._before, _on = _on, on

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _on
        _on = self._before


def wants(x: Tensor) -> bool:
    """Whether the network uses these operators for ``x`` [N,C,H,W]; else, and in every export, it is plain torch."""
    return x.dtype in _DTYPES and has_kernels(x.device) and not _exporting()


def has_kernels(device: torch.device) -> bool:
    """Whether the CUDA kernels are there for tensors of ``device``, and not turned off."""
    return _on and device.type in _DEVICES and _kernels()


def _exporting() -> bool:
    if torch.compiler.is_compiling():
        return bool(getattr(torch.compiler, "is_exporting", bool)())  # not before torch 2.7
    return torch.jit.is_tracing()


@torch.compiler.assume_constant_result
def _kernels() -> bool:
    return cuda.available()


# the operators as functions


def adain(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float = 1e-5,
    relu: bool = False,
    residual: Tensor | None = None,
) -> Tensor:
    """Adaptive instance norm ``(x - mean) / sqrt(var + eps) * weight + bias``; instance norm without the last two.

    Args:
        x: [N,C,H,W], float32, float16 or bfloat16; on the CPU also float64. Dense tensors (C order, channels-last) are
            taken as they are, others are copied.
        weight, bias: [N,C], both or neither.
        relu: ``max(y, 0)`` of the result.
        residual: like ``x``, added to the result; not with ``relu``.

    Returns:
        Like ``x``, in its memory format. Differentiable once in every tensor.

    Raises:
        InputError: shapes that do not fit, or ``relu`` with ``residual``.
        DtypeError: another type of ``x``.
    """
    _check(x)
    if (weight is None) != (bias is None):
        raise InputError("adain got only one of weight and bias; expected both or neither")
    for name, style in (("weight", weight), ("bias", bias)):
        if style is not None and style.shape != x.shape[:2]:
            raise InputError(f"{name} has shape {list(style.shape)}; expected {list(x.shape[:2])}, one for each plane")
    if residual is not None and (relu or residual.shape != x.shape):
        raise InputError(f"residual has shape {list(residual.shape)}; expected {list(x.shape)}, and no relu")
    separate = residual is not None and residual.dtype != x.dtype  # torch's rules of promotion
    y: Tensor = torch.ops.pyldfusion.adain(
        x, _wide(weight, x), _wide(bias, x), None if separate else residual, float(eps), relu
    )[0]
    return residual + y if separate and residual is not None else y


def sample_norm(x: Tensor, gamma: Tensor, beta: Tensor, *, eps: float = 1e-5, relu: bool = False) -> Tensor:
    """The decoder's LayerNorm ``(x - mean) / (std + eps) * gamma + beta``, one mean and unbiased std for each sample.

    Args:
        x: [N,C,H,W], see :func:`adain`.
        gamma, beta: [C].
        relu: ``max(y, 0)`` of the result.

    Returns:
        Like ``x``, in its memory format. Differentiable once in every tensor.

    Raises:
        InputError, DtypeError: as :func:`adain`.
    """
    _check(x)
    for name, scale in (("gamma", gamma), ("beta", beta)):
        if scale.shape != x.shape[1:2]:
            raise InputError(
                f"{name} has shape {list(scale.shape)}; expected {list(x.shape[1:2])}, one for each channel"
            )
    y: Tensor = torch.ops.pyldfusion.sample_norm(x, _wide(gamma, x), _wide(beta, x), float(eps), relu)[0]
    return y


def patch_entropy(patches: Tensor) -> Tensor:
    """Entropy in bits of each patch's grey-level histogram; see :func:`pyldfusion.kernels.entropy`.

    Args:
        patches: [M,h,w], uint8, float16, bfloat16, float32 or float64, any strides.

    Returns:
        float64 [M] on the same device, without a gradient.

    Raises:
        InputError, DtypeError: another shape, an empty patch, another type.
    """
    if patches.dtype not in _PIXELS:
        raise DtypeError(f"patches are {patches.dtype}; expected uint8 or floating point")
    if patches.ndim != 3 or not patches.shape[1] * patches.shape[2]:
        raise InputError(f"patches have shape {list(patches.shape)}; expected [M,h,w] with pixels in them")
    bits: Tensor = torch.ops.pyldfusion.patch_entropy(patches.detach())
    return bits


def patch_entropy_affine(planes: Tensor, boxes: Tensor, maps: Tensor, size: int) -> Tensor:
    """Entropy in bits of square boxes cut from planes through affine maps, without storing the patches.

    See :func:`pyldfusion.kernels.entropy_affine`. On a GPU the numbers in ``boxes`` and ``maps`` are not looked at,
    which would mean waiting for it: a box that leaves the planes reads memory of others.

    Args:
        planes: [P,H,W], float16, bfloat16 or float32, any strides; on the CPU also float64, counted as float32.
        boxes: int32 [M,3] as left, top, side, inside the planes, on the planes' device.
        maps: float32 [M,2,3], finite, likewise: (x, y, 1) of the patch to x and y in the box, from their centres.
        size: side of a patch in pixels.

    Returns:
        float64 [M,P] on the same device, without a gradient.

    Raises:
        InputError, DtypeError: another shape or device, another type.
    """
    if planes.dtype not in _DTYPES and planes.dtype != torch.float64:
        raise DtypeError(f"planes are {planes.dtype}; expected float16, bfloat16 or float32")
    if planes.ndim != 3:
        raise InputError(f"planes have shape {list(planes.shape)}; expected [P,H,W]")
    for name, given, shape, dtype in (
        ("boxes", boxes, (len(boxes), 3), torch.int32),
        ("maps", maps, (len(boxes), 2, 3), torch.float32),
    ):
        if given.dtype != dtype:
            raise DtypeError(f"{name} are {given.dtype}; expected {dtype}")
        if given.shape != shape or given.device != planes.device:
            raise InputError(
                f"{name} have shape {list(given.shape)} on {given.device}; expected {list(shape)} on {planes.device}"
            )
    bits: Tensor = torch.ops.pyldfusion.patch_entropy_affine(planes.detach(), boxes, maps, size)
    return bits


def _check(x: Tensor) -> None:
    if x.dtype not in _DTYPES and x.dtype != torch.float64:
        raise DtypeError(f"x is {x.dtype}; expected float32, float16, bfloat16 or, on the CPU, float64")
    if x.ndim != 4:
        raise InputError(f"x has shape {list(x.shape)}; expected [N,C,H,W]")


def _statistics(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _wide(scale: Tensor | None, x: Tensor) -> Tensor | None:
    return None if scale is None else scale.to(_statistics(x))


def _format(x: Tensor) -> torch.memory_format:
    """The memory format of results: of ``x`` if it is dense, else C order."""
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _plane(values: Tensor) -> Tensor:
    """[N,C] as [N,C,1,1]."""
    return values[:, :, None, None]


# What the operators compute. `offset` is a mean minus the first value of what it is the mean of: a float mean far above
# the spread would lose the spread's digits. Gradients that nobody can ask for are empty.


# on the CPU


def _adain_cpu(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None, eps: float, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    shifted = x.to(_statistics(x))
    shifted = shifted - shifted[:, :, :1, :1]
    offset = shifted.mean((2, 3))
    centred = shifted - _plane(offset)
    rstd = (centred.square().mean((2, 3)) + eps).rsqrt()
    y = centred * _plane(rstd)
    if weight is not None and bias is not None:
        y = y * _plane(weight) + _plane(bias)
    if relu:
        y = F.relu(y)
    if residual is not None:
        y = y + residual
    return y.to(x.dtype).contiguous(memory_format=_format(x)), offset, rstd


def _adain_backward_cpu(
    grad_y: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, offset: Tensor, rstd: Tensor, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    wide = x.to(_statistics(x))
    normed = (wide - wide[:, :, :1, :1] - _plane(offset)) * _plane(rstd)
    g = grad_y.to(wide.dtype)
    if relu:
        y = normed if weight is None or bias is None else normed * _plane(weight) + _plane(bias)
        g = torch.where(y <= 0, 0, g)
    scale = rstd if weight is None else rstd * weight
    mean_g, mean_gx = g.mean((2, 3), keepdim=True), (g * normed).mean((2, 3), keepdim=True)
    grad_x = (_plane(scale) * (g - mean_g - normed * mean_gx)).to(x.dtype).contiguous(memory_format=_format(x))
    if weight is None:
        return grad_x, offset.new_empty(0), offset.new_empty(0)
    return grad_x, (g * normed).sum((2, 3)), g.sum((2, 3))


def _sample_norm_cpu(x: Tensor, gamma: Tensor, beta: Tensor, eps: float, relu: bool) -> tuple[Tensor, Tensor, Tensor]:
    shifted = x.to(_statistics(x))
    shifted = shifted - shifted[:, :1, :1, :1]
    offset = shifted.mean((1, 2, 3))
    centred = shifted - offset[:, None, None, None]
    std = (centred.square().sum((1, 2, 3)) / (centred[0].numel() - 1 if len(x) else 1)).sqrt()
    y = centred / (std + eps)[:, None, None, None] * _plane(gamma[None]) + _plane(beta[None])
    if relu:
        y = F.relu(y)
    return y.to(x.dtype).contiguous(memory_format=_format(x)), offset, std


def _sample_norm_backward_cpu(
    grad_y: Tensor, x: Tensor, gamma: Tensor, beta: Tensor, offset: Tensor, std: Tensor, eps: float, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    wide = x.to(_statistics(x))
    divisor, std = (std + eps)[:, None, None, None], std[:, None, None, None]
    normed = (wide - wide[:, :1, :1, :1] - offset[:, None, None, None]) / divisor
    g = grad_y.to(wide.dtype)
    if relu:
        g = torch.where(normed * _plane(gamma[None]) + _plane(beta[None]) <= 0, 0, g)
    h = g * _plane(gamma[None])
    spread = (h * normed).sum((1, 2, 3), keepdim=True) * divisor / (std * (x[0].numel() - 1 if len(x) else 1))
    grad_x = (h - h.mean((1, 2, 3), keepdim=True) - normed * torch.where(std == 0, 0, spread)) / divisor
    grad_x = grad_x.to(x.dtype).contiguous(memory_format=_format(x))
    return grad_x, (g * normed).sum((0, 2, 3)), g.sum((0, 2, 3))


def _patch_entropy_cpu(patches: Tensor) -> Tensor:
    if patches.is_floating_point():
        patches = patches.to(torch.promote_types(patches.dtype, torch.float32))
    return torch.from_numpy(kernels.entropy(patches.numpy(), threads=torch.get_num_threads()))


def _patch_entropy_affine_cpu(planes: Tensor, boxes: Tensor, maps: Tensor, size: int) -> Tensor:
    threads = torch.get_num_threads()
    bits = kernels.entropy_affine(planes.float().numpy(), boxes.numpy(), maps.numpy(), size, threads=threads)
    return torch.from_numpy(bits)


# on a GPU


def _array(tensor: Tensor | None) -> Any:
    """A tensor as the kernels take it: its memory, and no order of work but the stream's that is passed along."""
    if tensor is None:
        return None
    dtype, device = _NAMES[tensor.dtype], tensor.device.index or 0
    return cuda.DeviceArray(tensor.data_ptr(), dtype, tuple(tensor.shape), tensor.stride(), device, trusted=True)


def _stream(tensor: Tensor) -> int | None:
    return torch.cuda.current_stream(tensor.device).cuda_stream if tensor.is_cuda else None


def _adain_cuda(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None, eps: float, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    dense = _format(x)
    x, residual = x.contiguous(memory_format=dense), _as(residual, dense)
    weight, bias = _as(weight), _as(bias)
    results = _adain_fake(x, weight, bias, residual, eps, relu)
    out = tuple(map(_array, results))
    cuda.adain(
        _array(x), _array(weight), _array(bias), eps,
        relu=relu, residual=_array(residual), save=True, out=out, stream=_stream(x),
    )  # fmt: skip
    return results


def _adain_backward_cuda(
    grad_y: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, offset: Tensor, rstd: Tensor, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    dense = _format(x)
    x, grad_y = x.contiguous(memory_format=dense), grad_y.contiguous(memory_format=dense)
    weight, bias = _as(weight), _as(bias)
    results = _adain_backward_fake(grad_y, x, weight, bias, offset, rstd, relu)
    out = _array(results[0]) if weight is None else tuple(map(_array, results))
    cuda.adain_backward(
        _array(grad_y), _array(x), _array(weight), _array(bias), _array(offset), _array(rstd),
        relu=relu, out=out, stream=_stream(x),
    )  # fmt: skip
    return results


def _sample_norm_cuda(x: Tensor, gamma: Tensor, beta: Tensor, eps: float, relu: bool) -> tuple[Tensor, Tensor, Tensor]:
    x, gamma, beta = x.contiguous(memory_format=_format(x)), gamma.contiguous(), beta.contiguous()
    results = _sample_norm_fake(x, gamma, beta, eps, relu)
    out = tuple(map(_array, results))
    cuda.sample_norm(_array(x), _array(gamma), _array(beta), eps, relu=relu, save=True, out=out, stream=_stream(x))
    return results


def _sample_norm_backward_cuda(
    grad_y: Tensor, x: Tensor, gamma: Tensor, beta: Tensor, offset: Tensor, std: Tensor, eps: float, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    dense = _format(x)
    x, grad_y = x.contiguous(memory_format=dense), grad_y.contiguous(memory_format=dense)
    gamma, beta = gamma.contiguous(), beta.contiguous()
    results = _sample_norm_backward_fake(grad_y, x, gamma, beta, offset, std, eps, relu)
    cuda.sample_norm_backward(
        _array(grad_y), _array(x), _array(gamma), _array(beta), _array(offset), _array(std), eps,
        relu=relu, out=tuple(map(_array, results)), stream=_stream(x),
    )  # fmt: skip
    return results


def _patch_entropy_cuda(patches: Tensor) -> Tensor:
    bits = _patch_entropy_fake(patches)
    cuda.entropy(_array(patches), out=_array(bits), stream=_stream(patches))
    return bits


def _patch_entropy_affine_cuda(planes: Tensor, boxes: Tensor, maps: Tensor, size: int) -> Tensor:
    boxes, maps = boxes.contiguous(), maps.contiguous()
    bits = _patch_entropy_affine_fake(planes, boxes, maps, size)
    cuda.entropy_affine(
        _array(planes), _array(boxes), _array(maps), size,
        trust_boxes=True, out=_array(bits), stream=_stream(planes),
    )  # fmt: skip
    return bits


def _as(tensor: Tensor | None, dense: torch.memory_format = torch.contiguous_format) -> Tensor | None:
    return None if tensor is None else tensor.contiguous(memory_format=dense)


# shapes, for torch.compile; also where the results on a GPU go


def _adain_fake(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None, eps: float, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    y = torch.empty_like(x, memory_format=_format(x))
    return y, x.new_empty(x.shape[:2], dtype=_statistics(x)), x.new_empty(x.shape[:2], dtype=_statistics(x))


def _adain_backward_fake(
    grad_y: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, offset: Tensor, rstd: Tensor, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (0,) if weight is None else offset.shape
    return torch.empty_like(x, memory_format=_format(x)), offset.new_empty(shape), offset.new_empty(shape)


def _sample_norm_fake(x: Tensor, gamma: Tensor, beta: Tensor, eps: float, relu: bool) -> tuple[Tensor, Tensor, Tensor]:
    y = torch.empty_like(x, memory_format=_format(x))
    return y, x.new_empty(x.shape[:1], dtype=_statistics(x)), x.new_empty(x.shape[:1], dtype=_statistics(x))


def _sample_norm_backward_fake(
    grad_y: Tensor, x: Tensor, gamma: Tensor, beta: Tensor, offset: Tensor, std: Tensor, eps: float, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x, memory_format=_format(x)), torch.empty_like(gamma), torch.empty_like(gamma)


def _patch_entropy_fake(patches: Tensor) -> Tensor:
    return patches.new_empty(patches.shape[:1], dtype=torch.float64)


def _patch_entropy_affine_fake(planes: Tensor, boxes: Tensor, maps: Tensor, size: int) -> Tensor:
    return planes.new_empty((boxes.shape[0], planes.shape[0]), dtype=torch.float64)


# gradients


def _adain_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, _, _, ctx.relu = inputs
    ctx.save_for_backward(x, weight, bias, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _adain_gradients(ctx: Any, grad_y: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, offset, rstd = ctx.saved_tensors
    grads = torch.ops.pyldfusion.adain_backward(grad_y, x, weight, bias, offset, rstd, ctx.relu)
    to_style = grads[1:] if weight is not None else (None, None)
    return grads[0], *to_style, grad_y if ctx.needs_input_grad[3] else None, None, None


def _sample_norm_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, gamma, beta, ctx.eps, ctx.relu = inputs
    ctx.save_for_backward(x, gamma, beta, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _sample_norm_gradients(ctx: Any, grad_y: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    x, gamma, beta, offset, std = ctx.saved_tensors
    grads = torch.ops.pyldfusion.sample_norm_backward(grad_y, x, gamma, beta, offset, std, ctx.eps, ctx.relu)
    return *grads, None, None


def _no_second_gradient(ctx: Any, *_: Tensor) -> None:
    raise InputError(
        "pyldfusion's norms have no second derivative (create_graph=True); expected a loss of first order, or plain "
        "torch: with pyldfusion.torch_ops.use(False)"
    )


# the operators, as torch knows them

_OPERATORS: dict[str, tuple[str, Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "adain": (
        "(Tensor x, Tensor? weight, Tensor? bias, Tensor? residual, float eps, bool relu)"
        " -> (Tensor y, Tensor offset, Tensor rstd)",
        _adain_cpu,
        _adain_cuda,
        _adain_fake,
    ),
    "adain_backward": (
        "(Tensor grad_y, Tensor x, Tensor? weight, Tensor? bias, Tensor offset, Tensor rstd, bool relu)"
        " -> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias)",
        _adain_backward_cpu,
        _adain_backward_cuda,
        _adain_backward_fake,
    ),
    "sample_norm": (
        "(Tensor x, Tensor gamma, Tensor beta, float eps, bool relu) -> (Tensor y, Tensor offset, Tensor std)",
        _sample_norm_cpu,
        _sample_norm_cuda,
        _sample_norm_fake,
    ),
    "sample_norm_backward": (
        "(Tensor grad_y, Tensor x, Tensor gamma, Tensor beta, Tensor offset, Tensor std, float eps,"
        " bool relu) -> (Tensor grad_x, Tensor grad_gamma, Tensor grad_beta)",
        _sample_norm_backward_cpu,
        _sample_norm_backward_cuda,
        _sample_norm_backward_fake,
    ),
    "patch_entropy": (
        "(Tensor patches) -> Tensor",
        _patch_entropy_cpu,
        _patch_entropy_cuda,
        _patch_entropy_fake,
    ),
    "patch_entropy_affine": (
        "(Tensor planes, Tensor boxes, Tensor maps, int size) -> Tensor",
        _patch_entropy_affine_cpu,
        _patch_entropy_affine_cuda,
        _patch_entropy_affine_fake,
    ),
}
for _name, (_schema, _cpu, _cuda, _fake) in _OPERATORS.items():
    torch.library.define(f"pyldfusion::{_name}", _schema, tags=torch.Tag.pt2_compliant_tag)
    torch.library.impl(f"pyldfusion::{_name}", "cpu", _cpu)
    torch.library.impl(f"pyldfusion::{_name}", "cuda", _cuda)
    torch.library.register_fake(f"pyldfusion::{_name}", _fake)
torch.library.register_autograd("pyldfusion::adain", _adain_gradients, setup_context=_adain_context)
torch.library.register_autograd("pyldfusion::sample_norm", _sample_norm_gradients, setup_context=_sample_norm_context)
for _name in ("adain_backward", "sample_norm_backward"):
    torch.library.register_autograd(f"pyldfusion::{_name}", _no_second_gradient)
