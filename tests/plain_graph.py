"""A graph of frames that is made in no time: the network's interface around two small convolutions."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def plain_graph(seed: int = 0) -> onnx.ModelProto:
    """ir uint8 [N,H,W,1], vis uint8 [N,H,W,3] -> fused uint8 [N,H,W,3]; weights ``generator.{a,b}.weight``."""
    rng = np.random.default_rng(seed)
    weights = {
        "generator.a.weight": rng.normal(0, 0.2, (4, 4, 3, 3)),
        "generator.b.weight": rng.normal(0, 0.2, (3, 4, 3, 3)),
    }
    dims = ("N", "H", "W")
    ir, vis, fused = (
        helper.make_tensor_value_info(name, TensorProto.UINT8, [*dims, channels])
        for name, channels in (("ir", 1), ("vis", 3), ("fused", 3))
    )
    nodes = [
        helper.make_node("Concat", ["ir", "vis"], ["both"], axis=3),
        helper.make_node("Cast", ["both"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["wide"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "generator.a.weight"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("InstanceNormalization", ["c", "ones", "zeros"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Conv", ["r", "generator.b.weight"], ["d"], pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["d", "scale"], ["s"]),
        helper.make_node("Transpose", ["s"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Round", ["t"], ["rounded"]),
        helper.make_node("Clip", ["rounded", "low", "high"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["fused"], to=TensorProto.UINT8),
    ]
    constants = {"ones": np.ones(4), "zeros": np.zeros(4), "scale": np.array(100.0)}
    constants |= {"low": np.array(0.0), "high": np.array(255.0)}
    initializers = [
        numpy_helper.from_array(array.astype(np.float32), name) for name, array in {**weights, **constants}.items()
    ]
    graph = helper.make_graph(nodes, "plain", [ir, vis], [fused], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
