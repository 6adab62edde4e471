"""Running engines without TensorRT and without a GPU: with tests/tensorrt_stand_in.py and the emulated CUDA runtime.

What is real here: staging, streams' order of calls, graphs, profiles, errors, the sidecar's checks, and the kernels
before and after. What is not: TensorRT. The stand-in computes the graph by ONNX Runtime.
"""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import sys
import warnings

import cv2
import numpy as np
import pytest

from export.shape import Shape
from export.tensorrt import BuildOptions, build_engine
from export.tensorrt.__main__ import main as build_command
from pyldfusion import Fuser, cuda, sidecar
from pyldfusion.artefact import open_artefact
from pyldfusion.calibration.file import Calibration, Lens, Plane
from pyldfusion.engines.choice import choose, open_engine
from pyldfusion.errors import (
    ArtefactError,
    DependencyError,
    DeviceError,
    DtypeError,
    EngineError,
    InputError,
)
from pyldfusion.registration import Registration
from pyldfusion.scene import Scene

from . import tensorrt_stand_in
from .test_engines import pair

onnx = pytest.importorskip("onnx")


@pytest.fixture
def trt(emulated_cuda, monkeypatch):
    """The stand-in, whose work goes onto the emulated streams, and so into graphs."""
    made = tensorrt_stand_in.install(monkeypatch)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    kept = []

    def launch(stream, work):
        kept.append(function(lambda _: work()))
        assert emulated_cuda.host.cudaLaunchHostFunc(ctypes.c_void_p(stream), kept[-1], None) == 0

    made.behaviour.launch = launch
    return made


@pytest.fixture
def build(trt, models, tmp_path):
    """A function that builds an engine from the small network's graph."""

    def make(shape=None, name="lite.engine", **options):
        source = tmp_path / "lite.onnx"
        if not source.exists():
            source.write_bytes((models / "lite.onnx").read_bytes())
            os.utime(source, (1e9, 1e9))
        shape = shape or Shape((1, 1, 4), (16, 24, 64), (16, 32, 64))
        build_engine(source, tmp_path / name, shape, BuildOptions(**options))
        return tmp_path / name

    return make


@pytest.fixture
def engine(build):
    made = open_engine(open_artefact(build()))
    yield made
    made.close()


@pytest.fixture(scope="module")
def plain(models):
    """ONNX Runtime with the same graph."""
    return open_engine(open_artefact(models / "lite.onnx"), engine="onnxruntime")


