"""Engines: the same picture from each, the right one chosen, and errors that say what is wrong."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest

from pyldfusion import hardware
from pyldfusion.artefact import open_artefact
from pyldfusion.engines import choice
from pyldfusion.engines.choice import choose, open_engine
from pyldfusion.errors import ArtefactError, DependencyError, DeviceError, EngineError, InputError, PyldfusionError

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from .author_networks import LDLite, fill  # noqa: E402

FP32 = ["onnxruntime", "torch"] + (["openvino:fp32"] if importlib.util.find_spec("openvino") else [])
needs_openvino = pytest.mark.skipif("openvino:fp32" not in FP32, reason="openvino is not installed")
needs_bf16 = pytest.mark.skipif(not hardware.native_bf16(), reason="this CPU has no bfloat16 arithmetic")


def pair(n, h, w, seed=0):
    """Smooth random frames: ir [N,H,W,1] and vis [N,H,W,3]."""
    rng = np.random.default_rng([seed, n, h, w])
    both = [cv2.GaussianBlur(rng.random((h, w, 4), np.float32), (0, 0), 2) for _ in range(n)]
    both = np.stack([cv2.normalize(b, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8) for b in both])
    return np.ascontiguousarray(both[..., :1]), np.ascontiguousarray(both[..., 1:])


def reference(ir, vis):
    """One pair through OpenCV's colour conversion and the authors' network in float64; float, not rounded."""
    ycrcb = cv2.cvtColor(vis.astype(np.float32) / 255, cv2.COLOR_BGR2YCrCb).astype(np.float64)
    planes = [torch.from_numpy(plane)[None, None] for plane in (ir[..., 0] / 255.0, ycrcb[..., 0])]
    with torch.inference_mode():
        fused = fill(LDLite(), seed=2).double()(*planes)[0, 0].numpy()
    return np.clip(vis + 255 * (fused - ycrcb[..., 0])[..., None], 0, 255)


@pytest.fixture(scope="module", params=FP32)
def engine(request, models):
    opened = open_engine(open_artefact(models / "lite.onnx"), engine=request.param)
    yield opened
    opened.close()


@pytest.mark.parametrize("h, w", [(16, 16), (17, 33), (61, 40), (129, 203)])
def test_fp32_engines_give_the_authors_picture(engine, h, w):
    ir, vis = pair(1, h, w)
    fused = engine.run(ir, vis)
    assert fused.dtype == np.uint8 and fused.shape == vis.shape and fused.flags.c_contiguous
    assert np.abs(fused[0] - reference(ir[0], vis[0])).max() <= 1.0


def test_a_batch_is_its_frames(engine):
    ir, vis = pair(3, 40, 56)
    fused = engine.run(ir, vis)
    for i in range(3):
        assert np.abs(fused[i].astype(int) - engine.run(ir[i : i + 1], vis[i : i + 1])[0]).max() <= 1


def test_results_are_the_callers_own_and_inputs_only_read(engine):
    ir, vis = pair(1, 32, 48)
    ir.setflags(write=False)
    vis.setflags(write=False)
    first = engine.run(ir, vis)
    kept = first.copy()
    second = engine.run(*pair(1, 32, 48, seed=9))
    assert np.array_equal(first, kept) and not np.shares_memory(first, second)
    assert first.flags.writeable


@pytest.mark.parametrize("h, w", [(93, 41), (48, 64), (120, 160)])
def test_frames_that_may_only_be_read_give_the_same_picture(engine, h, w):
    """OpenVINO is given copies of them, which must live as long as it computes."""
    ir, vis = pair(1, h, w)
    expected = engine.run(ir, vis)
    for frames in (ir, vis):
        frames.setflags(write=False)
    assert all(np.array_equal(engine.run(ir, vis), expected) for _ in range(3))


@needs_openvino
@needs_bf16
def test_bf16_is_near(models):
    engine = open_engine(open_artefact(models / "lite.onnx"), engine="openvino", precision="bf16")
    assert engine.precision == "bf16"
    ir, vis = pair(1, 96, 128)
    error = engine.run(ir, vis)[0] - reference(ir[0], vis[0])
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 44
    assert np.abs(error).max() > 1  # it is not float32 under another name


@needs_openvino
def test_a_signal_after_openvino_s_networks_went_is_handled():
    """OpenVINO gives threads a stack for signals; it must not be gone while a thread still has it."""
    program = """
