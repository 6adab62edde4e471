"""Entropy of affine boxes cut from planes, on the CPU: against NumPy in float64, and against the trainer's patches."""

from __future__ import annotations

import numpy as np
import pytest

from pyldfusion import kernels
from pyldfusion.errors import DtypeError, InputError
from tests import reference
from tests.test_kernels import views

IDENTITY = np.array([[1, 0, 0], [0, 1, 0]], np.float32)


def planes(count=3, height=61, width=73, seed=0):
    return np.random.default_rng(seed).random((count, height, width), dtype=np.float32)


def some_boxes(count, height, width, seed=1):
    rng = np.random.default_rng(seed)
    side = rng.integers(1, min(height, width) + 1, count)
    left, top = rng.integers(0, width - side + 1), rng.integers(0, height - side + 1)
    return np.stack([left, top, side], 1).astype(np.int32)


def some_maps(boxes, seed=2):
    """Turned, sheared, enlarged or shrunk, and moved by up to a third of the box."""
    rng = np.random.default_rng(seed)
    maps = IDENTITY + rng.normal(scale=0.3, size=(len(boxes), 2, 3))
    maps[:, :, 2] *= boxes[:, 2:]
    return maps


def bits_of(patches):
    return reference.entropy(patches.astype(np.float32))


@pytest.mark.parametrize("side", [1, 2, 7, 32, 61])
def test_an_identity_map_at_its_own_size_is_exactly_the_box(side):
    values = planes()
    boxes = some_boxes(6, 62 - side, 74 - side)
    boxes[:, 2] = side
    boxes[:, :2] = np.minimum(boxes[:, :2], [73 - side, 61 - side])
    bits = kernels.entropy_affine(values, boxes, np.tile(IDENTITY, (6, 1, 1)), side)
    for p, plane in enumerate(values):
        np.testing.assert_array_equal(bits[:, p], kernels.entropy(plane, boxes[:, [0, 1, 2, 2]]))


@pytest.mark.parametrize("turn", [(0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, 1, 0)])
def test_quarter_turns_and_reflections_keep_every_pixel(turn):
    maps = np.array([[[*turn[:2], 0], [*turn[2:], 0]]], np.float32)
    for side in (1, 8, 33):
        box = np.array([[5, 3, side]], np.int32)
        bits = kernels.entropy_affine(planes(), box, maps, side)
        cut = planes()[:, 3 : 3 + side, 5 : 5 + side]
        np.testing.assert_array_equal(bits[0], kernels.entropy(cut))


@pytest.mark.parametrize("size", [1, 5, 48, 131])
def test_equals_the_reference_to_rounding(size):
    values = planes()
    boxes = some_boxes(8, *values.shape[1:])
    maps = some_maps(boxes)
    bits = kernels.entropy_affine(values, boxes, maps, size)
    assert bits.dtype == np.float64 and bits.shape == (8, 3)
    # One pixel in the next bin moves the entropy by at most log2(pixels) / pixels and a little.
    one = 2 * (np.log2(size * size) + 2) / size**2
    np.testing.assert_allclose(bits, reference.entropy_affine(values, boxes, maps, size), rtol=0, atol=2 * one)


def test_equals_the_trainers_patches():
    torch = pytest.importorskip("torch")
    from trainer.config import PatchConfig
    from trainer.patches import cut_patches, draw_patches

    values = planes(4, 120, 160)
    drawn = draw_patches(PatchConfig(count=12, side=(40, 110), one_side=False), 120, 160, seed=1, step=2)
    cut = cut_patches(torch.from_numpy(values), drawn, 96).clamp(0, 1).numpy()
    bits = kernels.entropy_affine(values, drawn.boxes.astype(np.int32), drawn.maps, 96)
    np.testing.assert_allclose(bits.ravel(), bits_of(cut.reshape(-1, 96, 96)), rtol=0, atol=5e-3)
    np.testing.assert_allclose(bits.mean(), bits_of(cut.reshape(-1, 96, 96)).mean(), rtol=0, atol=2e-4)


