"""From folders of files to batches: what is found, what is left out, and that every draw can be repeated."""

from __future__ import annotations

import math
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tqdm")

from pyldfusion.errors import InputError  # noqa: E402
from trainer.config import AugmentConfig, Config, ConfigError, CropConfig, DataConfig, load_config  # noqa: E402
from trainer.data.augment import appearance, degrade  # noqa: E402
from trainer.data.crops import SceneCrops, parse_size  # noqa: E402
from trainer.data.loader import stream  # noqa: E402
from trainer.data.pairs import PairSet, load_pairs, read_planes  # noqa: E402
from trainer.data.provenance import describe_data  # noqa: E402
from trainer.data.roots import find_roots, parse_root  # noqa: E402
from trainer.data.samples import EpochSamples, affine_map, bend, crop_square  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
PLANES = ("ir", "vis", "clean_ir", "clean_vis")


def picture(random: np.random.Generator, size=(96, 128)) -> np.ndarray:
    """Smooth and fine structure, uint8 [H,W]."""
    coarse = random.random((size[0] // 8, size[1] // 8)).astype(np.float32)
    fine = random.random((size[0] // 2, size[1] // 2)).astype(np.float32)
    x = sum(w * cv2.resize(p, size[::-1], interpolation=cv2.INTER_CUBIC) for w, p in ((0.8, coarse), (0.2, fine)))
    return np.clip(x * 255, 0, 255).astype(np.uint8)


def write_pairs(root: Path, names: list[str], folders=("ir", "vi"), size=(96, 128), seed=3) -> Path:
    random = np.random.default_rng(seed)
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            cv2.imwrite(str(root / folder / f"{name}.png"), picture(random, size))
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Seven pairs of three scenes; not to be changed."""
    names = ["a_000", "a_001", "a_002", "a_003", "b_000", "b_001", "c"]
    return write_pairs(tmp_path_factory.mktemp("pairs") / "mine", names)


def stems(pairs: PairSet) -> list[str]:
    return [pair.name.split("/", 1)[1] for pair in pairs.pairs]


def reasons(pairs: PairSet) -> dict[str, str]:
    return {name.split("/", 1)[1]: reason for name, reason in pairs.skipped.items()}


def language(*options: str, preset: str = "paper") -> Config:
    return load_config(preset, ["samples.crop=64", "samples.batch=4", *options])


def equal(a, b) -> bool:
    return a.step == b.step and a.names == b.names and all(torch.equal(getattr(a, p), getattr(b, p)) for p in PLANES)


def joined(*parts):
    """What several ranks have of a step, one after the other."""
    planes = {name: torch.cat([getattr(part, name) for part in parts]) for name in PLANES}
    return replace(parts[0], **planes, names=sum((part.names for part in parts), ()))


class TestRoots:
    @pytest.mark.parametrize(
        "folders",
        [
            ("ir", "vi"),
            ("IR", "VIS"),
            ("Ir", "Vis"),
            ("Infrared", "Visible"),
            ("cropinfrared", "crop_LR_visible"),
            ("thermal", "RGB"),
            ("lwir", "visible"),
            ("train/ir", "train/vi"),
            ("infrared/train", "visible/train"),
        ],
    )
    def test_the_layouts_of_data_sets(self, tmp_path, folders):
        write_pairs(tmp_path / "set", ["1", "2"], folders)
        (root,) = find_roots([tmp_path / "set"])
        assert root.label == ("train" if "train" in folders[0] else "set")
        assert [(f.name.split("/")[1], f.ir.parent, f.vis.parent) for f in root.files] == [
            (name, *(tmp_path / "set" / folder for folder in folders)) for name in ("1", "2")
        ]

    def test_of_the_parts_of_a_data_set_train_is_taken_and_the_others_named(self, tmp_path):
        for part in ("Train", "test", "val"):
            write_pairs(tmp_path / part, [part])
        (root,) = find_roots([tmp_path])
        assert [f.name for f in root.files] == ["Train/Train"]
        assert "test, val left out" in load_pairs([tmp_path]).report()

    def test_without_train_every_part_is_taken(self, tmp_path):
        for part in ("day", "night"):
            write_pairs(tmp_path / part, ["1"])
        (tmp_path / "notes").mkdir()
        assert [root.label for root in find_roots([f"{tmp_path}=3"])] == ["day", "night"]
        assert {pair.weight for pair in load_pairs([f"{tmp_path}=3"]).pairs} == {3}

    def test_names_are_one_of_their_kind(self, tmp_path):
        for name in ("x", "y", "z/y"):
            write_pairs(tmp_path / name / "train", ["1"])
        names = [pair.name for pair in load_pairs([tmp_path / name for name in ("x", "y", "z/y")]).pairs]
        assert names == ["train/1", "y-train/1", "y-train-2/1"]

    def test_words_for_the_camera_do_not_count(self, tmp_path):
        write_pairs(tmp_path, ["1_ir", "2_ir"], ["ir"])
        write_pairs(tmp_path, ["1_vis", "2_vis"], ["vis"])
        assert stems(load_pairs([tmp_path])) == ["1_vis", "2_vis"]

    def test_two_files_of_one_name_are_left_out(self, tmp_path):
        write_pairs(tmp_path, ["1", "2"])
        shutil.copy(tmp_path / "vi" / "1.png", tmp_path / "vi" / "1.bmp")
        pairs = load_pairs([tmp_path])
        assert stems(pairs) == ["2"] and "several visible files have this name" in reasons(pairs)["1"]

    def test_weights_follow_an_equals_sign_unless_that_is_the_name(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in ("plain", "odd=2"):
            Path(name).mkdir()
        assert parse_root("plain") == (Path("plain"), 1.0)
        assert parse_root("plain=2") == (Path("plain"), 2.0)
        assert parse_root("plain=0.5") == (Path("plain"), 0.5)
        assert parse_root("odd=2") == (Path("odd=2"), 1.0)
        assert parse_root("odd=2=3") == (Path("odd=2"), 3.0)
        for weight in ("0", "-1", "two", "nan", "inf", ""):
            with pytest.raises(InputError, match="no number above 0; expected such as plain=2"):
                parse_root(f"plain={weight}")
        for missing in ("none", "none=2"):
            with pytest.raises(InputError, match="none: no such folder or file"):
                parse_root(missing)

    def test_a_root_given_twice_is_an_error(self, folder):
        with pytest.raises(InputError, match="given twice; give it once, with a weight"):
            find_roots([folder, f"{folder / '..' / folder.name}=2"])

    def test_a_folder_without_pairs_is_an_error_that_says_what_is_looked_for(self, tmp_path):
        with pytest.raises(InputError, match=r"cropinfrared/crop_LR_visible.*CSV"):
            find_roots([tmp_path])
        for kind in ("ir", "vi"):
            (tmp_path / kind).mkdir()
        with pytest.raises(InputError, match="no pictures"):
            find_roots([tmp_path])
        for kind in ("ir", "vi"):
            (tmp_path / kind / f"{kind}7.png").write_bytes(b"")
        with pytest.raises(InputError, match="no infrared file has the name of a visible one"):
            find_roots([tmp_path])


class TestManifest:
    def write(self, folder: Path, text: str, name: str = "pairs.csv", encoding="utf-8") -> Path:
        (folder / name).write_text(text, encoding=encoding)
        return folder / name

    @pytest.fixture
    def files(self, tmp_path) -> Path:
        return write_pairs(tmp_path, ["1", "2_0", "2_1"], ["hot", "light/a"])

    def test_columns_and_relative_paths(self, files):
        rows = ["vis,ir,name,weight,group,terms", "light/a/1.png,hot/1.png,one,2.5,yard,CC0"]
        rows += [f"light/a/2_0.png, {files / 'hot' / '2_0.png'},,,,MIT", "", "light/a/2_1.png,hot/2_1.png"]
        path = self.write(files, "\n".join(rows), encoding="utf-8-sig")
        pairs = load_pairs([f"{path}=2"])
        found = {p.name: (p.weight, p.group) for p in pairs.pairs}
        assert found == {
            "pairs/one": (5.0, "pairs/yard"),
            "pairs/2_0": (2.0, "pairs/2"),
            "pairs/2_1": (2.0, "pairs/2"),
        }
        for pair in pairs.pairs:
            assert np.array_equal(pair.planes(), read_planes(pair.files.ir, pair.files.vis))
        described = describe_data(pairs)
        assert described["trained_on"] == "pairs: 3 pairs" and described["terms"] == "CC0; MIT; not stated"

    def test_a_missing_file_is_skipped_by_name(self, files):
        path = self.write(files, "ir,vis\nhot/1.png,light/a/1.png\nhot/9.png,light/a/2_0.png\n")
        pairs = load_pairs([path])
        assert stems(pairs) == ["1"] and "9.png: no such file" in reasons(pairs)["2_0"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "line 1 has no column ir nor vis; .* found nothing"),
            ("ir;vis\na;b\n", "line 1 has no column ir nor vis; .* found ir;vis"),
            ("ir,name\na,b\n", "line 1 has no column vis; .* found ir, name"),
            ("ir,vis\n", "no line after the header"),
            ("ir,vis\na.png,b.png\nc.png,\n", "line 3 has no vis"),
            ("ir,vis\na.png,b.png\n\nc.png\n", "line 4 has no vis"),
            ("ir,vis,weight\na.png,b.png,1\nc.png,d.png,heavy\n", "line 3 has the weight 'heavy'"),
            ("ir,vis,weight\na.png,b.png,0\n", "line 2 has the weight '0'; expected a number above 0"),
            ("ir,vis\nx/1.png,x/1.png\ny/1.png,y/1.png\n", "line 3 has the name 'pairs/1' of line 2; .* column 'name'"),
        ],
    )
    def test_errors_name_the_line(self, tmp_path, text, message):
        with pytest.raises(InputError, match=rf"pairs\.csv: {message}"):
            load_pairs([self.write(tmp_path, text)])

    def test_what_is_no_csv_is_an_error(self, folder):
        with pytest.raises(InputError, match=r"c\.png: not a CSV manifest"):
            load_pairs([folder / "ir" / "c.png"])


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

    def test_ctrl_c_while_pairs_are_read(self, folder, tmp_path):
        rows = [f"{folder}/ir/c.png,{folder}/vi/c.png,{k}" for k in range(20_000)]
        (tmp_path / "long.csv").write_text("\n".join(["ir,vis,name", *rows]))
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            with pytest.raises(KeyboardInterrupt):
                load_pairs([tmp_path / "long.csv"], DataConfig(cache="disk", cache_dir=str(tmp_path)))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert [path.name for path in tmp_path.iterdir()] == ["long.csv"]
        assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]

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
            ("memory", "kept in memory: 0.00 GB"),
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


class TestSceneCrops:
    def config(self, **crops) -> Config:
        return replace(load_config("supervised-lite"), crops=replace(CropConfig(crops=("64x64",)), **crops))

    def test_a_batch_depends_on_seed_and_step_alone(self, folder):
        pairs, config = load_pairs([folder]), self.config(batch_pixels=20_000)

        def batch(seed, step):
            return SceneCrops(pairs, replace(config, run=replace(config.run, seed=seed)), 10)(step)

        assert equal(batch(0, 3), batch(0, 3))
        assert all(not torch.equal(other.ir, batch(0, 3).ir) for other in (batch(0, 4), batch(1, 3)))
        assert batch(0, 3).step == 3 and all(name.startswith("mine/") for name in batch(0, 3).names)

    def test_batches_hold_the_pixels_asked_for(self, folder):
        config = self.config(batch_pixels=20_000, crops=("64x48",), late_crops=("32x96",), late_from=0.5)
        batches = SceneCrops(load_pairs([folder]), config, 10)
        assert batches(0).ir.shape == (7, 1, 48, 64)
        assert batches(5).vis.shape == (7, 1, 96, 32)
        assert batches.steps_per_epoch == 1
        assert SceneCrops(load_pairs([folder]), self.config(batch_pixels=3 * 64 * 64), 10).steps_per_epoch == 3

    def test_ranks_share_a_step(self, folder):
        pairs, config = load_pairs([folder]), self.config(batch_pixels=3 * 64 * 64)
        parts = [SceneCrops(pairs, config, 10, rank, 2)(1) for rank in (0, 1)]
        assert [len(part.ir) for part in parts] == [2, 2]  # 3 is rounded up
        whole, four = SceneCrops(pairs, config, 10)(1), joined(*parts)
        assert four.names[:3] == whole.names
        assert all(torch.equal(getattr(four, name)[:3], getattr(whole, name)) for name in PLANES)

    def test_scenes_come_by_the_root_of_their_frames_and_their_weight(self, folder, tmp_path):
        other = write_pairs(tmp_path / "other", ["x"])
        pairs = load_pairs([folder, f"{other}=4"])
        crops = SceneCrops(pairs, self.config(), 10)
        expected = np.array([math.sqrt(4), math.sqrt(2), 1, 4 * 1])
        assert [group[0].group for group in crops.groups] == ["mine/a", "mine/b", "mine/c", "other/x"]
        np.testing.assert_allclose(crops.weights, expected / expected.sum())

    def test_sources_stay_registered_and_in_range(self, tmp_path):
        """The same picture as both sources must come out as the same crop of both."""
        write_pairs(tmp_path, ["x"])
        shutil.copy(tmp_path / "ir" / "x.png", tmp_path / "vi" / "x.png")
        none = dict.fromkeys(vars(AugmentConfig()), 0.0)
        config = replace(self.config(), augment=AugmentConfig(**{**none, "least_contrast": 1.0}))
        batch = SceneCrops(load_pairs([tmp_path]), config, 100)(0)
        assert torch.equal(batch.ir, batch.vis)
        torch.testing.assert_close(batch.ir, batch.clean_ir, atol=0.5 / 255 + 1e-6, rtol=0)
        for plane in (getattr(batch, name) for name in PLANES):
            assert float(plane.min()) >= 0 and float(plane.max()) <= 1 and plane.dtype == torch.float32

    @pytest.mark.parametrize("text", ["64", "64x", "16x64", "64x64x3", "-64x64"])
    def test_wrong_sizes_are_errors(self, text):
        with pytest.raises(InputError, match="no crop size"):
            parse_size(text)

    def test_flaws_reach_the_network_only(self):
        random = np.random.default_rng(0)
        plane = picture(random).astype(np.float32) / 255
        worst = AugmentConfig(contrast=1, noise=1, noise_range=0.1, blur=1, jpeg=1, useless=0)
        seen, flat = degrade(plane, np.random.default_rng(1), worst)
        assert flat is None and np.abs(seen - plane).max() > 0.02
        gone, flat = degrade(plane, np.random.default_rng(1), replace(worst, useless=1))
        assert flat is not None and flat.std() < 1e-6
        assert abs(np.corrcoef(gone.ravel(), plane.ravel())[0, 1]) < 0.2
        bent = appearance(plane, np.random.default_rng(1), AugmentConfig(gamma=1, shade=0, soft=0, equalise=0))
        order = np.argsort(plane.ravel())
        assert (np.diff(bent.ravel()[order]) >= -1e-6).all()  # polarity is kept


def epoch_counts(samples: EpochSamples, epoch: int) -> Counter:
    steps = range(epoch * samples.steps_per_epoch, (epoch + 1) * samples.steps_per_epoch)
    return Counter(name for step in steps for name in samples(step).names)


class TestEpochSamples:
    def test_an_epoch_has_every_pair_once_in_another_order_each_time(self, folder):
        pairs = load_pairs([folder], crop=64)
        samples = EpochSamples(pairs, language("samples.batch=7"))
        assert samples.steps_per_epoch == 1
        assert all(set(epoch_counts(samples, epoch).items()) == {(p.name, 1) for p in pairs.pairs} for epoch in (0, 1))
        assert samples(0).names != samples(1).names
        repeated = EpochSamples(pairs, language("samples.batch=3", "samples.repeat=3"))
        assert repeated.steps_per_epoch == 7 and set(epoch_counts(repeated, 2).values()) == {3}

    def test_the_last_partial_batch_is_dropped(self, folder):
        samples = EpochSamples(load_pairs([folder], crop=64), language("samples.batch=3"))
        assert samples.steps_per_epoch == 2
        left_out = [set(range(7)) - set(samples.order(epoch)) for epoch in range(30)]
        assert all(len(left) == 1 for left in left_out) and len(set.union(*left_out)) == 7

    def test_roots_come_by_their_weight(self, folder, tmp_path):
        twice, seldom = (write_pairs(tmp_path / name, ["1", "2", "3", "4"], seed=5) for name in ("twice", "seldom"))
        pairs = load_pairs([folder, f"{twice}=2", f"{seldom}=0.25"], crop=64)
        samples = EpochSamples(pairs, language("samples.batch=16"))
        assert samples.steps_per_epoch == 1  # 7 + 8 + 1
        epochs = [Counter(samples.order(epoch).tolist()) for epoch in range(400)]
        names = [pair.name.split("/")[0] for pair in pairs.pairs]
        for k, name in enumerate(names):
            times = [epoch[k] for epoch in epochs]
            if name == "seldom":
                assert set(times) == {0, 1} and np.mean(times) == pytest.approx(0.25, abs=0.08)
            else:
                assert set(times) == {2 if name == "twice" else 1}

    def test_a_share_of_one_pair_is_that_share_of_the_epochs(self, folder, tmp_path):
        pairs = load_pairs([folder, f"{write_pairs(tmp_path / 'rare', ['x'])}=0.25"], crop=64)
        samples = EpochSamples(pairs, language("samples.batch=7"))
        came = np.mean([7 in samples.order(epoch) for epoch in range(400)])
        assert came == pytest.approx(0.25 * 7 / 8, abs=0.08)  # then eight samples wait for seven places

    def test_less_than_a_batch_is_an_error_that_says_what_to_do(self, folder):
        pairs = load_pairs([folder], crop=64)
        with pytest.raises(InputError, match=r"is 7 samples \(7 pairs.* batch of 16; .* raise samples.repeat to 3"):
            EpochSamples(pairs, language("samples.batch=16"))
        assert EpochSamples(pairs, language("samples.batch=16", "samples.repeat=3")).steps_per_epoch == 1
        one = load_pairs([folder], only="c", crop=64)
        assert EpochSamples(one, language("samples.batch=1"))(3).names == ("mine/c",)

    def test_a_batch_depends_on_seed_and_step_alone(self, folder):
        pairs = load_pairs([folder], crop=64)
        config = language(preset="authors")
        first = EpochSamples(pairs, config)
        for step in (40, 3, 41):
            assert equal(first(step), EpochSamples(pairs, config)(step))
        other = EpochSamples(pairs, replace(config, run=replace(config.run, seed=1)))
        assert first(3).names != other(3).names or not torch.equal(first(3).ir, other(3).ir)

    def test_ranks_share_a_step(self, folder):
        pairs, config = load_pairs([folder], crop=64), language(preset="authors")
        whole = EpochSamples(pairs, config)
        for step in (0, 20):
            assert equal(whole(step), joined(*(EpochSamples(pairs, config, rank, 2)(step) for rank in (0, 1))))
        with pytest.raises(
            ConfigError, match=r"samples\.batch is 4, over all of 3 processes; expected a multiple of 3"
        ):
            EpochSamples(pairs, config, 0, 3)

    def test_crops_are_windows_of_the_same_place(self, folder):
        pairs = load_pairs([folder], crop=64)
        by_name = {pair.name: pair.planes() for pair in pairs.pairs}
        batch = EpochSamples(pairs, language())(0)
        assert batch.ir is batch.clean_ir and batch.ir.dtype == torch.float32
        for k, name in enumerate(batch.names):
            crop = np.rint(torch.cat([batch.ir[k], batch.vis[k]]).numpy() * 255).astype(np.uint8)
            assert found_in(by_name[name], crop)

    @pytest.mark.parametrize("size", [(33, 64), (40, 51), (63, 200), (64, 64)])
    def test_small_pictures_are_reflected(self, size):
        random = np.random.default_rng(0)
        planes = random.integers(0, 256, (2, *size), np.uint8)
        lacking = [max(0, 64 - side) for side in size]
        padded = np.pad(planes, [(0, 0), *((lack, lack) for lack in lacking)], mode="reflect")
        places = set()
        for _ in range(20):
            crop = np.rint(crop_square(planes, 64, random) * 255).astype(np.uint8)
            places |= set(found_in(padded, crop))
        assert len(places) > 5 or size == (64, 64)

    def test_affine_maps_are_those_of_torchvision(self):
        from trainer.towers.torchvision_import import import_torchvision

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import_torchvision()
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.functional import affine

        config = language(preset="authors").patches
        random = np.random.default_rng(0)
        planes = np.stack([cv2.GaussianBlur(random.random((65, 65), np.float32), (0, 0), 2) for _ in range(2)])
        seen = []
        for _ in range(30):
            matrix = affine_map(config, 65, random)
            forward = np.linalg.inv(matrix[:, :2])
            scale, angle = np.hypot(*forward[:, 0]), math.atan2(forward[1, 0], forward[0, 0])
            cos, sin = math.cos(angle), math.sin(angle)
            sheared = np.array([[cos, sin], [-sin, cos]]) @ forward / scale  # [[1, -tan], [0, 1]]
            shear = -math.atan(sheared[0, 1])
            across, down = forward @ (32 - matrix[:, 2]) - 32
            assert abs(across) < 1e-9 and abs(down - round(down)) < 1e-9
            seen.append((math.degrees(angle), round(down), scale, math.degrees(shear)))
            # without a fill value: with one, torchvision darkens the border twice
            expected = affine(
                torch.from_numpy(planes),
                math.degrees(angle),
                [0, round(down)],
                scale,
                [math.degrees(shear), 0.0],
                InterpolationMode.BILINEAR,
            )
            np.testing.assert_allclose(bend(planes, matrix), expected, atol=2e-3)
        for values, (low, high) in zip(np.array(seen).T, [(-5, 5), (-6, 6), (1, 1.5), (-5, 5)], strict=True):
            margin = 0.3 * (high - low)
            assert low <= values.min() < low + margin and high - margin < values.max() <= high

    def test_the_affine_map_is_the_same_for_both_planes_and_outside_is_0(self, tmp_path):
        write_pairs(tmp_path, ["x"])
        bright = np.maximum(cv2.imread(str(tmp_path / "ir" / "x.png"), 0), 40)
        for kind in ("ir", "vi"):
            cv2.imwrite(str(tmp_path / kind / "x.png"), bright)
        pairs = load_pairs([tmp_path], crop=64)
        config = language("samples.batch=1", "samples.affine=true", "patches.scale=[1.0, 1.0]")
        batches = [EpochSamples(pairs, config)(step) for step in range(8)]
        assert all(torch.equal(batch.ir, batch.vis) for batch in batches)
        assert any(float(batch.ir.min()) == 0 for batch in batches)
        assert all(len(EpochSamples(pairs, language("samples.batch=1"))(k).ir.unique()) > 9 for k in range(2))

    def test_noise_is_seen_by_the_network_alone(self, folder):
        pairs = load_pairs([folder], crop=64)
        quiet, noisy = (EpochSamples(pairs, language("samples.repeat=4", f"samples.noise={s}"))(1) for s in (0.0, 0.03))
        assert torch.equal(quiet.clean_ir, noisy.clean_ir) and torch.equal(quiet.clean_vis, noisy.clean_vis)
        noise = torch.stack([noisy.ir - noisy.clean_ir, noisy.vis - noisy.clean_vis])
        assert float(noise.std()) == pytest.approx(0.03, rel=0.03) and abs(float(noise.mean())) < 1e-3
        assert abs(np.corrcoef(noise.flatten(1).numpy())[0, 1]) < 0.03
        black = replace(pairs, pairs=[replace(p, kept=lambda: np.zeros((2, 96, 128), np.uint8)) for p in pairs.pairs])
        assert float(EpochSamples(black, language("samples.noise=0.03"))(0).ir.min()) < -0.05  # not clipped

    def test_nearly_constant_crops_are_drawn_again(self, tmp_path):
        write_pairs(tmp_path, ["x"], size=(256, 256))
        for kind in ("ir", "vi"):
            plane = np.full((256, 256), 80, np.uint8)
            plane[96:160, 96:160] = np.random.default_rng(0).integers(0, 256, (64, 64))
            cv2.imwrite(str(tmp_path / kind / "x.png"), plane)
        pairs = load_pairs([tmp_path], crop=64)

        def deviations(*options):
            samples = EpochSamples(pairs, language("samples.batch=1", *options))
            return np.array([max(float(p.std()) for p in (samples(k).ir, samples(k).vis)) for k in range(40)])

        never, once, often = (
            deviations(f"samples.least_deviation={least}", f"samples.redraws={redraws}")
            for least, redraws in ((0.0, 10), (0.05, 1), (0.05, 40))
        )
        assert (often >= 0.05).all()
        assert (never < 0.05).sum() > (once < 0.05).sum() > 0
        write_pairs(tmp_path, ["x"], ["ir"], size=(256, 256))
        cv2.imwrite(str(tmp_path / "vi" / "x.png"), np.full((256, 256), 80, np.uint8))
        pairs = load_pairs([tmp_path], crop=64)  # one of two is constant: good enough
        assert np.array_equal(deviations(), deviations("samples.least_deviation=0.05"))


def found_in(planes: np.ndarray, crop: np.ndarray) -> list[tuple[int, int]]:
    """Where ``crop`` [2,h,w] is a window of ``planes`` [2,H,W]; fails if nowhere."""
    windows = np.lib.stride_tricks.sliding_window_view(planes, crop.shape)[0]
    places = [tuple(place) for place in np.argwhere(windows[:, :, 0, 0, 0] == crop[0, 0, 0])]
    places = [place for place in places if np.array_equal(windows[place], crop)]
    assert places
    return places


class Failing:
    steps_per_epoch = 10

    def __init__(self, batches, at: int, error: Exception) -> None:
        self.batches, self.at, self.error = batches, at, error

    def __call__(self, step):
        if step == self.at:
            raise self.error
        return self.batches(step)


class TestStream:
    @pytest.mark.parametrize("kind", ["epoch", "scenes"])
    def test_workers_make_the_same_batches_in_the_same_order(self, folder, kind):
        if kind == "epoch":
            config = language(preset="authors")
            batches = EpochSamples(load_pairs([folder], DataConfig(cache="disk"), crop=64), config)
        else:
            config = replace(load_config("supervised-lite"), crops=CropConfig(crops=("64x64",), batch_pixels=8192))
            batches = SceneCrops(load_pairs([folder]), config, 30)
        torch.manual_seed(5)
        here = list(stream(batches, 13, 22))
        there = list(stream(batches, 13, 22, workers=2))
        assert [batch.step for batch in there] == list(range(13, 22))
        assert all(equal(a, b) for a, b in zip(here, there, strict=True))
        drawn = torch.rand(1)
        torch.manual_seed(5)
        assert torch.equal(torch.rand(1), drawn)  # the run's own generator is left alone
        assert list(stream(batches, 5, 5, workers=1)) == []

    @pytest.mark.parametrize("workers", [0, 2])
    def test_errors_arrive_at_their_step_as_they_were(self, folder, workers):
        batches = EpochSamples(load_pairs([folder], crop=64), language())
        coming = stream(Failing(batches, 2, InputError("x.png: no such file")), 0, 9, workers)
        assert [next(coming).step for _ in range(2)] == [0, 1]
        with pytest.raises(InputError, match=r"^x\.png: no such file$"):
            next(coming)

    def test_pinned_memory_where_there_is_cuda(self, folder):
        batches = EpochSamples(load_pairs([folder], crop=64), language())
        for workers in (0, 1):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                (batch,) = stream(batches, 0, 1, workers, pin=True)
            assert batch.ir.is_pinned() == torch.cuda.is_available() and equal(batch, batches(0))

    def test_signals_are_for_the_main_process(self, folder):
        """A signal to all processes: the stream goes on for as long as the run wants it, and ends without a word."""
        with subprocess.Popen(
            [sys.executable, "-c", SIGNALLED, str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
                assert process.stdout.readline().strip() == "ready", process.stderr.read()
                os.killpg(process.pid, number)
            try:
                out, errors = process.communicate(timeout=60)
            finally:
                process.kill()
        assert (process.returncode, out.split(), errors) == (0, ["interrupted", "0"], "")


#: Twice signals that are only noted, with 20 more batches after each; then one that interrupts the waiting itself. At
#: last it ends with a stream that nobody has closed.
SIGNALLED = """
import itertools, multiprocessing, signal, sys, time
import torch
from trainer.config import load_config
from trainer.run.interrupt import interrupted
from trainer.data.loader import stream
from trainer.data.pairs import load_pairs
from trainer.data.samples import EpochSamples

config = load_config("authors", ["samples.crop=64", "samples.batch=4"])
coming = stream(EpochSamples(load_pairs([sys.argv[1]], crop=64), config), 0, 10**6, workers=2)
for _ in range(2):
    with interrupted() as stop:
        next(coming)
        print("ready", flush=True)
        while not stop():
            next(coming)
        for batch in itertools.islice(coming, 20):
            pass
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    print("ready", flush=True)
    for batch in coming:
        pass
except KeyboardInterrupt:
    print("interrupted")
del coming
deadline = time.monotonic() + 20
while multiprocessing.active_children() and time.monotonic() < deadline:
    time.sleep(0.05)
print(len(multiprocessing.active_children()))
torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.5  # seconds that torch gives a worker at the end
open_stream = stream(EpochSamples(load_pairs([sys.argv[1]], crop=64), config), 0, 10**6, workers=2)
next(open_stream)
"""
