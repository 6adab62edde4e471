"""Versions of ONNX's standard operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyldfusion.errors import InputError

if TYPE_CHECKING:
    import onnx

__all__ = ["OPSET", "OPSETS", "check_opset", "to_opset"]

#: What a graph can be written in. TensorRT reads up to 17 in 8.6 and up to 20 in 10.0.
OPSETS = range(17, 22)
#: The least that torch writes.
OPSET = 18


def check_opset(opset: int) -> None:
    """Raise InputError if ``opset`` is none of :data:`OPSETS`."""
    if opset not in OPSETS:
        raise InputError(f"opset is {opset!r}; expected {OPSETS[0]} to {OPSETS[-1]}")


def to_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """A graph of opset 18 in another one; ``model`` may be changed."""
    from onnx import version_converter

    if opset < OPSET:
        return _to_17(model)
    return model if opset == OPSET else version_converter.convert_version(model, opset)


def _to_17(model: onnx.ModelProto) -> onnx.ModelProto:
    """What onnx's converter does not: it has no way down for Pad, which is the same in both as it is used here."""
    from onnx import helper, numpy_helper

    graph = model.graph
    axes = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in graph.initializer if tensor.dims}
    for node in graph.node:
        attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        if node.op_type in ("ReduceMean", "ReduceProd"):  # their axes were attributes
            attributes.pop("noop_with_empty_axes", None)
            if len(node.input) > 1:
                attributes["axes"] = axes[node.input.pop()]
        elif node.op_type == "Split":  # as many as there are outputs
            attributes.pop("num_outputs", None)
        del node.attribute[:]
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    read = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)
    model.opset_import[0].version, model.ir_version = 17, 8
    return model
