"""VGG-19 as the fidelity loss sees it, against torchvision's; its files."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

from pyldfusion.errors import ArtefactError, InputError  # noqa: E402
from trainer.config import VggConfig  # noqa: E402
from trainer.towers.pretrained import read_weights  # noqa: E402
from trainer.towers.vgg import FidelityTower, load_vgg  # noqa: E402

from .small_towers import (  # noqa: E402
    EXPECTED_WARNINGS,
    close,
    need_open_clip,
    planes,
)

need_open_clip()

pytestmark = EXPECTED_WARNINGS


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
