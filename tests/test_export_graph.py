"""The exported graph itself: its operators and types, its names, its sizes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")

from export.calibration import feeds  # noqa: E402
from export.half import compute_in_half  # noqa: E402
from export.onnx import build_model, graph_hash, write_model  # noqa: E402
from export.pairs import generated  # noqa: E402
from export.precision import RECIPES  # noqa: E402
from export.quantize import quantize  # noqa: E402
from export.shape import Shape  # noqa: E402
from pyldfusion.artefact import open_artefact  # noqa: E402
from pyldfusion.errors import InputError  # noqa: E402
from pyldfusion.frame_graph import FrameGraph  # noqa: E402

from .graphs import RUNTIMES, frames, graph, network  # noqa: E402

#: What TensorRT 10.0 reads of the operators and types used, from docs/operators.md of onnx/onnx-tensorrt, tag 10.0-GA.
#: UINT8 is for inputs and outputs of the network alone, which Cast turns into what is computed with.
FLOATS = {"FLOAT", "FLOAT16"}
INTS = {"INT32", "INT64"}
TENSORRT = {
    "Add": FLOATS | INTS,
    "Cast": FLOATS | INTS | {"UINT8", "BOOL"},
    "Clip": FLOATS,
    "Concat": FLOATS | INTS | {"BOOL"},
    "Conv": FLOATS,
    "ConvTranspose": FLOATS,
    "DepthToSpace": FLOATS | INTS,
    "DequantizeLinear": FLOATS | {"INT8"},
    "Div": FLOATS | INTS,
    "Gather": FLOATS | INTS | {"BOOL"},
    "Gemm": FLOATS,
    "Greater": FLOATS | INTS | {"BOOL"},  # what it gives
    "GridSample": FLOATS,
    "InstanceNormalization": FLOATS,
    "Less": FLOATS | INTS | {"BOOL"},
    "Max": FLOATS | INTS,
    "Mul": FLOATS | INTS,
    "Pad": FLOATS | INTS,
    "QuantizeLinear": FLOATS | {"INT8"},
    "Range": FLOATS | INTS,
    "Reciprocal": FLOATS,
    "ReduceMean": FLOATS | INTS,
    "ReduceProd": FLOATS | INTS,
    "ReduceSum": FLOATS | INTS,
    "Relu": FLOATS | INTS,
    "Reshape": FLOATS | INTS | {"BOOL"},
    "Round": FLOATS,
    "Shape": FLOATS | INTS | {"BOOL"},
    "Sigmoid": FLOATS,
    "Slice": FLOATS | INTS | {"BOOL"},
    "Split": FLOATS | INTS | {"BOOL"},
    "Sqrt": FLOATS,
    "Squeeze": FLOATS | INTS | {"BOOL"},
    "Sub": FLOATS | INTS,
    "Tanh": FLOATS,
    "Transpose": FLOATS | INTS | {"BOOL"},
    "Unsqueeze": FLOATS | INTS | {"BOOL"},
    "Where": FLOATS | INTS | {"BOOL"},
}
#: Inputs that TensorRT wants to be initialisers.
CONSTANT = {"ReduceMean": (1,), "ReduceSum": (1,), "Slice": (3,), "Squeeze": (1,), "Unsqueeze": (1,), "Pad": (1,)}


def types(model):
    """Name -> element type, of everything in a graph, by ONNX's strict shape inference."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    found = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        found[value.name] = value.type.tensor_type.elem_type
    return {name: onnx.TensorProto.DataType.Name(kind) for name, kind in found.items()}


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "int8"])
@pytest.mark.parametrize(("variant", "io", "warp"), [("lite", "frames", True), ("full", "frames", False)])
def test_operators_and_types_are_those_of_tensorrt(variant, io, warp, recipe):
    model = RECIPES[recipe].apply(graph(variant, io, warp=warp))
    check_for_tensorrt(model)


def test_int8_for_tensorrt_is_signed_and_around_zero():
    """As an engine is built: the rest in FP16. Its list asks for zero points of 0."""
    model = compute_in_half(graph())
    model = quantize(model, feeds(model, generated(1, "calibrate", (32, 40))), activations="symmetric")
    check_for_tensorrt(model)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    rounding = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {node.op_type for node in rounding} == {"QuantizeLinear", "DequantizeLinear"}
    for node in rounding:
        assert (constants[node.input[1]] > 0).all(), node.name  # a scale, known when the engine is built
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8 and not zero.any(), node.name


