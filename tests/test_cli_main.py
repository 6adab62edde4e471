"""The command's own manners: verbs, errors on one line, exit codes, nothing heavy for --help."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest

from pyldfusion import __version__, cli
from pyldfusion.errors import InputError


def test_the_overview_lists_every_verb(capsys):
    for argv in ([], ["--help"], ["-h"], ["help"]):
        assert cli.main(argv) == 0
        out = capsys.readouterr().out
        assert all(f"\n  {verb} " in out for verb in cli.VERBS)


def test_the_overview_and_version_import_nothing_heavy():
    heavy = "{'torch', 'cv2', 'onnxruntime', 'openvino', 'numpy', 'scipy'}"
    code = f"import sys; from pyldfusion.cli import main; main(['--help']); print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.endswith("set()\n")
    done = subprocess.run([sys.executable, "-m", "pyldfusion", "--version"], capture_output=True, text=True)
    assert done.stdout == f"pyldfusion {__version__}\n" and done.returncode == 0


@pytest.mark.parametrize("verb", [verb for verb in cli.VERBS if verb not in ("train", "export")])
def test_every_verb_has_help(verb, capsys):
    assert cli.main([verb, "--help"]) == 0
    assert f"pyldfusion {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["train", "export"])
def test_programs_have_help(verb, capsys):
    pytest.importorskip("torch")
    assert cli.main([verb, "--help"]) == 0
    assert "usage:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv, said",
    [
        (["fues", "a", "b"], "'fues' is not a verb of pyldfusion; did you mean 'fuse'?"),
        (["--verison"], "did you mean '--version'?"),
        (["fuse", "a", "b", "--palete", "jet"], "did you mean '--palette'?"),
        (["fuse", "a", "b", "c", "d"], "unexpected argument 'd'"),
        (["fuse", "a"], "VIS"),
        (["fuse", "a", "b", "--view", "fusd"], "'fusd' is not a view; expected fused, side, ir"),
        (["fuse", "a", "b", "--raw-size", "640"], "WIDTHxHEIGHT"),
        (["fuse", "a", "b", "--raw-size", "0x4"], "WIDTHxHEIGHT"),
        (["fuse", "a", "b", "--fps", "fast"], "frames a second"),
        (["fuse", "a", "b", "--homography", "h", "--resize"], "not allowed with"),
        (["info", "none.onnx"], "none.onnx"),
        (["bench", "--model", "none.onnx"], "none.onnx"),
    ],
)
def test_wrong_words_are_one_line_and_exit_code_2(argv, said, capsys):
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert not out and said in err and err.count("\n") == 1 and err.startswith("pyldfusion")


def test_files_that_are_too_many_may_come_from_a_pattern(tmp_path, capsys):
    for name in "abcd":
        (tmp_path / name).touch()
    files = [str(tmp_path / name) for name in "abcd"]
    assert cli.main(["fuse", *files]) == 2
    err = capsys.readouterr().err
    assert (
        f"unexpected argument {files[3]!r}; if it comes from a pattern such as *.png, put the pattern in quotes" in err
    )
    assert cli.main(["fuse", *files[:3], "none"]) == 2
    assert "quotes" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "error, code, said",
    [
        (InputError("frame 3:\n  is odd"), 2, "frame 3: is odd"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (PermissionError(13, "Permission denied", "secret"), 2, "[Errno 13] Permission denied: 'secret'"),
        (MemoryError(), 1, "out of memory"),
    ],
)
def test_what_a_verb_raises_becomes_a_line_and_a_code(monkeypatch, capsys, error, code, said):
    from pyldfusion.cli import info

    def raises(args):
        raise error

    monkeypatch.setattr(info, "run", raises)
    assert cli.main(["info", "x"]) == code
    assert capsys.readouterr().err == f"pyldfusion info: {said}" + err_end(said)


def err_end(said):
    return "; use smaller frames or close other programs\n" if said == "out of memory" else "\n"


def test_a_reader_that_leaves_is_no_crash():
    command = [sys.executable, "-m", "pyldfusion", "info", "lite"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait() == 1


@pytest.fixture(scope="module")
def author_files(tmp_path_factory):
    """Weight files as the authors publish them, seeded."""
    pytest.importorskip("torch")
    from .author_networks import LDLite, fill, save_author_files

    return [str(path) for path in save_author_files(fill(LDLite(), seed=2), tmp_path_factory.mktemp("author"))]


def test_info_tells_what_the_bundled_model_is(capsys):
    assert cli.main(["info", "lite"]) == 0
    text = capsys.readouterr().out
    assert "fp16-stored" in text and "0.65 million" in text and "pyldfusion import-weights" in text
    assert max(map(len, text.splitlines())) < 400  # the configuration is longer
    assert cli.main(["info", "lite", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["kind"], facts["variant"], facts["io"]) == ("onnx", "lite", "frames")
    assert facts["parameters"] == 652385 and facts["metadata"]["clip_trained"] == "no"


def test_import_weights_makes_what_info_opens(author_files, tmp_path, capsys):
    out = tmp_path / "ours.safetensors"
    assert cli.main(["import-weights", *author_files, "-o", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    assert cli.main(["info", str(out)]) == 0
    assert "by supervision" not in capsys.readouterr().out
    assert cli.main(["info", str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["kind"], facts["io"], facts["parameters"]) == ("safetensors", "weights", 652385)
    assert facts["size"] == out.stat().st_size and facts["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()


def test_import_weights_refuses_other_files(tmp_path, capsys):
    pytest.importorskip("torch")
    (tmp_path / "text.pt").write_text("hello")
    assert cli.main(["import-weights", str(tmp_path / "text.pt"), "-o", str(tmp_path / "a.safetensors")]) == 2
    assert "text.pt" in capsys.readouterr().err and not (tmp_path / "a.safetensors").exists()


def test_export_is_the_same_program(tmp_path, capsys):
    pytest.importorskip("torch")
    assert cli.main(["export", "lite", "-o", str(tmp_path / "none" / "a.onnx")]) == 2
    assert cli.main(["export", "lite", "--presicion", "fp32"]) == 2
    assert "did you mean '--precision'?" in capsys.readouterr().err


def test_torch_is_asked_for_by_the_extra_that_brings_it(monkeypatch, capsys):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else found(name))
    for argv, extra in {
        ("train", "--help"): "train",
        ("export", "a.safetensors"): "export",
        ("import-weights", "a.pt", "-o", "a.safetensors"): "export",
    }.items():
        assert cli.main(list(argv)) == 2
        assert f"pip install 'pyldfusion[{extra}]'" in capsys.readouterr().err


def test_a_folder_that_hides_the_exporter_is_named(tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export/__init__.py").touch()
    done = subprocess.run(
        [sys.executable, "-m", "pyldfusion", "export", "x"], cwd=tmp_path, capture_output=True, text=True,
        env={"PYTHONPATH": str(cli.__path__[0]).rsplit("/", 2)[0], "PATH": "/usr/bin"},
    )  # fmt: skip
    assert done.returncode == 2 and str(tmp_path / "export") in done.stderr and "Traceback" not in done.stderr
