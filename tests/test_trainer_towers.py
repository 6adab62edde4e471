"""CLIP and VGG as the losses see them: against the plain way of running the same architectures, and from every file."""

from __future__ import annotations

import copy
import gc
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
import torch.nn.functional as F  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

from pyldfusion.errors import ArtefactError, DependencyError, InputError  # noqa: E402
from trainer.config import ClipConfig, ConfigError, PromptConfig, VggConfig  # noqa: E402
from trainer.pieces import kept_bytes  # noqa: E402
from trainer.towers.clip import ImageTower, load_clip  # noqa: E402
from trainer.towers.lean import QuickMlp, SelfAttention, lighten  # noqa: E402
from trainer.towers.open_clip_model import load_open_clip  # noqa: E402
from trainer.towers.pretrained import read_weights  # noqa: E402
from trainer.towers.prompts import read_content  # noqa: E402
from trainer.towers.torchvision_import import import_torchvision  # noqa: E402
from trainer.towers.vgg import FidelityTower, load_vgg  # noqa: E402

from .conftest import ROOT  # noqa: E402

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
        import_torchvision()
    except DependencyError as error:
        pytest.skip(str(error), allow_module_level=True)
open_clip = pytest.importorskip("open_clip")

pytestmark = [
    pytest.mark.filterwarnings("ignore:(CLIP|VGG-19) HAS RANDOM WEIGHTS"),
    pytest.mark.filterwarnings("ignore:.* is emulated by this CPU"),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),  # OpenAI's files are TorchScript
]
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
SENTENCES = PromptConfig(objective=("a clear image", "salient objects"), infrared=("an infrared image",))


def configuration(path: Path, vision: dict, **more) -> str:
    path.write_text(json.dumps({"embed_dim": 48, "vision_cfg": vision, "text_cfg": TEXT} | more))
    return str(path)


def vit(**changes) -> dict:
    return {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16, **changes}


RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}


def planes(*shape, seed=0, dtype=torch.float64, grad=True):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.to(dtype).requires_grad_(grad)


def random_model(model: str, seed=0):
    return load_open_clip(ClipConfig(model, "none", "fp32"), seed)


def plainly(model, x, mean, std, size):
    """Repeated, resized and normalised one after the other, through the model's own ``encode_image``."""
    x = F.interpolate(x.repeat(1, 3, 1, 1), size, mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(values, dtype=x.dtype).view(3, 1, 1) for values in (mean, std))
    return model.encode_image((x - mean) / std, normalize=False)


def trace(model, x, file):
    """A TorchScript archive."""
    calls = {"encode_image": x.repeat(1, 3, 1, 1), "encode_text": torch.zeros(1, 77, dtype=torch.int64)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace_module(model, calls, check_trace=False), file)


