"""The FP16 recipe: what is computed in which type, how near it stays, and that nothing leaves FP16's range."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")

from export.half import compute_in_half, store_in_half  # noqa: E402
from export.half_costs import with_halves  # noqa: E402
from export.onnx import export_onnx  # noqa: E402
from export.shape import Shape  # noqa: E402
from pyldfusion.artefact import open_artefact  # noqa: E402
from pyldfusion.author_weights import load_author_files, to_state_dict  # noqa: E402
from pyldfusion.generator import Generator, load_generator  # noqa: E402

from .graphs import frames, graph, graph_of, network, run_onnxruntime, run_openvino  # noqa: E402
from .test_export_graph import types  # noqa: E402

ISLANDS = {"InstanceNormalization", "ReduceMean", "ReduceSum", "ReduceProd", "Gemm", "Sqrt", "Tanh", "Sigmoid", "Round"}


def as_tensor_cores_compute(model):
    """A graph in FP32 that rounds to FP16 whatever has that type: FP16 in and out of convolutions, sums in FP32.

    ONNX Runtime and OpenVINO on x86 have no convolutions in FP16. They compute them in FP32 and drop the Casts round
    them, even where they are told not to optimise.
    """
    kinds = types(model)
    graph, rounded = model.graph, onnx.GraphProto()
    splitter = onnx.numpy_helper.from_array(np.float32(2**13 + 1), "splitter")  # Veltkamp: 11 bits of 24
    for tensor in graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(unhalved(tensor), tensor.name))
    for node in graph.node:
        (name,) = node.output if len(node.output) == 1 else ("",)
        if node.op_type == "Cast" and kinds[node.input[0]] in HALVES and kinds[name] in HALVES:
            node.op_type = "Identity"
            del node.attribute[:]
        rounded.node.add().CopyFrom(node)
        if kinds.get(name) == "FLOAT16":
            exact, much, rest = (f"{name}.{step}" for step in ("exact", "much", "rest"))
            rounded.node[-1].output[0] = exact
            rounded.node.append(onnx.helper.make_node("Mul", [exact, "splitter"], [much]))
            rounded.node.append(onnx.helper.make_node("Sub", [much, exact], [rest]))
            rounded.node.append(onnx.helper.make_node("Sub", [much, rest], [name]))
    del graph.node[:]
    graph.node.extend(rounded.node)
    graph.initializer.append(splitter)
    return model


HALVES = {"FLOAT", "FLOAT16"}


def unhalved(tensor):
    array = onnx.numpy_helper.to_array(tensor)
    return array.astype(np.float32) if array.dtype == np.float16 else array


COMPUTED = {
    "onnxruntime": run_onnxruntime,
    "openvino": run_openvino,
    "tensor cores": lambda model, inputs: run_onnxruntime(as_tensor_cores_compute(model), inputs),
}


@pytest.mark.parametrize("computed", [True, False])
def test_one_layer_alone_is_rounded_as_numpy_rounds(computed):
    """A convolution by one number, so that what it gives is a product."""
    value, tensor = onnx.helper.make_tensor_value_info, onnx.numpy_helper.from_array
    weight = np.full((1, 1, 1, 1), 1.23456789, np.float32)
    nodes = [onnx.helper.make_node("Conv", ["x", "generator.a.weight"], ["fused"], "a")]
    ports = [value(name, onnx.TensorProto.FLOAT, [1, 1, 1, "W"]) for name in ("x", "fused")]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "one", ports[:1], ports[1:], [tensor(weight, "generator.a.weight")]),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=9,
    )
    x = np.random.default_rng(1).normal(0, 1000, (1, 1, 1, 500)).astype(np.float32)
    x[..., :2] = 1e6, -1e6
    given = np.clip(x, -65504, 65504).astype(np.float16).astype(np.float32) if computed else x
    made = given * weight.astype(np.float16).astype(np.float32)
    if computed:
        made = np.clip(made, -65504, 65504).astype(np.float16).astype(np.float32)
    assert np.array_equal(run_onnxruntime(with_halves(model, "a", computed=computed), {"x": x}), made)


@pytest.mark.parametrize("variant", ["lite", "full"])
def test_every_node_has_one_type(variant):
    model = compute_in_half(graph(variant))
    onnx.checker.check_model(model, full_check=True)
    kinds = types(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        assert node.name.startswith(makers[node.output[0]].name)
        if node.op_type == "Cast":
            continue
        floats = {kinds[name] for name in (*node.input, *node.output)} & {"FLOAT", "FLOAT16"}
        assert len(floats) <= 1, node.name
        if node.op_type in ISLANDS or node.name.startswith("frame/") or "/mlp/" in node.name or "/head/" in node.name:
            assert floats == {"FLOAT"}, node.name
        elif node.op_type in ("Conv", "ConvTranspose"):
            assert floats == {"FLOAT16"}, node.name


def test_casts_are_where_types_change_and_nowhere_twice():
    model = compute_in_half(graph("full"))
    kinds = types(model)
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert all(kinds[node.input[0]] != kinds[node.output[0]] for node in casts)
    turned = [(node.input[0], kinds[node.output[0]]) for node in casts]
    assert len(set(turned)) == len(turned)
    made_by_casts = {node.output[0] for node in casts}
    assert not any(node.input[0] in made_by_casts and kinds[node.output[0]] in HALVES for node in casts)


def test_types_do_not_depend_on_whether_sizes_are_fixed():
    fixed = compute_in_half(graph(shape=Shape(1, 48, 56)))
    onnx.checker.check_model(fixed, full_check=True)
    inputs = frames(1, 1, 48, 56)
    dynamic = run_onnxruntime(compute_in_half(graph()), inputs)
    assert np.abs(run_onnxruntime(fixed, inputs).astype(int) - dynamic).max() <= 1


@cache
def planes_model(name, folder):
    """A network of real weights and its fp32 graph of planes."""
    if name == "LD-Lite":
        variant, state = to_state_dict(load_author_files([folder / "final.pt"]))
        generator = Generator(variant)
        generator.load_state_dict(state)
    else:
        generator = load_generator(name)
    return generator.double().eval(), graph_of(generator.float(), io="planes").SerializeToString()


@pytest.mark.parametrize("weights", ["LD-Lite", "lite", "full"])
def test_accuracy_on_real_pairs(shared, weights):
    """PSNR to float64 on planes: at least 60 dB in FP32, 50 in FP16."""
    folder = shared / "upstream" / "lite"
    exact, graph_of_planes = planes_model(weights, folder)
    exact.double()
    for picture in ("1.png", "2.png"):
        planes = {
            name: cv2.imread(str(folder / side / picture), cv2.IMREAD_GRAYSCALE)[60:180, 80:240][None, None] / 255.0
            for name, side in (("ir", "ir"), ("vis", "vi"))
        }
        with torch.inference_mode():
            expected = exact(*(torch.from_numpy(planes[name]) for name in ("ir", "vis"))).numpy()
        inputs = {name: plane.astype(np.float32) for name, plane in planes.items()}
        for least, recipe in ((60, lambda model: model), (50, compute_in_half)):
            model = recipe(onnx.load_from_string(graph_of_planes))
            for runtime, run in COMPUTED.items():
                if runtime == "openvino":
                    pytest.importorskip("openvino")
                psnr = -10 * np.log10(np.mean((run(model, inputs) - expected) ** 2))
                assert psnr >= least, (weights, picture, runtime, recipe, psnr)


def extreme(name, h, w):
    plane = np.zeros((h, w), np.uint8)
    if name == "white":
        plane[:] = 255
    elif name == "chequers":
        plane[::2, ::2] = plane[1::2, 1::2] = 255
    elif name == "hot pixel":
        plane[h // 2, w // 2] = 255
    return plane


@pytest.mark.parametrize("weights", ["lite", "full"])
def test_nothing_leaves_the_range_of_16_bits(weights):
    """Every FP16 value of the graph, at the inputs where a norm's output is largest, with a factor of 4 to spare."""
    model = compute_in_half(graph_of(load_generator(weights)))
    halves = [name for name, kind in types(model).items() if kind == "FLOAT16"]
    made = {name for node in model.graph.node for name in node.output}
    for name in made.intersection(halves):
        model.graph.output.add(name=name)
    from pyldfusion.engines.onnx import import_onnxruntime

    session = import_onnxruntime().InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    kinds = ("black", "white", "chequers", "hot pixel")
    for ir in kinds:
        for vis in kinds:
            inputs = {
                "ir": extreme(ir, 120, 160)[None, ..., None],
                "vis": np.repeat(extreme(vis, 120, 160)[None, ..., None], 3, -1),
            }
            values = session.run(None, inputs)
            largest = max(float(np.abs(value.astype(np.float32)).max()) for value in values[1:])
            assert largest < np.finfo(np.float16).max / 4, (ir, vis, largest)


@pytest.mark.parametrize("precision", ["fp16", "fp16-stored"])
def test_the_file_gives_its_weights_back(precision, tmp_path, monkeypatch):
    monkeypatch.setattr("export.onnx.build_model", lambda generator, **options: graph_of(generator))
    about = export_onnx(network("full"), tmp_path / "m.onnx", precision=precision)
    assert about["precision"] == precision
    state = open_artefact(tmp_path / "m.onnx").state_dict()
    original = {name: tensor.numpy() for name, tensor in network("full").state_dict().items()}
    assert state.keys() == original.keys()
    for name, tensor in state.items():
        dead = name.endswith("bias") and not tensor.any()
        assert dead or np.allclose(tensor, original[name], rtol=2**-11, atol=2**-24), name


def test_half_the_bytes():
    whole, stored, computed = graph(), store_in_half(graph()), compute_in_half(graph())
    assert stored.ByteSize() < 0.55 * whole.ByteSize() and computed.ByteSize() < 0.56 * whole.ByteSize()
