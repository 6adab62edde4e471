"""Batches of both recipes: functions of seed and step that use what there is."""

from __future__ import annotations

import math
import shutil
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
from trainer.config import AugmentConfig, Config, ConfigError, CropConfig, load_config  # noqa: E402
from trainer.data.augment import appearance, degrade  # noqa: E402
from trainer.data.crops import SceneCrops, parse_size  # noqa: E402
from trainer.data.pairs import load_pairs  # noqa: E402
from trainer.data.samples import EpochSamples, affine_map, bend, crop_square  # noqa: E402

from .trainer_pairs import PLANES, equal, joined, language, picture, seven_pairs, write_pairs  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return seven_pairs(tmp_path_factory.mktemp("pairs") / "mine")


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
        with pytest.raises(InputError, match=r"epoch: 7 \(pairs: 7.* batch of 16; .* raise samples\.repeat to 3"):
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
