"""Graphs that lay the infrared onto the visible, against OpenCV as the package uses it."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from export.half import compute_in_half  # noqa: E402
from export.onnx import export_onnx  # noqa: E402
from export.shape import Shape  # noqa: E402
from pyldfusion import Fuser  # noqa: E402
from pyldfusion.errors import ArtefactError  # noqa: E402
from pyldfusion.registration import Registration  # noqa: E402

from .graphs import RUNTIMES, frames, graph, network  # noqa: E402

#: From pixels of the infrared, 64x48, to those of the visible, 80x60.
HOMOGRAPHIES = {
    "larger": [[1.25, 0, 0], [0, 1.25, 0], [0, 0, 1]],
    "inside": [[0.9, 0.02, 11.3], [-0.03, 0.8, 7.7], [0, 0, 1]],
    "turned": [[0.8, -0.6, 30.2], [0.6, 0.8, -4.1], [0, 0, 1]],
    "perspective": [[1.1, 0.05, -3.2], [0.04, 1.3, 2.6], [6e-4, -4e-4, 1]],
    "scaled": [[-2.5, 0, 0], [0, -2.5, 0], [0, 0, -2]],  # a homography is one up to a factor
}


def pair(n=1):
    ir = frames(1, n, 48, 64)["ir"]
    return ir, frames(2, n, 60, 80)["vis"]


def warped(model):
    """The graph up to the infrared on the visible's pixels."""
    inputs = [value.name for value in model.graph.input]
    return onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model)).extract_model(inputs, ["warp/grid_sample"])


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", HOMOGRAPHIES)
def test_the_warp_is_that_of_opencv(runtime, name):
    pytest.importorskip(runtime)
    ir, vis = pair()
    homography = np.array(HOMOGRAPHIES[name], np.float32)
    expected, _ = Registration(homography).place(ir[0, ..., 0], (80, 60))
    inputs = {"ir": ir, "vis": vis, "homography": homography[None]}
    plane = RUNTIMES[runtime](warped(graph(warp=True)), inputs)
    assert plane.shape == (1, 1, 60, 80)
    assert np.abs(plane[0, 0] - expected).max() <= 1


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_frames_are_those_of_a_pair_that_was_warped_before(runtime):
    pytest.importorskip(runtime)
    ir, vis = pair(3)
    homographies = np.array([HOMOGRAPHIES[name] for name in ("inside", "turned", "perspective")], np.float32)
    fused = RUNTIMES[runtime](graph(warp=True), {"ir": ir, "vis": vis, "homography": homographies})
    placed = [Registration(h).place(plane, (80, 60))[0] for h, plane in zip(homographies, ir[..., 0], strict=True)]
    expected = RUNTIMES[runtime](graph(), {"ir": np.stack(placed)[..., None], "vis": vis})
    difference = np.abs(fused.astype(int) - expected)
    assert fused.shape == vis.shape and difference.max() <= 3 and difference.mean() < 0.3


def test_fixed_sizes_and_halves():
    ir, vis = pair()
    inputs = {"ir": ir, "vis": vis, "homography": np.array([HOMOGRAPHIES["inside"]], np.float32)}
    fused = RUNTIMES["onnxruntime"](graph(warp=True), inputs).astype(int)
    fixed = graph(warp=True, shape=Shape(1, 60, 80))
    dims = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in fixed.graph.input}
    assert dims == {"ir": [1, "IH", "IW", 1], "vis": [1, 60, 80, 3], "homography": [1, 3, 3]}
    assert not {node.op_type for node in fixed.graph.node} & {"Range", "ReduceProd"}
    for model in (fixed, compute_in_half(graph(warp=True)), graph(warp=True, opset=20), graph(warp=True, opset=17)):
        onnx.checker.check_model(model, full_check=True)
        assert np.abs(RUNTIMES["onnxruntime"](model, inputs) - fused).max() <= 1


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_matrices_that_are_no_homographies_do_no_harm(runtime):
    pytest.importorskip(runtime)
    ir, vis = pair()
    for matrix in (np.zeros((3, 3)), np.full((3, 3), np.nan), np.full((3, 3), np.inf), np.diag([1, 1, 0])):
        fused = RUNTIMES[runtime](
            graph(warp=True), {"ir": ir, "vis": vis, "homography": matrix[None].astype(np.float32)}
        )
        assert fused.shape == vis.shape and fused.dtype == np.uint8


def test_fuser_says_what_such_a_file_is_for(tmp_path):
    about = export_onnx(network("lite"), tmp_path / "m.onnx", warp=True)
    assert about["warp"] == "yes" and "homography float32 [N,3,3]" in about["signature"]
    with pytest.raises(ArtefactError, match="takes a homography"):
        Fuser(tmp_path / "m.onnx", engine="onnxruntime")
