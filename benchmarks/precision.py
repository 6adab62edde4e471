"""What the GPU engine's precisions cost in accuracy: `python -m benchmarks precision [--model lite] [--device cpu]`.

PSNR in dB of the float planes to the authors' network in float64, the lowest of a few real pairs (generated ones where
there are none). On a CPU torch computes the same 16-bit convolutions, slowly: minutes for `lite`, longer for `full`.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from pyldfusion.generator import load_generator
from pyldfusion.rewrites import InPrecision, for_inference

from .cpu import authors_network, pairs

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def lowest_psnr(model: str, count: int, device: torch.device) -> tuple[str, dict[str, float]]:
    """What the pairs are, and for each precision the lowest PSNR over ``count`` of each test set."""
    source, planes = pairs(count)
    exact = authors_network(model).double()
    worst = {}
    with torch.inference_mode():
        inputs = [[torch.from_numpy(plane)[None, None] for plane in pair] for pair in planes]
        expected = [exact(ir.double(), vis.double()) for ir, vis in inputs]
        for name, dtype in PRECISIONS.items():
            network = InPrecision(for_inference(load_generator(model)), dtype).to(device)
            errors = [
                float((network(ir.to(device), vis.to(device)).cpu().double() - right).square().mean())
                for (ir, vis), right in zip(inputs, expected, strict=True)
            ]
            worst[name] = -10 * float(np.log10(max(errors)))
    return source, worst


def main(argv: list[str]) -> int:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(prog="python -m benchmarks precision", description=__doc__.split(":")[0])
    parser.add_argument("--model", action="append", help="a bundled or other model; repeatable (default: lite, full)")
    parser.add_argument("--pairs", type=int, default=2, metavar="N", help="of each test set (default: 2)")
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    options = parser.parse_args(argv)
    if options.pairs < 1:
        parser.error("--pairs must be at least 1")
    for model in options.model or ("lite", "full"):
        source, worst = lowest_psnr(model, options.pairs, torch.device(options.device))
        figures = ", ".join(f"{name} {psnr:.1f} dB" for name, psnr in worst.items())
        print(f"{model}: {figures} (lowest of {source}, on {options.device})", flush=True)
    return 0
