"""How an engine on a GPU keeps it busy: three batches under way at once, shapes that come again recorded.

A batch goes up, is computed and comes down on three streams, in one of three slots, so that consecutive batches
overlap. What streams, slots and recordings are made of is the engine's own: torch (:mod:`~pyldfusion.engines.lane`) or
the CUDA runtime (:mod:`~pyldfusion.engines.device`). Nothing here imports either.
"""

from __future__ import annotations

import math
import re
import threading
import warnings
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import CudaError, EngineError

__all__ = [
    "SHAPES",
    "Lane",
    "Mark",
    "Pending",
    "Pipeline",
    "Recording",
    "Recordings",
    "Shape",
    "Slot",
    "fits",
    "shape_of",
]

#: N, H and W of a batch; then height and width of the infrared, where it has a size of its own.
Shape: TypeAlias = tuple[int, ...]
#: How many shapes are remembered as having come once.
SHAPES = 64
#: Part of the memory free at opening that recorded graphs may take. The rest is for batches that are not recorded,
#: for staging and for everybody else on the GPU.
GRAPH_SHARE = 0.5
#: What libraries say that find no memory; the last one is torch's where no algorithm of cuDNN finds room to work in.
NO_MEMORY = r"out of memory|ALLOC(ATION)?_FAILED|cudaErrorMemoryAllocation|unable to find an engine"


class Mark(Protocol):
    """A point in a lane that the host can wait for."""

    def synchronize(self) -> object: ...


class Lane(Protocol):
    """A stream of work: what is sent to it, or while it is :meth:`current`, runs in order, beside other lanes."""

    def current(self) -> AbstractContextManager[None]: ...

    def wait(self, other: Any) -> None:
        """Later work of this lane begins after what ``other`` was sent so far."""

    def mark(self) -> Mark | None: ...

    def synchronize(self) -> None: ...


