"""AdaIN and the decoder's norm: time, share of the copy bandwidth, and the usual torch ways beside.

At the network's own sizes, a few megabytes, a launch takes as long as the bytes: no kernel comes near the bandwidth of
a copy of 1 GiB. So a copy of the same tensor in the same way is timed as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pyldfusion import cuda

from .measurement import Bench

EPS = 1e-5
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
FORMS = (("fp32", torch.float32, "nchw"), ("fp16", torch.float16, "nhwc"), ("bf16", torch.bfloat16, "nhwc"))
#: [N,C,H,W]: the encoder's stages and the fusion blocks at 640x480, training's at 224, and one beyond any cache.
ADAIN = (
    (1, 16, 480, 640),
    (1, 32, 240, 320),
    (1, 64, 120, 160),
    (1, 128, 60, 80),
    (1, 256, 60, 80),
    (16, 16, 224, 224),
    (16, 256, 28, 28),
    (16, 64, 512, 512),
)
#: The decoder's stages at 640x480, training's last one, and one beyond any cache.
SAMPLE_NORM = ((1, 128, 123, 163), (1, 64, 249, 333), (1, 32, 501, 661), (16, 32, 245, 245), (16, 64, 512, 512))
QUICK = ((1, 4, 8, 12),)


def adain(bench: Bench) -> None:
    """AdaIN + ReLU forward and backward. torch: an instance norm and an affine map; the authors' batch norm."""
    for shape in QUICK if bench.quick else ADAIN:
        for form, dtype, layout in FORMS:
            name = f"[{','.join(map(str, shape))}] {form} {layout}"
            if bench.deadline.allows(f"AdaIN {name}"):
                _adain(bench, shape, dtype, layout, name)


def _adain(bench: Bench, shape: tuple[int, ...], dtype: torch.dtype, layout: str, name: str) -> None:
    planes = shape[:2]
    weight, bias = (torch.rand(planes, device=bench.device) + 0.5 for _ in range(2))
    offset, rstd, grad_weight, grad_bias = (torch.empty(planes, device=bench.device) for _ in range(4))
    sets = [_tensors(bench, shape, dtype, layout, 4) for _ in range(bench.clock.sets(2 * _bytes(shape, dtype)))]

    def forward(x: Tensor, y: Tensor, *_: Tensor) -> Any:
        return cuda.adain(x, weight, bias, EPS, relu=True, save=True, out=(y, offset, rstd))

    def backward(x: Tensor, _: Tensor, grad_y: Tensor, grad_x: Tensor) -> Any:
        out = (grad_x, grad_weight, grad_bias)
        return cuda.adain_backward(grad_y, x, weight, bias, offset, rstd, relu=True, out=out)

    def instance_norm(x: Tensor) -> Tensor:
        scale, shift = (style[:, :, None, None].to(dtype) for style in (weight, bias))
        return F.relu(F.instance_norm(x, eps=EPS) * scale + shift)

    def batch_norm(x: Tensor) -> Tensor:
        flat = x.reshape(1, -1, *x.shape[2:])
        normed = F.batch_norm(flat, None, None, weight.flatten(), bias.flatten(), True, 0.1, EPS)
        return F.relu(normed.view(x.shape))

    measure(bench, f"AdaIN forward {name}", sets, forward, 2 * _bytes(shape, dtype), (instance_norm, batch_norm), False)
    measure(
        bench, f"AdaIN backward {name}", sets, backward, 3 * _bytes(shape, dtype), (instance_norm, batch_norm), True
    )


def sample_norm(bench: Bench) -> None:
    """The decoder's norm + ReLU, forward and backward. torch: as pyldfusion.generator spells it."""
    for shape in QUICK if bench.quick else SAMPLE_NORM:
        for form, dtype, layout in FORMS:
            name = f"[{','.join(map(str, shape))}] {form} {layout}"
            if bench.deadline.allows(f"sample norm {name}"):
                _sample_norm(bench, shape, dtype, layout, name)