class TestFrames:
    def test_what_it_says_of_itself(self, engine):
        assert (engine.name, engine.version, engine.precision) == ("tensorrt", "10.3.0", "fp32")
        assert (engine.device, engine.batch, engine.depth) == ("cuda", 4, 3)

    @pytest.mark.parametrize("shape", [(1, 16, 16), (1, 17, 33), (3, 24, 31), (4, 64, 64)])
    def test_the_picture_is_the_graphs(self, engine, plain, shape):
        frames = pair(*shape)
        for _ in range(3):  # as it comes, recorded, replayed
            assert np.array_equal(engine.run(*frames), plain.run(*frames))
        assert engine._recordings.shapes == [shape] and engine._can_record

    def test_a_graph_is_launched_in_place_of_the_work(self, engine, trt):
        frames = pair(1, 24, 32)
        for _ in range(2):
            engine.run(*frames)
        trt.behaviour.calls.clear()
        engine.run(*frames)
        assert trt.behaviour.calls == []

    def test_more_under_way_than_there_are_slots(self, engine, plain):
        batches = [pair(1, 16 + i % 2, 20 + i) for i in range(7)]
        waiting = [engine.submit(*frames) for frames in batches]
        for frames, fused in zip(batches, waiting, strict=True):
            assert np.array_equal(fused(), plain.run(*frames))

    def test_sizes_that_it_was_not_built_for(self, engine):
        for shape in ((1, 65, 32), (1, 24, 65), (5, 24, 32)):
            with pytest.raises(
                InputError, match=r"lite.engine was built for batches of NxHxW 1-4x16-64x16-64, and got"
            ):
                engine.run(*pair(*shape))
        engine.run(*pair(1, 24, 32))

    def test_a_batch_smaller_than_the_engines_is_filled_up(self, build, plain):
        with Fuser(build(Shape(3, 24, 32))) as fuser:
            irs, viss = pair(5, 24, 32)
            assert np.array_equal(fuser.fuse_batch(irs, viss), plain.run(irs, viss))
            assert fuser._engine.batch == 3

    def test_the_profile_made_for_a_shape_is_taken(self, trt, build, tmp_path, plain):
        import hashlib
        from dataclasses import replace

        path = build()
        plan = json.loads(path.read_bytes())
        small = {name: [[1, 16, 16, c], [1, 20, 20, c], [1, 24, 24, c]] for name, c in (("ir", 1), ("vis", 3))}
        plan["profiles"].append(small)
        path.write_text(json.dumps(plan))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        sidecar.write(path, replace(sidecar.read(path), plan_sha256=digest))
        made = open_engine(open_artefact(path))
        for shape, index in (((1, 20, 20), 1), ((1, 24, 32), 0), ((1, 20, 20), 1)):
            frames = pair(*shape)
            assert np.array_equal(made.run(*frames), plain.run(*frames))
            assert made._prepared == (index, shape)
        assert [call for call in trt.behaviour.calls if call.startswith("profile")] == [
            "profile 1",
            "profile 0",
            "profile 1",
        ]

    def test_what_tensorrt_reports_is_in_the_error(self, engine, trt, plain):
        trt.behaviour.fail = "cask convolution failed"
        with pytest.raises(
            EngineError, match=r"TensorRT failed on frames of 32x24: cask convolution failed \(FAILED_EX"
        ):
            engine.run(*pair(1, 24, 32))
        trt.behaviour.fail = ""
        frames = pair(1, 24, 32)
        assert np.array_equal(engine.run(*frames), plain.run(*frames))

    def test_a_shape_that_is_known_only_when_it_has_run(self, engine, trt, plain):
        trt.behaviour.unknown = True
        for size in ((24, 32), (17, 20)):
            frames = pair(1, *size)
            for _ in range(3):
                assert np.array_equal(engine.run(*frames), plain.run(*frames))
        engine._output.room = 5
        assert engine._output.reallocate_output("fused", 0, 6, 256) == 0
        assert engine._output.reallocate_output("fused", 0, 5, 1) == engine._output.address

    def test_a_stream_of_pairs_through_a_fuser(self, build, plain):
        with Fuser(build()) as fuser:
            assert fuser.info["engine"] == "tensorrt" and fuser.info["metadata"]["gpu"].startswith("Orin")
            fuser.warmup((32, 24))
            pairs = [pair(1, 24, 32) for _ in range(5)]
            fused = list(fuser.stream((ir[0], vis[0]) for ir, vis in pairs))
        for (ir, vis), frame in zip(pairs, fused, strict=True):
            assert np.array_equal(frame, plain.run(ir, vis)[0])