def check_for_tensorrt(model):
    kinds = types(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        assert node.op_type in TENSORRT and not node.domain, node.name
        # sizes and axes are int64 beside the data
        data = [kinds[node.input[0]], *(kinds[name] for name in node.output)]
        assert set(data) <= TENSORRT[node.op_type], (node.name, data)
        for slot in CONSTANT.get(node.op_type, ()):
            assert len(node.input) <= slot or node.input[slot] in constants, node.name


@pytest.mark.parametrize(("variant", "most"), [("lite", 145), ("full", 215)])
def test_it_is_small_and_says_where_everything_is(variant, most):
    model = graph(variant)
    assert len(model.graph.node) <= most
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert {"content_vis/stem/conv", "content_ir/blocks/1/conv2/conv", "decoder/norm/2/sqrt", "frame/round"} <= {*names}
    weights = {tensor.name.removeprefix("generator.") for tensor in model.graph.initializer}
    assert {"luma", "content_ir.stem.weight", "decoder.up.0.bias"} <= weights
    assert {"decoder.norm.1.gamma", "decoder.out.weight"} <= weights
    for node in model.graph.node:
        assert all(name.startswith(node.name) or name == "fused" for name in node.output)


@pytest.mark.parametrize("variant", ["lite", "full"])
def test_the_bundled_graphs_are_what_the_exporter_writes_today(variant):
    bundled, todays = (
        [(node.name, node.op_type) for node in model.graph.node if not node.name.startswith("generator.")]
        for model in (onnx.load(open_artefact(variant).path), graph(variant))
    )  # without what widens each weight
    assert bundled == todays


@pytest.mark.parametrize("variant", ["lite"])
def test_fixed_sizes_leave_no_arithmetic_of_shapes(variant):
    fixed, dynamic = graph(variant, shape=Shape(1, 48, 56)), graph(variant)
    operators = {node.op_type for node in fixed.graph.node}
    assert not operators & {"Shape", "Gather", "ReduceProd", "Range", "Expand", "ConstantOfShape"}
    assert len(fixed.graph.node) < len(dynamic.graph.node)
    dims = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in fixed.graph.input]
    assert dims == [[1, 48, 56, 1], [1, 48, 56, 3]]
    inputs = frames(1, 1, 48, 56)
    for run in RUNTIMES.values():
        assert np.abs(run(fixed, inputs).astype(int) - run(dynamic, inputs)).max() <= 1


def test_one_axis_may_be_fixed_alone():
    model = graph(shape=Shape(batch=(1, 2, 4), width=24))
    dims = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input]
    assert dims == [["N", "H", 24, 1], ["N", "H", 24, 3]]
    for n, h in ((1, 16), (3, 21)):
        assert RUNTIMES["onnxruntime"](model, frames(2, n, h, 24)).shape == (n, h, 24, 3)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("variant", ["lite", "full"])
def test_any_size_and_batch(runtime, variant):
    pytest.importorskip(runtime)
    reference = FrameGraph(network(variant))
    for shape in ((1, 16, 16), (2, 17, 39), (3, 33, 24), (1, 61, 47)):
        inputs = frames(sum(shape), *shape)
        with torch.inference_mode():
            expected = reference(**{name: torch.from_numpy(array) for name, array in inputs.items()}).numpy()
        fused = RUNTIMES[runtime](graph(variant), inputs)
        assert fused.shape == expected.shape and np.abs(fused.astype(int) - expected).max() <= 1, shape


@pytest.mark.parametrize("opset", [17, 19, 20, 21])
def test_other_opsets_compute_the_same(opset):
    model = graph(opset=opset)
    assert [entry.version for entry in model.opset_import] == [opset]
    onnx.checker.check_model(model, full_check=True)
    if opset == 17:  # TensorRT 8.6 knows axes as attributes alone
        assert all(len(node.input) == 1 for node in model.graph.node if node.op_type == "ReduceMean")
    inputs = frames(3, 1, 32, 40)
    assert np.array_equal(RUNTIMES["onnxruntime"](model, inputs), RUNTIMES["onnxruntime"](graph(), inputs))


def test_opset_17_of_the_full_network():
    inputs = frames(4, 2, 24, 24)
    lowered = graph("full", opset=17)
    onnx.checker.check_model(lowered, full_check=True)
    assert np.array_equal(RUNTIMES["onnxruntime"](lowered, inputs), RUNTIMES["onnxruntime"](graph("full"), inputs))


@pytest.mark.parametrize("opset", [16, 22, "18"])
def test_opsets_that_are_refused(opset):
    with pytest.raises(InputError, match=r"opset is .*expected 17 to 21"):
        build_model(network("lite"), opset=opset)


def test_the_hash_is_of_the_graph_alone(tmp_path):
    model, again = graph(), build_model(network("lite"))
    assert graph_hash(model) == graph_hash(again)
    written = write_model(model, tmp_path / "a.onnx", {"note": "first"})
    assert write_model(again, tmp_path / "b.onnx", {"note": "second"})["graph_sha256"] == written["graph_sha256"]
    assert open_artefact(tmp_path / "b.onnx").metadata == {**written, "note": "second", "opset": "18"}
    assert hashlib.sha256(b"").hexdigest() != written["graph_sha256"]
    (weight,) = (t for t in again.graph.initializer if t.name == "generator.decoder.out.bias")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.zeros(16, np.float32), weight.name))
    assert graph_hash(again) != written["graph_sha256"]
