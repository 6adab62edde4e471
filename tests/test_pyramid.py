"""The native pyramid against its plain reference, and what must hold for any pair."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from pyldfusion import kernels
from pyldfusion.errors import DtypeError, InputError
from pyldfusion.kernels import PyramidLook

from . import reference


def picture(seed: int, height: int, width: int, flat: int = 0) -> np.ndarray:
    """Steps and waves with a little noise, and ``flat`` columns with noise alone; float32 in [0, 1]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 20 + seed
    structure = 0.5 + 0.2 * np.sign(np.sin(1.3 * x + 0.4 * y)) + 0.15 * np.sin(5 * y - 2 * x * seed)
    structure[:, :flat] = 0.4
    return np.clip(structure + 0.01 * random.standard_normal(structure.shape), 0, 1).astype(np.float32)


class TestAgainstTheReference:
    # float32, and noise floors from a histogram of 128 steps an octave
    TOLERANCE = 2e-3

    @pytest.mark.parametrize("size", [(16, 16), (17, 33), (96, 128), (65, 257), (33, 514), (130, 41)])
    def test_sizes(self, size):
        ir, vis = picture(1, *size), picture(2, *size)
        fused = kernels.pyramid(ir, vis)
        assert fused.dtype == np.float32 and fused.shape == size
        assert np.abs(fused - reference.pyramid(ir, vis, PyramidLook())).max() < self.TOLERANCE

    @pytest.mark.parametrize("size", [(1, 1), (3, 2), (1, 40), (300, 2)])
    def test_tiny_planes_give_finite_pictures(self, size):
        fused = kernels.pyramid(picture(1, *size), picture(2, *size))
        assert np.isfinite(fused).all() and fused.min() >= 0 and fused.max() <= 1

    @pytest.mark.parametrize(
        "look",
        [
            PyramidLook(edge=(0.5, 0.01, 0.2), gain=(1.0, 4.0, 0.0), choice=(1, 4, 2)),
            PyramidLook(strong=0.3, coring=5.0, floor_gain=1.0, quiet=0.15, hot=0.2, hot_lift=1.0, hot_keep=1.0),
            PyramidLook(mean=0.3, deviation=0.6, knee=0.1, least_noise=0.2, least_contrast=0.3, hot_keep=0.0),
        ],
    )
    def test_looks(self, look):
        ir, vis = picture(3, 70, 91, flat=40), picture(4, 70, 91)
        error = np.abs(kernels.pyramid(ir, vis, look) - reference.pyramid(ir, vis, look))
        # the noise floor's rounding times five, where coring is
        assert error.mean() < 5e-4 and error.max() < 0.01

    def test_bytes_in_and_out(self):
        ir, vis = (np.rint(picture(seed, 60, 77) * 255).astype(np.uint8) for seed in (1, 2))
        fused = kernels.pyramid(ir, vis, dtype=np.uint8)
        expected = reference.pyramid(ir, vis, PyramidLook()) * 255
        assert fused.dtype == np.uint8
        assert np.abs(fused - expected).max() < 0.5 + 255 * self.TOLERANCE
        as_floats = kernels.pyramid(ir.astype(np.float32) / 255, vis)
        np.testing.assert_allclose(as_floats, kernels.pyramid(ir, vis), atol=1e-4)

    def test_extreme_values(self):
        ir, vis = picture(1, 40, 50), picture(2, 40, 50)
        ir[3:6, 4:9], ir[20, 20], vis[1, 1] = np.nan, np.inf, -5
        fused = kernels.pyramid(ir, vis)
        assert np.isfinite(fused).all() and fused.min() >= 0 and fused.max() <= 1
        assert np.abs(fused - reference.pyramid(ir, vis, PyramidLook())).max() < self.TOLERANCE


