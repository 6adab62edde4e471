"""The trainer's configuration: presets, options of the command line, what is wrong with them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from trainer.config import PRESETS, Config, ConfigError, load_config


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.toml")), ids=lambda p: p.stem)
def test_every_preset_loads_and_every_value_says_why(path):
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
        ("crops.crops=[128]", "expected str"),
        ("steps=5", "expected section.key=value"),
        ("run.objective=speech", "run.objective is 'speech'; did you mean 'supervised'"),
        ("patches.side=[9, 3]", "the smaller first"),
        ("samples.batch=0", "samples.batch is 0; expected at least 1"),
        ("run.seed=-1", "run.seed is -1; expected at least 0"),
        ("network.variant=lit", "network.variant is 'lit'; did you mean 'lite'"),
        ("loss.whole=-1", "loss.whole is -1.0; expected at least 0"),
        ("optimiser.rate=nan", "optimiser.rate is nan; expected a finite number"),
        ("optimiser.betas=[0.9]", "expected two numbers from 0 to below 1"),
        ("optimiser.average=1.0", "expected a number from 0 to below 1"),
        ("crops.crops=[]", "crops.crops is empty; expected at least one WIDTHxHEIGHT"),
        ("crops.margin=-1", "crops.margin is -1; expected at least 0"),
    ],
)
def test_wrong_options_are_named(override, message):
    with pytest.raises(ConfigError) as error:
        load_config("supervised-lite", [override])
    assert message in str(error.value)


def test_a_run_has_an_end():
    assert load_config("paper", ["run.epochs=0", "run.steps=5"]).run.steps == 5
    with pytest.raises(ConfigError, match=r"run\.epochs is 0; expected at least 1"):
        load_config("paper", ["run.epochs=0"])


def test_an_unknown_preset_names_the_closest():
    with pytest.raises(ConfigError, match="did you mean 'supervised-lite'"):
        load_config("supervised-light")


def test_a_whole_number_serves_as_a_float():
    assert load_config("supervised-lite", ["imitation.pixel=2"]).imitation.pixel == 2.0


def test_presets_build_on_each_other_and_one_sentence_is_a_list(tmp_path):
    (tmp_path / "mine.toml").write_text('base = "authors"\n[prompts]\nobjective = "a sharp image"\n')
    mine, authors = load_config(str(tmp_path / "mine.toml")), load_config("authors")
    assert mine.prompts.objective == ("a sharp image",)
    assert replace(mine, prompts=authors.prompts) == authors
    (tmp_path / "own.toml").write_text('base = "mine.toml"\n[prompts]\nvisible = "a photo"\n')
    own = load_config(str(tmp_path / "own.toml"))  # mine.toml is looked for beside it
    assert (list(own.prompts.objective), list(own.prompts.visible)) == (["a sharp image"], ["a photo"])
    (tmp_path / "a.toml").write_text('base = "b.toml"')
    (tmp_path / "b.toml").write_text(f'base = "{tmp_path}/a.toml"')
    (tmp_path / "c.toml").write_text("run = 3")
    with pytest.raises(ConfigError, match="the preset has run = 3; expected a table"):
        load_config(str(tmp_path / "c.toml"), ["run.steps=1"])
    with pytest.raises(ConfigError, match="circle"):
        load_config(str(tmp_path / "a.toml"))


@pytest.mark.parametrize(
    "option",
    ["samples.redraws=-1", "schedule.factor=-1", "optimiser.rate=inf", "patches.entropy=nan", "patches.shear=90",
     "patches.degrees=nan", "optimiser.betas=[0.9,nan]"],
)  # fmt: skip
def test_numbers_that_cannot_be_are_refused_by_name(option):
    with pytest.raises(ConfigError, match=option.partition("=")[0].replace(".", r"\.")):
        load_config("paper", [option])
