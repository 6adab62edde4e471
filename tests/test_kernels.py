"""Every kernel against its plain NumPy reference, and what it says to arguments that it cannot use."""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyldfusion import kernels
from pyldfusion.errors import DtypeError, InputError
from tests import reference

PIXELS = (np.uint8, np.float32, np.float64)


def pixels(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if dtype == np.uint8:
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return rng.random(shape).astype(dtype)


def views(array):
    """The same kind of array in layouts that a caller may have: gaps, reversed, transposed, broadcast, odd bytes."""
    yield "contiguous", array
    yield "gaps", np.repeat(array, 3, axis=-1)[..., ::3]
    yield "rows apart", np.repeat(array, 2, axis=-2)[..., ::2, :]
    yield "reversed", array[..., ::-1, ::-1]
    yield "first axis reversed", array[::-1]
    yield "transposed", np.swapaxes(np.ascontiguousarray(np.swapaxes(array, -1, -2)), -1, -2)
    yield "fortran", np.asfortranarray(array)
    yield "broadcast", np.broadcast_to(array[:1], array.shape)
    raw = np.zeros(array.nbytes + 1, np.uint8)
    odd = raw[1:].view(array.dtype).reshape(array.shape)
    odd[...] = array
    yield "unaligned", odd


# entropy


@pytest.mark.parametrize("dtype", PIXELS)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (3, 5), (16, 16), (31, 33), (64, 64), (224, 224), (2, 3000)])
def test_entropy_equals_the_reference(dtype, size):
    patches = pixels((3, *size), dtype)
    np.testing.assert_allclose(kernels.entropy(patches), reference.entropy(patches), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", PIXELS)
def test_entropy_of_any_layout(dtype):
    for name, patches in views(pixels((4, 37, 41), dtype)):
        np.testing.assert_allclose(
            kernels.entropy(patches), reference.entropy(patches), rtol=0, atol=1e-12, err_msg=name
        )


def test_entropy_of_patches_large_enough_to_count_without_counters():
    rng = np.random.default_rng(0)
    ramp = np.repeat(np.arange(256, dtype=np.uint8), np.arange(1, 257))  # every level another number of times
    for size in (8191, 8192, 8193, 9215, 9216, 16384 + 63, len(ramp)):
        for name, levels in {
            "ramp": rng.permutation(ramp)[:size],
            "one pile": rng.integers(64, 128, size, dtype=np.uint8),
            "two levels": np.where(rng.random(size) < 0.01, 255, 3).astype(np.uint8),
            "runs": np.sort(rng.integers(0, 256, size, dtype=np.uint8)),
        }.items():
            patch = levels[None, None]
            expected = reference.entropy(patch)
            np.testing.assert_allclose(kernels.entropy(patch), expected, rtol=0, atol=1e-12, err_msg=f"{name} {size}")
            real = (patch + np.float32(0.5)) / np.float32(256)
            np.testing.assert_allclose(kernels.entropy(real), expected, rtol=0, atol=1e-12, err_msg=f"{name} {size}")
    image = pixels((160, 210), np.uint8)  # rows of a box come one by one, of odd lengths, some of them constant
    image[40:60] = 7
    boxes = np.array([[0, 0, 210, 160], [3, 5, 101, 99], [1, 0, 65, 160], [9, 30, 64, 130]], np.int32)
    np.testing.assert_allclose(kernels.entropy(image, boxes), reference.entropy(image, boxes), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_entropy_does_not_count_what_is_outside_a_large_patch(dtype):
    patch = pixels((1, 120, 131), dtype)
    patch[0, ::3] = np.nan
    patch[0, 1::7] = -1
    patch[0, :, 5::11] = np.inf
    inside = patch[(patch >= 0) & (patch <= 1)][None, None]
    np.testing.assert_allclose(kernels.entropy(patch), reference.entropy(inside), rtol=0, atol=1e-12)
    assert kernels.entropy(np.full((1, 120, 131), np.nan, dtype)).tolist() == [0.0]


@pytest.mark.parametrize("dtype", PIXELS)
def test_entropy_of_a_constant_patch_is_exactly_zero(dtype):
    for value in (0, 1, 255) if dtype == np.uint8 else (0.0, 0.3, 1.0):
        bits = kernels.entropy(np.full((2, 61, 67), value, dtype))
        assert bits.tolist() == [0.0, 0.0]
        assert not np.signbit(bits).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_entropy_bins_follow_the_edges(dtype):
    edges = np.arange(257, dtype=dtype) / dtype(256)
    values = np.concatenate([edges, np.nextafter(edges[1:], dtype(-1)), np.nextafter(edges[:-1], dtype(2))])
    bins = np.minimum(np.searchsorted(edges, values, side="right") - 1, 255)
    centres = (bins + dtype(0.5)) / dtype(256)
    neighbours = ((bins + 1) % 256 + dtype(0.5)) / dtype(256)
    # Two pixels have 0 bits in one bin and 1 bit in two.
    assert not kernels.entropy(np.stack([values, centres.astype(dtype)], -1)[:, None]).any()
    assert (kernels.entropy(np.stack([values, neighbours.astype(dtype)], -1)[:, None]) == 1).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_entropy_does_not_count_what_is_outside(dtype):
    patch = pixels((1, 40, 50), dtype)
    patch[0, ::3, ::2] = np.nan
    patch[0, 1::3, 1::5] = -np.nextafter(dtype(0), dtype(1))
    patch[0, 2::7] = np.nextafter(dtype(1), dtype(2))
    patch[0, 5] = np.inf
    patch[0, 6] = -np.inf
    patch[0, 7] = 1e30
    patch[0, 8, :3] = (0.0, -0.0, 1.0)
    inside = patch[(patch >= 0) & (patch <= 1)][None, None]
    np.testing.assert_allclose(kernels.entropy(patch), reference.entropy(inside), rtol=0, atol=1e-12)
    assert kernels.entropy(np.full((1, 9, 9), np.nan, dtype)).tolist() == [0.0]
    assert kernels.entropy(np.full((1, 9, 9), 2, dtype)).tolist() == [0.0]


def test_entropy_of_more_pixels_than_the_tables_hold():
    row = pixels((1, 1 << 20), np.uint8)
    many = np.broadcast_to(row, (1, 2060, 1 << 20))  # in the memory of one row
    assert many.size > 2**31
    np.testing.assert_allclose(kernels.entropy(many), reference.entropy(row[None]), rtol=0, atol=1e-12)


def test_entropy_of_bytes_is_that_of_the_same_grey_levels():
    grey = pixels((5, 33, 35), np.uint8)
    np.testing.assert_array_equal(kernels.entropy(grey), kernels.entropy(grey.astype(np.float32) / np.float32(255)))


def test_entropy_reproduces_the_original_code(shared: Path):
    saved = np.load(shared / "upstream" / "entropy.npz")
    bits = kernels.entropy(saved["patches"][:, 0])
    np.testing.assert_allclose(bits, saved["entropy"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", PIXELS)
def test_entropy_of_boxes(dtype):
    boxes = np.array(
        [[0, 0, 53, 47], [0, 0, 1, 1], [52, 46, 1, 1], [10, 20, 7, 9], [3, 0, 50, 1], [0, 5, 1, 42]], np.int32
    )
    for name, image in views(pixels((47, 53), dtype)):
        bits = kernels.entropy(image, boxes)
        np.testing.assert_allclose(bits, reference.entropy(image, boxes), rtol=0, atol=1e-12, err_msg=name)


def test_entropy_boxes_may_be_strided():
    image = pixels((40, 40), np.uint8)
    wide = np.array([[1, 2, 30, 20, 9, 9], [0, 0, 40, 40, 9, 9]], np.int32)
    np.testing.assert_allclose(
        kernels.entropy(image, wide[::-1, :4]), reference.entropy(image, wide[::-1, :4]), rtol=0, atol=1e-12
    )


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_entropy_of_random_boxes(data):
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    image = pixels((height, width), data.draw(st.sampled_from(PIXELS)), data.draw(st.integers(0, 9)))
    boxes = []
    for _ in range(data.draw(st.integers(0, 5))):
        x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
        boxes.append((x, y, data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))))
    cut = np.array(boxes, np.int32).reshape(-1, 4)
    np.testing.assert_allclose(kernels.entropy(image, cut), reference.entropy(image, cut), rtol=0, atol=1e-12)


def test_entropy_of_nothing():
    for shape in ((0, 8, 8), (0, 0, 0)):
        bits = kernels.entropy(np.zeros(shape, np.uint8))
        assert bits.shape == (0,)
        assert bits.dtype == np.float64
    assert kernels.entropy(np.zeros((8, 8), np.float32), np.zeros((0, 4), np.int32)).shape == (0,)


@pytest.mark.parametrize("shape", [(1, 0, 5), (2, 5, 0), (3, 0, 0)])
def test_entropy_refuses_empty_patches(shape):
    with pytest.raises(InputError, match="empty"):
        kernels.entropy(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    "box",
    [
        (-1, 0, 2, 2),
        (0, -1, 2, 2),
        (0, 0, 0, 2),
        (0, 0, 2, 0),
        (0, 0, -2, 2),
        (9, 0, 4, 2),
        (0, 7, 2, 2),
        (12, 0, 1, 1),
        (2**31 - 1, 0, 2**31 - 1, 1),
        (1, 1, 2**31 - 1, 1),
        (0, 0, 1, 2**31 - 1),
        (-(2**31), 0, 2**31 - 1, 1),
    ],
)
def test_entropy_refuses_boxes_that_leave_the_image(box):
    boxes = np.array([(0, 0, 12, 8), box], np.int32)
    with pytest.raises(ValueError, match=r"boxes\[1\].*12x8"):
        kernels.entropy(np.zeros((8, 12), np.uint8), boxes)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.float16, bool, np.complex64, ">f4", object])
