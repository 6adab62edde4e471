"""Frames as users have them, checked and turned into what the graph takes, and the result turned back.

The graph takes uint8 with the visible frame in three channels, BGR. A uint8 colour frame passes through as it is.
16-bit and float frames are shown to the network rounded to 8 bits; what fusion changes in the luma is then added to
the original, which keeps its depth.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from .errors import DtypeError, InputError
from .kernels import add_luma, scale16
from .thermal import to_8bit

__all__ = [
    "COLORS",
    "MIN_SIDE",
    "Visible",
    "check_color",
    "check_frame",
    "check_out",
    "check_pair",
    "infrared_to_8bit",
    "is_on_gpu",
    "is_palette",
]

#: The order of colour channels in a frame: OpenCV's, and everybody else's.
COLORS = ("bgr", "rgb")
#: Smallest height and width: three halvings must leave the network the 2 pixels that a reflection by 1 needs.
MIN_SIDE = 16
#: Weights of blue, green and red in the luma (ITU-R BT.601, as OpenCV's COLOR_BGR2YCrCb).
LUMA_BGR = (0.114, 0.587, 0.299)
#: By how much a float may leave [0, 1]: the rounding of a weighted sum of channels.
_SLACK = 1e-5
#: kDLCUDA and kDLCUDAManaged of DLPack.
_DLPACK_CUDA = (2, 13)


def check_color(color: str) -> str:
    """``color`` if it is one of :data:`COLORS`.

    Raises:
        InputError: it is not.
    """
    if not isinstance(color, str) or color not in COLORS:
        raise InputError(f"color is {color!r}; expected 'bgr' (as OpenCV reads pictures) or 'rgb'")
    return color


def check_pair(ir: Any, vis: Any, *, one_size: bool = True) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both frames if they can be fused, as plain arrays in the machine's byte order.

    Args:
        ir: HxW, HxWx1 or HxWx3; uint8, uint16 or float in [0, 1].
        vis: the same choice, of the same height and width.
        one_size: whether they must be; not where a homography says how they lie.

    Raises:
        DtypeError: not an array, or of another element type.
        InputError: another shape, empty, under 16 pixels a side, sizes that differ, floats that are NaN or outside.
    """
    ir, vis = check_frame("ir", ir), check_frame("vis", vis)
    if one_size and ir.shape[:2] != vis.shape[:2]:
        raise InputError(
            f"ir is {ir.shape[1]}x{ir.shape[0]} and vis is {vis.shape[1]}x{vis.shape[0]} (width x height); expected "
            "one size, or a homography; pyldfusion.registration brings the infrared frame onto the visible one"
        )
    return ir, vis


def check_frame(name: str, frame: Any) -> NDArray[Any]:
    """One frame of a pair, as :func:`check_pair` checks it."""
    if not isinstance(frame, np.ndarray):
        raise DtypeError(f"{name} is a {type(frame).__name__}; expected a NumPy array")
    dtype = frame.dtype
    if not (dtype.kind == "u" and dtype.itemsize <= 2) and not (dtype.kind == "f" and dtype.itemsize <= 8):
        raise DtypeError(f"{name} has dtype {dtype}; expected uint8, uint16 or float (16, 32 or 64 bits) in [0, 1]")
    if frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] not in (1, 3)):
        hint = ""
        if frame.ndim == 3:
            hint = "; drop the alpha channel" if frame.shape[2] == 4 else "; channels come last"
        elif frame.ndim == 4:
            hint = "; several frames go to fuse_batch"
        raise InputError(f"{name} has shape {frame.shape}; expected HxW, HxWx1 or HxWx3{hint}")
    if frame.size == 0 or min(frame.shape[:2]) < MIN_SIDE:
        raise InputError(f"{name} has shape {frame.shape}; expected at least {MIN_SIDE} pixels a side")
    if dtype.kind == "f":
        low, high = frame.min(), frame.max()
        if not (low >= -_SLACK and high <= 1 + _SLACK):  # false for NaN too
            raise InputError(f"{name} has values from {low:g} to {high:g}; expected floats in [0, 1] and no NaN")
    return np.asarray(frame, dtype.newbyteorder("="))


def is_on_gpu(frame: Any) -> bool:
    """Whether ``frame`` is an array in the memory of an NVIDIA GPU, as it says itself."""
    if isinstance(frame, np.ndarray):
        return False
    try:
        return frame.__dlpack_device__()[0] in _DLPACK_CUDA
    except Exception:  # no such method, or one that does not work
        pass
    try:
        return hasattr(frame, "__cuda_array_interface__")
    except Exception:
        return False


def check_out(out: Any, vis: NDArray[Any]) -> None:
    """Whether ``out`` can take the result for ``vis``: its shape, its dtype, writeable.

    Raises:
        DtypeError: not an array, or another dtype.
        InputError: another shape, or read-only.
    """
    if not isinstance(out, np.ndarray):
        raise DtypeError(f"out is a {type(out).__name__}; expected a NumPy array of vis's shape and dtype")
    if out.dtype != vis.dtype:
        raise DtypeError(f"out has dtype {out.dtype}; expected {vis.dtype}, as vis has")
    if out.shape != vis.shape:
        raise InputError(f"out has shape {out.shape}; expected {vis.shape}, as vis has")
    if not out.flags.writeable:
        raise InputError("out is read-only; expected an array that can be written")


