"""What the device can do: copy, read, and multiply matrices; the other figures are shares of these."""

from __future__ import annotations

import torch

from .measurement import Bench


def peaks(bench: Bench) -> None:
    """What the device can do: copy, read, and multiply matrices."""
    _bandwidth(bench)
    _products(bench)


def _bandwidth(bench: Bench) -> None:
    clock, device = bench.clock, bench.device
    size = (1 << 20) if bench.quick else (1 << 30)
    source, target = (torch.empty(size, dtype=torch.uint8, device=device).fill_(1) for _ in range(2))
    seconds = clock.seconds([lambda: target.copy_(source)])
    bench.results.record("peaks", "copy", {"value": 2 * size / seconds / 1e9, "unit": "GB/s, read and written"})
    words = source.view(torch.float32)
    seconds = clock.seconds([words.sum])
    bench.results.record("peaks", "read", {"value": size / seconds / 1e9, "unit": "GB/s"})


def _products(bench: Bench) -> None:
    clock, device = bench.clock, bench.device
    side = 256 if bench.quick else 8192
    for name, dtype, tf32 in (
        ("fp32 product", torch.float32, False),
        ("tf32 product", torch.float32, True),
        ("fp16 product", torch.float16, False),
        ("bf16 product", torch.bfloat16, False),
    ):
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = tf32
        try:
            seconds = clock.seconds([lambda a=a, b=b: a @ b])
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before
        bench.results.record("peaks", name, {"value": 2 * side**3 / seconds / 1e12, "unit": "TFLOP/s"})
