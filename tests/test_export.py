"""Exported graphs against the authors' networks, in every runtime that is installed."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import cv2
import numpy as np
import pytest
import torch

from export.__main__ import main
from export.onnx import export_onnx
from export.verify import load_double
from pyldfusion.artefact import open_artefact
from pyldfusion.author_weights import import_weights
from pyldfusion.engines.onnx import import_onnxruntime
from pyldfusion.engines.openvino import openvino_core
from pyldfusion.errors import ArtefactError, InputError
from pyldfusion.generator import Generator, load_generator
from pyldfusion.rewrites import for_inference

from .author_networks import LDFusion, LDLite, fill, save_author_files

onnx = pytest.importorskip("onnx")


def run_onnxruntime(path, inputs):
    session = import_onnxruntime().InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["fused"], inputs)[0]


def run_openvino(path, inputs, precision="f32"):
    compiled = openvino_core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": precision})
    return compiled(inputs)["fused"]


RUNTIMES = {"onnxruntime": run_onnxruntime, "openvino": run_openvino}


@pytest.fixture(params=RUNTIMES)
def run(request):
    pytest.importorskip(request.param)
    return RUNTIMES[request.param]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("export")


def exported(folder, network, name, **options):
    """The way of a user: the authors' files, import, export."""
    files = save_author_files(network, folder)
    metadata = import_weights(files, folder / f"{name}.safetensors")
    export_onnx(load_generator(folder / f"{name}.safetensors"), folder / f"{name}.onnx", metadata=metadata, **options)
    return folder / f"{name}.onnx"


@pytest.fixture(scope="module")
def full_planes(folder):
    return exported(folder, fill(LDFusion(), seed=1), "full_planes", io="planes")


@pytest.fixture(scope="module")
def lite_frames(folder):
    return exported(folder, fill(LDLite(), seed=2), "lite_frames")


@pytest.fixture(scope="module")
def command(lite_frames):
    """The command's run on the same weights, 16-bit: (exit code, what it printed, the file)."""
    weights, output = lite_frames.with_suffix(".safetensors"), lite_frames.with_name("lite_half.onnx")
    with redirect_stdout(io.StringIO()) as printed:
        code = main([str(weights), "-o", str(output), "--precision", "fp16-stored"])
    return code, printed.getvalue(), output


@pytest.fixture(scope="module")
def lite_half(command):
    return command[2]


@pytest.fixture(scope="module")
def ldlite(shared, folder):
    """The published, language-trained weights of LD-Lite."""
    metadata = import_weights([shared / "upstream" / "lite" / "final.pt"], folder / "ldlite.safetensors")
    network = load_generator(folder / "ldlite.safetensors")
    export_onnx(network, folder / "ldlite.onnx", metadata=metadata)
    return folder / "ldlite.onnx", network


def reference_frames(network, ir, vis):
    """A pair of uint8 frames fused with OpenCV's colour conversion and the authors' network, in float64."""
    network = network.double()
    ycrcb = cv2.cvtColor(vis.astype(np.float32) / 255, cv2.COLOR_BGR2YCrCb).astype(np.float64)
    planes = [torch.from_numpy(p)[None, None] for p in (ir / 255.0, ycrcb[..., 0])]
    with torch.inference_mode():
        fused = network(*planes)[0, 0].numpy()
    change = (fused - ycrcb[..., 0])[..., None] * 255
    return np.rint(np.clip(vis + change, 0, 255)).astype(np.uint8)


def random_frames(rng, n, h, w):
    blurred = [cv2.GaussianBlur(rng.integers(0, 256, (h, w, 4)).astype(np.float32), (0, 0), 2) for _ in range(n)]
    frames = np.stack([cv2.normalize(b, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8) for b in blurred])
    return np.ascontiguousarray(frames[..., :1]), np.ascontiguousarray(frames[..., 1:])


