"""The supervised losses against independent references in NumPy, SciPy and scikit-image."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ndimage = pytest.importorskip("scipy.ndimage")

from trainer.supervised.imitation import gradient_loss, gradients, grid_loss, pixel_loss, shade_loss, structure_loss  # noqa: E402


def pair(shape=(2, 1, 29, 41)):
    random = np.random.default_rng(7)
    return random.random(shape), random.random(shape)


def test_pixel_loss_is_charbonnier():
    a, b = pair()
    expected = np.mean(np.sqrt((a - b) ** 2 + 1e-6)) - 1e-3
    assert float(pixel_loss(torch.from_numpy(a), torch.from_numpy(b))) == pytest.approx(expected, rel=1e-12)
    assert float(pixel_loss(torch.from_numpy(a), torch.from_numpy(a))) == pytest.approx(0, abs=1e-12)


def test_gradients_are_sobel():
    a, _ = pair((1, 1, 17, 23))
    got = gradients(torch.from_numpy(a))[0].numpy()
    for channel, axis in ((0, 1), (1, 0)):
        expected = ndimage.sobel(a[0, 0], axis=axis)[1:-1, 1:-1] / 8
        np.testing.assert_allclose(got[channel], expected, atol=1e-12)


def test_gradient_loss_sees_sobel_and_neighbours():
    a, b = pair()
    error = a - b
    sobel = np.mean([np.abs(ndimage.sobel(e[0], axis=axis)[1:-1, 1:-1] / 8).mean() for e in error for axis in (0, 1)])
    fine = np.abs(np.diff(error, axis=2)).mean() + np.abs(np.diff(error, axis=3)).mean()
    got = float(gradient_loss(torch.from_numpy(a), torch.from_numpy(b)))
    assert got == pytest.approx(sobel + fine / 2, rel=1e-10)


def test_gradient_loss_does_not_overlook_a_checkerboard():
    flat = torch.full((1, 1, 16, 16), 0.5)
    board = flat + 0.1 * ((torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2 - 1)
    assert float(gradients(board).abs().max()) < 1e-6
    assert float(gradient_loss(board, flat)) > 0.1
    assert float(gradient_loss(flat + 0.2, flat)) < 1e-6


def test_grid_loss_sees_what_repeats_and_nothing_else():
    random = torch.Generator().manual_seed(0)
    flat = torch.full((1, 1, 96, 96), 0.5)
    dots = flat.clone()
    dots[..., ::8, ::8] += 0.1
    # one phase of 64 is off by 0.1: its deviation from the phases' mean, and the mean's from the other 63
    assert float(grid_loss(dots, flat)) == pytest.approx((0.1 * 63 / 64 + 63 * 0.1 / 64) / 64, rel=1e-4)
    once = flat.clone()
    once[..., 40, 40] += 0.1
    assert float(grid_loss(once, flat)) < float(grid_loss(dots, flat)) / 10
    assert float(grid_loss(flat + 0.1, flat)) < 1e-6
    noise = flat + 0.1 * (torch.rand(1, 1, 96, 96, generator=random) - 0.5)
    assert float(grid_loss(noise, flat)) < 0.3 * float(pixel_loss(noise, flat))
    assert float(grid_loss(dots[..., :32, :], flat[..., :32, :])) == 0  # fewer than five cells


def test_grid_loss_counts_flat_places_most():
    flat = torch.full((1, 1, 80, 80), 0.5, dtype=torch.float64)
    dots = torch.zeros_like(flat)
    dots[..., ::8, ::8] = 0.1
    busy = flat + 0.05 * (torch.arange(80) % 2 * 2 - 1)  # variance 0.05^2: counts half
    assert float(grid_loss(busy + dots, busy)) == pytest.approx(float(grid_loss(flat + dots, flat)) / 2, rel=1e-6)


def test_shade_loss_is_the_slope_of_the_error_where_the_target_is_flat():
    flat = torch.full((1, 1, 40, 48), 0.5, dtype=torch.float64)
    ramp = 0.003 * torch.arange(48, dtype=torch.float64).expand_as(flat)
    assert float(shade_loss(flat + ramp, flat)) == pytest.approx(0.003, rel=1e-2)
    assert float(shade_loss(flat + ramp, flat + ramp + 0.2)) < 1e-12
    # a target of that slope: the same error counts half
    assert float(shade_loss(flat + 2 * ramp, flat + ramp)) == pytest.approx(0.0015, rel=1e-2)
    assert float(shade_loss(flat[..., :13, :], ramp[..., :13, :])) == 0


def test_shade_loss_sees_a_soft_rim_rather_than_grain():
    random = torch.Generator().manual_seed(0)
    x = torch.arange(96, dtype=torch.float64).expand(1, 1, 96, 96)
    step = torch.where(x < 48, 0.3, 0.7)
    rim = step - 0.05 * torch.where(x < 48, torch.exp((x - 48) / 6), 0)
    grain = step + (rim - step).abs().mean() * torch.sign(torch.rand(x.shape, generator=random) - 0.5)
    assert float(pixel_loss(grain, step)) == pytest.approx(float(pixel_loss(rim, step)), rel=0.5)
    assert float(shade_loss(rim, step)) > 2 * float(shade_loss(grain, step))


def test_shade_loss_has_a_gradient_where_there_is_no_error():
    target = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    fused = target.clone().requires_grad_()
    shade_loss(fused, target).backward()
    assert bool(torch.isfinite(fused.grad).all())


def test_structure_loss_is_one_minus_ssim():
    metrics = pytest.importorskip("skimage.metrics")
    a, b = pair((1, 1, 40, 31))
    _, full = metrics.structural_similarity(
        a[0, 0], b[0, 0], win_size=7, data_range=1.0, use_sample_covariance=False, full=True
    )
    expected = 1 - full[3:-3, 3:-3].mean()
    assert float(structure_loss(torch.from_numpy(a), torch.from_numpy(b))) == pytest.approx(expected, abs=1e-9)
    assert float(structure_loss(torch.from_numpy(a), torch.from_numpy(a))) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("loss", [pixel_loss, gradient_loss, structure_loss])
def test_gradients_agree_with_finite_differences(loss):
    a, b = pair((1, 1, 9, 10))
    x = torch.from_numpy(a).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, torch.from_numpy(b)), (x,), eps=1e-7, atol=1e-5)
