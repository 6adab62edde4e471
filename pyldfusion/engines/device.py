"""What :mod:`~pyldfusion.engines.pipeline` needs of CUDA, without torch: by pyldfusion's own module ``_cuda``.

A board that only runs an engine has no torch, which is larger than all else together. ``_cuda`` is built where nvcc is,
and JetPack has that; it holds the kernels for arrays of the device as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import cuda
from ..errors import DtypeError, InputError
from ..image import MIN_SIDE
from ..thermal import PERCENTILES
from . import pipeline

if TYPE_CHECKING:
    from ..registration import Field, Registration

__all__ = ["DevicePair", "Frames", "GraphRecording", "Homographies", "Lane", "Slot", "free_memory"]


def free_memory(device: int) -> int:
    """Bytes of memory that are free on a GPU."""
    free: int = cuda._module().memory(device)[0]
    return free


class Frames(NamedTuple):
    """uint8 frames in the memory of a GPU, dense."""

    address: int
    shape: tuple[int, ...]  # N, H, W, C

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape)


class Lane:
    """See :class:`~pyldfusion.engines.pipeline.Lane`; work is sent to its :attr:`stream` by name."""

    def __init__(self, device: int) -> None:
        self.stream = cuda._module().Stream(device)

    def current(self) -> AbstractContextManager[None]:
        return nullcontext()

    def wait(self, other: Lane) -> None:
        self.stream.wait(other.stream)

    def mark(self) -> pipeline.Mark:
        mark: pipeline.Mark = self.stream.mark()
        return mark

    def synchronize(self) -> None:
        self.stream.synchronize()

    def copy(self, to: Frames, source: Frames) -> None:
        self.stream.copy(to.address, source.address, source.nbytes)


class Slot(pipeline.Slot):
    """See :class:`~pyldfusion.engines.pipeline.Slot`; the device's arrays are :class:`Frames`.

    Args:
        lane: on which the device's memory is allocated and freed.
    """

    def __init__(self, lane: Lane) -> None:
        super().__init__()
        self._lane = lane
        self.free()

    def free(self) -> None:
        nothing: NDArray[np.uint8] = np.empty(0, np.uint8)
        self.host_ir = self.host_vis = self.host_fused = nothing
        self.ir = self.vis = self.fused = Frames(0, (0, 0, 0, 0))
        self._host = (nothing, nothing)
        self._device: tuple[Any, ...] = ()
        self._sizes = (0, 0)

    def allocate(self, size: int) -> None:
        module, stream = cuda._module(), self._lane.stream
        self._host = module.pinned(size, stream.device), module.pinned(size, stream.device)
        self._device = tuple(module.empty([size], stream.device, stream) for _ in range(2))

    def divide(self, ir: pipeline.Shape, vis: pipeline.Shape, start: int, size: int) -> None:
        host_in, host_out = self._host
        self.host_ir = host_in[: math.prod(ir)].reshape(ir)
        self.host_vis = host_in[start:size].reshape(vis)
        self.host_fused = host_out[: math.prod(vis)].reshape(vis)
        into, out_of = (array.pointer for array in self._device)
        self.ir, self.vis, self.fused = Frames(into, ir), Frames(into + start, vis), Frames(out_of, vis)
        self._sizes = size, math.prod(vis)

    def upload(self, lane: Lane) -> None:
        lane.stream.copy(self._device[0].pointer, self._host[0].ctypes.data, self._sizes[0])

    def download(self, lane: Lane) -> None:
        lane.stream.copy(self._host[1].ctypes.data, self._device[1].pointer, self._sizes[1])


class GraphRecording:
    """Work on a batch of one shape as a CUDA graph; see :class:`~pyldfusion.engines.pipeline.Recording`.

    Args:
        lane: where it is recorded and will run.
        shape: of the batch, see :data:`~pyldfusion.engines.pipeline.Shape`.
        work: puts the work on the lane, from and to the frames it is given. It is called twice: libraries prepare
            themselves at first use, which cannot be recorded.
    """

    def __init__(self, lane: Lane, shape: pipeline.Shape, work: Callable[[Frames, Frames, Frames], None]) -> None:
        stream = lane.stream
        self._lane = lane
        n, h, w, *own = shape
        shapes = [n, *(own or (h, w)), 1], [n, h, w, 3], [n, h, w, 3]
        self._memory = [cuda._module().empty(shape, stream.device, stream) for shape in shapes]
        self._ir, self._vis, self._fused = (Frames(array.pointer, tuple(array.shape)) for array in self._memory)
        self.size = sum(array.nbytes for array in self._memory)
        work(self._ir, self._vis, self._fused)
        self._graph = stream.record(lambda: work(self._ir, self._vis, self._fused))

    def fuse(self, ir: Frames, vis: Frames, fused: Frames) -> None:
        self._lane.copy(self._ir, ir)
        self._lane.copy(self._vis, vis)
        self._graph.launch(self._lane.stream)
        self._lane.copy(fused, self._fused)


class Homographies:
    """Matrices of a batch in one place of the device, where every batch finds them: those of a rig seldom change.

    Args:
        lane: on which batches read them.
    """

    #: Frames at once.
    MOST = 256

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._here: NDArray[np.float32] = np.empty((0, 3, 3), np.float32)
        self._host: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._device: Any = None

    @property
    def address(self) -> int:
        """Where they are; it stays, because recorded work reads there."""
        if self._device is None:
            module, stream = cuda._module(), self._lane.stream
            self._host = module.pinned(self.MOST * 36, stream.device)
            self._device = module.empty([self.MOST * 36], stream.device, stream)
        address: int = self._device.pointer
        return address

    def lay(self, matrices: NDArray[np.float32]) -> None:
        """Have ``matrices``, float32 [N,3,3], there for what is sent from now on.

        Raises:
            InputError: more of them than there is room for.
        """
        if np.array_equal(matrices, self._here):
            return
        if len(matrices) > self.MOST:
            raise InputError(f"{len(matrices)} homographies at once; expected at most {self.MOST}")
        address = self.address
        self._lane.synchronize()  # what was sent reads the old ones, and the copy before reads the host's
        self._host[: matrices.nbytes] = np.ascontiguousarray(matrices).reshape(-1).view(np.uint8)
        self._lane.stream.copy(address, self._host.ctypes.data, matrices.nbytes)
        self._here = matrices.copy()


class DevicePair:
    """A pair of arrays of a GPU as the network sees them, and the way back; the counterpart of GpuPair without torch.

    Args:
        ir: infrared, uint8 or uint16, [H,W], [H,W,1] or [H,W,3]; with ``__dlpack__`` or ``__cuda_array_interface__``.
        vis: visible, uint8 [H,W,3].
        out: uint8 [H,W,3] to write to, or None.
        lane: where all work is put. It begins after, and what the arrays' own streams hold next comes after it.
        color: order of channels.
        thermal: counts of a uint16 ``ir`` that become 0 and 255; None takes its percentiles.
        stream: the caller's: an object of torch or CuPy, or a handle. All begins after what is on it now, and what
            comes on it later comes after; beside the arrays' own streams.
        registration: how infrared of another size or view lies on ``vis``. Percentiles are then those of all of ``ir``.

    Raises:
        DtypeError, InputError: another type, shape or layout; an array that is on no GPU, or another one; a
            registration with lenses, or one that shows the visible frame alone beside the infrared one.
    """

    def __init__(
        self,
        ir: Any,
        vis: Any,
        out: Any,
        lane: Lane,
        color: str,
        thermal: tuple[float, float] | None,
        stream: Any = None,
        registration: Registration | None = None,
    ) -> None:
        self._lane, self._out, self._color = lane, out, color
        visible, thermals = cuda.asarray(vis), cuda.asarray(ir)
        self._streams = {array.stream for array in (visible, thermals) if array.stream is not None}
        self._streams |= {stream} if stream is not None else set()
        for stream in self._streams:
            lane.stream.wait(stream)
        if visible.dtype != "uint8":
            raise DtypeError(f"vis is {visible.dtype}; on the GPU this engine takes uint8, or give NumPy arrays")
        if visible.ndim != 3 or visible.shape[2] != 3 or min(visible.shape[:2]) < MIN_SIDE:
            raise InputError(
                f"vis has shape {tuple(visible.shape)}; expected [H,W,3] of at least {MIN_SIDE} pixels a side"
            )
        field = _field(registration, thermals, visible)
        if field is not None:
            visible = _cropped(visible, field.box)
        h, w = visible.shape[0], visible.shape[1]
        self._size = h, w
        if field is None and tuple(thermals.shape[:2]) != (h, w):
            raise InputError(f"ir has shape {tuple(thermals.shape)}; expected the height and width of vis, {h} and {w}")
        if thermal is not None and thermals.dtype != "uint16":
            raise InputError(f"thermal is given, but ir is {thermals.dtype}; a range is for uint16 infrared alone")
        grey = thermals.ndim == 2 or thermals.shape[2] == 1
        if thermals.dtype not in ("uint8", "uint16") or not (grey or thermals.dtype == "uint8"):
            raise DtypeError(
                f"ir is {thermals.dtype} {tuple(thermals.shape)}; on the GPU this engine takes uint8, or uint16 of one "
                "channel; or give NumPy arrays"
            )
        gain: Any = thermal
        if thermals.dtype == "uint16" and thermal is None:
            gain = cuda.percentiles16(_plane(thermals), *PERCENTILES, stream=lane.stream)
        resizes = field is None or (registration is not None and registration.only_resizes)
        matrix = None if field is None or resizes else np.linalg.inv(field.homography)
        self._ir = cuda.frame_to_plane(
            thermals,
            "grey" if grey else color,
            size=(w, h),
            matrix=matrix,
            gain=gain,
            dtype="uint8",
            stream=lane.stream,
        )
        self._vis = self._converted(visible, color, "bgr") if color == "rgb" or not _is_dense(visible) else visible
        self._fused = cuda._module().empty([h, w, 3], lane.stream.device, lane.stream)

    @property
    def ir(self) -> Frames:
        return Frames(self._ir.pointer, (1, *self._size, 1))

    @property
    def vis(self) -> Frames:
        return Frames(self._vis.pointer, (1, *self._size, 3))

    @property
    def fused(self) -> Frames:
        """Where the network leaves its result."""
        return Frames(self._fused.pointer, (1, *self._size, 3))

    def restore(self) -> Any:
        """``out``, or a new DeviceArray [H,W,3], with the fused frame in the order of the visible one's channels."""
        result = self._fused
        if self._out is not None or self._color == "rgb":
            result = self._converted(result, "bgr", self._color, self._out)
        self.release()
        return result

    def release(self) -> None:
        """From here on the arrays are their owners' again."""
        for stream in self._streams:
            self._lane.stream.before(stream)

    def _converted(self, frame: Any, source: str, to: str, out: Any = None) -> Any:
        """A frame with its channels in another order, dense: nothing of a fused plane is taken over."""
        stream = self._lane.stream
        none_of_it = cuda.to_device(np.zeros(self._size, np.uint8), stream.device, stream=stream)
        return cuda.plane_to_frame(none_of_it, frame, source, to=to, cover=none_of_it, out=out, stream=stream)


