"""Grow a ``full`` generator out of a trained ``lite`` one, so that it starts with what the small one has learnt.

Source: Chen et al., "Net2Net: Accelerating Learning via Knowledge Transfer" (ICLR 2016). Every channel is doubled and
what reads it takes half of each copy: the function stays. A little noise lets the copies part. The AdaIN blocks that
``lite`` lacks begin as identities. The output's squashing differs (tanh for sigmoid) and is matched around mid grey.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pyldfusion.errors import ArtefactError
from pyldfusion.generator import Generator

from .initialise import initialise_scaled

__all__ = ["widen"]

#: tanh(0.549 + z / 3.3) is close to sigmoid(z) for z in -2..2.
OFFSET, SCALE = 0.549, 1 / 3.3


def widen(lite: Mapping[str, Tensor], noise: float = 0.05, seed: int = 0) -> Generator:
    """A ``full`` generator that computes nearly what ``lite``'s weights compute.

    Args:
        lite: state dict of a ``lite`` generator.
        noise: of the doubled weights, relative to their deviation.
        seed: of the noise, and of the style encoders, which start fresh.

    Raises:
        ArtefactError: ``lite`` is not such a state dict.
    """
    expected = Generator("lite").state_dict()
    if {k: v.shape for k, v in lite.items()} != {k: v.shape for k, v in expected.items()}:
        raise ArtefactError("only the weights of a 'lite' network can be widened to 'full'")
    full = initialise_scaled(Generator("full"), seed)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, target in full.named_parameters():
            if name in lite:
                weight = _double(lite[name], target.shape)
                if weight.ndim > 1:
                    weight += noise * weight.std() * torch.randn(weight.shape, generator=random)
                target.copy_(weight)
        full.decoder.out.weight.mul_(SCALE)
        full.decoder.out.bias.mul_(SCALE).add_(OFFSET)
        # AdaIN's order is bias1, weight1, bias2, weight2; without the second pair a block's branch is silent.
        head = full.fusion.mlp[-1]
        head.bias.view(2, 4, -1)[:, 2:] = 0
        head.weight.view(2, 4, -1)[:, 2:] = 0
    return full


def _double(weight: Tensor, shape: torch.Size) -> Tensor:
    """Repeat ``weight`` along the axes in which ``shape`` is twice as long; halve it if it is summed over one."""
    for axis in range(min(2, weight.ndim)):
        if shape[axis] == 2 * weight.shape[axis]:
            weight = weight.repeat_interleave(2, axis)
    # Kernels sum over doubled channels; only the first of an encoder reads the one plane.
    return weight / 2 if weight.ndim == 4 and shape[1] > 1 else weight
