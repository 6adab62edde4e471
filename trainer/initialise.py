"""First weights that let training start at once."""

from __future__ import annotations

import math

import torch
from torch import nn

from pyldfusion.generator import Generator

__all__ = ["initialise_scaled"]


def initialise_scaled(generator: Generator, seed: int = 0) -> Generator:
    """Fill ``generator`` so that signals and gradients keep their size through every layer (He et al. 2015).

    The authors' N(0, 0.02) needs thousands of steps before detail appears; a short run cannot afford them. AdaIN starts
    as a plain instance norm, the output as mid grey. The draws depend on ``seed`` and the module's place only.
    """
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in generator.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                weight = module.weight
                inputs = weight[0].numel()
                if isinstance(module, nn.ConvTranspose2d):  # [in, out, k, k]; stride 2 spreads a quarter to each pixel
                    inputs = weight.shape[0] * weight[0, 0].numel() / 4
                weight.normal_(0, math.sqrt(2 / inputs), generator=random)
                nn.init.zeros_(module.bias)
        for norm in generator.decoder.norm:
            nn.init.ones_(norm.gamma)
            nn.init.zeros_(norm.beta)
        out = generator.decoder.out
        out.weight.mul_(0.3)
        nn.init.constant_(out.bias, 0.0 if generator.shape.output == "sigmoid" else math.atanh(0.47))
        if generator.shape.style:
            head = generator.fusion.mlp[-1]
            head.weight.mul_(0.1)
            # Per AdaIN first the biases, then the weights.
            head.bias.view(-1, 2, 2 * generator.shape.widths[3])[:, 1] = 1
    return generator
