"""Model files say what they are, and give their weights back."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch

from pyldfusion.artefact import BUNDLED, NAMES, open_artefact, save_weights
from pyldfusion.errors import ArtefactError, InputError
from pyldfusion.generator import Generator
from trainer.start.initialise import initialise

onnx = pytest.importorskip("onnx")


@pytest.fixture
def weights(tmp_path):
    state = initialise(Generator("lite"), seed=5).state_dict()
    save_weights(state, tmp_path / "w.safetensors", {"variant": "lite", "recipe": "nöne"})
    return tmp_path / "w.safetensors"


def tiny_onnx(path, tensors, metadata):
    """An ONNX file made by the onnx package, in every form it stores tensors in."""
    from onnx import TensorProto, helper, numpy_helper

    initializers = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    floats = helper.make_tensor("generator.listed.gamma", TensorProto.FLOAT, [2], [1.5, -2.0])
    shape = helper.make_tensor("generator.taps", TensorProto.INT64, [2], [1, 2])
    other = numpy_helper.from_array(np.ones(3, np.float32), "luma")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y], [*initializers, floats, shape, other]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    helper.set_model_props(model, metadata)
    path.write_bytes(model.SerializeToString())
    return path


def test_safetensors_round_trip(weights):
    artefact = open_artefact(weights)
    assert (artefact.kind, artefact.variant, artefact.io, artefact.precision) == (
        "safetensors",
        "lite",
        "weights",
        "fp32",
    )
    assert artefact.metadata["recipe"] == "nöne"
    assert len(artefact.sha256) == 64 and artefact.size == weights.stat().st_size
    state, read = initialise(Generator("lite"), seed=5).state_dict(), artefact.state_dict()
    assert state.keys() == read.keys()
    assert all(np.array_equal(tensor.numpy(), read[name]) for name, tensor in state.items())


def test_a_strided_tensor_is_saved_as_it_reads(tmp_path):
    tensor = torch.arange(12.0).view(3, 4).t()
    save_weights({"t": tensor}, tmp_path / "t.safetensors", {})
    assert np.array_equal(open_artefact(tmp_path / "t.safetensors").state_dict()["t"], tensor.numpy())


def test_onnx_weights_and_metadata(tmp_path):
    half = np.random.default_rng(0).standard_normal((4, 1, 3, 3)).astype(np.float16)
    wide = np.random.default_rng(1).standard_normal(7)
    tensors = {"generator.a.weight": half, "generator.b.bias": wide, "generator.none": np.zeros((0, 3), np.float32)}
    tensors["generator.decoder.up.0.weight"] = np.ones((4, 2, 5, 5), np.float32)
    artefact = open_artefact(tiny_onnx(tmp_path / "m.onnx", tensors, {"variant": "lite", "io": "frames", "x": "ü"}))
    assert (artefact.kind, artefact.variant, artefact.io) == ("onnx", "lite", "frames")
    assert artefact.metadata["opset"] == "18" and artefact.metadata["x"] == "ü"
    state = artefact.state_dict()
    assert set(state) == {
        "a.weight",
        "a.bias",
        "b.bias",
        "listed.gamma",
        "none",
        "decoder.up.0.weight",
        "decoder.up.0.bias",
    }
    assert np.array_equal(state["a.weight"], half.astype(np.float32))
    assert np.array_equal(state["b.bias"], wide.astype(np.float32))
    assert np.array_equal(state["listed.gamma"], [1.5, -2.0])
    assert not state["a.bias"].any() and state["a.bias"].shape == (4,)  # dead in the graph, so zero
    assert state["decoder.up.0.bias"].shape == (2,)  # transposed
    assert all(tensor.dtype == np.float32 for tensor in state.values())


@pytest.mark.parametrize("name", BUNDLED)
def test_the_bundled_files_are_those_that_are_described(name):
    artefact = open_artefact(name)
    described = (artefact.path.parent / "README.md").read_text("utf-8")
    assert f"| {artefact.size / 1e6:.1f} MB | `{artefact.sha256[:16]}` |" in described
    assert open_artefact(artefact.path.with_name("lite-temporal.onnx")).sha256[:16] in described


def test_a_foreign_graph_has_no_weights_of_ours(tmp_path):
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    artefact = open_artefact(tmp_path / "m.onnx")
    assert (artefact.variant, artefact.io) == ("unknown", "unknown")
    with pytest.raises(ArtefactError, match="no weights of a fusion network"):
        artefact.state_dict()


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\x00", b"<!DOCTYPE html>", b"\xff" * 64, struct.pack("<Q", 2**62) + b"{}", struct.pack("<Q", 2) + b"[]",
     struct.pack("<Q", 7) + b'{"a":1}', b"\x08\x08"],
)  # fmt: skip
def test_foreign_bytes_are_a_typed_error(tmp_path, suffix, content):
    file = tmp_path / f"m{suffix}"
    file.write_bytes(content)
    with pytest.raises(ArtefactError):
        open_artefact(file)


def test_truncated_and_mutated_files_never_crash(tmp_path, weights):
    """Whatever is done to a file, reading it gives a result or an ArtefactError."""
    rng = np.random.default_rng(0)
    model = tiny_onnx(tmp_path / "m.onnx", {"generator.a.weight": np.ones((2, 2), np.float32)}, {"variant": "lite"})
    header = 8 + struct.unpack("<Q", weights.read_bytes()[:8])[0]
    for source, span in ((model, model.stat().st_size), (weights, header)):
        whole = bytearray(source.read_bytes())
        for trial in range(300):
            damaged = bytearray(whole)
            if trial % 3 == 0:
                del damaged[int(rng.integers(span)) :]
            else:
                for at in rng.integers(0, span, rng.integers(1, 6)):
                    damaged[at] = int(rng.integers(256))
            file = tmp_path / f"damaged{source.suffix}"
            file.write_bytes(damaged)
            try:
                open_artefact(file).state_dict()
            except ArtefactError:
                continue


def test_a_number_where_a_text_should_be_takes_no_memory(tmp_path):
    path = tmp_path / "a.onnx"
    path.write_bytes(b"\x72\x07" + b"\x08" + b"\x80" * 5 + b"\x01")  # metadata whose key is 2^35
    with pytest.raises(ArtefactError, match="a number stands where a text should"):
        open_artefact(path)


def test_a_safetensors_file_cut_in_its_data(weights):
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ArtefactError, match="cut short"):
        open_artefact(weights)


def test_weights_that_cannot_be_written_are_a_typed_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is not a folder"):
        save_weights({"a": np.zeros(3)}, tmp_path / "file" / "a.safetensors", {})


def test_a_folder_called_as_a_bundled_network_is_not_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        (tmp_path / name).mkdir()
        assert open_artefact(name).variant == name


def test_paths_that_are_refused(tmp_path):
    with pytest.raises(ArtefactError, match=r"does not exist.*full, lite, pyramid"):
        open_artefact(tmp_path / "absent.onnx")
    with pytest.raises(ArtefactError, match="is a directory"):
        open_artefact(tmp_path)
    (tmp_path / "weights.pt").write_bytes(b"x")
    with pytest.raises(ArtefactError, match=r"unknown kind.*\.safetensors.*pyldfusion import-weights"):
        open_artefact(tmp_path / "weights.pt")
    with pytest.raises(ArtefactError, match=r"ends in \.safetensors"):
        save_weights({}, tmp_path / "w.pt", {})


def test_a_failed_write_leaves_the_old_file(tmp_path, weights, monkeypatch):
    before = weights.read_bytes()
    monkeypatch.setattr("os.replace", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(InputError, match="disk full"):
        save_weights({"t": np.zeros(3)}, weights, {})
    assert weights.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [weights.name]


def test_header_is_plain_json(weights):
    """Read back with nothing of ours: the file is what other tools expect."""
    raw = weights.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    assert json.loads(raw[8 : 8 + length])["__metadata__"]["variant"] == "lite"


@pytest.mark.parametrize(
    "shape, fixed",
    [
        ("1,480,640", (1, 480, 640)),
        ("N,H,W", (None, None, None)),
        ("1:1:8,480,W", (None, 480, None)),
        ("", (None, None, None)),
        ("3,4", (None, None, None)),
        ("²,9999999,-1", (None, None, None)),
        ("9" * 5000 + ",1,2", (None, 1, 2)),
    ],
)
def test_the_sizes_a_graph_is_for(shape, fixed):
    from pathlib import Path

    from pyldfusion.artefact import Artefact

    assert Artefact(Path("m.onnx"), "onnx", {"shape": shape}).fixed == fixed
