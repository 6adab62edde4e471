"""The pyramid as a model of Fuser and of the command line: no file, no runtime, the same frames as any other."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from pyldfusion import Fuser, cli, kernels
from pyldfusion.artefact import open_artefact
from pyldfusion.engines import choice
from pyldfusion.errors import ArtefactError, InputError
from pyldfusion.scene import Scene

H, W = 97, 131


@pytest.fixture(scope="module")
def pair():
    scene = Scene(seed=3, size=(W, H), kind="night").render()
    return scene.ir, scene.vis


@pytest.fixture(scope="module")
def fuser():
    with Fuser("pyramid", threads=2) as opened:
        yield opened


def test_the_luma_is_the_kernel_s_and_the_colour_stays(fuser, pair):
    ir, vis = pair
    fused = fuser.fuse(ir, vis)
    luma = cv2.cvtColor(vis, cv2.COLOR_BGR2GRAY)
    expected = kernels.pyramid(ir, luma, dtype=np.uint8).astype(int)
    free = ((fused > 0) & (fused < 255)).all(2)
    assert free.mean() > 0.3
    assert np.abs(cv2.cvtColor(fused, cv2.COLOR_BGR2GRAY).astype(int) - expected)[free].max() <= 1
    added = fused.astype(int) - vis
    assert np.ptp(added[free], axis=1).max() <= 1


def test_frames_of_all_kinds_give_one_picture(fuser, pair):
    ir, vis = pair
    fused = fuser.fuse(ir, vis)
    rgb = fuser.fuse(np.repeat(ir[..., None], 3, 2), vis[..., ::-1], color="rgb")
    assert np.array_equal(rgb[..., ::-1], fused)
    deep = fuser.fuse(ir.astype(np.uint16) * 257, vis.astype(np.uint16) * 257, thermal=(0, 65535))
    assert deep.dtype == np.uint16 and np.abs(deep.astype(int) / 257 - fused).max() <= 2
    assert fuser.fuse(ir, vis[..., 0]).shape == (H, W)
    batch = fuser.fuse_batch([ir, ir[::-1]], [vis, vis[::-1]])
    assert np.array_equal(batch[0], fused)
    small = fuser.fuse(ir[:16, :16], vis[:16, :16])  # another size, and back
    assert small.shape == (16, 16, 3) and np.array_equal(fuser.fuse(ir, vis), fused)


def test_it_says_what_it_is(fuser):
    info = fuser.info
    assert (info["model"], info["variant"], info["engine"], info["device"]) == ("pyramid", "pyramid", "native", "cpu")
    assert info["clip_trained"] == "no weights" and info["sha256"] == "" and info["threads"] == 2
    artefact = open_artefact("pyramid")
    assert artefact.size == 0 and artefact.io == "frames"
    with pytest.raises(ArtefactError, match="without weights"):
        artefact.state_dict()


def test_a_gpu_and_other_engines_do_not_matter(monkeypatch):
    monkeypatch.setattr(choice, "cuda_usable", lambda: True)
    monkeypatch.setattr(choice, "installed", lambda name: name == "native")
    with Fuser("pyramid") as opened:
        assert opened.info["device"] == "cpu"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "onnxruntime"}, "does not open the method 'pyramid'; native would"),
        ({"precision": "bf16"}, "no engine runs the method 'pyramid' with"),
    ],
)
def test_combinations_that_do_not_exist(options, words):
    with pytest.raises(InputError, match=words):
        Fuser("pyramid", **options)


def test_a_network_needs_another_engine():
    with pytest.raises(InputError, match=r"'native' does not open \.onnx files"):
        Fuser("lite", engine="native")


def test_the_command_line_knows_it(tmp_path, pair, capsys):
    for name, frame in zip(("ir", "vis"), pair, strict=True):
        cv2.imwrite(str(tmp_path / f"{name}.png"), frame)
    files = [str(tmp_path / name) for name in ("ir.png", "vis.png", "fused.png")]
    assert cli.main(["fuse", *files, "--model", "pyramid"]) == 0
    assert "native" in capsys.readouterr().out and cv2.imread(files[2]).shape == (H, W, 3)
    assert cli.main(["info", "pyramid", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["variant"], facts["size"], facts["parameters"], facts["sha256"]) == ("pyramid", 0, None, None)
    assert cli.main(["info", "pyramid"]) == 0
    assert "no weights" in capsys.readouterr().out
    assert cli.main(["bench", "--model", "pyramid", "--size", "64x48", "--seconds", "0.1", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["engine"] == "native" and row["p50"] > 0
