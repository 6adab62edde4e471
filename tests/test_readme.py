"""What the README shows is run: every command of its ``bash`` block, and its Python."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import cv2
import numpy as np
import pytest

from pyldfusion import cli
from pyldfusion.scene import Scene

from .conftest import ROOT

README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.S)
    for line in block.splitlines()
]
LINKS = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", README) if not link.startswith("http")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files that the examples name: a generated pair in every form."""
    folder = tmp_path_factory.mktemp("readme")
    scene = Scene(seed=1, size=(160, 120), kind="dusk")
    videos = [
        cv2.VideoWriter(str(folder / f"{side}.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (160, 120))
        for side in ("ir", "vis")
    ]
    for side in ("ir", "vis"):
        (folder / side).mkdir()
    for i in range(2):
        frame = scene.render(i / 10)
        for side, picture, video in zip(("ir", "vis"), (frame.ir, frame.vis), videos, strict=True):
            cv2.imwrite(str(folder / f"{side}.png"), picture)
            cv2.imwrite(str(folder / side / f"{i}.png"), picture)
            video.write(cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR) if picture.ndim == 2 else picture)
    for video in videos:
        video.release()
    cv2.imwrite(str(folder / "thermal.tif"), 27000 + 23 * frame.ir.astype(np.uint16))
    return folder


def test_the_two_commands_lead():
    first = re.search(r"```\n(.*?)```", README, re.S)
    assert first and [line.split("#")[0].strip() for line in first[1].splitlines()] == ["make demo", "make test"]


def test_there_are_commands():
    assert len(COMMANDS) >= 6 and all(command.startswith("pyldfusion ") for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command, folder, monkeypatch):
    monkeypatch.chdir(folder)
    if "doctor" in command:  # its engines are tried by its own tests, which takes long
        monkeypatch.setattr("pyldfusion.cli.checks.run_trial", lambda trial: {"load_ms": 1.0, "first_ms": 1.0})
    assert cli.main(shlex.split(command)[1:]) == 0


def test_python(folder):
    for block in re.findall(r"```python\n(.*?)```", README, re.S):
        run = subprocess.run([sys.executable, "-c", block], cwd=folder, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert run.stdout.startswith("lite ")


@pytest.mark.parametrize("link", LINKS)
def test_link(link):
    assert (ROOT / link).exists()
