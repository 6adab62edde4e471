"""The whole loss against a plain float64 reference written from the equations, and what each part of it answers to."""

from __future__ import annotations

import copy
import json
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402

from pyldfusion.errors import DependencyError, InputError  # noqa: E402
from pyldfusion.generator import Generator  # noqa: E402
from trainer.config import ClipConfig, Config, ConfigError, LossConfig, PatchConfig, PromptConfig, RunConfig  # noqa: E402
from trainer.language import LanguageDriven  # noqa: E402
from trainer.objective import Batch  # noqa: E402
from trainer.patches import draw_patches  # noqa: E402
from trainer.start.initialise import initialise_scaled  # noqa: E402
from trainer.towers.clip import Clip, ImageTower  # noqa: E402
from trainer.towers.open_clip_model import load_open_clip  # noqa: E402
from trainer.towers.torchvision_import import import_torchvision  # noqa: E402
from trainer.towers.vgg import FidelityTower  # noqa: E402

SIZE = 32
SENTENCES = {
    "objective": "a clear image with detailed background and salient objects",
    "infrared": "an infrared image",
    "visible": "a visible gray image",
    "scene/b": "a car at night",
    "c": "people in a park",
}
#: sigma lies among the patches' entropies, so that some count and some do not
PATCHES = PatchConfig(count=5, side=(15, 28), one_side=False, entropy=6.6)
CONFIG = Config(run=RunConfig(seed=3), patches=PATCHES, loss=LossConfig(0.2, 0.8, 0.5, 1.0))


@dataclass
class Judges:
    """Real architectures at random weights, as they come (``model``, ``layers``) and as the trainer has them."""

    model: torch.nn.Module
    normalisation: dict
    layers: torch.nn.Sequential
    texts: dict[str, torch.Tensor]
    clip: Clip
    vgg: FidelityTower


def vgg_layers(width):
    """VGG-19 up to conv4_2 as torchvision builds it, at seeded random weights."""
    from torchvision.models.vgg import cfgs, make_layers

    torch.manual_seed(0)
    layers = make_layers([entry if entry == "M" else int(entry * width) for entry in cfgs["E"][:13]])
    for layer in layers:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return layers.requires_grad_(False).double()


