"""Graphs with an input more, ``homography``: they lay the infrared onto the visible themselves."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.onnx.ops import symbolic

from pyldfusion.frame_graph import FrameGraph

from .lowering import PlaneGraph, size_of

__all__ = ["Warp", "WarpedFrameGraph", "WarpedPlaneGraph"]

#: The adjugate of a 3x3 matrix, row by row: entry k is m[A[k]] m[B[k]] - m[C[k]] m[D[k]]. It is the inverse up to a
#: factor, which a homography does not feel.
A, B = (4, 2, 1, 5, 0, 2, 3, 1, 0), (8, 7, 5, 6, 8, 3, 7, 6, 4)
C, D = (5, 1, 2, 3, 2, 0, 4, 0, 1), (7, 8, 4, 8, 6, 5, 6, 7, 3)


class Warp(nn.Module):
    """The infrared as the visible camera would see it, by bilinear interpolation; outside, its border is repeated.

    The same as :meth:`pyldfusion.registration.Registration.place` does with ``cv2.warpPerspective``. Its cover, by
    which what no infrared reaches is left to the visible picture, is not a part of the graph.
    """

    def __init__(self) -> None:
        super().__init__()
        for name, index in (("a", A), ("b", B), ("c", C), ("d", D)):
            self.register_buffer(name, torch.tensor(index), persistent=False)

    def forward(self, plane: Tensor, like: Tensor, homography: Tensor) -> Tensor:
        """``plane`` [N,1,IH,IW], ``like`` [N,C,H,W], ``homography`` [N,3,3] from pixels of plane to those of like."""
        flat = homography.reshape(-1, 9)
        a, b, c, d = (flat.index_select(1, index) for index in (self.a, self.b, self.c, self.d))
        inverse = (a * b - c * d).reshape(-1, 3, 3, 1, 1)
        size = size_of(like)
        ys, xs = (_count(size[axis], like.shape[2 + axis]) for axis in (0, 1))
        point = inverse[:, :, 0] * xs + (inverse[:, :, 1] * ys[:, None] + inverse[:, :, 2])
        last = size_of(plane).float().flip(0)[:, None, None] - 1  # the last column and row of the infrared
        at = point[:, :2] / point[:, 2:] * (2 / last) - 1
        # comparisons, because they are false for NaN: a point behind the camera must not read outside the picture
        at = torch.where(at > -1, at, -1.0)
        at = torch.where(at < 1, at, 1.0)
        return F.grid_sample(plane, at.permute(0, 2, 3, 1), "bilinear", "border", align_corners=True)


def _count(size: Tensor, traced: int) -> Tensor:
    """0, 1, ... up to ``size``, float32."""
    return symbolic("Range", (torch.tensor(0), size, torch.tensor(1)), dtype=torch.int64, shape=(traced,)).float()


class WarpedFrameGraph(FrameGraph):
    """:class:`~pyldfusion.frame_graph.FrameGraph` with ``ir`` uint8 [N,IH,IW,1] and ``homography`` float32 [N,3,3]."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__(generator)
        self.warp = Warp()

    def forward(self, ir: Tensor, vis: Tensor, homography: Tensor) -> Tensor:
        thermal = ir.to(self.luma.dtype).permute(0, 3, 1, 2)
        colour = vis.to(self.luma.dtype).permute(0, 3, 1, 2)
        return super().forward(self.warp(thermal, colour, homography).permute(0, 2, 3, 1), vis)


class WarpedPlaneGraph(PlaneGraph):
    """:class:`~export.lowering.PlaneGraph` with ``ir`` [N,1,IH,IW] and ``homography`` float32 [N,3,3]."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__(generator)
        self.warp = Warp()

    def forward(self, ir: Tensor, vis: Tensor, homography: Tensor) -> Tensor:
        return super().forward(self.warp(ir, vis, homography), vis)