class TestArrays:
    """Arrays of the device, which under emulation are the host's."""

    @staticmethod
    def on_device(array):
        return cuda.to_device(np.ascontiguousarray(array))

    @pytest.mark.parametrize("color", ["bgr", "rgb"])
    @pytest.mark.parametrize("ir_shape", [(24, 32), (24, 32, 1), (24, 32, 3)])
    def test_8_bits(self, engine, plain, color, ir_shape):
        ir, vis = pair(1, 24, 32)
        expected = plain.run(ir, vis)[0]
        flip = slice(None, None, -1 if color == "rgb" else 1)
        thermals = np.broadcast_to(ir[0], (24, 32, 3)) if ir_shape[-1] == 3 else ir[0].reshape(ir_shape)
        given = self.on_device(thermals), self.on_device(vis[0][..., flip])
        fused = engine.fuse_arrays(*given, None, color, None)
        assert np.array_equal(cuda.to_host(fused)[..., flip], expected)
        out = self.on_device(np.zeros((24, 32, 3), np.uint8))
        engine.fuse_arrays(*given, out, color, None)
        assert np.array_equal(cuda.to_host(out)[..., flip], expected)

    def test_the_stream_of_the_caller(self, engine, plain, monkeypatch):
        """What the caller has on it comes before, what he puts there next comes after."""
        from pyldfusion.engines.device import Lane

        ir, vis = pair(1, 24, 32)
        given = self.on_device(ir[0]), self.on_device(vis[0])
        caller, order = Lane(0), []
        stream = engine._compute.stream

        class Watched:
            def __getattr__(self, name):
                return getattr(stream, name)

            def wait(self, other):
                order.append(("wait", other))
                stream.wait(other)

            def before(self, other):
                order.append(("before", other))
                stream.before(other)

        monkeypatch.setattr(engine._compute, "stream", Watched())
        handle = caller.stream.cuda_stream
        fused = engine.fuse_arrays(*given, None, "bgr", None, handle)
        assert ("wait", handle) in order and ("before", handle) in order
        assert order.index(("wait", handle)) < order.index(("before", handle))
        caller.synchronize()
        assert np.array_equal(cuda.to_host(fused), plain.run(ir, vis)[0])

    @pytest.mark.parametrize("counts", [None, (20000.0, 31000.0)])
    def test_16_bits_of_infrared(self, engine, build, counts):
        ir = np.random.default_rng(4).integers(21000, 30000, (24, 32), dtype=np.uint16)
        vis = pair(1, 24, 32)[1][0]
        with Fuser(build(name="other.engine")) as fuser:
            expected = fuser.fuse(ir, vis, thermal=counts)
        for shape in ((24, 32), (24, 32, 1)):
            given = self.on_device(ir.reshape(shape)), self.on_device(vis)
            fused = cuda.to_host(engine.fuse_arrays(*given, None, "bgr", counts))
            assert np.abs(fused.astype(int) - expected).max() <= 1

    @pytest.mark.parametrize("outside", ["crop", "repeat"])
    def test_a_registration(self, engine, build, outside):
        scene = Scene(3, (64, 48), "day").render(1.0)
        ir, vis = cv2.resize(scene[0], (48, 36)), scene[1]
        registration = Registration(np.array([[1.2, 0.03, 6.0], [-0.02, 1.22, 3.0], [0, 0, 1.0]]), outside=outside)
        with Fuser(build(name="other.engine"), registration=registration) as fuser:
            expected = fuser.fuse(ir, vis)
        given = self.on_device(ir), self.on_device(vis)
        fused = cuda.to_host(engine.fuse_arrays(*given, None, "bgr", None, None, registration))
        assert fused.shape == expected.shape and (fused.shape < vis.shape or outside == "repeat")
        difference = np.abs(fused.astype(int) - expected)  # OpenCV samples at 32nds of a pixel
        assert difference.mean() < 0.5 and np.quantile(difference, 0.99) <= 3

    def test_infrared_of_another_size(self, engine, plain):
        ir, vis = pair(1, 24, 32)
        doubled = self.on_device(np.kron(ir[0, ..., 0], np.ones((2, 2), np.uint8)))
        fused = engine.fuse_arrays(doubled, self.on_device(vis[0]), None, "bgr", None, None, Registration())
        assert np.array_equal(cuda.to_host(fused), plain.run(ir, vis)[0])

    @pytest.mark.parametrize(
        ("registration", "says"),
        [
            (Registration(np.array([[1, 0, 9.0], [0, 1, 0], [0, 0, 1]])), "take outside='crop' or 'repeat'"),
            (
                Registration(
                    calibration=Calibration(
                        (32, 24), (32, 24), (Plane(np.eye(3)),), ir_lens=Lens(np.eye(3), np.zeros(5))
                    )
                ),
                "undistort the frames before",
            ),
        ],
    )
    def test_registrations_there_is_no_kernel_for(self, engine, registration, says):
        frames = [self.on_device(frame[0]) for frame in pair(1, 24, 32)]
        with pytest.raises(InputError, match=says):
            engine.fuse_arrays(*frames, None, "bgr", None, None, registration)

    @pytest.mark.parametrize(
        ("ir", "vis", "error"),
        [
            (np.zeros((24, 32), np.uint8), np.zeros((24, 32, 3), np.float32), DtypeError),
            (np.zeros((24, 32), np.float32), np.zeros((24, 32, 3), np.uint8), DtypeError),
            (np.zeros((24, 32, 3), np.uint16), np.zeros((24, 32, 3), np.uint8), DtypeError),
            (np.zeros((24, 32), np.uint8), np.zeros((24, 32), np.uint8), InputError),
            (np.zeros((24, 33), np.uint8), np.zeros((24, 32, 3), np.uint8), InputError),
            (np.zeros((15, 32), np.uint8), np.zeros((15, 32, 3), np.uint8), InputError),
            (np.zeros((24, 32), np.uint8), np.zeros((24, 65, 3), np.uint8), InputError),
        ],
    )
    def test_what_cannot_be_used(self, engine, ir, vis, error):
        with pytest.raises(error):
            engine.fuse_arrays(self.on_device(ir), self.on_device(vis), None, "bgr", None)
        engine.run(*pair(1, 24, 32))


