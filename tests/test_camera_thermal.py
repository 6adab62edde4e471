"""Gain control over time, vendors' layouts, frozen frames, dead pixels, column noise."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pyldfusion.camera.corrections import ColumnNoise, DeadPixels, Freeze
from pyldfusion.camera.layouts import LAYOUTS, find_layout, register_layout
from pyldfusion.camera.sources import BadFrame
from pyldfusion.errors import InputError
from pyldfusion.thermal import GAINS, GainControl, to_8bit

from .camera_frames import frame

RNG = np.random.default_rng(0)
STREET = RNG.normal(7000, 60, (96, 128)).round().astype(np.uint16)


def with_hot_object(share=0.1):
    hot = STREET.copy()
    hot[: round(96 * share)] = 9500  # 100 K over the street, at 0.04 K a count
    return hot


@pytest.mark.parametrize("gain", ["percentiles", "plateau"])
def test_a_hot_object_does_not_make_the_picture_pump(gain):
    """At 30 Hz an object of 10 % of the picture comes in at once; the background is looked at."""
    control = GainControl(gain, smoothing=1.0)
    background = np.s_[48:]
    levels = []
    for k in range(60):
        levels.append(float(control(STREET if k < 10 else with_hot_object(), k / 30)[background].mean()))
    steps = np.abs(np.diff(levels))
    assert steps.max() < 5
    at_once = GainControl(gain, smoothing=0)
    jump = abs(float(at_once(with_hot_object(), 0)[background].mean()) - levels[0])
    assert jump > 100 or gain == "plateau"  # which is what is to be avoided; the plateau alone does much
    # after five time constants the mapping is the hot picture's own
    for k in range(60, 400):
        last = control(with_hot_object(), k / 30)
    assert np.abs(last.astype(int) - at_once(with_hot_object(), 0)).max() <= 2


def test_smoothing_follows_time_and_not_frames():
    results = []
    for rate in (9, 30):
        control = GainControl(smoothing=1.0)
        control(STREET, 0.0)
        for k in range(1, 2 * rate + 1):
            grey = control(with_hot_object(), k / rate)
        results.append(grey.astype(int))
    assert np.abs(results[0] - results[1]).max() <= 1


def test_without_smoothing_percentiles_are_those_of_a_single_frame():
    control = GainControl(smoothing=0)
    for k, ir in enumerate((STREET, with_hot_object())):
        assert np.abs(control(ir, k).astype(int) - to_8bit(ir)).max() <= 1  # by another formula


def test_a_fixed_range_is_the_same_in_every_frame():
    control = GainControl("fixed", (6800, 9500))
    for k, ir in enumerate((STREET, with_hot_object())):
        assert np.array_equal(control(ir, k), to_8bit(ir, (6800, 9500)))


def test_an_even_wall_is_not_stretched_to_noise():
    wall = RNG.normal(7000, 1.5, (96, 128)).round().astype(np.uint16)
    for gain in ("percentiles", "plateau"):
        assert GainControl(gain)(wall, 0.0).std() < 15
        assert GainControl(gain)(np.full((20, 20), 7000, np.uint16), 0.0).std() == 0


def by_hand(ir, plateau):
    """Plateau equalisation, pixel by pixel."""
    counts, often = np.unique(ir, return_counts=True)
    cut = np.minimum(often, max(1.0, plateau * ir.size))
    middle = (np.cumsum(cut) - cut / 2) / cut.sum()
    table = dict(zip(counts.tolist(), np.floor(127.5 + 255 * (middle - 0.5) + 0.5), strict=True))
    return np.vectorize(table.__getitem__)(ir)


def test_plateau_equalisation_by_hand():
    ir = with_hot_object()
    grey = GainControl("plateau", plateau=0.004)(ir, 0.0)
    assert np.array_equal(grey, by_hand(ir, 0.004))
    order = np.argsort(ir, axis=None, kind="stable")
    assert np.all(np.diff(grey.ravel()[order].astype(int)) >= 0)  # hotter is never darker


def test_time_that_goes_back_starts_anew():
    control = GainControl(smoothing=10)
    control(STREET, 100.0)
    assert np.array_equal(control(with_hot_object(), 3.0), GainControl()(with_hot_object(), 0.0))


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("plataeu",), "did you mean 'plateau'"),
        (("fixed",), "goes with 'fixed'"),
        (("plateau", (1, 2)), "goes with 'fixed'"),
        (("fixed", (5, 2)), "the lower one first"),
    ],
)
def test_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        GainControl(*arguments)
    assert len(GAINS) == 3


@pytest.mark.parametrize("option", [{"smoothing": -1}, {"plateau": 0}, {"max_gain": float("nan")}])
def test_refused_numbers(option):
    with pytest.raises(InputError, match=next(iter(option))):
        GainControl(**option)


COUNTS = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 17


def test_bytes_become_counts():
    pairs = COUNTS.astype("<u2").view(np.uint8).reshape(24, 32, 2)
    for image in (pairs, pairs.reshape(24, 64), COUNTS):
        assert np.array_equal(find_layout("y16")(image), COUNTS)


def test_double_frames():
    double = np.vstack([np.zeros_like(COUNTS), COUNTS])
    assert np.array_equal(find_layout("lower-half")(double), COUNTS)
    assert np.array_equal(find_layout("upper-half")(double), np.zeros_like(COUNTS))
    as_yuyv = double.astype("<u2").view(np.uint8).reshape(48, 32, 2)  # 256x384 cameras say they send YUYV
    assert np.array_equal(find_layout("lower-half")(as_yuyv), COUNTS)


def test_telemetry_rows_are_cut():
    assert np.array_equal(find_layout("telemetry-2")(COUNTS), COUNTS[:-2])
    assert np.array_equal(find_layout("telemetry-top-3")(COUNTS), COUNTS[3:])


def test_packed_counts_against_arithmetic_on_whole_numbers():
    values = RNG.integers(0, 1 << 14, (24, 32))
    rows = []
    for row in values:
        number = sum(int(value) << (14 * k) for k, value in enumerate(row))
        rows.append(np.frombuffer(number.to_bytes(32 * 14 // 8, "little"), np.uint8))
    unpacked = find_layout("packed-14")(np.stack(rows))
    assert unpacked.dtype == np.uint16 and np.array_equal(unpacked, values)


def test_flags_are_masked():
    assert np.array_equal(find_layout("mask-14")(COUNTS | 0xC000), COUNTS & 0x3FFF)


@pytest.mark.parametrize("name", [*LAYOUTS, "telemetry-40"])
def test_a_frame_that_does_not_fit_is_a_bad_frame(name):
    if name != "plain":
        with pytest.raises(BadFrame):
            find_layout(name)(np.zeros((23, 31, 3), np.uint8))


def test_layouts_by_name():
    with pytest.raises(InputError, match="did you mean 'lower-half'"):
        find_layout("lowerhalf")
    with pytest.raises(InputError, match="already"):
        register_layout("plain", lambda image: image)
    register_layout("test-mine", lambda image: image + 1)
    try:
        assert find_layout("test-mine")(np.zeros(1))[0] == 1
    finally:
        del LAYOUTS["test-mine"]


def test_frozen_frames():
    freeze = Freeze(after=0.3)
    pictures = [RNG.normal(7000, 5, (16, 16)).astype(np.uint16) for _ in range(40)]
    frozen = []
    for k in range(40):
        still = pictures[10] if 10 <= k < 28 else pictures[k]  # 0.6 s of a shutter at 30 Hz
        frozen.append(freeze(frame(k / 30, image=still)))
    assert not any(frozen[:19]) and all(frozen[20:28]) and not any(frozen[28:])


def test_frames_sent_three_times_are_not_frozen():
    freeze = Freeze()
    pictures = [RNG.normal(7000, 5, (16, 16)).astype(np.uint16) for _ in range(20)]
    assert not any(freeze(frame(k / 27, image=pictures[k // 3].copy())) for k in range(60))


def test_a_picture_that_changes_in_one_place_is_not_frozen():
    freeze = Freeze()
    still = RNG.normal(7000, 5, (24, 16)).astype(np.uint16)
    for k in range(60):
        changed = still.copy()
        changed[-1, -1] += k
        assert not freeze(frame(k / 30, image=changed))


def test_dead_pixels_are_found_and_mended():
    mend = DeadPixels(frames=10)
    places = ([5, 40, 95], [7, 60, 127])
    for k in range(15):
        ir = RNG.normal(7000, 20, (96, 128)).astype(np.uint16)
        ir[places] = (0, 16383, 9000)
        ir[20, k + 2] = 12000  # something small and hot that moves
        mended = mend(ir)
    assert np.count_nonzero(mend.dead) == 3 and mend.dead[places].all()
    assert np.abs(mended[places].astype(int) - 7000).max() < 100 and mended[20, 16] == 12000
    assert mended.dtype == np.uint16


def test_column_noise_is_taken_off():
    columns = RNG.normal(0, 25, 128)
    street = cv2.GaussianBlur(RNG.normal(7000, 400, (96, 128)), (0, 0), 6)
    clean = ColumnNoise(seconds=1.0)
    for k in range(60):
        noisy = (street + columns + RNG.normal(0, 4, street.shape)).round().astype(np.uint16)
        mended = clean(noisy, k / 30)

    def stripes(picture):
        return (picture - cv2.GaussianBlur(picture.astype(np.float64), (0, 0), 2)).mean(axis=0).std()

    assert stripes(mended) < 0.4 * stripes(noisy) and mended.dtype == np.uint16
