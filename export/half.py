"""16 bits: weights that are only stored so, and a graph that computes its convolutions so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyldfusion.artefact import GRAPH_PREFIX
from pyldfusion.errors import InputError

if TYPE_CHECKING:
    import onnx

__all__ = ["compute_in_half", "store_in_half"]

#: What multiplies matrices, and so gains from 16 bits.
CONVOLUTIONS = {"Conv", "ConvTranspose"}
#: What hands numbers on without computing: it has the type of what is before or behind it.
MOVES = {"Concat", "DepthToSpace", "Pad", "Relu", "Slice"}


def store_in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network's initialisers as FP16, cast back in the graph: half the size, computed in FP32.

    Args:
        model: an fp32 graph, changed in place.

    Raises:
        InputError: weights beyond what FP16 holds.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for initializer in model.graph.initializer:
        if not initializer.name.startswith(GRAPH_PREFIX) or initializer.data_type != TensorProto.FLOAT:
            continue
        half = _to_half(initializer.name, numpy_helper.to_array(initializer))
        initializer.CopyFrom(numpy_helper.from_array(half, initializer.name))
        wide = f"{initializer.name}.fp32"
        casts.append(helper.make_node("Cast", [initializer.name], [wide], f"{wide}.cast", to=TensorProto.FLOAT))
        for node in model.graph.node:
            for slot, name in enumerate(node.input):
                if name == initializer.name:
                    node.input[slot] = wide
    _replace_nodes(model, [*casts, *model.graph.node])
    return model


def compute_in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A strongly typed graph: convolutions in FP16, all else in FP32, with Casts where one meets the other.

    The norms and every other reduction, the style path, the last squashing and what is around the network stay in
    FP32: their sums leave FP16's range, or their rounding would be seen. What lies between convolutions and does not
    compute (padding, ReLU) is FP16 too, so that as little as can be is moved in 32 bits.

    Args:
        model: an fp32 graph, changed in place.

    Raises:
        InputError: weights beyond what FP16 holds.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    halves = _half_nodes(graph)
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    for node in graph.node:
        for name in node.input:
            if node.name in halves and name in weights:
                tensor = weights.pop(name)
                tensor.CopyFrom(numpy_helper.from_array(_to_half(name, numpy_helper.to_array(tensor)), name))
    made_in_half = {value: node.name in halves for node in graph.node for value in node.output}
    floats = _float_values(model)
    nodes: list[onnx.NodeProto] = []
    casts: dict[str, str] = {}
    for node in graph.node:
        half = node.name in halves
        for slot, name in enumerate(node.input):
            if name not in floats or made_in_half.get(name, False) == half:
                continue
            if name not in casts:
                casts[name] = f"{name}.fp{16 if half else 32}"
                to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
                nodes.append(helper.make_node("Cast", [name], [casts[name]], f"{casts[name]}.cast", to=to))
            node.input[slot] = casts[name]
        nodes.append(node)
    _replace_nodes(model, nodes)
    return model


def _half_nodes(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes to be computed in FP16."""
    makers = {value: node for node in graph.node for value in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for value in node.input:
            readers.setdefault(value, []).append(node)

    def before(node: onnx.NodeProto) -> str:
        return makers[node.input[0]].op_type if node.input[0] in makers else ""

    # a convolution of what a reduction gave is a part of the style path
    halves = {node.name for node in graph.node if node.op_type in CONVOLUTIONS and before(node) != "ReduceMean"}
    for node in graph.node:
        if node.op_type in MOVES and node.input[0] in makers and makers[node.input[0]].name in halves:
            halves.add(node.name)
    for node in reversed(graph.node):
        behind = [reader.name for value in node.output for reader in readers.get(value, ())]
        if node.op_type in MOVES and behind and halves.issuperset(behind):
            halves.add(node.name)
    return halves


def _float_values(model: onnx.ModelProto) -> set[str]:
    """Names of the FP32 values that nodes make or the graph is given."""
    from onnx import TensorProto, shape_inference

    graph = shape_inference.infer_shapes(model).graph
    return {
        value.name
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }


def _replace_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _to_half(name: str, weights: np.ndarray) -> np.ndarray:
    """``weights`` as float16; raises InputError, with their name, if it cannot hold them."""
    limit, largest = np.finfo(np.float16).max, np.abs(weights).max()
    if not largest <= limit:  # also true for NaN
        raise InputError(
            f"{name.removeprefix(GRAPH_PREFIX)} reaches {largest:.3g}, more than 16 bits hold ({limit:.0f}); "
            "export with precision fp32"
        )
    half: np.ndarray = weights.astype(np.float16)
    return half
