"""What each layer loses in 16 bits, where no runtime of this machine computes a convolution so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .calibration import Feed
from .quantize import by_layers
from .sensitivity import Cost, costs_alone

if TYPE_CHECKING:
    import onnx

__all__ = ["half_costs", "with_halves"]

LARGEST = float(np.finfo(np.float16).max)


def half_costs(model: onnx.ModelProto, pairs: Sequence[Feed], *, computed: bool = True) -> list[Cost]:
    """Round one layer at a time and compare with the graph in FP32; the most costly first.

    Args:
        model: the graph in FP32, of either io.
        pairs: what to run, see :func:`~export.sensitivity.layer_costs`.
        computed: whether what goes into and comes out of a convolution is rounded too, beside its weights.
    """
    model, layers = by_layers(model)
    return costs_alone(model, layers, lambda name: with_halves(model, name, computed=computed), pairs)


def with_halves(model: onnx.ModelProto, layer: str, *, computed: bool = True) -> onnx.ModelProto:
    """The graph in FP32 with one layer rounded as FP16 rounds: its weights, and if ``computed`` its input and output.

    CPU runtimes drop Casts round a convolution that they have no FP16 kernel for, so the rounding is spelt out: a float
    times 2^13 + 1, less the difference to itself, keeps 11 of 24 bits (Veltkamp). What leaves FP16's range is held at
    its end, which shows.

    Args:
        model: as :func:`~export.quantize.by_layers` gives it; not changed.
        layer: the name of one of its convolutions.
        computed: see above.
    """
    import onnx
    from onnx import helper, numpy_helper

    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    at, conv = next((index, node) for index, node in enumerate(graph.node) if node.name == layer)
    for tensor in graph.initializer:
        if tensor.name in conv.input[1:]:
            rounded = np.clip(numpy_helper.to_array(tensor), -LARGEST, LARGEST).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    if not computed:
        return result
    constants = {"least": -LARGEST, "largest": LARGEST, "splitter": 2.0**13 + 1}
    graph.initializer.extend(
        numpy_helper.from_array(np.float32(value), f"{layer}.{name}") for name, value in constants.items()
    )

    def rounding(value: str, result: str) -> list[onnx.NodeProto]:
        within, much, rest = (f"{result}.{step}" for step in ("within", "much", "rest"))
        return [
            helper.make_node("Clip", [value, f"{layer}.least", f"{layer}.largest"], [within]),
            helper.make_node("Mul", [within, f"{layer}.splitter"], [much]),
            helper.make_node("Sub", [much, within], [rest]),
            helper.make_node("Sub", [much, rest], [result]),
        ]

    given, made = conv.input[0], conv.output[0]
    conv.input[0], conv.output[0] = f"{layer}.given", f"{layer}.made"
    nodes = [*graph.node]
    nodes[at : at + 1] = [*rounding(given, conv.input[0]), conv, *rounding(conv.output[0], made)]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return result