def test_parity_with_the_original_code(shared, full_planes, run):
    fixture = np.load(shared / "upstream" / "parity.npz")
    fused = run(full_planes, {"ir": fixture["ir"], "vis": fixture["vis"]})
    assert np.abs(fused - fixture["fused"]).max() <= 1e-4


@pytest.mark.parametrize("size", [(16, 16), (17, 39), (64, 50)])
def test_planes_equal_the_authors_network(full_planes, run, size):
    planes = torch.rand(2, 3, 1, *size, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        expected = fill(LDFusion(), seed=1)(*planes).numpy()
    fused = run(full_planes, {"ir": planes[0].numpy(), "vis": planes[1].numpy()})
    assert fused.shape == expected.shape and np.abs(fused - expected).max() <= 2e-4


@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 61, 47), (3, 24, 129)])
def test_frames_equal_opencv_and_the_authors_network(lite_frames, run, shape):
    ir, vis = random_frames(np.random.default_rng(3), *shape)
    fused = run(lite_frames, {"ir": ir, "vis": vis})
    assert fused.dtype == np.uint8 and fused.shape == vis.shape
    for i in range(shape[0]):
        expected = reference_frames(fill(LDLite(), seed=2), ir[i, ..., 0], vis[i])
        difference = np.abs(fused[i].astype(int) - expected)
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_storing_weights_in_half_changes_little_and_halves_the_file(lite_frames, lite_half, run):
    assert lite_half.stat().st_size < 0.55 * lite_frames.stat().st_size
    ir, vis = random_frames(np.random.default_rng(5), 1, 80, 64)
    whole, half = (run(path, {"ir": ir, "vis": vis}).astype(int) for path in (lite_frames, lite_half))
    assert 0 < np.abs(whole - half).max() <= 2


@pytest.mark.parametrize("which", ["lite_frames", "lite_half", "full_planes"])
def test_initialisers_are_the_state_dict(which, request):
    path = request.getfixturevalue(which)
    weights = path.with_name("lite_frames.safetensors" if which == "lite_half" else f"{which}.safetensors")
    original = open_artefact(weights).state_dict()
    state = open_artefact(path).state_dict()
    assert state.keys() == original.keys()
    for name, tensor in original.items():
        stored = tensor.astype(np.float16).astype(np.float32) if which == "lite_half" else tensor
        dead = name.endswith("bias") and not state[name].any()
        assert dead or np.array_equal(state[name], stored), name
    # a network loaded back from the graph computes what the original does
    planes = torch.rand(2, 1, 1, 24, 24, generator=torch.Generator().manual_seed(4))
    tolerance = 2e-3 if which == "lite_half" else 1e-5
    with torch.inference_mode():
        a, b = (load_generator(file)(*planes) for file in (path, weights))
    assert (a - b).abs().max() <= tolerance


def test_files_of_the_same_weights_have_one_hash(lite_half, tmp_path):
    """However they are stored, and made of each other: so the form that smooths over time is known for theirs."""
    again = export_onnx(load_generator(lite_half), tmp_path / "again.onnx", precision="fp32", temporal=True)
    assert again["weights_sha256"] == open_artefact(lite_half).metadata["weights_sha256"]


def test_the_file_says_what_it_is_and_nothing_of_the_machine(lite_half):
    artefact = open_artefact(lite_half)
    assert (artefact.variant, artefact.precision, artefact.io) == ("lite", "fp16-stored", "frames")
    assert artefact.metadata["opset"] == "18" and artefact.metadata["clip_trained"] == "yes"
    assert len(artefact.metadata["weights_sha256"]) == 64
    model = onnx.load(lite_half)
    assert [value.name for value in model.graph.input] == ["ir", "vis"]
    assert [value.name for value in model.graph.output] == ["fused"]
    dims = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input]
    assert dims == [["N", "H", "W", 1], ["N", "H", "W", 3]]
    content = lite_half.read_bytes()
    assert b"site-packages" not in content and b".py" not in content
    # one exporter turns AdaIN or instance norm into a training-mode batch norm; no runtime would accept or mean it
    assert not {node.op_type for node in model.graph.node} & {"BatchNormalization", "If", "Loop", "Dropout"}


