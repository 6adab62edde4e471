"""Graphs of small networks, each traced once a test run, and the runtimes they are run in."""

from __future__ import annotations

from functools import cache
from zlib import crc32

import numpy as np
import onnx
import torch

from export.lowering import for_graph
from export.onnx import build_model
from export.opset import OPSET, to_opset
from export.shape import Shape
from pyldfusion.artefact import GRAPH_PREFIX
from pyldfusion.engines.onnx import import_onnxruntime
from pyldfusion.engines.openvino import openvino_core
from pyldfusion.generator import Generator
from trainer.start.initialise import initialise

ANY_SHAPE = Shape.dynamic()


@cache
def network(variant: str) -> Generator:
    """Seeded weights, with biases that are not zero, and no two alike: the exporter would make one of them."""
    generator = initialise(Generator(variant), seed=1)
    for name, weight in generator.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(crc32(name.encode())))
    return generator.eval()


@cache
def _traced(variant: str, io: str, shape: Shape, warp: bool) -> bytes:
    return build_model(network(variant), io=io, shape=shape, warp=warp).SerializeToString()


def graph(
    variant: str = "lite", io: str = "frames", shape: Shape = ANY_SHAPE, opset: int = OPSET, warp: bool = False
) -> onnx.ModelProto:
    """The fp32 graph of :func:`network`, a copy of one's own."""
    return to_opset(onnx.load_from_string(_traced(variant, io, shape, warp)), opset)


def graph_of(generator: Generator, io: str = "frames") -> onnx.ModelProto:
    """The fp32 graph of any network of known shape: that of :func:`network` with its weights, which saves a trace."""
    model = graph(generator.variant, io)
    weights = for_graph(generator).state_dict()
    for tensor in model.graph.initializer:
        if tensor.name.startswith(GRAPH_PREFIX):
            array = weights[tensor.name.removeprefix(GRAPH_PREFIX)].numpy()
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return model


def run_onnxruntime(model: onnx.ModelProto, inputs: dict[str, np.ndarray], optimise: bool = True) -> np.ndarray:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def run_openvino(model: onnx.ModelProto, inputs: dict[str, np.ndarray], precision: str = "f32") -> np.ndarray:
    core = openvino_core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": precision}
    )
    return np.array(compiled(inputs)[0])


RUNTIMES = {"onnxruntime": run_onnxruntime, "openvino": run_openvino}


def frames(seed: int, n: int, h: int, w: int) -> dict[str, np.ndarray]:
    """Smooth random frames, as the graph's inputs."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((n, h // 4 + 2, w // 4 + 2, 4))
    fine = np.kron(coarse, np.ones((1, 4, 4, 1)))[:, :h, :w] * 215 + rng.random((n, h, w, 4)) * 40
    picture = fine.astype(np.uint8)
    return {"ir": np.ascontiguousarray(picture[..., :1]), "vis": np.ascontiguousarray(picture[..., 1:])}