def test_what_lies_beside_the_box_is_not_looked_at():
    values = planes()
    boxes = np.array([[20, 10, 31]], np.int32)
    maps = some_maps(boxes)
    poisoned = np.full_like(values, np.nan)
    poisoned[:, 10:41, 20:51] = values[:, 10:41, 20:51]
    np.testing.assert_array_equal(
        kernels.entropy_affine(poisoned, boxes, maps, 50), kernels.entropy_affine(values, boxes, maps, 50)
    )


def test_beyond_the_box_is_zero():
    ones, box = np.ones((1, 40, 40), np.float32), np.array([[4, 4, 20]], np.int32)
    moved = IDENTITY + np.array([[0, 0, 5], [0, 0, 0]], np.float32)  # a quarter of the columns come from outside
    p = np.array([0.25, 0.75])
    assert kernels.entropy_affine(ones, box, moved[None], 20)[0, 0] == pytest.approx(-(p * np.log2(p)).sum(), abs=1e-12)
    assert kernels.entropy_affine(ones, box, moved[None] * 1e6, 20)[0, 0] == 0
    assert kernels.entropy_affine(ones * np.float32(0.3), box, IDENTITY[None], 33)[0, 0] == 0


def test_values_at_the_ends_of_the_range_stay_in_it():
    ends = np.random.default_rng(0).integers(0, 2, (1, 50, 50)).astype(np.float32)
    boxes = np.array([[0, 0, 50]], np.int32)
    maps = some_maps(boxes) * 0.4  # nothing from outside
    cut = reference.cut_affine(ends, [0, 0, 50], maps[0].astype(np.float32), 90)[0].clip(0, 1)
    bits = kernels.entropy_affine(ends, boxes, maps, 90)[0, 0]
    assert bits == pytest.approx(bits_of(cut[None])[0], abs=0.01)


def test_any_layout():
    boxes = some_boxes(3, 37, 41)
    maps = some_maps(boxes)
    for name, values in views(planes(2, 37, 41)):
        expected = kernels.entropy_affine(np.ascontiguousarray(values), boxes, maps, 30)
        np.testing.assert_array_equal(kernels.entropy_affine(values, boxes, maps, 30), expected, err_msg=name)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_changes_nothing(threads):
    boxes = some_boxes(9, 61, 73)
    once = kernels.entropy_affine(planes(), boxes, some_maps(boxes), 200, threads=1)
    np.testing.assert_array_equal(kernels.entropy_affine(planes(), boxes, some_maps(boxes), 200, threads=threads), once)


def test_nothing():
    none = np.zeros((0, 3), np.int32)
    assert kernels.entropy_affine(planes(), none, np.zeros((0, 2, 3)), 8).shape == (0, 3)
    assert kernels.entropy_affine(planes()[:0], np.array([[0, 0, 5]], np.int32), IDENTITY[None], 8).shape == (1, 0)


def test_refuses_what_it_cannot_use():
    values, box, one = planes(), np.array([[0, 0, 5]], np.int32), IDENTITY[None]
    for args, error, names in (
        ((values.astype(np.float64), box, one, 8), DtypeError, "planes is float64"),
        ((values[0], box, one, 8), InputError, "planes has shape"),
        ((values, box.astype(np.int64), one, 8), DtypeError, "boxes is int64"),
        ((values, box[:, :2], one, 8), InputError, "boxes have shape"),
        ((values, np.array([[0, 0, 5], [70, 0, 4]], np.int32), one, 8), InputError, r"boxes\[1\]"),
        ((values, np.array([[0, -1, 5]], np.int32), one, 8), InputError, r"boxes\[0\]"),
        ((values, np.array([[0, 0, 0]], np.int32), one, 8), InputError, r"boxes\[0\]"),
        ((values, box, one.astype(int), 8), DtypeError, "maps is int64"),
        ((values, box, one[:, :, :2], 8), InputError, "maps have shape"),
        ((values, box, np.tile(one, (2, 1, 1)), 8), InputError, "maps have shape"),
        ((values, box, one * np.nan, 8), InputError, "maps hold NaN"),
        ((values, box, one.astype(np.float64) * 1e300, 8), InputError, "maps hold NaN or infinity"),
        ((values, box, one, 0), InputError, "size is 0"),
        ((values, box, one, 2.5), InputError, "size is 2.5"),
    ):
        with pytest.raises(error, match=names):
            kernels.entropy_affine(*args)