def test_entropy_refuses_other_types(dtype):
    with pytest.raises(DtypeError, match=r"patches is .*expected uint8, float32, float64"):
        kernels.entropy(np.zeros((2, 3, 3), dtype))


@pytest.mark.parametrize("dtype", [np.int64, np.uint32, np.float64])
def test_entropy_refuses_boxes_of_other_types(dtype):
    with pytest.raises(TypeError, match=r"boxes is .*expected int32"):
        kernels.entropy(np.zeros((8, 8), np.uint8), np.array([[0, 0, 1, 1]], dtype))


def test_entropy_refuses_other_shapes():
    for shape in ((8, 8), (8,), (1, 1, 8, 8), ()):
        with pytest.raises(InputError, match=r"patches has shape .*\[N,H,W\]"):
            kernels.entropy(np.zeros(shape, np.uint8))
    with pytest.raises(InputError, match=r"image has shape .*\[H,W\]"):
        kernels.entropy(np.zeros((1, 8, 8), np.uint8), np.zeros((1, 4), np.int32))
    for shape in ((4,), (2, 3), (2, 5), (1, 2, 4)):
        with pytest.raises(InputError, match="boxes ha"):
            kernels.entropy(np.zeros((8, 8), np.uint8), np.zeros(shape, np.int32))


