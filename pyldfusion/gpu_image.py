"""What :mod:`~pyldfusion.image` does to frames of the host, done to arrays of a GPU where they are. Imports torch.

Nothing here waits for the GPU: whatever depends on pixel values is computed there. So values are clipped rather than
checked, and three channels of infrared become their luma whether they differ or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import cuda, torch_ops
from .errors import DtypeError, InputError
from .image import LUMA_BGR, MIN_SIDE, is_on_gpu
from .thermal import PERCENTILES

if TYPE_CHECKING:
    from .registration import Registration

__all__ = ["GpuPair"]

DTYPES = (torch.uint8, torch.uint16, torch.float16, torch.float32, torch.float64)


class GpuPair:
    """A pair of frames of a GPU as the network sees them, and the way back.

    All work is ordered with the stream that is current in the calling thread.

    Args:
        ir: infrared, HxW, HxWx1 or HxWx3; uint8, uint16 or float, with ``__dlpack__`` or
            ``__cuda_array_interface__``, any strides.
        vis: visible, the same choice.
        out: where the result goes, of vis's shape and dtype; None makes a new tensor.
        device: where they have to be.
        color: the order of three channels, ``"bgr"`` or ``"rgb"``.
        thermal: counts of a uint16 ``ir`` that become 0 and 255; None takes its percentiles.
        registration: how frames of other sizes and views lie on each other; None takes frames that do.

    Attributes:
        ir: uint8 [1,H,W,1].
        vis: uint8 [1,H,W,3], BGR; a part of ``vis`` where the registration crops.

    Raises:
        DtypeError: another dtype, or something that is no array of a GPU.
        InputError: another shape or size, or another device. CalibrationError: sizes that were not calibrated.
    """

    def __init__(
        self,
        ir: Any,
        vis: Any,
        out: Any,
        device: torch.device,
        color: str,
        thermal: tuple[float, float] | None,
        registration: Registration | None = None,
    ) -> None:
        thermals, visible = _frame("ir", ir, device), _frame("vis", vis, device)
        self._field = None
        if registration is not None:
            from .gpu_registration import on_device

            self._field = on_device(registration, _size(thermals), _size(visible), device)
        if self._field is not None:
            visible = self._field.crop(visible)
        elif thermals.shape[:2] != visible.shape[:2]:
            (h, w), (height, width) = thermals.shape[:2], visible.shape[:2]
            raise InputError(f"ir is {w}x{h} and vis is {width}x{height} (width x height); expected one size")
        if thermal is not None and thermals.dtype != torch.uint16:
            raise InputError(
                f"thermal is given, but ir has dtype {thermals.dtype}; a range is for uint16 infrared alone"
            )
        self._out = None if out is None else _tensor("out", out, device)
        if self._out is not None and (self._out.dtype, self._out.shape) != (visible.dtype, visible.shape):
            raise InputError(
                f"out is {self._out.dtype} {tuple(self._out.shape)}; expected {visible.dtype} {tuple(visible.shape)}, "
                "as vis is"
            )
        self._vis, self._rgb = visible, color == "rgb"
        plane = _luma(thermals, self._rgb)
        if self._field is not None:
            plane = self._field.warp(plane)
        self.ir = _infrared(plane, thermal)[None, ..., None]
        frame = _to_8bit(visible if visible.ndim == 3 else visible[..., None])
        if frame.shape[2] == 1:
            frame = frame.expand(-1, -1, 3)
        elif self._rgb:
            frame = frame.flip(2)
        self.vis = frame[None]

    def restore(self, fused: Tensor) -> Tensor:
        """The fused frame in the shape, dtype and channel order of the original.

        Args:
            fused: uint8 [1,H,W,3] BGR, what the network made of :attr:`ir` and :attr:`vis`.

        Returns:
            ``out`` if it was given, else a new tensor.
        """
        result = self._restored(fused)
        if self._field is not None:
            result = self._field.visible_outside(result, self._vis)
        if self._out is None:
            return result
        with torch.inference_mode(self._out.is_inference()):  # outside, such a tensor is not written to
            return self._out.copy_(result)

    def _restored(self, fused: Tensor) -> Tensor:
        vis = self._vis
        grey = vis.ndim == 2 or vis.shape[2] == 1
        if vis.dtype == torch.uint8:
            if grey:
                return fused[0, ..., 0].reshape(vis.shape).contiguous()
            return fused[0].flip(2) if self._rgb else fused[0]
        # one number was added to all three channels, and each was clipped: see image._change
        change = fused[0].to(torch.int16) - self.vis[0].to(torch.int16)
        change = change.amax(2).clamp(min=0) + change.amin(2).clamp(max=0)
        if vis.ndim == 3:
            change = change[..., None]
        if vis.dtype == torch.uint16:
            return (vis.to(torch.int32) + change.to(torch.int32) * 257).clamp(0, 65535).to(torch.uint16)
        wide = torch.float64 if vis.dtype == torch.float64 else torch.float32
        return (vis.to(wide) + change.to(wide) / 255).clamp(0, 1).to(vis.dtype)


def _frame(name: str, array: Any, device: torch.device) -> Tensor:
    frame = _tensor(name, array, device)
    if frame.dtype not in DTYPES:
        raise DtypeError(
            f"{name} has dtype {frame.dtype}; expected uint8, uint16 or float (16, 32 or 64 bits) in [0, 1]"
        )
    shape = tuple(frame.shape)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
        raise InputError(f"{name} has shape {shape}; expected HxW, HxWx1 or HxWx3, channels last")
    if min(shape[:2]) < MIN_SIDE:
        raise InputError(f"{name} has shape {shape}; expected at least {MIN_SIDE} pixels a side")
    return frame


def _tensor(name: str, array: Any, device: torch.device) -> Tensor:
    """An array of the GPU as a tensor on the same memory, ready for the current stream."""
    if not is_on_gpu(array):
        raise DtypeError(
            f"{name} is a {type(array).__name__} that is not on a GPU, and the other frames are; expected all of them "
            f"on {device}, or all of them as NumPy arrays"
        )
    try:
        if isinstance(array, Tensor):
            tensor = array
        elif hasattr(array, "__dlpack__"):
            tensor = torch.from_dlpack(array)  # makes the current stream wait for the array
        else:
            tensor = _from_interface(array, device)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise DtypeError(f"{name} is a {type(array).__name__} that torch cannot read: {error}") from error
    if tensor.device != device:
        raise InputError(f"{name} is on {tensor.device}, and this Fuser computes on {device}; copy it there")
    return tensor.detach()


def _from_interface(array: Any, device: torch.device) -> Tensor:
    """By ``__cuda_array_interface__`` alone, whose stream torch does not look at."""
    interface = array.__cuda_array_interface__
    stream = interface.get("stream")
    current = torch.cuda.current_stream(device)
    if stream == 1:  # the legacy default stream
        current.wait_stream(torch.cuda.default_stream(device))
    elif stream == 2:  # the calling thread's default stream, which torch has no name for
        torch.cuda.synchronize(device)
    elif stream is not None:
        current.wait_stream(torch.cuda.ExternalStream(stream, device=device))
    tensor = torch.as_tensor(array, device=device)
    if tensor.data_ptr() != interface["data"][0]:
        raise ValueError(f"its memory is not on {device}")
    return tensor


def _size(frame: Tensor) -> tuple[int, int]:
    """(width, height)."""
    return frame.shape[1], frame.shape[0]


def _luma(ir: Tensor, rgb: bool) -> Tensor:
    """[H,W] of the same dtype."""
    if ir.ndim == 3 and ir.shape[2] == 3:
        weights = LUMA_BGR[::-1] if rgb else LUMA_BGR
        wide = [ir[..., channel].to(torch.float32) * weight for channel, weight in enumerate(weights)]
        luma = wide[0] + wide[1] + wide[2]
        return luma if ir.dtype.is_floating_point else luma.round().to(torch.int32).to(ir.dtype)
    return ir if ir.ndim == 2 else ir[..., 0]


def _infrared(plane: Tensor, thermal: tuple[float, float] | None) -> Tensor:
    """uint8 [H,W]."""
    if plane.dtype != torch.uint16:
        return _to_8bit(plane)
    counts = plane.to(torch.int32)
    if thermal is None:
        low, high = _percentiles(plane)
        high = torch.where(high > low, high, low + 1)
    else:
        low, high = (torch.full((), count, dtype=torch.float64, device=plane.device) for count in thermal)
    grey = ((counts.to(torch.float64) - low) * (255 / (high - low)) + 0.5).floor()
    return grey.clamp(0, 255).to(torch.uint8)


def _percentiles(plane: Tensor) -> Tensor:
    """As :func:`~pyldfusion.thermal.percentile_range`: float64 [2] that stays on the device."""
    if torch_ops.has_kernels(plane.device):
        low_high = torch.empty(2, dtype=torch.float64, device=plane.device)
        cuda.percentiles16(plane, *PERCENTILES, out=low_high)
        return low_high
    ordered = plane.to(torch.int32).flatten().sort().values.to(torch.float64)
    return torch.stack([_at(ordered, percent / 100 * (len(ordered) - 1)) for percent in PERCENTILES])


def _at(ordered: Tensor, place: float) -> Tensor:
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _to_8bit(frame: Tensor) -> Tensor:
    """Full range to full range, rounded, as :mod:`~pyldfusion.image` does it."""
    if frame.dtype == torch.uint8:
        return frame
    if frame.dtype == torch.uint16:
        return ((frame.to(torch.int32) + 128) // 257).to(torch.uint8)
    wide = frame.to(torch.float64 if frame.dtype == torch.float64 else torch.float32)
    return (wide.nan_to_num(0) * 255).round().clamp(0, 255).to(torch.uint8)
