"""How much there is to see in a patch: Shannon entropy of its grey levels (Eq. 17 of LDFusion)."""

from __future__ import annotations

import torch
from torch import Tensor

from pyldfusion import kernels, torch_ops
from pyldfusion.errors import DtypeError, InputError

__all__ = ["patch_entropy"]

#: Pixels whose bins are held at once, 8 bytes each.
_PIXELS_AT_ONCE = 1 << 24


@torch.no_grad()
def patch_entropy(patches: Tensor) -> Tensor:
    """Entropy in bits (0 to 8) of each patch's histogram: 256 equal bins on [0, 1], the last one closed.

    Values outside and NaN are not counted; a histogram with nothing in it has 0 bits. On the CPU and on CUDA this is
    the native kernel; elsewhere it is torch. Nothing waits for the device.

    Args:
        patches: [M,h,w] floating point, on any device; half precision is brought to float32 first.

    Returns:
        float64 [M] on the same device, without a gradient.

    Raises:
        InputError, DtypeError: another shape, an empty patch, not floating point.
    """
    if not patches.is_floating_point():
        raise DtypeError(f"patches are {patches.dtype}; expected floating point in [0, 1]")
    if patches.ndim != 3 or not patches.shape[1] * patches.shape[2]:
        raise InputError(f"patches have shape {list(patches.shape)}; expected [M,h,w] with pixels in them")
    if torch_ops.wants(patches):
        return torch_ops.patch_entropy(patches)
    patches = patches.detach().to(torch.promote_types(patches.dtype, torch.float32))
    if patches.device.type == "cpu":
        return torch.from_numpy(kernels.entropy(patches.numpy(), threads=torch.get_num_threads()))
    return histogram_entropy(patches)


def histogram_entropy(patches: Tensor) -> Tensor:
    """:func:`patch_entropy` in torch alone, a few patches at a time. Counts are whole numbers: no order matters."""
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
