"""What the GPU engine needs of CUDA: streams, staging memory and recorded graphs. Imports torch.

All of it also works on a CPU, where work is done when a call returns: streams order nothing, memory is not pinned and
a recording computes anew. That is how the engine's own logic is tested on machines without a GPU.
"""

from __future__ import annotations

import gc
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import EngineError

__all__ = ["SENDING", "Lane", "Pending", "Recording", "Recordings", "Slot", "own_mode", "record", "settings"]

#: torch gives streams out of a pool of 32 a device, so two engines may be on one stream. What one of them records
#: would contain what the other sends meanwhile, so that sending work is one engine's turn at a time in a process.
SENDING = threading.RLock()


class Lane:
    """A stream of work: what is sent while it is :meth:`current` runs in order, beside other lanes."""

    def __init__(self, device: torch.device, stream: torch.cuda.Stream | None = None) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if stream is None and device.type == "cuda" else stream

    @classmethod
    def of_caller(cls, device: torch.device) -> Lane:
        """The stream that is current in the calling thread."""
        return cls(device, torch.cuda.current_stream(device) if device.type == "cuda" else None)

    def current(self) -> AbstractContextManager[None]:
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    def wait(self, other: Lane) -> None:
        """Later work of this lane begins after what ``other`` was sent so far."""
        if self.stream is not None and other.stream is not None:
            self.stream.wait_stream(other.stream)

    def mark(self) -> torch.cuda.Event | None:
        """A point that the host can wait for."""
        return None if self.stream is None else self.stream.record_event()

    def synchronize(self) -> None:
        if self.stream is not None:
            self.stream.synchronize()


class Slot:
    """The way of one batch through the device: memory on both sides for what goes in and for what comes out.

    A slot is taken again only when its batch has come out and was copied to memory of its own. So none of its
    buffers is written while something still reads it.

    Attributes:
        host_in, device_in: flat uint8, one piece of memory, so that an upload is one copy.
        host_out, device_out: flat uint8.
        host_ir, host_vis, host_fused: the host's, as NumPy arrays [N,H,W,1 or 3].
        ir, vis, fused: the device's.
        pending: the batch that is under way, if there is one.
    """

    host_in: Tensor
    device_in: Tensor
    host_out: Tensor
    device_out: Tensor

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: list[Tensor] = []
        self.pending: Pending | None = None

    def fit(self, shape: tuple[int, int, int]) -> bool:
        """Lay out room for frames of ``shape`` (N, H, W), on the current stream; whether memory was allocated."""
        n, h, w = shape
        pixels = n * h * w
        start = -(-pixels // 256) * 256  # of vis, which is then as aligned as an allocation
        size = start + 3 * pixels
        grows = not self._buffers or len(self._buffers[0]) < size
        if grows:
            self._buffers = []  # the old ones go first
            self.host_in = self.device_in = self.host_out = self.device_out = torch.empty(0)
            empty: NDArray[np.uint8] = np.empty(0, np.uint8)
            self.host_ir = self.host_vis = self.host_fused = empty
            self.ir = self.vis = self.fused = torch.empty(0)
            pinned = self._device.type == "cuda"
            self._buffers = [
                *(torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=pinned) for _ in range(2)),
                *(torch.empty(size, dtype=torch.uint8, device=self._device) for _ in range(2)),
            ]
        host_in, host_out, device_in, device_out = self._buffers
        self.host_in, self.device_in = host_in[:size], device_in[:size]
        self.host_out, self.device_out = host_out[: 3 * pixels], device_out[: 3 * pixels]
        self.host_ir, self.host_vis = (x.numpy() for x in _split(self.host_in, start, shape))
        self.ir, self.vis = _split(self.device_in, start, shape)
        self.host_fused = self.host_out.view(n, h, w, 3).numpy()
        self.fused = self.device_out.view(n, h, w, 3)
        return grows

    def settle(self) -> None:
        """Wait until the slot is free. What came out is with whoever holds its :class:`Pending`."""
        if self.pending is not None:
            self.pending.collect()
            self.pending = None


