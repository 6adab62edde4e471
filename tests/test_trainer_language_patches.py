"""The patches' part of the loss: which count, and what they depend on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pyldfusion.generator import Generator  # noqa: E402
from trainer.config import LossConfig, RunConfig  # noqa: E402
from trainer.language import LanguageDriven  # noqa: E402
from trainer.objective import Batch  # noqa: E402
from trainer.start.initialise import initialise_scaled  # noqa: E402

from .reference_language import CONFIG, PATCHES, Judges, Pixels, batch_of, close, fused_of, make_judges, smooth  # noqa: E402


@pytest.fixture(scope="module")
def judges(tmp_path_factory) -> Judges:
    return make_judges(tmp_path_factory.mktemp("clip") / "small.json")


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