import gc, os, signal
import numpy as np
from pyldfusion import Fuser
came = []
signal.signal(signal.SIGUSR1, lambda *_: came.append("handled"))
frame = np.zeros((16, 24), np.uint8)
fusers = [Fuser("lite", engine="openvino") for _ in range(2)]
for fuser in fusers:
    fuser.fuse(frame, frame)
while fusers:
    fusers.pop(0).close()
    gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
print(*came)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@needs_openvino
def test_openvino_keeps_a_bounded_number_of_graphs(models):
    engine = open_engine(open_artefact(models / "lite.onnx"), engine="openvino:fp32")
    sizes = [(16 + 8 * i, 24) for i in range(engine.MAX_SHAPES + 2)]
    results = [engine.run(*pair(1, h, w)) for h, w in sizes]
    assert kept(engine) == [(1, h, w, 3) for h, w in sizes[-engine.MAX_SHAPES :]]
    for (h, w), expected in zip(sizes, results, strict=True):  # the first ones are compiled again
        assert np.array_equal(engine.run(*pair(1, h, w)), expected)
    engine.MAX_PIXELS = 2000
    engine.run(*pair(1, 40, 40))
    assert kept(engine) == [(1, 40, 40, 3)]


def kept(engine):
    return [dict(shapes)["vis"] for shapes in engine._requests]


def test_onnxruntime_keeps_its_results_when_sizes_change(models):
    engine = open_engine(open_artefact(models / "lite.onnx"), engine="onnxruntime")
    small = engine.run(*pair(1, 20, 30))
    engine.run(*pair(1, 120, 160))
    assert np.array_equal(engine.run(*pair(1, 20, 30)), small)


@pytest.mark.parametrize("name", ["lite.onnx", "lite.safetensors"])
def test_the_default_engine_opens_every_kind(models, name):
    ir, vis = pair(1, 24, 40)
    fused = open_engine(open_artefact(models / name)).run(ir, vis)[0]
    error = fused - reference(ir[0], vis[0])
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 40


def test_threads_are_torchs_only_during_a_call(models):
    before = torch.get_num_threads()
    engine = open_engine(open_artefact(models / "lite.safetensors"), threads=before + 1)
    engine.run(*pair(1, 16, 16))
    assert torch.get_num_threads() == before and engine.threads == before + 1