def gradient(output, x, seed=1):
    weight = torch.rand(output.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.autograd.grad((output * weight.to(output.dtype)).sum(), x, retain_graph=True)[0]


def close(a, b, relative):
    return (a.double() - b.double()).norm() <= relative * b.double().norm()


def near(a, b):
    return F.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.97


# the image tower


@pytest.fixture(scope="module")
def large():
    """The default model, ViT-B/32 with QuickGELU, at random weights; built once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return random_model("ViT-B-32-quickgelu")


def test_vit_b_32_equals_open_clips_own_path(large):
    model, _, normalisation = large
    x = planes(1, 1, 150, 224, dtype=torch.float32)
    tower = ImageTower(copy.deepcopy(model.visual), **normalisation)
    assert (tower.size, tower.dim, tower.folded) == (224, 512, True)
    expected, found = plainly(model, x, **normalisation, size=(224, 224)), tower(x)
    assert found.dtype == torch.float32 and close(found, expected, 1e-5)
    assert close(gradient(found, x), gradient(expected, x), 1e-4)


@pytest.mark.parametrize(
    ("vision", "folded"),
    [
        pytest.param(vit(), True, id="vit"),
        pytest.param(vit(image_size=[64, 96], patch_size=32), True, id="not-square"),
        pytest.param(RESNET, False, id="resnet"),
    ],
)
@pytest.mark.parametrize("height", [64, 51])
def test_values_and_gradients_in_float64_are_those_of_the_plain_way(tmp_path, vision, folded, height):
    model, _, normalisation = random_model(configuration(tmp_path / "m.json", vision, quick_gelu=True))
    normalisation["mean"] = (0.5, 0.4, 0.3)
    size = vision["image_size"] if isinstance(vision["image_size"], list) else [vision["image_size"]] * 2
    x = planes(3, 1, height, 64)
    tower = ImageTower(copy.deepcopy(model.visual), **normalisation).double()
    apart = ImageTower(copy.deepcopy(model.visual), **normalisation, fold=False).double()
    expected = plainly(model.double(), x, **normalisation, size=size)
    assert (tower.folded, apart.folded, tower.dim, tower.size) == (folded, False, 48, max(size))
    for found in (tower(x), apart(x)):
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient(found, x), gradient(expected, x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("quick", [True, False])
def test_light_blocks_are_the_same_function_and_keep_less(tmp_path, quick):
    vision = vit(ls_init_value=0.5)
    visual = random_model(configuration(tmp_path / "m.json", vision, quick_gelu=quick))[0].visual.double()
    visual.requires_grad_(False)
    for parameter in visual.parameters():  # biases are zero at first
        parameter.add_(
            torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64) / 9
        )
    plain, x = copy.deepcopy(visual), planes(3, 3, 64, 64)
    assert lighten(visual) == (4 if quick else 2) and lighten(visual) == 0
    kinds = [type(module) for module in visual.modules()]
    assert (kinds.count(SelfAttention), kinds.count(QuickMlp)) == (2, 2 if quick else 0)
    torch.testing.assert_close(visual(x), plain(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient(visual(x), x), gradient(plain(x), x), rtol=1e-11, atol=1e-12)
    assert set(visual.state_dict()) == set(plain.state_dict())
    light, heavy = kept_bytes(visual, x), kept_bytes(plain, x)
    assert light < 0.85 * heavy if quick else light <= heavy


def test_attention_of_another_kind_is_left_alone():
    for options in ({"batch_first": False}, {"add_bias_kv": True}, {"add_zero_attn": True}, {"dropout": 0.1}):
        assert not SelfAttention.replaces(nn.MultiheadAttention(8, 2, **({"batch_first": True} | options)))
    assert not SelfAttention.replaces(nn.MultiheadAttention(8, 2, batch_first=True, kdim=4, vdim=4))
    assert not SelfAttention.replaces(nn.Identity())


def test_timms_towers_are_folded_too(tmp_path):
    pytest.importorskip("timm")
    vision = {"image_size": 224, "timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token"}
    model, _, normalisation = random_model(configuration(tmp_path / "m.json", vision))
    x = planes(1, 1, 224, 224, grad=False)
    expected = plainly(model.double(), x, **normalisation, size=(224, 224))
    tower = ImageTower(model.visual, **normalisation)
    assert (tower.folded, tower.dim, tower.size) == (True, 48, 224)
    torch.testing.assert_close(tower(x), expected, rtol=1e-12, atol=1e-12)


def test_coca_gives_its_embedding_without_the_tokens(tmp_path):
    vision = vit(attentional_pool=True, attn_pooler_heads=4, output_tokens=True)
    text = {**TEXT, "embed_cls": True, "output_tokens": True, "context_length": 76}
    multimodal = {"context_length": 76, "vocab_size": 49408, "width": 48, "heads": 2, "layers": 1}
    file = configuration(tmp_path / "coca.json", vision, custom_text=True, multimodal_cfg=multimodal, text_cfg=text)
    model, tokenizer, normalisation = random_model(file)
    x = planes(2, 1, 64, 64, dtype=torch.float32)
    found = load_clip(ClipConfig(file, "none", "fp32"), SENTENCES, "cpu")
    with torch.no_grad():
        raw = model.encode_text(tokenizer(list(SENTENCES.objective)), normalize=False).mean(0, keepdim=True)
    torch.testing.assert_close(found.objective, F.normalize(raw))
    assert close(found.tower(x), plainly(model, x, **normalisation, size=(64, 64)), 1e-5)


def test_only_planes_get_a_gradient_and_float64_planes_are_taken(tiny_clip):
    tower = load_clip(ClipConfig(str(tiny_clip), "none", "fp32"), SENTENCES, "cpu").tower
    x = planes(2, 1, 224, 224)
    found = tower(x)
    found.sum().backward()
    assert found.dtype == torch.float32 and x.grad.abs().sum() > 0
    assert not any(p.requires_grad or p.grad is not None for p in tower.parameters())
    assert not any(module.training for module in tower.modules())
    assert tower(x[:0]).shape == (0, tower.dim)


def test_planes_of_another_shape_are_refused(tiny_clip):
    tower = load_clip(ClipConfig(str(tiny_clip), "none", "fp32"), SENTENCES, "cpu").tower
    for shape in ((2, 3, 224, 224), (224, 224)):
        with pytest.raises(InputError, match=r"expected \[M,1,H,W\]"):
            tower(torch.zeros(shape))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("vision", [vit(), RESNET], ids=["vit", "resnet"])
def test_lower_precision_is_near_and_comes_back_as_float32(tmp_path, vision, precision):
    model, _, normalisation = random_model(configuration(tmp_path / "m.json", vision))
    for name, parameter in model.visual.named_parameters():
        if name.endswith("bn3.weight"):  # zero at first, which hides all that comes before
            nn.init.ones_(parameter)
    x = planes(3, 1, 64, 64, dtype=torch.float32)
    lower = ImageTower(copy.deepcopy(model.visual), **normalisation, precision=precision)
    exact = ImageTower(model.visual, **normalisation)(x)
    found = lower(x)
    assert found.dtype == torch.float32 and not torch.equal(found, exact)
    assert close(found, exact, 0.03) and near(gradient(found, x), gradient(exact, x))
    assert torch.isfinite(gradient(found, x)).all()


def test_the_loops_autocast_does_not_reach_into_a_tower(tiny_clip):
    x = planes(1, 1, 224, 224, dtype=torch.float32, grad=False)
    tower = load_clip(ClipConfig(str(tiny_clip), "none", "fp32"), SENTENCES, "cpu").tower
    vgg = load_vgg(VggConfig("none", "fp32"), "cpu")
    with torch.autocast("cpu", torch.bfloat16):
        found, features = tower(x), vgg(x[..., :32, :32])
    assert torch.equal(found, tower(x))
    assert all(torch.equal(a, b) for a, b in zip(features, vgg(x[..., :32, :32]), strict=True))


def test_checkpointing_keeps_less_and_changes_nothing(tmp_path):
    model = configuration(tmp_path / "m.json", vit(layers=4))
    x = planes(2, 1, 64, 64, dtype=torch.float32)
    gradients, kept = [], []
    for checkpoint in (False, True):
        tower = load_clip(ClipConfig(model, "none", "fp32", checkpoint), SENTENCES, "cpu").tower
        sizes = []

        def pack(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            found = tower(x)
        kept.append(sum(sizes))
        found.square().sum().backward()
        gradients.append(x.grad)
        x.grad = None
    torch.testing.assert_close(*gradients)
    assert kept[1] < kept[0] / 3


def test_a_model_that_cannot_be_recomputed_says_so(tmp_path):
    model = configuration(tmp_path / "m.json", RESNET)
    with pytest.warns(UserWarning, match=r"clip\.checkpoint has no effect"):
        load_clip(ClipConfig(model, "none", "fp32", checkpoint=True), SENTENCES, "cpu")


# sentences


def test_a_list_is_averaged_before_it_is_normalised(tiny_clip):
    clip = load_clip(ClipConfig(str(tiny_clip), "none"), SENTENCES, "cpu")
    model, tokenizer, _ = random_model(str(tiny_clip))
    with torch.no_grad():
        raw = [model.encode_text(tokenizer([text]))[0] for text in SENTENCES.objective]
        infrared = model.encode_text(tokenizer(list(SENTENCES.infrared)))[0]
    mean = (raw[0] + raw[1]) / 2
    torch.testing.assert_close(clip.objective, (mean / mean.norm())[None])
    torch.testing.assert_close(clip.infrared, (infrared / infrared.norm())[None])
    for embedding in (clip.objective, clip.infrared, clip.visible):
        assert embedding.shape == (1, clip.tower.dim) and not embedding.requires_grad
        assert embedding.norm().item() == pytest.approx(1, abs=1e-6)


def test_the_text_tower_is_freed(tiny_clip):
    def embeddings_alive():
        gc.collect()
        return sum(type(thing) is nn.Embedding and thing.num_embeddings == 49408 for thing in gc.get_objects())

    before = embeddings_alive()
    clip = load_clip(ClipConfig(str(tiny_clip), "none"), SENTENCES, "cpu")
    assert embeddings_alive() == before
    model, _, _ = random_model(str(tiny_clip))
    assert sum(p.numel() for p in clip.tower.parameters()) == sum(p.numel() for p in model.visual.parameters())


@pytest.mark.parametrize("form", ["csv", "list", "text"])
def test_pictures_may_have_objectives_of_their_own(tiny_clip, tmp_path, form):
    texts = {"road/00 1": ["a car, at night"], "b": ["people", "a fire"]}
    if form == "csv":
        file = tmp_path / "content.csv"
        rows = ["\ufefftext,name", '"a car, at night",road/00 1.png', "people,b", "a fire,b"]
        file.write_text("\n".join(rows), encoding="utf-8")
    else:
        file = tmp_path / "content.json"
        given = texts if form == "list" else {"road/00 1": "a car, at night", "b.jpg": texts["b"]}
        file.write_text(json.dumps(given))
    assert read_content(file) == texts
    clip = load_clip(ClipConfig(str(tiny_clip), "none"), PromptConfig(content=str(file)), "cpu")
    alone = load_clip(ClipConfig(str(tiny_clip), "none"), PromptConfig(objective=tuple(texts["b"])), "cpu")
    assert set(clip.content) == set(texts)
    torch.testing.assert_close(clip.content["b"], alone.objective)
    assert not torch.allclose(clip.content["road/00 1"], clip.content["b"], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", "file,text\na,b\n", r"c\.csv, line 1: columns are file, text; expected name,text"),
        ("c.csv", "", r"c\.csv, line 1: columns are none"),
        ("c.csv", "name,text\n", r"holds no prompts"),
        ("c.csv", "name,text\na,a car\nb\n", r"c\.csv, line 3: text is None; expected words"),
        ("c.csv", "name,text\na,a car, at night\n", r"c\.csv, line 2: more values than columns.*double quotes"),
        ("c.csv", 'name,text\na,"a car\n', r"c\.csv, line 2"),
        ("c.csv", "name,text\n ,a car\n", r"c\.csv, line 2: name is ' '"),
        ("c.json", '{"a": "x",\n "b": }', r"c\.json, line 2: "),
        ("c.json", '["a"]', r"c\.json holds a list; expected"),
        ("c.json", '{"a": 3}', r"c\.json, entry 'a': text is 3"),
        ("c.json", '{"a": []}', r"c\.json, entry 'a': text is \[\]"),
        (None, "", r"cannot be read"),
    ],
)
def test_files_of_prompts_that_are_wrong_are_named_with_the_line(tmp_path, name, content, message):
    file = tmp_path / (name or "missing.csv")
    if name:
        file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_content(file)


@pytest.mark.parametrize("prompts", [PromptConfig(visible=()), PromptConfig(objective=("a clear image", " "))])
def test_empty_prompts_are_refused(tiny_clip, prompts):
    with pytest.raises(ConfigError, match=r"prompts\.(visible|objective) is .*expected a sentence"):
        load_clip(ClipConfig(str(tiny_clip), "none"), prompts, "cpu")


def test_a_prompt_that_does_not_fit_is_reported(tiny_clip):
    with pytest.warns(UserWarning, match="has 90 tokens, CLIP reads the first 75"):
        load_clip(ClipConfig(str(tiny_clip), "none"), PromptConfig(objective=("dog " * 90,)), "cpu")


# weights


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


# VGG


@pytest.fixture(scope="module")
def features():
    """The first ten convolutions of torchvision's ``vgg19().features`` at seeded He weights."""
    from torchvision.models.vgg import cfgs, make_layers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        layers = make_layers(cfgs["E"][:13])
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.uniform_(layer.bias, -0.1, 0.1)
    return layers.eval()


def save_vgg(features, file: Path) -> str:
    """As torchvision's file has it, with some of what comes after."""
    weights = {f"features.{name}": value for name, value in features.state_dict().items()}
    weights["classifier.6.bias"] = torch.zeros(1000)
    save_file(weights, file) if file.suffix == ".safetensors" else torch.save(weights, file)
    return str(file)


@pytest.mark.parametrize(("shape", "suffix"), [((2, 1, 37, 45), ".pth"), ((1, 1, 8, 8), ".safetensors")])
def test_vgg_equals_torchvisions_features(features, tmp_path, shape, suffix):
    x = planes(*shape)
    tower = load_vgg(VggConfig(save_vgg(features, tmp_path / f"vgg19{suffix}"), "fp32"), "cpu").double()
    kept = []
    plain = copy.deepcopy(features).double()
    convolutions = [index for index, layer in enumerate(plain) if isinstance(layer, nn.Conv2d)]
    for number in (3, 5, 10):  # after the ReLU, which in torchvision works in place
        plain[convolutions[number - 1] + 1].register_forward_hook(lambda _, __, output: kept.append(output.clone()))
    plain(x.repeat(1, 3, 1, 1))
    found = tower(x)
    assert [feature.shape[1] for feature in found] == [128, 256, 512]
    for a, b in zip(found, kept, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        assert a.dtype == torch.float64 and a.min() >= 0
    loss = [sum((feature**2).mean() for feature in each) for each in (found, kept)]
    torch.testing.assert_close(*(torch.autograd.grad(each, x)[0] for each in loss), rtol=1e-10, atol=1e-12)


def test_vgg_is_frozen_small_and_near_in_lower_precision(features):
    x = planes(2, 1, 32, 40, dtype=torch.float32)
    exact = FidelityTower(copy.deepcopy(features))
    found = FidelityTower(copy.deepcopy(features), "bf16")
    for a, b in zip(found(x), exact(x), strict=True):
        assert a.dtype == torch.float32 and not torch.equal(a, b) and close(a, b, 0.02)
    assert not any(p.requires_grad for p in exact.parameters())
    assert sum(p.numel() for p in load_vgg(VggConfig("none"), "cpu").parameters()) == sum(
        p.numel() for p in features.parameters()
    )
    for shape in ((1, 3, 32, 32), (1, 1, 7, 32), (32, 32)):
        with pytest.raises(InputError, match=r"expected \[N,1,H,W\] with sides of at least 8"):
            exact(torch.zeros(shape))


def test_wrong_vgg_files_are_errors(features, tmp_path):
    from torchvision.models.vgg import cfgs, make_layers

    norm = make_layers(cfgs["E"][:2], batch_norm=True)
    sixteen = make_layers(cfgs["D"][:13])
    for name, layers, message in (
        ("bn", norm, "vgg19_bn.*expected plain VGG-19"),
        ("vgg16", sixteen, "not hold VGG-19"),
    ):
        with pytest.raises(ArtefactError, match=message) as caught:
            load_vgg(VggConfig(save_vgg(layers, tmp_path / f"{name}.pth")), "cpu")
        assert f"{name}.pth" in str(caught.value) and "vgg19-dcbb9e9d.pth" in str(caught.value)
    with pytest.raises(ArtefactError, match=r"no such file of weights.*vgg19-dcbb9e9d\.pth"):
        load_vgg(VggConfig(str(tmp_path / "missing.pth")), "cpu")


def test_read_weights_gives_tensors_by_name(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "w.pt")
    weights, script = read_weights(tmp_path / "w.pt")
    assert list(weights) == ["a"] and not script


# torchvision


def run(script: str, *paths: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT]))}
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)


