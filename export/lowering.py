"""The network's pieces as a graph should have them, where torch's exporter would write them at length.

torch derives every size inside the network from the height and width of the input, a dozen nodes for each norm. A graph
can ask a tensor for its shape; these modules do, in ONNX's own operators, and so they run nowhere but in an export.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.onnx.ops import symbolic

from pyldfusion.generator import NORM_EPS, Generator, SampleNorm
from pyldfusion.rewrites import for_inference
from pyldfusion.smoothing import smoothed_moments

__all__ = ["PlaneGraph", "for_graph", "size_of"]


def for_graph(generator: Generator) -> Generator:
    """A copy of ``generator``, rewritten (:mod:`pyldfusion.rewrites`) and with the modules below."""
    generator = for_inference(generator).float().cpu()
    generator.decoder.norm = nn.ModuleList(map(GraphSampleNorm, generator.decoder.norm))
    generator.crop = GraphCrop()
    return generator.requires_grad_(False)


class PlaneGraph(nn.Module):
    """Bare G, for those who bring their own colour conversion; its weights are named as in ``FrameGraph``."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, ir: Tensor, vis: Tensor) -> Tensor:
        fused: Tensor = self.generator(ir, vis)
        return fused


class GraphSampleNorm(nn.Module):
    """:class:`~pyldfusion.generator.SampleNorm`; gamma and beta are [C,1,1]."""

    def __init__(self, norm: SampleNorm) -> None:
        super().__init__()
        self.gamma = nn.Parameter(norm.gamma.detach()[:, None, None])
        self.beta = nn.Parameter(norm.beta.detach()[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3), keepdim=True)
        centred = x - mean
        sizes = symbolic("Shape", (x,), {"start": 1}, dtype=torch.int64, shape=(3,)).float()
        count = symbolic("ReduceProd", (sizes,), {"keepdims": 0}, dtype=torch.float32, shape=())
        variance = (centred * centred).mean((1, 2, 3), keepdim=True)
        centred, variance = smoothed_moments(x, mean, centred, variance)
        std = (variance * (count / (count - 1))).sqrt()
        return F.relu(centred / (std + NORM_EPS) * self.gamma + self.beta)


class GraphCrop(nn.Module):
    """:class:`~pyldfusion.generator.Crop`"""

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        corner, axes = torch.tensor([0, 0]), torch.tensor([2, 3])
        return symbolic("Slice", (x, corner, size_of(like), axes), dtype=x.dtype, shape=like.shape)


def size_of(plane: Tensor) -> Tensor:
    """Height and width of ``plane`` [N,C,H,W], int64 [2]."""
    return symbolic("Shape", (plane,), {"start": 2}, dtype=torch.int64, shape=(2,))