def is_palette(ir: NDArray[Any]) -> bool:
    """Whether an infrared frame is in false colours, not a measurement.

    Grey that went through a video codec is not, though its channels differ by a few levels: of a palette more than one
    pixel in a hundred has channels that are 16 levels apart. One pixel in sixteen is looked at.
    """
    if _is_grey(ir):
        return False
    some = ir[::4, ::4].astype(np.float32)
    level = {"u1": 1.0, "u2": 257.0}.get(ir.dtype.str[1:], 1 / 255)
    return float(np.mean(np.ptp(some, axis=2) > 16 * level)) > 0.01


def _is_grey(frame: NDArray[Any]) -> bool:
    """One channel, or three that are equal."""
    if frame.ndim == 2 or frame.shape[2] == 1:
        return True
    blue, green, red = (frame[..., channel] for channel in range(3))
    return np.array_equal(blue, green) and np.array_equal(green, red)


def infrared_to_8bit(
    ir: NDArray[Any], color: str = "bgr", thermal: tuple[float, float] | None = None
) -> NDArray[np.uint8]:
    """An infrared frame as the network sees it.

    Args:
        ir: a frame that passed :func:`check_pair`. Three channels that differ become their luma.
        color: the order of its channels, if it has three.
        thermal: for uint16 alone: the counts that become 0 and 255; None takes the 0.5 and 99.5 percentiles.

    Returns:
        uint8 [H,W], C-contiguous; ``ir`` itself where it is that already.
    """
    plane = ir if ir.ndim == 2 else ir[..., 0] if _is_grey(ir) else _luma(ir, color)
    if plane.dtype == np.uint16:
        return to_8bit(plane, thermal)
    return _to_8bit(plane)


def _luma(frame: NDArray[Any], color: str) -> NDArray[Any]:
    """Luma of a frame of three channels [H,W,3], in its own dtype and range (floats as float32)."""
    import cv2

    code = cv2.COLOR_BGR2GRAY if color == "bgr" else cv2.COLOR_RGB2GRAY
    dtype = np.float32 if frame.dtype.kind == "f" else frame.dtype
    return cast("NDArray[Any]", cv2.cvtColor(np.ascontiguousarray(frame, dtype), code))


def _to_8bit(frame: NDArray[Any]) -> NDArray[np.uint8]:
    """Full range to full range, rounded: uint8 as it is, uint16 by 257, floats by 255. C-contiguous."""
    if frame.dtype == np.uint8:
        return np.ascontiguousarray(frame)
    if frame.dtype == np.uint16:
        return scale16(frame.reshape(len(frame), -1), 0, 65535).reshape(frame.shape)
    scaled = np.multiply(frame, np.float32(255), order="C")
    np.rint(scaled, out=scaled)
    return np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)


class Visible:
    """A visible frame as the network sees it, and the way back from the fused frame to the original's kind.

    Args:
        vis: a frame that passed :func:`check_pair`.
        color: the order of its channels, if it has three.

    Attributes:
        frame: uint8 [H,W,3] BGR, C-contiguous; ``vis`` itself where it is that already.
    """

    def __init__(self, vis: NDArray[Any], color: str = "bgr") -> None:
        import cv2

        self._vis, self._color = vis, color
        self.frame = _to_8bit(vis)
        self._grey = vis.ndim == 2 or vis.shape[2] == 1
        if self._grey or color == "rgb":
            code = cv2.COLOR_GRAY2BGR if self._grey else cv2.COLOR_RGB2BGR
            self.frame = cast("NDArray[np.uint8]", cv2.cvtColor(self.frame, code))

    def restore(self, fused: NDArray[np.uint8]) -> NDArray[Any]:
        """The fused frame in the shape, dtype and channel order of the original.

        Args:
            fused: uint8 [H,W,3] BGR that the graph made of :attr:`frame`; may be overwritten.

        Returns:
            An array that shares memory with ``fused`` or is new, never with the original.
        """
        import cv2

        vis = self._vis
        if vis.dtype == np.uint8:
            if self._grey:  # grey in, so the three are one
                return cast("NDArray[Any]", cv2.extractChannel(fused, 0)).reshape(vis.shape)
            return fused if self._color == "bgr" else cv2.cvtColor(fused, cv2.COLOR_BGR2RGB, dst=fused)
        change = _change(fused, self.frame)
        if vis.dtype == np.float16:
            return add_luma(vis.astype(np.float32), change).astype(np.float16)
        return add_luma(vis, change)


def _change(fused: NDArray[np.uint8], frame: NDArray[np.uint8]) -> NDArray[np.int16]:
    """What the graph added to the luma of each pixel: int16 [H,W], in grey levels.

    It added one number to all three channels and clipped each. Clipping takes from the number, so the channel that
    changed most has the whole of it, or all that fits.
    """
    import cv2

    blue, green, red = cv2.split(cv2.subtract(fused, frame, dtype=cv2.CV_16S))
    rise = cv2.max(cv2.max(blue, green), red)
    fall = cv2.min(cv2.min(blue, green), red)
    return cast("NDArray[np.int16]", np.maximum(rise, 0) + np.minimum(fall, 0))