def _field(registration: Registration | None, ir: Any, vis: Any) -> Field | None:
    """Where infrared lies; None where nothing but the frames' one size says it.

    Raises:
        InputError: a field that this engine has no kernel for.
    """
    if registration is None:
        return None
    sizes = (ir.shape[1], ir.shape[0]), (vis.shape[1], vis.shape[0])
    if registration.only_resizes and sizes[0] == sizes[1]:
        return None
    field = registration.field(*sizes)
    if field.maps is not None:
        raise InputError("this engine has no lenses on the GPU; undistort the frames before, or give NumPy arrays")
    if field.cover is not None:
        raise InputError(
            "this engine cannot show the visible frame alone beside the infrared one on the GPU; take outside='crop' "
            "or 'repeat', or give NumPy arrays"
        )
    return field


def _plane(array: Any) -> Any:
    """[H,W,1] as [H,W], on the same memory."""
    return array if array.ndim == 2 else _part(array, 0, array.shape[:2])


def _cropped(frame: Any, box: tuple[int, int, int, int]) -> Any:
    """The box (x, y, width, height) of a frame [H,W,C], on the same memory."""
    x, y, width, height = box
    return _part(frame, y * frame.strides[0] + x * frame.strides[1], (height, width, frame.shape[2]))


def _part(array: Any, start: int, shape: Sequence[int]) -> Any:
    """A part of an array that begins ``start`` elements in, along its first axes."""
    address = array.pointer + start * np.dtype(array.dtype).itemsize
    made = cuda._module().DeviceArray(
        address, array.dtype, list(shape), list(array.strides[: len(shape)]), array.device,
        stream=array.stream, owner=array, trusted=True,
    )  # fmt: skip
    return made


def _is_dense(array: Any) -> bool:
    step = 1
    strides: list[int] = []
    for side in reversed(array.shape):
        strides.insert(0, step)
        step *= side
    return tuple(array.strides) == tuple(strides)
