"""The passes round the network: frame to plane, plane to frame, percentiles of a 16-bit frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyldfusion import cuda

from .measurement import Bench

SIZES = ((640, 480), (1920, 1080))
QUICK = ((24, 16),)
#: A slight turn and shift, as between two cameras in one housing.
HOMOGRAPHY = ((0.999, 0.02, -4.0), (-0.02, 0.999, 3.0), (1e-6, -2e-6, 1.0))


def frames(bench: Bench) -> None:
    for width, height in QUICK if bench.quick else SIZES:
        _size(bench, width, height)


def _size(bench: Bench, width: int, height: int) -> None:
    pixels = width * height
    device = bench.device

    def some(*shape: int, dtype: torch.dtype = torch.uint8) -> Tensor:
        top = 255 if dtype == torch.uint8 else 30_000
        return torch.randint(0, top, shape, dtype=torch.int32, device=device).to(dtype)

    def plane() -> Tensor:
        return torch.rand(height, width, device=device).to(torch.float16)

    # What a call reads and writes: a name, bytes, and how to make a set of buffers and the call on them.
    passes: dict[str, tuple[int, Callable[[], Callable[[], Any]]]] = {
        "BGR to plane": (
            5 * pixels,
            lambda: _call(cuda.frame_to_plane, some(height, width, 3), "bgr", out=plane()),
        ),
        "NV12 to plane": (
            3 * pixels,
            lambda: _call(cuda.frame_to_plane, some(height * 3 // 2, width), "nv12", out=plane()),
        ),
        "16-bit infrared to plane, warped": (
            4 * pixels,
            lambda: _call(
                cuda.frame_to_plane,
                some(height, width, dtype=torch.uint16),
                "grey",
                matrix=HOMOGRAPHY,
                gain=(7000.0, 9000.0),
                out=plane(),
            ),
        ),
        "plane and BGR to BGR": (
            8 * pixels,
            lambda: _call(cuda.plane_to_frame, plane(), some(height, width, 3), out=some(height, width, 3)),
        ),
        "percentiles of 16 bits": (
            2 * pixels,
            lambda: _call(
                cuda.percentiles16,
                some(height, width, dtype=torch.uint16),
                0.5,
                99.5,
                out=torch.empty(2, device=device),
            ),
        ),
    }
    for name, (moved, make) in passes.items():
        if not bench.deadline.allows(name):
            continue
        seconds = bench.clock.seconds([make() for _ in range(bench.clock.sets(moved))])
        rate = moved / seconds / 1e9
        figures = {"us": 1e6 * seconds, "gb_s": rate, "of_copy": rate / bench.peak("copy")}
        bench.results.record("frames", f"{name}, {width}x{height}", figures)


def _call(kernel: Callable[..., Any], *inputs: Any, **options: Any) -> Callable[[], Any]:
    return lambda: kernel(*inputs, **options)
