"""Losses as pure functions of planes; the distance between a fused picture and its target.

Every function takes [N,1,H,W] tensors in [0, 1] and returns a scalar, the mean over everything.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["gradient_loss", "gradients", "grid_loss", "pixel_loss", "shade_loss", "structure_loss"]


def pixel_loss(fused: Tensor, target: Tensor, eps: float = 1e-3) -> Tensor:
    """Charbonnier: the L1 distance, smooth within ``eps`` of zero."""
    return ((fused - target).square() + eps * eps).sqrt().mean() - eps


def gradients(x: Tensor) -> Tensor:
    """Sobel derivatives divided by 8 (grey levels a pixel), [N,2,H-2,W-2]: along x, along y."""
    smooth, slope = x.new_tensor([1.0, 2.0, 1.0]), x.new_tensor([-1.0, 0.0, 1.0])
    along_x = torch.outer(smooth, slope)
    kernel = torch.stack((along_x, along_x.T))[:, None] / 8
    return F.conv2d(x, kernel)


def gradient_loss(fused: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of Sobel derivatives, and of the finest differences between neighbours.

    Sobel alone does not see a checkerboard; the neighbour differences do.
    """
    sobel = (gradients(fused) - gradients(target)).abs().mean()
    error = fused - target
    fine = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return sobel + fine / 2


def structure_loss(fused: Tensor, target: Tensor, window: int = 7) -> Tensor:
    """1 - SSIM (Wang et al. 2004) with a flat window, constants (0.01, 0.03)^2, no padding."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, window, 1)

    c1, c2 = 0.01**2, 0.03**2
    mu_f, mu_t = mean(fused), mean(target)
    var_f = mean(fused * fused) - mu_f * mu_f
    var_t = mean(target * target) - mu_t * mu_t
    cov = mean(fused * target) - mu_f * mu_t
    ssim = (2 * mu_f * mu_t + c1) * (2 * cov + c2) / ((mu_f**2 + mu_t**2 + c1) * (var_f + var_t + c2))
    return 1 - ssim.mean()


def grid_loss(fused: Tensor, target: Tensor, period: int = 8, cells: int = 5, flat: float = 0.05) -> Tensor:
    """What of the error repeats with ``period`` over ``cells`` x ``cells`` neighbouring cells; 0 for smaller pictures.

    A decoder that starts at 1/8 of the resolution leaves its grid in flat places, where the eye sees it and the other
    losses, ruled by the error at edges, do not. So does this one look there: neighbourhoods count by
    ``flat^2 / (flat^2 + variance of the target)``.
    """
    height, width = (side // period for side in fused.shape[-2:])
    if min(height, width) < cells:
        return fused.new_zeros(())
    target = target[..., : height * period, : width * period]
    error = fused[..., : height * period, : width * period] - target
    phases = F.avg_pool2d(F.pixel_unshuffle(error, period), cells, 1)
    side = cells * period
    variance = F.avg_pool2d(target.square(), side, period) - F.avg_pool2d(target, side, period).square()
    weight = flat**2 / (flat**2 + variance.clamp(min=0))
    return ((phases - phases.mean(1, keepdim=True)).abs() * weight).mean()


def shade_loss(fused: Tensor, target: Tensor, flat: float = 0.003) -> Tensor:
    """Mean slope of the error at a scale of a few pixels, where the target is flat; 0 for pictures below 14 pixels.

    An edge that a network smears leaves a soft shade beside it. The eye sees it in a flat place, while the other losses
    are ruled by what is steep. So places count by ``flat^2 / (flat^2 + slope of the target^2)``, slopes a pixel.
    """
    if min(fused.shape[-2:]) < 14:
        return fused.new_zeros(())

    def slopes(x: Tensor) -> Tensor:
        """Of x at half its size, smoothed as by a Gaussian of two pixels; a pixel of x."""
        return gradients(F.avg_pool2d(F.avg_pool2d(x, 4, 2), 3, 1)) / 2

    weight = flat**2 / (flat**2 + slopes(target).square().sum(1))
    # smooth at zero, where a root has no gradient
    length = (slopes(fused - target).square().sum(1) + 1e-10).sqrt() - 1e-5
    return (length * weight).mean()
