"""Precision lives in the graph: recipes that turn the fp32 graph into one stored or computed in fewer bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pyldfusion.artefact import GRAPH_PREFIX
from pyldfusion.errors import InputError

if TYPE_CHECKING:
    import onnx

__all__ = ["RECIPES", "Recipe", "store_weights_in_half"]


@dataclass(frozen=True)
class Recipe:
    """One way of holding and computing the network.

    Attributes:
        meaning: for help and documentation.
        apply: fp32 graph -> the graph in this precision; the graph given is changed or used, not kept.
    """

    meaning: str
    apply: Callable[[onnx.ModelProto], onnx.ModelProto]


def store_weights_in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network's initialisers as FP16, cast back in the graph: half the size, computed in FP32.

    Raises:
        InputError: weights beyond what FP16 holds.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for index, initializer in enumerate(model.graph.initializer):
        if not initializer.name.startswith(GRAPH_PREFIX) or initializer.data_type != TensorProto.FLOAT:
            continue
        half = to_half(initializer.name, numpy_helper.to_array(initializer))
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
    return model


def to_half(name: str, weights: np.ndarray) -> np.ndarray:
    """``weights`` as float16; raises InputError, with their name, if it cannot hold them."""
    limit, largest = np.finfo(np.float16).max, np.abs(weights).max()
    if not largest <= limit:  # also true for NaN
        raise InputError(
            f"{name.removeprefix(GRAPH_PREFIX)} reaches {largest:.3g}, more than 16 bits hold ({limit:.0f}); "
            "export with precision fp32"
        )
    half: np.ndarray = weights.astype(np.float16)
    return half


#: By the name that files and options give them.
RECIPES = {
    "fp32": Recipe("stored and computed in 32 bits", lambda model: model),
    "fp16-stored": Recipe("stored in 16 bits, computed in 32: half the size", store_weights_in_half),
}
