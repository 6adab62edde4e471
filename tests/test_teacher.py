"""The teacher's pictures: what must hold for any pair. The pyramid itself: test_pyramid.py."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pyldfusion.kernels import PyramidLook, pyramid  # noqa: E402
from trainer.supervised.teacher import teach  # noqa: E402


def smooth(seed: int, height: int = 96, width: int = 128) -> torch.Tensor:
    """A picture with structure at all scales, [1,1,H,W] in [0.1, 0.9]."""
    random = torch.Generator().manual_seed(seed)
    x = torch.zeros(1, 1, height, width)
    for side in (4, 8, 16, 32):
        coarse = torch.rand(1, 1, side, side, generator=random) - 0.5
        x = x + torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic") * 4 / side
    return 0.1 + 0.8 * (x - x.min()) / (x.max() - x.min())


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(np.corrcoef(a.flatten().numpy(), b.flatten().numpy())[0, 1])


def test_one_picture_as_both_sources_is_only_stretched():
    x = smooth(1)
    fused = teach(x, x)
    assert correlation(fused, x) > 0.97
    assert 0.17 < float(fused.std()) < 0.25 and abs(float(fused.mean()) - PyramidLook().mean) < 0.05


def test_levels_and_contrasts_of_the_sources_do_not_matter():
    """What an instance norm removes must not be asked of the network."""
    ir, vis = smooth(1), smooth(2)
    torch.testing.assert_close(teach(ir, vis), teach(0.2 + 0.7 * ir, 0.1 + 0.8 * vis), atol=0.04, rtol=0)


def test_a_hot_target_stays_hot_and_leaves_no_dark_ring():
    vis = 0.3 + 0.05 * smooth(2)
    ir = torch.full_like(vis, 0.2)
    ir[..., 40:60, 60:70] = 0.95
    fused = teach(ir, vis)
    target = fused[..., 44:56, 63:67]
    around = fused[..., 20:80, 40:90].clone()
    around[..., 15:45, 15:35] = float("nan")  # the target and 5 pixels around it
    surroundings = around[~around.isnan()]
    assert float(target.min()) > 0.85
    assert float(target.mean()) > float(surroundings.max())
    ring = fused[..., 36:64, 56:74].clone()
    ring[..., 3:-3, 3:-3] = float("nan")  # one to three pixels off the target
    assert float(ring[~ring.isnan()].min()) > float(surroundings.min()) - 0.12


def test_a_useless_source_is_left_out():
    vis = smooth(4)
    fused = teach(torch.full_like(vis, 0.5), vis)
    assert correlation(fused, vis) > 0.97


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (48, 31), (240, 320)])
def test_any_size_gives_a_finite_picture_in_range(size):
    random = torch.Generator().manual_seed(5)
    ir, vis = (torch.rand(2, 1, *size, generator=random) for _ in range(2))
    fused = teach(ir, vis)
    assert fused.shape == ir.shape
    assert bool(torch.isfinite(fused).all()) and float(fused.min()) >= 0 and float(fused.max()) <= 1


def test_constant_sources_give_a_constant_picture():
    flat = torch.full((1, 1, 32, 32), 0.4)
    assert float(teach(flat, flat).std()) < 1e-5


def test_pictures_of_a_batch_are_the_kernel_s_each():
    ir, vis = torch.cat((smooth(1), smooth(2))), torch.cat((smooth(3), smooth(4)))
    look = PyramidLook(gain=(3.0, 1.0, 1.0))
    fused = teach(ir.double().requires_grad_(), vis.double(), look)
    assert fused.dtype == torch.float64 and not fused.requires_grad
    for k in range(2):
        assert np.array_equal(fused[k, 0].float().numpy(), pyramid(ir[k, 0].numpy(), vis[k, 0].numpy(), look))
