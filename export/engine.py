"""A TensorRT engine from the graph, which stays beside it: another machine builds its own from that."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyldfusion import sidecar

from .onnx import write_model as write_onnx
from .shape import Shape
from .tensorrt import BuildOptions, build_engine

if TYPE_CHECKING:
    import onnx

__all__ = ["add_report", "write_model"]


def write_model(
    model: onnx.ModelProto, path: Path, metadata: Mapping[str, str], *, shape: Shape, **options: Any
) -> dict[str, str]:
    """Write the graph beside ``path``, build the engine and its sidecar from it.

    Args:
        model: the graph; its metadata are replaced.
        path: the ``.engine`` file, in a folder that :func:`~export.pipeline.publish` moves all three files out of.
        metadata: what the graph and the sidecar say.
        shape: the sizes it is for.
        options: fields of :class:`~export.tensorrt.BuildOptions`; None stands for not given.

    Raises:
        PyldfusionError: see :func:`~export.tensorrt.build_engine`.
    """
    graph = path.with_suffix(".onnx")
    about = write_onnx(model, graph, metadata)
    given = {name: value for name, value in options.items() if value is not None}
    build_engine(graph, path, shape, BuildOptions(**given))
    return about


def add_report(path: Path, report: Mapping[str, str]) -> None:
    """Put what the verification found into the sidecar."""
    if (known := sidecar.read(path)) is not None:
        sidecar.write(path, dataclasses.replace(known, verified=dict(report)))
