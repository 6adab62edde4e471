"""ONNX files through OpenVINO, on the CPU, in float32 or bfloat16."""

from __future__ import annotations

import math
import sys
import threading
from collections import OrderedDict
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..artefact import Artefact
from ..errors import ArtefactError, DependencyError, EngineError
from .base import check_signature
from .choice import RUNTIMES
from .openvino_branches import join_branches
from .openvino_norms import whole_norms
from .state import State

__all__ = ["PRECISION_HINTS", "OpenVinoEngine", "import_openvino", "load", "openvino_core"]

PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16"}
_TELEMETRY = "openvino_telemetry"
_CORES: list[Any] = []
_CORE_LOCK = threading.Lock()
#: Shapes of a graph's inputs by name.
_Shapes: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]


def import_openvino() -> ModuleType:
    """The package ``openvino``, with its telemetry off. Whoever needs it imports it through here.

    Importing it reports to its makers and writes below the home folder, without asking and with no switch but a file
    there. It has an empty stand-in for an absent telemetry package, so that is what it finds during the import.

    Raises:
        DependencyError: it is not installed.
    """
    telemetry = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # an import of it fails
    try:
        import openvino
    except ImportError as error:
        raise DependencyError(f"openvino cannot be imported: {RUNTIMES['openvino'].install}") from error
    finally:
        del sys.modules[_TELEMETRY]
        if telemetry is not None:
            sys.modules[_TELEMETRY] = telemetry
    package: ModuleType = openvino
    return package


def openvino_core() -> Any:
    """OpenVINO's ``Core``, the only one of this process, which it keeps. Raises DependencyError.

    The CPU plugin of a Core (2026.4) gives the thread that first compiles with it a stack for signal handlers, and when
    it goes puts back the one before. Of two Cores the second puts back that of the first, whose memory is gone if it
    went first; the next signal that Python handles, Ctrl-C for one, then ends the process with a segmentation fault.
    """
    with _CORE_LOCK:
        if not _CORES:
            _CORES.append(import_openvino().Core())
        return _CORES[0]


class OpenVinoEngine:
    """See :class:`~pyldfusion.engines.base.Engine`.

    A graph compiled for one shape is 10 to 30 % faster than one for any and takes a fraction of a second to make.
    So every shape in use has its own; the least recently used go when there are too many or they are too large.
    """

    name = "openvino"
    device = "cpu"
    batch = 1
    depth = 1
    #: Bounds of what is kept compiled: shapes, and pixels of all of them together (at most 650 bytes each, for the
    #: full network in float32). The newest is always kept.
    MAX_SHAPES = 4
    MAX_PIXELS = 1_000_000

    def __init__(self, artefact: Artefact, precision: str, threads: int) -> None:
        self._openvino = import_openvino()
        self.version: str = self._openvino.get_version().split("-")[0]
        self.precision = precision
        self.threads = threads
        self._config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": PRECISION_HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            # cores are not ours alone: a camera, a display and a second Fuser want them too
            "ENABLE_CPU_PINNING": False,
        }
        self._core = openvino_core()
        try:
            self._model = self._core.read_model(artefact.path)
            inputs = {i.any_name: _describe(i) for i in self._model.inputs}
            outputs = {o.any_name: _describe(o) for o in self._model.outputs}
        except Exception as error:  # RuntimeError, and others from the conversion of odd graphs
            raise ArtefactError(f"{artefact.path} is not a model that OpenVINO reads: {error}") from error
        self.warps, states = check_signature(artefact, inputs, outputs)
        if precision == "bf16":
            self._model = join_branches(whole_norms(self._model))
        self.temporal = bool(states)
        self._state = State(states)
        self._requests: OrderedDict[_Shapes, Any] = OrderedDict()

    def run(
        self,
        ir: NDArray[np.uint8],
        vis: NDArray[np.uint8],
        homography: NDArray[np.float32] | None = None,
        keep: float = 0.0,
    ) -> NDArray[np.uint8]:
        given: dict[str, NDArray[Any]] = {"ir": ir, "vis": vis}
        if homography is not None:
            given["homography"] = homography
        given |= self._state.inputs(keep, len(vis))
        # Memory is only shared with OpenVINO where NumPy would let it be written. OpenVINO does not keep alive what is
        # shared: copies must last until it is done.
        given = {name: array if array.flags.writeable else array.copy() for name, array in given.items()}
        try:
            request = self._request(tuple((name, array.shape) for name, array in given.items()))
            for name, array in given.items():
                request.set_tensor(name, self._openvino.Tensor(array, shared_memory=True))
            request.infer()
            self._state.take([request.get_tensor(name).data for name in self._state.outputs])
            return np.array(request.get_tensor("fused").data)
        except Exception as error:
            raise EngineError(f"OpenVINO failed on frames of shape {vis.shape}: {error}") from error

    def _request(self, shapes: _Shapes) -> Any:
        """The inference request of the graph for those inputs, compiled now if it is not in use yet."""
        request = self._requests.pop(shapes, None)
        if request is None:
            self._make_room(_pixels(shapes))
            self._model.reshape({name: list(shape) for name, shape in shapes})
            request = self._core.compile_model(self._model, "CPU", self._config).create_infer_request()
        self._requests[shapes] = request  # the newest is last
        return request

    def _make_room(self, pixels: int) -> None:
        while self._requests and (
            len(self._requests) >= self.MAX_SHAPES or pixels + sum(map(_pixels, self._requests)) > self.MAX_PIXELS
        ):
            self._requests.popitem(last=False)

    def close(self) -> None:
        self._requests.clear()
        del self._model


def _pixels(shapes: _Shapes) -> int:
    """Of the visible frames."""
    return math.prod(dict(shapes)["vis"][:3])


def _describe(port: Any) -> tuple[bool, list[int | str]]:
    """Whether a graph's input or output is uint8, and its shape with names or ``"?"`` for what is dynamic."""
    shape = [d.get_length() if d.is_static else "?" for d in port.partial_shape]
    return port.element_type.get_type_name() == "u8", shape


def load(artefact: Artefact, device: str, precision: str, threads: int) -> OpenVinoEngine:
    """See :func:`~pyldfusion.engines.choice.open_engine`."""
    return OpenVinoEngine(artefact, precision, threads)
