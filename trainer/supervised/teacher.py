"""The classical fusion that a supervised network imitates: :func:`pyldfusion.kernels.pyramid`, on batches of torch.

It standardises both sources, and so does not depend on what its pupil cannot see: the network's content encoders begin
with instance norms, which remove absolute levels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pyldfusion.kernels import PyramidLook, pyramid

__all__ = ["teach"]


def teach(ir: Tensor, vis: Tensor, look: PyramidLook | None = None) -> Tensor:
    """The picture to imitate.

    Computed on the CPU, which takes a hundredth of a training step, wherever the tensors are.

    Args:
        ir: infrared, [N,1,H,W] float in [0, 1].
        vis: visible luma, the same shape.
        look: what the picture looks like.

    Returns:
        [N,1,H,W] in [0, 1], of ir's dtype and device, without gradients.
    """
    planes = (x.detach()[:, 0].float().cpu().numpy() for x in (ir, vis))
    fused = np.stack([pyramid(*pair, look) for pair in zip(*planes, strict=True)])
    return torch.from_numpy(fused)[:, None].to(ir)
