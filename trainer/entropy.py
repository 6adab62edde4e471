"""How much there is to see in a patch: Shannon entropy of its grey levels (Eq. 17 of LDFusion)."""

from __future__ import annotations

import torch
from torch import Tensor

from pyldfusion import torch_ops

from .patches import Patches, check_planes, cut_patches

__all__ = ["patch_entropy"]

#: Pixels whose bins are held at once, 8 bytes each.
_PIXELS_AT_ONCE = 1 << 24


@torch.no_grad()
def patch_entropy(planes: Tensor, patches: Patches, size: int) -> Tensor:
    """Entropy in bits (0 to 8) of the histogram of each patch that :func:`~trainer.patches.cut_patches` would cut.

    256 equal bins on [0, 1], the last one closed; a histogram with nothing in it has 0 bits. On the CPU, and on CUDA
    where its kernels are, pixels are looked up and counted in float32 and no patch is stored; elsewhere patches are
    cut and counted in torch. Nothing waits for the device.

    Args:
        planes: [P,H,W] floating point in [0, 1], of the size the patches were drawn for, on any device.
        patches: from :func:`~trainer.patches.draw_patches`.
        size: side of the patches, in pixels.

    Returns:
        float64 [count,P] on the same device, without a gradient.

    Raises:
        InputError, DtypeError: as :func:`~trainer.patches.cut_patches`.
    """
    check_planes(planes, patches, size)
    if planes.device.type == "cpu" or torch_ops.wants(planes):
        boxes, maps = (
            torch.from_numpy(array).to(planes.device, dtype, non_blocking=True)
            for array, dtype in ((patches.boxes, torch.int32), (patches.maps, torch.float32))
        )
        return torch_ops.patch_entropy_affine(planes, boxes, maps, size)
    # means of values in [0, 1] that rounding put outside would not be counted
    cut = cut_patches(planes, patches, size).clamp(0, 1)
    return histogram_entropy(cut.flatten(0, 1)).view(cut.shape[:2])


def histogram_entropy(patches: Tensor) -> Tensor:
    """Entropy of stored patches [M,h,w] in torch alone, a few at a time: float64 [M].

    Values outside [0, 1] and NaN are not counted. Counts are whole numbers: no order matters.
    """
    pixels = patches.flatten(1)
    counts = torch.zeros(len(pixels), 257, dtype=torch.int32, device=pixels.device)
    at_once = max(1, _PIXELS_AT_ONCE // pixels.shape[1])
    for values, count in zip(pixels.split(at_once), counts.split(at_once), strict=True):
        inside = (values >= 0) & (values <= 1)
        bins = torch.where(inside, (values * 256).clamp(max=255), 256).long()  # * 256 is exact; 256 is thrown away
        count.scatter_add_(1, bins, torch.ones((), dtype=torch.int32, device=bins.device).expand_as(bins))
    counts = counts[:, :256].double()
    total = counts.sum(1, keepdim=True)
    # c (log2 total - log2 c) / total, so that a constant patch has exactly 0 bits
    bits = counts * (total.clamp(min=1).log2() - counts.clamp(min=1).log2())
    return bits.sum(1) / total[:, 0].clamp(min=1)
