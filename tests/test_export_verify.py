"""An exported file is run and compared before it has its name."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from export.__main__ import main
from export.calibration import feeds
from export.engine import add_report
from export.onnx import build_model
from export.options import plan
from export.pairs import generated, load_pairs
from export.pipeline import export
from export.quantize import runner
from export.runners import open_runners
from export.shape import Shape
from export.trace import trace
from export.verify import Report, Row, without_rounding
from pyldfusion import sidecar
from pyldfusion.artefact import open_artefact
from pyldfusion.errors import InputError
from pyldfusion.generator import Generator
from pyldfusion.media import write_image

from . import tensorrt_stand_in
from .plain_graph import plain_graph

onnx = pytest.importorskip("onnx")


@pytest.fixture
def few_pairs(monkeypatch):
    """One pair to verify with: most of the time goes to the pictures and their metrics."""
    monkeypatch.setattr("export.pipeline.PAIRS", 1)


@pytest.fixture(scope="module")
def other_network(tiny_network):
    """Nearly the tiny network: one weight of the last layer is off."""
    network = Generator(tiny_network.shape)
    network.load_state_dict(tiny_network.state_dict())
    with torch.no_grad():
        network.decoder.out.weight[0, 0, 3, 3] += 1
    return network.eval()


def test_a_file_that_is_the_network_passes_and_says_so(models, tmp_path, capsys):
    out = tmp_path / "lite.onnx"
    (tmp_path / "lite.png").write_bytes(bytes(7_000_000))  # no part of what is written
    assert main([str(models / "lite.safetensors"), "-o", str(out), "--imgsz", "64", "80"]) == 0
    printed = capsys.readouterr().out
    assert f", {out.stat().st_size / 1e6:.2f} MB\n" in printed
    assert "onnxruntime fp32" in printed and "VIFF" in printed and "FAILED" not in printed
    assert {file.name for file in tmp_path.iterdir()} == {"lite.onnx", "lite.png"}
    metadata = open_artefact(out).metadata
    assert metadata["verified_on"] == "4 generated pairs" and metadata["shape"] == "1,64,80"
    assert metadata["verified onnxruntime fp32"].startswith("PSNR ")


def test_a_file_made_of_a_file_says_nothing_of_the_first(
    tiny_network, tiny_frames, models, tmp_path, monkeypatch, few_pairs
):
    monkeypatch.setattr("export.pipeline.build_model", lambda *args, **options: build_copy(tiny_frames))
    weights = models / "lite.safetensors"
    first = export(plan(weights, tmp_path / "a.onnx"), tiny_network)
    assert "verified_on" in open_artefact(first.path).metadata
    export(plan(first.path, tmp_path / "b.onnx", no_verify=True), tiny_network)
    assert not any(name.startswith("verified") for name in open_artefact(tmp_path / "b.onnx").metadata)


def test_a_file_that_is_not_is_kept_under_a_name_that_shows_it(
    tiny_network, tiny_frames, other_network, tmp_path, monkeypatch, few_pairs
):
    monkeypatch.setattr("export.pipeline.build_model", lambda *args, **options: build_copy(tiny_frames))
    (tmp_path / "m.onnx").write_text("older")
    result = export(plan("lite", tmp_path / "m.onnx"), other_network)
    assert not result.passed and result.path.name == "m.rejected.onnx"
    assert (tmp_path / "m.onnx").read_text() == "older" and len(list(tmp_path.iterdir())) == 2
    rows = {row.runtime: row for row in result.report.rows}
    assert not rows["onnxruntime fp32"].passed and rows["onnxruntime fp32"].psnr < 60
    assert "FAILED" in str(result.report)
    assert export(plan("lite", tmp_path / "m.onnx"), tiny_network).passed
    assert open_artefact(tmp_path / "m.onnx").io == "frames"


def build_copy(model):
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def test_the_command_fails_below_a_bound(models, tmp_path, capsys, few_pairs):
    words = [str(models / "lite.safetensors"), "-o", str(tmp_path / "m.onnx"), "--imgsz", "32", "--min-psnr", "500"]
    assert main(words) == 2
    captured = capsys.readouterr()
    assert "FAILED" in captured.out and "m.rejected.onnx" in captured.err
    assert [file.name for file in tmp_path.iterdir()] == ["m.rejected.onnx"]


def test_a_bound_holds_in_every_runtime(tiny_network, tiny_frames, tmp_path, monkeypatch, few_pairs):
    monkeypatch.setattr("export.pipeline.build_model", lambda *args, **options: build_copy(tiny_frames))
    result = export(plan("lite", tmp_path / "m.onnx", precision="fp16-stored", min_psnr=200.0), tiny_network)
    assert not result.passed and {row.least for row in result.report.rows if "bf16" not in row.runtime} == {200.0}


def test_graphs_that_smooth_over_time_run_on_pairs(tiny_network):
    """As they must for the layers to be named that cost most, where one of them fails."""
    model = build_model(tiny_network, shape=Shape(2, 16, 24), temporal=True)
    (feed,) = feeds(model, generated(1, "verify", (16, 24)))
    (fused,) = runner(model, ["fused"])(feed)
    assert fused.shape == (2, 16, 24, 3) and np.array_equal(fused[0], fused[1])


def test_exporting_leaves_logging_as_it_was(tiny_network):
    before = logging.root.manager.disable
    try:
        logging.disable(logging.ERROR)
        trace(tiny_network, "planes", Shape(1, 16, 16), False)
        assert logging.root.manager.disable == logging.ERROR
    finally:
        logging.disable(before)


def test_the_twin_gives_what_the_frames_are_rounded_from(tiny_frames, tmp_path):
    from export import formats

    runs = []
    for name, model in (("frames", tiny_frames), ("twin", without_rounding(tiny_frames))):
        onnx.save(model, tmp_path / f"{name}.onnx")
        runs.append(open_runners(tmp_path / f"{name}.onnx", formats.FORMATS["onnx"])[-1].run)
    (pair,) = generated(1, "verify", (33, 47))
    inputs = {"ir": pair.ir[None, ..., None], "vis": pair.vis[None]}
    frames, exact = (run(inputs) for run in runs)
    assert exact.dtype == np.float32 and np.array_equal(np.rint(np.clip(exact, 0, 255)).astype(np.uint8), frames)
    assert [node.op_type for node in tiny_frames.graph.node].count("Round") == 1  # the graph given is as it was


def test_pairs_of_a_folder(tmp_path):
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="no folders of infrared"):
        load_pairs(tmp_path, 4, "verify")
    for i in range(9):
        for side, shape in (("IR", (40, 60)), ("vi", (40, 60, 3))):
            (tmp_path / side).mkdir(exist_ok=True)
            write_image(
                tmp_path / side / f"{i}.png", np.full(shape, 20 * i, np.uint8) | rng.integers(0, 4, shape, np.uint8)
            )
    parts = {part: load_pairs(tmp_path, 20, part)[0] for part in ("verify", "calibrate")}
    assert [len(pairs) for pairs in parts.values()] == [3, 6]
    seen = {part: {pair.ir[0, 0] // 20 for pair in pairs} for part, pairs in parts.items()}
    assert not seen["verify"] & seen["calibrate"]
    assert load_pairs(tmp_path, 2, "verify")[1] == f"2 pairs of {tmp_path.name}"
    generated_pairs = [generated(2, part) for part in ("verify", "calibrate")]
    assert not np.array_equal(generated_pairs[0][0].vis, generated_pairs[1][0].vis)


def test_report_fails_on_nan():
    row = Row("r", float("nan"), 60, 0.0, float("inf"), 1.0, {})
    assert not row.passed and not Report("", [row]).passed


def test_an_engine_has_its_graph_and_sidecar_beside_it(tiny_network, tmp_path, monkeypatch):
    """As far as a stand-in for TensorRT shows it."""
    tensorrt_stand_in.install(monkeypatch, "10.3.0")
    monkeypatch.setattr("export.pipeline.build_model", lambda *args, **options: plain_graph())
    job = plan("lite", tmp_path / "m.engine", imgsz=[64, 80], workspace=1.0, no_verify=True)
    assert (job.format.name, job.precision, job.own["workspace"]) == ("engine", "fp32", 1.0)
    export(job, tiny_network)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.engine", "m.engine.json", "m.onnx"]
    with pytest.raises(InputError, match="--force replaces it"):
        plan("lite", tmp_path / "m.engine")
    known = sidecar.read(tmp_path / "m.engine")
    assert known.precision == "fp32" and known.onnx == "m.onnx" and known.options["workspace"] == 1.0
    add_report(tmp_path / "m.engine", {"verified_on": "4 pairs"})
    assert open_artefact(tmp_path / "m.engine").metadata["verified_on"] == "4 pairs"


def test_triton_gets_the_file(tiny_network, tmp_path, monkeypatch):
    monkeypatch.setattr("export.pipeline.build_model", lambda *args, **options: plain_graph())
    export(plan("lite", tmp_path / "m.onnx", triton=tmp_path / "repository", no_verify=True), tiny_network)
    assert (tmp_path / "repository" / "m" / "1" / "model.onnx").is_file()
