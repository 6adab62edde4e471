"""The decoder's norms as single nodes: the same function, and nothing else is touched."""

from __future__ import annotations

import numpy as np
import pytest

from export.onnx import build_model
from export.shape import Shape
from pyldfusion.artefact import open_artefact
from pyldfusion.generator import load_generator

openvino = pytest.importorskip("openvino")

from pyldfusion.engines.openvino import openvino_core  # noqa: E402
from pyldfusion.engines.openvino_norms import whole_norms  # noqa: E402

from .test_openvino_branches import kinds, read, run  # noqa: E402


@pytest.mark.parametrize("name", ["lite", "full"])
def test_the_function_is_the_same_but_for_n_and_n_minus_one(name):
    graph = read(build_model(load_generator(name), io="planes"))
    changed = whole_norms(graph)
    assert kinds(changed).count("MVN") == kinds(graph).count("MVN") + 3
    assert "ReduceProd" not in kinds(changed)  # nothing of the norms is left
    rng = np.random.default_rng(0)
    for shape in ((1, 1, 16, 16), (2, 1, 61, 47)):
        feeds = {name: rng.random(shape, np.float32) for name in ("ir", "vis")}
        np.testing.assert_allclose(run(changed, feeds), run(graph, feeds), rtol=0, atol=2e-4, err_msg=str(shape))


def test_in_bf16_it_is_no_farther_from_float32():
    graph = openvino_core().read_model(open_artefact("full").path)
    rng = np.random.default_rng(1)
    small = {
        "ir": rng.integers(0, 256, (1, 12, 16, 1), np.uint8),
        "vis": rng.integers(0, 256, (1, 12, 16, 3), np.uint8),
    }
    feeds = {name: np.kron(frame, np.ones((1, 8, 8, 1), np.uint8)) for name, frame in small.items()}
    exact = run(graph, feeds).astype(float)
    errors = []
    for model in (graph, whole_norms(graph)):
        compiled = openvino_core().compile_model(model.clone(), "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
        errors.append(float(np.mean((compiled(feeds)["fused"] - exact) ** 2)))
    assert errors[1] <= 1.3 * errors[0] + 0.05


def norm(op, x, *, axes=(1, 2, 3), square_of=None, unbiased=True, eps=1e-5, factor=None):
    """As the file has it, with something of it wrong."""
    mean = op.reduce_mean(x, op.constant(np.array(axes)), keep_dims=True)
    centred = op.subtract(x, mean)
    other = centred if square_of is None else square_of
    variance = op.reduce_mean(op.multiply(centred, other), op.constant(np.array(axes)), keep_dims=True)
    if unbiased:
        n = op.constant(np.float32(64))
        bessels = op.divide(n, op.subtract(n, op.constant(np.float32(1))))
        variance = op.multiply(variance, bessels if factor is None else op.constant(np.float32(factor)))
    return op.divide(centred, op.add(op.sqrt(variance), op.constant(np.float32(eps))))


@pytest.mark.parametrize(
    "wrong",
    [
        {"axes": (2, 3)},
        {"axes": (1, 2)},
        {"square_of": "x"},
        {"other_mean": True},
        {"eps": [[[[1e-5]], [[1e-4]], [[1e-5]], [[1e-5]]]]},
        {"factor": 2.0},
    ],
)
def test_what_is_no_such_norm_stays(wrong):
    op = openvino.opset13
    x = op.parameter([1, 4, 4, 4], np.float32, name="x")
    wrong = dict(wrong)
    if wrong.get("square_of"):
        wrong["square_of"] = x
    if wrong.pop("other_mean", False):
        y = op.relu(x)
        mean = op.reduce_mean(y, op.constant(np.array([1, 2, 3])), keep_dims=True)
        centred = op.subtract(x, mean)
        result = op.divide(centred, op.add(op.sqrt(op.multiply(centred, centred)), op.constant(np.float32(1e-5))))
    else:
        result = norm(op, x, **wrong)
    model = openvino.Model([result], [x], "model")
    assert kinds(whole_norms(model)) == kinds(model)
    for right in (norm(op, x), norm(op, x, factor=1.0005), norm(op, x, unbiased=False)):
        assert "MVN" in kinds(whole_norms(openvino.Model([right], [x], "model")))


def test_graphs_for_one_size_are_changed_too():
    graph = read(build_model(load_generator("lite"), shape=Shape(1, 480, 640)))
    assert kinds(whole_norms(graph)).count("MVN") == kinds(graph).count("MVN") + 3


def test_norms_with_a_memory_stay():
    graph = read(build_model(load_generator("lite"), temporal=True))
    assert kinds(whole_norms(graph)).count("MVN") == kinds(graph).count("MVN")
