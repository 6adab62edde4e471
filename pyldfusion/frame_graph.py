"""The graph that every engine runs: camera frames in, a camera frame out, with the network in the middle.

Colour conversion, scaling, the network, recombination and rounding are nodes of one graph, so that every runtime
fuses them and a file works alone (Triton, DeepStream, a C++ program). Only the luma is fused; the chroma is the
visible camera's. Adding ``fused - luma`` to B, G and R is the same as recombining with Cr and Cb (OpenCV's
full-range BT.601) up to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .image import LUMA_BGR
from .smoothing import NORMS, STYLE, Smoother

__all__ = ["FrameGraph", "TemporalFrameGraph"]


class FrameGraph(nn.Module):
    """uint8 frames in, uint8 frames out.

    Args:
        generator: the network (:class:`~pyldfusion.generator.Generator`, or in another precision
            :class:`~pyldfusion.rewrites.InPrecision`); used as it is, not copied.
    """

    luma: Tensor

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator
        self.register_buffer("luma", torch.tensor(LUMA_BGR), persistent=False)

    def forward(self, ir: Tensor, vis: Tensor) -> Tensor:
        """Fuse a batch of frames.

        Args:
            ir: infrared, uint8 [N,H,W,1].
            vis: visible, uint8 [N,H,W,3] in the order blue, green, red.

        Returns:
            The fused frames, uint8 [N,H,W,3], the same order.
        """
        dtype = self.luma.dtype
        colour = vis.to(dtype)
        luma = (colour * self.luma).sum(-1).unsqueeze(1)
        # one channel: [N,H,W,1] and [N,1,H,W] are the same memory, a reshape is free
        thermal = ir.to(dtype).squeeze(-1).unsqueeze(1)
        change = self.generator(thermal / 255, luma / 255) * 255 - luma
        fused = colour + change.squeeze(1).unsqueeze(-1)
        return fused.round().clamp(0, 255).to(torch.uint8)


class TemporalFrameGraph(FrameGraph):
    """:class:`FrameGraph` with what it remembers going in and coming out."""

    def forward(  # type: ignore[override]
        self, ir: Tensor, vis: Tensor, keep: Tensor, state_norms: Tensor, state_style: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Fuse a batch of frames.

        Args:
            ir: as of FrameGraph.
            vis: the same.
            keep: float32 [1]: weight of the frames before.
            state_norms: float32 [N,S], what the call before gave.
            state_style: float32 [N,16], of a network with style codes.

        Returns:
            The fused frames, ``new_state_norms`` and, where there is one, ``new_state_style``.
        """
        states = {NORMS: state_norms} | ({} if state_style is None else {STYLE: state_style})
        smoother = Smoother(keep, states)
        with smoother.active():
            fused = super().forward(ir, vis)
        return fused, *smoother.made.values()
