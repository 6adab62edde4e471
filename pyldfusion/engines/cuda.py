"""Weights through torch on an NVIDIA GPU: ``.safetensors`` files, and the weights inside our ONNX files. Imports torch.

:mod:`~pyldfusion.engines.pipeline` says how batches pass through the device. The frames travel as uint8; all else
happens there. When memory runs short, graphs go first, then batches are halved, and a single frame that still does not
fit is an error.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..artefact import Artefact
from ..errors import EngineError, PyldfusionError
from ..frame_graph import FrameGraph
from ..generator import load_generator
from ..gpu_image import GpuPair
from ..rewrites import InPrecision, drop_dead_biases, for_inference
from .lane import SENDING, Lane, Recording, Slot, current, own_mode, record, settings
from .pipeline import Pipeline, Shape

if TYPE_CHECKING:
    from ..registration import Registration

__all__ = ["CudaEngine", "load"]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class CudaEngine(Pipeline):
    """See :class:`~pyldfusion.engines.base.PipelinedEngine`.

    Args:
        artefact: the weights.
        device: ``"cuda"`` or ``"cuda:N"``; ``"cpu"`` runs the same code without streams and graphs, for tests.
        precision: ``"fp32"``, ``"fp16"`` or ``"bf16"``.
        threads: only reported.
    """

    name = "torch"

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
                generator = for_inference(load_generator(artefact))
                drop_dead_biases(generator)
                network = InPrecision(generator, DTYPES[precision])
                self._network = FrameGraph(network).to(self.torch_device).requires_grad_(False)
            lanes = [Lane(self.torch_device) for _ in range(3)]
            super().__init__(lanes, [Slot(self.torch_device) for _ in range(self.depth)], self._free_bytes())
        except RuntimeError as error:
            raise EngineError(f"torch cannot load {artefact.path.name} onto {device}: {error}") from error

    def fuse_arrays(
        self,
        ir: Any,
        vis: Any,
        out: Any,
        color: str,
        thermal: tuple[float, float] | None,
        stream: Any = None,
        registration: Registration | None = None,
    ) -> Tensor:
        """See :class:`~pyldfusion.engines.base.PipelinedEngine`."""
        with self._errors(), current(stream, self.torch_device):
            pair = GpuPair(ir, vis, out, self.torch_device, color, thermal, registration)
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

    def _with_less(self, ir: Tensor, vis: Tensor, fused: Tensor) -> None:
        n, h, w, _ = ir.shape
        if n == 1:
            raise EngineError(
                f"not enough memory on {self.device} for a frame of {w}x{h}{self._free_memory()}; give smaller frames, "
                "the lite model or precision='fp16', or free what other programs hold"
            )
        self.batch = half = n - n // 2
        self._fuse(ir[:half], vis[:half], fused[:half])
        self._fuse(ir[half:], vis[half:], fused[half:])

    def _eager(self, ir: Tensor, vis: Tensor, fused: Tensor) -> None:
        with settings(search=False):
            fused.copy_(self._network(ir, vis))

    def _record(self, shape: Shape) -> Recording:
        ir, vis = (torch.zeros(*shape, c, dtype=torch.uint8, device=self.torch_device) for c in (1, 3))
        with settings(search=True):
            for _ in range(2):  # libraries choose and load their kernels, allocate their workspaces
                self._network(ir, vis)
            return record(self._compute, self._network, ir, vis)

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

    def _unload(self) -> None:
        del self._network

    def _give_back(self) -> None:
        gc.collect()
        if self.torch_device.type == "cuda":
            with torch.cuda.device(self.torch_device):
                torch.cuda.empty_cache()

    def _free_bytes(self) -> int:
        return 2**31 if self.torch_device.type != "cuda" else int(torch.cuda.mem_get_info(self.torch_device)[0])

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


def load(artefact: Artefact, device: str, precision: str, threads: int) -> CudaEngine:
    """See :func:`~pyldfusion.engines.choice.open_engine`."""
    return CudaEngine(artefact, device, precision, threads)
