"""A thousand damaged model files of every format: each is a typed error or works, at once, and takes nothing down."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from .conftest import ROOT
from .plain_graph import plain_graph

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")
pytest.importorskip("openvino")

FILES, BATCHES = 1000, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One small file of every format; graphs both as we write them, with a hash, and as others do."""
    import numpy as np

    from export import onnx as our_onnx
    from export import openvino as our_openvino
    from pyldfusion.artefact import save_weights
    from pyldfusion.engines.openvino import import_openvino, openvino_core

    folder = tmp_path_factory.mktemp("hostile") / "files"
    folder.mkdir()
    about = {"variant": "lite", "io": "frames", "precision": "fp32"}
    our_onnx.write_model(plain_graph(), folder / "ours.onnx", about)
    our_openvino.write_model(plain_graph(), folder / "ours_openvino.xml", about)
    onnx.save(plain_graph(), folder / "foreign.onnx")
    openvino = import_openvino()  # what other programs write is not opened, damaged or not: OpenVINO crashed on some
    openvino.save_model(openvino_core().read_model(folder / "foreign.onnx"), folder / "foreign_openvino.xml")
    save_weights({"a.weight": np.ones((4, 4, 3, 3))}, folder / "weights.safetensors", {"variant": "lite"})
    (folder / "plan.engine").write_bytes(b"ftrt" + bytes(range(256)) * 40)
    return folder


@pytest.mark.parametrize("batch", range(BATCHES))
def test_damaged_files(folder, batch):
    count = FILES // BATCHES
    command = [sys.executable, "-m", "tests.hostile_files", str(folder), str(batch * count), str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (done.returncode, lines[-1:], done.stderr[-1000:])
    rows = [begun | ended for begun, ended in zip(lines[::2], lines[1::2], strict=True)]
    assert len(rows) == count
    assert max(row["seconds"] for row in rows) < 1, max(rows, key=lambda row: row["seconds"])
    assert max(row["more_mb"] for row in rows) < 100, max(rows, key=lambda row: row["more_mb"])
    ours = [row for row in rows if row["file"].startswith("ours")]
    # damage to what we wrote is found before a runtime sees it; only in a note of the metadata it does not matter
    assert sum(row["outcome"] == "ok" for row in ours) <= len(ours) // 4
    known = {"ok", "ArtefactError", "EngineError", "InputError"}
    for row in rows:  # where TensorRT is not, nothing more can be said of a plan
        assert row["outcome"] in known or (row["outcome"], row["file"]) == ("DependencyError", "plan.engine"), row
