"""Which number format a device computes in by itself: what "auto" means."""

from __future__ import annotations

from dataclasses import replace

import torch

from pyldfusion.hardware import native_bf16

from ..config import Config

__all__ = ["resolve"]


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
