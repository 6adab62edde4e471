"""Fuser: any frame a user has, through the whole of it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import warnings

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyldfusion import Fuser, fuser
from pyldfusion.artefact import BUNDLED, WEIGHTS
from pyldfusion.errors import ArtefactError, DtypeError, EngineError, InputError, PyldfusionError
from pyldfusion.registration import Registration

from .test_image import DTYPES, in_levels, random_frame

H, W = 50, 67


@pytest.fixture(scope="module")
def lite(models):
    with Fuser(models / "lite.onnx", engine="onnxruntime") as opened:
        yield opened


@pytest.fixture
def pair():
    rng = np.random.default_rng(5)
    both = cv2.GaussianBlur(rng.random((H, W, 4), np.float32), (0, 0), 3)
    both = cv2.normalize(both, None, 20, 235, cv2.NORM_MINMAX).astype(np.uint8)
    return both[..., 0].copy(), both[..., 1:].copy()


def same(a, b, levels=0):
    return a.shape == b.shape and a.dtype == b.dtype and np.abs(a.astype(float) - b.astype(float)).max() <= levels


class TestForms:
    """One pair in every form that is accepted gives one picture."""

    def test_a_pair_becomes_a_picture(self, lite, pair):
        ir, vis = pair
        kept = ir.copy(), vis.copy()
        fused = lite.fuse(ir, vis)
        assert fused.shape == vis.shape and fused.dtype == np.uint8
        assert np.array_equal(ir, kept[0]) and np.array_equal(vis, kept[1])
        assert not np.array_equal(fused, vis)
        # one number is added to all channels of a pixel
        added = fused.astype(int) - vis
        free = ((fused > 0) & (fused < 255)).all(2)
        assert free.mean() > 0.5 and np.ptp(added[free], axis=1).max() <= 1

    def test_infrared_of_any_depth_and_channels(self, lite, pair):
        ir, vis = pair
        expected = lite.fuse(ir, vis)
        for form in (ir[..., None], np.repeat(ir[..., None], 3, 2), ir / 255, (ir / 255).astype(np.float32)):
            assert same(lite.fuse(form, vis), expected)
        assert same(lite.fuse(ir.astype(np.uint16) * 257, vis, thermal=(0, 65535)), expected)

    @pytest.mark.parametrize("size", [40, 61])
    def test_infrared_of_another_size_is_resized(self, lite, pair, size):
        ir, vis = pair
        height, width = vis.shape[:2]
        other = cv2.resize(ir, (round(size * width / height), size))
        expected = lite.fuse(Registration().place(other, (width, height))[0], vis)
        assert same(lite.fuse(other, vis), expected)
        assert same(next(lite.stream([(other, vis)])), expected)
        with pytest.raises(InputError, match=r"differ by more than 2 % in aspect.*Fuser\(registration=\)"):
            lite.fuse(other[:, : other.shape[1] // 2], vis)

    def test_rgb_is_bgr_turned_round(self, lite, pair, models):
        ir, vis = pair
        expected = lite.fuse(ir, vis)[..., ::-1]
        rgb = vis[..., ::-1]
        assert same(lite.fuse(ir, rgb, color="rgb"), expected)
        with Fuser(models / "lite.onnx", engine="onnxruntime", color="rgb") as other:
            assert same(other.fuse(ir, rgb), expected)
            assert same(other.fuse(ir, vis, color="bgr"), lite.fuse(ir, vis))

    def test_grey_is_colour_without_colour(self, lite, pair):
        ir, vis = pair
        grey = vis[..., 1]
        expected = lite.fuse(ir, np.repeat(grey[..., None], 3, 2))
        assert same(lite.fuse(ir, grey), expected[..., 0])
        assert same(lite.fuse(ir, grey[..., None]), expected[..., :1])

    @pytest.mark.parametrize("channels", [0, 1, 3])
    @pytest.mark.parametrize("dtype", DTYPES[1:])
    def test_deep_visible_frames_keep_their_depth(self, lite, pair, dtype, channels):
        ir, vis8 = pair
        vis8 = {0: vis8[..., 0], 1: vis8[..., :1], 3: vis8}[channels]
        deep = vis8.astype(np.uint16) * 257 if dtype == "uint16" else (vis8 / 255).astype(dtype)
        fused = lite.fuse(ir, deep)
        assert fused.dtype == deep.dtype and fused.shape == deep.shape
        # frames of 8 bits in a deeper dtype: the same picture, but for the rounding of float16
        tolerance = 0.2 if dtype == "float16" else 1e-4
        assert np.abs(in_levels(fused) - lite.fuse(ir, vis8)).max() <= tolerance

    def test_fine_gradients_survive(self, lite, pair):
        """A ramp finer than 8 bits is still one afterwards."""
        ir, _ = pair
        ramp = np.tile(np.linspace(20000, 20000 + 200, W).astype(np.uint16), (H, 1))
        fused = lite.fuse(np.full_like(ir, 90), ramp)
        assert len(np.unique(fused)) > 40

    @pytest.mark.parametrize("size", [(16, 16), (17, 33), (479, 641)])
    @pytest.mark.parametrize("engine", [None, "torch"])
    def test_any_size(self, models, size, engine):
        ir, vis = random_frame(1, size, "uint8"), random_frame(2, (*size, 3), "uint8")
        with Fuser(models / "lite.onnx", engine=engine) as any_size:
            assert any_size.fuse(ir, vis).shape == vis.shape

    def test_views_without_contiguous_memory(self, lite, pair):
        ir, vis = pair
        big = np.zeros((2 * H, 3 * W, 4), np.uint8)
        big[::2, ::3, 3], big[::2, ::3, :3] = ir, vis
        expected = lite.fuse(ir, vis)
        assert same(lite.fuse(big[::2, ::3, 3], big[::2, ::3, :3]), expected)
        backwards = np.ascontiguousarray(ir[::-1, ::-1])[::-1, ::-1], np.asfortranarray(vis)
        assert same(lite.fuse(*backwards), expected)
        vis.setflags(write=False)
        assert same(lite.fuse(ir, vis), expected)

    def test_the_other_byte_order(self, lite, pair):
        ir, vis = pair
        deep = vis.astype(np.uint16) * 257
        fused = lite.fuse(ir.astype(">u2"), deep.astype(">u2"))
        assert fused.dtype == np.dtype(">u2")
        assert np.array_equal(fused, lite.fuse(ir.astype(np.uint16), deep))


class TestOut:
    """Where the result goes, and whose it is."""

    def test_results_are_the_callers(self, lite, pair):
        ir, vis = pair
        first = lite.fuse(ir, vis)
        kept = first.copy()
        first_again = lite.fuse(255 - ir, vis[::-1])
        assert np.array_equal(first, kept) and not np.shares_memory(first, first_again)
        assert not np.shares_memory(first, vis) and first.flags.writeable

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_into_a_buffer(self, lite, pair, dtype):
        ir, vis = pair
        vis = random_frame(3, vis.shape, dtype)
        expected = lite.fuse(ir, vis)
        out = np.zeros((H, 2 * W, 3), dtype)[:, ::2]
        assert lite.fuse(ir, vis, out) is out and np.array_equal(out, expected)
        assert lite.fuse(ir, vis, out=vis) is vis and np.array_equal(vis, expected)

    def test_into_a_part_of_the_input(self, lite, pair):
        ir, vis = pair
        memory = np.zeros((H + 1, W, 3), np.uint8)
        memory[1:] = vis
        expected = lite.fuse(ir, vis)
        lite.fuse(ir, memory[1:], memory[:-1])
        assert np.array_equal(memory[:-1], expected)

    @pytest.mark.parametrize("out", [np.zeros((H, W), np.uint8), np.zeros((H, W, 3), np.float32), []])
    def test_a_buffer_that_does_not_fit(self, lite, pair, out):
        with pytest.raises(InputError, match="out"):
            lite.fuse(*pair, out)


class TestThermal:
    """16-bit infrared."""

    def test_percentiles_or_a_given_range(self, lite, pair, models):
        ir, vis = pair
        counts = 28000 + ir.astype(np.uint16) * 8
        low, high = np.percentile(counts, (0.5, 99.5))
        scaled = np.clip(np.floor((counts - low) * 255 / (high - low) + 0.5), 0, 255).astype(np.uint8)
        assert same(lite.fuse(counts, vis), lite.fuse(scaled, vis))
        fixed = lite.fuse(counts, vis, thermal=(28000, 28000 + 255 * 8))
        assert same(fixed, lite.fuse(ir, vis))
        with Fuser(models / "lite.onnx", engine="onnxruntime", thermal=(28000, 28000 + 255 * 8)) as ranged:
            assert same(ranged.fuse(counts, vis), fixed)

    def test_temperatures_with_a_range(self, lite, pair, models):
        ir, vis = pair
        celsius = 20 + ir / 10
        expected = lite.fuse(ir, vis)
        for frame in (celsius, celsius.astype(np.float32)[..., None], np.rint(100 * celsius).astype(np.int32)):
            unit = 100 if frame.dtype == np.int32 else 1
            assert same(lite.fuse(frame, vis, thermal=(20 * unit, 45.5 * unit)), expected)
        celsius[3:5, 4:8], celsius[9, 9] = np.nan, np.inf
        ir[3:5, 4:8], ir[9, 9] = 0, 255
        with Fuser(models / "lite.onnx", engine="onnxruntime", thermal=(20, 45.5)) as ranged:
            assert same(ranged.fuse(celsius, vis), lite.fuse(ir, vis))
            with pytest.raises(InputError, match="temperatures, float or signed integers of one channel"):
                ranged.fuse(np.zeros((H, W, 3)), vis)
        with pytest.raises(InputError, match=r"expected floats in \[0, 1\]"):
            lite.fuse(celsius, vis)

    def test_a_constant_frame(self, lite, pair):
        _, vis = pair
        assert lite.fuse(np.full((H, W), 31000, np.uint16), vis).shape == vis.shape

    def test_a_range_is_for_counts(self, lite, pair):
        with pytest.raises(InputError, match="thermal is given, but ir has dtype uint8"):
            lite.fuse(*pair, thermal=(0, 100))
        with pytest.raises(InputError, match=r"thermal is \(9, 3\)"):
            lite.fuse(*pair, thermal=(9, 3))

    def test_a_palette_is_warned_of_once(self, models, pair):
        ir, vis = pair
        palette = cv2.applyColorMap(ir, cv2.COLORMAP_JET)
        with Fuser(models / "lite.onnx", engine="onnxruntime") as fresh:
            with pytest.warns(UserWarning, match="false-colour") as caught:
                fused = fresh.fuse(palette, vis)
            assert caught[0].filename == __file__
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert same(fresh.fuse(palette, vis), fused)
            assert same(fresh.fuse(cv2.cvtColor(palette, cv2.COLOR_BGR2GRAY), vis), fused)


@pytest.mark.parametrize("pairs", [[1, 2], [(1, 2, 3)], np.zeros((2, 20, 30), np.uint8)])
def test_a_stream_is_of_pairs(lite, pairs):
    with pytest.raises(InputError, match=r"pairs has .* in it; expected two frames each"):
        list(lite.stream(pairs))


class TestBatch:
    """Several pairs."""

    @pytest.mark.parametrize("as_array", [False, True])
    @pytest.mark.parametrize("dtype", ["uint8", "uint16"])
    @pytest.mark.parametrize("channels", [(), (3,)])
    def test_a_batch_is_its_pairs(self, lite, dtype, channels, as_array):
        irs = [random_frame(i, (24, 33), "uint16") for i in range(3)]
        viss = [random_frame(10 + i, (24, 33, *channels), dtype) for i in range(3)]
        expected = np.stack([lite.fuse(ir, vis) for ir, vis in zip(irs, viss, strict=True)])
        fused = lite.fuse_batch(np.stack(irs), np.stack(viss)) if as_array else lite.fuse_batch(irs, viss)
        assert fused.dtype == expected.dtype and np.array_equal(fused, expected)

    def test_an_engine_that_takes_several_at_once(self, lite, monkeypatch):
        sizes = []
        run = lite._engine.run
        monkeypatch.setattr(lite._engine, "batch", 4, raising=False)
        monkeypatch.setattr(lite._engine, "run", lambda *given: sizes.append(len(given[0])) or run(*given))
        irs, viss = random_frame(1, (6, 20, 20), "uint8"), random_frame(2, (6, 20, 20, 3), "uint8")
        fused = lite.fuse_batch(irs, viss)
        assert sizes == [4, 2]
        for i in range(6):
            assert same(fused[i], lite.fuse(irs[i], viss[i]), 1)

    @pytest.mark.parametrize(
        "irs, viss, words",
        [
            ([], [], "at least one"),
            ([(20, 20)], [], "irs has 1 frames and viss has 0"),
            ([(20, 20)] * 2, [(20, 20)], "2 frames and viss has 1"),
            ([(20, 20), (24, 20)], [(20, 20), (24, 20)], r"viss\[1\]"),
            ([(20, 20), (20, 20)], [(20, 20), (20, 20, 3)], r"viss\[1\]"),
            ([(20, 20)], [(20, 24)], "infrared of 20x20 and visible of 24x20"),
        ],
    )
    def test_pairs_that_do_not_belong_together(self, lite, irs, viss, words):
        with pytest.raises(InputError, match=words):
            lite.fuse_batch([np.zeros(s, np.uint8) for s in irs], [np.zeros(s, np.uint8) for s in viss])

    @pytest.mark.parametrize("irs", [None, 3, np.uint8(4)])
    def test_what_is_not_several_frames(self, lite, irs):
        with pytest.raises(InputError, match=r"irs is a .*expected a list of frames"):
            lite.fuse_batch(irs, [np.zeros((20, 20), np.uint8)])


class TestLife:
    """Opening, asking, closing, sharing."""

    def test_info_says_what_computes(self, models):
        from hashlib import sha256

        with Fuser(models / "lite.onnx", engine="onnxruntime", threads=1) as opened:
            info = opened.info
        assert info["model"] == str(models / "lite.onnx") and info["variant"] == "lite" and info["weights"] == "fp32"
        assert (info["engine"], info["precision"], info["device"], info["threads"]) == ("onnxruntime", "fp32", "cpu", 1)
        assert info["sha256"] == sha256((models / "lite.onnx").read_bytes()).hexdigest()
        assert info["metadata"]["io"] == "frames" and info["clip_trained"] == "yes"
        assert info["engine_version"].count(".") >= 1

    def test_closed_is_closed(self, models, pair):
        with Fuser(models / "lite.onnx", engine="onnxruntime") as opened:
            opened.fuse(*pair)
        opened.close()  # twice is fine
        for use in (lambda: opened.fuse(*pair), lambda: opened.fuse_batch(*([x] for x in pair)), opened.warmup):
            with pytest.raises(EngineError, match="closed"):
                use()
        assert "closed" in repr(opened) and opened.info["engine"] == "onnxruntime"

    def test_warmup_takes_width_and_height(self, lite, monkeypatch):
        seen = []
        run = lite._engine.run
        monkeypatch.setattr(lite._engine, "run", lambda *given: seen.append(given[1].shape) or run(*given))
        lite.warmup((48, 32), batch=2)
        assert seen == [(1, 32, 48, 3)] * 2
        for size, batch in (((8, 32), 1), ((48, 32), 0), (48, 1), ((48.0, 32), 1), ("ab", 1), ((48, 32), None)):
            with pytest.raises(InputError, match=r"expected \(width, height\) of at least 16"):
                lite.warmup(size, batch)

    def test_many_threads_share_one(self, models):
        sizes = [(24 + i % 3, 40) for i in range(8)]
        pairs = [(random_frame(i, s, "uint8"), random_frame(9 + i, (*s, 3), "uint8")) for i, s in enumerate(sizes)]
        for engine in ("onnxruntime", None):
            with Fuser(models / "lite.onnx", engine=engine) as shared:
                expected = [shared.fuse(*p) for p in pairs]
                wrong: list[int] = []

                def work(i, shared=shared, expected=expected, wrong=wrong):
                    for _ in range(6):
                        if not np.array_equal(shared.fuse(*pairs[i]), expected[i]):
                            wrong.append(i)

                workers = [threading.Thread(target=work, args=(i,)) for i in range(8)]
                for worker in workers:
                    worker.start()
                for worker in workers:
                    worker.join()
                assert not wrong

    def test_closing_waits_for_frames_under_way(self, models, pair):
        opened = Fuser(models / "lite.onnx", engine="onnxruntime")
        ends: list[object] = []

        def work():
            try:
                while True:
                    opened.fuse(*pair)
            except EngineError as error:
                ends.append(error)

        workers = [threading.Thread(target=work) for _ in range(3)]
        for worker in workers:
            worker.start()
        opened.close()
        for worker in workers:
            worker.join(30)
        assert len(ends) == 3 and all("closed" in str(error) for error in ends)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_forked_child_is_told(self, models, pair):
        opened = Fuser(models / "lite.onnx", engine="onnxruntime")
        opened.fuse(*pair)
        receive, send = multiprocessing.Pipe(False)

        def child():
            try:
                opened.fuse(*pair)
            except EngineError as error:
                send.send(str(error))

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        assert receive.poll(30) and "fork" in receive.recv()
        process.join(30)

    def test_what_cannot_be_opened(self, tmp_path):
        with pytest.raises(ArtefactError, match="does not exist"):
            Fuser(tmp_path / "nothing.onnx")
        with pytest.raises(InputError, match="path is a int"):
            Fuser(3)
        for options in ({"color": "gbr"}, {"thermal": (2, 1)}):
            with pytest.raises(InputError, match=next(iter(options))):
                Fuser(tmp_path / "nothing.onnx", **options)

    @pytest.mark.parametrize(
        "gpu, options, model",
        [
            (False, {}, "lite"),
            (True, {}, "full"),
            (True, {"device": "cpu"}, "lite"),
            (True, {"engine": "onnxruntime"}, "lite"),
            (False, {"device": "cuda"}, "full"),
        ],
    )
    def test_the_default_model_fits_the_device(self, monkeypatch, gpu, options, model):
        monkeypatch.setattr(fuser, "cuda_usable", lambda: gpu)
        opened = []
        monkeypatch.setattr(fuser, "open_artefact", lambda path: opened.append(path) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Fuser(**options)
        assert opened == [model]

    @pytest.mark.parametrize("model", BUNDLED)
    def test_the_bundled_models_fuse_and_say_which(self, pair, caplog, model):
        if not (WEIGHTS / f"{model}.onnx").exists():
            pytest.skip(f"no {model}.onnx in this checkout")
        path = None if model == "lite" else model  # the default on a CPU is lite
        with caplog.at_level(logging.INFO, "pyldfusion"), Fuser(path, device="cpu") as opened:
            assert opened.info["model"] == opened.info["variant"] == model
            assert opened.fuse(*pair).shape == (H, W, 3)
        assert model in caplog.text and opened.info["engine"] in caplog.text
        assert path is not None or "CPU" in opened.info["model_chosen"]


anything = st.sampled_from(
    ["u1", "u2", ">u2", "f2", "f4", ">f8", "i1", "i4", "u8", "c8", "?", "O", "S3", "M8[s]", "V2", "f16"]
)
shapes = st.lists(st.sampled_from([0, 1, 2, 3, 4, 15, 16, 17, 23]), max_size=5).map(tuple) | st.sampled_from(
    [(16, 17), (16, 17, 1), (16, 17, 3), (23, 16), (23, 16, 3)]
)
fills = st.sampled_from([0, 1, 0.5, 7, 255, float("nan"), float("inf"), -1, "random"])


def build(shape, dtype, fill, seed):
    dtype = np.dtype(dtype)
    if fill == "random":
        count = int(np.prod(shape)) * dtype.itemsize
        if dtype.hasobject:
            return np.full(shape, None)
        return np.frombuffer(np.random.default_rng(seed).bytes(count), dtype).reshape(shape)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return np.full(shape, fill).astype(dtype)
        except (TypeError, ValueError):
            return np.zeros(shape, dtype)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(*[st.tuples(shapes, anything, fills, st.integers(0, 99))] * 2, st.sampled_from(["bgr", "rgb", "x"]))
def test_hostile_arrays_are_fused_or_refused(lite, ir, vis, color):
    ir, vis = build(*ir), build(*vis)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "ir has three channels")
        try:
            fused = lite.fuse(ir, vis, color=color)
        except PyldfusionError as error:
            assert isinstance(error, (InputError, DtypeError))
            assert str(error).startswith(("ir ", "vis ", "color ", "infrared of "))
        else:
            assert fused.shape == vis.shape and fused.dtype == vis.dtype and color != "x"
            assert not np.isnan(fused.astype(float)).any()