@pytest.fixture(scope="module")
def judges(tmp_path_factory):
    """A CLIP of open_clip with a ViT of two layers, the first ten convolutions of a VGG-19 of 1/8 width; float64."""
    try:
        import_torchvision()
    except DependencyError as error:
        pytest.skip(str(error))
    pytest.importorskip("open_clip")
    vision = {"image_size": SIZE, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
    path = tmp_path_factory.mktemp("clip") / "small.json"
    path.write_text(json.dumps({"embed_dim": 32, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}))
    layers = vgg_layers(width=1 / 8)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of random weights
            model, tokenizer, normalisation = load_open_clip(ClipConfig(str(path), pretrained="none"), seed=0)
        model = model.double()
        with torch.no_grad():
            texts = {name: F.normalize(model.encode_text(tokenizer([text]))) for name, text in SENTENCES.items()}
        tower = ImageTower(copy.deepcopy(model.visual), **normalisation)
        vgg = FidelityTower(copy.deepcopy(layers))
    finally:
        torch.set_default_dtype(usual)
    clip = Clip(tower, texts["objective"], texts["infrared"], texts["visible"], {})
    return Judges(model.eval().requires_grad_(False), normalisation, layers, texts, clip, vgg)


class Pixels(torch.nn.Module):
    """A network whose output is what is learned: gradients with respect to G's output are those of its planes."""

    def __init__(self, planes):
        super().__init__()
        self.planes = torch.nn.Parameter(planes)
        self.calls = 0

    def forward(self, ir, vis):
        self.calls += 1
        return self.planes * 1


def smooth(random, *shape, grain=3):
    """Blurred noise in [0, 1] with every grey level."""
    noise = torch.from_numpy(random.standard_normal((*shape[:-2], shape[-2] // grain + 2, shape[-1] // grain + 2)))
    planes = F.interpolate(noise, shape[-2:], mode="bicubic")
    return (planes / 4 + 0.5).clamp(0, 1)


def batch_of(height=37, width=44, count=3, seed=0, step=4):
    """Pairs of which the second's infrared is half flat; the network sees them with noise."""
    random = np.random.default_rng(seed)
    ir, vis = smooth(random, count, 1, height, width), smooth(random, count, 1, height, width)
    ir[1 % count, :, :, : width // 2] = 0.4
    noise = 0.03 * torch.from_numpy(random.standard_normal((2, *ir.shape)))
    names = tuple(f"scene/{letter}" for letter in "abcdefgh"[:count])
    return Batch(step, ir + noise[0], vis + noise[1], ir, vis, names)


def fused_of(batch, seed=9):
    return 0.5 * smooth(np.random.default_rng(seed), *batch.ir.shape) + 0.25 * (batch.clean_ir + batch.clean_vis)


# the reference: Eqs. 3, 7, 13, 16 and 17, one picture and one crop at a time


def embedding(judges, plane):
    """v(x): unit-length embedding of one plane [H,W]."""
    picture = plane[None, None].repeat(1, 3, 1, 1)
    if plane.shape != (SIZE, SIZE):
        picture = F.interpolate(picture, (SIZE, SIZE), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(judges.normalisation[name], dtype=torch.float64) for name in ("mean", "std"))
    embedded = judges.model.visual((picture - mean[:, None, None]) / std[:, None, None])[0]
    return embedded / embedded.square().sum().sqrt()


def cosine(a, b):
    return (a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()


def direction(fused, ir, vis, objective, text_ir, text_vis):
    return 1 - (cosine(fused - vis, objective - text_vis) + cosine(fused - ir, objective - text_ir)) / 2


def patch_by_hand(plane, box, inverse):
    """One crop, bent and resized to SIZE: four neighbours within the crop, weighted; 0 outside of it."""
    left, top, side = (int(number) for number in box)
    crop = plane[top : top + side, left : left + side]
    steps = (np.arange(SIZE) + 0.5) / SIZE * side - side / 2
    x, y = np.meshgrid(steps, steps)
    x, y = (row[0] * x + row[1] * y + row[2] for row in inverse)
    inside = torch.from_numpy((np.abs(x) <= side / 2) & (np.abs(y) <= side / 2))
    x, y = (np.clip(axis + (side - 1) / 2, 0, side - 1) for axis in (x, y))
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    x1, y1 = np.minimum(x0 + 1, side - 1), np.minimum(y0 + 1, side - 1)
    right, below = torch.from_numpy(x - x0), torch.from_numpy(y - y0)
    upper = crop[y0, x0] * (1 - right) + crop[y0, x1] * right
    lower = crop[y1, x0] * (1 - right) + crop[y1, x1] * right
    return (upper * (1 - below) + lower * below) * inside


def entropy(patch):
    counts, _ = np.histogram(patch.detach().numpy(), bins=256, range=(0, 1))
    p = counts[counts > 0] / counts.sum()
    return -(p * np.log2(p)).sum()


def features(judges, plane):
    x, found, number = plane[None, None].repeat(1, 3, 1, 1), [], 0
    for layer in judges.layers:
        if isinstance(layer, torch.nn.Conv2d):
            x = F.relu(F.conv2d(x, layer.weight, layer.bias, padding=1))
            number += 1
            if number in (3, 5, 10):
                found.append(x[0])
        elif isinstance(layer, torch.nn.MaxPool2d):
            x = F.max_pool2d(x, 2)
    return found


def reference(judges, config, fused, batch, objectives=None):
    """The parts of the loss with their weights, and the share of patches kept."""
    texts = judges.texts
    patches = draw_patches(config.patches, *fused.shape[-2:], seed=config.run.seed, step=batch.step)
    whole, patch, phi, fidelity, kept = [], [], [], [], []
    for n, (f, i, v) in enumerate(zip(fused[:, 0], batch.clean_ir[:, 0], batch.clean_vis[:, 0], strict=True)):
        prompts = (texts[objectives[n]] if objectives else texts["objective"], texts["infrared"], texts["visible"])
        sources = embedding(judges, i), embedding(judges, v)
        seen = embedding(judges, f)
        whole.append(direction(seen, *sources, *(text[0] for text in prompts)))
        phi.append((1 - cosine(seen, sources[1])).abs() + (1 - cosine(seen, sources[0])).abs())
        for box, inverse in zip(patches.boxes, patches.maps, strict=True):
            cut_ir, cut_vis, cut_fused = (patch_by_hand(plane, box, inverse) for plane in (i, v, f))
            counts = min(entropy(cut_ir), entropy(cut_vis)) > config.patches.entropy
            kept.append(float(counts))
            patch.append(
                direction(embedding(judges, cut_fused), *sources, *(text[0] for text in prompts)) * float(counts)
            )
        layers = zip(features(judges, f), features(judges, i), features(judges, v), strict=True)
        fidelity.append(sum(((a - torch.maximum(b, c)) ** 2).mean() for a, b, c in layers))
    weights = config.loss
    parts = {
        "whole": weights.whole * torch.stack(whole).mean(),
        "patches": weights.patches * torch.stack(patch).mean(),
        "regulariser": weights.regulariser * torch.stack(phi).mean(),
        "fidelity": weights.fidelity * torch.stack(fidelity).mean(),
    }
    return parts, np.mean(kept)


def gradients(parts, planes):
    """Of each part apart, so that none can hide another."""
    return {name: torch.autograd.grad(part, planes, retain_graph=True)[0] for name, part in parts.items()}


def close(got, expected, name=""):
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11, msg=lambda text: f"{name}: {text}")


@pytest.mark.parametrize("shape", [(37, 44), (SIZE, SIZE)])  # encoded apart, encoded together
@pytest.mark.parametrize("compact", ["auto", "no"])
@pytest.mark.parametrize(("at_once", "precision"), [(99, "fp32"), (2, "fp32"), (5, "fp16")])  # in pieces, judged late
def test_values_and_gradients_are_those_of_the_equations(judges, shape, compact, at_once, precision, monkeypatch):
    config = replace(CONFIG, patches=replace(PATCHES, compact=compact))
    batch = batch_of(*shape)
    pixels = Pixels(fused_of(batch))
    monkeypatch.setattr(judges.clip.tower, "precision", precision)  # of float32 planes: these stay in float64
    losses = LanguageDriven(config, replace(judges.clip, at_once=at_once), judges.vgg)(pixels, batch)
    planes = fused_of(batch).requires_grad_()
    expected, kept = reference(judges, config, planes, batch)
    assert 0.2 < kept < 0.8
    assert float(losses.shown["kept"]) == pytest.approx(kept, abs=1e-12)
    assert set(losses.parts) == set(expected)
    got_gradients, expected_gradients = gradients(losses.parts, pixels.planes), gradients(expected, planes)
    for name in expected:
        close(losses.parts[name], expected[name], name)
        largest = expected_gradients[name].abs().max()
        close(got_gradients[name] / largest, expected_gradients[name] / largest, f"gradient of {name}")
    assert pixels.calls == 1


def test_fidelity_through_the_real_width(judges):
    layers = vgg_layers(width=1)
    judges = replace(judges, layers=layers, vgg=FidelityTower(copy.deepcopy(layers)))
    batch = batch_of(24, 17, count=2)
    pixels = Pixels(fused_of(batch))
    part = LanguageDriven(replace(CONFIG, loss=LossConfig(0, 0, 0, 1)), None, judges.vgg)(pixels, batch).parts[
        "fidelity"
    ]
    planes = fused_of(batch).requires_grad_()
    expected = reference(judges, CONFIG, planes, batch)[0]["fidelity"]
    close(part, expected)
    close(torch.autograd.grad(part, pixels.planes)[0], torch.autograd.grad(expected, planes)[0])


def test_pictures_take_sentences_of_their_own(judges):
    batch = batch_of()
    content = {"scene/b": judges.texts["scene/b"], "c": judges.texts["c"], "scene/z": judges.texts["c"]}
    clip = replace(judges.clip, content=content)
    pixels = Pixels(fused_of(batch))
    for compact in ("yes", "no"):
        config = replace(CONFIG, patches=replace(PATCHES, compact=compact), loss=LossConfig(0.2, 0.8, 0.5, 0))
        losses = LanguageDriven(config, clip, None)(pixels, batch)
        expected, _ = reference(judges, config, fused_of(batch), batch, ["objective", "scene/b", "c"])
        for name in losses.parts:
            close(losses.parts[name], expected[name], name)
    with pytest.raises(InputError, match="0 names for 3 pictures"):
        LanguageDriven(config, clip, None)(pixels, replace(batch, names=()))


@pytest.mark.parametrize("compact", ["yes", "no"])
def test_sentences_of_pictures_may_stand_for_their_sources(judges, compact):
    """The paper's content prompts. Each picture alone, with that sentence as both source prompts, says what is due."""
    batch = batch_of()
    own = {"scene/b": judges.texts["scene/b"], "c": judges.texts["c"]}
    config = replace(
        CONFIG,
        patches=replace(PATCHES, compact=compact, entropy=-1.0),
        loss=LossConfig(0.2, 0.8, 0, 0),
        prompts=PromptConfig(content_for="sources"),
    )
    found = LanguageDriven(config, replace(judges.clip, content=own), None)(Pixels(fused_of(batch)), batch).parts
    expected = {"whole": 0.0, "patches": 0.0}
    for k, name in enumerate(batch.names):
        text = own.get(name, own.get(name.rpartition("/")[2]))
        clip = judges.clip if text is None else replace(judges.clip, infrared=text, visible=text)
        planes = (getattr(batch, field)[k : k + 1] for field in ("ir", "vis", "clean_ir", "clean_vis"))
        alone = Batch(batch.step, *planes, names=(name,))
        for part, value in LanguageDriven(config, clip, None)(Pixels(fused_of(batch)[k : k + 1]), alone).parts.items():
            expected[part] = expected[part] + value / len(batch.names)
    for part in expected:
        close(found[part], expected[part], part)
    objective = replace(config, prompts=PromptConfig())
    other = LanguageDriven(objective, replace(judges.clip, content=own), None)(Pixels(fused_of(batch)), batch).parts
    assert abs(float((other["whole"] - found["whole"]).detach())) > 1e-4


# parts, weights, towers


def test_weights_scale_parts_and_zero_leaves_them_out(judges):
    batch = batch_of()
    pixels = Pixels(fused_of(batch))
    all_parts = LanguageDriven(CONFIG, judges.clip, judges.vgg)(pixels, batch).parts
    double = replace(CONFIG, loss=LossConfig(0.4, 1.6, 1.0, 2.0))
    for name, part in LanguageDriven(double, judges.clip, judges.vgg)(pixels, batch).parts.items():
        close(part, 2 * all_parts[name], name)
    for name in ("whole", "patches", "regulariser", "fidelity"):
        without = replace(CONFIG, loss=replace(CONFIG.loss, **{name: 0.0}))
        parts = LanguageDriven(without, judges.clip, judges.vgg)(pixels, batch).parts
        assert set(parts) == set(all_parts) - {name}
        for other, part in parts.items():
            close(part, all_parts[other], other)
    no_patches = replace(CONFIG, patches=replace(PATCHES, count=0))
    losses = LanguageDriven(no_patches, judges.clip, judges.vgg)(pixels, batch)
    assert set(losses.parts) == set(all_parts) - {"patches"} and not losses.shown


def test_what_has_no_weight_is_not_computed(judges, monkeypatch):
    """Pictures that pass through the towers: 3 pairs, 5 crops, no filter."""
    seen = {"clip": 0, "vgg": 0}

    def count(name):
        return lambda module, arguments: seen.__setitem__(name, seen[name] + len(arguments[0]))

    hooks = [
        judges.clip.tower.register_forward_pre_hook(count("clip")),
        judges.vgg.register_forward_pre_hook(count("vgg")),
    ]
    batch = batch_of()
    every = replace(PATCHES, entropy=-1.0)
    for weights, clip, vgg in (
        (LossConfig(1, 1, 1, 1), 6 + 3 + 15, 9),
        (LossConfig(1, 0, 0, 0), 6 + 3, 0),
        (LossConfig(0, 0, 1, 0), 6 + 3, 0),
        (LossConfig(0, 1, 0, 0), 6 + 15, 0),
        (LossConfig(0, 0, 0, 1), 0, 9),
    ):
        seen.update(clip=0, vgg=0)
        towers = judges.clip if clip else None, judges.vgg if vgg else None
        LanguageDriven(replace(CONFIG, patches=every, loss=weights), *towers)(Pixels(fused_of(batch)), batch)
        assert seen == {"clip": clip, "vgg": vgg}, weights
    monkeypatch.setattr("trainer.language.patch_entropy", None)  # nor is the filter, where it keeps all
    losses = LanguageDriven(replace(CONFIG, patches=every), judges.clip, judges.vgg)(Pixels(fused_of(batch)), batch)
    assert float(losses.shown["kept"]) == 1
    for hook in hooks:
        hook.remove()


def test_missing_towers_are_named(judges):
    with pytest.raises(ConfigError, match="ask for CLIP"):
        LanguageDriven(CONFIG, None, judges.vgg)
    with pytest.raises(ConfigError, match="ask for VGG-19"):
        LanguageDriven(CONFIG, judges.clip, None)
    with pytest.raises(ConfigError, match="all weights"):
        LanguageDriven(replace(CONFIG, loss=LossConfig(0, 0, 0, 0)), judges.clip, judges.vgg)


def test_prompts_have_their_places(judges):
    """Each of the three sentences changes the direction parts, and only those; swapping the sources' does too."""
    batch = batch_of()
    pixels = Pixels(fused_of(batch))
    texts, clip = judges.texts, judges.clip
    usual = LanguageDriven(CONFIG, clip, judges.vgg)(pixels, batch).parts
    for other in (
        replace(clip, objective=texts["c"]),
        replace(clip, infrared=texts["c"]),
        replace(clip, visible=texts["c"]),
        replace(clip, infrared=clip.visible, visible=clip.infrared),
    ):
        parts = LanguageDriven(CONFIG, other, judges.vgg)(pixels, batch).parts
        for name in ("whole", "patches"):
            assert abs(float((parts[name] - usual[name]).detach())) > 1e-4, name
        for name in ("regulariser", "fidelity"):
            close(parts[name], usual[name], name)


# patches and their filter


def patches_alone(judges, batch, pixels, **patches):
    config = replace(CONFIG, loss=LossConfig(0, 1, 0, 0), patches=replace(PATCHES, **patches))
    losses = LanguageDriven(config, judges.clip, None)(pixels, batch)
    return losses.parts["patches"], float(losses.shown["kept"])


def test_a_higher_sigma_keeps_less(judges):
    batch = batch_of()
    pixels = Pixels(fused_of(batch))
    losses, shares = zip(
        *(patches_alone(judges, batch, pixels, entropy=sigma) for sigma in (-1.0, 6.5, 7.0, 7.4, 8.0)), strict=True
    )
    assert shares[0] == 1 and shares[-1] == 0
    assert sorted(shares, reverse=True) == list(shares) and len(set(shares)) >= 4
    values = [float(loss.detach()) for loss in losses]
    assert sorted(values, reverse=True) == values and len(set(values)) >= 4  # what is filtered counts as 0


@pytest.mark.parametrize("compact", ["yes", "no"])
def test_where_no_patch_counts_the_part_is_zero_and_can_be_stepped_on(judges, compact):
    batch = batch_of()
    pixels = Pixels(fused_of(batch))
    loss, kept = patches_alone(judges, batch, pixels, entropy=8.0, compact=compact)
    loss.backward()
    assert float(loss.detach()) == 0 and kept == 0
    assert not pixels.planes.grad.any()


def test_both_sources_must_have_something_to_see(judges):
    random = np.random.default_rng(0)
    rich = smooth(random, 1, 1, 37, 44)
    poor = 0.5 + 0.02 * rich
    pixels = Pixels(rich.clone())
    for ir, vis, kept in ((rich, rich, 1), (poor, rich, 0), (rich, poor, 0), (poor, poor, 0)):
        batch = Batch(0, rich, rich, ir, vis, ("scene/a",))
        assert patches_alone(judges, batch, pixels, entropy=5.0)[1] == kept
        noisy = replace(batch, ir=poor, vis=1 - rich)  # what the network sees is not what is measured
        assert patches_alone(judges, noisy, pixels, entropy=5.0)[1] == kept


def test_filtered_patches_pull_nowhere(judges):
    """The second picture's left half is flat in infrared: with one crop there, its planes get no gradient."""
    batch = batch_of(count=2)
    flat = replace(batch, clean_ir=batch.clean_ir.clone())
    flat.clean_ir[1] = 0.4
    for compact in ("yes", "no"):
        pixels = Pixels(fused_of(batch))
        loss, kept = patches_alone(judges, flat, pixels, compact=compact, entropy=6.0)
        loss.backward()
        assert kept == 0.5
        assert pixels.planes.grad[0].any() and not pixels.planes.grad[1].any()


def test_patches_change_with_the_step_and_the_seed_alone(judges):
    batch = batch_of()
    pixels = Pixels(fused_of(batch))

    def part(step, seed):
        config = replace(CONFIG, run=RunConfig(seed=seed), loss=LossConfig(0, 1, 0, 0))
        return float(
            LanguageDriven(config, judges.clip, None)(pixels, replace(batch, step=step)).parts["patches"].detach()
        )

    assert part(0, 0) == part(0, 0)
    assert len({part(0, 0), part(1, 0), part(0, 1)}) == 3


def test_ranks_that_share_a_batch_have_the_loss_of_the_whole(judges):
    batch = batch_of(count=4)
    planes = fused_of(batch)
    objective = LanguageDriven(CONFIG, judges.clip, judges.vgg)
    together = objective(Pixels(planes), batch)
    shares = []
    for half in (slice(0, 2), slice(2, 4)):
        fields = {name: getattr(batch, name)[half] for name in ("ir", "vis", "clean_ir", "clean_vis", "names")}
        shares.append(objective(Pixels(planes[half]), replace(batch, **fields)))
    for name, part in together.parts.items():
        close((shares[0].parts[name] + shares[1].parts[name]) / 2, part, name)
    close((shares[0].shown["kept"] + shares[1].shown["kept"]) / 2, together.shown["kept"])


# gradients and precision


def test_only_the_network_gets_a_gradient(judges):
    batch = batch_of()
    batch.clean_ir.requires_grad_()
    batch.clean_vis.requires_grad_()
    generator = initialise_scaled(Generator("lite")).double()
    parts = LanguageDriven(CONFIG, judges.clip, judges.vgg)(generator, batch).parts
    sum(parts.values()).backward()
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in generator.parameters())
    assert batch.clean_ir.grad is None and batch.clean_vis.grad is None
    assert not any(
        weight.grad is not None for tower in (judges.clip.tower, judges.vgg) for weight in tower.parameters()
    )


def single(judges, **precision):
    """The judges in float32, as training has them."""
    tower, vgg = copy.deepcopy(judges.clip.tower).float(), copy.deepcopy(judges.vgg).float()
    tower.precision = vgg.precision = precision.get("precision", "fp32")
    texts = {name: getattr(judges.clip, name).float() for name in ("objective", "infrared", "visible")}
    return Clip(tower, **texts, content={}), vgg


def test_losses_are_compared_in_single_whatever_the_autocast(judges):
    batch = batch_of().to("cpu")
    planes = fused_of(batch_of())
    clip, vgg = single(judges)
    exact = LanguageDriven(CONFIG, judges.clip, judges.vgg)(Pixels(planes), batch_of()).parts
    plain = LanguageDriven(CONFIG, clip, vgg)(Pixels(planes.float()), batch).parts
    with torch.autocast("cpu", torch.bfloat16):
        around = LanguageDriven(CONFIG, clip, vgg)(Pixels(planes.float()), batch).parts
    for name, part in plain.items():
        assert part.dtype == around[name].dtype == torch.float32
        assert torch.equal(part, around[name])
        torch.testing.assert_close(part.double(), exact[name], rtol=1e-4, atol=1e-6)
    low = LanguageDriven(CONFIG, *single(judges, precision="bf16"))(Pixels(planes.bfloat16()), batch).parts
    for name, part in low.items():
        assert part.dtype == torch.float32
        torch.testing.assert_close(part.double(), exact[name], rtol=0.1, atol=0.02)


@pytest.mark.slow
def test_training_falls_by_more_than_half_of_what_is_attainable(judges):
    """On 8 pairs, in 200 steps of two, judged on patches that were not trained on.

    Attainable is the loss before, less the best found by moving the pixels of the fused planes freely, without a
    network, from the network's first output: Adam, 150 steps of all pairs, the rate falling from 0.1 to 0. The network
    came to 0.94 of it, and to 0.90 of what 1000 steps from a rate of 0.02 find, which take too long for a test.
    """
    batch = batch_of(SIZE, SIZE, count=8, seed=1).to("cpu")
    patches = replace(PATCHES, count=3, side=(16, 25), entropy=6.0)
    config = Config(patches=patches, loss=LossConfig(2 / 12, 10 / 12, 0.5, 1.0))
    objective = LanguageDriven(config, *single(judges))

    def loss(network):
        with torch.no_grad():
            return (
                sum(sum(objective(network, replace(batch, step=step)).parts.values()) for step in range(1000, 1004)) / 4
            )

    def train(network, rate, steps, pairs, final):
        optimiser = torch.optim.Adam(network.parameters(), rate)
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = rate * (1 - (1 - final) * step / steps)
            chosen = (torch.arange(pairs) + step * pairs) % 8
            planes = {name: getattr(batch, name)[chosen] for name in ("ir", "vis", "clean_ir", "clean_vis")}
            optimiser.zero_grad()
            sum(objective(network, replace(batch, step=step, **planes)).parts.values()).backward()
            optimiser.step()
        return loss(network)

    generator = initialise_scaled(Generator("lite"), seed=0)
    with torch.no_grad():
        first = generator(batch.ir, batch.vis)
    before = loss(generator)
    attainable = before - train(Pixels(first), rate=0.1, steps=150, pairs=8, final=0)
    fallen = before - train(generator, rate=1e-3, steps=200, pairs=2, final=1)
    assert attainable > 0.3 * before
    assert fallen > 0.5 * attainable
