"""ONNX files through ONNX Runtime, on the CPU."""

from __future__ import annotations

import os
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from ..artefact import Artefact
from ..errors import ArtefactError, DependencyError, EngineError
from .base import check_signature
from .choice import RUNTIMES
from .state import State

__all__ = ["OnnxRuntimeEngine", "import_onnxruntime", "load"]


def import_onnxruntime() -> ModuleType:
    """The package ``onnxruntime``, with its telemetry off. Whoever needs it imports it through here.

    Its builds for Linux (1.29 and later) write an identifier below ``~/.cache`` and open a connection when they are
    imported, unless this variable is set before. ``ORT_DISABLE_TELEMETRY=0`` in the environment leaves it on.

    Raises:
        DependencyError: it is not installed.
    """
    disable = os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1") != "0"
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError(f"onnxruntime cannot be imported: {RUNTIMES['onnxruntime'].install}") from error
    if disable:  # where somebody imported it before, and on Windows, which knows no variable
        onnxruntime.disable_telemetry_events()
    package: ModuleType = onnxruntime
    return package


class OnnxRuntimeEngine:
    """See :class:`~pyldfusion.engines.base.Engine`. One graph serves all sizes."""

    name = "onnxruntime"
    precision = "fp32"
    device = "cpu"
    batch = 1
    depth = 1

    def __init__(self, artefact: Artefact, threads: int) -> None:
        self._runtime = import_onnxruntime()
        self.version: str = self._runtime.__version__
        self.threads = threads
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # errors come as exceptions
        # Patterns of memory per shape are no faster here and take 40 % more (lite, 640x480: 480 against 345 MB).
        options.enable_mem_pattern = False
        try:
            self._session = self._runtime.InferenceSession(
                artefact.path,
                options,
                ["CPUExecutionProvider"],
                enable_fallback=0,  # would print, and fail a second time
            )
            inputs, outputs = (
                {port.name: (port.type == "tensor(uint8)", port.shape) for port in ports}
                for ports in (self._session.get_inputs(), self._session.get_outputs())
            )
        except Exception as error:  # the binding's own exceptions have no common public base
            raise ArtefactError(f"{artefact.path} is not a model that ONNX Runtime loads: {error}") from error
        self.warps, states = check_signature(artefact, inputs, outputs)
        self.temporal = bool(states)
        self._state = State(states)
        self._largest = 0

    def run(
        self,
        ir: NDArray[np.uint8],
        vis: NDArray[np.uint8],
        homography: NDArray[np.float32] | None = None,
        keep: float = 0.0,
    ) -> NDArray[np.uint8]:
        options = self._runtime.RunOptions()
        # The arena keeps what the largest frames took. It is given back once frames have become half as large.
        pixels = vis.size // 3
        if 2 * pixels < self._largest:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
            self._largest = pixels
        self._largest = max(self._largest, pixels)
        given = {"ir": ir, "vis": vis} | ({"homography": homography} if self.warps else {})
        given |= self._state.inputs(keep, len(vis))
        try:
            fused, *states = self._session.run(["fused", *self._state.outputs], given, options)
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed on frames of shape {vis.shape}: {error}") from error
        self._state.take(states)
        return np.asarray(fused)

    def close(self) -> None:
        del self._session


def load(artefact: Artefact, device: str, precision: str, threads: int) -> OnnxRuntimeEngine:
    """See :func:`~pyldfusion.engines.choice.open_engine`."""
    return OnnxRuntimeEngine(artefact, threads)
