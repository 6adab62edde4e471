"""Entropy of patches: in torch against NumPy and the original code, and of a step's patches without cutting them."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pyldfusion import kernels  # noqa: E402
from pyldfusion.errors import DtypeError, InputError  # noqa: E402
from pyldfusion.scene import Scene  # noqa: E402
from trainer.config import PatchConfig  # noqa: E402
from trainer.entropy import histogram_entropy, patch_entropy  # noqa: E402
from trainer.patches import cut_patches, draw_patches  # noqa: E402

from . import reference  # noqa: E402


def entropy_of(patch):
    counts, _ = np.histogram(patch[~np.isnan(patch)], bins=256, range=(0.0, 1.0))
    p = counts[counts > 0] / max(counts.sum(), 1)
    return -(p * np.log2(p)).sum()


def hostile_patches(dtype):
    random = np.random.default_rng(3)
    patches = random.random((9, 31, 37))
    patches[1] = 0.3
    patches[2] = 1
    patches[3] = 2
    patches[4] = random.integers(0, 257, (31, 37)) / 256  # the edges themselves, and 1
    patches[5] = random.integers(0, 256, (31, 37)) / 255
    patches[6] = 3 * random.random((31, 37)) - 1
    patches[7, ::2] = np.nan
    patches[7, 1, :3] = np.inf, -np.inf, -0.0
    patches[8] = random.random((31, 37)) ** 8
    return patches.astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_entropy_is_the_same_by_torch_by_the_kernel_and_by_numpy(dtype, monkeypatch):
    monkeypatch.setattr("trainer.entropy._PIXELS_AT_ONCE", 2500)  # in parts of two patches
    patches = hostile_patches(dtype)
    by_torch = histogram_entropy(torch.from_numpy(patches))
    np.testing.assert_allclose(by_torch.numpy(), kernels.entropy(patches), rtol=0, atol=1e-12)
    np.testing.assert_allclose(by_torch.numpy(), [entropy_of(patch) for patch in patches], rtol=0, atol=1e-12)
    assert by_torch[1] == by_torch[2] == by_torch[3] == 0


def test_entropy_reproduces_the_original_code(shared):
    saved = np.load(shared / "upstream" / "entropy.npz")
    patches = torch.from_numpy(saved["patches"][:, 0])
    np.testing.assert_allclose(histogram_entropy(patches).numpy(), saved["entropy"], rtol=0, atol=1e-4)


def sources(size=(300, 240)):
    """The planes of a generated pair as training reads them: [2,H,W], 8 bits over 255."""
    frame = Scene(seed=5, size=size).render()
    grey = np.stack([frame.ir, frame.vis.mean(2).astype(np.uint8)])
    return torch.from_numpy(grey.astype(np.float32) / 255)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_step_s_patches_are_measured_as_they_would_be_cut(dtype):
    planes = sources().to(dtype)
    drawn = draw_patches(PatchConfig(), 240, 300, seed=1, step=2)
    bits = patch_entropy(planes, drawn, 224)
    exact = reference.entropy_affine(planes.double().numpy(), drawn.boxes, drawn.maps, 224)
    assert bits.dtype == torch.float64 and bits.shape == (32, 2)
    # a pixel that rounding put into the next bin: at most (log2(224^2) + 2) / 224^2 bits, and there are few of them
    np.testing.assert_allclose(bits.numpy(), exact, rtol=0, atol=10 * (np.log2(224**2) + 2) / 224**2)
    np.testing.assert_array_equal(bits.numpy() > 6, exact > 6)
    stored = histogram_entropy(cut_patches(planes.double(), drawn, 224).clamp(0, 1).flatten(0, 1)).view(32, 2)
    np.testing.assert_allclose(stored.numpy(), exact, rtol=0, atol=1e-3)


def test_nothing_is_differentiated_or_written():
    planes = sources((80, 64)).requires_grad_()
    drawn = draw_patches(PatchConfig(count=3, side=(20, 40)), 64, 80, seed=0, step=0)
    before = planes.detach().clone()
    assert not patch_entropy(planes, drawn, 17).requires_grad
    assert torch.equal(planes, before)
    turned = planes.detach().mT.contiguous().mT
    torch.testing.assert_close(patch_entropy(turned, drawn, 17), patch_entropy(planes, drawn, 17), rtol=0, atol=0)
    assert patch_entropy(planes[:0], drawn, 17).shape == (3, 0)


def test_what_is_refused():
    drawn = draw_patches(PatchConfig(count=1), 40, 50, seed=0, step=0)
    with pytest.raises(InputError, match=r"shape \[40, 50\]; expected \[P,40,50\]"):
        patch_entropy(torch.zeros(40, 50), drawn, 8)
    with pytest.raises(InputError, match="patches of 0 pixels"):
        patch_entropy(torch.zeros(1, 40, 50), drawn, 0)
    with pytest.raises(DtypeError, match="uint8"):
        patch_entropy(torch.zeros(1, 40, 50, dtype=torch.uint8), drawn, 8)
