"""Sentences: embedded once, averaged, of single pictures."""

from __future__ import annotations

import gc
import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
from torch import nn  # noqa: E402

from trainer.config import ClipConfig, ConfigError, PromptConfig  # noqa: E402
from trainer.towers.clip import load_clip  # noqa: E402
from trainer.towers.prompts import find_content, read_content, report_content  # noqa: E402

from .small_towers import EXPECTED_WARNINGS, SENTENCES, need_open_clip, random_model  # noqa: E402

need_open_clip()

pytestmark = EXPECTED_WARNINGS


def test_a_list_is_averaged_before_it_is_normalised(tiny_clip):
    clip = load_clip(ClipConfig(str(tiny_clip), "none"), SENTENCES, "cpu")
    model, tokenizer, _ = random_model(str(tiny_clip))
    with torch.no_grad():
        raw = [model.encode_text(tokenizer([text]))[0] for text in SENTENCES.objective]
        infrared = model.encode_text(tokenizer(list(SENTENCES.infrared)))[0]
    mean = (raw[0] + raw[1]) / 2
    torch.testing.assert_close(clip.objective, (mean / mean.norm())[None])
    torch.testing.assert_close(clip.infrared, (infrared / infrared.norm())[None])
    for embedding in (clip.objective, clip.infrared, clip.visible):
        assert embedding.shape == (1, clip.tower.dim) and not embedding.requires_grad
        assert embedding.norm().item() == pytest.approx(1, abs=1e-6)


def test_the_text_tower_is_freed(tiny_clip):
    def embeddings_alive():
        gc.collect()
        return sum(type(thing) is nn.Embedding and thing.num_embeddings == 49408 for thing in gc.get_objects())

    before = embeddings_alive()
    clip = load_clip(ClipConfig(str(tiny_clip), "none"), SENTENCES, "cpu")
    assert embeddings_alive() == before
    model, _, _ = random_model(str(tiny_clip))
    assert sum(p.numel() for p in clip.tower.parameters()) == sum(p.numel() for p in model.visual.parameters())


@pytest.mark.parametrize("form", ["csv", "list", "text"])
def test_pictures_may_have_objectives_of_their_own(tiny_clip, tmp_path, form):
    texts = {"road/00 1": ["a car, at night"], "b": ["people", "a fire"]}
    if form == "csv":
        file = tmp_path / "content.csv"
        rows = ["\ufefftext,name", '"a car, at night",road/00 1.png', "people,b", "a fire,b"]
        file.write_text("\n".join(rows), encoding="utf-8")
    else:
        file = tmp_path / "content.json"
        given = texts if form == "list" else {"road/00 1": "a car, at night", "b.jpg": texts["b"]}
        file.write_text(json.dumps(given))
    assert read_content(file) == texts
    clip = load_clip(ClipConfig(str(tiny_clip), "none"), PromptConfig(content=str(file)), "cpu")
    alone = load_clip(ClipConfig(str(tiny_clip), "none"), PromptConfig(objective=tuple(texts["b"])), "cpu")
    assert set(clip.content) == set(texts)
    torch.testing.assert_close(clip.content["b"], alone.objective)
    assert not torch.allclose(clip.content["road/00 1"], clip.content["b"], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", "file,text\na,b\n", r"c\.csv, line 1: columns are file, text; expected name,text"),
        ("c.csv", "", r"c\.csv, line 1: columns are none"),
        ("c.csv", "name,text\n", r"holds no prompts"),
        ("c.csv", "name,text\na,a car\nb\n", r"c\.csv, line 3: text is None; expected words"),
        ("c.csv", "name,text\na,a car, at night\n", r"c\.csv, line 2: more values than columns.*double quotes"),
        ("c.csv", 'name,text\na,"a car\n', r"c\.csv, line 2"),
        ("c.csv", "name,text\n ,a car\n", r"c\.csv, line 2: name is ' '"),
        ("c.json", '{"a": "x",\n "b": }', r"c\.json, line 2: "),
        ("c.json", '["a"]', r"c\.json holds a list; expected"),
        ("c.json", '{"a": 3}', r"c\.json, entry 'a': text is 3"),
        ("c.json", '{"a": []}', r"c\.json, entry 'a': text is \[\]"),
        (None, "", r"cannot be read"),
    ],
)
def test_files_of_prompts_that_are_wrong_are_named_with_the_line(tmp_path, name, content, message):
    file = tmp_path / (name or "missing.csv")
    if name:
        file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_content(file)


def test_rows_that_are_of_no_pair_are_counted_and_named(tmp_path):
    file = tmp_path / "content.csv"
    rows = [
        "road/1,a car",
        "1.png,a street",
        "2,people",
        "2,a fire",
        "road/9,a dog",
        *(f"x{k},a bird" for k in range(7)),
    ]
    file.write_text("\n".join(["name,text", *rows]))
    told = report_content(file, ["road/1", "road/2", "road/3"])
    # of the two for the first pair its whole name counts
    assert told == (
        "prompts.content: 3 of 12 rows are of a pair, 9 of none: '1', 'road/9', 'x0', 'x1', 'x2' and 4 more names"
    )
    assert report_content(file, ["road/1", "wood/1", "road/2", "road/9", *(f"a/x{k}" for k in range(7))]) == (
        "prompts.content: 12 of 12 rows are of a pair"
    )
    content = read_content(file)
    assert [find_content(content, name) for name in ("road/1", "wood/1", "wood/9")] == ["road/1", "1", None]


def test_prompts_for_no_pair_at_all_are_an_error_that_says_what_is_expected(tmp_path):
    file = tmp_path / "content.csv"
    file.write_text("name,text\nRoad/1,a car\n7,people\n")
    with pytest.raises(ConfigError, match=r"of 2 in all \('Road/1', '7'\); expected .*such as 'road/1' or '1'"):
        report_content(file, ["road/1", "road/2"])


@pytest.mark.parametrize("prompts", [PromptConfig(visible=()), PromptConfig(objective=("a clear image", " "))])
def test_empty_prompts_are_refused(tiny_clip, prompts):
    with pytest.raises(ConfigError, match=r"prompts\.(visible|objective) is .*expected a sentence"):
        load_clip(ClipConfig(str(tiny_clip), "none"), prompts, "cpu")


def test_a_prompt_that_does_not_fit_is_reported(tiny_clip):
    with pytest.warns(UserWarning, match="has 90 tokens, CLIP reads the first 75"):
        load_clip(ClipConfig(str(tiny_clip), "none"), PromptConfig(objective=("dog " * 90,)), "cpu")
