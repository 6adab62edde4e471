"""Exact rewrites of the network for inference: the same function, friendlier to runtimes.

They are applied to a copy when a graph is exported or run, never to stored weights. Parameters keep their names.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .generator import ContentEncoder, Generator, SampleNorm, StyleFusion

__all__ = [
    "BlockConv",
    "InPrecision",
    "drop_dead_biases",
    "for_inference",
    "freeze_dead_biases",
    "zero_dead_biases",
]


def for_inference(generator: Generator) -> Generator:
    """A copy of ``generator`` in evaluation mode with both rewrites of this module."""
    generator = copy.deepcopy(generator).eval()
    zero_dead_biases(generator)
    generator.decoder.out = BlockConv(generator.decoder.out)
    return generator


def zero_dead_biases(generator: Generator) -> None:
    """Set the convolution biases that an instance norm removes again to zero, in place.

    The function is the same. The figures are not: published weights have channels whose mean is far above their
    spread, and runtimes that compute a variance in one pass, or activations in 16 bits, lose digits there.
    """
    for conv in _before_norms(generator):
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)


def freeze_dead_biases(generator: Generator) -> None:
    """Set those biases to zero for good, in place: their gradients are rounding, which Adam turns into whole steps."""
    zero_dead_biases(generator)
    for conv in _before_norms(generator):
        if conv.bias is not None:
            conv.bias.requires_grad_(False)


def drop_dead_biases(generator: Generator) -> None:
    """Take those biases away, in place: torch adds a bias in a pass of its own behind cuDNN's convolution."""
    for conv in _before_norms(generator):
        conv.bias = None


def _before_norms(generator: Generator) -> Iterator[nn.Conv2d]:
    """The convolutions that an instance norm or AdaIN follows."""
    for module in generator.modules():
        if isinstance(module, (ContentEncoder, StyleFusion)):
            yield from (conv for conv in module.modules() if isinstance(conv, nn.Conv2d))


class BlockConv(nn.Module):
    """The decoder's last convolution (7x7, many channels to one), computing a 4x4 block of pixels at a time.

    CPU and tensor-core kernels compute 8 to 16 output channels at once; with a single one most of that is thrown
    away. Here the 16 pixels of a block are the channels: a convolution of stride 4 whose kernel holds the original
    one at 16 shifts, and the channels are then laid out as pixels. 100 instead of 49 taps, but for 16 useful outputs.

    Input padding follows the decoder: reflected at the top and left, and left out at the bottom and right, where the
    decoder overshoots by at least 14 pixels that are cropped away. The output misses up to 10 of those.
    """

    BLOCK = 4

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        if not isinstance(conv, nn.Conv2d):
            raise TypeError(
                f"expected the plain convolution, got {type(conv).__name__}: was this network rewritten before?"
            )
        size = conv.kernel_size[0]
        self.reflect: nn.Module = nn.ReflectionPad2d((size // 2, 0, size // 2, 0))
        # the original kernel is the top left of the first of the 16
        shifts = [(y, self.BLOCK - 1 - y) for y in range(self.BLOCK)]
        kernels = [F.pad(conv.weight.detach(), (*left, *top)) for top in shifts for left in shifts]
        self.weight = nn.Parameter(torch.cat(kernels))
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().repeat(self.BLOCK**2))

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,H,W] -> [N,1,H',W'] with H' and W' multiples of 4, at least H - 10 and W - 10."""
        return F.pixel_shuffle(F.conv2d(self.reflect(x), self.weight, self.bias, stride=self.BLOCK), self.BLOCK)


class InPrecision(nn.Module):
    """The network in another precision, for planes in float32.

    16-bit convolutions run channels last, which is how tensor cores take them. The norms compute their statistics in
    32 bits (:mod:`~pyldfusion.generator`), and so is the last squashing, whose rounding one would see.

    Args:
        generator: what :func:`for_inference` gave; changed in place.
        dtype: of weights and activations.
    """

    def __init__(self, generator: Generator, dtype: torch.dtype) -> None:
        super().__init__()
        if isinstance(generator.decoder.out, BlockConv):
            generator.decoder.out = nn.Sequential(generator.decoder.out, ToFloat())
        self.dtype = dtype
        self.generator = generator.to(dtype)
        for module in generator.modules():
            if isinstance(module, SampleNorm):
                module.float()  # a few numbers, and the norm computes with them in 32 bits
        if dtype != torch.float32:
            pad_channels_last(generator)
            for weight in generator.parameters():
                if weight.ndim == 4:
                    weight.data = weight.data.contiguous(memory_format=torch.channels_last)

    def forward(self, ir: Tensor, vis: Tensor) -> Tensor:
        """float32 planes [N,1,H,W] in, one out, as :class:`~pyldfusion.generator.Generator`."""
        fused: Tensor = self.generator(ir.to(self.dtype), vis.to(self.dtype))
        return fused


def pad_channels_last(network: nn.Module) -> None:
    """Have every reflection of ``network`` keep tensors channels last, in place; convolutions then pad apart."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ReflectionPad2d):
                setattr(parent, name, ReflectChannelsLast(child.padding))
            elif isinstance(child, nn.Conv2d) and child.padding_mode == "reflect":
                high, wide = (int(pad) for pad in child.padding)
                child.padding, child.padding_mode = (0, 0), "zeros"
                setattr(parent, name, nn.Sequential(ReflectChannelsLast((wide, wide, high, high)), child))


class ReflectChannelsLast(nn.Module):
    """``nn.ReflectionPad2d`` for tensors that lie channels last, and stay so.

    torch's own kernel for two axes on CUDA has no such layout: the tensor is copied to planes before and back behind
    it. As a volume [N,1,H,W,C] whose last axis gets nothing, every number is where it should be.

    Args:
        padding: at the left, right, top and bottom.
    """

    def __init__(self, padding: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,H,W] -> [N,C,H',W'], channels last."""
        volume = x.permute(0, 2, 3, 1).unsqueeze(1)
        return F.pad(volume, (0, 0, *self.padding), mode="reflect").squeeze(1).permute(0, 3, 1, 2)


class ToFloat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float()