# adain


def style(n, c, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(1, 0.5, (n, c)).astype(np.float32), rng.normal(0, 1, (n, c)).astype(np.float32)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 3, 1, 5), (1, 2, 15, 1), (2, 3, 7, 9), (1, 4, 60, 80), (3, 1, 33, 31)]
)
def test_adain_equals_the_reference(shape):
    x = np.random.default_rng(0).normal(3, 2, shape).astype(np.float32)
    weight, bias = style(*shape[:2])
    y = kernels.adain(x, weight, bias)
    assert y.dtype == np.float32
    assert y.flags.c_contiguous
    np.testing.assert_allclose(y, reference.adain(x, weight, bias), rtol=2e-6, atol=2e-6)


def test_adain_of_any_layout():
    weight, bias = style(3, 4)
    for name, x in views(np.random.default_rng(0).normal(size=(3, 4, 19, 23)).astype(np.float32)):
        y = kernels.adain(x, weight, bias)
        np.testing.assert_allclose(y, reference.adain(x, weight, bias), rtol=2e-6, atol=2e-6, err_msg=name)
    x = np.random.default_rng(0).normal(size=(3, 19, 1500, 4)).astype(np.float32).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(
        kernels.adain(x, weight, bias), reference.adain(x, weight, bias), rtol=2e-6, atol=2e-6, err_msg="NHWC"
    )