class TestLayouts:
    def test_strides_do_not_matter(self):
        ir, vis = picture(1, 50, 61), picture(2, 50, 61)
        expected = kernels.pyramid(ir, vis)
        reversed_ir = np.ascontiguousarray(ir[::-1, ::-1])[::-1, ::-1]
        wide = np.zeros((50, 122), np.float32)
        wide[:, ::2] = vis
        out = np.zeros((100, 61), np.float32)
        given = kernels.pyramid(reversed_ir, wide[:, ::2], out=out[::2])
        assert np.array_equal(given, expected) and np.array_equal(out[::2], expected) and not out[1::2].any()
        unaligned = np.zeros(50 * 61 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(50, 61)
        unaligned[:] = ir
        assert np.array_equal(kernels.pyramid(unaligned, vis), expected)
        columns = np.zeros((50, 122), np.uint8)
        kernels.pyramid(ir, vis, out=columns[:, ::2])
        assert np.array_equal(columns[:, ::2], kernels.pyramid(ir, vis, dtype=np.uint8))

    def test_threads_and_the_workspace_do_not_matter(self):
        ir, vis = picture(1, 700, 900), picture(2, 700, 900)
        space = kernels.pyramid_workspace(701, 900)
        space[:] = np.nan
        expected = kernels.pyramid(ir, vis, threads=1)
        assert np.array_equal(kernels.pyramid(ir, vis, threads=3, workspace=space), expected)

    def test_sources_are_only_read(self):
        ir, vis = picture(1, 30, 30), picture(2, 30, 30)
        ir.flags.writeable = vis.flags.writeable = False
        kernels.pyramid(ir, vis)


class TestWhatMustHold:
    def test_constant_planes_give_a_constant_picture(self):
        flat = np.full((40, 50), 0.4, np.float32)
        fused = kernels.pyramid(flat, flat)
        assert np.ptp(fused) < 1e-4 and abs(float(fused.mean()) - PyramidLook().mean) < 1e-3
        for value in (0, 255):
            extreme = np.full((33, 17), value, np.uint8)
            assert np.ptp(kernels.pyramid(extreme, extreme)) < 1e-4

    def test_a_useless_source_is_left_out(self):
        vis = picture(3, 120, 160)
        for useless in (0.0, 0.5, 1.0):
            fused = kernels.pyramid(np.full_like(vis, useless), vis)
            assert np.corrcoef(fused.ravel(), vis.ravel())[0, 1] > 0.97

    def test_noise_on_a_flat_wall_is_damped_and_texture_is_raised(self):
        random = np.random.default_rng(0)
        step = np.full((128, 128), 0.3, np.float32)
        step[:, 64:] = 0.7
        vis = step + 0.01 * random.standard_normal(step.shape).astype(np.float32)
        vis[:, 64:] += 0.06 * np.sin(np.arange(128) * 1.2)[:, None]
        fused = kernels.pyramid(step, vis)
        stretch = PyramidLook().deviation / vis.std()
        flat, textured = (slice(16, 112), slice(16, 48)), (slice(16, 112), slice(80, 112))
        assert fused[flat].std() < 0.5 * stretch * vis[flat].std()
        assert fused[textured].std() > 1.1 * stretch * vis[textured].std()

    def test_opposite_steps_leave_no_halo(self):
        """A bright sky over a dark roof, cold over warm in the infrared."""
        vis, ir = (np.full((96, 96), value, np.float32) for value in (0.9, 0.1))
        vis[48:], ir[48:] = 0.2, 0.6
        random = np.random.default_rng(1)
        for plane in (vis, ir):
            plane += 0.005 * random.standard_normal(plane.shape).astype(np.float32)
        # what counts as a step decides: the default takes a little more for detail, which is raised
        for look, most in ((PyramidLook(edge=(0.07, 0.07, 0.07)), 0.06), (PyramidLook(), 0.065)):
            fused = kernels.pyramid(ir, vis, look).mean(axis=1)
            above, below = fused[20:44], fused[52:76]
            assert np.ptp(above) < most and np.ptp(below) < most

    def test_hot_things_are_bright(self):
        vis = 0.3 + 0.05 * picture(2, 96, 128)
        ir = np.full_like(vis, 0.2)
        ir[40:60, 60:70] = 0.95
        fused = kernels.pyramid(ir, vis)
        around = fused.copy()
        around[34:66, 54:76] = np.nan
        assert fused[44:56, 63:67].min() > 0.85 and fused[44:56, 63:67].mean() > np.nanmax(around)

    def test_hot_things_have_no_dark_rim(self):
        """A person before a wall: as blurred as a camera blurs it, and the visible picture shows nothing there."""
        vis = 0.3 + 0.05 * picture(2, 96, 128)
        person = np.zeros((96, 128), np.float32)
        person[30:66, 56:72] = 1
        ir = 0.2 + 0.7 * cv2.GaussianBlur(person, (0, 0), 1.5)
        near = cv2.dilate(person, np.ones((15, 15))) - cv2.dilate(person, np.ones((9, 9))) > 0
        bare = np.full_like(ir, 0.2)

        def darkest(keep: float) -> float:
            look = PyramidLook(hot_keep=keep, edge=(0.4, 0.1, 0.05))  # which alone takes much of a step for detail
            # the wall without the person, in the same tones
            with_person, wall = kernels.pyramid(ir, vis, look), kernels.pyramid(bare, vis, look)
            slope, level = np.polyfit(wall[:, :30].ravel(), with_person[:, :30].ravel(), 1)
            return float((with_person - (slope * wall + level))[near].min())

        assert darkest(0.9) > 0.7 * darkest(0.0)
        assert darkest(0.9) > -0.05

    def test_what_hot_things_show_within_is_seen(self):
        """Folds of a jacket on a cold night."""
        vis = 0.1 + 0.05 * picture(2, 120, 160)
        ir = np.full_like(vis, 0.1)
        ir[40:80, 60:90] = 0.9 + 0.04 * np.sin(np.arange(30) * 0.8)

        def inside(**change: float) -> np.ndarray:
            return kernels.pyramid(ir, vis, PyramidLook(**change))[46:74, 66:84]

        seen, burnt = inside(), inside(hot_room=1000.0)
        assert seen.max() < 253 / 255 and seen.min() > 0.8
        assert seen.std() > 1.4 * burnt.std()

    def test_a_small_change_of_the_scene_is_a_small_change_of_the_picture(self):
        ir, vis = picture(1, 120, 160, flat=60), picture(2, 120, 160, flat=60)
        before = kernels.pyramid(ir, vis)
        ir[100:110, 100:110] = 1.0  # something hot comes into view
        still = np.abs(kernels.pyramid(ir, vis) - before)[:80, :80]
        assert still.mean() < 0.02


class TestWrongArguments:
    ok = np.zeros((20, 30), np.float32)

    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            ((ok.astype(np.float64), ok), DtypeError, "ir is float64; expected uint8, float32"),
            ((ok, ok[None]), InputError, "vis has shape"),
            ((ok, ok[:10]), InputError, "ir is 30x20 and vis is 30x10"),
            ((ok[:0], ok[:0]), InputError, "at least 1x1"),
        ],
    )
    def test_planes(self, given, error, message):
        with pytest.raises(error, match=message):
            kernels.pyramid(*given)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"out": ok}, "overlaps an input"),
            ({"out": np.zeros((20, 31), np.float32)}, "out has shape"),
            ({"out": np.zeros((20, 30))}, "out is float64"),
            ({"dtype": np.float64}, "dtype is float64"),
            ({"dtype": "float"}, "dtype is float64"),
            ({"dtype": "flaot32"}, "dtype is 'flaot32'"),
            ({"workspace": np.zeros(3)}, "workspace has 3 elements"),
            ({"workspace": [1.0]}, "workspace is not"),
            ({"threads": 0}, "threads is 0"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(InputError, match=message):
            kernels.pyramid(self.ok, self.ok, **options)

    def test_a_workspace_of_no_size(self):
        with pytest.raises(InputError, match="planes of 10x-5"):
            kernels.pyramid_workspace(-5, 10)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"edge": (0.0, 0.1, 0.1)}, "edge is"),
            ({"gain": (1.0, 2.0)}, "gain is"),
            ({"gain": 2.0}, "gain is 2.0; expected three"),
            ({"strong": (1.0,) * 3}, "expected a finite number"),
            ({"choice": (4, 3, 1)}, "choice is"),
            ({"coring": float("nan")}, "coring is nan"),
            ({"mean": 1.2}, "mean is 1.2"),
            ({"knee": -1.0}, "knee is -1.0"),
        ],
    )
    def test_looks(self, change, message):
        with pytest.raises(InputError, match=message):
            replace(PyramidLook(), **change)