class TestOpening:
    def test_a_bare_plan_opens_with_a_warning(self, build, plain):
        path = build()
        sidecar.sidecar_path(path).unlink()
        plan = path.rename(path.with_suffix(".plan"))
        with pytest.warns(UserWarning, match=r"no lite.plan.json beside it.*not verified.*load only your own"):
            made = open_engine(open_artefact(plan))
        assert made.precision == "unknown"
        frames = pair(1, 24, 32)
        assert np.array_equal(made.run(*frames), plain.run(*frames))

    def test_other_bytes_than_the_sidecars_are_refused_before_tensorrt_sees_them(self, build, trt):
        path = build()
        path.write_bytes(path.read_bytes() + b" ")
        trt.behaviour.calls.clear()
        with pytest.raises(ArtefactError, match=r"is not the engine that lite\.engine\.json describes"):
            open_engine(open_artefact(path))
        assert trt.behaviour.calls == []

    def test_another_tensorrt(self, build, trt, monkeypatch):
        path = build()
        other = tensorrt_stand_in.install(monkeypatch, "10.16.1")
        with pytest.raises(EngineError, match=r"built with TensorRT 10\.3\.0 .*here is TensorRT 10\.16\.1"):
            open_engine(open_artefact(path))
        assert other.behaviour.calls == []

    @pytest.mark.parametrize("capability", [(8, 9), (11, 0)])
    def test_another_gpu(self, build, monkeypatch, capability):
        path = build()
        tensorrt_stand_in.install(monkeypatch, capability=capability)
        here = f"{capability[0]}\\.{capability[1]}"
        with pytest.raises(
            DeviceError, match=rf"built for Orin \(compute capability 8\.7\); here is .*{here}.*rebuild=True"
        ):
            open_engine(open_artefact(path))

    def test_the_command_in_the_error_builds_it(self, build, monkeypatch, trt):
        path = build(Shape(2, (16, 24, 48), 32), low_memory=True, optimization_level=1)
        other = tensorrt_stand_in.install(monkeypatch, "10.16.1")
        with pytest.raises(EngineError) as caught:
            open_engine(open_artefact(path))
        command = str(caught.value).partition("Build it again here: ")[2].partition(", or open it")[0]
        python, dash, module, *arguments = shlex.split(command)
        assert (python, dash, module) == ("python", "-m", "export.tensorrt")
        assert build_command(arguments) == 0
        again = sidecar.read(path)
        assert again.tensorrt == "10.16.1" and str(again.profiles[0]) == "2x16-48x32"
        assert other.behaviour.built["level"] == 1 and other.behaviour.built["threads"] == 1

    def test_versions_and_gpus_that_an_engine_was_made_compatible_with(self, build, trt, monkeypatch):
        path = build(version_compatible=True, hardware="ampere+")
        later = tensorrt_stand_in.install(monkeypatch, "10.16.1", capability=(8, 9))
        later.behaviour.launch = trt.behaviour.launch
        open_engine(open_artefact(path)).close()
        tensorrt_stand_in.install(monkeypatch, "10.2.0")
        with pytest.raises(EngineError, match=r"needs TensorRT 10\.3\.0 or newer; here is TensorRT 10\.2\.0"):
            open_engine(open_artefact(path))

    def test_rebuild_builds_beside_it_once(self, build, trt, monkeypatch, plain):
        path = build()
        before = path.read_bytes()
        other = tensorrt_stand_in.install(monkeypatch, "10.16.1", capability=(11, 0))
        other.behaviour.launch = trt.behaviour.launch
        frames = pair(1, 24, 32)
        for _ in range(2):
            with Fuser(path, rebuild=True) as fuser:
                assert np.array_equal(fuser.fuse(frames[0][0], frames[1][0]), plain.run(*frames)[0])
            made = path.with_name("lite-fp32-1-4x16-64x16-64-sm110.engine")
            stamp = made.stat().st_mtime_ns if _ == 0 else stamp  # noqa: F821
            assert made.stat().st_mtime_ns == stamp
        assert path.read_bytes() == before

    def test_rebuild_of_what_needs_none(self, build, models, tmp_path):
        path = build()
        with Fuser(path, rebuild=True) as fuser:
            assert fuser._artefact.path == path
        with pytest.raises(InputError, match="rebuild is for engines"):
            Fuser(models / "lite.onnx", rebuild=True)

    def test_rebuild_without_what_it_was_built_from(self, build, monkeypatch, tmp_path):
        path = build()
        (tmp_path / "lite.onnx").unlink()
        tensorrt_stand_in.install(monkeypatch, "10.16.1")
        with pytest.raises(ArtefactError, match=r"lite\.onnx, which it was built from, does not exist"):
            Fuser(path, rebuild=True)
        sidecar.sidecar_path(path).unlink()
        with pytest.raises(ArtefactError, match="has no sidecar"):
            Fuser(path, rebuild=True)

    def test_damaged_bare_plans(self, trt, tmp_path):
        path = tmp_path / "x.trt"
        for content in (b"\0", b"ftrt" * 100, b"{"):
            path.write_bytes(content)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with pytest.raises(ArtefactError, match="Serialization assertion"):
                    open_engine(open_artefact(path))

    def test_no_memory_for_the_context(self, build, trt):
        path = build()
        trt.behaviour.refuse = "out of memory"
        with pytest.raises(EngineError, match="no memory on cuda for the activations"):
            open_engine(open_artefact(path))

    def test_no_memory_for_frames(self, engine, emulated_cuda, monkeypatch):
        from pyldfusion.engines import device
        from pyldfusion.errors import CudaError

        def none(*_):
            raise CudaError("allocating 3000 bytes on GPU 0 failed: out of memory (cudaErrorMemoryAllocation)")

        with monkeypatch.context() as patch:
            patch.setattr(device.Slot, "allocate", none)
            with pytest.raises(EngineError, match="out of memory"):
                engine.run(*pair(1, 24, 32))
            patch.setattr(engine, "_eager", none)
        assert engine.run(*pair(1, 24, 32)).shape == (1, 24, 32, 3)

    @pytest.mark.parametrize("io", ["planes"])
    def test_an_engine_of_planes(self, trt, models, tmp_path, io):
        from export.onnx import export_onnx
        from pyldfusion.generator import load_generator

        source = tmp_path / "planes.onnx"
        export_onnx(load_generator(models / "lite.safetensors"), source, io=io)
        path = tmp_path / "planes.engine"
        made = build_engine(source, path, Shape(1, 24, 32))
        assert trt.behaviour.built["profiles"][0]["ir"][0] == [1, 1, 24, 32] and str(made.profiles[0]) == "1x24x32"
        with pytest.raises(ArtefactError, match="takes float planes"):
            open_engine(open_artefact(path))
        sidecar.sidecar_path(path).unlink()
        with pytest.warns(UserWarning), pytest.raises(ArtefactError, match="is not a graph of frames"):
            open_engine(open_artefact(path))


