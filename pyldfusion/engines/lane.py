"""What :mod:`~pyldfusion.engines.pipeline` needs of CUDA, by torch: streams, staging memory, graphs. Imports torch.

All of it also works on a CPU, where work is done when a call returns: streams order nothing, memory is not pinned and
a recording computes anew. That is how the engine's own logic is tested on machines without a GPU.
"""

from __future__ import annotations

import gc
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import pipeline

__all__ = ["SENDING", "Lane", "Recording", "Slot", "current", "own_mode", "record", "settings"]

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


def current(stream: Any, device: torch.device) -> AbstractContextManager[None]:
    """``stream`` as torch's current one: a stream of torch or CuPy, or a CUDA stream's handle; None changes nothing."""
    if stream is None or device.type != "cuda":
        return nullcontext()
    if not isinstance(stream, torch.cuda.Stream):
        handle = int(getattr(stream, "cuda_stream", getattr(stream, "ptr", stream)))  # ours, CuPy's, a number
        # both name the legacy default stream; of 0 torch would make a stream of its own, and it refuses 1
        legacy = handle in (0, 1)
        stream = torch.cuda.default_stream(device) if legacy else torch.cuda.ExternalStream(handle, device)
    return torch.cuda.stream(stream)


class Slot(pipeline.Slot):
    """See :class:`~pyldfusion.engines.pipeline.Slot`; the device's arrays are tensors."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device
        self.free()

    def free(self) -> None:
        nothing: NDArray[np.uint8] = np.empty(0, np.uint8)
        self.host_ir = self.host_vis = self.host_fused = nothing
        self.ir = self.vis = self.fused = torch.empty(0)
        self._all = self._used = (torch.empty(0),) * 4

    def allocate(self, size: int) -> None:
        pinned = self._device.type == "cuda"
        host_in, host_out = (torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=pinned) for _ in range(2))
        device_in, device_out = (torch.empty(size, dtype=torch.uint8, device=self._device) for _ in range(2))
        self._all = host_in, device_in, device_out, host_out

    def divide(self, ir: pipeline.Shape, vis: pipeline.Shape, start: int, size: int) -> None:
        thermal, visible = math.prod(ir), math.prod(vis)
        host_in, device_in, device_out, host_out = self._all
        self._used = host_in[:size], device_in[:size], device_out[:visible], host_out[:visible]
        (host_ir, host_vis), (self.ir, self.vis) = (
            (given[:thermal].view(ir), given[start:].view(vis)) for given in self._used[:2]
        )
        self.host_ir, self.host_vis = host_ir.numpy(), host_vis.numpy()
        self.fused, host_fused = (x.view(vis) for x in self._used[2:])
        self.host_fused = host_fused.numpy()

    def upload(self, lane: Lane) -> None:
        with lane.current():
            self._used[1].copy_(self._used[0], non_blocking=True)

    def download(self, lane: Lane) -> None:
        with lane.current():
            self._used[3].copy_(self._used[2], non_blocking=True)


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

    def fuse(self, ir: Tensor, vis: Tensor, fused: Tensor) -> None:
        """See :class:`~pyldfusion.engines.pipeline.Recording`."""
        fused.copy_(self(ir, vis))


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


@contextmanager
def settings(*, search: bool) -> Iterator[None]:
    """torch's switches for the whole process, ours for a moment: convolutions in fp32 without TF32, which is torch's
    default for them, alike at every run, and whether cuDNN ``search``es.

    Searching times every algorithm for a convolution of a new shape, which is worth while for what is then recorded.
    """
    cudnn = torch.backends.cudnn
    ours: list[tuple[Any, str, object]] = [(cudnn, "benchmark", search), (cudnn, "deterministic", True)]
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
