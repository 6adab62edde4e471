"""Weights through torch on the CPU: ``.safetensors`` files, and the weights inside our ONNX files. Imports torch.

On a GPU the engine is another: :mod:`~pyldfusion.engines.cuda`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from ..artefact import Artefact
from ..errors import DependencyError, EngineError
from .base import Engine
from .choice import RUNTIMES

try:
    import torch
except ImportError as error:
    raise DependencyError(f"torch cannot be imported: {RUNTIMES['torch'].install}") from error

from ..frame_graph import FrameGraph, TemporalFrameGraph
from ..generator import load_generator
from ..rewrites import for_inference
from ..smoothing import state_sizes
from .state import State

__all__ = ["TorchEngine", "has_cuda", "load"]


def has_cuda() -> bool:
    """Whether this torch can compute on a GPU that is here."""
    return torch.cuda.is_available()


class TorchEngine:
    """See :class:`~pyldfusion.engines.base.Engine`.

    torch's number of threads belongs to the whole process: it is set for the time of a call and put back.
    """

    name = "torch"
    precision = "fp32"
    device = "cpu"
    batch = 1
    depth = 1
    warps = False

    def __init__(self, artefact: Artefact, threads: int) -> None:
        self.version: str = torch.__version__
        self.threads = threads
        network = for_inference(load_generator(artefact))
        self.temporal = artefact.temporal
        self._state = State({f"state_{n}": s for n, s in state_sizes(network).items()} if self.temporal else {})
        self._graph = (TemporalFrameGraph if self.temporal else FrameGraph)(network)

    def run(
        self,
        ir: NDArray[np.uint8],
        vis: NDArray[np.uint8],
        homography: NDArray[np.float32] | None = None,
        keep: float = 0.0,
    ) -> NDArray[np.uint8]:
        try:
            with torch.inference_mode(), _threads(self.threads):
                others = map(torch.from_numpy, self._state.inputs(keep, len(vis)).values())
                made = self._graph(_tensor(ir), _tensor(vis), *others)
                fused, *states = made if self.temporal else (made,)
                self._state.take([state.numpy() for state in states])
            frames: NDArray[np.uint8] = fused.numpy()
            return frames
        except RuntimeError as error:
            raise EngineError(f"torch failed on frames of shape {vis.shape}: {error}") from error

    def close(self) -> None:
        del self._graph


def _tensor(frames: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(frames if frames.flags.writeable else frames.copy())  # torch warns of anything else


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load(artefact: Artefact, device: str, precision: str, threads: int) -> Engine:
    """See :func:`~pyldfusion.engines.choice.open_engine`."""
    if device == "cpu":
        return TorchEngine(artefact, threads)
    from . import cuda

    return cuda.load(artefact, device, precision, threads)
