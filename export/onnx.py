"""The network as an ONNX file: one graph with dynamic N, H and W that every runtime reads."""

from __future__ import annotations

import datetime
import hashlib
import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pyldfusion import __version__
from pyldfusion.artefact import GRAPH_PREFIX
from pyldfusion.errors import ArtefactError, DependencyError, InputError
from pyldfusion.frame_graph import FrameGraph
from pyldfusion.generator import Generator
from pyldfusion.image import MIN_SIDE
from pyldfusion.rewrites import for_inference

if TYPE_CHECKING:
    import onnx
    import onnx_ir

__all__ = ["IO", "OPSET", "PRECISIONS", "export_onnx"]

#: What the graph takes and gives.
IO = {
    "frames": "ir uint8 [N,H,W,1], vis uint8 [N,H,W,3] (BGR) -> fused uint8 [N,H,W,3]",
    "planes": "ir, vis float32 [N,1,H,W] in [0,1] (vis: luma) -> fused the same",
}
#: How weights are stored and computed.
PRECISIONS = {
    "fp32": "stored and computed in 32 bits",
    "fp16-stored": "stored in 16 bits, computed in 32: half the size",
}
#: Safe from TensorRT 10.0 on, and all that the graph needs.
OPSET = 18


class PlaneGraph(torch.nn.Module):
    """Bare G, for those who bring their own colour conversion; its weights are named as in :class:`FrameGraph`."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, ir: torch.Tensor, vis: torch.Tensor) -> torch.Tensor:
        return self.generator(ir, vis)


def export_onnx(
    generator: Generator,
    path: str | Path,
    *,
    io: str = "frames",
    precision: str = "fp32",
    metadata: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Write ``generator`` as ONNX, whole or not at all.

    The exact rewrites of :mod:`pyldfusion.rewrites` are in the graph. Its initialisers are named as the state dict,
    with ``generator.`` before them.

    Args:
        generator: the network; not changed.
        path: the ``.onnx`` file to write.
        io: see :data:`IO`.
        precision: see :data:`PRECISIONS`.
        metadata: what is known of the weights; passed on into the file.

    Returns:
        The metadata written.

    Raises:
        InputError: an unknown ``io`` or ``precision``, or weights that 16 bits cannot hold.
        ArtefactError: a suffix that is not ``.onnx``.
        DependencyError: onnx or onnxscript is missing.
    """
    for name, value, known in (("io", io, IO), ("precision", precision, PRECISIONS)):
        if value not in known:
            raise InputError(f"{name} is {value!r}; expected one of {', '.join(known)}")
    path = Path(path)
    if path.suffix != ".onnx":
        raise ArtefactError(f"an ONNX file ends in .onnx: {path}")
    if precision == "fp16-stored":
        _check_range(generator)
    model = _trace(generator, io)
    if precision == "fp16-stored":
        _store_weights_in_half(model)
    state = {name: tensor.detach().cpu().float() for name, tensor in generator.state_dict().items()}
    about = {
        **(metadata or {}),
        "format": "pyldfusion",
        "pyldfusion": __version__,
        "variant": generator.variant,
        "io": io,
        "signature": IO[io],
        "precision": precision,
        "colour": "BGR, luma by BT.601 (OpenCV), chroma of vis",
        "weights_sha256": _hash(state),
        "exported": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "exporter": f"torch {torch.__version__.split('+')[0]}",
    }
    for key, value in sorted(about.items()):
        model.metadata_props.add(key=key, value=value)
    model.producer_name, model.producer_version = "pyldfusion", __version__
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(model.SerializeToString())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return about


def _trace(generator: Generator, io: str) -> onnx.ModelProto:
    try:
        import onnx
        import onnxscript.optimizer
        import onnxscript.rewriter
    except ImportError as error:
        raise DependencyError(f"exporting needs {error.name}: pip install 'pyldfusion[export]'") from error
    inner = for_inference(generator).float().cpu()
    module = FrameGraph(inner) if io == "frames" else PlaneGraph(inner)
    n, h, w = 2, 3 * MIN_SIDE, 4 * MIN_SIDE + 8  # any size will do, if no two are equal
    if io == "frames":
        example = (torch.zeros(n, h, w, 1, dtype=torch.uint8), torch.zeros(n, h, w, 3, dtype=torch.uint8))
        axes = (0, 1, 2)
    else:
        example = (torch.zeros(n, 1, h, w), torch.zeros(n, 1, h, w))
        axes = (0, 2, 3)
    limits = {"N": 1, "H": MIN_SIDE, "W": MIN_SIDE}
    dims = {axis: torch.export.Dim(name, min=low) for axis, (name, low) in zip(axes, limits.items(), strict=True)}
    with warnings.catch_warnings(), _Quiet():
        warnings.simplefilter("ignore")  # about axis names that two inputs share
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            input_names=["ir", "vis"],
            output_names=["fused"],
            dynamic_shapes={"ir": dims, "vis": dims},
            opset_version=OPSET,
            optimize=False,
            verbose=False,
        )
        onnxscript.optimizer.optimize_ir(program.model, should_fold=_may_fold)
        onnxscript.rewriter.rewrite(program.model)
        onnxscript.optimizer.remove_unused_nodes(program.model)
    model: onnx.ModelProto = program.model_proto
    for value in (*model.graph.input, *model.graph.output):
        for axis, name in zip(axes, limits, strict=True):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    # What the exporter noted for itself: sizes that runtimes infer again, stack traces of the machine it ran on.
    del model.graph.value_info[:]
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    return model


def _may_fold(node: onnx_ir.Node) -> bool | None:
    """Shapes are folded, weights are not: they keep their names and their plain form in the file."""
    touches_weights = any(value is not None and (value.name or "").startswith(GRAPH_PREFIX) for value in node.inputs)
    return False if touches_weights else None


class _Quiet:
    """torch's exporter reports its progress at INFO and WARNING; neither is for the user."""

    def __enter__(self) -> None:
        logging.disable(logging.WARNING)

    def __exit__(self, *exc: object) -> None:
        logging.disable(logging.NOTSET)


def _check_range(generator: Generator) -> None:
    limit = torch.finfo(torch.float16).max
    for name, tensor in generator.state_dict().items():
        if not tensor.abs().max() <= limit:  # also true for NaN
            raise InputError(
                f"{name} reaches {tensor.abs().max():.3g}, more than 16 bits hold ({limit:.0f}); "
                "export with precision fp32"
            )


def _store_weights_in_half(model: onnx.ModelProto) -> None:
    """Turn the network's initialisers to FP16 and cast them back in the graph."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for index, initializer in enumerate(model.graph.initializer):
        if not initializer.name.startswith(GRAPH_PREFIX) or initializer.data_type != TensorProto.FLOAT:
            continue
        half = numpy_helper.to_array(initializer).astype(np.float16)
        model.graph.initializer[index].CopyFrom(numpy_helper.from_array(half, initializer.name))
        wide = f"{initializer.name}.fp32"
        casts.append(helper.make_node("Cast", [initializer.name], [wide], f"{wide}.cast", to=TensorProto.FLOAT))
        for node in model.graph.node:
            for slot, name in enumerate(node.input):
                if name == initializer.name:
                    node.input[slot] = wide
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)


def _hash(state: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
