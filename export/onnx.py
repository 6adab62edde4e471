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

import torch

from pyldfusion import __version__
from pyldfusion.artefact import GRAPH_PREFIX
from pyldfusion.errors import ArtefactError, DependencyError, InputError
from pyldfusion.frame_graph import FrameGraph
from pyldfusion.generator import Generator
from pyldfusion.image import MIN_SIDE
from pyldfusion.rewrites import for_inference

from .precision import RECIPES
from .shape import Shape

if TYPE_CHECKING:
    import onnx
    import onnx_ir

__all__ = ["IO", "OPSET", "build_model", "describe", "export_onnx", "write_model"]

#: What the graph takes and gives.
IO = {
    "frames": "ir uint8 [N,H,W,1], vis uint8 [N,H,W,3] (BGR) -> fused uint8 [N,H,W,3]",
    "planes": "ir, vis float32 [N,1,H,W] in [0,1] (vis: luma) -> fused the same",
}
#: Safe from TensorRT 10.0 on, and all that the graph needs.
OPSET = 18

DYNAMIC = Shape.dynamic()


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
    shape: Shape = DYNAMIC,
    opset: int = OPSET,
    metadata: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Write ``generator`` as ONNX, whole or not at all: :func:`build_model`, a recipe, :func:`write_model`.

    Args:
        generator: the network; not changed.
        path: the ``.onnx`` file to write.
        io: see :data:`IO`.
        precision: see :data:`~export.precision.RECIPES`.
        shape: the sizes it takes.
        opset: version of ONNX's standard operators.
        metadata: what is known of the weights; passed on into the file.

    Returns:
        The metadata written.

    Raises:
        InputError: an unknown ``io`` or ``precision``, or weights that 16 bits cannot hold.
        ArtefactError: a suffix that is not ``.onnx``.
        DependencyError: onnx or onnxscript is missing.
    """
    _check_name("precision", precision, RECIPES)
    path = _check_suffix(path)
    model = RECIPES[precision].apply(build_model(generator, io=io, shape=shape, opset=opset))
    about = {**(metadata or {}), **describe(generator, io=io, precision=precision, shape=shape)}
    return write_model(model, path, about)


def build_model(
    generator: Generator, *, io: str = "frames", shape: Shape = DYNAMIC, opset: int = OPSET
) -> onnx.ModelProto:
    """The network as a graph in FP32, with the exact rewrites of :mod:`pyldfusion.rewrites`.

    Its initialisers are named as the state dict, with ``generator.`` before them.

    Args:
        generator: the network; not changed.
        io: see :data:`IO`.
        shape: the sizes it takes; axes that are not fixed are called N, H and W.
        opset: version of ONNX's standard operators.

    Raises:
        InputError: an unknown ``io``.
        DependencyError: onnx or onnxscript is missing.
    """
    _check_name("io", io, IO)
    return _trace(generator, io, shape, opset)


def describe(generator: Generator, *, io: str, precision: str, shape: Shape = DYNAMIC) -> dict[str, str]:
    """What a file says of the graph in it, beside what is known of its weights."""
    state = {name: tensor.detach().cpu().float() for name, tensor in generator.state_dict().items()}
    return {
        "variant": generator.variant,
        "io": io,
        "signature": IO[io],
        "precision": precision,
        "shape": str(shape),
        "colour": "BGR, luma by BT.601 (OpenCV), chroma of vis",
        "weights_sha256": _hash(state),
    }


def write_model(model: onnx.ModelProto, path: str | Path, metadata: Mapping[str, str]) -> dict[str, str]:
    """Write a graph, whole or not at all.

    Args:
        model: the graph; its metadata are replaced.
        path: the ``.onnx`` file; its folder must exist.
        metadata: what the file says of itself.

    Returns:
        The metadata written: those given, with the versions and the date of the export.

    Raises:
        ArtefactError: a suffix that is not ``.onnx``.
    """
    import onnx

    path = _check_suffix(path)
    onnx.checker.check_model(model, full_check=True)
    about = {
        **metadata,
        "format": "pyldfusion",
        "pyldfusion": __version__,
        "exported": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "exporter": f"torch {torch.__version__.split('+')[0]}",
    }
    del model.metadata_props[:]
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


def _check_name(what: str, name: str, known: Mapping[str, object]) -> None:
    if name not in known:
        raise InputError(f"{what} is {name!r}; expected one of {', '.join(known)}")


def _check_suffix(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != ".onnx":
        raise ArtefactError(f"an ONNX file ends in .onnx: {path}")
    return path


def _trace(generator: Generator, io: str, shape: Shape, opset: int) -> onnx.ModelProto:
    try:
        import onnx
        import onnxscript.optimizer
        import onnxscript.rewriter
    except ImportError as error:
        raise DependencyError(f"exporting needs {error.name}: pip install 'pyldfusion[export]'") from error
    inner = for_inference(generator).float().cpu()
    module = FrameGraph(inner) if io == "frames" else PlaneGraph(inner)
    # any size will do where none is fixed, if no two are equal
    usual = (2, 3 * MIN_SIDE, 4 * MIN_SIDE + 8)
    n, h, w = (dim if isinstance(dim, int) else size for dim, size in zip(shape.dims, usual, strict=True))
    if io == "frames":
        example = (torch.zeros(n, h, w, 1, dtype=torch.uint8), torch.zeros(n, h, w, 3, dtype=torch.uint8))
        axes = (0, 1, 2)
    else:
        example = (torch.zeros(n, 1, h, w), torch.zeros(n, 1, h, w))
        axes = (0, 2, 3)
    dims = {
        axis: torch.export.Dim(dim, min=1 if dim == "N" else MIN_SIDE)
        for axis, dim in zip(axes, shape.dims, strict=True)
        if isinstance(dim, str)
    }
    with warnings.catch_warnings(), _Quiet():
        warnings.simplefilter("ignore")  # about axis names that two inputs share
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            input_names=["ir", "vis"],
            output_names=["fused"],
            dynamic_shapes={"ir": dims, "vis": dims},
            opset_version=opset,
            optimize=False,
            verbose=False,
        )
        onnxscript.optimizer.optimize_ir(program.model, should_fold=_may_fold)
        onnxscript.rewriter.rewrite(program.model)
        onnxscript.optimizer.remove_unused_nodes(program.model)
    model: onnx.ModelProto = program.model_proto
    for value in (*model.graph.input, *model.graph.output):
        for axis, dim in zip(axes, shape.dims, strict=True):
            if isinstance(dim, str):
                value.type.tensor_type.shape.dim[axis].dim_param = dim
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


def _hash(state: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