def _split(frames: Tensor, start: int, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    n, h, w = shape
    return frames[: n * h * w].view(n, h, w, 1), frames[start:].view(n, h, w, 3)


class Pending:
    """A batch under way. Calling it waits for the fused frames and gives them, from any thread.

    Args:
        done: the event after which the frames are there.
        frames: where, uint8 [N,H,W,3]; they are copied from there as soon as somebody asks or needs the room.
    """

    def __init__(self, done: torch.cuda.Event | None, frames: NDArray[np.uint8]) -> None:
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


class Recording:
    """Work that was recorded and can be done again, with other inputs.

    Args:
        replay: does it.
        inputs: what it reads; new inputs are copied there.
        result: where it leaves its result.
        size: bytes of device memory that it holds.
    """

    def __init__(self, replay: Callable[[], object], inputs: tuple[Tensor, ...], result: Tensor, size: int) -> None:
        self._replay, self._inputs, self._result = replay, inputs, result
        self.size = size

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Do it, on the current stream; what is returned is overwritten by the next call."""
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        self._replay()
        return self._result


def record(lane: Lane, work: Callable[..., Tensor], *inputs: Tensor) -> Recording:
    """Record ``work(*inputs)`` on ``lane`` as a CUDA graph; the recording keeps ``inputs``.

    The work must have run there before: libraries prepare themselves at first use, which cannot be recorded. Every
    graph has a memory pool of its own, so that dropping one gives its memory back; a pool that graphs share would be
    smaller than theirs together, but given back only with the last of them.
    """
    given = sum(x.nbytes for x in inputs)
    if lane.stream is None:
        result = work(*inputs).clone()
        return Recording(lambda: result.copy_(work(*inputs)), inputs, result, given + result.nbytes)
    graph = torch.cuda.CUDAGraph()
    # thread_local: what other threads do meanwhile (a data loader that pins memory) is no error of this one
    with (
        torch.cuda.device(lane.device),
        _no_garbage_collection(),
        torch.cuda.graph(graph, stream=lane.stream, capture_error_mode="thread_local"),
    ):
        before = torch.cuda.memory_reserved(lane.device)
        result = work(*inputs)
        size = torch.cuda.memory_reserved(lane.device) - before
    return Recording(graph.replay, inputs, result, given + max(size, result.nbytes))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """What the collector finds may own CUDA objects, and destroying those is not allowed while recording."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Recordings:
    """Recordings by shape (N, H, W), of at most ``limit`` bytes together; the least recently used go first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._by_shape: OrderedDict[tuple[int, ...], Recording] = OrderedDict()

    @property
    def size(self) -> int:
        return sum(recording.size for recording in self._by_shape.values())

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The least recently used first."""
        return list(self._by_shape)

    def get(self, shape: tuple[int, ...]) -> Recording | None:
        if shape in self._by_shape:
            self._by_shape.move_to_end(shape)
        return self._by_shape.get(shape)

    def put(self, shape: tuple[int, ...], recording: Recording) -> list[Recording]:
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


@contextmanager
def settings(*, search: bool) -> Iterator[None]:
    """torch's switches for the whole process, ours for a moment: convolutions in fp32 without TF32, which is torch's
    default for them, and whether cuDNN ``search``es.

    Searching times every algorithm for a convolution of a new shape, which is worth while for what is then recorded.
    """
    cudnn = torch.backends.cudnn
    ours: list[tuple[Any, str, object]] = [(cudnn, "benchmark", search)]
    if hasattr(cudnn, "conv"):  # torch 2.9; reading the older switch fails for who has set this one
        ours.append((cudnn.conv, "fp32_precision", "ieee"))
    else:
        ours.append((cudnn, "allow_tf32", False))
    before = [getattr(owner, name) for owner, name, _ in ours]
    try:
        for owner, name, value in ours:
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name, _), value in zip(ours, before, strict=True):
            setattr(owner, name, value)


@contextmanager
def own_mode(device: torch.device) -> Iterator[None]:
    """Our work, whatever mode the caller's thread is in.

    Without gradients, but not in inference mode: what is allocated there may not be written to outside, and buffers
    are written to at every call. Without autocast, which would choose the precision.
    """
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield
