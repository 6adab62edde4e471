"""The decoder's norms as single nodes, in a graph of OpenVINO.

In the file such a norm is a dozen nodes, because no operator of ONNX takes the mean and deviation over channels and
pixels together. OpenVINO has one, which takes what a convolution gives in any layout and type: in 8 bits, where its
convolutions give float32 by pixels, the other nodes were each led by a copy into another layout, a tenth of all time
(`full`, 640x480).

Done to the graph that OpenVINO has read, in bfloat16 alone: the deviation that it takes divides by n, ours by n - 1,
which are 64 pixels or more of 32 channels or more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["whole_norms"]


def whole_norms(model: Any) -> Any:
    """The graph with each ``(x - mean(x)) / (std(x) + eps)`` over channels and pixels as one node.

    Args:
        model: an ``openvino.Model``; not changed.

    Returns:
        A new ``openvino.Model``. Norms with a memory, and those of one channel, stay as they are.
    """
    from openvino import opset13

    changed = model.clone()
    for node in changed.get_ordered_ops():
        eps = _eps(node)
        if eps is None:
            continue
        x = _inputs(node)[0].input_value(0)
        norm = opset13.mvn(x, opset13.constant(np.array([1, 2, 3])), True, eps, "outside_sqrt")
        for reader in node.output(0).get_target_inputs():
            reader.replace_source_output(norm.output(0))
    changed.validate_nodes_and_infer_types()
    return changed


def _eps(node: Any) -> float | None:
    """Of a division that ends such a norm; None of any other node."""
    centred, divisor = _ends(node, "Divide", "Subtract", "Add")
    x, mean = _ends(centred, "Subtract", None, "ReduceMean")
    deviation, eps = _ends(divisor, "Add", "Sqrt", "Constant")
    if mean is None or eps is None or eps.data.size != 1 or not _averages(mean, x):
        return None
    variance = _inputs(deviation)[0]
    if variance.get_type_name() == "Multiply":  # in a graph for one size the factor is folded, and gone where it is 1
        variance, factor = _ends(variance, "Multiply", "ReduceMean", None)
        if variance is None or not _is_bessels(factor):
            return None
    if variance.get_type_name() != "ReduceMean":
        return None
    square = _inputs(variance)[0]
    if not _averages(variance, square) or any(not _same(end, centred) for end in _ends(square, "Multiply", None, None)):
        return None
    return float(eps.data.item())


def _ends(node: Any, kind: str, first: str | None, second: str | None) -> tuple[Any, Any]:
    """The nodes before a node of two inputs, if all are of those kinds; None stands for any."""
    if node is None or node.get_type_name() != kind:
        return None, None
    ends = _inputs(node)
    fits = all(want in (None, end.get_type_name()) for want, end in zip((first, second), ends, strict=True))
    return (ends[0], ends[1]) if fits else (None, None)


def _averages(mean: Any, x: Any) -> bool:
    """Whether it is the mean of ``x`` over channels and pixels."""
    source, axes = _inputs(mean)
    if not _same(source, x) or axes.get_type_name() != "Constant" or not mean.get_attributes()["keep_dims"]:
        return False
    return sorted(np.array(axes.data).ravel().tolist()) == [1, 2, 3]


def _is_bessels(factor: Any) -> bool:
    """Whether it is n / (n - 1), computed, or of a graph for one size a number that is hardly more than 1."""
    if factor.get_type_name() == "Constant":
        return factor.data.size == 1 and 1 <= factor.data.item() <= 1.001
    n, less = _ends(factor, "Divide", None, "Subtract")
    return n is not None and _same(_inputs(less)[0], n)


def _same(a: Any, b: Any) -> bool:
    return a is not None and b is not None and a.get_instance_id() == b.get_instance_id()


def _inputs(node: Any) -> list[Any]:
    return [port.get_node() for port in node.input_values()]
