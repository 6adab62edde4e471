"""Weights through torch on an NVIDIA GPU: ``.safetensors`` files, and the weights inside our ONNX files. Imports torch.

A batch goes up, is computed and comes down on three streams, in one of three slots, so that consecutive batches
overlap. The frames travel as uint8; all else happens on the device. A shape that comes a second time is recorded as a
CUDA graph, which costs one launch instead of some hundred. When memory runs short, graphs go first, then batches are
halved, and a single frame that still does not fit is an error.
"""

from __future__ import annotations

import gc
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..artefact import Artefact
from ..errors import EngineError, PyldfusionError
from ..frame_graph import FrameGraph
from ..generator import load_generator
from ..gpu_image import GpuPair
from ..rewrites import InPrecision, for_inference
from .lane import SENDING, Lane, Pending, Recording, Recordings, Slot, own_mode, record, settings

__all__ = ["CudaEngine", "load"]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
#: Part of the memory free at opening that recorded graphs may take. The rest is for batches that are not recorded,
#: for staging and for everybody else on the GPU.
GRAPH_SHARE = 0.5
#: How many shapes are remembered as having come once.
SHAPES = 64

Shape = tuple[int, int, int]


class CudaEngine:
    """See :class:`~pyldfusion.engines.base.PipelinedEngine`.

    Args:
        artefact: the weights.
        device: ``"cuda"`` or ``"cuda:N"``; ``"cpu"`` runs the same code without streams and graphs, for tests.
        precision: ``"fp32"``, ``"fp16"`` or ``"bf16"``.
        threads: only reported.
    """

    name = "torch"
    depth = 3

    def __init__(self, artefact: Artefact, device: str, precision: str, threads: int) -> None:
        self.version: str = torch.__version__
        self.precision = precision
        self.device = device
        self.threads = threads
        #: Small frames leave most of a large GPU idle. Becomes less when a batch did not fit.
        self.batch = 4
        self.torch_device = _with_index(torch.device(device))
        try:
            with own_mode(self.torch_device):
                network = InPrecision(for_inference(load_generator(artefact)), DTYPES[precision])
                self._network = FrameGraph(network).to(self.torch_device).requires_grad_(False)
            self._compute, self._upload, self._download = (Lane(self.torch_device) for _ in range(3))
            self._slots = [Slot(self.torch_device) for _ in range(self.depth)]
            self._recordings = Recordings(self._graph_bytes())
        except RuntimeError as error:
            raise EngineError(f"torch cannot load {artefact.path.name} onto {device}: {error}") from error
        self._turn = 0
        self._seen: OrderedDict[Shape, None] = OrderedDict()
        self._never_recorded: set[Shape] = set()
        self._can_record = True

    def run(self, ir: NDArray[np.uint8], vis: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self.submit(ir, vis)()

    def submit(self, ir: NDArray[np.uint8], vis: NDArray[np.uint8]) -> Callable[[], NDArray[np.uint8]]:
        """See :class:`~pyldfusion.engines.base.PipelinedEngine`."""
        if ir.shape[:3] != vis.shape[:3]:
            raise EngineError(f"ir has shape {ir.shape} and vis has shape {vis.shape}; expected one N, H and W")
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % self.depth
        slot.settle()
        with self._errors():
            try:
                if not _fits(lambda: self._send(slot, ir, vis)):
                    self._release()
                    self._send(slot, ir, vis)
            except BaseException:
                self._synchronize()  # what was sent may still read the slot
                raise
            slot.pending = pending = Pending(self._download.mark(), slot.host_fused)
        return pending

    def fuse_arrays(self, ir: Any, vis: Any, out: Any, color: str, thermal: tuple[float, float] | None) -> Tensor:
        """See :class:`~pyldfusion.engines.base.PipelinedEngine`."""
        with self._errors():
            pair = GpuPair(ir, vis, out, self.torch_device, color, thermal)
            return pair.restore(self._fuse_for_caller(pair.ir, pair.vis))

    def _fuse_for_caller(self, ir: Tensor, vis: Tensor) -> Tensor:
        """A batch of the stream that is current in the calling thread, to which the result belongs too."""
        caller = Lane.of_caller(self.torch_device)
        # All three are memory of the caller's stream. That stream stands still from here until the work is done, so
        # none of it can be given to anybody else meanwhile, even if it is freed at once.
        fused = torch.empty(vis.shape, dtype=torch.uint8, device=self.torch_device)
        self._compute.wait(caller)
        try:
            with self._compute.current():
                self._fuse(ir, vis, fused)
        finally:
            caller.wait(self._compute)
        return fused

    def close(self) -> None:
        for slot in self._slots:
            with suppress(EngineError):  # it is its owner's
                slot.settle()
        self._release()
        self._slots.clear()
        del self._network
        self._give_back()

    def _send(self, slot: Slot, ir: NDArray[np.uint8], vis: NDArray[np.uint8]) -> None:
        """Send a batch all the way through the device."""
        with self._compute.current():
            if slot.fit((ir.shape[0], ir.shape[1], ir.shape[2])):
                # The allocator gives out memory that earlier work on this stream may still use.
                self._upload.wait(self._compute)
        np.copyto(slot.host_ir, ir)
        np.copyto(slot.host_vis, vis)
        with self._upload.current():
            slot.device_in.copy_(slot.host_in, non_blocking=True)
        self._compute.wait(self._upload)
        with self._compute.current():
            self._fuse(slot.ir, slot.vis, slot.fused)
        self._download.wait(self._compute)
        with self._download.current():
            slot.host_out.copy_(slot.device_out, non_blocking=True)

    def _fuse(self, ir: Tensor, vis: Tensor, fused: Tensor) -> None:
        """Send the work on a batch, on the current stream, which is compute's: into ``fused``."""
        if _fits(lambda: self._fastest(ir, vis, fused)):
            return
        self._release()
        if _fits(lambda: self._eager(ir, vis, fused)):
            return
        self._release()
        n, h, w, _ = ir.shape
        if n == 1:
            raise EngineError(
                f"not enough memory on {self.device} for a frame of {w}x{h}{self._free_memory()}; give smaller frames, "
                "the lite model or precision='fp16', or free what other programs hold"
            )
        self.batch = half = n - n // 2
        self._fuse(ir[:half], vis[:half], fused[:half])
        self._fuse(ir[half:], vis[half:], fused[half:])

    def _fastest(self, ir: Tensor, vis: Tensor, fused: Tensor) -> None:
        n, h, w, _ = ir.shape
        recording = self._recordings.get((n, h, w))
        if recording is None and self._is_worth_recording((n, h, w)):
            recording = self._record((n, h, w))
        if recording is None:
            self._eager(ir, vis, fused)
        else:
            fused.copy_(recording(ir, vis))

    def _eager(self, ir: Tensor, vis: Tensor, fused: Tensor) -> None:
        with settings(search=False):
            fused.copy_(self._network(ir, vis))

    def _is_worth_recording(self, shape: Shape) -> bool:
        """Whether ``shape`` has come before: pictures of a folder often have a size each, and recording takes time."""
        again = shape in self._seen
        self._seen[shape] = None
        self._seen.move_to_end(shape)
        if len(self._seen) > SHAPES:
            self._seen.popitem(last=False)
        return again and self._can_record and shape not in self._never_recorded

    def _record(self, shape: Shape) -> Recording | None:
        self._never_recorded.add(shape)  # unless all goes well
        ir, vis = (torch.zeros(*shape, c, dtype=torch.uint8, device=self.torch_device) for c in (1, 3))
        try:
            with settings(search=True):
                for _ in range(2):  # libraries choose and load their kernels, allocate their workspaces
                    self._network(ir, vis)
                recording = record(self._compute, self._network, ir, vis)
        except RuntimeError as error:
            if _is_out_of_memory(error):
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

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Send work, with what torch raises as errors of ours."""
        try:
            with SENDING, own_mode(self.torch_device):
                yield
        except RuntimeError as error:
            if isinstance(error, PyldfusionError):
                raise
            raise EngineError(f"torch failed on {self.device}: {error}") from error

    def _synchronize(self) -> None:
        for lane in (self._upload, self._compute, self._download):
            with suppress(RuntimeError):
                lane.synchronize()

    def _release(self) -> None:
        """Give back what is only kept for speed: recordings, and memory that torch keeps for later."""
        self._synchronize()
        self._recordings.clear()
        self._give_back()

    def _give_back(self) -> None:
        gc.collect()
        if self.torch_device.type == "cuda":
            with torch.cuda.device(self.torch_device):
                torch.cuda.empty_cache()

    def _graph_bytes(self) -> int:
        if self.torch_device.type != "cuda":
            return 2**30
        free, _ = torch.cuda.mem_get_info(self.torch_device)
        return int(free * GRAPH_SHARE)

    def _free_memory(self) -> str:
        if self.torch_device.type != "cuda":
            return ""
        free, total = torch.cuda.mem_get_info(self.torch_device)
        return f" ({free / 2**30:.1f} of {total / 2**30:.1f} GiB are free)"


def _with_index(device: torch.device) -> torch.device:
    """``cuda`` is the device current now, and stays that."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _fits(call: Callable[[], object]) -> bool:
    """Whether there was memory for ``call``. If not, its error is gone, and with it the tensors in its traceback."""
    try:
        call()
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        return False
    return True


def _is_out_of_memory(error: BaseException | None) -> bool:
    """By type, or by what libraries say that allocate by themselves; or because of such an error."""
    while error is not None:
        if isinstance(error, EngineError):
            return False
        if isinstance(error, torch.cuda.OutOfMemoryError) or re.search(r"out of memory|ALLOC_FAILED", str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def load(artefact: Artefact, device: str, precision: str, threads: int) -> CudaEngine:
    """See :func:`~pyldfusion.engines.base.open_engine`."""
    return CudaEngine(artefact, device, precision, threads)
