"""INT8 in the graph: its structure, its accuracy, which layers it spares, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

from export.calibration import calibration_pairs, feeds
from export.half import compute_in_half
from export.options import plan
from export.pairs import Pair, generated
from export.pipeline import export
from export.precision import Recipe
from export.quantize import KEEP, calibrate, clip_range, quantize, runner
from export.sensitivity import choose_layers, layer_costs, psnr
from export.verify import without_rounding
from pyldfusion.artefact import open_artefact
from pyldfusion.engines.openvino import openvino_core
from pyldfusion.errors import InputError
from pyldfusion.media import write_image

onnx = pytest.importorskip("onnx")
numpy_helper = pytest.importorskip("onnx.numpy_helper")

PLANTED = "decoder.up.1"


@pytest.fixture(scope="module")
def graphs():
    """The bundled networks' graphs of frames, before they are rounded."""
    return {name: without_rounding(onnx.load(open_artefact(name).path)) for name in ("lite", "full")}


@pytest.fixture(scope="module")
def graph(graphs):
    return graphs["lite"]


@pytest.fixture(scope="module")
def pairs():
    return generated(6, "calibrate", (96, 128))


@pytest.fixture(scope="module")
def calibrated(graph, pairs):
    return calibrate(graph, feeds(graph, pairs))


def loss(model, exact, inputs):
    """PSNR of ``model`` to ``exact``, the lowest over the inputs, as the graph says it."""
    return distance(runner(model, ["fused"]), exact, inputs)


def distance(run, exact, inputs):
    peak = 1 if exact.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT else 255
    right = runner(exact, ["fused"])
    errors = [np.mean(((run(feed)[0].astype(float) - right(feed)[0]) / peak) ** 2) for feed in inputs]
    return psnr(max(errors))


def producers(model):
    return {name: node for node in model.graph.node for name in node.output}


