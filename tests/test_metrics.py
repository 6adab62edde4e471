"""pyldfusion.metrics against the original programs' values, the plain reference, other libraries and arithmetic."""

from __future__ import annotations

import csv
import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from pyldfusion import metrics
from pyldfusion.errors import DtypeError, InputError, PyldfusionError
from pyldfusion.metrics.tiles import tiles
from tests import reference_metrics as reference

ONE = {"EN": metrics.en, "SD": metrics.sd, "EI": metrics.ei, "SF": metrics.sf, "AG": metrics.ag}
THREE = {
    "CC": metrics.cc,
    "CC_uint8": metrics.cc_uint8,
    "VIFF": metrics.viff,
    "MI": metrics.mi,
    "Qabf": metrics.qabf,
    "SSIM": metrics.ssim,
}
# Agreement with the reference; float32 inside Qabf, and rounding in flat areas that VIFF's thresholds magnify.
TOLERANCE = {name: 1e-9 for name in metrics.NAMES} | {"Qabf": 1e-6, "VIFF": 1e-6}


def singly(fused: Any, ir: Any, vis: Any) -> dict[str, float]:
    """Every metric through its own function."""
    found = {name: metric(fused) for name, metric in ONE.items()}
    found |= {name: metric(fused, ir, vis) for name, metric in THREE.items()}
    return {name: found[name] for name in metrics.NAMES}


def noise(seed: int, height: int, width: int, sigma: float = 0.0) -> np.ndarray:
    """Random levels, smoothed to look like a picture if ``sigma`` is given."""
    picture = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    if sigma:
        smooth = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), sigma)
        picture = cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    return picture


