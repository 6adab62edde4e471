"""CLIP's image tower against the plain way of running the same architectures."""

from __future__ import annotations

import copy
import warnings

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from pyldfusion.errors import InputError  # noqa: E402
from trainer.config import ClipConfig, VggConfig  # noqa: E402
from trainer.pieces import kept_bytes  # noqa: E402
from trainer.towers.clip import ImageTower, load_clip  # noqa: E402
from trainer.towers.lean import QuickMlp, SelfAttention, lighten  # noqa: E402
from trainer.towers.vgg import load_vgg  # noqa: E402

from .small_towers import (  # noqa: E402
    EXPECTED_WARNINGS,
    RESNET,
    SENTENCES,
    TEXT,
    close,
    configuration,
    gradient,
    near,
    need_open_clip,
    plainly,
    planes,
    random_model,
    vit,
)

need_open_clip()

pytestmark = EXPECTED_WARNINGS


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


@pytest.mark.slow
def test_light_blocks_compile_to_the_same_function(tmp_path):
    visual = random_model(configuration(tmp_path / "m.json", vit(), quick_gelu=True))[0].visual.requires_grad_(False)
    for parameter in visual.parameters():  # biases are zero at first
        parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) / 9)
    lighten(visual)
    mlp = next(module for module in visual.modules() if isinstance(module, QuickMlp))
    x = planes(2, 17, 64, dtype=torch.float32, grad=False)
    torch.testing.assert_close(torch.compile(mlp)(x), mlp(x), rtol=1e-4, atol=1e-5)


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
        tower = load_clip(ClipConfig(model, "none", "fp32", checkpoint=checkpoint), SENTENCES, "cpu").tower
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
