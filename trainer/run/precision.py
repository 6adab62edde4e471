"""Number formats: which one "auto" means on a device, and a network run in one of them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pyldfusion.hardware import native_bf16

from ..config import Config
from ..objective import Network

__all__ = ["in_precision", "resolve", "weights_dtype"]


def weights_dtype(precision: str) -> torch.dtype:
    """Type of a generator's weights, of what it sees and of what it gives: autocast is the network's own business."""
    return torch.float64 if precision == "fp64" else torch.float32


def in_precision(network: Network, precision: str, device: torch.device) -> Network:
    """``network`` as it is trained in ``run.precision``; its weights are of :func:`weights_dtype` and stay so."""

    def fuse(ir: Tensor, vis: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            fused = network(ir, vis)
        return fused.to(weights_dtype(precision))

    return fuse


def resolve(config: Config, device: torch.device) -> Config:
    """``config`` with every "auto" precision replaced.

    bf16 where the device has it (Ampere and later; CPUs with AVX512-BF16 or AMX). Else fp16 for the frozen towers on
    older GPUs, whose loss is then scaled, and fp32 on CPUs, which only emulate either, more slowly.
    """
    if device.type == "cuda":
        bf16 = torch.cuda.get_device_capability(device) >= (8, 0)
        network, towers = ("bf16", "bf16") if bf16 else ("fp32", "fp16")
    else:
        network = towers = "bf16" if native_bf16() else "fp32"

    def chosen(given: str, best: str) -> str:
        return best if given == "auto" else given

    return replace(
        config,
        run=replace(config.run, precision=chosen(config.run.precision, network)),
        clip=replace(config.clip, precision=chosen(config.clip.precision, towers)),
        vgg=replace(config.vgg, precision=chosen(config.vgg.precision, towers)),
    )
