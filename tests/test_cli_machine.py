"""The verbs that look at the machine: doctor, bench and demo; and the console they talk through."""

from __future__ import annotations

import io
import json
import re
import sys
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest

from export import formats
from pyldfusion import cli
from pyldfusion.cli import bench, checks, machine
from pyldfusion.cli.console import Console
from pyldfusion.cli.trial import Trial, _measure, percentiles, run_trial
from pyldfusion.engines.choice import RUNTIMES, installed
from pyldfusion.errors import ArtefactError, EngineError
from pyldfusion.media import read_image


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_gives_way_to_messages(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr("pyldfusion.cli.console.EVERY", 0.0)
    with Console("fuse", total=4) as console:
        console.advance()
        console.advance()
        console.note("once")
        console.note("once")
        console.advance()
    shown = sys.stderr.getvalue()
    assert "[############............] 2/4 pairs" in shown and shown.count("pyldfusion fuse: once\n") == 1
    assert "\r\x1b[Kpyldfusion fuse: once" in shown and shown.endswith("\r\x1b[K")


def test_a_file_gets_lines_instead_of_a_bar(monkeypatch, capsys):
    with Console("fuse", total=3) as console:
        console.advance()
        monkeypatch.setattr("pyldfusion.cli.console.EVERY_LOGGED", 0.0)
        console.advance()
    assert re.fullmatch(r"pyldfusion fuse: 2/3 pairs, .* a second, 0 s left\n", capsys.readouterr().err)


def test_quiet_leaves_errors_alone(capsys):
    with Console("fuse", quiet=True) as console:
        console.note("a note")
        console.result("a result")
        console.error("two\nlines")
    assert capsys.readouterr() == ("", "pyldfusion fuse: two lines\n")


def test_percentiles_are_those_of_numpy():
    times = [float(value) for value in range(1, 101)]
    assert percentiles(times) == pytest.approx({"p50": 50.5, "p90": 90.1, "p99": 99.01, "fps": 1000 / 50.5})


def test_a_trial_measures_in_a_process_of_its_own():
    result = run_trial(Trial("lite", (64, 48), "onnxruntime", seconds=0.05))
    assert result["engine"] == "onnxruntime" and len(result["milliseconds"]) >= 3
    assert min(*result["milliseconds"], result["load_ms"], result["first_ms"]) > 0
    if sys.platform == "linux":
        assert 30 < result["peak_mb"] < 1000


def test_what_goes_wrong_in_a_trial_comes_back(monkeypatch):
    with pytest.raises(ArtefactError, match=r"none\.onnx"):
        run_trial(Trial("none.onnx", (64, 48)))
    monkeypatch.setattr("pyldfusion.cli.trial._measure", die)
    with pytest.raises(EngineError, match="process died"):
        run_trial(Trial("lite", (64, 48)))


def die(fields):
    import os

    os._exit(3)


def test_bench_is_a_table_or_json(capsys):
    argv = ["bench", "--model", "lite", "--engine", "onnxruntime", "--size", "64x48", "80x64", "--seconds", "0.05"]
    assert cli.main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| model") and len(lines) == 6
    assert len({len(line) for line in lines[2:]}) == 1 and "| 80x64" in lines[5]
    assert cli.main([*argv, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["size"] for row in rows] == ["64x48", "80x64"]
    assert all(0 < row["p50"] <= row["p90"] <= row["p99"] and row["fps"] > 0 for row in rows)


def test_bench_goes_on_after_a_row_that_fails(capsys):
    argv = ["bench", "--model", "lite", "--engine", "onnxruntime", "onnxruntime:bf16", "--size", "64x48"]
    assert cli.main([*argv, "--seconds", "0.01", "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert "error" not in rows[0] and "bf16" in rows[1]["error"]


def test_demo_writes_pictures_and_prints_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo", "--size", "96x72", "--engine", "onnxruntime"]) == 0
    out = capsys.readouterr().out
    assert "out/demo/fused.png" in out and "onnxruntime" in out and re.search(r"\d ms a frame of 96x72", out)
    numbers = dict(re.findall(r"(EN|CC|SD|EI|VIFF) (-?[\d.]+)", out))
    assert numbers.keys() == {"EN", "CC", "SD", "EI", "VIFF"} and 0 < float(numbers["EN"]) <= 8
    side, fused = read_image("out/demo/side.png"), read_image("out/demo/fused.png")
    assert side.shape == (72, 288, 3) and np.array_equal(side[:, 192:], fused)
    assert read_image("out/demo/ir.png").shape == (72, 96)
    assert cli.main(["demo", "--kind", "nihgt"]) == 2


def test_doctor_tries_every_engine(monkeypatch, capsys):
    # in this process: starting one for each engine, and importing torch there, takes most of the time
    monkeypatch.setattr(checks, "run_trial", lambda trial: _measure(asdict(trial)))
    code = cli.main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    found = {check["name"]: check for check in report["checks"]}
    assert all(set(check) == {"topic", "name", "state", "detail", "advice"} for check in report["checks"])
    for name in RUNTIMES:
        tried = [check for check in report["checks"] if check["topic"] == "engines" and check["name"].startswith(name)]
        states = {check["state"] for check in tried}
        assert states == {"missing"} if not installed(name) else "ok" in states
    assert found["native module"]["state"] == "ok" and np.__version__ in found["numpy"]["detail"]
    assert ".avi" in found["writing and reading"]["detail"]
    assert code == (1 if report["broken"] else 0)


def test_doctor_looks_at_tensorrt_where_there_is_a_gpu(monkeypatch):
    """Its engines are the user's own, so that none is tried."""
    monkeypatch.setattr("pyldfusion.engines.choice.installed", lambda name: name == "tensorrt")
    monkeypatch.setattr("pyldfusion.hardware.cuda_devices", lambda: 1)
    monkeypatch.setattr("pyldfusion.hardware.cuda_capability", lambda index: (8, 7))
    states = {check.name: check.state for check in checks.engines()}
    assert states["tensorrt"] == "ok" and states["torch"] == "missing"


def test_bench_exports_two_files_of_one_name_apart(tmp_path, monkeypatch):
    job = SimpleNamespace(
        find=formats.find, plan=lambda model, path, **_: path, export=lambda path: SimpleNamespace(path=path)
    )
    monkeypatch.setattr("pyldfusion.cli.programs.program", lambda *_: job)
    args = SimpleNamespace(model=["a/net.onnx", "b/net.onnx", "lite", "lite"], format=["openvino", "onnx:fp16"])
    models = dict(bench._models(args, tmp_path))
    assert list(models)[::2] == ["a/net-fp32.xml", "b/net-fp32.xml", "lite-fp32.xml"]
    assert len(set(models.values())) == len(models) == 6


def test_doctor_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(checks, "PACKAGES", (("nothing_here", ("nothing",), "needed", "pip install nothing"),))
    monkeypatch.setattr(checks, "TOPICS", (checks.packages, checks.cuda))
    monkeypatch.setattr(machine, "driver_version", lambda: None)
    monkeypatch.setattr(machine, "toolkit_version", lambda: None)
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "BAD nothing_here" in out and "-> pip install nothing" in out
    assert "no NVIDIA driver" in out and "install the CUDA toolkit" in out and "Not all is well: nothing_here" in out


def test_an_engine_that_fails_is_reported_not_raised(monkeypatch):
    def fails(trial):
        raise EngineError("illegal instruction")

    monkeypatch.setattr(checks, "run_trial", fails)
    states = {check.state for check in checks.engines() if "fp32 on cpu" in check.name}
    assert states == {"broken"}


def test_processors_are_read_from_their_flags(monkeypatch):
    x86 = "model name\t: AMD EPYC 9999\nflags\t\t: fpu avx2 avx512f avx512_bf16\n"
    arm = "processor\t: 0\nFeatures\t: fp asimd asimddp\nModel\t\t: NVIDIA Jetson Orin\n"
    monkeypatch.setattr(machine, "_cpuinfo", lambda: x86)
    assert machine.cpu_name() == "AMD EPYC 9999" and machine.cpu_features() == ["AVX2", "AVX-512", "AVX512-BF16"]
    monkeypatch.setattr(machine, "_cpuinfo", lambda: arm)
    assert machine.cpu_name() == "NVIDIA Jetson Orin" and machine.cpu_features() == ["NEON", "NEON dot product"]


def test_the_toolkit_is_asked_for_its_version(tmp_path, monkeypatch):
    compiler = tmp_path / "nvcc"
    compiler.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.6, V12.6.85'\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert machine.toolkit_version() == "12.6"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    assert machine.toolkit_version() is None
