"""Building engines, as far as a machine without TensorRT can show it: with tests/tensorrt_stand_in.py in its place."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sys

import pytest

from export.shape import Shape
from export.tensorrt import BuildOptions, build_engine, engine_name
from export.tensorrt.readback import check_precision
from pyldfusion import sidecar
from pyldfusion.artefact import open_artefact
from pyldfusion.errors import ArtefactError, DependencyError, DeviceError, EngineError, InputError

from . import tensorrt_stand_in

onnx = pytest.importorskip("onnx")

VERSIONS = ("8.6.2", "10.3.0", "10.16.1", "11.4.0")


@pytest.fixture
def graph(models, tmp_path):
    """A function that gives an ONNX file of the small network that says it is in some precision."""

    def make(precision="fp32"):
        model = onnx.load(models / "lite.onnx")
        for item in model.metadata_props:
            if item.key == "precision":
                item.value = precision
        path = tmp_path / f"lite-{precision}.onnx"
        onnx.save(model, path)
        os.utime(path, (1e9, 1e9))  # older than what is built from it
        return path

    return make


@pytest.fixture(params=VERSIONS)
def trt(request, monkeypatch):
    return tensorrt_stand_in.install(monkeypatch, request.param)


@pytest.fixture
def trt10(monkeypatch):
    return tensorrt_stand_in.install(monkeypatch, "10.3.0")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_and_its_sidecar(trt, graph, tmp_path, precision):
    path = tmp_path / "lite.engine"
    source = graph(precision)
    made = build_engine(source, path, Shape(1, (16, 480, 1080), 640))
    assert sidecar.read(path) == made
    assert made.plan_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert made.graph_sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (made.onnx, made.precision, made.tensorrt) == (source.name, precision, trt.__version__)
    assert (made.gpu, made.capability, made.cuda) == ("Orin", "8.7", "12.6")
    assert made.metadata["weights_sha256"] and made.metadata["variant"] == "lite"
    (profile,) = made.profiles
    assert (profile.least, profile.usual, profile.most) == ((1, 16, 640), (1, 480, 640), (1, 1080, 640))
    assert made.layers[{"fp32": "FP32", "fp16": "FP16", "int8": "INT8"}[precision]] >= 2
    built = trt.behaviour.built
    assert built["profiles"] == [
        {
            "ir": [[1, 16, 640, 1], [1, 480, 640, 1], [1, 1080, 640, 1]],
            "vis": [[1, 16, 640, 3], [1, 480, 640, 3], [1, 1080, 640, 3]],
        }
    ]
    assert built["verbose"] == "DETAILED" and "TF32" not in built["flags"]
    assert built["workspace"] == 2 * 2**30  # half of the 4 GiB that are free
    old = trt.__version__.startswith("8")
    assert built["strong"] == (not old)
    assert built["explicit_batch"] == old
    assert ("parser NATIVE_INSTANCENORM" in trt.behaviour.calls) == old
    wanted = {"fp32": [], "fp16": ["FP16"], "int8": ["FP16", "INT8"]}[precision] if old else []
    assert built["flags"] == sorted([*wanted, *(["OBEY_PRECISION_CONSTRAINTS"] if wanted else [])])
    assert built["wide"] == (["NORMALIZATION", "REDUCE"] if wanted else [])


def test_weak_typing_is_for_10(graph, tmp_path, monkeypatch):
    trt = tensorrt_stand_in.install(monkeypatch, "10.3.0")
    build_engine(graph("fp16"), tmp_path / "a.engine", options=BuildOptions(weak_typing=True))
    assert not trt.behaviour.built["strong"] and "FP16" in trt.behaviour.built["flags"]
    tensorrt_stand_in.install(monkeypatch, "11.4.0")
    with pytest.raises(InputError, match=r"TensorRT 11\.4 has no weak typing"):
        build_engine(graph("fp16"), tmp_path / "b.engine", options=BuildOptions(weak_typing=True))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_an_engine_in_another_precision_than_asked_for_is_not_kept(trt, graph, tmp_path, precision):
    trt.behaviour.precision = "fp32"
    with pytest.raises(EngineError, match=f"{precision} was asked for, but no layer .*FP32"):
        build_engine(graph(precision), tmp_path / "a.engine")
    assert not list(tmp_path.glob("a.*"))


def test_other_types_of_inputs_or_outputs_are_an_error(trt10, graph, tmp_path):
    trt10.behaviour.types = "HALF"
    with pytest.raises(EngineError, match="other inputs and outputs than its graph"):
        build_engine(graph(), tmp_path / "a.engine")


@pytest.mark.parametrize(
    "words", ["Half", "Channel major FP16 format where channel % 8 == 0", "Row major linear FP16 format"]
)
def test_words_of_the_inspector(words, trt10):
    from export.tensorrt.readback import layer_precisions

    class Engine:
        def create_engine_inspector(self):
            return self

        def get_engine_information(self, format):
            layers = [{"LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": words}]}, "lean"]
            return json.dumps(
                {"Layers": [*layers, {"LayerType": "Convolution"}, {"LayerType": "kgen", "Inputs": ["x"]}]}
            )

        def create_execution_context(self):
            return None

    assert layer_precisions(trt10, Engine(), {}) == {"FP16": 1}


def test_layers_of_which_nothing_is_told():
    with pytest.warns(UserWarning, match="whether it computes in int8 is not known"):
        check_precision("int8", {})


def test_bfloat16_is_not_taken_for_halves():
    with pytest.raises(EngineError):
        check_precision("fp16", {"BF16": 3})


def test_little_memory(trt10, graph, tmp_path):
    build_engine(graph(), tmp_path / "a.engine", options=BuildOptions(low_memory=True))
    built = trt10.behaviour.built
    assert built["workspace"] == int(0.2 * 4 * 2**30) and built["level"] == 2 and built["threads"] == 1
    sources = (trt10.TacticSource.EDGE_MASK_CONVOLUTIONS, trt10.TacticSource.JIT_CONVOLUTIONS)
    assert built["sources"] == sum(1 << int(source) for source in sources)
    build_engine(
        graph(), tmp_path / "b.engine", options=BuildOptions(low_memory=True, optimization_level=4, workspace=1)
    )
    assert trt10.behaviour.built["level"] == 4 and trt10.behaviour.built["workspace"] == 2**30


def test_out_of_memory_says_what_to_do(trt10, graph, tmp_path):
    trt10.behaviour.refuse = "Cuda Runtime (out of memory)"
    with pytest.raises(EngineError, match=r"out of memory.*4\.00 of 8\.00 GiB are free.*--low-memory"):
        build_engine(graph(), tmp_path / "a.engine")
    with pytest.raises(DeviceError, match=r"workspace of 6\.00 GiB .* 4\.00 GiB"):
        build_engine(graph(), tmp_path / "a.engine", options=BuildOptions(workspace=6))
    assert not list(tmp_path.glob("a.*"))


def test_a_graph_that_is_refused_names_its_nodes(trt, graph, tmp_path):
    trt.behaviour.refuse_node = "no importer"
    source = graph()
    with pytest.raises(ArtefactError, match="no importer") as caught:
        build_engine(source, tmp_path / "a.engine")
    name = onnx.load(source).graph.node[1].name
    assert (name if trt.__version__.startswith("8") else "named (Oddity)") in str(caught.value)


def test_a_fixed_graph_needs_no_profile_and_keeps_its_sizes(trt10, models, tmp_path):
    from export.onnx import export_onnx
    from pyldfusion.generator import load_generator

    source = tmp_path / "fixed.onnx"
    export_onnx(load_generator(models / "lite.safetensors"), source, shape=Shape(1, 48, 64))
    made = build_engine(source, tmp_path / "a.engine")
    assert trt10.behaviour.built["profiles"] == [] and str(made.profiles[0]) == "1x48x64"
    with pytest.raises(InputError, match="the graph is for H=48; H=32 was asked for"):
        build_engine(source, tmp_path / "b.engine", Shape(1, 32, 64))


def test_newer_engines_are_not_overwritten(trt10, graph, tmp_path):
    source, path = graph(), tmp_path / "a.engine"
    path.write_bytes(b"precious")
    with pytest.raises(InputError, match=r"newer than lite-fp32\.onnx; --force"):
        build_engine(source, path)
    assert path.read_bytes() == b"precious"
    os.utime(path, (0.9e9, 0.9e9))
    build_engine(source, path)
    build_engine(source, path, options=BuildOptions(force=True))
    assert sidecar.read(path)


def test_the_timing_cache_is_read_written_and_replaced_when_bad(trt10, graph, tmp_path):
    cache = tmp_path / "timing.cache"
    options = BuildOptions(timing_cache=cache, force=True)
    build_engine(graph(), tmp_path / "a.engine", options=options)
    build_engine(graph(), tmp_path / "a.engine", options=options)
    assert cache.read_bytes() == b"++"
    cache.write_bytes(b"bad")
    with pytest.warns(UserWarning, match="timing cache .* is damaged, or of another GPU or TensorRT"):
        build_engine(graph(), tmp_path / "a.engine", options=options)
    assert cache.read_bytes() == b"+"


def test_compatibility(graph, tmp_path, monkeypatch):
    trt = tensorrt_stand_in.install(monkeypatch, "10.3.0")
    options = BuildOptions(hardware="ampere+", version_compatible=True)
    made = build_engine(graph(), tmp_path / "a.engine", options=options)
    assert trt.behaviour.built["hardware"] == "AMPERE_PLUS" and "VERSION_COMPATIBLE" in trt.behaviour.built["flags"]
    assert made.version_compatible and made.hardware_compatibility == "ampere+"
    with pytest.raises(InputError, match=r"needs TensorRT 10\.13; this is 10\.3"):
        build_engine(graph(), tmp_path / "b.engine", options=BuildOptions(hardware="same-capability"))
    with pytest.raises(InputError, match="expected none, ampere"):
        build_engine(graph(), tmp_path / "b.engine", options=BuildOptions(hardware="all"))
    tensorrt_stand_in.install(monkeypatch, "10.13.0")
    build_engine(graph(), tmp_path / "c.engine", options=BuildOptions(hardware="same-capability"))


@pytest.mark.parametrize("options", [{"workspace": 0}, {"workspace": float("nan")}, {"optimization_level": 6}])
def test_options_that_cannot_be(options):
    with pytest.raises(InputError):
        BuildOptions(**options)


def test_files_that_are_no_graphs(trt10, tmp_path):
    for content in (None, b"", b"\xff" * 64):
        source = tmp_path / "x.onnx"
        if content is not None:
            source.write_bytes(content)
        with pytest.raises(ArtefactError, match="not an ONNX file"):
            build_engine(source, tmp_path / "a.engine")


def test_progress_and_messages_go_to_logging(trt10, graph, tmp_path, caplog):
    caplog.set_level(logging.INFO, "pyldfusion.tensorrt")
    build_engine(graph(), tmp_path / "a.engine")
    assert "building: 1 of 1" in caplog.text
    trt10.behaviour.refuse = "no"
    with pytest.raises(EngineError):
        build_engine(graph(), tmp_path / "a.engine", options=BuildOptions(force=True))
    assert ("pyldfusion.tensorrt", logging.ERROR, "no") in caplog.record_tuples


def test_names_carry_precision_shape_and_device(trt10):
    assert engine_name("lite", "fp16", Shape(1, 480, 640)) == "lite-fp16-1x480x640-sm87.engine"
    assert (
        engine_name("full", "fp32", Shape((1, 1, 8), (16, 480, 1088), 640)) == "full-fp32-1-8x16-1088x640-sm87.engine"
    )


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ("aarch64", "--system-site-packages"),
        ("aarch64", "JetPack 6"),
        ("x86_64", r"pip install 'pyldfusion\[tensorrt\]'"),
    ],
)
def test_without_tensorrt(monkeypatch, graph, tmp_path, machine, words):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr("platform.machine", lambda: machine)
    with pytest.raises(DependencyError, match=words):
        build_engine(graph(), tmp_path / "a.engine")


def test_jetpack_5_is_refused_by_name(monkeypatch, graph, tmp_path):
    tensorrt_stand_in.install(monkeypatch, "8.6.2").__version__ = "8.5.2.2"
    with pytest.raises(
        DependencyError, match=r"8\.5\.2\.2 is too old.*JetPack 5 and its Python 3\.8 are not supported"
    ):
        build_engine(graph(), tmp_path / "a.engine")


# the sidecar


def test_an_artefact_says_what_its_sidecar_says(trt10, graph, tmp_path):
    path = tmp_path / "a.engine"
    build_engine(graph("fp16"), path, Shape(1, 480, 640))
    artefact = open_artefact(path)
    assert (artefact.kind, artefact.variant, artefact.precision, artefact.io) == ("tensorrt", "lite", "fp16", "frames")
    assert artefact.metadata["gpu"] == "Orin (compute capability 8.7)"
    assert artefact.metadata["profiles"] == "1x480x640" and artefact.metadata["tensorrt"] == "10.3.0"


def test_a_bare_plan_is_an_artefact_too(tmp_path):
    path = tmp_path / "a.plan"
    path.write_bytes(b"plan")
    artefact = open_artefact(path)
    assert (artefact.kind, artefact.variant, artefact.precision, artefact.io) == ("tensorrt", *("unknown",) * 3)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: "[]",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"sidecar": 1', '"sidecar": 99'),
        lambda text: text.replace('"gpu": "Orin"', '"gpu": 7'),
        lambda text: text.replace('"profiles": [', '"profiles": [7, '),
        lambda text: text.replace('"tensorrt": ', '"tensorrt_": '),
        lambda text: re.sub(r'"onnx": "[^"]*"', '"onnx": "../../a.onnx"', text),
        lambda text: re.sub(r"(\"least\": \[\s*)\d+", r"\1Infinity", text),
        lambda text: "[" * 100_000,
        lambda text: " " * (2 << 20),
    ],
)
def test_damaged_sidecars(trt10, graph, tmp_path, damage):
    path = tmp_path / "a.engine"
    build_engine(graph(), path)
    file = sidecar.sidecar_path(path)
    file.write_text(damage(file.read_text()))
    with pytest.raises(ArtefactError, match=r"damaged|layout"):
        open_artefact(path)
