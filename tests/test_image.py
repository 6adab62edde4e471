"""Frames checked, shown to the network as 8 bits, and turned back into what they were."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyldfusion import image
from pyldfusion.errors import DtypeError, InputError, PyldfusionError
from pyldfusion.image import Visible, check_out, check_pair, infrared_to_8bit

DTYPES = ("uint8", "uint16", "float16", "float32", "float64")


def random_frame(seed, shape, dtype):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.random(shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def luma_by_hand(frame, color):
    weights = np.array([0.114, 0.587, 0.299] if color == "bgr" else [0.299, 0.587, 0.114])
    return frame.astype(np.float64) @ weights


def in_levels(frame):
    """Any dtype as float64 in 0..255."""
    full = {"uint8": 255, "uint16": 65535}.get(frame.dtype.name, 1)
    return frame.astype(np.float64) * (255 / full)


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    size=st.tuples(st.integers(16, 45), st.integers(16, 45)),
    channels=st.sampled_from([(), (1,), (3,)]),
    dtype=st.sampled_from(DTYPES),
    color=st.sampled_from(image.COLORS),
    flip=st.sampled_from([np.s_[:, :], np.s_[::-1, ::-1], np.s_[::1, ::-1]]),
)
def test_a_network_that_changes_nothing_gives_the_frame_back(seed, size, channels, dtype, color, flip):
    vis = random_frame(seed, (*size, *channels), dtype)[flip]
    before = vis.copy()
    ready = Visible(vis, color)
    assert ready.frame.dtype == np.uint8 and ready.frame.shape == (*vis.shape[:2], 3)
    assert ready.frame.flags.c_contiguous
    back = ready.restore(ready.frame.copy())
    assert back.dtype == vis.dtype and back.shape == vis.shape
    assert np.array_equal(back, before) and np.array_equal(vis, before)


@pytest.mark.parametrize("color", image.COLORS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_network_sees_8_bits_in_bgr(dtype, color):
    vis = random_frame(3, (33, 47, 3), dtype)
    shown = Visible(vis, color).frame
    assert np.abs(shown - in_levels(vis if color == "bgr" else vis[..., ::-1])).max() <= 0.51


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
@pytest.mark.parametrize("dtype", ("uint16", "float16", "float32", "float64"))
@pytest.mark.parametrize("color", image.COLORS)
def test_the_change_of_luma_is_added_to_every_channel(dtype, channels, color):
    """Whatever the graph's clipping left of it in 8 bits."""
    vis = random_frame(4, (40, 31, *channels), dtype)
    ready = Visible(vis, color)
    change = np.random.default_rng(5).integers(-255, 256, (40, 31, 1))
    fused = np.clip(ready.frame + change, 0, 255).astype(np.uint8)
    expected = np.clip(in_levels(vis) + (change if channels else change[..., 0]), 0, 255)
    error = np.abs(in_levels(ready.restore(fused)) - expected)
    # half a level where even the least clipped channel ends on the limit, which 8 bits do not resolve
    limit = (fused == 255).any(2) | (fused == 0).any(2)
    tolerance = 0.2 if dtype == "float16" else 0.01
    assert error.max() <= 0.5 + tolerance and error[~limit].max() <= tolerance
    assert (~limit).any() and limit.any()


def test_uint8_colour_is_passed_on_without_a_copy():
    vis = random_frame(6, (20, 30, 3), "uint8")
    ready = Visible(vis)
    assert np.shares_memory(ready.frame, vis)
    fused = np.zeros_like(vis)
    assert np.shares_memory(ready.restore(fused), fused)


@pytest.mark.parametrize("dtype", DTYPES)
def test_infrared_of_full_range_is_rounded_to_8_bits(dtype):
    ir = random_frame(7, (21, 34), dtype)
    shown = infrared_to_8bit(ir, thermal=(0, 65535) if dtype == "uint16" else None)
    assert shown.dtype == np.uint8 and shown.shape == (21, 34)
    assert np.abs(shown - in_levels(ir)).max() <= 0.501


@pytest.mark.parametrize("dtype", DTYPES)
def test_infrared_in_three_equal_channels_is_one(dtype):
    ir = random_frame(8, (18, 25), dtype)
    expected = infrared_to_8bit(ir)
    assert np.array_equal(infrared_to_8bit(ir[..., None]), expected)
    three = np.repeat(ir[..., None], 3, 2)
    assert not image.is_palette(three)
    assert np.array_equal(infrared_to_8bit(three), expected)


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint8, 1), (np.uint16, 257), (np.float32, 1 / 255)])
def test_grey_that_a_codec_has_tinted_is_no_palette(dtype, scale):
    """Decoded infrared videos have channels a constant few levels apart; a logo in colour is no palette either."""
    grey = np.random.default_rng(0).integers(8, 248, (120, 160))
    tinted = np.stack([grey, grey - 3, grey + 2], -1)
    tinted[:6, :12] = (0, 0, 250)
    frame = (tinted * scale).astype(dtype)
    assert not image.is_palette(frame)
    plane = infrared_to_8bit(frame, "bgr", (0, 65535) if dtype == np.uint16 else None)
    assert np.abs(plane[8:].astype(int) - grey[8:]).max() <= 3