def scene(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two smooth sources and a plausible fused picture, with noise so that every branch is met."""
    ir, vis = noise(1, height, width, 3), noise(2, height, width, 1.5)
    fused = 0.6 * ir + 0.5 * vis - 10 + np.random.default_rng(3).normal(0, 6, ir.shape)
    return np.clip(fused, 0, 255).astype(np.uint8), ir, vis


def flat_areas() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Constant blocks in each picture and in several at once, black, white and grey."""
    fused, ir, vis = scene(120, 170)
    fused[:60, 100:], ir[30:90, 90:140], vis[20:, 120:] = 255, 0, 77
    ir[80:, :70], vis[70:110, :50], fused[60:, :30] = 255, 0, 128
    return fused, ir, vis


def reversed_source() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A flat infrared and a negative visible picture: both gains are 0, and the tie goes to the visible."""
    fused = noise(4, 64, 80, 2)
    return fused, np.full_like(fused, 100), 255 - fused


def saturated() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Only black and white."""
    fused, ir, vis = scene(70, 61)
    return tuple(np.where(picture > 128, 255, 0).astype(np.uint8) for picture in (fused, ir, vis))  # type: ignore[return-value]


def faint() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A few levels only, so that constants and residuals weigh as much as the picture."""
    return tuple((picture // 40 + 90).astype(np.uint8) for picture in scene(60, 75))  # type: ignore[return-value]


TRIPLES = {
    "picture": scene(150, 203),
    "smallest for VIFF": scene(41, 41),
    "odd": scene(129, 261),
    "narrow": scene(300, 43),
    "noise": (noise(5, 90, 77), noise(6, 90, 77), noise(7, 90, 77)),
    "flat areas": flat_areas(),
    "reversed": reversed_source(),
    "saturated": saturated(),
    "faint": faint(),
}


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the reference's own 0 / 0
@pytest.mark.parametrize("triple", TRIPLES.values(), ids=TRIPLES.keys())
def test_equals_the_reference(triple):
    found, expected = metrics.evaluate(*triple), reference.evaluate(*triple)
    assert list(found) == list(metrics.NAMES) == list(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=TOLERANCE[name], abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("triple", TRIPLES.values(), ids=TRIPLES.keys())
def test_each_function_gives_the_value_in_evaluate(triple):
    assert singly(*triple) == pytest.approx(metrics.evaluate(*triple), rel=1e-12, nan_ok=True)


def test_values_of_the_original_programs(shared):
    folder = shared / "metrics"
    if not (folder / "metrics.csv").is_file():
        pytest.skip(f"no metrics.csv in {folder}")
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 25
    for row in rows:
        triple = [read_grey(folder / row[f"{kind}_path"]) for kind in ("fused", "ir", "vis")]
        found = metrics.evaluate(*triple)
        for name in ("EN", "CC", "CC_uint8", "SD", "EI"):
            assert found[name] == pytest.approx(float(row[name]), rel=1e-9), (row["name"], name)
        assert found["VIFF"] == pytest.approx(float(row["VIFF"]), rel=1e-4), row["name"]


def read_grey(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert picture.ndim == 2
    return picture


def test_ssim_is_scikit_images():
    for fused, ir, vis in TRIPLES.values():
        expected = [
            structural_similarity(
                source, fused, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
            )
            for source in (ir, vis)
        ]
        # scikit-image takes the mean inside a margin of half a window, which is where the window fits.
        assert metrics.ssim(fused, ir, vis) == pytest.approx(np.mean(expected), rel=1e-9)


def test_cc_and_sd_are_numpys():
    fused, ir, vis = TRIPLES["picture"]
    expected = (np.corrcoef(fused.ravel(), ir.ravel())[0, 1] + np.corrcoef(fused.ravel(), vis.ravel())[0, 1]) / 2
    assert metrics.cc(fused, ir, vis) == pytest.approx(expected, rel=1e-12)
    assert metrics.sd(fused) == pytest.approx(np.std(fused, dtype=np.float64), rel=1e-12)


def test_values_worked_out_by_hand():
    ramp = np.tile(np.arange(0, 200, 2, dtype=np.uint8), (50, 1))  # 100 levels, 2 a column
    assert metrics.en(ramp) == pytest.approx(math.log2(100))
    assert metrics.sd(ramp) == pytest.approx(2 * math.sqrt((100**2 - 1) / 12))
    assert metrics.sf(ramp) == pytest.approx(math.sqrt(4 * 99 / 100))
    assert metrics.ag(ramp) == pytest.approx(math.sqrt(4 / 2))
    assert metrics.ei(ramp) == pytest.approx((98 * 16 + 2 * 8) / 100)  # half the slope at a replicated border
    halves = np.zeros((40, 40), np.uint8)
    halves[:, 20:] = 255
    assert metrics.en(halves) == 1
    assert metrics.sd(halves) == 127.5
    assert metrics.mi(halves, halves, halves.T) == pytest.approx(1)  # one bit from the first, none from the other
    assert metrics.cc(halves, halves, halves.T) == pytest.approx(0.5)
    assert metrics.cc(halves, halves, 255 - halves) == pytest.approx(0)


def test_cc_uint8_worked_out_by_hand():
    # Means 5 and 6; deviations -5 5 -5 5 and -6 2 -6 10 become 0 5 0 5 and 0 2 0 10.
    x, y = np.array([[0, 10, 0, 10]], np.uint8), np.array([[0, 8, 0, 16]], np.uint8)
    expected = (5 * 2 + 5 * 10) / math.sqrt(50 * 104)
    assert metrics.cc_uint8(y, x, x) == pytest.approx(expected)
    # Mean 60: deviations 0 and 180, whose square is clipped to 255.
    z = np.array([[0, 0, 0, 240]], np.uint8)
    assert metrics.cc_uint8(y, x, z) == pytest.approx((expected + 255 / math.sqrt(255 * 104)) / 2)


def test_a_picture_fused_from_itself_scores_best():
    picture = noise(8, 80, 90, 2)
    found = metrics.evaluate(picture, picture, picture)
    assert found["CC"] == pytest.approx(1)
    assert found["CC_uint8"] == pytest.approx(1)
    assert found["SSIM"] == pytest.approx(1)
    assert found["VIFF"] == pytest.approx(1)
    assert found["MI"] == pytest.approx(2 * found["EN"])
    best = 0.9994 / (1 + math.exp(-15 * 0.5)) * 0.9879 / (1 + math.exp(-22 * 0.2))
    assert found["Qabf"] == pytest.approx(best, rel=1e-6)


def test_more_contrast_is_more_fidelity_and_less_is_less():
    picture = (noise(9, 100, 100, 2) // 2 + 60).astype(np.uint8)
    stretched = ((picture.astype(int) - 124) * 3 // 2 + 124).astype(np.uint8)
    faded = ((picture.astype(int) - 124) // 2 + 124).astype(np.uint8)
    assert metrics.viff(faded, picture, picture) < 0.9 < 1.1 < metrics.viff(stretched, picture, picture)


def test_opposite_edges_have_one_direction_for_qabf():
    picture = noise(10, 60, 60, 2)
    assert metrics.qabf(255 - picture, picture, picture) == metrics.qabf(picture, picture, picture)


shapes = st.tuples(st.integers(1, 60), st.integers(1, 60))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(shape=shapes, seed=st.integers(0, 2**32 - 1), levels=st.sampled_from([1, 2, 5, 256]))
@pytest.mark.filterwarnings("ignore:(VIFF|SSIM) needs:RuntimeWarning")
def test_any_size_gives_numbers_in_their_range(shape, seed, levels):
    rng = np.random.default_rng(seed)
    triple = [(rng.integers(0, levels, shape) * (255 // max(levels - 1, 1))).astype(np.uint8) for _ in range(3)]
    found = metrics.evaluate(*triple)
    assert found == pytest.approx(singly(*triple), rel=1e-12, nan_ok=True)
    tops = {"EN": 8, "CC": 1, "SD": 127.5, "MI": 16, "Qabf": 1, "SSIM": 1}
    for name, value in found.items():
        low, high = -1 if name in ("CC", "SSIM") else 0, tops.get(name, math.inf)
        assert math.isnan(value) or low - 1e-9 <= value <= high + 1e-9, name
    assert math.isnan(found["VIFF"]) == (min(shape) < 41)
    assert math.isnan(found["SSIM"]) == (min(shape) < 11)
    assert math.isnan(found["AG"]) == (min(shape) < 2)
    # Two symmetries, and what breaks them: Qabf's direction of no gradient, VIFF's ties to the second source.
    transposed = metrics.evaluate(*(picture.T for picture in triple))
    assert transposed | {"Qabf": 0} == pytest.approx(found | {"Qabf": 0}, rel=1e-6, abs=1e-12, nan_ok=True)
    swapped = metrics.evaluate(triple[0], triple[2], triple[1])
    assert swapped | {"VIFF": 0} == pytest.approx(found | {"VIFF": 0}, rel=1e-6, abs=1e-12, nan_ok=True)


def test_constant_pictures():
    flat, picture = np.full((50, 60), 30, np.uint8), noise(11, 50, 60, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metrics.evaluate(flat, picture, picture)
        nothing = metrics.evaluate(flat, flat, flat)
    assert [found[name] for name in ("EN", "SD", "EI", "SF", "AG", "MI")] == [0] * 6
    assert math.copysign(1, found["EN"]) == 1
    assert math.isnan(found["CC"])
    assert math.isnan(found["CC_uint8"])
    assert found["Qabf"] < 1e-3
    assert found["VIFF"] < 1e-3  # nothing of the sources is in it
    assert math.isnan(nothing["Qabf"])
    assert nothing["SSIM"] == pytest.approx(1)


@pytest.mark.parametrize(("metric", "name", "side"), [(metrics.viff, "VIFF", 41), (metrics.ssim, "SSIM", 11)])
def test_windows_need_room(metric, name, side):
    for height, width in product((side, side - 1), (side + 20, side, side - 1)):
        triple = [noise(seed, height, width) for seed in range(3)]
        if min(height, width) == side:
            assert metric(*triple) == pytest.approx(getattr(reference, name.lower())(*triple), rel=1e-9)
            continue
        with pytest.warns(RuntimeWarning, match=f"{name} needs {side} pixels.*{width}x{height}") as caught:
            assert math.isnan(metric(*triple))
        assert caught[0].filename == __file__


def test_small_pictures_warn_once_each():
    with pytest.warns(RuntimeWarning) as caught:
        found = metrics.evaluate(*(noise(seed, 10, 10) for seed in range(3)))
    assert [str(warning.message)[:4] for warning in caught] == ["VIFF", "SSIM"]
    assert {warning.filename for warning in caught} == {__file__}
    assert all(math.isfinite(value) for name, value in found.items() if name not in ("VIFF", "SSIM"))


def test_the_three_ways_to_store_levels_agree():
    triple = TRIPLES["odd"]
    expected = metrics.evaluate(*triple)
    for convert in (
        lambda x: x.astype(np.uint16) * 257,
        lambda x: x.astype(">u2") * np.array(257, ">u2"),
        lambda x: x / 255,
        lambda x: (x / 255).astype(np.float32),
        lambda x: x[:, :, None],
        lambda x: np.dstack([x, x, x]),
    ):
        assert metrics.evaluate(*(convert(picture) for picture in triple)) == expected


def test_deeper_levels_are_rounded_not_cut():
    around = np.array([[128, 129, 385, 386, 65535, 0]], np.uint16)  # 0.498 0.502 1.498 1.502 of 257
    assert metrics.sd(around) == metrics.sd(np.array([[0, 1, 1, 2, 255, 0]], np.uint8))
    assert metrics.sd(np.array([[0.4, 0.6, 1.4, 1.6]]) / 255) == metrics.sd(np.array([[0, 1, 1, 2]], np.uint8))


def test_colour_becomes_grey_by_matlabs_weights():
    def level(*bgr: int) -> int:
        """The grey level, found by which uint8 it is as different from black as."""
        picture = np.zeros((1, 2, 3), np.uint8)
        picture[0, 1] = bgr
        return round(2 * metrics.sd(picture))

    assert [level(255, 0, 0), level(0, 255, 0), level(0, 0, 255)] == [29, 150, 76]
    assert level(1, 2, 3) == 2  # 2.18
    assert level(200, 100, 50) == 96  # 96.455
    assert all(level(v, v, v) == v for v in range(256))


def test_colour_is_weighted_to_the_last_digit():
    colour = np.random.default_rng(12).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    blue, green, red = (colour[:, :, i].astype(np.int64) for i in range(3))
    grey = ((114021 * blue + 587043 * green + 298936 * red + 500000) // 10**6).astype(np.uint8)
    assert metrics.evaluate(grey, colour, grey) == metrics.evaluate(grey, grey, grey)  # SSIM, CC and VIFF are 1


def test_views_of_other_arrays():
    big = [noise(seed, 130, 180, 2) for seed in range(3)]
    views = [picture[::-1, 5:160:2].T for picture in big]
    assert not any(view.flags.c_contiguous for view in views)
    expected = metrics.evaluate(*(view.copy() for view in views))
    assert metrics.evaluate(*views) == expected
    assert singly(*views) == pytest.approx(expected, rel=1e-12)
    colour = [np.dstack([picture, picture // 2, picture])[:, ::-1, ::-1] for picture in big]
    assert metrics.evaluate(*colour) == metrics.evaluate(*(picture.copy() for picture in colour))


def test_arguments_are_left_as_they_were():
    triple = [picture.copy() for picture in TRIPLES["flat areas"]]
    for picture in triple:
        picture.flags.writeable = False
    metrics.evaluate(*triple)
    assert all((a == b).all() for a, b in zip(triple, TRIPLES["flat areas"], strict=True))


def test_several_threads_at_once():
    triples = [TRIPLES["picture"], TRIPLES["odd"], TRIPLES["noise"]] * 2
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda triple: metrics.evaluate(*triple), triples))
    assert found == [metrics.evaluate(*triple) for triple in triples]


good = np.zeros((50, 60), np.uint8)
HOSTILE = {
    "empty": (np.zeros((0, 60), np.uint8), InputError, "empty"),
    "one dimension": (np.zeros(60, np.uint8), InputError, r"\[H, W\].*got \[60\]"),
    "two channels": (np.zeros((50, 60, 2), np.uint8), InputError, r"got \[50, 60, 2\]"),
    "alpha": (np.zeros((50, 60, 4), np.uint8), InputError, r"got \[50, 60, 4\]"),
    "batch": (np.zeros((1, 50, 60, 3), np.uint8), InputError, r"got \[1, 50, 60, 3\]"),
    "NaN": (np.where(np.arange(60) == 7, np.nan, 0.5 + good), InputError, r"\[0, 1\], got nan"),
    "infinite": (np.where(np.arange(60) == 7, np.inf, 0.5 + good), InputError, "got 0.5 to inf"),
    "float up to 255": (np.full((50, 60), 255.0), InputError, r"\[0, 1\], got 255 to 255"),
    "negative": (np.full((50, 60), -0.1, np.float32), InputError, "got -0.1"),
    "int32": (good.astype(np.int32), DtypeError, "int32"),
    "int8": (good.astype(np.int8), DtypeError, "int8"),
    "bool": (good > 0, DtypeError, "bool"),
    "complex": (good.astype(complex), DtypeError, "complex"),
    "object": (good.astype(object), DtypeError, "object"),
    "list": ([[1, 2], [3, 4]], DtypeError, "list"),
    "None": (None, DtypeError, "None"),
}


@pytest.mark.parametrize(("bad", "error", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_unusable_pictures_are_refused_by_name(bad, error, message):
    assert issubclass(error, PyldfusionError)
    for place, name in enumerate(("fused", "ir", "vis")):
        triple: list[Any] = [good, good, good]
        triple[place] = bad
        for metric in (metrics.evaluate, *THREE.values()):
            with pytest.raises(error, match=f"^{name}: .*{message}"):
                metric(*triple)
    for metric in ONE.values():
        with pytest.raises(error, match=f"^fused: .*{message}"):
            metric(bad)


def test_sizes_that_differ_are_refused():
    with pytest.raises(InputError, match="fused 60x50, ir 60x50, vis 59x50"):
        metrics.evaluate(good, good, good[:, 1:])
    with pytest.raises(InputError, match="fused 50x60, ir 60x50, vis 60x50"):
        metrics.cc(good.T, good, good)


@pytest.mark.parametrize("overlap", [0, 1, 16])
@pytest.mark.parametrize("shape", [(17, 17), (128, 129), (300, 40), (113, 257)])
def test_tiles_cover_every_window_once(shape, overlap):
    rows, columns = np.indices(shape)
    seen = np.zeros(shape, int)
    for y, x in tiles(rows, columns, overlap=overlap):
        height, width = y.shape
        assert (y - y[0, 0] == np.arange(height)[:, None]).all()
        assert (x - x[0, 0] == np.arange(width)).all()
        assert height > overlap
        assert width > overlap
        starts = slice(height - overlap), slice(width - overlap)
        seen[y[starts], x[starts]] += 1
    inside = np.zeros(shape, int)
    inside[: shape[0] - overlap, : shape[1] - overlap] = 1
    assert (seen == inside).all()
