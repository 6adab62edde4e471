"""The trainer as people run it: configuration, pairs from folders, a few real steps, resuming, widening."""

from __future__ import annotations

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")

from pyldfusion.artefact import open_artefact  # noqa: E402
from pyldfusion.errors import ArtefactError, InputError  # noqa: E402
from pyldfusion.generator import Generator  # noqa: E402
from trainer.__main__ import main  # noqa: E402
from trainer.augment import appearance, degrade  # noqa: E402
from trainer.config import PRESETS, AugmentConfig, Config, ConfigError, DataConfig, load_config  # noqa: E402
from trainer.data import Batches, load_pairs  # noqa: E402
from trainer.initialise import initialise_scaled  # noqa: E402
from trainer.loop import DivergedError, schedule, train  # noqa: E402
from trainer.optimiser import Muon, orthogonalise  # noqa: E402
from trainer.supervised import Supervised  # noqa: E402
from trainer.widen import widen  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
SMALL = [
    "data.batch_pixels=8192",
    'data.crops=["64x64", "48x64"]',
    'data.late_crops=["80x64"]',
    "optimiser.warmup=4",
    "run.log_every=1",
    "run.save_every=3",
]


def picture(random: np.random.Generator, size=(96, 128)) -> np.ndarray:
    coarse = random.random((size[0] // 8, size[1] // 8)).astype(np.float32)
    fine = random.random((size[0] // 2, size[1] // 2)).astype(np.float32)
    x = sum(w * cv2.resize(p, size[::-1], interpolation=cv2.INTER_CUBIC) for w, p in ((0.8, coarse), (0.2, fine)))
    return np.clip(x * 255, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Six pairs of two scenes."""
    root = tmp_path_factory.mktemp("pairs") / "mine"
    random = np.random.default_rng(3)
    for kind in ("ir", "vi"):
        (root / kind).mkdir(parents=True)
        for k in range(6):
            cv2.imwrite(str(root / kind / f"{'ab'[k % 2]}_{k:03d}.png"), picture(random))
    return root


def small(steps: int, *more: str) -> Config:
    return load_config("supervised-lite", [*SMALL, f"run.steps={steps}", *more])


def run(folder: Path, out: Path, config: Config, resume: bool = False, **more) -> bool:
    pairs = load_pairs([folder])
    batches = Batches(pairs, config.data, config.augment, config.run.seed, config.run.steps)
    return train(config, batches, Supervised(config), out, resume=resume, progress=False, **more)


def losses(out: Path) -> list[float]:
    with (out / "log.csv").open(newline="") as file:
        parts = ("pixel", "gradient", "grid", "structure")
        return [sum(float(row[part]) for part in parts) for row in csv.DictReader(file)]


class TestConfig:
    @pytest.mark.parametrize("path", sorted(PRESETS.glob("*.toml")), ids=lambda p: p.stem)
    def test_every_preset_loads_and_every_value_says_why(self, path):
        config = load_config(path.stem)
        assert Config.from_dict(json.loads(config.as_json())) == config
        for line in path.read_text().splitlines():
            assert "=" not in line or "#" in line, line

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("optimiser.rat=1", "optimiser.rat is not an option; did you mean 'rate'"),
            ("optimizer.rate=1", "optimizer is not an option; did you mean 'optimiser'"),
            ("run.steps=many", "run.steps is 'many' (str); expected int"),
            ("run.steps=1.5", "expected int"),
            ("run.steps=true", "expected int"),
            ("data.crops=[128]", "expected str"),
            ("steps=5", "expected section.key=value"),
        ],
    )
    def test_wrong_options_are_named(self, override, message):
        with pytest.raises(ConfigError) as error:
            load_config("supervised-lite", [override])
        assert message in str(error.value)

    def test_an_unknown_preset_names_the_closest(self):
        with pytest.raises(ConfigError, match="did you mean 'supervised-lite'"):
            load_config("supervised-light")

    def test_a_whole_number_serves_as_a_float(self):
        assert load_config("supervised-lite", ["loss.pixel=2"]).loss.pixel == 2.0


class TestData:
    def test_bad_files_are_skipped_and_named(self, tmp_path):
        random = np.random.default_rng(1)
        for kind in ("infrared", "visible"):
            (tmp_path / kind).mkdir()
            for name in ("good", "corrupt", "sizes", "flat", "tiny"):
                cv2.imwrite(str(tmp_path / kind / f"{name}.png"), picture(random))
        cv2.imwrite(str(tmp_path / "visible" / "alone.png"), picture(random))
        (tmp_path / "infrared" / "corrupt.png").write_bytes(b"\x89PNG not really")
        cv2.imwrite(str(tmp_path / "visible" / "sizes.png"), picture(random, (96, 96)))
        cv2.imwrite(str(tmp_path / "visible" / "tiny.png"), picture(random, (16, 16)))
        for kind in ("infrared", "visible"):
            cv2.imwrite(str(tmp_path / kind / "flat.png"), np.full((96, 128), 90, np.uint8))
        pairs = load_pairs([tmp_path])
        assert [pair.name.split("/")[1] for pair in pairs.pairs] == ["good"]
        reasons = {name.split("/")[1]: reason for name, reason in pairs.skipped.items()}
        assert "cannot be decoded" in reasons["corrupt"]
        assert "sizes differ: 128x96 and 96x96" in reasons["sizes"]
        assert "nearly constant" in reasons["flat"]
        assert "16x16" in reasons["tiny"]
        assert "no partner" in reasons["alone"]

    def test_a_folder_without_pairs_is_an_error_that_says_what_is_looked_for(self, tmp_path):
        with pytest.raises(InputError, match="cropinfrared/crop_LR_visible"):
            load_pairs([tmp_path])
        for kind in ("ir", "vi"):
            (tmp_path / kind).mkdir()
        with pytest.raises(InputError, match="share no picture"):
            load_pairs([tmp_path])

    def test_a_batch_depends_on_seed_and_step_alone(self, folder):
        pairs = load_pairs([folder])

        def batch(seed, step):
            return Batches(pairs, small(10).data, AugmentConfig(), seed, 10)(step)

        first, again = batch(0, 3), batch(0, 3)
        for a, b in zip(vars(first).values(), vars(again).values(), strict=True):
            assert torch.equal(a, b)
        other = [batch(0, 4), batch(1, 3)]
        assert all(o.ir.shape != first.ir.shape or not torch.equal(o.ir, first.ir) for o in other)

    def test_batches_hold_the_pixels_asked_for(self, folder):
        config = DataConfig(batch_pixels=20_000, crops=("64x48",), late_crops=("32x96",), late_from=0.5)
        batches = Batches(load_pairs([folder]), config, AugmentConfig(), 0, 10)
        assert batches(0).ir.shape == (7, 1, 48, 64)
        assert batches(5).vis.shape == (7, 1, 96, 32)

    def test_sources_stay_registered_and_in_range(self, tmp_path):
        """The same picture as both sources must come out as the same crop of both."""
        random = np.random.default_rng(2)
        x = picture(random)
        for kind in ("ir", "vi"):
            (tmp_path / kind).mkdir()
            cv2.imwrite(str(tmp_path / kind / "x.png"), x)
        none = dict.fromkeys(vars(AugmentConfig()), 0.0)
        calm = AugmentConfig(**{**none, "least_contrast": 1.0})
        batch = Batches(load_pairs([tmp_path]), DataConfig(crops=("64x64",)), calm, 0, 100)(0)
        assert torch.equal(batch.ir, batch.vis)
        torch.testing.assert_close(batch.ir, batch.clean_ir, atol=0.5 / 255 + 1e-6, rtol=0)
        for plane in vars(batch).values():
            assert float(plane.min()) >= 0 and float(plane.max()) <= 1 and plane.dtype == torch.float32

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


class TestOptimiser:
    @pytest.mark.parametrize("shape", [(16, 64), (64, 16), (20, 20)])
    def test_orthogonalise_brings_singular_values_near_one(self, shape):
        x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
        values = torch.linalg.svdvals(orthogonalise(x))
        assert float(values.min()) > 0.5 and float(values.max()) < 1.3
        u, _, v = torch.linalg.svd(x, full_matrices=False)
        assert float((orthogonalise(x) * (u @ v)).sum()) > 0.95 * min(shape) * 0.8  # the same directions

    def test_adam_for_what_is_no_matrix(self):
        network = torch.nn.Linear(4, 3)
        start = {name: p.detach().clone() for name, p in network.named_parameters()}
        other = torch.nn.Parameter(start["bias"].clone())
        muon, adam = Muon(network, 0.02, 0.01, (0.9, 0.99)), torch.optim.Adam([other], 0.01, (0.9, 0.99))
        for k in range(5):
            grad = torch.linspace(-1, 1, 3) * (k + 1)
            network.bias.grad, other.grad = grad.clone(), grad.clone()
            network.weight.grad = torch.ones(3, 4)
            muon.step()
            adam.step()
        torch.testing.assert_close(network.bias, other, atol=1e-6, rtol=0)
        assert float((network.weight.detach() - start["weight"]).abs().max()) > 0.02

    def test_the_schedule_warms_up_stays_and_falls(self):
        config = replace(load_config("supervised-lite").optimiser, warmup=10, decay_from=0.5, final=0.1)
        rates = [schedule(step, 100, config) for step in range(101)]
        assert rates[0] == pytest.approx(0.1) and rates[10:51] == [1.0] * 41
        assert all(a > b for a, b in itertools.pairwise(rates[50:]))
        assert rates[100] == pytest.approx(0.1)


class TestLoop:
    def test_the_loss_falls_and_the_weights_open(self, folder, tmp_path):
        out = tmp_path / "run"
        calm = ["loss.grid=0.0"]
        calm += [f"augment.{name}=0.0" for name in vars(AugmentConfig()) if name != "least_contrast"]
        code = main(
            ["--preset", "supervised-lite", "--data", str(folder), "--out", str(out), "--device", "cpu"]
            + [part for item in [*SMALL, *calm, "run.steps=40"] for part in ("--set", item)]
        )
        assert code == 0
        history = losses(out)
        assert len(history) == 40
        assert np.mean(history[-8:]) < 0.8 * np.mean(history[:8])
        weights = open_artefact(out / "weights.safetensors")
        assert weights.variant == "lite"
        assert weights.metadata["clip_trained"] == "no" and weights.metadata["step"] == "40"
        assert "mine: 6 pairs" in weights.metadata["trained_on"]
        assert json.loads(weights.metadata["config"])["run"]["steps"] == 40
        generator = Generator("lite")
        generator.load_state_dict({k: torch.from_numpy(v) for k, v in weights.state_dict().items()})

    def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(self, folder, tmp_path):
        config = small(8)
        assert run(folder, tmp_path / "whole", config)
        pairs = load_pairs([folder])
        batches = Batches(pairs, config.data, config.augment, config.run.seed, 8)

        def power_cut(step):
            if step == 5:
                raise ConnectionError("power cut")
            return batches(step)

        with pytest.raises(ConnectionError):
            train(config, power_cut, Supervised(config), tmp_path / "cut", progress=False)
        assert run(folder, tmp_path / "cut", config, resume=True)
        whole, cut = (open_artefact(tmp_path / name / "weights.safetensors").state_dict() for name in ("whole", "cut"))
        for name, tensor in whole.items():
            assert np.array_equal(tensor, cut[name]), name
        assert losses(tmp_path / "whole") == losses(tmp_path / "cut")

    def test_another_seed_gives_other_weights(self, folder, tmp_path):
        outs = []
        for seed in (0, 1):
            run(folder, tmp_path / str(seed), small(2, f"run.seed={seed}"))
            outs.append(open_artefact(tmp_path / str(seed) / "weights.safetensors").state_dict())
        assert any(not np.array_equal(outs[0][name], outs[1][name]) for name in outs[0])

    def test_losses_that_are_not_finite_are_skipped_then_end_the_run(self, folder, tmp_path):
        config = small(30, "run.give_up=3")
        teach = Supervised(config)
        seen = []

        def objective(generator, batch):
            seen.append(1)
            parts = teach(generator, batch)
            factor = float("nan") if len(seen) in (2, 3) or len(seen) > 8 else 1.0
            return {name: part * factor for name, part in parts.items()}

        batches = Batches(load_pairs([folder]), config.data, config.augment, 0, 30)
        with pytest.raises(DivergedError, match="3 losses in a row"):
            train(config, batches, objective, tmp_path / "run", progress=False)
        assert len(seen) == 11
        weights = open_artefact(tmp_path / "run" / "weights.safetensors").state_dict()
        assert all(np.isfinite(tensor).all() for tensor in weights.values())

    def test_sigterm_saves_and_says_how_to_go_on(self, folder, tmp_path):
        out = tmp_path / "run"
        options = [part for item in [*SMALL, "run.steps=100000"] for part in ("--set", item)]
        command = [sys.executable, "-m", "trainer", "--preset", "supervised-lite", "--data", str(folder)]
        command += ["--out", str(out), "--device", "cpu", "--threads", "1", *options]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ}) as process:
            deadline = time.monotonic() + 60
            while not (out / "state.pt").exists() and time.monotonic() < deadline:
                time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 3, errors
        assert "--resume" in errors and "python -m trainer" in errors
        assert int(open_artefact(out / "weights.safetensors").metadata["step"]) >= 3
        assert not list(out.glob(".*"))

    def test_wrong_use_ends_with_a_message(self, folder, tmp_path, capsys):
        out = ["--out", str(tmp_path / "none")]
        assert main(["--preset", "supervised-lite", "--data", str(tmp_path), *out]) == 2
        assert "no folders of infrared and visible" in capsys.readouterr().err
        assert main(["--preset", "supervised-lite", "--data", str(folder), "--resume", *out]) == 2
        assert "nothing to resume" in capsys.readouterr().err
        assert main(["--preset", "supervised-lite", "--data", str(folder), *out, "--set", "run.step=1"]) == 2
        assert "did you mean 'steps'" in capsys.readouterr().err


class TestWiden:
    def test_full_starts_where_lite_is(self):
        lite = initialise_scaled(Generator("lite"), 5)
        random = torch.Generator().manual_seed(0)
        ir, vis = (torch.rand(2, 1, 48, 72, generator=random) for _ in range(2))
        with torch.no_grad():
            small, big = lite(ir, vis), widen(lite.state_dict(), noise=0)(ir, vis)
        # The function is the same up to the squashing, which is monotonic and close around mid grey.
        order = small.flatten().argsort()
        assert float(big.flatten()[order].diff().min()) > -1e-4
        middle = (small - 0.5).abs() < 0.3
        assert float((small - big)[middle].abs().max()) < 0.06

    def test_noise_parts_the_copies(self):
        lite = initialise_scaled(Generator("lite"), 5).state_dict()
        kernel = widen(lite, seed=1).content_ir.down[0].weight
        assert not torch.equal(kernel[0], kernel[1])

    def test_only_lite_can_be_widened(self):
        with pytest.raises(ArtefactError, match="'lite'"):
            widen(Generator("full").state_dict())

    def test_a_run_starts_from_it(self, folder, tmp_path):
        run(folder, tmp_path / "lite", small(2))
        start = tmp_path / "lite" / "weights.safetensors"
        options = [*SMALL, "run.steps=2", f"network.start='{start}'"]
        run(folder, tmp_path / "full", load_config("supervised-full", options))
        assert open_artefact(tmp_path / "full" / "weights.safetensors").variant == "full"
        with pytest.raises(ArtefactError, match="cannot start from it"):
            full = tmp_path / "full" / "weights.safetensors"
            run(folder, tmp_path / "no", small(2, f"network.start='{full}'"))
