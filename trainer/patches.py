"""Patches: random crops, each turned, shifted, enlarged and sheared a little, all cut in one resampling.

A crop and its affine map are the same for every picture of a step and for the infrared, visible and fused plane, so
the planes of a batch are the channels of ONE image, and the sampling points of all crops are one tall grid on it. The
loss looks at fused patches alone; of the sources' it needs the entropy, which entropy.py takes without cutting them.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pyldfusion.errors import DtypeError, InputError

from .config import PatchConfig

__all__ = ["Patches", "cut_patches", "draw_patches", "inverse_maps"]

#: Keeps these draws apart from others of the same seed and step.
_STREAM = zlib.crc32(b"patches")

#: Beyond any picture in grid_sample's coordinates (-1 to 1): all four neighbours are outside and count 0.
_FAR = 4.0


@dataclass(frozen=True)
class Patches:
    """Where the patches of a step lie.

    Attributes:
        height, width: of the pictures they were drawn for.
        boxes: int64 [count,3]: left, top and side of each square crop in pixels.
        maps: float64 [count,2,3]: from a point (x, y, 1) of the patch to one of the crop, both in pixels of the crop
            from its centre.
    """

    height: int
    width: int
    boxes: NDArray[np.int64]
    maps: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.boxes)


def draw_patches(config: PatchConfig, height: int, width: int, seed: int, step: int) -> Patches:
    """Draw the crops of a step: each is a function of (seed, step, its index) alone.

    Sides are whole numbers, positions uniform. The maps are those of torchvision's ``RandomAffine``: turned, moved
    down by whole pixels (by up to ``shift`` of the side, never sideways), enlarged and sheared along x, about the
    crop's centre. A picture smaller than the side drawn is cut as large as it is.

    Args:
        config: how many, how large, how much.
        height, width: of the pictures, in pixels.
        seed, step: whole numbers from 0.

    Raises:
        InputError: pictures without pixels, a negative seed or step.
    """
    if min(height, width) < 1 or min(seed, step) < 0:
        raise InputError(
            f"patches of a {width}x{height} picture for seed {seed}, step {step}; expected at least 1x1 and no "
            "negative seed or step"
        )
    draws = np.random.default_rng([_STREAM, seed, step]).random((config.count, 7))  # row i does not depend on count
    if config.one_side:
        draws[:, 0] = draws[:1, 0]
    least, most = config.side
    side = np.minimum(least + np.floor(draws[:, 0] * (most - least + 1)), min(height, width))
    left, top = (np.floor(draws[:, i] * (size - side + 1)) for i, size in ((1, width), (2, height)))

    def about_zero(draw: NDArray[np.float64]) -> NDArray[np.float64]:
        return 2 * draw - 1

    angle, shear = (
        np.radians(degrees * about_zero(draws[:, i])) for i, degrees in ((3, config.degrees), (4, config.shear))
    )
    down = np.rint(config.shift * side * about_zero(draws[:, 5]))
    scale = config.scale[0] + (config.scale[1] - config.scale[0]) * draws[:, 6]
    boxes = np.stack([left, top, side], axis=1).astype(np.int64)
    return Patches(height, width, boxes, inverse_maps(angle, down, scale, shear))


def inverse_maps(
    angle: NDArray[np.float64], down: NDArray[np.float64], scale: NDArray[np.float64], shear: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Inverses, float64 [n,2,3], of: shear along x, turn, enlarge, then move down (torchvision's ``RandomAffine``).

    Args:
        angle, shear: [n] in radians; y points down.
        down: [n] in pixels.
        scale: [n], above 0.

    Returns:
        Maps from a point (x, y, 1) of the result to one of the source, both counted from the centre.
    """
    cos, sin, tan = np.cos(angle), np.sin(angle), np.tan(shear)
    forward = scale * np.array([[cos, -cos * tan - sin], [sin, -sin * tan + cos]])  # [2,2,n]
    inverse = np.linalg.inv(np.moveaxis(forward, -1, 0))
    return np.concatenate([inverse, -inverse[:, :, 1:] * down[:, None, None]], axis=2)


def cut_patches(planes: Tensor, patches: Patches, size: int) -> Tensor:
    """Cut every patch from every plane: crop, affine map and resize composed, sampled once, bilinearly.

    Points are where ``F.interpolate(crop, size, mode="bilinear", align_corners=False)`` would have them: a patch
    whose map is the identity is that picture. What the map brings in from outside the crop is 0, and pixels beside
    the crop are never looked at.

    Args:
        planes: [P,H,W] floating point, any number of planes of the size the patches were drawn for; differentiable.
        patches: from :func:`draw_patches`.
        size: side of the patches, in pixels.

    Returns:
        [count,P,size,size] in the planes' type. Values are means of the planes' values, to rounding.

    Raises:
        InputError, DtypeError: planes of another shape, a size below 1, not floating point.
    """
    check_planes(planes, patches, size)
    count = len(patches)
    grid = _sampling_points(patches, size, planes.device, planes.dtype)
    tall = F.grid_sample(planes[None], grid.view(1, count * size, size, 2), padding_mode="zeros", align_corners=False)
    return tall.view(len(planes), count, size, size).transpose(0, 1)


def check_planes(planes: Tensor, patches: Patches, size: int) -> None:
    """Refuse planes of which these patches cannot be cut; see :func:`cut_patches`."""
    if not planes.is_floating_point():
        raise DtypeError(f"planes are {planes.dtype}; expected floating point")
    if planes.ndim != 3 or planes.shape[1:] != (patches.height, patches.width):
        raise InputError(
            f"planes have shape {list(planes.shape)}; expected [P,{patches.height},{patches.width}], the size that the "
            "patches were drawn for"
        )
    if size < 1:
        raise InputError(f"patches of {size} pixels; expected a side of at least 1")


def _sampling_points(patches: Patches, size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Where in the picture each pixel of each patch is looked up: [count,size,size,2] as ``F.grid_sample`` wants it."""
    boxes = torch.from_numpy(patches.boxes).to(device, dtype, non_blocking=True)
    maps = torch.from_numpy(patches.maps).to(device, dtype, non_blocking=True)
    corner, side = boxes[:, None, None, :2], boxes[:, None, None, 2:]
    steps = (torch.arange(size, device=device, dtype=dtype) + 0.5) / size - 0.5  # pixels' centres, the side being 1
    steps = steps * side[:, 0]  # [count,1,size] -> in pixels of the crop
    x, y = steps.view(-1, 1, size, 1), steps.view(-1, size, 1, 1)
    along_x, along_y, offset = (maps[:, None, None, :, axis] for axis in range(3))
    points = x * along_x + y * along_y + offset  # [count,size,size,2] from the crop's centre
    outside = (points.abs() > side / 2).any(-1, keepdim=True)
    # up to half a pixel beyond the outermost centres the outermost pixel is all there is
    inside_crop = (points + (side - 1) / 2).minimum(side - 1).clamp(min=0)
    extent = torch.tensor([patches.width, patches.height]).to(device, dtype, non_blocking=True)
    grid = (2 * (corner + inside_crop) + 1) / extent - 1
    return grid.masked_fill(outside, _FAR)
