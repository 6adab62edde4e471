"""First weights: the authors', and others that let a short run start at once."""

from __future__ import annotations

import math

import torch
from torch import nn

from pyldfusion.generator import Generator

__all__ = ["initialise", "initialise_scaled"]


def initialise(generator: Generator, seed: int = 0) -> Generator:
    """Fill ``generator`` as the authors do: kernels N(0, 0.02), gamma U(0, 1), beta 0, the rest as torch does.

    That is U(+-1/sqrt(inputs)) for the biases and for the style's linear layers: were those zero, AdaIN would erase
    the content. The draws depend on ``seed`` and the module's place only, not on torch's global state.
    """
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in generator.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                bound = 1 / math.sqrt(module.weight[0].numel())
                if isinstance(module, nn.Linear):
                    module.weight.uniform_(-bound, bound, generator=random)
                else:
                    module.weight.normal_(0, 0.02, generator=random)
                module.bias.uniform_(-bound, bound, generator=random)
        for norm in generator.decoder.norm:
            norm.gamma.uniform_(0, 1, generator=random)
            norm.beta.zero_()
    return generator


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
