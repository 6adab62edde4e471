"""CLIP's weights from every kind of file, and what is said of those that do not fit."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
from safetensors.torch import save_file  # noqa: E402

from pyldfusion.errors import ArtefactError, DependencyError  # noqa: E402
from trainer.config import ClipConfig, ConfigError, VggConfig  # noqa: E402
from trainer.towers.clip import load_clip  # noqa: E402
from trainer.towers.vgg import load_vgg  # noqa: E402

from .small_towers import (  # noqa: E402
    EXPECTED_WARNINGS,
    SENTENCES,
    TEXT,
    close,
    configuration,
    need_open_clip,
    plainly,
    planes,
    random_model,
    trace,
    vit,
)

open_clip = need_open_clip()

pytestmark = EXPECTED_WARNINGS


def test_random_weights_are_seeded_and_leave_torchs_generator_alone(tiny_clip):
    def build(seed):
        before = torch.get_rng_state()
        with pytest.warns(UserWarning, match="CLIP HAS RANDOM WEIGHTS"):
            clip = load_clip(ClipConfig(str(tiny_clip), "none"), SENTENCES, "cpu", seed)
        with pytest.warns(UserWarning, match="VGG-19 HAS RANDOM WEIGHTS"):
            vgg = load_vgg(VggConfig("none"), "cpu", seed)
        assert torch.equal(torch.get_rng_state(), before)
        return [*clip.tower.state_dict().values(), clip.objective, *vgg.state_dict().values()]

    torch.manual_seed(1)
    first = build(7)
    torch.manual_seed(2)
    second, third = build(7), build(8)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[-2], third[-2]) and not torch.equal(first[0], third[0])


@pytest.mark.parametrize("kind", ["script.pt", "state.pt", "half.bin", "run.pt", "weights.safetensors"])
def test_files_of_every_kind_give_the_same_tower(tiny_clip, tmp_path, kind):
    model, _, normalisation = random_model(str(tiny_clip), seed=3)
    weights, file = model.state_dict(), tmp_path / kind
    x = planes(1, 1, 224, 224, dtype=torch.float32, grad=False)
    expected = plainly(model, x, **normalisation, size=(224, 224)).detach()
    if kind == "script.pt":  # as OpenAI's
        model.register_buffer("input_resolution", torch.tensor(224))
        trace(model, x, file)
    elif kind == "state.pt":
        torch.save({**weights, "input_resolution": 224, "context_length": 77, "vocab_size": 49408}, file)
    elif kind == "half.bin":
        torch.save({name: value.half() for name, value in weights.items()}, file)
    elif kind == "run.pt":  # a checkpoint of open_clip's own trainer, which runs on many GPUs
        state = {f"module.{name}": value for name, value in weights.items()}
        torch.save({"epoch": 3, "name": "mine", "state_dict": state, "optimizer": {"state": {}}}, file)
    else:
        save_file({name: value.contiguous() for name, value in weights.items()}, file)
    clip = load_clip(ClipConfig(str(tiny_clip), str(file), "fp32"), SENTENCES, "cpu", seed=9)
    assert close(clip.tower(x), expected, 2e-3 if kind == "half.bin" else 1e-5)


def test_quick_gelu_is_used_where_the_weights_need_it(tmp_path):
    model = configuration(tmp_path / "slow.json", vit())
    quick, _, normalisation = random_model(configuration(tmp_path / "quick.json", vit(), quick_gelu=True))
    x = planes(1, 1, 64, 64, dtype=torch.float32, grad=False)
    trace(quick, x, tmp_path / "openai.pt")
    with pytest.warns(UserWarning, match="QuickGELU is used"):
        clip = load_clip(ClipConfig(model, str(tmp_path / "openai.pt"), "fp32"), SENTENCES, "cpu")
    assert close(clip.tower(x), plainly(quick, x, **normalisation, size=(64, 64)), 1e-5)


def test_a_configuration_as_hubs_have_it_brings_its_own_mean_and_std(tmp_path):
    model = {"embed_dim": 48, "vision_cfg": vit(), "text_cfg": TEXT}
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic"}
    file = tmp_path / "open_clip_config.json"
    file.write_text(json.dumps({"model_cfg": model, "preprocess_cfg": preprocess}))
    assert random_model(str(file))[2] == {"mean": (0.5,) * 3, "std": (0.25,) * 3}


@pytest.mark.parametrize(
    ("model", "tag", "mean"),
    [
        ("ViT-B-32-quickgelu", "openai", 0.48145466),
        ("ViT-B-32-quickgelu", "", 0.48145466),
        ("ViT-B-16-SigLIP", "webli", 0.5),
        ("ViT-B-16-SigLIP", "", 0.5),  # a local file of a model of which all tags say the same
        ("ViT-L-14", "laion2b_s32b_b82k", 0.5),
        ("ViT-L-14", "", 0.48145466),  # tags differ: OpenAI's
        ("ViT-S-16", "", 0.48145466),  # no tags
    ],
)
def test_every_models_own_mean_is_used(model, tag, mean):
    from trainer.towers.open_clip_model import _normalisation

    found = _normalisation(open_clip, model, tag, {})
    assert set(found) == {"mean", "std"} and found["mean"][0] == mean


@pytest.mark.parametrize(
    ("clip", "error", "message"),
    [
        (ClipConfig("ViT-B-23-quickgelu"), ConfigError, "did you mean 'ViT-B-32-quickgelu'"),
        (ClipConfig("missing.json"), ConfigError, r"clip\.model: missing\.json cannot be read"),
        (ClipConfig(pretrained="opnai"), ConfigError, "neither a file nor a tag.*did you mean 'openai'"),
        (
            ClipConfig(pretrained="/nowhere/ViT-B-32.pt"),
            ArtefactError,
            r"no such file: /nowhere/ViT-B-32\.pt.*download https://.*--set clip\.pretrained=/path/to/",
        ),
        (ClipConfig("RN50", "rn50.safetensors"), ArtefactError, r"no such file: rn50\.safetensors.*RN50, openai"),
    ],
)
def test_wrong_names_are_errors_that_know_better(clip, error, message):
    with pytest.raises(error, match=message):
        load_clip(clip, SENTENCES, "cpu")


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"model_cfg": 3}', '{"embed_dim": 4, "vision_cfg": [], "text_cfg": {}}']
)
def test_a_wrong_model_configuration_is_named(tmp_path, content):
    file = tmp_path / "model.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"clip\.model: .*model\.json"):
        load_clip(ClipConfig(str(file), "none"), SENTENCES, "cpu")
    configuration(file, vit(nonsense=3))
    with pytest.raises(ConfigError, match="nonsense"):
        load_clip(ClipConfig(str(file), "none"), SENTENCES, "cpu")


class Trap:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch sprung",)


def test_wrong_and_damaged_files_are_errors_and_run_nothing(tiny_clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, _, _ = random_model(str(tiny_clip))
    torch.save(model.state_dict(), "good.pt")
    save_file(model.state_dict(), "good.safetensors")
    for name in ("good.pt", "good.safetensors"):
        data = Path(name).read_bytes()
        Path(name.replace("good", "cut")).write_bytes(data[: len(data) // 2])
    Path("empty.bin").touch()
    Path("page.pt").write_text("<html>404</html>")
    torch.save({"state_dict": model.state_dict(), "trap": Trap()}, "trap.pt")
    torch.save(torch.zeros(3), "tensor.pt")
    torch.save({"lr": 0.1}, "options.pt")
    torch.save({"vision_model.embeddings.class_embedding": torch.zeros(4)}, "transformers.bin")
    torch.save({**model.state_dict(), "visual.proj": torch.zeros(3, 3)}, "shape.pt")
    torch.save({"features.0.weight": torch.zeros(3, 3)}, "other.pt")
    for name, message in (
        ("cut.pt", "damaged or no file of weights"),
        ("cut.safetensors", "damaged or no file of weights"),
        ("empty.bin", r"\(0 bytes\) is damaged"),
        ("page.pt", "damaged or no file of weights"),
        ("trap.pt", "asks for (posix|nt).system when it is unpickled, which could run code"),
        ("tensor.pt", "holds a Tensor; expected a state dict"),
        ("options.pt", "'lr' is no tensor"),
        ("transformers.bin", "a file of the transformers package"),
        ("shape.pt", "another model than .*proj"),
        ("other.pt", "another model than"),
    ):
        with pytest.raises(ArtefactError, match=message) as caught:
            load_clip(ClipConfig(str(tiny_clip), name), SENTENCES, "cpu")
        assert name in str(caught.value) and "--set clip.pretrained=" in str(caught.value)
    assert not Path("sprung").exists()


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """No network and empty caches, wherever the test runs."""
    from huggingface_hub import constants

    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies it was made with, for everybody
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def test_without_a_network_the_error_says_which_file_to_put_where(offline, capfd):
    with pytest.raises(ArtefactError, match=r"could not be downloaded") as caught:
        load_clip(ClipConfig(), SENTENCES, "cpu")
    message, entry = str(caught.value), open_clip.get_pretrained_cfg("ViT-B-32-quickgelu", "openai")
    for source in (entry.get("url"), entry.get("hf_hub")):
        assert not source or source.strip("/") in message
    file = re.search(r"--set clip\.pretrained=/path/to/(\S+\.\w+)$", message)
    assert file and f"/{file[1]} " in message
    with pytest.raises(ArtefactError, match=r"could not be downloaded") as caught:
        load_vgg(VggConfig(), "cpu")
    assert "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth" in str(caught.value)
    assert str(offline / "torch") in str(caught.value)
    assert "--set vgg.weights=/path/to/vgg19-dcbb9e9d.pth" in str(caught.value)
    assert "Retrying" not in capfd.readouterr().err


def test_without_a_network_the_hubs_cache_is_used(offline):
    entry = open_clip.get_pretrained_cfg("ViT-B-32-quickgelu", "openai")
    if not entry.get("hf_hub"):
        pytest.skip("this open_clip does not look for these weights on a hub")
    folder = offline / "hub" / ("models--" + entry["hf_hub"].strip("/").replace("/", "--"))
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (folder / "snapshots" / ("0" * 40) / "open_clip_model.safetensors").touch()
    with pytest.raises(ArtefactError, match=r"snapshots.*open_clip_model\.safetensors \(0 bytes\) is damaged"):
        load_clip(ClipConfig(), SENTENCES, "cpu")


def test_a_tokenizer_that_is_not_here_is_named():
    with pytest.raises((DependencyError, ArtefactError), match=r"tokenizer of clip\.model=ViT-B-16-SigLIP"):
        try:
            import transformers  # noqa: F401
        except ImportError:
            load_clip(ClipConfig("ViT-B-16-SigLIP", "none"), SENTENCES, "cpu")
        pytest.skip("transformers is installed")
