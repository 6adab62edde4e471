"""The whole loss against a plain float64 reference written from the equations, and what it answers to."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from pyldfusion.errors import InputError  # noqa: E402
from pyldfusion.generator import Generator  # noqa: E402
from trainer.config import Config, ConfigError, LossConfig, PatchConfig, PromptConfig  # noqa: E402
from trainer.language import LanguageDriven  # noqa: E402
from trainer.objective import Batch  # noqa: E402
from trainer.start.initialise import initialise_scaled  # noqa: E402
from trainer.towers.clip import Clip  # noqa: E402
from trainer.towers.vgg import FidelityTower  # noqa: E402

from .reference_language import (  # noqa: E402
    CONFIG,
    PATCHES,
    SIZE,
    Judges,
    Pixels,
    batch_of,
    close,
    fused_of,
    gradients,
    make_judges,
    reference,
    vgg_layers,
)


@pytest.fixture(scope="module")
def judges(tmp_path_factory) -> Judges:
    return make_judges(tmp_path_factory.mktemp("clip") / "small.json")


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


@pytest.mark.parametrize("compact", ["yes", "no"])
def test_a_patch_counts_where_its_entropy_exceeds_sigma_and_not_where_it_is_sigma(judges, compact):
    """Eq. 17: both sources must have more. 64 grey levels, each as often, are 6 bits exactly."""
    levels = torch.arange(SIZE * SIZE).remainder(64).view(1, 1, SIZE, SIZE) / 64 + 1 / 128
    fused = fused_of(batch_of(SIZE, SIZE, count=1))
    whole = PatchConfig(2, (SIZE, SIZE), degrees=0, shear=0, shift=0, scale=(1.0, 1.0), compact=compact)

    def kept(sigma: float, ir: torch.Tensor, vis: torch.Tensor) -> float:
        config = replace(CONFIG, patches=replace(whole, entropy=sigma), loss=LossConfig(0, 1, 0, 0))
        batch = Batch(0, ir.double(), vis.double(), ir.double(), vis.double(), ("a",))
        return float(LanguageDriven(config, judges.clip, None)(Pixels(fused), batch).shown["kept"])

    below, above = math.nextafter(6.0, 0), math.nextafter(6.0, 7)
    assert [kept(sigma, levels, levels) for sigma in (below, 6.0, above)] == [1, 0, 0]
    more = torch.arange(SIZE * SIZE).remainder(128).view_as(levels) / 128 + 1 / 512  # 7 bits
    assert kept(6.0, more, more) == 1
    assert kept(6.0, more, levels) == kept(6.0, levels, more) == 0


@pytest.mark.slow
def test_training_falls_by_more_than_half_of_what_is_attainable(judges):
    """On 8 pairs, in 100 steps of two, judged on patches that were not trained on.

    Attainable is the loss before, less the best found by moving the pixels of the fused planes freely, without a
    network, from the network's first output: Adam, 75 steps of all pairs, the rate falling from 0.1 to 0. The network
    came to 0.96 of it; with twice the steps of both to 0.94, and to 0.90 of what 1000 steps from a rate of 0.02 find.
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
    floor = train(Pixels(first), rate=0.1, steps=75, pairs=8, final=0)
    trained = train(generator, rate=1e-3, steps=100, pairs=2, final=1)
    print(f"loss before {before:.3f}, floor {floor:.3f}, after training {trained:.3f}")  # docs/training.md has these
    assert before - floor > 0.3 * before
    assert before - trained > 0.5 * (before - floor)