def test_the_benchmark_compares_and_measures(build, models, tmp_path, monkeypatch):
    from benchmarks import tensorrt as benchmark
    from pyldfusion import fuser

    monkeypatch.setattr(fuser, "is_on_gpu", lambda array: hasattr(array, "pointer"))
    trtexec = tmp_path / "trtexec"
    said = "Throughput: 512.5 qps\\nLatency: min = 1 ms, median = 2.5 ms\\nGPU Compute Time: median = 1.75 ms"
    trtexec.write_text(f"#!/bin/sh\nprintf '{said}'\n")
    trtexec.chmod(0o755)
    output = tmp_path / "results" / "tensorrt.json"
    words = [build(), "--reference", models / "lite.onnx", "--trtexec", trtexec, "--rounds", 3, "-o", output]
    assert benchmark.main(list(map(str, words))) == 0
    result = json.loads(output.read_text())
    (row,) = result["engines"]
    assert (result["gpu"], result["capability"], row["size"], row["precision"]) == ("Orin", "8.7", "32x24", "fp32")
    assert row["passed"] and row["max_error_levels"] <= 1 and row["fuse_ms"] > 0 and row["stream_fps"] > 0
    assert row["trtexec"] == {"gpu_ms": 1.75, "latency_ms": 2.5, "fps": 512.5}


