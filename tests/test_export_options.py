"""The export command's words: what they mean, and what is said to wrong ones."""

from __future__ import annotations

import argparse
import re

import pytest

from export import formats
from export.__main__ import main
from export.formats import FORMATS
from export.options import MIN_PSNR, OPTIONS, add_arguments, axis, plan
from export.precision import RECIPES
from export.shape import Shape
from pyldfusion.cli.parser import Parser
from pyldfusion.errors import ArtefactError, InputError

from .conftest import ROOT


def parsed(*words: str) -> argparse.Namespace:
    parser = Parser("export", "")
    add_arguments(parser)
    return parser.parse(words)


def test_the_table_is_sound():
    assert list(FORMATS) == [row.name for row in FORMATS.values()]
    assert len({row.suffix for row in FORMATS.values()}) == len(FORMATS)
    for row in FORMATS.values():
        assert row.half in row.precisions and set(row.precisions) <= RECIPES.keys() & MIN_PSNR.keys()
        assert set(row.options) <= OPTIONS.keys() and row.about and row.install
        assert formats.find(row.name) is row


def test_nothing_given_is_one_graph_for_any_size(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = plan("lite")
    assert (job.format.name, job.precision, job.io, job.shape) == ("onnx", "fp32", "frames", Shape.dynamic())
    assert str(job.output) == "lite.onnx" and job.verify and job.min_psnr == 60 and job.tolerance == 1


def test_the_command_line_is_the_same_as_keywords(tmp_path):
    out = tmp_path / "a.onnx"
    words = [
        "lite",
        "-o",
        str(out),
        "--half",
        "--simplify",
        "--imgsz",
        "480",
        "640",
        "--io",
        "planes",
        "--min-psnr",
        "40",
    ]
    assert plan(**vars(parsed(*words))) == plan("lite", out, half=True, imgsz=[480, 640], io="planes", min_psnr=40.0)


@pytest.mark.parametrize(
    "words, shape",
    [
        ("--imgsz 480 640", Shape(1, 480, 640)),
        ("--imgsz 256", Shape(1, 256, 256)),
        ("--imgsz 480 640 --batch 4", Shape(4, 480, 640)),
        ("--batch 2", Shape(2, None, None)),
        ("--imgsz 240/480/960 320/640/1280 --batch 1/2/8", Shape((1, 2, 8), (240, 480, 960), (320, 640, 1280))),
        ("--dynamic", Shape()),
        ("--imgsz 480 640 --dynamic", Shape(None, (16, 480, 1088), (16, 640, 1920))),
        ("--imgsz 1200 640 --batch 8 --dynamic", Shape((1, 8, 8), (16, 1200, 1200), (16, 640, 1920))),
    ],
)
def test_sizes(words, shape):
    assert plan(**vars(parsed("lite", *words.split()))).shape == shape


@pytest.mark.parametrize(
    "words, said",
    [
        ("--imgz 640", "'--imgz' is not an option; did you mean '--imgsz'?"),
        ("--hlaf", "did you mean '--half'?"),
        ("--format onxx", "'onxx' is not a format; did you mean 'onnx'?"),
        ("--format ONNX", "did you mean 'onnx'?"),
        ("--format coreml", "'coreml' is not a format; there are: onnx (.onnx)"),
        ("-o model.pt", "no format ends in '.pt'"),
        ("-o model.onx", "did you mean '.onnx'?"),
        ("-o model", "no format ends in 'nothing'"),
        ("-o model.ONNX", "no format ends in '.ONNX'; did you mean '.onnx'?"),
        ("--triton repository --warp", "leave out --warp and --temporal, or --triton"),
        ("--format onnx -o model.xml", "--format onnx writes .onnx files; the output is model.xml"),
        ("--half --precision fp32", "--half and --precision fp32 exclude each other"),
        ("--half --int8", "--half and --int8 exclude each other"),
        ("--warp --int8", "--warp and int8 exclude each other"),
        ("--precision fp16-storde", "'fp16-storde' is not a precision; did you mean 'fp16-stored'?"),
        ("--workspace 4", "--workspace is for --format engine; onnx has no use for it"),
        ("--format tensorrt", "'tensorrt' is not a format; did you mean 'engine'?"),
        ("--format engine --precision fp16-stored", "engine does not come in fp16-stored; it has: fp32, fp16, int8"),
        ("--io plane", "expected frames or planes; did you mean 'planes'?"),
        ("--imgsz 8 640", "height is 8; expected a whole number from 16 up"),
        ("--imgsz 640/480/320 640", "height is (640, 480, 320)"),
        ("--imgsz 480 640 3", "--imgsz has 3 values; expected H W"),
        ("--imgsz 480x640", "'480x640' is not a number, or least/usual/largest"),
        ("--batch 0", "batch is 0"),
        ("--opset 9", "opset is 9; expected 17 to"),
        ("--data nowhere", "--data 'nowhere' is not a folder"),
        ("--min-psnr -3", "--min-psnr is -3.0"),
        ("--tolerance nan", "--tolerance is nan"),
        ("--no-verify --min-psnr 50", "--min-psnr is a bound of the verification that --no-verify leaves out"),
        ("-o none/lite.onnx", "the folder none does not exist"),
    ],
)
def test_wrong_words(words, said, capsys):
    try:
        assert main(["lite", *words.split()]) == 2
    except SystemExit as stop:
        assert stop.code == 2
    out, err = capsys.readouterr()
    assert said in err and not out and err.count("\n") == 1


def test_wrong_keywords_are_typed():
    with pytest.raises(InputError, match=r"'imgz' is not an option of export; did you mean 'imgsz'\?"):
        plan("lite", imgz=640)
    with pytest.raises(ArtefactError, match="does not exist"):
        plan("absent.onnx")


def test_the_output_is_never_the_source(models):
    with pytest.raises(InputError, match="is the file the weights come from"):
        plan(models / "lite.onnx")
    assert plan(models / "lite.safetensors").output == models / "lite.onnx"
    assert plan(models / "lite.safetensors", half=True).output.name != "lite.onnx"


def test_an_engine_is_named_by_what_it_is_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pyldfusion.hardware.cuda_devices", lambda: 0)
    with pytest.raises(InputError, match="named by that GPU, and none is here; give a name with -o"):
        plan("lite", format="engine")
    monkeypatch.setattr("pyldfusion.hardware.cuda_devices", lambda: 1)
    monkeypatch.setattr("pyldfusion.hardware.cuda_capability", lambda device: (8, 7))
    options = {"format": "engine", "half": True, "imgsz": [480, 640], "hardware": "same-capability"}
    job = plan("lite", **options)
    assert str(job.output) == "lite-fp16-1x480x640-sm87.engine" and job.own["hardware"] == "same-capability"
    job.output.touch()
    with pytest.raises(InputError, match=r"sm87\.engine is there, .* --force replaces it"):
        plan("lite", **options)
    assert plan("lite", **options, force=True) != job


def test_an_engine_never_replaces_what_it_is_made_of(models):
    with pytest.raises(InputError, match=r"lite\.onnx, which would be written, is the file the weights come from"):
        plan(models / "lite.onnx", models / "lite.engine", force=True)
    with pytest.raises(InputError, match=r"lite\.onnx is there"):
        plan("lite", models / "lite.engine")


def test_help_tells_every_format_and_precision(capsys):
    with pytest.raises(SystemExit):
        parsed("--help")
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    for row in FORMATS.values():
        assert f"{row.name}: {row.about}" in text
    assert all(f"{name}: {recipe.meaning}" in text for name, recipe in RECIPES.items())
    assert axis("1/2/3") == (1, 2, 3) and axis("7") == 7


def test_the_docs_have_the_tables_of_the_code():
    text = (ROOT / "docs" / "export.md").read_text()
    assert formats.table() in text and formats.precision_table() in text


def test_commands_in_the_docs_are_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^python -m export ([^#\n]*)", (ROOT / "docs" / "export.md").read_text(), re.M)
    assert len(commands) >= 3
    for command in commands:
        plan(**vars(parsed(*command.split())))
