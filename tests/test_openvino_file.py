"""OpenVINO models: written from a graph, read without OpenVINO, opened by Fuser."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from pyldfusion import Fuser, cli
from pyldfusion.artefact import open_artefact
from pyldfusion.errors import ArtefactError

from .conftest import ROOT
from .plain_graph import plain_graph

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")
pytest.importorskip("openvino")

ABOUT = {"variant": "lite", "io": "frames", "precision": "fp32", "verified openvino bf16": 'PSNR "50" & <more> ü'}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from export.openvino import write_model

    path = tmp_path_factory.mktemp("openvino") / "m.xml"
    write_model(plain_graph(), path, ABOUT)
    return path


@pytest.fixture
def copied(model, tmp_path):
    for suffix in (".xml", ".bin"):
        shutil.copy(model.with_suffix(suffix), tmp_path)
    return tmp_path / model.name


def test_what_was_written_is_read(model):
    artefact = open_artefact(model)
    assert (artefact.kind, artefact.variant, artefact.io, artefact.precision) == ("openvino", "lite", "frames", "fp32")
    assert ABOUT.items() <= artefact.metadata.items() and artefact.metadata["openvino"][:2] == "20"
    assert artefact.size == model.stat().st_size + model.with_suffix(".bin").stat().st_size
    assert len(list(model.parent.iterdir())) == 2


def test_weights_come_back_and_half_of_them_as_half(model, tmp_path):
    from export.openvino import write_model
    from export.precision import RECIPES

    exact = {i.name: onnx.numpy_helper.to_array(i) for i in plain_graph().graph.initializer}
    write_model(RECIPES["fp16-stored"].apply(plain_graph()), tmp_path / "h.xml", {})
    for path, dtype in ((model, np.float32), (tmp_path / "h.xml", np.float16)):
        state = open_artefact(path).state_dict()
        for name in ("a.weight", "b.weight"):
            assert np.array_equal(state[name], exact[f"generator.{name}"].astype(dtype).astype(np.float32))


def test_reading_needs_no_openvino(model):
    script = (
        "import sys; sys.modules['openvino'] = None\n"
        "from pyldfusion.artefact import open_artefact\n"
        f"print(len(open_artefact({str(model)!r}).state_dict()))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "4\n", done.stderr  # two weights, and the biases that the graph leaves out


def test_fuser_and_info_open_it(model, tmp_path, capsys):
    from export.onnx import write_model

    write_model(plain_graph(), tmp_path / "m.onnx", ABOUT)
    rng = np.random.default_rng(0)
    ir, vis = rng.integers(0, 256, (33, 47), np.uint8), rng.integers(0, 256, (33, 47, 3), np.uint8)
    with Fuser(model, engine="openvino:fp32") as ours, Fuser(tmp_path / "m.onnx", engine="onnxruntime") as theirs:
        assert ours.info["engine"] == "openvino"
        assert np.abs(ours.fuse(ir, vis).astype(int) - theirs.fuse(ir, vis)).max() <= 1
    assert cli.main(["info", str(model), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == "openvino" and facts["parameters"] == 144 + 4 + 108 + 3


def damaged(path, why):
    with pytest.raises(ArtefactError, match=why):
        open_artefact(path)


def test_weights_that_do_not_belong_to_it(copied):
    weights = copied.with_suffix(".bin")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    damaged(copied, "do not belong together, or one is cut short")
    weights.write_bytes(whole + b"\0")
    damaged(copied, "do not belong together")
    weights.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    damaged(copied, "damaged, do not belong together")
    weights.unlink()
    damaged(copied, r"weights are missing: m\.bin must lie beside it")


def test_no_entity_is_ever_expanded(copied):
    laughs = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10 if i else "ha"}">' for i in range(12))
    start = time.monotonic()
    for head in (f"<!DOCTYPE net [{laughs}]>", '<!DOCTYPE net SYSTEM "file:///etc/passwd">', "<!DOCTYPE net>"):
        copied.write_text(f'<?xml version="1.0"?>{head}<net><layers><layer name="&a11;" type="x"/></layers></net>')
        damaged(copied, "declares a document type")
    copied.write_text("<net>" + "<a>" * 100000)
    damaged(copied, "nested more than 64 deep")
    assert time.monotonic() - start < 1


def test_a_model_of_another_program(tmp_path):
    from pyldfusion.engines.openvino import import_openvino, openvino_core

    openvino = import_openvino()
    onnx.save(plain_graph(), tmp_path / "m.onnx")
    openvino.save_model(openvino_core().read_model(tmp_path / "m.onnx"), tmp_path / "m.xml")
    damaged(tmp_path / "m.xml", "were not written by pyldfusion")


@pytest.mark.parametrize(
    "text", ["", "<", "<net/>", "<html></html>", "<net><layers><layer/></layers></net>", "\0" * 99]
)
def test_other_xml(copied, text):
    copied.write_text(text)
    damaged(copied, "empty|damaged")


def test_numbers_that_cannot_be(copied):
    text = copied.read_text()
    wrong = {'offset="0"': 'offset="-9"', 'size="576"': 'size="99999999999999"', 'shape="4, 4': 'shape="4, x'}
    for was, becomes in wrong.items():
        assert was in text
        copied.write_text(text.replace(was, becomes))
        damaged(copied, "damaged or not a .xml file")
