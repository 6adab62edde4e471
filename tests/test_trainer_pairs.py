"""Pairs looked through before a run: what is left out, reported, kept."""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import signal
import struct
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tqdm")

from pyldfusion.errors import InputError  # noqa: E402
from trainer.config import Config, ConfigError, CropConfig, DataConfig, load_config  # noqa: E402
from trainer.data.cache import size_text  # noqa: E402
from trainer.data.crops import SceneCrops  # noqa: E402
from trainer.data.pairs import load_pairs, read_planes  # noqa: E402
from trainer.data.samples import EpochSamples  # noqa: E402

from .trainer_pairs import equal, language, picture, reasons, seven_pairs, stems, write_pairs  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return seven_pairs(tmp_path_factory.mktemp("pairs") / "mine")


class TestPairs:
    def test_bad_files_are_skipped_and_named(self, tmp_path):
        random = np.random.default_rng(1)
        write_pairs(tmp_path, ["good", "corrupt", "cut", "sizes", "flat", "half_flat", "tiny"], ["infrared", "visible"])
        cv2.imwrite(str(tmp_path / "visible" / "alone.png"), picture(random))
        (tmp_path / "infrared" / "corrupt.png").write_bytes(b"\x89PNG not really")
        whole = (tmp_path / "visible" / "cut.png").read_bytes()
        (tmp_path / "visible" / "cut.png").write_bytes(whole[: len(whole) // 2])
        cv2.imwrite(str(tmp_path / "visible" / "sizes.png"), picture(random, (96, 96)))
        for kind in ("infrared", "visible"):
            cv2.imwrite(str(tmp_path / kind / "tiny.png"), picture(random, (31, 64)))
            cv2.imwrite(str(tmp_path / kind / "flat.png"), np.full((96, 128), 90, np.uint8))
        cv2.imwrite(str(tmp_path / "visible" / "half_flat.png"), np.full((96, 128), 90, np.uint8))
        pairs = load_pairs([tmp_path])
        assert stems(pairs) == ["good", "half_flat"]
        why = reasons(pairs)
        assert "infrared/corrupt.png: not a whole picture" in why["corrupt"]
        assert "visible/cut.png: not a whole picture" in why["cut"]
        assert "sizes differ: 128x96 and 96x96" in why["sizes"]
        assert "nearly constant" in why["flat"]
        assert "64x31 pixels; expected at least 32 a side" in why["tiny"]
        assert "alone.png has no partner" in why["alone"]
        report = pairs.report()
        for line in ("2 pairs in 2 scenes", "6 skipped", "half_flat (visible)", "128x96 (2)", *why.values()):
            assert line in report, line

    def test_nothing_usable_is_an_error_with_the_reasons(self, tmp_path):
        write_pairs(tmp_path, ["1"])
        (tmp_path / "ir" / "1.png").write_bytes(b"")
        with pytest.raises(InputError, match=r"no usable pair under(.|\n)*1\.png: 0 bytes"):
            load_pairs([tmp_path])

    def test_only_some_names(self, folder):
        assert stems(load_pairs([folder], only="b_")) == ["b_000", "b_001"]
        with pytest.raises(InputError, match="whose name begins with 'q'"):
            load_pairs([folder], only="q")

    def test_pictures_under_the_crop_are_padded_and_under_half_of_it_skipped(self, tmp_path):
        for side in (112, 113, 223, 224):
            write_pairs(tmp_path, [str(side)], size=(side, 300))
        pairs = load_pairs([tmp_path], crop=224)
        assert stems(pairs) == ["113", "223", "224"]
        assert [name.split("/")[1] for name in pairs.padded] == ["113", "223"]
        assert "300x112 pixels; expected at least 113 a side" in reasons(pairs)["112"]
        assert "reflect-padded, under the 224 px of a crop: 2\n" in pairs.report()
        batch = EpochSamples(pairs, load_config("paper", ["samples.batch=3"]))(0)
        assert batch.ir.shape == (3, 1, 224, 224)
        with pytest.raises(InputError, match=r"300x112; expected more than half of samples\.crop, 224"):
            EpochSamples(load_pairs([tmp_path]), load_config("paper", ["samples.batch=3"]))

    def test_planes_are_those_of_the_runtime(self, tmp_path):
        random = np.random.default_rng(0)
        counts = (8000 + 3000 * random.random((64, 80))).astype(np.uint16)
        colour = random.integers(0, 256, (64, 80, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "ir.png"), counts)
        cv2.imwrite(str(tmp_path / "vis.png"), colour)
        cv2.imwrite(str(tmp_path / "vis.tif"), colour.astype(np.uint16) * 257)
        ir, vis = read_planes(tmp_path / "ir.png", tmp_path / "vis.png")
        low, high = np.percentile(counts, (0.5, 99.5))
        assert np.abs(ir - np.clip((counts - low) / (high - low), 0, 1) * 255).max() <= 0.51
        luma = colour @ np.array([0.114, 0.587, 0.299])
        assert np.abs(vis - luma).max() <= 0.6  # OpenCV weighs in 14 bits
        assert np.array_equal(read_planes(tmp_path / "ir.png", tmp_path / "vis.tif")[1], vis)
        grey = cv2.cvtColor(ir, cv2.COLOR_GRAY2BGR)
        cv2.imwrite(str(tmp_path / "grey.png"), grey)
        assert np.array_equal(read_planes(tmp_path / "grey.png", tmp_path / "vis.png")[0], ir)

    def test_an_orientation_is_applied(self, tmp_path):
        plane = picture(np.random.default_rng(0), (64, 96))
        cv2.imwrite(str(tmp_path / "ir.png"), np.rot90(plane, -1))
        code = cv2.imencode(".jpg", plane)[1].tobytes()
        tiff = b"II*\0" + struct.pack("<I", 8) + struct.pack("<HHHIHHI", 1, 274, 3, 1, 6, 0, 0)  # turned by 90 degrees
        exif = b"Exif\0\0" + tiff
        (tmp_path / "vis.jpg").write_bytes(code[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + code[2:])
        ir, vis = read_planes(tmp_path / "ir.png", tmp_path / "vis.jpg")
        assert ir.shape == vis.shape == (96, 64)
        assert np.corrcoef(ir.ravel(), vis.ravel())[0, 1] > 0.99

    def test_a_file_that_vanishes_is_replaced(self, tmp_path):
        write_pairs(tmp_path, [f"{k}" for k in range(6)])
        config = language("samples.batch=3")
        pairs = load_pairs([tmp_path], DataConfig(cache="no"), crop=64)
        samples = EpochSamples(pairs, config)
        before = [samples(step) for step in range(2)]
        (tmp_path / "vi" / "2.png").unlink()
        write_pairs(tmp_path, ["4"], size=(80, 80))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            after = [samples(step) for step in range(2)]
        said = "\n".join(str(warning.message) for warning in said)
        assert "2.png: no such file; another pair takes its place" in said and "4.png has changed its size" in said
        for old, new in zip(before, after, strict=True):
            for k, name in enumerate(old.names):
                if name.split("/")[1] in "24":
                    assert new.names[k].split("/")[1] in "0135"
                else:
                    assert new.names[k] == name and torch.equal(new.ir[k], old.ir[k])
        crops = SceneCrops(pairs, replace(Config(), crops=CropConfig(crops=("64x64",), batch_pixels=64 * 64 * 40)), 10)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert not {name.split("/")[1] for name in crops(0).names} & {"2", "4"}
        shutil.rmtree(tmp_path / "ir")
        with pytest.raises(InputError, match="png: no such file"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            samples(0)

    def test_ctrl_c_while_pairs_are_read(self, folder, tmp_path, monkeypatch):
        rows = [f"{folder}/ir/c.png,{folder}/vi/c.png,{k}" for k in range(20_000)]
        (tmp_path / "long.csv").write_text("\n".join(["ir,vis,name", *rows]))
        read, threads = itertools.count(), set(threading.enumerate())

        def read_and_press(ir, vis):
            if next(read) == 50:
                os.kill(os.getpid(), signal.SIGALRM)
            return read_planes(ir, vis)

        monkeypatch.setattr("trainer.data.pairs.read_planes", read_and_press)
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                load_pairs([tmp_path / "long.csv"], DataConfig(cache="disk", cache_dir=str(tmp_path)))
        finally:
            signal.signal(signal.SIGALRM, before)
        assert next(read) < 20_000  # the rest was left alone
        assert [path.name for path in tmp_path.iterdir()] == ["long.csv"]
        assert not [thread for thread in set(threading.enumerate()) - threads if "ThreadPool" in thread.name]

    def test_the_pairs_of_the_reference_data(self, shared):
        pairs = load_pairs([shared / "data" / "train"], DataConfig(cache="no"), only="m3svd_0117", crop=224)
        assert not pairs.skipped and len(pairs.pairs) > 2
        assert f"train: {len(pairs.pairs)} pairs" in pairs.report()


class TestCache:
    def test_every_kind_gives_the_same_planes(self, folder, tmp_path):
        kinds = ("memory", "disk", "no")
        sets = {kind: load_pairs([folder], DataConfig(cache=kind, cache_dir=str(tmp_path)), crop=64) for kind in kinds}
        assert not list(tmp_path.iterdir())  # the file has no name
        assert len({pairs.digest() for pairs in sets.values()}) == 1
        batches = [EpochSamples(pairs, language())(0) for pairs in sets.values()]
        assert equal(batches[0], batches[1]) and equal(batches[0], batches[2])
        for kind, said in (
            ("memory", "kept in memory: 0.2 MB"),
            ("disk", "kept on disk"),
            ("no", "decoded every time"),
        ):
            assert said in sets[kind].report()

    @pytest.mark.parametrize("kind", ["memory", "disk"])
    def test_the_budget_is_kept(self, folder, kind):
        size = 2 * 96 * 128
        pairs = load_pairs([folder], DataConfig(cache=kind, cache_gb=(3 * size + 10) / 1e9))
        assert [pair.kept is not None for pair in pairs.pairs] == [True] * 3 + [False] * 4
        assert "4 pairs do not fit and are decoded every time" in pairs.report()
        assert pairs.digest() == load_pairs([folder]).digest()
        assert "decoded every time" in load_pairs([folder], DataConfig(cache=kind, cache_gb=0)).kept

    @pytest.mark.parametrize(
        ("count", "text"), [(2048, "2 kB"), (99_999, "100 kB"), (172_032, "0.2 MB"), (99_000_000, "99.0 MB")]
    )
    def test_sizes_are_in_a_unit_in_which_they_are_not_0(self, count, text):
        assert size_text(count) == text and size_text(1_250_000_000) == "1.25 GB"

    def test_a_full_disk_ends_the_cache_and_not_the_run(self, folder):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))  # a write stops in the middle of a pair
            try:
                pairs = load_pairs([folder], DataConfig(cache="disk"))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert [pair.kept is not None for pair in pairs.pairs] == [True] * 2 + [False] * 5
        assert ["data.cache_dir more room" in str(warning.message) for warning in said] == [True]
        assert pairs.digest() == load_pairs([folder]).digest()

    def test_a_wrong_folder_is_an_error(self, folder, tmp_path):
        with pytest.raises(ConfigError, match=r"data\.cache_dir is .*gone"):
            load_pairs([folder], DataConfig(cache="disk", cache_dir=str(tmp_path / "gone")))
