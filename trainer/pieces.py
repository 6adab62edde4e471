"""A loss that is a sum over pictures, taken piece by piece, so that one piece's activations are in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["in_pieces", "kept_bytes"]

#: (some of the pictures, which these are) -> their share of the loss, a scalar
LossOf = Callable[[Tensor, slice], Tensor]


def in_pieces(loss_of: LossOf, pictures: Tensor, at_once: int, late: bool = False) -> Tensor:
    """The loss of all pictures: the sum over pieces of ``at_once``, with the gradient for the pictures.

    The gradient of a piece is taken as soon as its loss is known, and its activations are let go: no arithmetic is
    done twice. Nothing but the pictures gets a gradient, so what ``loss_of`` uses besides must be frozen.

    Args:
        loss_of: gives what a piece adds to the loss.
        pictures: [K,...], at least one.
        at_once: at most this many pictures in a piece, 1 or more.
        late: take the loss of each piece again on the way back, where the factor of the loss is known: what computes
            in float16 needs gradients that are scaled before they pass through it.

    Returns:
        Scalar.
    """
    return _Pieces.apply(pictures, loss_of, at_once, late)


class _Pieces(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pictures: Tensor, loss_of: LossOf, at_once: int, late: bool) -> Tensor:
        size = math.ceil(len(pictures) / math.ceil(len(pictures) / at_once))  # all about as large
        pieces = [slice(first, first + size) for first in range(0, len(pictures), size)]
        ctx.loss_of, ctx.pieces, ctx.late = loss_of, pieces, late
        if late or not ctx.needs_input_grad[0]:
            ctx.save_for_backward(pictures)
            return torch.stack([loss_of(pictures[piece], piece) for piece in pieces]).sum()
        values, gradients = zip(*(_with_gradient(loss_of, pictures, piece) for piece in pieces), strict=True)
        ctx.save_for_backward(torch.cat(gradients))
        return torch.stack(values).sum()

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor, None, None, None]:
        (saved,) = ctx.saved_tensors
        if not ctx.late:
            return factor * saved, None, None, None
        gradients = [_with_gradient(ctx.loss_of, saved, piece, factor)[1] for piece in ctx.pieces]
        return torch.cat(gradients), None, None, None


def _with_gradient(
    loss_of: LossOf, pictures: Tensor, piece: slice, factor: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Loss and gradient of a piece."""
    leaf = pictures[piece].detach().requires_grad_()
    with torch.enable_grad():
        value = loss_of(leaf, piece)
    return value.detach(), torch.autograd.grad(value, leaf, factor)[0]


def kept_bytes(network: torch.nn.Module, x: Tensor) -> int:
    """What autograd keeps of ``network(x)`` for the backward pass besides the weights, every storage once."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in network.parameters()}
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = network(x.detach().requires_grad_())
    del result
    return sum(size for place, size in storages.items() if place not in weights)
