"""Model repositories for Triton, parsed by Triton's own schema (the package tritonclient carries it)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from export.onnx import describe, write_model
from export.shape import Shape
from export.tensorrt import build_engine
from export.triton import write_repository
from pyldfusion.artefact import open_artefact
from pyldfusion.errors import ArtefactError, InputError
from pyldfusion.generator import Generator

from . import tensorrt_stand_in
from .plain_graph import plain_graph


@pytest.fixture(scope="module")
def schema():
    """``model_config_pb2``, by its path: the package round it wants a gRPC client."""
    found = importlib.util.find_spec("tritonclient")
    if found is None or not found.submodule_search_locations:
        pytest.skip("Triton's schema is not here: pip install --no-deps tritonclient==2.54.0")
    file = Path(found.submodule_search_locations[0], "grpc", "model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def parse(schema):
    from google.protobuf import text_format

    return lambda folder: text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())


@pytest.fixture
def exported(tmp_path):
    """A file that says so of itself; its graph is not looked at."""

    def make(shape=None, io="frames", warp=False):
        path = tmp_path / "net.onnx"
        about = describe(Generator("lite"), io=io, precision="fp32", shape=shape or Shape(), warp=warp)
        write_model(plain_graph(), path, about)
        return open_artefact(path)

    return make


def tensors(values):
    return {value.name: (value.data_type, list(value.dims)) for value in values}


def test_onnx_of_any_size(models, tmp_path, parse, schema):
    artefact = open_artefact(models / "lite.onnx")
    folder = write_repository(artefact, tmp_path / "models")
    assert folder == tmp_path / "models" / "lite"
    assert (folder / "1" / "model.onnx").read_bytes() == artefact.path.read_bytes()
    config = parse(folder)
    assert (config.name, config.backend, config.max_batch_size) == ("lite", "onnxruntime", 8)
    assert tensors(config.input) == {"ir": (schema.TYPE_UINT8, [-1, -1, 1]), "vis": (schema.TYPE_UINT8, [-1, -1, 3])}
    assert tensors(config.output) == {"fused": (schema.TYPE_UINT8, [-1, -1, 3])}
    assert config.HasField("dynamic_batching") and config.dynamic_batching.max_queue_delay_microseconds == 500
    assert config.parameters["weights_sha256"].string_value == artefact.metadata["weights_sha256"]
    assert config.instance_group[0].count == 1


def test_a_new_version_beside_those_there(models, tmp_path, parse):
    artefact = open_artefact(models / "lite.onnx")
    for version in (1, 2, 3):
        folder = write_repository(artefact, tmp_path, name="fusion", instances=2)
        assert sorted(entry.name for entry in folder.iterdir()) == [*map(str, range(1, version + 1)), "config.pbtxt"]
    assert parse(folder).name == "fusion" and parse(folder).instance_group[0].count == 2


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        (Shape(None, 480, 640), {}, (8, [480, 640, 3], True)),
        (Shape((1, 1, 4), (16, 480, 1088), 640), {}, (4, [-1, 640, 3], True)),
        (Shape((1, 1, 4), 480, 640), {"max_batch": 2}, (2, [480, 640, 3], True)),
        (Shape(None, 480, 640), {"max_batch": 1}, (1, [480, 640, 3], False)),
        (Shape(1, 480, 640), {}, (0, [1, 480, 640, 3], False)),
        (Shape(4, 480, 640), {}, (0, [4, 480, 640, 3], False)),
        (Shape(None, 480, 640), {"max_batch": 0}, (0, [-1, 480, 640, 3], False)),
    ],
)
def test_batches_and_sizes(exported, tmp_path, parse, shape, options, expected):
    config = parse(write_repository(exported(shape), tmp_path / "r", **options))
    found = config.max_batch_size, list(config.output[0].dims), config.HasField("dynamic_batching")
    assert found == expected


def test_planes(exported, tmp_path, parse, schema):
    config = parse(write_repository(exported(Shape(None, None, 640), "planes"), tmp_path / "r"))
    assert tensors(config.input)["ir"] == (schema.TYPE_FP32, [1, -1, 640])


def test_openvino(models, tmp_path, parse):
    openvino = pytest.importorskip("openvino")
    model = openvino.convert_model(models / "lite.onnx")
    for key, value in open_artefact(models / "lite.onnx").metadata.items():
        model.set_rt_info(value, [key])
    openvino.save_model(model, tmp_path / "lite.xml", compress_to_fp16=False)
    from pyldfusion.artefact import Artefact

    artefact = Artefact(tmp_path / "lite.xml", "openvino", open_artefact(models / "lite.onnx").metadata)
    folder = write_repository(artefact, tmp_path / "r")
    config = parse(folder)
    assert config.backend == "openvino" and config.instance_group[0].kind == config.instance_group[0].KIND_CPU
    assert {entry.name for entry in (folder / "1").iterdir()} == {"model.xml", "model.bin"}


def test_an_engine(exported, tmp_path, parse, monkeypatch):
    tensorrt_stand_in.install(monkeypatch)
    path = tmp_path / "net.engine"
    build_engine(exported().path, path, Shape((1, 2, 4), 480, (320, 640, 1280)))
    folder = write_repository(open_artefact(path), tmp_path / "r")
    config = parse(folder)
    assert (config.backend, config.max_batch_size, list(config.input[0].dims)) == ("tensorrt", 4, [480, -1, 1])
    assert (folder / "1" / "model.plan").read_bytes() == path.read_bytes()
    assert open_artefact(folder / "1" / "model.plan").metadata["gpu"].startswith("Orin")
    path.with_name("net.engine.json").unlink()
    with pytest.raises(ArtefactError, match="does not say what it takes"):
        write_repository(open_artefact(path), tmp_path / "r2")


def test_what_cannot_be(models, exported, tmp_path):
    with pytest.raises(ArtefactError, match=r"Triton does not run \.safetensors files"):
        write_repository(open_artefact(models / "lite.safetensors"), tmp_path / "r")
    with pytest.raises(ArtefactError, match="takes more than two frames; export it without --warp"):
        write_repository(exported(warp=True), tmp_path / "r")
    artefact = open_artefact(models / "lite.onnx")
    for options in ({"name": "a/b"}, {"name": ""}, {"instances": 0}, {"max_batch": -1}, {"queue_microseconds": -1}):
        with pytest.raises(InputError):
            write_repository(artefact, tmp_path / "r", **options)
    with pytest.raises(InputError, match="takes at most 4 frames"):
        write_repository(exported(Shape((1, 1, 4), 480, 640)), tmp_path / "r", max_batch=8)
    with pytest.raises(InputError, match="takes 1 frames at once, no fewer"):
        write_repository(exported(Shape(1, 480, 640)), tmp_path / "r", max_batch=1)
    assert not (tmp_path / "r").exists()
