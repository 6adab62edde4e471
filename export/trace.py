"""From the network's modules to one small graph that can be read: torch's exporter, and what tidies up after it."""

from __future__ import annotations

import ast
import logging
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pyldfusion.artefact import GRAPH_PREFIX
from pyldfusion.errors import DependencyError
from pyldfusion.frame_graph import FrameGraph
from pyldfusion.generator import Generator

from .lowering import for_graph
from .opset import OPSET
from .shape import Shape

if TYPE_CHECKING:
    import onnx
    import onnx_ir

__all__ = ["trace"]


class PlaneGraph(nn.Module):
    """Bare G, for those who bring their own colour conversion; its weights are named as in :class:`FrameGraph`."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, ir: Tensor, vis: Tensor) -> Tensor:
        fused: Tensor = self.generator(ir, vis)
        return fused


def trace(generator: Generator, io: str, shape: Shape) -> onnx.ModelProto:
    """The graph of :func:`export.onnx.build_model`, by whose rules the arguments are, in opset 18."""
    try:
        import onnx
        import onnxscript.optimizer
        import onnxscript.rewriter
    except ImportError as error:
        raise DependencyError(f"exporting needs {error.name}: pip install 'pyldfusion[export]'") from error
    inner = for_graph(generator)
    module = FrameGraph(inner) if io == "frames" else PlaneGraph(inner)
    # One odd size serves for all: nothing in the graph is derived from it (lowering.py), and torch takes four times as
    # long with symbolic ones.
    usual = (3, 53, 71)
    n, h, w = (dim if isinstance(dim, int) else size for dim, size in zip(shape.dims, usual, strict=True))
    if io == "frames":
        example = (torch.zeros(n, h, w, 1, dtype=torch.uint8), torch.zeros(n, h, w, 3, dtype=torch.uint8))
        axes = (0, 1, 2)
    else:
        example = (torch.zeros(n, 1, h, w), torch.zeros(n, 1, h, w))
        axes = (0, 2, 3)
    with warnings.catch_warnings(), _Quiet():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            input_names=["ir", "vis"],
            output_names=["fused"],
            opset_version=OPSET,
            optimize=False,
            verbose=False,
        )
        if not shape.is_fixed:
            _open_axes(program.model.graph, dict(zip(axes, shape.dims, strict=True)))
        onnxscript.optimizer.optimize_ir(program.model)
        onnxscript.rewriter.rewrite(program.model)
        onnxscript.optimizer.remove_unused_nodes(program.model)
    model: onnx.ModelProto = program.model_proto
    _name(model, {name for name, _ in (*module.named_parameters(), *module.named_buffers())})
    _forget(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _open_axes(graph: onnx_ir.Graph, dims: Mapping[int, int | str]) -> None:
    """Inputs and outputs get their named axes, and everything between loses the sizes it had in the trace."""
    import onnx_ir

    ends = [(value, value.shape) for value in (*graph.inputs, *graph.outputs)]
    for node in graph:
        for value in node.outputs:
            value.shape = None
    for value, traced in ends:
        value.shape = onnx_ir.Shape([dims.get(axis, size) for axis, size in enumerate(traced or ())])


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
        logging.disable(logging.WARNING)

    def __exit__(self, *exc: object) -> None:
        logging.disable(logging.NOTSET)
