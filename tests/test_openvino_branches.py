"""Two branches as one: the same function, and only where it pays."""

from __future__ import annotations

import numpy as np
import pytest

from export.int8 import to_int8
from export.onnx import build_model
from pyldfusion.artefact import open_artefact
from pyldfusion.generator import Generator, Variant, load_generator

openvino = pytest.importorskip("openvino")

from pyldfusion.engines.openvino import openvino_core  # noqa: E402
from pyldfusion.engines.openvino_branches import join_branches  # noqa: E402


def read(model):
    return openvino_core().read_model(model.SerializeToString())


def run(model, feeds):
    compiled = openvino_core().compile_model(model.clone(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(feeds)["fused"]


def kinds(model):
    return [node.get_type_name() for node in model.get_ordered_ops()]


@pytest.fixture(scope="module")
def lite():
    return load_generator("lite")


@pytest.mark.parametrize("warp", [False, True])
def test_planes_are_the_same(lite, warp):
    graph = read(build_model(lite, io="planes", warp=warp))
    joined = join_branches(graph)
    assert joined is not graph
    assert kinds(joined).count("Convolution") == 2  # the two first as one, and the last
    assert kinds(joined).count("GroupConvolution") == 3 + 4
    assert "GroupConvolution" not in kinds(graph)
    rng = np.random.default_rng(0)
    for shape in ((1, 1, 16, 16), (1, 1, 61, 47), (3, 1, 40, 72)):
        feeds = {name: rng.random(shape, np.float32) for name in ("ir", "vis")}
        if warp:
            feeds["homography"] = np.tile(np.float32([[1, 0.1, 2], [0, 1, -1], [0, 0, 1]]), (shape[0], 1, 1))
        np.testing.assert_allclose(run(joined, feeds), run(graph, feeds), rtol=0, atol=1e-5, err_msg=str(shape))


def test_which_source_is_which_stays(lite):
    joined = join_branches(read(build_model(lite, io="planes")))
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 1, 1, 33, 50), np.float32)
    there, back = run(joined, {"ir": a, "vis": b}), run(joined, {"ir": b, "vis": a})
    assert np.abs(there - back).max() > 0.1


def test_the_bundled_frames_are_the_same():
    graph = openvino_core().read_model(open_artefact("lite").path)
    joined = join_branches(graph)
    assert joined is not graph
    rng = np.random.default_rng(2)
    for n, h, w in ((1, 17, 90), (2, 51, 33)):
        feeds = {
            "ir": rng.integers(0, 256, (n, h, w, 1), np.uint8),
            "vis": rng.integers(0, 256, (n, h, w, 3), np.uint8),
        }
        difference = run(joined, feeds).astype(int) - run(graph, feeds)
        assert np.abs(difference).max() <= 1
        assert np.count_nonzero(difference) <= 1e-3 * difference.size


def test_graphs_that_gain_nothing_or_cannot_be_joined_stay(lite):
    for what, model in {
        "wide": build_model(Generator("full")),
        "8 bits": to_int8(build_model(lite)).model,
        "a memory": build_model(lite, temporal=True),
    }.items():
        graph = read(model)
        assert join_branches(graph) is graph, what


@pytest.mark.parametrize("difference", ["kernel", "stride", "wide on one side"])
def test_branches_that_are_not_alike_stay(difference):
    from openvino import opset13 as op

    planes = [op.parameter([1, 1, 32, 32], np.float32) for _ in range(2)]
    shapes, strides = [(8, 1, 3, 3), (8, 1, 3, 3)], [[1, 1], [1, 1]]
    if difference == "kernel":
        shapes[1] = (8, 1, 5, 5)
    elif difference == "stride":
        strides[1] = [2, 2]
    else:
        shapes[1] = (16, 1, 3, 3)
    convolved = [
        op.relu(op.convolution(plane, op.constant(np.ones(shape, np.float32)), stride, [1, 1], [1, 1], [1, 1]))
        for plane, shape, stride in zip(planes, shapes, strides, strict=True)
    ]
    rows = [op.reduce_mean(x, [2, 3], True) for x in convolved]
    graph = openvino.Model([op.concat(rows, 1)], planes, "other")
    assert join_branches(graph) is graph


def test_a_custom_narrow_network_is_joined_too():
    generator = Generator(Variant(widths=(4, 8, 8, 16), style=True, output="tanh")).eval()
    graph = read(build_model(generator, io="planes"))
    joined = join_branches(graph)
    rng = np.random.default_rng(3)
    feeds = {name: rng.random((1, 1, 45, 64), np.float32) for name in ("ir", "vis")}
    np.testing.assert_allclose(run(joined, feeds), run(graph, feeds), rtol=0, atol=1e-4)
    assert kinds(joined).count("GroupConvolution") == 3 + 4
