"""What docs/jetson.md says of loads and commands, as far as a machine without a GPU can show it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys

import pytest

from .conftest import ROOT

SCRIPT = ROOT / "tools" / "tensorrt_check.sh"
PROGRAM = """
import sys
sys.modules.update(dict.fromkeys(("torch", "onnx", "onnxscript", "onnxruntime")))
from export.tensorrt.__main__ import main
sys.exit(main([sys.argv[1], "-o", sys.argv[2]]))
"""


def script(*arguments, **environment):
    environment = {**os.environ, **environment}
    return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, env=environment, cwd="/")


def test_the_table_of_loads_is_what_is_computed():
    pytest.importorskip("torch")
    from benchmarks import load

    assert load.table() in (ROOT / "docs" / "jetson.md").read_text()


def test_loads_grow_with_the_frame_and_a_floor_with_the_load():
    pytest.importorskip("torch")
    from benchmarks import load

    small, large = load.passes("lite", (320, 240)), load.passes("lite", (640, 480))
    growth = sum(item.flop for item in large) / sum(item.flop for item in small)
    assert 3.5 < growth < 4  # the style encoders end in one value a channel, and each frame has a border
    item = [load.Pass(flop=2 * 10**9, moved=10**6)]
    assert load.floor_ms(item, 1e12, 1e12) == pytest.approx(2)
    assert load.floor_ms(item, 1e15, 1e8) == pytest.approx(10)


def test_a_dry_run_prints_the_commands_and_runs_none(tmp_path):
    done = script("--dry-run", "--data", "pairs dir", "--low-memory", "--work", "w", PYTHON="/nowhere/python")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("+ /nowhere/python")]
    exports = [line for line in lines if " -m export lite" in line]
    builds = [line for line in lines if " -m export.tensorrt " in line]
    assert len(exports) == 3 and len(builds) == 9
    assert [("--data pairs\\ dir" in line) for line in exports] == [False, False, True]
    assert all("--low-memory" in line and "--timing-cache w/timing.cache" in line for line in builds)
    assert lines[-1].count(".engine") == 9 and "--reference w/lite-fp32.onnx" in lines[-1]


def test_its_commands_are_ours(capsys):
    """Every option it prints is one that the program it goes to has."""
    import argparse
    import shlex

    from export.__main__ import add_arguments
    from export.tensorrt.__main__ import parser

    export = argparse.ArgumentParser()
    add_arguments(export)
    for line in script("--dry-run", "--low-memory", PYTHON="python").stdout.splitlines():
        words = shlex.split(line.removeprefix("+ "))
        if words[:3] == ["python", "-m", "export.tensorrt"]:
            assert parser().parse_args(words[3:]).batch == 1
        elif words[:3] == ["python", "-m", "export"] and words[-3] != "int8" and "fp16" not in words:
            export.parse_args(words[3:])


def test_trtexec_is_used_where_it_is(tmp_path):
    program = tmp_path / "trtexec"
    program.write_text("#!/bin/sh\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    assert f"--trtexec {program}" in script("--dry-run", TRTEXEC=str(program)).stdout


def test_options_that_it_does_not_know():
    done = script("--dry", "--dry-run")
    assert done.returncode == 2 and "unknown option --dry" in done.stderr
    assert "--low-memory" in script("--help").stdout


def test_the_script_is_clean():
    assert subprocess.run(["bash", "-n", SCRIPT]).returncode == 0
    if not (checker := shutil.which("shellcheck")):
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([checker, SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_building_on_a_board_needs_neither_torch_nor_onnx(models, tmp_path):
    command = [sys.executable, "-c", PROGRAM, models / "lite.onnx", tmp_path / "x.engine"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "error: tensorrt cannot be imported" in done.stderr
