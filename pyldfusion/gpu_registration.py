"""What :mod:`~pyldfusion.registration` does to frames of the host, done to tensors of a GPU. Imports torch."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from .registration import Field, Registration

__all__ = ["GpuField", "on_device"]


class GpuField:
    """A :class:`~pyldfusion.registration.Field` on a GPU.

    Args:
        field: for infrared frames of the size ``ir`` (width, height).
        resizes: whether infrared is resized as ``Registration.place`` does it where nothing but sizes is known;
            else it is sampled bilinearly, its border repeated outside.
    """

    def __init__(self, field: Field, ir: tuple[int, int], resizes: bool, device: torch.device) -> None:
        self._box = field.box
        self._tensors: list[Tensor] = []
        self._resizes = resizes
        if resizes:
            self._tensors += [_resizing(before, after, device) for before, after in zip(ir, field.box[2:], strict=True)]
        else:
            self._tensors.append(_grid(field, ir, device))
        self._cover = None if field.cover is None else torch.from_numpy(field.cover).to(device)
        if device.type == "cuda":  # once for frames of one size: whatever stream the next call is on finds them there
            torch.cuda.current_stream(device).synchronize()

    def crop(self, vis: Tensor) -> Tensor:
        """The box of a visible frame [H,W] or [H,W,C], a view."""
        x, y, width, height = self._box
        return vis[y : y + height, x : x + width]

    def warp(self, plane: Tensor) -> Tensor:
        """An infrared plane [H,W] in the box: rounded and in its dtype, a float one as it comes."""
        self._use()
        wide = plane.to(torch.float64 if plane.dtype == torch.float64 else torch.float32)
        if self._resizes:
            columns, rows = self._tensors
            placed = rows.to(wide.dtype) @ wide @ columns.to(wide.dtype).T
        else:
            sampled = grid_sample(
                wide[None, None], self._tensors[0].to(wide.dtype), padding_mode="border", align_corners=True
            )
            placed = sampled[0, 0]
        if plane.dtype.is_floating_point:
            return placed.to(plane.dtype)
        # to int32 first: torch has few operations for uint16
        return placed.round().clamp(0, 255 if plane.dtype == torch.uint8 else 65535).to(torch.int32).to(plane.dtype)

    def visible_outside(self, fused: Tensor, vis: Tensor) -> Tensor:
        """``fused`` where infrared is, ``vis`` where it is not, blended at the edge; [H,W] or [H,W,C] of one dtype."""
        if self._cover is None:
            return fused
        self._use()
        cover = self._cover if vis.ndim == 2 else self._cover[..., None]
        if vis.dtype.is_floating_point:
            mixed = vis + (fused - vis) * cover.to(vis.dtype)
            return torch.where(cover >= 1, fused, torch.where(cover <= 0, vis, mixed))
        here, there = (frame.to(torch.float32) for frame in (fused, vis))
        return (there + (here - there) * cover).round().to(torch.int32).to(vis.dtype)

    def _use(self) -> None:
        """Their memory is not given to others before the work that is now sent is done."""
        for tensor in [*self._tensors, *([] if self._cover is None else [self._cover])]:
            if tensor.is_cuda:
                tensor.record_stream(torch.cuda.current_stream(tensor.device))


#: Gone with the field: what is made of it holds none of it.
_made: WeakKeyDictionary[Field, dict[torch.device, GpuField]] = WeakKeyDictionary()


def on_device(
    registration: Registration, ir: tuple[int, int], vis: tuple[int, int], device: torch.device
) -> GpuField | None:
    """The field of infrared frames of a size (width, height) in visible ones of a size, kept for the next frames.

    None where there is nothing to do: frames of one size, and nothing known beside it.

    Raises:
        InputError, CalibrationError: as ``Registration.field``.
    """
    if registration.only_resizes and ir == vis:
        return None
    field = registration.field(ir, vis)
    there = _made.setdefault(field, {})
    if device not in there:
        there[device] = GpuField(field, ir, registration.only_resizes, device)
    return there[device]


def _resizing(before: int, after: int, device: torch.device) -> Tensor:
    """float32 [after,before]: OpenCV's own weights along one side, from resizing single pixels."""
    single = np.eye(before, dtype=np.float32)
    how = cv2.INTER_AREA if before >= after else cv2.INTER_CUBIC
    return torch.from_numpy(np.asarray(cv2.resize(single, (before, after), interpolation=how), np.float32)).to(device)


def _grid(field: Field, ir: tuple[int, int], device: torch.device) -> Tensor:
    """float32 [1,height,width,2]: where the box's pixels lie in the infrared frame, -1 to 1 from centre to centre."""
    if field.maps is not None:
        x, y = (torch.from_numpy(places).to(device, torch.float64) for places in field.maps)
    else:
        *_, width, height = field.box
        inverse = torch.from_numpy(np.linalg.inv(field.homography)).to(device)
        down, right = torch.meshgrid(
            *(torch.arange(side, dtype=torch.float64, device=device) for side in (height, width)), indexing="ij"
        )
        x, y, unit = (row[0] * right + row[1] * down + row[2] for row in inverse)
        x, y = x / unit, y / unit
    sides = (max(side - 1, 1) / 2 for side in ir)
    return torch.stack([place / side - 1 for place, side in zip((x, y), sides, strict=True)], -1)[None].float()