class TestChoice:
    """What is chosen, without loading it."""

    @pytest.fixture
    def machine(self, monkeypatch):
        """A machine as described, such as ``machine(bf16=True, installed=("torch",), gpus=1, capability=(7, 5))``."""

        def describe(bf16=False, installed=tuple(choice.RUNTIMES), gpus=0, torch_cuda=True, capability=(9, 0)):
            monkeypatch.setattr(hardware, "native_bf16", lambda: bf16)
            monkeypatch.setattr(hardware, "cuda_devices", lambda: gpus)
            monkeypatch.setattr(hardware, "cuda_capability", lambda index: capability)
            monkeypatch.setattr(choice, "installed", lambda name: name in installed)
            monkeypatch.setattr("pyldfusion.engines.torch.has_cuda", lambda: torch_cuda)

        return describe

    @pytest.mark.parametrize(
        "bf16, installed, expected",
        [
            (True, ("openvino", "onnxruntime", "torch"), ("openvino", "bf16")),
            (False, ("openvino", "onnxruntime", "torch"), ("openvino", "fp32")),
            (True, ("onnxruntime", "torch"), ("onnxruntime", "fp32")),
            (True, ("torch",), ("torch", "fp32")),
        ],
    )
    def test_the_fastest_that_is_there(self, models, machine, bf16, installed, expected):
        machine(bf16=bf16, installed=installed)
        assert choose(open_artefact(models / "lite.onnx"), None, None, None) == (*expected, "cpu")

    def test_what_is_asked_for(self, models, machine):
        machine(bf16=True)
        artefact = open_artefact(models / "lite.onnx")
        assert choose(artefact, None, "openvino:fp32", None)[:2] == ("openvino", "fp32")
        assert choose(artefact, None, "openvino", None)[:2] == ("openvino", "bf16")
        assert choose(artefact, "cpu", None, "fp32")[:2] == ("openvino", "fp32")
        assert choose(artefact, None, "onnxruntime", None)[:2] == ("onnxruntime", "fp32")
        assert choose(artefact, None, "torch", "fp32")[:2] == ("torch", "fp32")

    def test_weights_alone_need_torch(self, models, machine):
        artefact = open_artefact(models / "lite.safetensors")
        machine()
        assert choose(artefact, None, None, None) == ("torch", "fp32", "cpu")
        machine(installed=("openvino", "onnxruntime"))
        with pytest.raises(DependencyError, match=r"pip install 'pyldfusion\[export\]'"):
            choose(artefact, None, None, None)
        machine()
        with pytest.raises(InputError, match=r"does not open \.safetensors files; torch would"):
            choose(artefact, None, "openvino", None)

    def test_a_usable_gpu_is_taken(self, models, machine):
        artefact = open_artefact(models / "lite.onnx")
        machine(bf16=True, gpus=1)
        assert choose(artefact, None, None, None) == ("torch", "fp16", "cuda")
        assert choose(artefact, "cpu", None, None) == ("openvino", "bf16", "cpu")
        assert choose(artefact, None, "onnxruntime", None) == ("onnxruntime", "fp32", "cpu")
        assert choose(artefact, "cuda:0", None, None) == ("torch", "fp16", "cuda:0")
        assert choose(artefact, "cuda", None, "fp32") == ("torch", "fp32", "cuda")
        assert choose(artefact, None, "torch:bf16", None) == ("torch", "bf16", "cuda")
        machine(bf16=True, gpus=1, torch_cuda=False)
        assert choose(artefact, None, None, None) == ("openvino", "bf16", "cpu")

    @pytest.mark.parametrize(
        "capability, fastest, refused", [((6, 1), "fp32", ("fp16", "bf16")), ((7, 5), "fp16", ("bf16",))]
    )
    def test_an_old_gpu_computes_in_what_it_has(self, models, machine, capability, fastest, refused):
        artefact = open_artefact(models / "lite.onnx")
        machine(bf16=True, gpus=1, capability=capability)
        assert choose(artefact, "cuda", None, None) == ("torch", fastest, "cuda")
        for precision in refused:
            with pytest.raises(DeviceError, match=f"no tensor cores for {precision}"):
                choose(artefact, "cuda", None, precision)

    def test_what_is_available_is_what_would_be_chosen(self, models, machine):
        machine(bf16=True, gpus=1)
        for kind, name in (("onnx", "lite.onnx"), ("safetensors", "lite.safetensors")):
            found = choice.available(kind)
            assert found[0] == choose(open_artefact(models / name), None, None, None)
            for engine, precision, device in found:
                assert choose(open_artefact(models / name), device, engine, precision) == (engine, precision, device)
        assert {device for _, _, device in choice.available()} == {"cuda", "cpu"}
        machine(installed=("onnxruntime",))
        assert choice.available("onnx") == [("onnxruntime", "fp32", "cpu")] and choice.available("safetensors") == []

    @pytest.mark.parametrize(
        "described, device, error, words",
        [
            ({}, "cuda", DeviceError, "reports no GPU"),
            ({"gpus": 2}, "cuda:2", DeviceError, "reports 2 GPUs"),
            ({"gpus": 1, "torch_cuda": False}, "cuda", DeviceError, "built without CUDA"),
            ({"gpus": 1, "installed": ("openvino",)}, "cuda", DependencyError, "needs torch"),
            ({}, "gpu", InputError, "unknown device 'gpu'"),
            ({}, "CUDA", InputError, "did you mean 'cuda'"),
            ({}, "cuda:x", InputError, "unknown device"),
            ({}, 0, InputError, "unknown device 0"),
        ],
    )
    def test_devices_that_are_not_there(self, models, machine, described, device, error, words):
        machine(**described)
        with pytest.raises(error, match=words):
            choose(open_artefact(models / "lite.onnx"), device, None, None)

    @pytest.mark.parametrize(
        "engine, precision, words",
        [
            ("openvno", None, "did you mean 'openvino'"),
            ("ONNXRuntime", None, "did you mean 'onnxruntime'"),
            ("tensorrt", None, "'tensorrt' does not open .onnx files; openvino, onnxruntime, torch would"),
            ("", None, "known: openvino, onnxruntime, native, torch"),
            (3, None, "unknown engine 3"),
            ("onnxruntime:bf16", None, "does not compute in 'bf16'; it has: fp32"),
            ("openvino:int8", None, "does not compute in 'int8'"),
            ("openvino:bf16", "fp32", "contradict"),
            (None, "half", "unknown precision 'half'"),
            ("torch", "int8", "does not compute"),
            ("torch", "bf16", "precision=bf16 on cpu; there are"),
            ("torch", "fp16", "precision=fp16 on cpu; there are"),
        ],
    )
    def test_engines_and_precisions_that_do_not_exist(self, models, machine, engine, precision, words):
        machine(bf16=True)
        with pytest.raises(InputError, match=words):
            choose(open_artefact(models / "lite.onnx"), None, engine, precision)

    def test_combinations_that_do_not_exist(self, models, machine):
        machine(bf16=True, gpus=1)
        with pytest.raises(InputError, match="with engine=openvino, precision=any on cuda; there are"):
            choose(open_artefact(models / "lite.onnx"), "cuda", "openvino", None)
        with pytest.raises(InputError, match="precision=bf16"):
            choose(open_artefact(models / "lite.safetensors"), "cpu", None, "bf16")

    def test_what_is_not_installed_is_named_with_its_command(self, models, machine):
        artefact = open_artefact(models / "lite.onnx")
        machine(installed=("onnxruntime",))
        with pytest.raises(DependencyError, match=r"'openvino' is not installed: pip install 'pyldfusion\[openvino\]'"):
            choose(artefact, None, "openvino", None)
        machine(installed=())
        with pytest.raises(DependencyError, match=r"any of: pip install 'pyldfusion.*; pip install onnxruntime"):
            choose(artefact, None, None, None)

    def test_bf16_only_where_the_cpu_has_it(self, models, machine):
        machine(bf16=False)
        with pytest.raises(DeviceError, match="no bfloat16 arithmetic"):
            choose(open_artefact(models / "lite.onnx"), None, "openvino:bf16", None)

    @pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True])
    def test_threads_are_whole_numbers(self, models, threads):
        with pytest.raises(InputError, match="threads is"):
            open_engine(open_artefact(models / "lite.onnx"), threads=threads)


