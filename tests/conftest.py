"""Fixtures that every test module may use."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import onnx

    from pyldfusion.generator import Generator

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_finish() -> None:
    """Engines that close collect garbage, hundreds of times here: let that not go through all that was imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data (fixtures of the original code, public test pairs).

    Found beside the checkout or through ``PYLDFUSION_SHARED``. Users do not have it: tests that need it skip.
    """
    folder = Path(os.environ.get("PYLDFUSION_SHARED", ROOT.parent / "shared"))
    if not (folder / "upstream" / "parity.npz").is_file():
        pytest.skip(f"reference data not found at {folder}; set PYLDFUSION_SHARED to its folder")
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one small network of seeded weights, made the way a user makes it.

    ``lite.safetensors`` and ``lite.onnx`` (frames, fp32); the weights are ``author_networks.fill(LDLite(), seed=2)``.
    """
    pytest.importorskip("torch")
    from export.onnx import export_onnx
    from pyldfusion.author_weights import import_weights
    from pyldfusion.generator import load_generator

    from .author_networks import LDLite, fill, save_author_files

    folder = tmp_path_factory.mktemp("models")
    metadata = import_weights(save_author_files(fill(LDLite(), seed=2), folder), folder / "lite.safetensors")
    export_onnx(load_generator(folder / "lite.safetensors"), folder / "lite.onnx", metadata=metadata)
    return folder


@pytest.fixture(scope="session")
def tiny_network() -> Generator:
    """A network like lite with a few channels, seeded: files of it are small and load at once."""
    pytest.importorskip("torch")
    from pyldfusion.generator import Generator, Variant
    from trainer.start.initialise import initialise

    return initialise(Generator(Variant((4, 4, 8, 8), False, "sigmoid")), seed=3).eval()


@pytest.fixture(scope="session")
def tiny_frames(tiny_network: Generator) -> onnx.ModelProto:
    """The graph of frames of :func:`tiny_network`, any size; not to be changed."""
    pytest.importorskip("onnx")
    from export.onnx import build_model

    return build_model(tiny_network)


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a real open_clip architecture, small enough for a test: a ViT of 2 layers at 224 px."""
    path = tmp_path_factory.mktemp("clip") / "tiny-vit.json"
    vision = {"image_size": 224, "layers": 2, "width": 64, "head_width": 32, "patch_size": 32}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
    path.write_text(json.dumps({"embed_dim": 64, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}))
    return path


@pytest.fixture(scope="session")
def host_cuda() -> ModuleType:
    """pyldfusion's module ``_cuda`` with its kernels on the CPU (tests/host_cuda): device arrays are host arrays.

    ``host_cuda.host`` is for :func:`tests.host_cuda.build.orders`.
    """
    from .host_cuda import build

    if why := build.missing():
        pytest.skip(why)
    return build.module()


@pytest.fixture(params=["host", "device"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where torch has its tensors while :mod:`pyldfusion.cuda` works on them in a test: once ``"cpu"``, with the
    kernels emulated, and once ``"cuda"``, on machines with a GPU."""
    import pyldfusion
    from pyldfusion import cuda

    if request.param == "device":
        if why := cuda.why_not():
            pytest.skip(why)
        return "cuda"
    emulated = request.getfixturevalue("host_cuda")
    monkeypatch.setitem(sys.modules, "pyldfusion._cuda", emulated)
    monkeypatch.setattr(pyldfusion, "_cuda", emulated, raising=False)
    monkeypatch.setattr(cuda, "why_not", lambda: "")
    return "cpu"


@pytest.fixture
def emulated_cuda(host_cuda: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """pyldfusion.cuda with the emulated module behind it; the module."""
    from pyldfusion import cuda

    monkeypatch.setitem(sys.modules, "pyldfusion._cuda", host_cuda)
    monkeypatch.setattr("pyldfusion._cuda", host_cuda, raising=False)
    cuda.why_not.cache_clear()
    yield host_cuda
    cuda.why_not.cache_clear()