def _sample_norm(bench: Bench, shape: tuple[int, ...], dtype: torch.dtype, layout: str, name: str) -> None:
    gamma, beta = (torch.rand(shape[1], device=bench.device) + 0.5 for _ in range(2))
    offset, std = (torch.empty(shape[0], device=bench.device) for _ in range(2))
    grad_gamma, grad_beta = torch.empty_like(gamma), torch.empty_like(beta)
    sets = [_tensors(bench, shape, dtype, layout, 4) for _ in range(bench.clock.sets(2 * _bytes(shape, dtype)))]

    def forward(x: Tensor, y: Tensor, *_: Tensor) -> Any:
        return cuda.sample_norm(x, gamma, beta, EPS, relu=True, save=True, out=(y, offset, std))

    def backward(x: Tensor, _: Tensor, grad_y: Tensor, grad_x: Tensor) -> Any:
        out = (grad_x, grad_gamma, grad_beta)
        return cuda.sample_norm_backward(grad_y, x, gamma, beta, offset, std, EPS, relu=True, out=out)

    def plain(x: Tensor) -> Tensor:
        wide = x.float()
        centred = wide - wide.mean((1, 2, 3), keepdim=True)
        count = x[0].numel()
        deviation = ((centred * centred).mean((1, 2, 3), keepdim=True) * (count / (count - 1))).sqrt()
        return F.relu(centred / (deviation + EPS) * gamma[:, None, None] + beta[:, None, None]).to(dtype)

    measure(bench, f"sample norm forward {name}", sets, forward, 2 * _bytes(shape, dtype), (plain,), False)
    measure(bench, f"sample norm backward {name}", sets, backward, 3 * _bytes(shape, dtype), (plain,), True)


def measure(
    bench: Bench,
    name: str,
    sets: list[tuple[Tensor, ...]],
    ours: Callable[..., Any],
    moved: int,
    torch_ways: tuple[Callable[[Tensor], Tensor], ...],
    backward: bool,
) -> None:
    """Ours and the fastest of torch's ways; torch's backward is what it adds to the forward before it.

    ``sets`` are tensors like x, of which the second is written to; ``moved``, the bytes that ours must read and write.
    """
    seconds = bench.clock.seconds([lambda tensors=tensors: ours(*tensors) for tensors in sets])
    copied = bench.clock.seconds([lambda tensors=tensors: tensors[1].copy_(tensors[0]) for tensors in sets], budget=0.3)
    copy_rate = 2 * sets[0][0].numel() * sets[0][0].element_size() / copied
    theirs = min(_torch_seconds(bench, way, sets, backward) for way in torch_ways)
    bench.results.record(
        "kernels",
        name,
        {
            "us": 1e6 * seconds,
            "gb_s": moved / seconds / 1e9,
            "of_copy": moved / seconds / 1e9 / bench.peak("copy"),
            "of_same_copy": moved / seconds / copy_rate,
            "torch_us": 1e6 * theirs,
            "times_torch": theirs / seconds,
        },
    )


def _torch_seconds(
    bench: Bench, way: Callable[[Tensor], Tensor], sets: list[tuple[Tensor, ...]], backward: bool
) -> float:
    sets = sets[: max(2, len(sets) // 4)]  # results and what autograd keeps are memory of their own

    def both(x: Tensor, grad_y: Tensor) -> Any:
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(way(leaf), leaf, grad_y)

    with torch.no_grad():
        forward = bench.clock.seconds([lambda x=tensors[0]: way(x) for tensors in sets], budget=0.5)
    if not backward:
        return forward
    return bench.clock.seconds([lambda t=tensors: both(t[0], t[2]) for tensors in sets], budget=0.5) - forward


def _tensors(bench: Bench, shape: tuple[int, ...], dtype: torch.dtype, layout: str, count: int) -> tuple[Tensor, ...]:
    made = (torch.randn(shape, device=bench.device).to(dtype) for _ in range(count))
    return tuple(x.to(memory_format=LAYOUTS[layout]) for x in made)


def _bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    return torch.Size(shape).numel() * dtype.itemsize
