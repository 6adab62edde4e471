"""The trainer as people run it: a few real steps of both recipes, resuming, trouble."""

from __future__ import annotations

import csv
import json
import os
import re
import resource
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

from pyldfusion.artefact import open_artefact, save_weights  # noqa: E402
from pyldfusion.errors import ArtefactError  # noqa: E402
from pyldfusion.generator import Generator, load_generator  # noqa: E402
from trainer.__main__ import main  # noqa: E402
from trainer.build import make_batches, make_generator, make_objective  # noqa: E402
from trainer.config import AugmentConfig, Config, ConfigError, load_config  # noqa: E402
from trainer.data.pairs import load_pairs  # noqa: E402
from trainer.loop import DivergedError, train  # noqa: E402
from trainer.objective import Losses  # noqa: E402
from trainer.run.checkpoint import CheckpointError  # noqa: E402
from trainer.run.distributed import ALONE, Ranks  # noqa: E402
from trainer.run.precision import resolve  # noqa: E402
from trainer.run.validation import Validation  # noqa: E402
from trainer.start.initialise import initialise_scaled  # noqa: E402
from trainer.start.widen import widen  # noqa: E402
from trainer.supervised.objective import Supervised  # noqa: E402

from .trainer_pairs import picture  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
OFTEN = ["run.log_every=1", "run.save_every=3"]
SMALL = ["crops.batch_pixels=8192", 'crops.crops=["64x64", "48x64"]', 'crops.late_crops=["80x64"]', "schedule.warmup=4"]
#: The language recipe in small: lite, four crops of 32 px, three patches, real architectures with random weights.
LANGUAGE = [
    "network.variant=lite",
    "samples.batch=4",
    "samples.crop=32",
    "samples.repeat=2",
    "patches.count=3",
    "patches.side=[16, 24]",
    "patches.entropy=4.0",
    "clip.pretrained=none",
    "clip.precision=fp32",
    "vgg.weights=none",
    "vgg.precision=fp32",
]


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
    return load_config("supervised-lite", [*SMALL, *OFTEN, f"run.steps={steps}", *more])


def options(*items: str) -> list[str]:
    return [part for item in items for part in ("--set", item)]


def run(folder: Path, out: Path, config: Config, resume: bool = False, stop_at: int | None = None) -> bool:
    """A whole run; with ``stop_at`` the power fails before that step."""
    batches = make_batches(load_pairs([folder], config.data), config, ALONE)
    if stop_at is not None:
        batches = PowerCut(batches, stop_at)
    objective = make_objective(config, torch.device("cpu"))
    validation = Validation(config, torch.device("cpu")) if config.validation.data else None
    return train(config, batches, objective, out, validation=validation, resume=resume, progress=False)


class PowerCut:
    def __init__(self, batches, step) -> None:
        self.batches, self.step, self.steps_per_epoch = batches, step, batches.steps_per_epoch

    def __call__(self, step):
        if step == self.step:
            raise ConnectionError("power cut")
        return self.batches(step)


def table(out: Path, name: str = "log.csv") -> list[dict[str, str]]:
    with (out / name).open(newline="") as file:
        return list(csv.DictReader(file))


def weights(out: Path) -> dict[str, np.ndarray]:
    return open_artefact(out / "weights.safetensors").state_dict()


