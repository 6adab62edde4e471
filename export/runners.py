"""A written file in each runtime of this machine, as a function of named arrays; for checks and measurements.

:mod:`pyldfusion.engines` fuses frames; this runs planes and graphs with other inputs as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pyldfusion.artefact import open_artefact
from pyldfusion.engines.choice import available, open_engine
from pyldfusion.engines.onnx import import_onnxruntime
from pyldfusion.engines.openvino import PRECISION_HINTS, openvino_core
from pyldfusion.errors import DependencyError, EngineError

from .formats import Format

__all__ = ["Run", "Runner", "open_runners"]

#: Inputs by name -> the output ``fused``.
Run: TypeAlias = Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]


@dataclass(frozen=True)
class Runner:
    """One way to run a file: the engine's name, what it computes in (``"fp32"``, ``"bf16"``), and the function."""

    engine: str
    precision: str
    run: Run

    @property
    def name(self) -> str:
        return f"{self.engine} {self.precision}"


def open_runners(path: Path, row: Format) -> list[Runner]:
    """Every engine of this machine's CPU that opens files of that format, but torch, which is what they are judged by;
    for files that were built for a GPU, what they were built for.

    Raises:
        DependencyError: there is none.
        EngineError: one of them refuses the file.
    """
    if row.built:
        engine = open_engine(artefact := open_artefact(path))
        return [Runner(engine.name, artefact.precision, lambda inputs: engine.run(**inputs))]
    runners = []
    for name, precision, _ in available(row.kind, "cpu"):
        if name in _OPEN and (precision == "fp32" or not open_artefact(path).exact):
            try:
                runners.append(Runner(name, precision, _OPEN[name](path, precision)))
            except Exception as error:  # runtimes have no common type for what they refuse
                raise EngineError(f"{name} does not load {path.name}: {error}") from error
    if not runners:
        engines = ", ".join(row.runtimes)
        raise DependencyError(f"no runtime here runs {row.suffix} files, so it cannot be verified; any of: {engines}")
    return runners


def _onnxruntime(path: Path, precision: str) -> Run:
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # errors come as exceptions
    session = runtime.InferenceSession(path, options, ["CPUExecutionProvider"], enable_fallback=0)
    return lambda inputs: np.asarray(session.run(["fused"], dict(inputs))[0])


def _openvino(path: Path, precision: str) -> Run:
    hints = {"INFERENCE_PRECISION_HINT": PRECISION_HINTS[precision]}
    compiled = openvino_core().compile_model(path, "CPU", hints)
    return lambda inputs: np.array(compiled(dict(inputs))["fused"])


_OPEN: dict[str, Callable[[Path, str], Run]] = {"onnxruntime": _onnxruntime, "openvino": _openvino}