@pytest.mark.parametrize("variant", ["full", "lite"])
def test_rewrites_are_exact(variant):
    from trainer.start.initialise import initialise

    network = initialise(Generator(variant), seed=1).double()
    for module in network.modules():  # large biases: give the dead ones something to lose
        if getattr(module, "bias", None) is not None:
            torch.nn.init.normal_(module.bias, generator=torch.Generator().manual_seed(1))
    rewritten = for_inference(network)
    assert rewritten.state_dict().keys() == network.state_dict().keys()
    for size in ((16, 16), (23, 17), (31, 40), (39, 22)):
        planes = torch.rand(2, 2, 1, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        with torch.inference_mode():
            torch.testing.assert_close(rewritten(*planes), network(*planes), rtol=0, atol=1e-10)


def test_published_pictures_of_lite(shared, ldlite, run):
    """The author's real weights reproduce the author's pictures, which truncate where we round."""
    lite = shared / "upstream" / "lite"
    for file in sorted((lite / "ir").iterdir()):
        ir = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        vis = cv2.imread(str(lite / "vi" / file.name))
        published = cv2.imread(str(lite / "results" / file.name))
        fused = run(ldlite[0], {"ir": ir[None, ..., None], "vis": vis[None]})[0]
        difference = np.abs(fused.astype(int) - published)
        assert difference.max() <= 2 and (difference > 1).mean() <= 0.001


def test_bf16_on_real_weights(shared, ldlite):
    """PSNR to float64 planes, of grey frames: their rounding alone allows 58.9 dB."""
    pytest.importorskip("openvino")
    if "BF16" not in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no native bf16")
    path, network = ldlite
    folder = shared / "upstream" / "lite"
    ir, vis = (cv2.imread(str(folder / side / "1.png"), cv2.IMREAD_GRAYSCALE) for side in ("ir", "vi"))
    planes = [torch.from_numpy(plane / 255.0)[None, None] for plane in (ir, vis)]
    with torch.inference_mode():
        exact = load_double(network)(*planes)[0, 0].numpy() * 255
    inputs = {"ir": ir[None, ..., None], "vis": np.repeat(vis[None, ..., None], 3, -1)}
    for precision, least in (("bf16", 48), ("f32", 58)):
        fused = run_openvino(path, inputs, precision)[0, ..., 0]
        assert 10 * np.log10(255**2 / np.mean((fused - exact) ** 2)) >= least


def test_weights_that_16_bits_cannot_hold(tmp_path):
    network = Generator("lite")
    with torch.no_grad():
        network.decoder.out.weight[0, 0, 0, 0] = 1e6
    with pytest.raises(InputError, match=r"decoder\.out\.weight reaches 1e\+06"):
        export_onnx(network, tmp_path / "m.onnx", precision="fp16-stored")
    assert not list(tmp_path.iterdir())


def test_options_that_are_refused(tmp_path):
    for options in ({"io": "tensors"}, {"precision": "fp8"}):
        with pytest.raises(InputError, match="expected one of"):
            export_onnx(Generator("lite"), tmp_path / "m.onnx", **options)
    with pytest.raises(ArtefactError, match=r"ends in \.onnx"):
        export_onnx(Generator("lite"), tmp_path / "m.pt")


def test_command(command, tmp_path, capsys):
    code, printed, output = command
    assert code == 0 and "fp16-stored" in printed and "PSNR" in printed
    assert main([str(output), "-o", str(output)]) == 2
    assert "is the file the weights come from" in capsys.readouterr().err
    assert main([str(tmp_path / "absent.safetensors")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main([str(output), "-o", str(tmp_path / "no" / "where.onnx")]) == 2
    assert "folder" in capsys.readouterr().err