class TestChoice:
    def test_there_is_nothing_to_choose(self, build):
        artefact = open_artefact(build())
        assert choose(artefact, None, None, None) == ("tensorrt", "fp32", "cuda")
        assert choose(artefact, "cuda:0", "tensorrt", "fp32") == ("tensorrt", "fp32", "cuda:0")
        with pytest.raises(InputError, match="was built in fp32; precision='fp16' would be another file"):
            choose(artefact, None, None, "fp16")
        with pytest.raises(InputError, match="the GPU it was built for, not with device='cpu'"):
            choose(artefact, "cpu", None, None)
        with pytest.raises(DeviceError, match="reports 1 GPU"):
            choose(artefact, "cuda:1", None, None)
        with pytest.raises(InputError, match="engine 'openvino' does not open"):
            choose(artefact, None, "openvino", None)

    @pytest.mark.parametrize(("machine", "words"), [("aarch64", "--system-site-packages"), ("x86_64", "pip install")])
    def test_without_tensorrt(self, build, monkeypatch, machine, words):
        artefact = open_artefact(build())
        monkeypatch.setattr("platform.machine", lambda: machine)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(DependencyError, match=words):
            choose(artefact, None, None, None)

    def test_without_the_cuda_module(self, build, monkeypatch):
        artefact = open_artefact(build())
        with monkeypatch.context() as patch:
            patch.setattr(cuda, "why_not", lambda: "this build of pyldfusion has no CUDA kernels: install it again")
            with pytest.raises(DependencyError, match="need pyldfusion's own CUDA module: this build"):
                open_engine(artefact)

    def test_without_the_exporter(self, build, monkeypatch):
        path = build()
        tensorrt_stand_in.install(monkeypatch, "10.16.1")
        monkeypatch.setitem(sys.modules, "export.tensorrt", None)
        with pytest.raises(DependencyError, match="building an engine needs export"):
            Fuser(path, rebuild=True)


class TestWarp:
    """Engines that lay the infrared onto the visible themselves."""

    @pytest.fixture
    def warping(self, trt, tmp_path):
        from export.onnx import describe, write_model

        from .graphs import graph, network

        source = tmp_path / "warp.onnx"
        write_model(graph(warp=True), source, describe(network("lite"), io="frames", precision="fp32", warp=True))
        build_engine(source, tmp_path / "warp.engine", Shape((1, 2, 4), (16, 24, 64), (16, 32, 64)))
        return source, tmp_path / "warp.engine"

    def test_the_picture_is_the_graphs(self, warping, trt):
        assert trt.behaviour.built["profiles"][0]["ir"] == [[1, 16, 16, 1], [2, 480, 640, 1], [4, 1088, 1920, 1]]
        source, path = warping
        matrices = ([[0.9, 0.02, 1.3], [-0.03, 0.8, 2.7], [0, 0, 1]], [[0.6, 0, 3], [0, 0.7, -2], [0, 0, 1]])
        with Fuser(source, engine="onnxruntime") as plain, Fuser(path) as fuser:
            assert fuser.warps
            for size in ((20, 28), (24, 32)):
                irs, viss = pair(3, *size)[0], pair(3, 24, 32)[1]
                for matrix in (*matrices, *matrices):  # as it comes, recorded, replayed with another one
                    fused = fuser.fuse_batch(irs, viss, homography=matrix)
                    assert np.array_equal(fused, plain.fuse_batch(irs, viss, homography=matrix))
            assert fuser._engine._can_record and (2, 24, 32, 20, 28) in fuser._engine._recordings.shapes
