"""Precision lives in the graph: recipes that turn the fp32 graph into one stored or computed in fewer bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .half import compute_in_half, store_in_half

if TYPE_CHECKING:
    import onnx

__all__ = ["RECIPES", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """One way of holding and computing the network.

    Attributes:
        meaning: for help and documentation.
        apply: fp32 graph -> the graph in this precision; the graph given is changed or used, not kept.
    """

    meaning: str
    apply: Callable[[onnx.ModelProto], onnx.ModelProto]


def _to_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """As the command does without ``--data``."""
    from .int8 import to_int8

    return to_int8(model).model


#: By the name that files and options give them.
RECIPES = {
    "fp32": Recipe("stored and computed in 32 bits", lambda model: model),
    "fp16-stored": Recipe("stored in 16 bits, computed in 32: half the size", store_in_half),
    "fp16": Recipe("convolutions stored and computed in 16 bits, the rest in 32", compute_in_half),
    "int8": Recipe("convolutions in 8 bits where accuracy allows, the rest in 32", _to_int8),
}
