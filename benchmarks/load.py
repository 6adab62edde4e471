"""What a frame costs in arithmetic and in memory traffic, and so the least time it can take on NVIDIA's boards.

Everything here is computed, nothing measured: the network's layers are counted, the boards' rates are published ones.
No board reaches them; a measured time says how near it came.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyldfusion.artefact import BUNDLED
from pyldfusion.cli.options import size
from pyldfusion.generator import SampleNorm, load_generator

__all__ = ["BOARDS", "SIZES", "Board", "Pass", "floor_ms", "passes", "table"]

#: (width, height) of the frames in the table.
SIZES = ((320, 256), (640, 480), (1024, 768), (1280, 720))


@dataclass(frozen=True)
class Board:
    """A board's GPU at its highest clock.

    Attributes:
        name: with the power mode.
        fp16: 10^12 operations a second of its tensor cores in FP16, without sparsity (a multiply-add is two).
        bandwidth: 10^9 bytes a second of its memory.
        source: where the rates come from.
    """

    name: str
    fp16: float
    bandwidth: float
    source: str


#: An Orin's tensor cores do 2048 FP16 operations a clock and multiprocessor: NVIDIA's 170 sparse INT8 TOPS of AGX
#: Orin's GPU (16 multiprocessors, 1.3 GHz) are 85 dense, of which FP16 is half.
ORIN = 2048e-3
BOARDS = (
    Board("Orin Nano 8GB, MAXN SUPER", 8 * ORIN * 1.020, 102, "8 multiprocessors, 1020 MHz"),
    Board("Orin NX 16GB, MAXN", 8 * ORIN * 0.918, 102, "8 multiprocessors, 918 MHz"),
    Board("AGX Orin 64GB, MAXN", 16 * ORIN * 1.3005, 204.8, "16 multiprocessors, 1300.5 MHz"),
    Board("AGX Thor T5000, MAXN", 2070 / 8, 273, "an eighth of 2070 sparse FP4 TFLOPS"),
)


@dataclass(frozen=True)
class Pass:
    """One pass over a layer's data: operations, and bytes read and written once in FP16."""

    flop: int
    moved: int


def passes(variant: str, size: tuple[int, int]) -> list[Pass]:
    """The passes of a frame of ``size`` (width, height): convolutions, and norms, which read all before they write."""
    network = load_generator(variant)
    found: list[Pass] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        moved = 2 * (inputs[0].numel() + output.numel())
        if isinstance(module, SampleNorm):
            found.append(Pass(0, moved))
            return
        weight: Any = module.weight
        grid = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        pixels = grid.numel() // grid.shape[1] if grid.ndim == 4 else 1
        found.append(Pass(2 * weight.numel() * pixels, moved + 2 * weight.numel()))
        if isinstance(module, nn.Conv2d) and output.shape[1] > 8:  # an instance norm or AdaIN follows
            found.append(Pass(0, 2 * 2 * output.numel()))

    layers = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, SampleNorm)
    hooks = [module.register_forward_hook(look) for module in network.modules() if isinstance(module, layers)]
    with torch.no_grad():
        network = network.to("meta")
        plane = torch.empty(1, 1, size[1], size[0], device="meta")
        network(plane, plane)
    for hook in hooks:
        hook.remove()
    return found


def floor_ms(found: Sequence[Pass], flop_s: float, byte_s: float) -> float:
    """Milliseconds that passes must take: each its operations or its bytes, whichever is longer."""
    return 1e3 * sum(max(item.flop / flop_s, item.moved / byte_s) for item in found)


def table(variants: Sequence[str] = BUNDLED, sizes: Sequence[tuple[int, int]] = SIZES) -> str:
    """Markdown, as docs/jetson.md has it."""
    head = ["model", "frame", "GFLOP", "MB", *(board.name for board in BOARDS)]
    lines = [f"| {' | '.join(head)} |", f"|---|---|{'---:|' * (len(head) - 2)}"]
    for variant in variants:
        for width, height in sizes:
            found = passes(variant, (width, height))
            cells = [variant, f"{width}x{height}"]
            cells += [f"{sum(item.flop for item in found) / 1e9:.1f}", f"{sum(item.moved for item in found) / 1e6:.0f}"]
            cells += [f"{floor_ms(found, 1e12 * board.fp16, 1e9 * board.bandwidth):.1f} ms" for board in BOARDS]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks load", description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=size, nargs="+", default=SIZES, metavar="WxH", help="frames to count for")
    print(table(sizes=parser.parse_args(argv).size))
