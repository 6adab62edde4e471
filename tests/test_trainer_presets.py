"""The ablations of the paper: what each changes, and running them one after the other."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")

from pyldfusion.scene import Scene  # noqa: E402
from trainer.ablate import ABLATIONS, main  # noqa: E402
from trainer.config import PRESETS, load_config  # noqa: E402

#: Name -> (section, key) -> value: all that may differ from the paper's recipe.
DIFFERENCES = {
    "paper": {},
    "without-language": {("loss", "whole"): 0.0, ("loss", "patches"): 0.0, ("loss", "regulariser"): 0.0},
    "without-direction": {("loss", "whole"): 0.0, ("loss", "patches"): 0.0},
    "without-phi": {("loss", "regulariser"): 0.0},
    "without-clear": {("prompts", "objective"): ("an image with detailed background and salient objects",)},
    "without-background": {("prompts", "objective"): ("a clear image with salient objects",)},
    "without-objects": {("prompts", "objective"): ("a clear image with detailed background",)},
    "swapped-prompts": {
        ("prompts", "infrared"): ("a visible gray image",),
        ("prompts", "visible"): ("an infrared image",),
    },
    "lambda-2": {("loss", "regulariser"): 2.0},
    "alpha-0.5": {("loss", "fidelity"): 0.5},
    "alpha-2": {("loss", "fidelity"): 2.0},
}
#: Two steps of a run; without VGG, whose loading would take longer than all the rest.
TINY = ["network.variant=lite", "run.objective=supervised", "crops.batch_pixels=4096", 'crops.crops=["32x32"]']
TINY += ['crops.late_crops=["32x32"]', "run.steps=2", "run.log_every=1", "run.save_every=1", "schedule.warmup=1"]


def settings(config) -> dict[tuple[str, str], object]:
    return {(section, key): value for section, keys in config.as_dict().items() for key, value in keys.items()}


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_differs_from_the_paper_in_what_it_says_alone(name):
    paper = settings(load_config("paper"))
    ours = settings(load_config(ABLATIONS[name].preset, [*ABLATIONS[name].options]))
    assert ours.keys() == paper.keys()
    assert {key: value for key, value in ours.items() if value != paper[key]} == DIFFERENCES[name]


def test_every_ablation_preset_is_in_the_table_and_every_value_says_why():
    presets = {path.stem for path in PRESETS.glob("paper-*.toml")} - {"paper-8gb"}
    assert presets == {ablation.preset for ablation in ABLATIONS.values()} - {"paper"}
    for name in presets:
        lines = (PRESETS / f"{name}.toml").read_text().splitlines()
        assert 'base = "paper"' in "\n".join(lines) and sum("=" in line.partition("#")[0] for line in lines) <= 4
        assert all("#" in line for line in lines if "=" in line)


def test_the_phrases_of_the_objective_are_the_papers():
    """Each shortened objective is the whole one without one phrase."""
    (whole,) = load_config("paper").prompts.objective
    phrases = {"clear": "clear ", "background": "detailed background and ", "objects": " and salient objects"}
    for name, phrase in phrases.items():
        (short,) = load_config(f"paper-without-{name}").prompts.objective
        assert short == whole.replace(phrase, "").replace("a image", "an image")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("ablate") / "pairs"
    for kind in ("ir", "vi"):
        (root / kind).mkdir(parents=True)
    for k in range(4):
        frame = Scene(seed=k, size=(64, 48), kind="dusk").render(0)
        cv2.imwrite(str(root / "ir" / f"{k}.png"), frame.ir)
        cv2.imwrite(str(root / "vi" / f"{k}.png"), frame.vis)
    return root


def test_runs_are_made_skipped_and_gone_on_with_then_tabled(pairs, tmp_path, capsys):
    argv = ["--data", str(pairs), "--out", str(tmp_path), "--only", "without-language"]
    extra = ["--", "--device", "cpu", *(part for option in TINY for part in ("--set", option))]
    assert main([*argv, *extra]) == 0
    out = tmp_path / "without-language"
    assert json.loads((out / "summary.json").read_text())["complete"] is True
    assert "without-language: begins" in capsys.readouterr().out

    before = (out / "weights.safetensors").read_bytes()
    assert main([*argv, "--test", str(pairs), "--device", "cpu", *extra]) == 0
    printed = capsys.readouterr().out
    assert "without-language: complete" in printed and "| without-language |" in printed
    assert "### pairs (4 pairs)" in printed
    assert (out / "weights.safetensors").read_bytes() == before

    # as a run is left that was interrupted: a state, and a summary that says so
    summary = json.loads((out / "summary.json").read_text())
    (out / "summary.json").write_text(json.dumps({**summary, "complete": False}))
    assert main([*argv, *extra, "--set", "run.steps=3"]) == 0
    assert "without-language: goes on" in capsys.readouterr().out
    assert json.loads((out / "summary.json").read_text())["complete"] is True
    assert (out / "weights.safetensors").read_bytes() != before


def test_the_listing_names_presets_and_the_papers_numbers(capsys):
    assert main(["--list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ABLATIONS)
    assert "--preset paper --set loss.regulariser=2.0" in out and "6.652 .739 31.465 42.899 .291" in out


def test_wrong_use_ends_with_a_message(pairs, tmp_path, capsys):
    assert main([]) == 2
    assert "expected --data DIR" in capsys.readouterr().err
    argv = ["--data", str(pairs), "--out", str(tmp_path), "--only", "without-phi"]
    assert main([*argv, "--", "--out", "elsewhere"]) == 2
    assert "--out behind --" in capsys.readouterr().err
    assert main([*argv, "--", "--set", "loss.regularizer=1"]) == 2
    assert "did you mean 'regulariser'" in capsys.readouterr().err
    (tmp_path / "without-phi").mkdir(exist_ok=True)
    (tmp_path / "without-phi" / "summary.json").write_text("[]")
    assert main(argv) == 2
    assert "not the summary of a run" in capsys.readouterr().err
    with pytest.raises(SystemExit) as error:
        main(["--data", str(pairs), "--only", "without-everything"])
    assert error.value.code == 2


PAPER_VALUES = {
    "loss.whole": 2 / 12,
    "loss.patches": 10 / 12,
    "loss.regulariser": 0.5,
    "loss.fidelity": 1.0,
    "optimiser.name": "adam",
    "optimiser.rate": 1e-3,
    "optimiser.betas": (0.9, 0.999),
    "run.epochs": 70,
    "schedule.warmup": -1,
    "schedule.milestones": (50, 60),
    "schedule.factor": 0.5,
    "samples.batch": 16,
    "samples.crop": 224,
    "samples.repeat": 1,
    "samples.affine": False,
    "samples.noise": 0.0,
    "patches.count": 32,
    "patches.side": (112, 179),
    "patches.one_side": True,
    "patches.degrees": 5.0,
    "patches.shear": 5.0,
    "patches.shift": 0.1,
    "patches.scale": (1.0, 1.5),
    "patches.entropy": 6.0,
    "clip.model": "ViT-B-32-quickgelu",
    "clip.pretrained": "openai",
    "network.initial": "authors",
    "prompts.infrared": ("an infrared image",),
    "prompts.visible": ("a visible gray image",),
}
AUTHORS_VALUES = PAPER_VALUES | {
    "loss.whole": 2.0,
    "loss.patches": 10.0,
    "loss.regulariser": 3.0,
    "loss.fidelity": 10.0,
    "optimiser.rate": 5e-4,
    "run.epochs": 100,
    "schedule.milestones": (50, 60, 70, 80, 90),
    "samples.repeat": 10,
    "samples.affine": True,
    "samples.noise": 0.03,
    "samples.least_deviation": 0.05,
    "samples.redraws": 10,
}


@pytest.mark.parametrize(("preset", "expected"), [("paper", PAPER_VALUES), ("authors", AUTHORS_VALUES)])
def test_the_presets_hold_the_methods_table(preset, expected):
    values = load_config(preset).as_dict()
    assert {key: values[key.split(".")[0]][key.split(".")[1]] for key in expected} == expected