class TestFiles:
    """Files that are not what they should be."""

    def test_planes_are_not_frames(self, models, tmp_path):
        model = onnx.load(models / "lite.onnx")
        next(entry for entry in model.metadata_props if entry.key == "io").value = "planes"
        onnx.save(model, tmp_path / "planes.onnx")
        with pytest.raises(ArtefactError, match="float planes"):
            open_engine(open_artefact(tmp_path / "planes.onnx"))

    @pytest.mark.parametrize("suffix", [".engine", ".trt", ".plan"])
    def test_tensorrt_says_how_to_get_it(self, tmp_path, suffix):
        if importlib.util.find_spec("tensorrt"):
            pytest.skip("TensorRT is here")
        (tmp_path / f"model{suffix}").write_bytes(b"ptrt" * 100)
        with pytest.raises(DependencyError, match="needs tensorrt: "):
            open_engine(open_artefact(tmp_path / f"model{suffix}"))

    @pytest.mark.parametrize("engine", FP32)
    @pytest.mark.parametrize(
        "names, dtype, shape",
        [
            (("ir", "vis"), "FLOAT", ["N", 1, "H", "W"]),  # planes that do not say so
            (("ir", "vis"), "UINT8", ["N", "H", "W", 1]),
            (("a", "b"), "UINT8", ["N", "H", "W", 3]),
        ],
    )
    def test_a_foreign_graph_is_found_out(self, tmp_path, engine, names, dtype, shape):
        *inputs, output = (
            onnx.helper.make_tensor_value_info(name, getattr(onnx.TensorProto, dtype), shape)
            for name in (*names, "fused")
        )
        node = onnx.helper.make_node("Max", names, ["fused"])
        graph = onnx.helper.make_graph([node], "foreign", inputs, [output])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
        onnx.save(model, tmp_path / "foreign.onnx")
        with pytest.raises(ArtefactError, match=r"not a graph of frames.*found ir|a \[|does not say which network"):
            open_engine(open_artefact(tmp_path / "foreign.onnx"), engine=engine)

    @pytest.mark.parametrize(
        "name, engine", [*(("lite.onnx", engine) for engine in FP32), ("lite.safetensors", "torch")]
    )
    def test_damaged_files_are_errors_of_ours_or_still_work(self, models, tmp_path, engine, name):
        whole = (models / name).read_bytes()
        rng = np.random.default_rng(11)
        damaged = [whole[:n] for n in (0, 1, 7, 100, len(whole) // 2, len(whole) - 1)]
        damaged += [b"\0" * 1000, rng.bytes(5000), b"<html>not found</html>"]
        for _ in range(12):  # a few bytes flipped near the end or the start, where the structure is
            broken = bytearray(whole)
            for at in rng.integers(0, 3000, 4):
                broken[at if rng.random() < 0.5 else -at - 1] ^= int(rng.integers(1, 256))
            damaged.append(bytes(broken))
        refused = 0
        for i, content in enumerate(damaged):
            path = tmp_path / f"{i}{os.path.splitext(name)[1]}"
            path.write_bytes(content)
            try:
                fused = open_engine(open_artefact(path), engine=engine).run(*pair(1, 16, 16))
                assert fused.shape == (1, 16, 16, 3)
            except PyldfusionError as error:
                refused += 1
                assert isinstance(error, (ArtefactError, EngineError)), error
        assert refused >= 9

    def test_missing_weights_are_named(self, models, tmp_path):
        from pyldfusion.artefact import save_weights

        artefact = open_artefact(models / "lite.safetensors")
        state = artefact.state_dict()
        del state["decoder.out.weight"]
        save_weights(state, tmp_path / "less.safetensors", {"variant": "lite"})
        with pytest.raises(ArtefactError, match=r"decoder\.out\.weight is missing"):
            open_engine(open_artefact(tmp_path / "less.safetensors"))


def test_a_failing_runtime_is_an_error_of_ours_and_goes_on(engine):
    ir, vis = pair(1, 32, 32)
    expected = engine.run(ir, vis)
    with pytest.raises((EngineError, InputError), match="shape"):
        engine.run(np.ascontiguousarray(ir[:, :, :20]), vis)
    assert np.array_equal(engine.run(ir, vis), expected)


def test_two_engines_at_once(models):
    """Separate engines share nothing: both may run at the same time."""
    artefact = open_artefact(models / "lite.onnx")
    frames = pair(1, 48, 64)
    for name in FP32:
        engines = [open_engine(artefact, engine=name, threads=1) for _ in range(2)]
        expected = engines[0].run(*frames)
        results: list[np.ndarray] = []

        def work(engine, results=results):
            results.extend(engine.run(*frames) for _ in range(5))

        workers = [threading.Thread(target=work, args=(engine,)) for engine in engines]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert len(results) == 10 and all(np.array_equal(result, expected) for result in results)


@pytest.mark.parametrize("engine", ["onnxruntime"] + ["openvino"] * ("openvino:fp32" in FP32))
def test_runtimes_report_nothing_and_write_nothing_at_home(models, tmp_path, engine):
    script = (
        "import sys, numpy as np\n"
        "from pyldfusion import Fuser\n"
        f"with Fuser({str(models / 'lite.onnx')!r}, engine={engine!r}) as fuser:\n"
        "    fuser.fuse(np.zeros((16, 16), np.uint8), np.zeros((16, 16, 3), np.uint8))\n"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry')], 'torch' in sys.modules)\n"
    )
    hidden = ("CI", "TF_BUILD", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME", "JENKINS_URL")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    run = subprocess.run(
        [sys.executable, "-c", script], env={**environment, "HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["[]", "False"]
    assert list(tmp_path.rglob("*")) == []


def test_real_weights_give_the_published_pictures_through_torch(shared, tmp_path):
    """The author's own results for his two pairs: within 1 grey level, 2 on at most 0.1 % of the values."""
    from pyldfusion.author_weights import import_weights

    upstream = shared / "upstream" / "lite"
    import_weights([upstream / "final.pt"], tmp_path / "lite.safetensors")
    engine = open_engine(open_artefact(tmp_path / "lite.safetensors"))
    for picture in ("1.png", "2.png"):
        ir = cv2.imread(str(upstream / "ir" / picture), cv2.IMREAD_GRAYSCALE)
        vis = cv2.imread(str(upstream / "vi" / picture))
        published = cv2.imread(str(upstream / "results" / picture)).astype(int)
        error = np.abs(engine.run(ir[None, ..., None], vis[None])[0] - published)
        assert error.max() <= 2 and (error > 1).mean() <= 1e-3
