"""16-bit infrared frames brought to 8 bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pyldfusion.errors import InputError
from pyldfusion.thermal import check_range, percentile_range, to_8bit, to_counts

frames = hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))


@settings(max_examples=150, deadline=None)
@given(frames, st.tuples(st.floats(0, 100), st.floats(0, 100)))
def test_percentiles_are_numpys(ir, percentiles):
    assert percentile_range(ir, percentiles) == pytest.approx(np.percentile(ir, percentiles), rel=1e-9, abs=1e-6)


def test_percentiles_of_a_camera_like_frame():
    ir = np.random.default_rng(0).normal(30000, 400, (479, 641)).astype(np.uint16)
    assert percentile_range(ir) == pytest.approx(np.percentile(ir, (0.5, 99.5)), rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16, np.int32])
def test_temperatures_become_counts(dtype):
    given = np.random.default_rng(1).normal(300, 40, (50, 61)).astype(dtype)
    low, high = np.percentile(given, (0.5, 99.5))
    for thermal, (a, b) in ((None, (low, high)), ((250, 320), (250, 320))):
        expected = np.clip((given.astype(np.float64) - a) / (b - a), 0, 1) * 65535
        counts = to_counts(given, thermal)
        assert counts.dtype == np.uint16 and np.abs(counts - expected).max() <= 0.51
        assert np.array_equal(to_counts(given[::-1, ::-1], thermal), counts[::-1, ::-1])
    assert (to_counts(np.full((4, 5), 21.5)) == 0).all()


def by_hand(ir, low, high):
    scaled = (ir.astype(np.float64) - low) * 255 / (high - low)
    return np.clip(np.floor(scaled + 0.5), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("view", [np.s_[:, :], np.s_[::-1, ::2], np.s_[3:, ::-3]])
def test_default_range_is_the_percentiles(view):
    ir = np.random.default_rng(1).integers(7000, 9000, (60, 77)).astype(np.uint16)[view]
    ir[0, 0], ir[1, 1] = 0, 65535  # outliers do not count
    scaled = to_8bit(ir)
    assert scaled.dtype == np.uint8 and scaled.flags.c_contiguous
    assert np.array_equal(scaled, by_hand(ir, *np.percentile(ir, (0.5, 99.5))))
    assert scaled[0, 0] == 0 and scaled[1, 1] == 255


@pytest.mark.parametrize("low, high", [(0, 65535), (29000, 31000), (-500.5, 100), (30000.25, 30000.75), (70000, 80000)])
def test_a_given_range_is_kept(low, high):
    ir = np.random.default_rng(2).integers(28000, 32000, (31, 17)).astype(np.uint16)
    assert np.array_equal(to_8bit(ir, (low, high)), by_hand(ir, low, high))


@pytest.mark.parametrize("value", [0, 1234, 65535])
def test_a_constant_frame_is_black(value):
    assert not to_8bit(np.full((16, 16), value, np.uint16)).any()


def test_one_hot_pixel_in_a_constant_frame_stays_visible():
    ir = np.full((100, 100), 5000, np.uint16)
    ir[50, 50] = 5400
    assert to_8bit(ir)[50, 50] == 255 and to_8bit(ir).sum() == 255


@pytest.mark.parametrize(
    "thermal", [(1,), (1, 2, 3), "ab", 5, (5, 5), (9, 3), (0, float("nan")), (0, float("inf")), (None, 3), (1j, 2)]
)
def test_bad_ranges_are_named(thermal):
    with pytest.raises(InputError, match="thermal is"):
        check_range(thermal)


def test_good_ranges_become_floats():
    assert check_range(None) is None
    assert check_range(np.array([3, 8], np.uint16)) == (3.0, 8.0)