COUNT = """
import sys, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from trainer.towers.torchvision_import import import_torchvision
    module = import_torchvision()
    assert import_torchvision() is module
ours = [str(w.message) for w in caught if "was not built for this torch" in str(w.message)]
print(len(ours), module.__version__, "torchvision._meta_registrations" in sys.modules)
"""


def stub(folder: Path, first: str = "", operators: str = "") -> Path:
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(f'__version__ = "9.9"\n{first}\n')
    (package / "_meta_registrations.py").write_text(operators)
    return folder


def test_the_real_torchvision_is_importable_even_after_open_clip_failed_on_it():
    script = (
        "try:\n    import open_clip\nexcept RuntimeError as error:\n    print(error)\n"
        + COUNT
        + "import open_clip\nfrom torchvision.models.vgg import make_layers\nprint(len(make_layers([8, 'M'])))\n"
    )
    finished = run(script)
    assert finished.returncode == 0, finished.stderr
    *broken, counted, layers = finished.stdout.splitlines()
    assert counted.startswith("1 " if broken else "0 ") and layers == "3"


def test_a_torchvision_that_imports_is_left_alone(tmp_path):
    finished = run(COUNT, stub(tmp_path))
    assert finished.stdout.split() == ["0", "9.9", "False"], finished.stderr


def test_operators_that_do_not_fit_are_left_out_with_one_warning(tmp_path):
    fails = 'raise RuntimeError("operator torchvision::nms does not exist")'
    finished = run(COUNT, stub(tmp_path, "from . import _meta_registrations", fails))
    assert finished.stdout.split() == ["1", "9.9", "True"], finished.stderr


@pytest.mark.parametrize(
    "fails",
    [
        'raise ImportError("libjpeg.so.8: cannot open shared object file")',
        'raise RuntimeError("PyTorch and torchvision were compiled with different CUDA major versions")',
        'raise RuntimeError("operator torchvision::nms does not exist")',  # and without it, too
        "raise OSError(1)",
    ],
)
def test_other_failures_name_the_extra(tmp_path, fails):
    finished = run(COUNT, stub(tmp_path, fails))
    assert finished.returncode == 1
    last = finished.stderr.strip().splitlines()[-1]
    assert "DependencyError" in last and "pip install 'pyldfusion[train]'" in last


def test_no_torchvision_at_all_names_the_extra():
    finished = run("import sys; sys.modules['torchvision'] = None\n" + COUNT)
    assert "DependencyError" in finished.stderr and "pip install 'pyldfusion[train]'" in finished.stderr