@pytest.mark.parametrize("color", image.COLORS)
def test_a_palette_is_its_luma(color):
    grey = random_frame(9, (24, 40), "uint8")
    palette = cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)
    palette = palette if color == "bgr" else palette[..., ::-1]
    assert image.is_palette(palette)
    assert np.abs(infrared_to_8bit(palette, color) - luma_by_hand(palette, color)).max() <= 0.51


def frame(*shape, dtype="uint8"):
    return np.zeros(shape, dtype)


GOOD = frame(20, 30)
NAN = np.full((20, 30), np.nan, np.float32)


@pytest.mark.parametrize(
    "ir, vis, error, words",
    [
        (None, GOOD, DtypeError, ["ir is a NoneType", "NumPy array"]),
        (GOOD, GOOD.tolist(), DtypeError, ["vis is a list"]),
        (GOOD.astype(np.int32), GOOD, DtypeError, ["ir has dtype int32", "uint8, uint16 or float"]),
        (GOOD, GOOD.astype(bool), DtypeError, ["vis has dtype bool"]),
        (GOOD, GOOD.astype(complex), DtypeError, ["complex128"]),
        (GOOD.astype(np.longdouble), GOOD, DtypeError, ["ir has dtype"]),
        (GOOD, GOOD.astype(object), DtypeError, ["object"]),
        (GOOD, GOOD.astype("U1"), DtypeError, ["<U1"]),
        (GOOD.astype(np.uint32), GOOD, DtypeError, ["uint32"]),
        (GOOD, frame(20, 30, 4), InputError, ["vis has shape (20, 30, 4)", "alpha"]),
        (frame(20, 30, 4), GOOD, InputError, ["ir has shape (20, 30, 4)", "alpha"]),
        (GOOD, frame(20, 30, 2), InputError, ["(20, 30, 2)"]),
        (GOOD, frame(3, 20, 30), InputError, ["(3, 20, 30)", "channels come last"]),
        (frame(2, 20, 30, 1), GOOD, InputError, ["fuse_batch"]),
        (frame(600), GOOD, InputError, ["(600,)", "HxW"]),
        (frame(), GOOD, InputError, ["ir has shape ()"]),
        (frame(0, 30), GOOD, InputError, ["(0, 30)", "16"]),
        (GOOD, frame(20, 0, 3), InputError, ["(20, 0, 3)"]),
        (frame(15, 30), frame(15, 30), InputError, ["(15, 30)", "at least 16"]),
        (frame(30, 15), frame(30, 15), InputError, ["(30, 15)", "at least 16"]),
        (GOOD, frame(20, 31, 3), InputError, ["ir is 30x20", "vis is 31x20", "registration"]),
        (NAN, GOOD, InputError, ["ir has values from nan", "[0, 1]"]),
        (GOOD, NAN, InputError, ["vis has values from nan"]),
        (NAN + np.inf, GOOD, InputError, ["[0, 1]"]),
        (np.full((20, 30), 1.01), GOOD, InputError, ["ir has values from 1.01 to 1.01"]),
        (np.full((20, 30), -0.1), GOOD, InputError, ["-0.1"]),
        (GOOD, np.full((20, 30, 3), 255.0), InputError, ["vis has values from 255 to 255"]),
    ],
)
def test_what_cannot_be_fused_is_named(ir, vis, error, words):
    with pytest.raises(error) as caught:
        check_pair(ir, vis)
    assert isinstance(caught.value, PyldfusionError)
    for word in words:
        assert word in str(caught.value)


def test_one_nan_among_many_is_found():
    vis = np.zeros((40, 40, 3), np.float32)
    vis[39, 39, 2] = np.nan
    with pytest.raises(InputError, match="NaN"):
        check_pair(frame(40, 40), vis)


def test_the_rounding_of_a_weighted_sum_is_forgiven():
    vis = np.full((16, 16), np.float32(1.0000001))
    assert Visible(check_pair(frame(16, 16), vis)[1]).frame.min() == 255


def test_the_other_byte_order_is_read():
    ir = random_frame(10, (20, 30), "uint16")
    for name in ("<u2", ">u2"):
        assert np.array_equal(infrared_to_8bit(check_pair(ir.astype(name), GOOD)[0]), infrared_to_8bit(ir))


@pytest.mark.parametrize(
    "out, error, words",
    [
        ([1], DtypeError, "out is a list"),
        (frame(20, 30, dtype="uint16"), DtypeError, "out has dtype uint16"),
        (frame(20, 30, 1), InputError, "out has shape"),
        (np.broadcast_to(np.uint8(0), (20, 30)), InputError, "read-only"),
    ],
)
def test_out_must_fit(out, error, words):
    with pytest.raises(error, match=words):
        check_out(out, GOOD)


@pytest.mark.parametrize("color", ["BGR", "gray", "", None, 3, ["bgr"]])
def test_unknown_colour_orders_are_named(color):
    with pytest.raises(InputError, match="color is"):
        image.check_color(color)
