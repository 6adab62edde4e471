"""From the network's modules to one small graph that can be read: torch's exporter, and what tidies up after it."""

from __future__ import annotations

import ast
import logging
import re
import warnings
from collections import Counter
from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyldfusion.artefact import GRAPH_PREFIX
from pyldfusion.errors import DependencyError
from pyldfusion.frame_graph import FrameGraph, TemporalFrameGraph
from pyldfusion.generator import Generator
from pyldfusion.smoothing import state_sizes

from .lowering import PlaneGraph, for_graph
from .opset import OPSET
from .shape import Shape
from .warp import WarpedFrameGraph, WarpedPlaneGraph

if TYPE_CHECKING:
    import onnx
    import onnx_ir

__all__ = ["trace"]


def trace(generator: Generator, io: str, shape: Shape, warp: bool, temporal: bool = False) -> onnx.ModelProto:
    """The graph of :func:`export.onnx.build_model`, by whose rules the arguments are, in opset 18."""
    try:
        import onnx
        import onnxscript.optimizer
    except ImportError as error:
        raise DependencyError(f"exporting needs {error.name}: pip install 'pyldfusion[export]'") from error
    inner = for_graph(generator)
    graphs = {"frames": (FrameGraph, WarpedFrameGraph), "planes": (PlaneGraph, WarpedPlaneGraph)}
    module = (TemporalFrameGraph if temporal else graphs[io][warp])(inner).eval()
    n, h, w = shape.dims
    ir_size = ("IH", "IW") if warp else (h, w)
    if io == "frames":
        inputs = {"ir": (torch.uint8, (n, *ir_size, 1)), "vis": (torch.uint8, (n, h, w, 3))}
    else:
        inputs = {"ir": (torch.float32, (n, 1, *ir_size)), "vis": (torch.float32, (n, 1, h, w))}
    outputs = {"fused": inputs["vis"][1]}
    if warp:
        inputs["homography"] = (torch.float32, (n, 3, 3))
    if temporal:
        inputs["keep"] = (torch.float32, (1,))
        for name, size in state_sizes(generator).items():
            inputs[f"state_{name}"] = (torch.float32, (n, size))
            outputs[f"new_state_{name}"] = (n, size)
    dims = [*(dims for _, dims in inputs.values()), *outputs.values()]
    with warnings.catch_warnings(), _Quiet():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            tuple(_example(dtype, dims) for dtype, dims in inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            optimize=False,
            verbose=False,
        )
        if warp or not shape.is_fixed:
            _open_axes(program.model.graph, dims)
        onnxscript.optimizer.optimize_ir(program.model)
        onnxscript.optimizer.remove_unused_nodes(program.model)
    model: onnx.ModelProto = program.model_proto
    _name(model, {name for name, _ in (*module.named_parameters(), *module.named_buffers())})
    _forget(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _example(dtype: torch.dtype, dims: Sequence[int | str]) -> Tensor:
    """One odd size serves for all: nothing in the graph is derived from it (lowering.py), and torch takes four times as
    long with symbolic ones."""
    usual = {"N": 3, "H": 53, "W": 71, "IH": 37, "IW": 43}
    return torch.zeros([dim if isinstance(dim, int) else usual[dim] for dim in dims], dtype=dtype)


def _open_axes(graph: onnx_ir.Graph, dims: Sequence[Sequence[int | str]]) -> None:
    """Inputs and outputs get their named axes, and everything between loses the sizes it had in the trace."""
    import onnx_ir

    for node in graph:
        for value in node.outputs:
            value.shape = None
    for value, named in zip((*graph.inputs, *graph.outputs), dims, strict=True):
        value.shape = onnx_ir.Shape(named)


def _name(model: onnx.ModelProto, weights: Set[str]) -> None:
    """Nodes and what they give are called by where they are in the network, as ``content_vis/stem/conv``; constants
    by the node that reads them first. Weights, inputs and outputs keep their names."""
    from onnx import defs

    graph, (opset,) = model.graph, model.opset_import
    scopes: dict[str, str] = {}
    names = {value.name: value.name for value in (*graph.input, *graph.output)}
    names |= {name: name for name in weights}
    constants = {tensor.name for tensor in graph.initializer} - weights
    taken: Counter[str] = Counter()
    for node in graph.node:
        # what the exporter says nothing of belongs to whatever it reads
        scope = _scope(node) or next((scopes[value] for value in node.input if value in scopes), "frame")
        scopes |= dict.fromkeys(node.output, scope)
        node.name = f"{scope}/{re.sub('(?<=[a-z])(?=[A-Z])', '_', node.op_type).lower()}"
        taken[node.name] += 1
        if taken[node.name] > 1:
            node.name += f"_{taken[node.name]}"
        slots = defs.get_schema(node.op_type, opset.version).inputs
        for slot, value in enumerate(node.input):
            if value in constants and value not in names:
                names[value] = f"{node.name}.{slots[min(slot, len(slots) - 1)].name.lower()}"
        for slot, value in enumerate(node.output):
            names.setdefault(value, node.name if len(node.output) == 1 else f"{node.name}.{slot}")
    for tensor in graph.initializer:
        tensor.name = names[tensor.name]
    for node in graph.node:
        node.input[:] = [names.get(value, value) for value in node.input]
        node.output[:] = [names[value] for value in node.output]


def _scope(node: onnx.NodeProto) -> str:
    """The module a node comes from: ``content_vis/blocks/0/conv1``; ``frame`` for what is around the network."""
    notes = {entry.key: entry.value for entry in node.metadata_props}
    modules = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "[]"))
    if not modules:
        return ""
    module: str = modules[-2] or "frame"  # the last is the operator
    return module.removeprefix(GRAPH_PREFIX).replace(".", "/")


def _forget(model: onnx.ModelProto) -> None:
    """Take out what the exporter noted for itself: sizes that runtimes infer again, stack traces of this machine."""
    graph = model.graph
    del graph.value_info[:]
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]


class _Quiet:
    """torch's exporter reports its progress at INFO and WARNING; neither is for the user."""

    def __enter__(self) -> None:
        self._before = logging.root.manager.disable
        logging.disable(max(self._before, logging.WARNING))

    def __exit__(self, *exc: object) -> None:
        logging.disable(self._before)
