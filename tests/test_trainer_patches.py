"""Patches: what is drawn, and the one resampling against torchvision's crop, affine and resize one after the other."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402

from pyldfusion.errors import DependencyError, DtypeError, InputError  # noqa: E402
from trainer.config import PatchConfig  # noqa: E402
from trainer.patches import Patches, cut_patches, draw_patches  # noqa: E402
from trainer.towers.torchvision_import import import_torchvision  # noqa: E402

STILL = PatchConfig(degrees=0, shear=0, shift=0, scale=(1, 1))


def steps_of(patches):
    """The maps taken apart as torchvision names them: angle in degrees, shift (x, y), scale, shear in degrees."""
    for inverse in patches.maps:
        forward = np.linalg.inv(inverse[:, :2])
        across, down = forward @ -inverse[:, 2]
        scale = math.hypot(*forward[:, 0])
        cos, sin = forward[:, 0] / scale
        shear = math.degrees(math.atan(-(cos * forward[0, 1] + sin * forward[1, 1]) / scale))
        np.testing.assert_allclose(np.linalg.det(forward), scale**2)  # no shear along y
        yield math.degrees(math.atan2(sin, cos)), (across, down), scale, shear


def one_after_the_other(planes, patches, size):
    """Crop, affine and resize by torchvision; and where its picture depends on nothing outside the crop."""
    try:
        import_torchvision()
    except DependencyError as error:
        pytest.skip(str(error))
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import affine, crop, resize

    pictures, inside = [], []
    for (left, top, side), (angle, (across, down), scale, shear) in zip(patches.boxes, steps_of(patches), strict=True):
        both = crop(torch.cat([planes, torch.ones_like(planes[:1])]), int(top), int(left), int(side), int(side))
        shift = [round(across), round(down)]
        both = affine(both, angle, shift, scale, [shear, 0.0], interpolation=InterpolationMode.BILINEAR)
        both = resize(both, [size, size], antialias=False)
        pictures.append(both[:-1])
        whole = F.pad(torch.ones(size - 4, size - 4, dtype=torch.bool), (2, 2, 2, 2))  # resize repeats the last pixel
        inside.append(whole & (both[-1] > 1 - 1e-6))
    return torch.stack(pictures), torch.stack(inside)


# what is drawn


def test_draws_stay_in_their_ranges_and_use_them():
    config = PatchConfig(count=400, one_side=False)
    patches = draw_patches(config, 200, 240, seed=1, step=2)
    left, top, side = patches.boxes.T
    assert len(patches) == 400
    assert side.min() < 116 and side.max() > 175 and ((side >= 112) & (side <= 179)).all()
    assert left.min() >= 0 and (left + side <= 240).all() and (left + side).max() > 230
    assert top.min() >= 0 and (top + side <= 200).all() and (top + side).max() > 195
    angle, shift, scale, shear = (np.array(values) for values in zip(*steps_of(patches), strict=True))
    for values, least, most in ((angle, -5, 5), (shear, -5, 5), (scale, 1, 1.5)):
        assert least <= values.min() < least + 0.1 * (most - least)
        assert most - 0.1 * (most - least) < values.max() <= most
    np.testing.assert_allclose(shift[:, 0], 0, atol=1e-9)
    np.testing.assert_allclose(shift[:, 1], np.rint(shift[:, 1]), atol=1e-9)
    assert (np.abs(shift[:, 1]) <= np.rint(0.1 * side) + 1e-9).all()
    assert shift[:, 1].min() < -12 and shift[:, 1].max() > 12
    for a, b in ((angle, shear), (left, top), (scale, angle), (side, left / (241 - side))):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.2


def test_every_side_and_place_is_as_likely():
    config = PatchConfig(count=6000, side=(3, 5), one_side=False)
    left, top, side = draw_patches(config, 6, 7, seed=0, step=0).boxes.T
    for value in (3, 4, 5):
        assert (side == value).mean() == pytest.approx(1 / 3, abs=0.03)
    for place in range(5):
        assert (left[side == 3] == place).mean() == pytest.approx(1 / 5, abs=0.04)
    for place in range(2):
        assert (top[side == 5] == place).mean() == pytest.approx(1 / 2, abs=0.05)


def test_draws_depend_on_seed_step_and_index_alone():
    config = PatchConfig(count=32)
    patches = draw_patches(config, 224, 224, seed=3, step=5)
    np.random.default_rng(0)
    np.random.seed(1)
    torch.manual_seed(1)
    again = draw_patches(config, 224, 224, seed=3, step=5)
    fewer = draw_patches(replace(config, count=7), 224, 224, seed=3, step=5)
    for name in ("boxes", "maps"):
        np.testing.assert_array_equal(getattr(patches, name), getattr(again, name))
        np.testing.assert_array_equal(getattr(patches, name)[:7], getattr(fewer, name))
    for seed, step in ((3, 6), (4, 5), (5, 3)):
        other = draw_patches(config, 224, 224, seed=seed, step=step)
        assert (patches.maps != other.maps).any(axis=(1, 2)).all()


def test_one_side_a_step_or_one_a_crop():
    sides = [draw_patches(PatchConfig(), 224, 224, 0, step).boxes[:, 2] for step in range(20)]
    assert all(len(set(side)) == 1 for side in sides)
    assert len({side[0] for side in sides}) > 10
    assert len(set(draw_patches(PatchConfig(one_side=False), 224, 224, 0, 0).boxes[:, 2])) > 10


def test_a_small_picture_limits_the_side():
    patches = draw_patches(PatchConfig(), 60, 200, 0, 0)
    left, top, side = patches.boxes.T
    assert (side == 60).all() and (top == 0).all() and len(set(left)) > 10
    assert cut_patches(torch.rand(2, 60, 200), patches, 32).shape == (32, 2, 32, 32)
    assert draw_patches(PatchConfig(), 1, 1, 0, 0).boxes[0].tolist() == [0, 0, 1]


# the resampling


@pytest.mark.parametrize("size", [16, 37, 64])
def test_without_a_map_it_is_a_bilinear_resize_of_the_crop(size):
    planes = torch.rand(3, 50, 41, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    patches = draw_patches(replace(STILL, count=6, side=(9, 41), one_side=False), 50, 41, seed=0, step=0)
    got = cut_patches(planes, patches, size)
    assert got.shape == (6, 3, size, size)
    for patch, (left, top, side) in zip(got, patches.boxes, strict=True):
        crop = planes[:, top : top + side, left : left + side]
        expected = F.interpolate(crop[None], size=(size, size), mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(patch, expected, rtol=0, atol=1e-12)


def test_a_crop_of_its_own_size_is_the_crop():
    planes = torch.rand(2, 30, 40, generator=torch.Generator().manual_seed(0))
    patches = draw_patches(replace(STILL, count=3, side=(17, 17)), 30, 40, seed=0, step=0)
    for patch, (left, top, _) in zip(cut_patches(planes, patches, 17), patches.boxes, strict=True):
        torch.testing.assert_close(patch, planes[:, top : top + 17, left : left + 17], rtol=0, atol=1e-5)


def ramps(height, width):
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y, 0.7 * x - 1.3 * y]).double()


@pytest.mark.parametrize("size", [40, 64, 97])
@pytest.mark.parametrize("seed", [0, 1])
def test_points_lie_where_torchvision_puts_them(size, seed):
    """Bilinear sampling keeps a ramp exactly, however often it is done: any error of the map shows."""
    config = PatchConfig(count=8, side=(50, 72), one_side=False, degrees=25, shear=20, scale=(0.8, 1.5))
    patches = draw_patches(config, 80, 90, seed=seed, step=0)
    expected, inside = one_after_the_other(ramps(80, 90), patches, size)
    got = cut_patches(ramps(80, 90), patches, size)
    assert inside.flatten(1).double().mean(1).min() > 0.3
    error = (got - expected).abs() * inside[:, None]
    assert float(error.max()) < 1e-4  # pixels; torchvision's map is in float32


def test_a_smooth_picture_is_that_of_torchvision():
    y, x = torch.meshgrid(torch.arange(224.0).double(), torch.arange(224.0).double(), indexing="ij")
    planes = torch.stack([0.5 + 0.5 * torch.sin(x / 15) * torch.cos(y / 20), 0.5 + 0.5 * torch.sin((x + y) / 30)])
    patches = draw_patches(PatchConfig(count=6), 224, 224, seed=0, step=0)
    expected, inside = one_after_the_other(planes, patches, 224)
    error = (cut_patches(planes, patches, 224) - expected).abs() * inside[:, None]
    assert inside.double().mean() > 0.8
    assert float(error.max()) < 2e-3


def test_the_order_is_crops_of_planes():
    planes = torch.stack([torch.full((40, 40), value) for value in (0.1, 0.2, 0.3)])
    patches = draw_patches(replace(STILL, count=4, side=(20, 20)), 40, 40, 0, 0)
    got = cut_patches(planes, patches, 8)
    expected = torch.tensor([0.1, 0.2, 0.3]).repeat(4)
    torch.testing.assert_close(got.reshape(12, 8, 8), expected[:, None, None].expand(12, 8, 8))


def test_outside_the_crop_is_nothing_and_neighbours_do_not_bleed_in():
    config = PatchConfig(count=12, side=(30, 40), one_side=False, degrees=30, shear=10, shift=0.3, scale=(0.5, 1))
    patches = draw_patches(config, 70, 60, seed=0, step=0)
    for index, (left, top, side) in enumerate(patches.boxes):
        planes = torch.full((1, 70, 60), 1e6, dtype=torch.float64)
        planes[:, top : top + side, left : left + side] = 1
        patch = cut_patches(planes, patches, 48)[index]
        ones, zeros = (patch - 1).abs() < 1e-6, patch == 0
        assert (ones | zeros).all()
        assert ones.any() and zeros.any()
        # the share of what is left of the crop: the map's area on the patch, less what is cut off
        assert ones.double().mean() <= 1 / np.linalg.det(patches.maps[index, :, :2]) * 1.05


def test_a_shift_moves_the_picture_down_and_leaves_zeros():
    still = draw_patches(replace(STILL, count=1, side=(20, 20)), 20, 20, 0, 0)
    maps = still.maps.copy()
    maps[:, 1, 2] = -3
    planes = torch.rand(1, 20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = cut_patches(planes, Patches(20, 20, still.boxes, maps), 20)[0]
    assert not got[:, :3].any()
    torch.testing.assert_close(got[:, 3:], planes[:, :-3], rtol=0, atol=1e-12)


def test_the_patch_of_a_picture_does_not_depend_on_its_batch():
    planes = torch.rand(5, 64, 64, generator=torch.Generator().manual_seed(0))
    patches = draw_patches(PatchConfig(count=4, side=(32, 50)), 64, 64, 0, 0)
    together = cut_patches(planes, patches, 32)
    for index in range(5):
        torch.testing.assert_close(cut_patches(planes[index : index + 1], patches, 32)[:, 0], together[:, index])


def test_gradients_reach_the_planes():
    planes = torch.rand(2, 9, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    patches = draw_patches(PatchConfig(count=3, side=(5, 9), one_side=False, degrees=20), 9, 11, 0, 0)
    assert torch.autograd.gradcheck(lambda x: cut_patches(x, patches, 6), planes)


@pytest.mark.parametrize("shape", [(64, 64), (2, 64, 63), (1, 1, 64, 64)])
def test_planes_of_another_size_are_refused(shape):
    patches = draw_patches(PatchConfig(), 64, 64, 0, 0)
    with pytest.raises(InputError, match=r"expected \[P,64,64\]"):
        cut_patches(torch.rand(shape), patches, 32)


def test_other_wrong_arguments_are_refused():
    patches = draw_patches(PatchConfig(), 64, 64, 0, 0)
    with pytest.raises(DtypeError, match="uint8"):
        cut_patches(torch.zeros(1, 64, 64, dtype=torch.uint8), patches, 32)
    with pytest.raises(InputError, match="at least 1"):
        cut_patches(torch.zeros(1, 64, 64), patches, 0)
    for height, width, seed, step in ((0, 5, 0, 0), (5, 5, -1, 0), (5, 5, 0, -1)):
        with pytest.raises(InputError, match="patches of a"):
            draw_patches(PatchConfig(), height, width, seed, step)