class Slot(ABC):
    """The way of one batch through the device: memory on both sides for what goes in and for what comes out.

    A slot is taken again only when its batch has come out and was copied to memory of its own. So none of its
    buffers is written while something still reads it.

    Attributes:
        host_ir, host_vis, host_fused: the host's, as NumPy arrays [N,H,W,1 or 3]; inputs lie in one piece of memory,
            so that an upload is one copy.
        ir, vis, fused: the device's, as the engine's own arrays.
        pending: the batch that is under way, if there is one.
    """

    host_ir: NDArray[np.uint8]
    host_vis: NDArray[np.uint8]
    host_fused: NDArray[np.uint8]
    ir: Any
    vis: Any
    fused: Any

    def __init__(self) -> None:
        self._room = 0
        self.pending: Pending | None = None

    def fit(self, ir: Shape, vis: Shape) -> bool:
        """Lay out room for frames of those shapes, on the current lane; whether memory was allocated."""
        start = -(-math.prod(ir) // 256) * 256  # of vis, which is then as aligned as an allocation
        size = start + math.prod(vis)
        grows = self._room < size
        if grows:
            self._room = 0
            self.free()  # the old ones go first
            self.allocate(size)
            self._room = size
        self.divide(ir, vis, start, size)
        return grows

    def settle(self) -> None:
        """Wait until the slot is free. What came out is with whoever holds its :class:`Pending`."""
        if self.pending is not None:
            self.pending.collect()
            self.pending = None

    @abstractmethod
    def free(self) -> None:
        """Let go of all memory."""

    @abstractmethod
    def allocate(self, size: int) -> None:
        """Room for ``size`` bytes of input and of output, on both sides."""

    @abstractmethod
    def divide(self, ir: Shape, vis: Shape, start: int, size: int) -> None:
        """Set all six arrays: ``vis`` begins at byte ``start`` of the input, which is ``size`` bytes long."""

    @abstractmethod
    def upload(self, lane: Any) -> None:
        """Send the input to the device, on ``lane``."""

    @abstractmethod
    def download(self, lane: Any) -> None:
        """Fetch the output, on ``lane``."""


class Pending:
    """A batch under way. Calling it waits for the fused frames and gives them, from any thread.

    Args:
        done: after which the frames are there.
        frames: where, uint8 [N,H,W,3]; they are copied from there as soon as somebody asks or needs the room.
    """

    def __init__(self, done: Mark | None, frames: NDArray[np.uint8]) -> None:
        self._done, self._frames = done, frames
        self._lock = threading.Lock()
        self._collected = False
        self._error: RuntimeError | None = None

    def collect(self) -> None:
        """Wait, and have the frames in memory of their own. Raises nothing: errors are for who calls."""
        with self._lock:
            if self._collected:
                return
            try:
                if self._done is not None:
                    self._done.synchronize()  # without the GIL
                self._frames = self._frames.copy()
            except RuntimeError as error:
                self._error = error
            self._collected = True

    def __call__(self) -> NDArray[np.uint8]:
        """The frames; every call gives the same array.

        Raises:
            EngineError: the GPU failed.
        """
        self.collect()
        if self._error is not None:
            raise EngineError(f"the GPU failed: {self._error}") from self._error
        return self._frames


class Recording(Protocol):
    """Work that was recorded and can be done again, with other inputs, on the lane it was recorded on.

    Attributes:
        size: bytes of device memory that it holds.
    """

    size: int

    def fuse(self, ir: Any, vis: Any, fused: Any) -> None: ...


class Recordings:
    """Recordings by shape (N, H, W), of at most ``limit`` bytes together; the least recently used go first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._by_shape: OrderedDict[Shape, Recording] = OrderedDict()

    @property
    def size(self) -> int:
        return sum(recording.size for recording in self._by_shape.values())

    @property
    def shapes(self) -> list[Shape]:
        """The least recently used first."""
        return list(self._by_shape)

    def get(self, shape: Shape) -> Recording | None:
        if shape in self._by_shape:
            self._by_shape.move_to_end(shape)
        return self._by_shape.get(shape)

    def put(self, shape: Shape, recording: Recording) -> list[Recording]:
        """Keep ``recording`` if it fits at all; what had to go, which is ``recording`` itself if it does not."""
        if recording.size > self.limit:
            return [recording]
        gone = []
        while self._by_shape and self.size + recording.size > self.limit:
            gone.append(self._by_shape.popitem(last=False)[1])
        self._by_shape[shape] = recording
        return gone

    def clear(self) -> None:
        self._by_shape.clear()


class Pipeline(ABC):
    """An engine on a GPU, see :class:`~pyldfusion.engines.base.PipelinedEngine`; what it computes with is left open.

    Args:
        lanes: for computing, for what goes up, for what comes down.
        slots: as many as batches may be under way.
        free: bytes of device memory free now.
    """

    depth = 3
    warps = False
    temporal = False

    def __init__(self, lanes: Sequence[Lane], slots: Sequence[Slot], free: int) -> None:
        # of the engine's own kind, which knows more than Lane
        self._compute: Any
        self._upload: Any
        self._download: Any
        self._compute, self._upload, self._download = lanes
        self._slots = list(slots)
        self._recordings = Recordings(int(free * GRAPH_SHARE))
        self._turn = 0
        self._seen: OrderedDict[Shape, None] = OrderedDict()
        self._never_recorded: set[Shape] = set()
        self._can_record = True

    def run(
        self,
        ir: NDArray[np.uint8],
        vis: NDArray[np.uint8],
        homography: NDArray[np.float32] | None = None,
        keep: float = 0.0,
    ) -> NDArray[np.uint8]:
        return self.submit(ir, vis, homography)()

    def submit(
        self, ir: NDArray[np.uint8], vis: NDArray[np.uint8], homography: NDArray[np.float32] | None = None
    ) -> Callable[[], NDArray[np.uint8]]:
        """See :class:`~pyldfusion.engines.base.PipelinedEngine`."""
        if ir.shape[0] != vis.shape[0] or (not self.warps and ir.shape[:3] != vis.shape[:3]):
            raise EngineError(f"ir has shape {ir.shape} and vis has shape {vis.shape}; expected one N, H and W")
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % self.depth
        slot.settle()
        with self._errors():
            try:
                if not fits(lambda: self._send(slot, ir, vis)):
                    self._release()
                    self._send(slot, ir, vis)
            except BaseException:
                self._synchronize()  # what was sent may still read the slot
                raise
            slot.pending = pending = Pending(self._download.mark(), slot.host_fused)
        return pending

    def close(self) -> None:
        for slot in self._slots:
            with suppress(EngineError):  # it is its owner's
                slot.settle()
        with self._errors():  # no memory is given back while another engine records
            self._release()
            self._slots.clear()
            self._unload()
            self._give_back()

    def _send(self, slot: Slot, ir: NDArray[np.uint8], vis: NDArray[np.uint8]) -> None:
        """Send a batch all the way through the device."""
        with self._compute.current():
            if slot.fit(ir.shape, vis.shape):
                # The allocator gives out memory that earlier work on this stream may still use.
                self._upload.wait(self._compute)
        np.copyto(slot.host_ir, ir)
        np.copyto(slot.host_vis, vis)
        slot.upload(self._upload)
        self._compute.wait(self._upload)
        with self._compute.current():
            self._fuse(slot.ir, slot.vis, slot.fused)
        self._download.wait(self._compute)
        slot.download(self._download)

    def _fuse(self, ir: Any, vis: Any, fused: Any) -> None:
        """Send the work on a batch, on the current lane, which is compute's: into ``fused``."""
        if fits(lambda: self._fastest(ir, vis, fused)):
            return
        self._release()
        if fits(lambda: self._eager(ir, vis, fused)):
            return
        self._release()
        self._with_less(ir, vis, fused)

    def _fastest(self, ir: Any, vis: Any, fused: Any) -> None:
        shape = shape_of(ir, vis)
        recording = self._recordings.get(shape)
        if recording is None and self._is_worth_recording(shape):
            recording = self._keep_recording(shape)
        if recording is None:
            self._eager(ir, vis, fused)
        else:
            recording.fuse(ir, vis, fused)

    def _is_worth_recording(self, shape: Shape) -> bool:
        """Whether ``shape`` has come before: pictures of a folder often have a size each, and recording takes time."""
        again = shape in self._seen
        self._seen[shape] = None
        self._seen.move_to_end(shape)
        if len(self._seen) > SHAPES:
            self._seen.popitem(last=False)
        return again and self._can_record and shape not in self._never_recorded

    def _keep_recording(self, shape: Shape) -> Recording | None:
        self._never_recorded.add(shape)  # unless all goes well
        try:
            recording: Recording = self._record(shape)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self._can_record = False
            warnings.warn(f"frames are fused without CUDA graphs, more slowly: recording failed: {error}", stacklevel=2)
            return None
        gone = self._recordings.put(shape, recording)
        if recording not in gone:
            self._never_recorded.discard(shape)
        if gone:
            self._compute.synchronize()  # they may be running
            gone.clear()
            del recording
            self._give_back()
        return self._recordings.get(shape)

    def _synchronize(self) -> None:
        for lane in (self._upload, self._compute, self._download):
            with suppress(RuntimeError):
                lane.synchronize()

    def _release(self) -> None:
        """Give back what is only kept for speed: recordings, and memory that an allocator keeps for later."""
        self._synchronize()
        self._recordings.clear()
        self._give_back()

    @abstractmethod
    def _eager(self, ir: Any, vis: Any, fused: Any) -> None:
        """Compute a batch on the current lane, without a recording."""

    @abstractmethod
    def _record(self, shape: Shape) -> Recording:
        """Record the work on batches of ``shape``."""

    @abstractmethod
    def _with_less(self, ir: Any, vis: Any, fused: Any) -> None:
        """Compute a batch for which there is no memory, even without recordings, or raise EngineError."""

    @abstractmethod
    def _errors(self) -> AbstractContextManager[None]:
        """Within it work is sent; what fails is raised as an error of ours."""

    @abstractmethod
    def _give_back(self) -> None:
        """Return memory that is kept for later to the device."""

    @abstractmethod
    def _unload(self) -> None:
        """Let go of the model."""


def shape_of(ir: Any, vis: Any) -> Shape:
    """What batches are known by."""
    own = tuple(ir.shape[1:3])
    return (*vis.shape[:3], *(own if own != tuple(vis.shape[1:3]) else ()))


def fits(call: Callable[[], object]) -> bool:
    """Whether there was memory for ``call``. If not, its error is gone, and with it the arrays in its traceback."""
    try:
        call()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def is_out_of_memory(error: BaseException | None) -> bool:
    """By what libraries say that allocate memory of a GPU; or because of such an error."""
    while error is not None:
        if isinstance(error, EngineError) and not isinstance(error, CudaError):
            return False
        if re.search(NO_MEMORY, str(error), re.IGNORECASE):
            return True
        error = error.__cause__ or error.__context__
    return False
