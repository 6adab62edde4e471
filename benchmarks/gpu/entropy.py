"""Histogram entropy of patches: share of the read bandwidth, the worst case, and the histc loop beside."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.train import authors_entropy
from pyldfusion import cuda

from .measurement import Bench

#: What is in a patch decides how often threads meet in a bin: noise, a smooth picture, one value.
CONTENTS = ("noise", "smooth", "constant")


def entropy(bench: Bench) -> None:
    """2048 patches of 224x224: more than any cache holds."""
    count, side = (3, 24) if bench.quick else (2048, 224)
    for kind in (torch.float32, torch.uint8):
        name = str(kind).removeprefix("torch.")
        found: dict[str, dict[str, float]] = {}
        for content in CONTENTS:
            if not bench.deadline.allows(f"entropy {name} {content}"):
                continue
            patches = _patches(content, count, side, bench.device)
            if kind == torch.uint8:
                patches = (patches * 255).to(torch.uint8)
            bits = torch.empty(count, dtype=torch.float64, device=bench.device)
            seconds = bench.clock.seconds([lambda patches=patches, bits=bits: cuda.entropy(patches, out=bits)])
            rate = patches.numel() * patches.element_size() / seconds / 1e9
            found[content] = figures = {"us": 1e6 * seconds, "gb_s": rate, "of_read": rate / bench.peak("read")}
            if kind == torch.float32 and content == "noise":
                loop = bench.clock.seconds([lambda patches=patches: authors_entropy(patches)], graph=False)
                figures |= {"torch_us": 1e6 * loop, "times_torch": loop / seconds}
            # again each time: the fastest content may have come just now
            best = min(row["us"] for row in found.values())
            for seen, row in found.items():
                row["times_best"] = row["us"] / best
                bench.results.record("entropy", f"{count} of {side}x{side} {name}, {seen}", row)


def _patches(content: str, count: int, side: int, device: torch.device) -> Tensor:
    if content == "noise":
        return torch.rand(count, side, side, device=device)
    if content == "constant":
        return torch.full((count, side, side), 0.5, device=device)
    ramp = torch.linspace(0, 3, side, device=device)
    phase = torch.arange(count, device=device)[:, None, None]
    return 0.5 + 0.4 * torch.sin(ramp[None, :, None] + phase) * torch.cos(ramp[None, None, :])
