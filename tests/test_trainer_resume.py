"""A run that goes on: with which options it is still the same run, and what its weights say where its data changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")

from pyldfusion.artefact import open_artefact  # noqa: E402
from trainer.__main__ import main  # noqa: E402
from trainer.config import ConfigError, DataConfig, load_config  # noqa: E402
from trainer.data.history import History  # noqa: E402
from trainer.data.pairs import load_pairs, read_planes  # noqa: E402
from trainer.run.resume import check_same_run  # noqa: E402

from .trainer_pairs import write_pairs  # noqa: E402

OUT = Path("runs/one")


def change(preset: str, *options: str) -> str:
    """What is said where a run of ``preset`` goes on with some options changed."""
    return check_same_run({"config": load_config(preset).as_json()}, load_config(preset, list(options)), OUT)


class TestOptions:
    @pytest.mark.parametrize(
        ("preset", "option", "said"),
        [
            ("paper", "run.objective=supervised", "run.objective = 'language', not 'supervised'"),
            ("paper", "run.seed=1", "run.seed = 0, not 1"),
            ("paper", "run.precision=fp64", "run.precision = 'fp32', not 'fp64'"),
            ("paper", "network.variant=lite", "network.variant = 'full', not 'lite'"),
            ("paper", "optimiser.name=muon", "optimiser.name = 'adam', not 'muon'"),
            ("paper", "loss.regulariser=2.0", "loss.regulariser = 0.5, not 2.0"),
            ("paper", "patches.entropy=5.0", "patches.entropy = 6.0, not 5.0"),
            ("paper", "prompts.infrared=heat", "prompts.infrared = ['an infrared image'], not ['heat']"),
            ("paper", "clip.model=ViT-L-14", "clip.model = 'ViT-B-32-quickgelu', not 'ViT-L-14'"),
            ("supervised-lite", "imitation.grid=0.0", "imitation.grid = 12.0, not 0.0"),
            ("supervised-lite", "teacher.deviation=0.1", "teacher.deviation = "),
        ],
    )
    def test_what_makes_it_another_run_is_refused_with_what_to_do(self, preset, option, said):
        with pytest.raises(ConfigError) as refused:
            change(preset, option, "run.save_every=7")
        assert f"{OUT} holds another run: {said}" in str(refused.value) and "save_every" not in str(refused.value)
        assert "take another --out and begin from its weights: --set network.start=runs/one/" in str(refused.value)

    @pytest.mark.parametrize(
        ("preset", "option"),
        [
            ("paper", "run.steps=9"),
            ("paper", "run.precision=bf16"),
            ("paper", "optimiser.rate=0.1"),
            ("paper", "patches.compact=no"),
            ("paper", "clip.pretrained=/other/place/ViT-B-32.pt"),
            ("paper", "prompts.content=/other/place/texts.csv"),
            ("paper", "network.start=/other/place/weights.safetensors"),
            ("paper", "imitation.grid=0.0"),  # of the other objective
            ("supervised-lite", "loss.whole=0.5"),
            ("supervised-lite", "data.workers=2"),
        ],
    )
    def test_what_does_not_is_told(self, preset, option):
        told = change(preset, option)
        key, _, value = option.partition("=")
        assert told.startswith(f"resuming with other options: {key}: ") and told.endswith(f" -> {value}")
        assert change(preset) == ""

    def test_options_that_the_checkpoint_does_not_know_yet_do_not_matter(self):
        config = load_config("paper")
        before = config.as_dict()
        del before["loss"]["fidelity"], before["imitation"]
        assert check_same_run({"config": json.dumps(before)}, config, OUT) == ""


class TestHistory:
    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        return write_pairs(tmp_path / "mine", ["a_0", "a_1", "a_2"])

    def test_the_same_pairs_need_no_word(self, folder):
        first, again = History.of(load_pairs([folder])), History.of(load_pairs([folder], DataConfig(cache="no")))
        assert again.follow(first.state(), 5) == "" and again == first
        assert first.metadata()["trained_on"] == "mine: 3 pairs"

    def test_what_changed_is_named_and_every_part_is_kept(self, folder, tmp_path):
        first = History.of(load_pairs([folder]))
        write_pairs(folder, ["a_1", "b"], seed=8)
        (folder / "ir" / "a_2.png").unlink()
        second = History.of(load_pairs([folder]))
        told = second.follow(first.state(), 40)
        assert "1 new (mine/b), 1 gone (mine/a_2), 1 changed (mine/a_1); 3 before, 3 now" in told
        assert "in this epoch pairs may come twice or not at all" in told
        other = write_pairs(tmp_path / "other", ["x"])
        (other / "manifest.csv").write_text("name,source,terms\nx,elsewhere,CC0\n")
        third = History.of(load_pairs([other]))
        third.follow(second.state(), 90)
        made = third.metadata()
        assert made["trained_on"] == (
            "from step 0: mine: 3 pairs; from step 40: mine: 3 pairs; from step 90: elsewhere: 1 pairs"
        )
        assert made["terms"] == "CC0; not stated (mine has no manifest.csv)"
        assert len(set(made["data_sha256"].split("; "))) == 3

    def test_another_weight_or_source_is_a_change(self, folder):
        first = History.of(load_pairs([folder]))
        assert "3 changed" in History.of(load_pairs([f"{folder}=2"])).follow(first.state(), 1)
        (folder / "manifest.csv").write_text("name,source,terms\na_1,me,MIT\n")
        assert "3 changed" in History.of(load_pairs([folder])).follow(first.state(), 1)

    def test_a_checkpoint_without_record_is_not_claimed_to_be_of_these(self, folder):
        history = History.of(load_pairs([folder]))
        assert "the first 7 steps learnt from is not recorded" in history.follow(None, 7)
        assert history.metadata()["trained_on"] == "from step 0: not recorded; from step 7: mine: 3 pairs"

    def test_what_the_first_weights_learnt_from_counts(self, folder):
        pairs = load_pairs([folder])
        own = History.of(pairs).metadata()
        start = {"trained_on": "theirs: 9 pairs", "terms": "CC-BY", "data_sha256": "1234", "step": "3"}
        made = History.of(pairs, start).metadata()
        assert made["trained_on"] == "before, in network.start: theirs: 9 pairs; from step 0: mine: 3 pairs"
        assert made["terms"] == f"CC-BY; {own['terms']}"
        assert History.of(pairs, own).metadata() == own  # the same pairs
        assert History.of(pairs, {"variant": "lite"}).metadata() == own

    def test_every_file_is_decoded_once(self, folder, monkeypatch):
        decoded = []

        def count(ir, vis):
            decoded.append(ir.stem)
            return read_planes(ir, vis)

        monkeypatch.setattr("trainer.data.pairs.read_planes", count)
        History.of(load_pairs([folder], DataConfig(cache="no")))
        assert sorted(decoded) == ["a_0", "a_1", "a_2"]


class TestRuns:
    OPTIONS = ("crops.batch_pixels=4096", "crops.crops=32x32", "crops.late_crops=32x32", "schedule.warmup=1")

    def command(self, out: Path, data: Path, steps: int, *more: str, preset: str = "supervised-lite") -> list[str]:
        options = [part for option in (*self.OPTIONS, f"run.steps={steps}") for part in ("--set", option)]
        return ["--preset", preset, "--data", str(data), "--out", str(out), "--device", "cpu", *options, *more]

    def test_weights_name_the_data_of_every_part(self, tmp_path, recwarn):
        out = tmp_path / "run"
        first, second = write_pairs(tmp_path / "first", ["a", "b"]), write_pairs(tmp_path / "second", ["c"])
        assert main(self.command(out, first, 1)) == 0
        assert open_artefact(out / "weights.safetensors").metadata["trained_on"] == "first: 2 pairs"
        assert main(self.command(out, first, 2, "--resume")) == 0
        assert not [w for w in recwarn if "other pairs" in str(w.message)]
        with pytest.warns(UserWarning, match="1 new .second/c., 2 gone .first/a, first/b."):
            assert main(self.command(out, second, 3, "--resume")) == 0
        expected = "from step 0: first: 2 pairs; from step 2: second: 1 pairs"
        assert open_artefact(out / "weights.safetensors").metadata["trained_on"] == expected
        assert json.loads((out / "summary.json").read_text())["metadata"]["trained_on"] == expected
        start = f"network.start='{out / 'weights.safetensors'}'"
        assert main(self.command(tmp_path / "next", first, 1, "--set", start)) == 0
        made = open_artefact(tmp_path / "next" / "weights.safetensors").metadata["trained_on"]
        assert made == f"before, in network.start: {expected}; from step 0: first: 2 pairs"
        # the folder of the first weights is not needed any more
        assert (
            main(self.command(tmp_path / "next", first, 2, "--set", "network.start=gone.safetensors", "--resume")) == 0
        )
        assert open_artefact(tmp_path / "next" / "weights.safetensors").metadata["trained_on"] == made

    def test_another_run_is_refused_before_anything_is_loaded(self, tmp_path, capsys):
        out, data = tmp_path / "run", write_pairs(tmp_path / "mine", ["a", "b"])
        assert main(self.command(out, data, 1)) == 0
        before = {path.name: path.read_bytes() for path in out.glob("*.s*")}
        capsys.readouterr()
        assert main(self.command(out, data, 2, "--resume", preset="paper")) == 2
        told = capsys.readouterr()
        assert "run.objective = 'supervised', not 'language'" in told.err and "network.start=" in told.err
        assert told.out == "" and before == {path.name: path.read_bytes() for path in out.glob("*.s*")}