@pytest.mark.parametrize("activations", ["symmetric", "asymmetric"])
def test_structure(graphs, pairs, activations):
    model = quantize(graphs["full"], feeds(graphs["full"], pairs), activations=activations)
    made = producers(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    kept, quantised = [], []
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            x, w = (made.get(name) for name in node.input[:2])
            if w is None:
                kept.append(node.name)
                continue
            quantised.append(node.name)
            assert w.op_type == x.op_type == "DequantizeLinear" and made[x.input[0]].op_type == "QuantizeLinear"
            axis = 1 if node.op_type == "ConvTranspose" else 0
            weights, scale, zero = (constants[name] for name in w.input)
            assert weights.dtype == np.int8 and not zero.any()
            assert w.attribute[0].i == axis and scale.shape == (weights.shape[axis],)
            others = tuple(i for i in range(4) if i != axis)
            most = 127 if activations == "symmetric" else 64
            assert (np.abs(weights.astype(int)).max(others) == most).all()  # every channel has its full range
            zero = constants[x.input[2]]
            # OpenVINO has no ConvTranspose with a zero point; only the first of them has an input of both signs
            around_zero = activations == "symmetric" or node.name == "decoder.up.0"
            assert zero.dtype == (np.int8 if around_zero else np.uint8)
            assert zero == 0 or not (around_zero or node.op_type == "ConvTranspose")
            assert all(made.get(name) is None for name in node.input[2:])  # biases stay float
        elif "Linear" not in node.op_type:
            sources = {made[name].op_type for name in node.input if name in made}
            assert "DequantizeLinear" not in sources, f"{node.op_type} is fed with 8 bits"
    expected = {f"content_{side}.stem" for side in ("ir", "vis")}
    expected |= {f"style_{s}.{n}" for s in ("ir", "vis") for n in ("stem", "head")}
    assert set(kept) == expected
    assert {"decoder.out", "decoder.up.0", "fusion.blocks.1.conv2", "content_ir.down.0"} <= set(quantised)


def test_same_pairs_same_bytes(graph, pairs):
    first, second = (quantize(graph, feeds(graph, pairs)).SerializeToString() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("activations, least", [("asymmetric", 38), ("symmetric", 33)])
@pytest.mark.parametrize("name", ["lite", "full"])
def test_accuracy_on_generated_pairs(graphs, pairs, name, activations, least):
    graph = graphs[name]
    model = quantize(graph, feeds(graph, pairs), activations=activations)
    assert loss(model, graph, feeds(graph, generated(2, "verify", (96, 128)))) >= least


def test_frames_of_any_size(pairs):
    frames = onnx.load(open_artefact("lite").path)
    model = quantize(frames, feeds(frames, pairs))
    for size in ((16, 16), (33, 47)):
        (feed,) = feeds(frames, generated(1, "verify", size))
        (fused,) = runner(model, ["fused"])(feed)
        assert fused.dtype == np.uint8 and fused.shape == (1, *size, 3)
    assert list(model.graph.input) == list(frames.graph.input)


def test_bundled_lite_on_real_pairs(shared, graphs, tmp_path):
    """Calibrated on training pairs, judged on test pairs of each set, in OpenVINO's integer kernels too."""
    model = graphs["lite"]
    chosen, _ = calibration_pairs(shared / "data" / "train", count=8)
    result = quantize(model, feeds(model, chosen))
    held_out = [
        pair.resized(240, 320)
        for name in ("TNO", "RoadScene", "M3FD")
        for pair in calibration_pairs(shared / "data" / "test" / name, count=1, size=(240, 320))[0]
    ]
    inputs = feeds(model, held_out)
    assert loss(result, model, inputs) >= 40
    pytest.importorskip("openvino")
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    onnx.save(result, tmp_path / "int8.onnx")
    compiled = openvino_core().compile_model(tmp_path / "int8.onnx", "CPU", hints)
    assert distance(lambda feed: [compiled(dict(feed))["fused"]], model, inputs) >= 40


def test_sensitivity_finds_a_planted_layer(graph, pairs):
    """One channel before a layer is made tiny and its weights there large: the same function, but not in 8 bits."""
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    for name, factor in (("norm.0.gamma", 1e-4), ("norm.0.beta", 1e-4), ("up.1.weight", 1e4)):
        (tensor,) = (t for t in model.graph.initializer if t.name == f"generator.decoder.{name}")
        array = numpy_helper.to_array(tensor).copy()
        array[2] *= factor
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    inputs = feeds(model, pairs[:1])
    calibrated = calibrate(model, inputs)
    costs = layer_costs(calibrated, inputs, keep=calibrated.matching(KEEP))
    assert costs[0].layer == PLANTED and costs[0].share > 0.5
    assert sum(cost.share for cost in costs) == pytest.approx(1)
    bound = costs[1].psnr - 6
    choice = choose_layers(calibrated, inputs, bound)
    assert PLANTED in choice.keep and choice.psnr >= bound
    assert PLANTED in choice.metadata()["int8_float_layers"]
    assert loss(choice.model, model, inputs) == pytest.approx(choice.psnr)


def test_a_bound_out_of_reach_leaves_the_graph_in_float(calibrated, graph, pairs):
    choice = choose_layers(calibrated, feeds(graph, pairs[:1]), 1e3)
    assert choice.psnr == float("inf") and set(choice.keep) == set(calibrated.layers)
    assert not [node for node in choice.model.graph.node if "Linear" in node.op_type]


def test_a_bound_that_is_met_at_once_costs_no_search(calibrated, graph, pairs):
    choice = choose_layers(calibrated, feeds(graph, pairs[:1]), 10)
    assert not choice.costs and set(choice.keep) == calibrated.matching(KEEP)


@pytest.mark.parametrize("activations", ["symmetric", "asymmetric"])
def test_ranges_clip_what_is_rare(activations):
    values = np.abs(np.random.default_rng(0).normal(size=100_000)).astype(np.float32)
    values[0] = 60
    low, high = clip_range(values, activations)
    assert low == 0 and 4 < high < 59
    assert clip_range(np.zeros(9, np.float32), activations) == (0, 0)
    values[1] = np.nan
    with pytest.raises(InputError, match="not finite"):
        clip_range(values, activations)


def test_pairs_are_the_same_for_the_same_seed(tmp_path):
    random = np.random.default_rng(0)
    for folder, channels in (("ir", 1), ("vis", 3)):
        (tmp_path / folder).mkdir()
        for index in range(6):
            write_image(tmp_path / folder / f"{index}.png", random.integers(0, 256, (40, 50, channels), np.uint8))
    first, second, other = (calibration_pairs(tmp_path, count=3, size=(32, 24), seed=seed)[0] for seed in (1, 1, 2))
    assert all(np.array_equal(a.ir, b.ir) and np.array_equal(a.vis, b.vis) for a, b in zip(first, second, strict=True))
    assert not all(np.array_equal(a.ir, b.ir) for a, b in zip(first, other, strict=True))
    enlarged, about = calibration_pairs(tmp_path, count=2, size=(64, 48))
    assert all(pair.ir.shape == (64, 48) and pair.vis.shape == (64, 48, 3) for pair in enlarged)
    assert "48x64" in about


def test_calibration_that_is_refused(tmp_path, graph):
    with pytest.raises(InputError, match="0 pairs"):
        calibration_pairs(count=0)
    with pytest.raises(InputError, match="at least 16"):
        calibration_pairs(size=(8, 320))
    with pytest.raises(InputError, match="no pairs"):
        feeds(graph, [])
    with pytest.raises(InputError, match="no pairs"):
        calibrate(graph, [])
    for folder in ("ir", "vis"):
        (tmp_path / folder).mkdir()
    with pytest.raises(InputError, match="no pictures"):
        calibration_pairs(tmp_path)
    write_image(tmp_path / "ir" / "1.png", np.zeros((40, 40), np.uint8))
    (tmp_path / "vis" / "1.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"1\.png"):
        calibration_pairs(tmp_path)
    write_image(tmp_path / "vis" / "1.png", np.zeros((40, 44, 3), np.uint8))
    with pytest.raises(InputError, match="expected one size"):
        calibration_pairs(tmp_path)
    write_image(tmp_path / "ir" / "1.png", np.zeros((9, 9), np.uint8))
    write_image(tmp_path / "vis" / "1.png", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(InputError, match="16"):
        calibration_pairs(tmp_path)


def test_quantising_that_is_refused(graph, pairs, calibrated):
    inputs = feeds(graph, pairs[:1])
    with pytest.raises(InputError, match="expected one of asymmetric, symmetric"):
        quantize(graph, inputs, activations="odd")
    with pytest.raises(InputError, match=r"no layer is called 'decoder\.up\.9'"):
        quantize(graph, inputs, keep=["decoder.up.9"])
    with pytest.raises(InputError, match="does not run on"):
        quantize(graph, [{"ir": inputs[0]["ir"]}])
    assert calibrated.matching(["decoder.*"]) == {f"decoder.{name}" for name in ("up.0", "up.1", "up.2", "out")}


def test_pairs_for_a_graph_of_one_size_with_a_homography():
    float_, shape = onnx.TensorProto.FLOAT, (2, 1, 32, 48)
    inputs = [onnx.helper.make_tensor_value_info(name, float_, shape) for name in ("ir", "vis")]
    inputs.append(onnx.helper.make_tensor_value_info("homography", float_, (2, 3, 3)))
    model = onnx.helper.make_model(onnx.helper.make_graph([], "planes", inputs, []))
    (feed,) = feeds(model, [Pair(np.full((40, 40), 255, np.uint8), np.zeros((40, 40, 3), np.uint8))])
    assert feed["ir"].shape == feed["vis"].shape == shape and feed["ir"].dtype == np.float32
    assert (feed["ir"] == 1).all() and np.array_equal(feed["homography"], [np.eye(3)] * 2)


def test_a_file_that_fails_says_which_layers_cost_most(tmp_path, monkeypatch):
    one = generated(1, "verify", (32, 48)), "one pair"
    model = onnx.load(open_artefact("lite").path)
    monkeypatch.setattr("export.pipeline.build_model", lambda *args, **options: model)
    monkeypatch.setattr("export.pipeline.load_pairs", lambda *args: one)
    monkeypatch.setattr("export.int8.calibration_pairs", lambda data: one)
    monkeypatch.setattr("export.int8.MARGIN", -1e3)  # so that nothing is kept in float
    result = export(plan("lite", tmp_path / "m.onnx", int8=True, min_psnr=60.0))
    assert not result.passed and result.path.name == "m.rejected.onnx"
    assert re.match(r"the layers that cost most in 8 bits, each alone: [a-z_]+\.\S+ \d+\.\d dB \(", result.advice)
    metadata = open_artefact(result.path).metadata
    assert metadata["int8_calibrated_on"] == "one pair"
    assert metadata["int8_float_layers"] == "content_vis.stem, content_ir.stem"


@pytest.mark.parametrize("precision", ["fp16", "fp16-stored"])
def test_so_does_one_in_16_bits(tmp_path, monkeypatch, precision):
    model = onnx.load(open_artefact("lite").path)
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "generator.decoder.up.1.weight")
    planted = numpy_helper.to_array(weight).astype(np.float32)  # in eleven bits; these have more
    weight.CopyFrom(numpy_helper.from_array(planted * np.float32(1.00024), weight.name))
    for node in list(model.graph.node):
        if node.op_type == "Cast" and node.input[0] == weight.name:
            node.op_type = "Identity"
            del node.attribute[:]
    monkeypatch.setattr("export.pipeline.build_model", lambda *args, **options: model)
    monkeypatch.setattr("export.pipeline.load_pairs", lambda *args: (generated(1, "verify", (32, 48)), "one pair"))
    monkeypatch.setattr("export.pipeline.RECIPES", {precision: Recipe("as it is", lambda model: model)})
    result = export(plan("lite", tmp_path / "m.onnx", precision=precision, min_psnr=200.0))
    assert not result.passed
    worst = r"decoder\.up\.1" if precision == "fp16-stored" else r"[a-z_]+\.\S+"
    said = rf"the layers that cost most in 16 bits, each alone: {worst} \d+\.\d dB \(\d+ %\), "
    assert re.match(said, result.advice)


def test_on_a_graph_in_16_bits(graph, pairs):
    """What TensorRT gets: convolutions between Q/DQ in FP16 where they are not in INT8, norms in FP32."""
    half = onnx.ModelProto()
    half.CopyFrom(graph)
    model = quantize(compute_in_half(half), feeds(graph, pairs), activations="symmetric")
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.value_info
    }
    made = {
        kind: {types[node.input[0]] for node in model.graph.node if node.op_type in kind}
        for kind in (("Conv", "ConvTranspose"), ("InstanceNormalization",))
    }
    assert list(made.values()) == [{onnx.TensorProto.FLOAT16}, {onnx.TensorProto.FLOAT}]
    assert loss(model, graph, feeds(graph, generated(2, "verify", (96, 128)))) >= 33