def test_adain_styles_may_be_strided():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 5)).astype(np.float32)
    numbers = np.random.default_rng(1).normal(size=(2, 12)).astype(np.float32)
    weight, bias = numbers[:, 3:6], numbers[:, 6::2]
    np.testing.assert_allclose(kernels.adain(x, weight, bias), reference.adain(x, weight, bias), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("mean", [1e3, -1e5, 1e6])
def test_adain_with_a_mean_far_above_the_spread(mean):
    x = (mean + np.random.default_rng(0).normal(0, 1, (1, 2, 64, 65))).astype(np.float32)
    weight, bias = style(1, 2)
    np.testing.assert_allclose(kernels.adain(x, weight, bias), reference.adain(x, weight, bias), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 12345.678, 3e38])
def test_adain_of_a_constant_plane_is_the_bias(value):
    weight, bias = style(2, 3)
    y = kernels.adain(np.full((2, 3, 17, 19), value, np.float32), weight, bias)
    np.testing.assert_array_equal(y, np.broadcast_to(bias[:, :, None, None], y.shape))


def test_adain_uses_eps():
    x = np.random.default_rng(0).normal(0, 1e-3, (1, 1, 20, 20)).astype(np.float32)
    weight, bias = style(1, 1)
    for eps in (1e-12, 1e-5, 1.0, 7):
        expected = reference.adain(x, weight, bias, eps)
        np.testing.assert_allclose(kernels.adain(x, weight, bias, eps), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_adain_keeps_a_bad_value_in_its_plane(value):
    x = np.random.default_rng(0).normal(size=(2, 2, 9, 9)).astype(np.float32)
    weight, bias = style(2, 2)
    clean = kernels.adain(x, weight, bias)
    x[0, 1, 4, 4] = value
    y = kernels.adain(x, weight, bias)
    assert np.isnan(y[0, 1]).any()
    y[0, 1] = clean[0, 1]
    np.testing.assert_array_equal(y, clean)


def test_adain_of_nothing():
    for shape in ((0, 3, 4, 4), (2, 0, 4, 4), (0, 0, 0, 0)):
        empty = np.zeros(shape[:2], np.float32)
        assert kernels.adain(np.zeros(shape, np.float32), empty, empty).shape == shape
    with pytest.raises(InputError, match="without pixels"):
        kernels.adain(np.zeros((1, 1, 0, 4), np.float32), *style(1, 1))


def test_adain_does_not_touch_its_input():
    x = np.random.default_rng(0).normal(size=(1, 2, 8, 8)).astype(np.float32)
    x.flags.writeable = False
    kept = x.copy()
    kernels.adain(x, *style(1, 2))
    np.testing.assert_array_equal(x, kept)


def test_adain_refuses_what_it_cannot_use():
    x = np.zeros((2, 3, 4, 4), np.float32)
    weight, bias = style(2, 3)
    for args, names in (
        ((x.astype(np.float64), weight, bias), "x is float64"),
        ((x, weight.astype(np.float64), bias), "weight is float64"),
        ((x, weight, bias.astype(np.float16)), "bias is float16"),
    ):
        with pytest.raises(TypeError, match=names):
            kernels.adain(*args)
    for args, names in (
        ((x[0], weight, bias), "x has shape"),
        ((x, weight[0], bias), "weight has shape"),
        ((x, weight.T.copy(), bias), r"weight has shape \(3, 2\); expected \(2, 3\)"),
        ((x, weight, bias[:1]), "bias has shape"),
    ):
        with pytest.raises(InputError, match=names):
            kernels.adain(*args)
    for eps in (0, -1e-5, np.nan, np.inf):
        with pytest.raises(ValueError, match="eps is"):
            kernels.adain(x, weight, bias, eps)


# 16-bit frames


def frames():
    return views(np.random.default_rng(0).integers(0, 65536, (37, 1030), dtype=np.uint16))


def test_histogram16_equals_the_reference():
    for name, frame in frames():
        np.testing.assert_array_equal(kernels.histogram16(frame), reference.histogram16(frame), err_msg=name)
    for value in (0, 65535):
        counts = kernels.histogram16(np.full((33, 31), value, np.uint16))
        assert counts[value] == counts.sum() == 33 * 31
    assert kernels.histogram16(np.zeros((0, 7), np.uint16)).sum() == 0


@pytest.mark.parametrize("window", [(0, 65535), (20000, 30000), (7, 8), (-500.5, 70000.25), (100.1, 100.2), (0, 510)])
def test_scale16_equals_the_reference(window):
    for name, frame in frames():
        grey = kernels.scale16(frame, *window)
        assert grey.dtype == np.uint8
        np.testing.assert_array_equal(grey, reference.scale16(frame, *window), err_msg=name)


def test_scale16_rounds_every_value_of_the_full_range_to_nearest():
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(kernels.scale16(every, 0, 65535), (every.astype(np.int64) * 2 + 257) // 514)


def test_scale16_halves_go_up():
    assert kernels.scale16(np.array([[0, 1, 2, 3, 510, 511]], np.uint16), 0, 510).tolist() == [[0, 1, 1, 2, 255, 255]]


@pytest.mark.parametrize("window", [(5, 5), (6, 5), (np.nan, 5), (0, np.inf)])
def test_scale16_refuses_an_empty_window(window):
    with pytest.raises(InputError, match="lo below hi"):
        kernels.scale16(np.zeros((4, 4), np.uint16), *window)


@pytest.mark.parametrize("call", [kernels.histogram16, lambda frame: kernels.scale16(frame, 0, 1)])
def test_frames_of_other_kinds_are_refused(call):
    for dtype in (np.uint8, np.int16, np.float32, ">u2"):
        with pytest.raises(TypeError, match="expected uint16"):
            call(np.zeros((4, 4), dtype))
    for shape in ((4,), (4, 4, 1)):
        with pytest.raises(InputError, match=r"\[H,W\]"):
            call(np.zeros(shape, np.uint16))


def visible(shape, dtype):
    rng = np.random.default_rng(2)
    if dtype == np.uint16:
        return rng.integers(0, 65536, shape, dtype=np.uint16)
    return rng.random(shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_add_luma_equals_the_reference(dtype, channels):
    rng = np.random.default_rng(3)
    for size in ((1, 1), (5, 7), (64, 67), (301, 303)):
        vis = visible((*size, *channels), dtype)
        delta = rng.integers(-300, 301, size, dtype=np.int16)
        np.testing.assert_array_equal(kernels.add_luma(vis, delta), reference.add_luma(vis, delta))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_add_luma_clips_and_keeps_the_ends(dtype):
    top = 65535 if dtype == np.uint16 else 1.0
    vis = np.array([[0, 0, top, top, 0, top]], dtype)
    delta = np.array([[0, -1, 0, 1, 32767, -32768]], np.int16)
    assert kernels.add_luma(vis, delta).tolist() == [[0, 0, top, top, top, 0]]


def test_add_luma_of_any_layout():
    delta = np.random.default_rng(3).integers(-255, 256, (29, 31), dtype=np.int16)
    for name, vis in views(visible((29, 31), np.uint16)):
        for other, difference in views(delta):
            expected = reference.add_luma(vis, difference)
            np.testing.assert_array_equal(kernels.add_luma(vis, difference), expected, err_msg=f"{name}, {other}")
    rgb = visible((29, 31, 3), np.float32)
    np.testing.assert_array_equal(kernels.add_luma(rgb[..., ::-1], delta), reference.add_luma(rgb[..., ::-1], delta))


def test_add_luma_writes_where_it_is_told():
    vis, delta = visible((20, 30, 3), np.uint16), np.full((20, 30), 5, np.int16)
    expected = reference.add_luma(vis, delta)
    out = np.empty_like(vis)
    assert kernels.add_luma(vis, delta, out) is out
    np.testing.assert_array_equal(out, expected)
    assert kernels.add_luma(vis, delta, out=vis) is vis
    np.testing.assert_array_equal(vis, expected)


def test_add_luma_refuses_what_it_cannot_use():
    vis, delta = np.zeros((6, 8, 3), np.uint16), np.zeros((6, 8), np.int16)
    read_only = np.zeros_like(vis)
    read_only.flags.writeable = False
    for args, error, names in (
        ((vis.astype(np.uint8), delta), DtypeError, "vis is uint8"),
        ((vis, delta.astype(np.int32)), DtypeError, "luma_delta is int32"),
        ((vis, delta, vis.astype(np.float32)), DtypeError, "out is float32"),
        ((vis, delta, [1]), DtypeError, "out is list"),
        ((vis[..., :2], delta), InputError, "2 channels"),
        ((vis[None], delta), InputError, "vis has shape"),
        ((vis, delta.T.copy()), InputError, "luma_delta has shape"),
        ((vis, delta, np.zeros((6, 8), np.uint16)), InputError, "out has shape"),
        ((vis, delta, np.zeros((6, 8, 6), np.uint16)[..., ::2]), InputError, "out has shape"),
        ((vis, delta, read_only), InputError, "out has shape"),
        ((vis[..., ::-1], delta, vis), InputError, "overlaps"),
        ((vis, vis.view(np.int16)[..., 0], vis), InputError, "overlaps"),
    ):
        with pytest.raises(error, match=names):
            kernels.add_luma(*args)


# threads


@pytest.mark.parametrize("threads", [1, 2, 3, 64])
def test_the_number_of_threads_changes_nothing(threads):
    patches = pixels((70, 160, 161), np.float32)  # all of these are large enough to be shared among threads
    np.testing.assert_array_equal(kernels.entropy(patches, threads=threads), kernels.entropy(patches, threads=1))
    x = np.random.default_rng(0).normal(size=(5, 7, 200, 210)).astype(np.float32)
    one = kernels.adain(x, *style(5, 7), threads=1)
    np.testing.assert_array_equal(kernels.adain(x, *style(5, 7), threads=threads), one)
    frame = np.random.default_rng(0).integers(0, 65536, (1000, 1501), dtype=np.uint16)
    np.testing.assert_array_equal(kernels.scale16(frame, 9, 60000, threads=threads), reference.scale16(frame, 9, 60000))
    delta = np.random.default_rng(3).integers(-255, 256, frame.shape, dtype=np.int16)
    np.testing.assert_array_equal(kernels.add_luma(frame, delta, threads=threads), reference.add_luma(frame, delta))


def test_kernels_may_be_called_from_many_threads():
    patches, frame = pixels((40, 150, 160), np.uint8), np.arange(60000, dtype=np.uint16).reshape(200, 300)
    bits, grey = kernels.entropy(patches), kernels.scale16(frame, 0, 60000)

    def once(i):
        if i % 2:
            return np.array_equal(kernels.entropy(patches), bits)
        return np.array_equal(kernels.scale16(frame, 0, 60000), grey)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(once, range(200)))


def test_the_gil_is_released():
    patch = np.random.default_rng(0).integers(0, 256, (1, 224, 224), np.uint8)
    patches = np.broadcast_to(patch, (20000, 224, 224))  # a quarter of a second of work or more, no memory
    ticks = []
    done = threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(1)
            time.sleep(0.001)

    ticker = threading.Thread(target=tick)
    ticker.start()
    before = len(ticks)
    kernels.entropy(patches, threads=1)
    during = len(ticks) - before
    done.set()
    ticker.join()
    assert during >= 5


@pytest.mark.parametrize("threads", [0, -1, 1.5, "two", 1025])
def test_a_bad_number_of_threads_is_refused(threads):
    with pytest.raises(InputError, match="threads is"):
        kernels.entropy(np.zeros((1, 2, 2), np.uint8), threads=threads)


def test_threads_from_the_environment(monkeypatch):
    monkeypatch.setenv("PYLDFUSION_THREADS", "3")
    assert kernels.thread_count() == 3
    assert kernels.thread_count(2) == 2
    monkeypatch.setenv("PYLDFUSION_THREADS", "all")
    with pytest.raises(InputError, match="PYLDFUSION_THREADS is 'all'"):
        kernels.thread_count()
    monkeypatch.setenv("PYLDFUSION_THREADS", "")
    assert kernels.thread_count() >= 1


def test_nothing_is_leaked():
    import psutil

    process = psutil.Process()
    x, (weight, bias) = np.zeros((1, 4, 200, 200), np.float32), style(1, 4)
    for round in range(220):
        if round == 20:
            gc.collect()
            before = process.memory_info().rss
        kernels.adain(x, weight, bias)
    assert process.memory_info().rss - before < 30e6  # leaking each result would take 128 MB
