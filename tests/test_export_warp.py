"""Graphs that lay the infrared onto the visible, against OpenCV as the package uses it."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from export.half import compute_in_half  # noqa: E402
from export.onnx import describe, write_model  # noqa: E402
from export.shape import Shape  # noqa: E402
from pyldfusion import Fuser  # noqa: E402
from pyldfusion.cli import main  # noqa: E402
from pyldfusion.engines.onnx import OnnxRuntimeEngine  # noqa: E402
from pyldfusion.errors import InputError  # noqa: E402
from pyldfusion.media import write_image  # noqa: E402
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


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The small network, warping and not, by that."""
    folder = tmp_path_factory.mktemp("warp")
    for warp in (True, False):
        about = describe(network("lite"), io="frames", precision="fp32", warp=warp)
        write_model(graph(warp=warp), folder / f"{warp}.onnx", about)
    return {warp: folder / f"{warp}.onnx" for warp in (True, False)}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_fuser_gives_what_it_gives_of_a_pair_that_was_warped_before(runtime, files):
    pytest.importorskip(runtime)
    irs, viss = pair(3)
    with Fuser(files[True], engine=runtime) as ours, Fuser(files[False], engine=runtime, precision="fp32") as plain:
        assert ours.warps and not plain.warps and ours.info["precision"] == "fp32"
        for name in ("inside", "scaled"):
            matrix = HOMOGRAPHIES[name]
            placed = [Registration(np.array(matrix)).place(ir, (80, 60))[0] for ir in irs[..., 0]]
            expected = plain.fuse_batch(placed, viss)
            assert np.array_equal(plain.fuse_batch(irs, viss, homography=matrix), expected)  # OpenCV's, before
            for fused in (
                ours.fuse_batch(irs, viss, homography=matrix),
                np.stack(list(ours.stream(zip(irs, viss, strict=True), homography=matrix))),
                np.stack([ours.fuse(ir, vis, homography=matrix) for ir, vis in zip(irs, viss, strict=True)]),
            ):
                difference = np.abs(fused.astype(int) - expected)
                assert difference.max() <= 3 and difference.mean() < 0.3
        same = np.ascontiguousarray(viss[0][..., 0])
        assert np.abs(ours.fuse(same, viss[0]).astype(int) - plain.fuse(same, viss[0])).max() <= 1
        assert ours.fuse(same[:31, :47], viss[0], homography=np.eye(3)).shape == viss[0].shape  # another size again


def test_pairs_and_matrices_that_do_not_go(files):
    irs, viss = pair(2)
    with Fuser(files[True], engine="onnxruntime") as fuser:
        with pytest.raises(InputError, match=r"infrared of 64x40 and visible of 80x60 differ by more than 2 %"):
            fuser.fuse(irs[0, :40], viss[0])
        for matrix in (np.zeros((3, 3)), np.eye(4), "none", np.full((3, 3), np.nan)):
            with pytest.raises(InputError, match=r"homography.*(3x3|cannot be inverted)"):
                fuser.fuse(irs[0], viss[0], homography=matrix)
        with pytest.raises(InputError, match=r"irs\[1\] has shape .*expected the size of irs\[0\]"):
            fuser.fuse_batch([irs[0], irs[1, :40]], viss, homography=np.eye(3))


def test_the_commands_give_the_homography_to_the_graph(files, tmp_path, monkeypatch):
    ir, vis = pair()
    write_image(tmp_path / "ir.png", ir[0, ..., 0])
    write_image(tmp_path / "vis.png", vis[0])
    (tmp_path / "h.txt").write_text(" ".join(map(str, np.ravel(HOMOGRAPHIES["larger"]))))
    words = [str(tmp_path / name) for name in ("ir.png", "vis.png")]
    asked = ["--model", str(files[True]), "--homography", str(tmp_path / "h.txt"), "--engine", "onnxruntime"]
    given = []
    run = OnnxRuntimeEngine.run
    monkeypatch.setattr(OnnxRuntimeEngine, "run", lambda self, *args: given.append(args) or run(self, *args))
    assert main(["fuse", *words, str(tmp_path / "fused.png"), *asked]) == 0
    assert main(["stream", *words, str(tmp_path / "live.mp4"), "--frames", "1", *asked]) == 0
    assert len(given) == 2
    for ir_given, vis_given, homography, _ in given:
        assert ir_given.shape == (1, 48, 64, 1) and vis_given.shape == (1, 60, 80, 3)
        assert np.allclose(homography[0], HOMOGRAPHIES["larger"])
