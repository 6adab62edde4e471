"""The network as an OpenVINO model: ``.xml`` beside ``.bin``, made from the ONNX graph."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pyldfusion.engines.openvino import import_openvino, openvino_core
from pyldfusion.errors import ArtefactError
from pyldfusion.openvino_file import SECTION, content_hash

from .onnx import write_model as write_onnx

if TYPE_CHECKING:
    import onnx

__all__ = ["write_model"]


def write_model(model: onnx.ModelProto, path: Path, metadata: Mapping[str, str]) -> dict[str, str]:
    """Convert a graph and write both files. The recipe is the graph's: nothing is compressed that is not there.

    Args:
        model: the graph; its metadata are replaced.
        path: the ``.xml`` file, in a folder that :func:`~export.pipeline.publish` moves both files out of.
        metadata: what the model says of itself, in ``rt_info``.

    Returns:
        The metadata written: those given, with the versions and the date of the export.

    Raises:
        ArtefactError: a suffix that is not ``.xml``.
        DependencyError: openvino is not installed.
    """
    if path.suffix != ".xml":
        raise ArtefactError(f"an OpenVINO model ends in .xml: {path}")
    openvino = import_openvino()
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "graph.onnx"
        about = write_onnx(model, graph, metadata)
        converted = openvino_core().read_model(graph)
    if "framework" in converted.rt_info:  # the ONNX file's own metadata, once more
        del converted.rt_info["framework"]
    for name, value in sorted(about.items()):
        converted.set_rt_info(value, [SECTION, name])
    openvino.save_model(converted, path, compress_to_fp16=False)
    about["content_sha256"] = content_hash(path)  # known once it is written, so it is written again
    converted.set_rt_info(about["content_sha256"], [SECTION, "content_sha256"])
    openvino.save_model(converted, path, compress_to_fp16=False)
    return about