class TestSupervised:
    def test_the_loss_falls_and_the_weights_open(self, folder, tmp_path, capsys):
        out = tmp_path / "run"
        calm = ["imitation.grid=0.0"]
        calm += [f"augment.{name}=0.0" for name in vars(AugmentConfig()) if name != "least_contrast"]
        command = ["--preset", "supervised-lite", "--data", str(folder), "--out", str(out), "--device", "cpu"]
        assert main([*command, *options(*SMALL, *OFTEN, *calm, "run.steps=40")]) == 0
        assert re.search(r"40/40 .*loss=[\d.]+.*samples/s=[\d.]+", capsys.readouterr().err)
        losses = [float(row["loss"]) for row in table(out)]
        assert len(losses) == 40
        assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
        made = open_artefact(out / "weights.safetensors")
        assert made.variant == "lite"
        assert made.metadata["clip_trained"] == "no" and made.metadata["step"] == "40"
        assert "mine: 6 pairs" in made.metadata["trained_on"]
        assert json.loads(made.metadata["config"])["run"]["steps"] == 40
        load_generator(out / "weights.safetensors")
        summary = json.loads((out / "summary.json").read_text())
        assert summary["complete"] and summary["step"] == 40 and summary["losses"]["pixel"] > 0

    @pytest.mark.parametrize("decay", [0.0, 0.3])
    def test_the_result_is_the_average_of_what_was_learnt(self, folder, tmp_path, decay):
        expected = make_generator(load_config("supervised-lite").network, 0).state_dict()
        for step in (0, 1):
            run(folder, tmp_path, small(step + 1, f"optimiser.average={decay}"), resume=step > 0)
            learnt = torch.load(tmp_path / "state.pt", weights_only=True)["generator"]
            share = min(decay, (1 + step) / (10 + step))
            expected = {name: share * tensor + (1 - share) * learnt[name] for name, tensor in expected.items()}
        made = weights(tmp_path)
        for name, tensor in expected.items():
            np.testing.assert_allclose(made[name], tensor.numpy(), rtol=1e-5, atol=1e-7, err_msg=name)

    def test_biases_that_norms_remove_do_not_learn(self, folder, tmp_path):
        """Of an earlier version, they may have."""
        first = load_generator("lite")
        for name, tensor in (state := first.state_dict()).items():
            if name.endswith("bias"):
                tensor += 0.1
        save_weights(state, tmp_path / "first.safetensors", {"variant": "lite"})
        run(folder, tmp_path, small(3, f"network.start='{tmp_path / 'first.safetensors'}'"))
        for name, tensor in weights(tmp_path).items():
            if name.endswith("bias"):
                assert np.any(tensor) == name.startswith("decoder"), name

    def test_another_rate_holds_from_where_a_run_goes_on(self, folder, tmp_path):
        run(folder, tmp_path, small(2, "schedule.warmup=0"))
        run(folder, tmp_path, small(4, "schedule.warmup=0", "optimiser.rate=0.5"), resume=True)
        first, *_, last = (float(row["rate"]) for row in table(tmp_path))
        assert first < 0.1 and last <= 0.5 and last / first > 10

    def test_resuming_what_is_complete_changes_nothing(self, folder, tmp_path):
        for resume in (False, True):
            assert run(folder, tmp_path, small(2), resume=resume)
            summary = json.loads((tmp_path / "summary.json").read_text())
            assert summary["complete"] and summary["losses"]["pixel"] > 0

    def test_a_log_that_was_cut_short_does_not_stop_a_run_from_going_on(self, folder, tmp_path):
        run(folder, tmp_path, small(3))
        whole = (tmp_path / "log.csv").read_bytes()
        (tmp_path / "log.csv").write_bytes(whole[:-20] + b"\0\0\n\0\0\0")
        run(folder, tmp_path, small(5), resume=True)
        assert [row["step"] for row in table(tmp_path)] == ["0", "1", "3", "4"]

    def test_late_crops_are_late_where_the_run_has_epochs_instead_of_steps(self, folder):
        config = small(0, "run.epochs=8", 'crops.crops=["64x64"]', 'crops.late_crops=["32x32"]', "crops.late_from=0.5")
        batches = make_batches(load_pairs([folder]), config, ALONE)
        steps = 8 * batches.steps_per_epoch
        assert [batches(step).ir.shape[-1] for step in (0, steps // 2 - 1, steps // 2, steps - 1)] == [64, 64, 32, 32]

    def test_another_seed_gives_other_weights(self, folder, tmp_path):
        for seed in (0, 1):
            run(folder, tmp_path / str(seed), small(2, f"run.seed={seed}"))
        first, second = weights(tmp_path / "0"), weights(tmp_path / "1")
        assert any(not np.array_equal(first[name], second[name]) for name in first)

    def test_validation_leaves_numbers_and_pictures(self, folder, tmp_path):
        config = small(4, f"validation.data='{folder}'", "validation.every=2", "validation.pairs=3")
        looks = Validation(config, torch.device("cpu"))
        run(folder, tmp_path, config)
        rows = table(tmp_path, "validation.csv")
        assert [row["step"] for row in rows] == ["2", "4"]
        assert 0 < float(rows[0]["EN"]) <= 8 and set(rows[0]) == {"step", "EN", "CC", "SD", "EI", "VIFF"}
        strip = cv2.imread(str(tmp_path / "pictures" / "step_000004.png"), cv2.IMREAD_GRAYSCALE)
        assert strip.shape == (3 * 192, 3 * 256)  # three pairs; infrared, visible, fused
        made = {name: torch.from_numpy(array) for name, array in weights(tmp_path).items()}
        assert looks(made)[0]["EN"] == pytest.approx(float(rows[1]["EN"]), rel=1e-4)
        assert json.loads((tmp_path / "summary.json").read_text())["validation"]["EN"] == pytest.approx(
            float(rows[1]["EN"]), rel=1e-4
        )


@pytest.fixture(scope="module")
def language(tiny_clip):
    """Makes a configuration of the language recipe in small."""

    def make(steps: int, *more: str, preset: str = "paper") -> Config:
        return load_config(preset, [*LANGUAGE, *OFTEN, f"clip.model='{tiny_clip}'", f"run.steps={steps}", *more])

    return make


@pytest.mark.filterwarnings("ignore:.*random.*")
class TestLanguage:
    def test_the_loss_falls_and_its_parts_are_logged(self, folder, tmp_path, language):
        run(folder, tmp_path, language(16, "schedule.warmup=2", "network.initial=scaled"))
        rows = table(tmp_path)
        assert {"loss", "whole", "patches", "regulariser", "fidelity", "kept", "rate"} <= set(rows[0])
        for row in rows:
            parts = sum(float(row[name]) for name in ("whole", "patches", "regulariser", "fidelity"))
            assert parts == pytest.approx(float(row["loss"]), rel=1e-4)
            assert 0 <= float(row["kept"]) <= 1
        losses = [float(row["loss"]) for row in rows]
        assert np.mean(losses[-4:]) < np.mean(losses[:4])

    def test_tensorboard_has_what_the_log_has(self, folder, tmp_path, language):
        accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        data = [f"validation.data='{folder}'", "validation.every=2", "validation.pairs=1"]
        run(folder, tmp_path, language(2, *data))
        events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
        events.Reload()
        parts = {"loss", "whole", "patches", "regulariser", "fidelity", "kept", "samples a second", "rate"}
        parts |= {"gradient norm", "skipped"}
        numbers = {"EN", "CC", "SD", "EI", "VIFF"}
        expected = {f"train/{name}" for name in parts} | {f"validation/{name}" for name in numbers}
        assert set(events.Tags()["scalars"]) == expected
        assert events.Tags()["images"] == ["validation/ir, vis, fused"]
        for name in parts - {"samples a second"}:
            told = [(event.step, event.value) for event in events.Scalars(f"train/{name}")]
            logged = [(int(row["step"]), float(row[name])) for row in table(tmp_path)]
            assert len(told) == 2 and np.allclose(told, logged, rtol=1e-5), name
        (number,) = events.Scalars("validation/EN")
        assert number.step == 2
        assert number.value == pytest.approx(float(table(tmp_path, "validation.csv")[0]["EN"]), rel=1e-5)

    def test_parts_of_weight_zero_need_no_tower(self, folder, tmp_path, language):
        only = ["loss.whole=0.0", "loss.patches=0.0", "loss.regulariser=0.0", "clip.pretrained=/no/such/file"]
        run(folder, tmp_path / "fidelity", language(1, *only))
        assert float(table(tmp_path / "fidelity")[0]["fidelity"]) > 0
        run(folder, tmp_path / "clip", language(1, "loss.fidelity=0.0", "vgg.weights=/no/such/file"))
        assert "fidelity" not in table(tmp_path / "clip")[0]

    @pytest.mark.parametrize("preset", ["paper", "authors"])
    def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(self, folder, tmp_path, language, preset):
        config = language(8, "optimiser.average=0.9", "clip.precision=bf16", preset=preset)
        assert run(folder, tmp_path / "whole", config)
        with pytest.raises(ConnectionError):
            run(folder, tmp_path / "cut", config, stop_at=5)
        assert run(folder, tmp_path / "cut", config, resume=True)
        whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
        assert all(np.array_equal(whole[name], cut[name]) for name in whole)
        timeless = [
            [{k: v for k, v in row.items() if k not in ("seconds", "samples a second")} for row in table(tmp_path / n)]
            for n in ("whole", "cut")
        ]
        assert timeless[0] == timeless[1]

    def test_workers_change_nothing(self, folder, tmp_path, language):
        for workers in (0, 2):
            run(folder, tmp_path / str(workers), language(3, f"data.workers={workers}", preset="authors"))
        none, two = weights(tmp_path / "0"), weights(tmp_path / "2")
        assert all(np.array_equal(none[name], two[name]) for name in none)

    def test_fp16_towers_train_with_a_scaled_loss(self, folder, tmp_path, language):
        run(folder, tmp_path / "a", language(2, "clip.precision=fp16"))
        run(folder, tmp_path / "b", language(2))
        half, full = (float(table(tmp_path / name)[0]["loss"]) for name in "ab")
        assert half == pytest.approx(full, rel=5e-3)
        norms = [float(table(tmp_path / name)[0]["gradient norm"]) for name in "ab"]
        assert norms[0] == pytest.approx(norms[1], rel=0.1)
        # what was begun without one goes on with a scaler, as where the device is another
        assert run(folder, tmp_path / "b", language(3, "clip.precision=fp16"), resume=True)

    def test_sentences_of_single_pictures_are_matched_before_a_tower_is_loaded(
        self, folder, tmp_path, capsys, language, monkeypatch
    ):
        def load(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("trainer.__main__.make_objective", load)
        base = ["--data", str(folder), "--out", str(tmp_path / "run"), "--device", "cpu"]
        base += options(*LANGUAGE, f"prompts.content='{tmp_path}/texts.csv'")
        (tmp_path / "texts.csv").write_text("name,text\na_000,a car\nmine/c,people\n")
        assert main(base) == 130
        assert "prompts.content: 1 of 2 rows are of a pair, 1 of none: 'mine/c'\n" in capsys.readouterr().out
        (tmp_path / "texts.csv").write_text("name,text\nmine/c,people\n")
        assert main(base) == 2
        assert "expected names of pairs, such as 'mine/a_000' or 'a_000'" in capsys.readouterr().err

    def test_an_epoch_is_as_many_steps_as_full_batches(self, folder, tmp_path, language):
        run(folder, tmp_path, language(0, "run.epochs=2"))  # 6 pairs, twice an epoch, batches of 4
        assert len(table(tmp_path)) == 2 * 3


def test_auto_precision_is_one_the_device_has(monkeypatch):
    config = load_config("paper", ["run.precision=auto", "vgg.precision=fp32"])
    for native, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr("trainer.run.precision.native_bf16", lambda native=native: native)
        chosen = resolve(config, torch.device("cpu"))
        assert (chosen.run.precision, chosen.clip.precision, chosen.vgg.precision) == (expected, expected, "fp32")
    for capability, expected in (((8, 6), ("bf16", "bf16")), ((7, 5), ("fp32", "fp16"))):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, capability=capability: capability)
        chosen = resolve(config, torch.device("cuda"))
        assert (chosen.run.precision, chosen.clip.precision) == expected


class TestTrouble:
    def test_losses_that_are_not_finite_are_skipped_then_end_the_run(self, folder, tmp_path):
        config = small(30, "run.give_up=3")
        teach, seen = Supervised(config), []

        def objective(generator, batch):
            seen.append(1)
            factor = float("nan") if len(seen) in (2, 3) or len(seen) > 8 else 1.0
            return Losses({name: part * factor for name, part in teach(generator, batch).parts.items()})

        batches = make_batches(load_pairs([folder]), config, ALONE)
        with pytest.raises(DivergedError, match="3 losses in a row"):
            train(config, batches, objective, tmp_path / "run", progress=False)
        assert len(seen) == 11
        assert all(np.isfinite(tensor).all() for tensor in weights(tmp_path / "run").values())
        assert [row["skipped"] for row in table(tmp_path / "run")][:4] == ["0", "1", "2", "2"]

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["--out", "IN_A_FILE/run"], "no folder can be made there"),
            (["--out", "NEW", "--resume"], "nothing to resume"),
            (["--out", "NEW", "--set", "validation.data=nowhere", "--only", "a"], "nowhere: no such folder or file"),
            (["--out", "NEW", "--threads", "0"], "--threads is 0; expected at least 1"),
            (["--out", "NEW", "--set", "clip.pretrained=none", "--preset", "paper"], "skipped: 1"),
        ],
    )
    def test_wrong_use_ends_at_once_with_a_message(self, tmp_path, capsys, more, message):
        """Before a tower is loaded, which takes long."""
        random = np.random.default_rng(0)
        for kind in ("ir", "vi"):
            (tmp_path / kind).mkdir()
            for name in ("a", "torn"):
                cv2.imwrite(str(tmp_path / kind / f"{name}.png"), picture(random, (240, 240)))
        (tmp_path / "vi" / "torn.png").write_bytes(b"no picture")
        (tmp_path / "file").touch()
        more = [part.replace("IN_A_FILE", f"{tmp_path}/file").replace("NEW", f"{tmp_path}/new") for part in more]
        assert main(["--data", str(tmp_path), "--preset", "supervised-lite", "--device", "cpu", *more]) == 2
        told = capsys.readouterr()
        assert message in told.out + told.err and "error: " in told.err
        assert not (tmp_path / "new").exists()

    def test_sigterm_saves_and_says_how_to_go_on(self, folder, tmp_path):
        out = tmp_path / "run"
        command = [sys.executable, "-m", "trainer", "--preset", "supervised-lite", "--data", str(folder)]
        command += ["--out", str(out), "--device", "cpu", "--threads", "1"]
        command += options(*SMALL, *OFTEN, "run.steps=100000", "data.workers=1")
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ}) as process:
            wait_for(out / "weights.safetensors")
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 3, errors
        assert "--resume" in errors and "python -m trainer" in errors and "Traceback" not in errors
        assert int(open_artefact(out / "weights.safetensors").metadata["step"]) >= 3
        assert not json.loads((out / "summary.json").read_text())["complete"]
        assert not list(out.glob(".*"))

    def test_a_kill_at_any_moment_leaves_a_checkpoint_that_resumes(self, folder, tmp_path):
        out = tmp_path / "run"
        base = ["--preset", "supervised-lite", "--data", str(folder), "--out", str(out), "--device", "cpu"]
        base += options(*SMALL, "run.save_every=1")
        command = [sys.executable, "-m", "trainer", *base, *options("run.steps=100000")]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            wait_for(out / "weights.safetensors")
            time.sleep(0.37)
            process.kill()
        step = torch.load(out / "state.pt", weights_only=True)["step"]
        assert main([*base, "--resume", *options(f"run.steps={step + 1}")]) == 0
        assert json.loads((out / "summary.json").read_text())["step"] == step + 1

    def test_a_full_disk_costs_no_checkpoint(self, folder, tmp_path):
        out = tmp_path / "run"
        assert run(folder, out, small(3))
        before = {path.name: path.read_bytes() for path in out.glob("*.[ps][ta]*") if path.is_file()}
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # what a full disk is to a writer
        try:
            with pytest.warns(UserWarning, match="the run goes on"), pytest.raises(CheckpointError, match="--out"):
                run(folder, out, small(9), resume=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert before.keys() >= {"state.pt", "weights.safetensors"}
        assert all((out / name).read_bytes() == content for name, content in before.items() if name != "summary.json")
        assert not list(out.glob(".*"))
        assert run(folder, out, small(9), resume=True)

    def test_ctrl_c_before_the_first_step_ends_without_a_traceback(self, folder, tmp_path, capsys, monkeypatch):
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("trainer.__main__.load_pairs", interrupt)
        assert main(["--data", str(folder), "--out", str(tmp_path / "run"), "--device", "cpu"]) == 130
        assert "nothing was saved" in capsys.readouterr().err

    def test_wrong_use_ends_with_a_message(self, folder, tmp_path, capsys):
        def says(*command: str) -> str:
            assert main(["--device", "cpu", *command]) == 2
            return capsys.readouterr().err

        lite = ["--preset", "supervised-lite", "--out", str(tmp_path / "run")]
        data = ["--data", str(folder)]
        assert "no folders of infrared and visible" in says(*lite, "--data", str(tmp_path))
        with pytest.raises(SystemExit):
            main([*lite, *data, "--rseume"])
        assert "'--rseume' is not an option; did you mean '--resume'?" in capsys.readouterr().err
        assert "nothing to resume" in says(*lite, *data, "--resume")
        assert "did you mean 'steps'" in says(*lite, *data, "--set", "run.step=1")
        assert "no device" in says(*lite, *data, "--device", "gpu")
        assert "'mps' is no device to train on" in says(*lite, *data, "--device", "mps")
        assert "crops.late_crops is empty" in says(*lite, *data, "--set", "crops.late_crops=[]")
        few = ["--data", str(folder), "--out", str(tmp_path / "few"), "--set", "samples.crop=96"]
        assert "lower samples.batch" in says(*few)  # 6 pairs, batch 16
        assert "expected at least 113 a side" in says(*few[:-2])
        assert main([*lite, *data, "--device", "cpu", *options(*SMALL, "run.steps=1")]) == 0
        assert "already holds a run" in says(*lite, *data)
        other = ["--preset", "supervised-full", "--out", str(tmp_path / "run"), "--resume"]
        assert "network.variant = 'lite', not 'full'" in says(*other, *data)
        (tmp_path / "run" / "state.pt").write_bytes(b"PK not a checkpoint")
        assert "cannot be read as the state of a run" in says(*lite, *data, "--resume")
        torch.save({"step": 3}, tmp_path / "run" / "state.pt")
        assert "not the state of a run" in says(*lite, *data, "--resume")


def wait_for(path: Path, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.05)


@pytest.mark.filterwarnings("ignore:.*random.*")
class TestManyProcesses:
    """Two processes, each with half of every batch, against one with all of it."""

    @pytest.fixture(scope="class")
    @classmethod
    def runs(cls, folder, tmp_path_factory, tiny_clip):
        # in float64: in float32 Adam turns rounding into whole steps where a gradient is nearly none
        more = [f"clip.model='{tiny_clip}'", "network.variant=full", "run.precision=fp64"]
        return cls.both(folder, tmp_path_factory.mktemp("ranks"), *more)

    @staticmethod
    def both(folder: Path, root: Path, *more: str) -> Path:
        """A run of one process in ``root/1``, and of two in ``root/2``."""
        command = ["--data", str(folder), "--preset", "authors", "--device", "cpu"]
        command += options(*LANGUAGE, *OFTEN, "run.steps=3", "schedule.warmup=2", *more)
        assert main([*command, "--out", str(root / "1")]) == 0
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        two = [*torchrun, "-m", "trainer", *command, "--out", str(root / "2")]
        done = subprocess.run(two, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return root

    def test_nearly_the_same_in_float32(self, folder, tmp_path, tiny_clip):
        self.test_the_same_losses_and_pictures(
            self.both(folder, tmp_path, f"clip.model='{tiny_clip}'", "run.precision=fp32"), folder, within=1e-3
        )

    def test_the_same_weights(self, runs):
        one, two = (torch.load(runs / str(n) / "state.pt", weights_only=True)["generator"] for n in (1, 2))
        assert one.keys() == two.keys() and all(tensor.dtype == torch.float64 for tensor in one.values())
        assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-8

    def test_the_same_losses_and_pictures(self, runs, folder, within=1e-5):
        one, two = table(runs / "1"), table(runs / "2")
        assert len(one) == len(two) == 3
        for a, b in zip(one, two, strict=True):
            for name in ("loss", "whole", "patches", "regulariser", "fidelity"):
                assert float(a[name]) == pytest.approx(float(b[name]), rel=within), name
        pair = load_pairs([folder]).pairs[0]
        ir, vis = (torch.from_numpy(plane.astype(np.float32) / 255)[None, None] for plane in pair.planes())
        first, second = (load_generator(runs / str(n) / "weights.safetensors") for n in (1, 2))
        with torch.no_grad():
            assert float((first(ir, vis) - second(ir, vis)).abs().max()) < within

    def test_a_batch_that_cannot_be_shared_is_an_error(self, folder):
        config = load_config("paper", [*LANGUAGE, "samples.batch=3"])
        with pytest.raises(ConfigError, match=r"samples\.batch"):
            make_batches(load_pairs([folder], config.data), config, replace(ALONE, world=2))

    @pytest.mark.parametrize(
        ("ranks", "command"),
        [
            (Ranks(), "python"),
            (Ranks(0, 4, 4), "torchrun --standalone --nproc-per-node 4"),
            (
                Ranks(5, 8, 4),
                "torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-id NAME --rdzv-endpoint HOST:PORT",
            ),
        ],
    )
    def test_the_command_that_starts_as_many_processes_again(self, ranks, command):
        assert ranks.launcher == command


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
        settings = [*SMALL, *OFTEN, "run.steps=2", f"network.start='{start}'"]
        run(folder, tmp_path / "full", load_config("supervised-full", settings))
        assert open_artefact(tmp_path / "full" / "weights.safetensors").variant == "full"
        full = tmp_path / "full" / "weights.safetensors"
        run(folder, tmp_path / "pruned", small(2, f"network.start='{full}'"))
        assert open_artefact(tmp_path / "pruned" / "weights.safetensors").variant == "lite"
