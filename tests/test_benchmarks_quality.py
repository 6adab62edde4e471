"""The quality benchmark: its plain methods, its noise figure, its report."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from benchmarks.quality import edge_halo, flat_grid, flat_noise, hot_white, laplacian_pyramid_fusion, main, mean_fusion
from trainer.evaluation.scoring import Method


def picture(seed: int, shape=(96, 130)) -> np.ndarray:
    random = np.random.default_rng(seed)
    coarse = random.random((shape[0] // 16, shape[1] // 16)).astype(np.float32)
    return np.rint(40 + 160 * np.clip(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC), 0, 1)).astype(
        np.uint8
    )


def test_one_picture_twice_is_itself():
    x = picture(1)
    assert np.array_equal(mean_fusion(x, x), x)
    assert np.abs(laplacian_pyramid_fusion(x, x).astype(int) - x).max() <= 1


def test_the_pyramid_keeps_detail_that_the_mean_halves():
    vis = np.full((64, 64), 100, np.uint8)
    ir = vis.copy()
    ir[::2] = 140
    rows = [float(np.ptp(fuse(ir, vis)[:, 32].astype(int))) for fuse in (mean_fusion, laplacian_pyramid_fusion)]
    assert rows == pytest.approx([20, 40], abs=2)


def test_noise_is_measured_where_both_are_flat():
    random = np.random.default_rng(0)
    vis = np.full((200, 200), 120, np.float32)
    vis[:, 100:] += 60 * np.sin(np.arange(100) / 2)
    ir = np.full_like(vis, 90)
    noise = random.standard_normal(vis.shape).astype(np.float32)
    noisy = vis + 4 * noise
    for gain in (0.0, 1.0, 3.0):
        fused = vis + gain * 4 * noise
        # the detail of the right half must not count
        assert flat_noise(fused, ir, noisy) == pytest.approx(gain, rel=0.15, abs=0.2)


def test_a_grid_is_measured_where_both_are_flat_and_noise_is_none():
    random = np.random.default_rng(0)
    pattern = random.standard_normal((8, 8))
    pattern = (pattern - pattern.mean()) / pattern.std()
    vis = np.full((163, 245), 120.0)  # 20 and 30 cells, and some pixels more
    vis[:, 120:] += 60 * np.sin(np.arange(125) * 2 * np.pi / 8)  # repeats as well, but is no flat place
    ir = np.full_like(vis, 90)
    tiled = np.tile(pattern, (21, 31))[:163, :245]
    for gain in (0.0, 1.0, 3.0):
        assert flat_grid(vis + gain * tiled, ir, vis) == pytest.approx(gain, abs=1e-9)
    # a mean of 25 cells leaves a fifth of what does not repeat
    assert flat_grid(vis + random.standard_normal(vis.shape), ir, vis) == pytest.approx(0.2, abs=0.03)
    assert np.isnan(flat_grid(vis[:39], ir[:39], vis[:39]))


def test_halos_are_measured_beside_edges_and_contrast_is_none():
    random = np.random.default_rng(0)
    vis = cv2.GaussianBlur(np.where(np.arange(200) < 100, 60.0, 180.0)[None].repeat(160, 0), (0, 0), 1)
    vis += 4 * cv2.GaussianBlur(random.standard_normal(vis.shape), (0, 0), 8)  # slopes of its own
    ir = np.full_like(vis, 90)
    ring = cv2.GaussianBlur(vis, (0, 0), 1) - cv2.GaussianBlur(vis, (0, 0), 5)
    assert edge_halo(vis, ir, vis) == pytest.approx(1, abs=1e-6)
    assert edge_halo(0.5 * vis + 20, ir, vis) == pytest.approx(1, abs=0.05)
    assert edge_halo(vis + 0.4 * ring, ir, vis) > 1.5
    assert np.isnan(edge_halo(ir, ir, ir))


def test_what_is_hottest_is_white_or_not():
    ir = np.tile(np.arange(200, dtype=np.uint8), (50, 1))  # the hottest hundredth: two columns
    fused = np.full_like(ir, 250)
    assert hot_white(fused, ir, ir) == 0
    fused[:, :190] = 255
    assert hot_white(fused, ir, ir) == 0
    fused[:, 199] = 253
    assert hot_white(fused, ir, ir) == 0.5


def test_the_report_names_sets_methods_and_models(tmp_path, capsys):
    for k, name in enumerate(("a", "b")):
        for kind in ("ir", "vi"):
            folder = tmp_path / "sets" / name / kind
            folder.mkdir(parents=True)
            cv2.imwrite(str(folder / "1.png"), picture(2 * k + (kind == "ir")))
    # others' pictures often have three channels where the pair has one
    for name, result in (("a", cv2.cvtColor(picture(1), cv2.COLOR_GRAY2BGR)), ("b", picture(3))):
        (tmp_path / "mine" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "mine" / name / "1.png"), result)
    arguments = ["--data", str(tmp_path / "sets"), "--weights", "ours=lite", "--results", f"mine={tmp_path / 'mine'}"]
    report, sheet = tmp_path / "report.json", tmp_path / "sheet.png"
    assert main([*arguments, "--json", str(report), "--sheet", str(sheet)]) == 0
    text = capsys.readouterr().out
    assert "### a (1 pair)" in text and "| pyramid |" in text and "| laplacian |" in text
    numbers = json.loads(report.read_text())
    assert set(numbers["sets"]) == {"a", "b"}
    assert set(numbers["sets"]["a"]) == {"mean", "laplacian", "pyramid", "ours", "mine"}
    assert len(numbers["models"]["ours"]) == 64
    # a result that is the infrared itself correlates with it wholly
    ir, vis = picture(1), picture(0)
    expected = (1 + np.corrcoef(ir.ravel(), vis.ravel())[0, 1]) / 2
    assert numbers["sets"]["a"]["mine"]["CC"] == pytest.approx(expected, abs=1e-6)
    assert cv2.imread(str(sheet)).shape == (480, 320 * 6, 3)


def test_rows_of_an_earlier_report_stand_beside_new_ones_if_the_pairs_are_the_same(tmp_path, capsys):
    for kind in ("ir", "vi"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for k in range(2):
            cv2.imwrite(str(tmp_path / "set" / kind / f"{k}.png"), picture(2 * k + (kind == "ir")))
    (tmp_path / "theirs").mkdir()
    for k in range(2):
        cv2.imwrite(str(tmp_path / "theirs" / f"{k}.png"), picture(2 * k + 1))
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    arguments = ["--data", str(tmp_path / "set"), "--weights", "ours=lite"]
    assert main([*arguments, "--results", f"theirs={tmp_path / 'theirs'}", "--json", str(first)]) == 0
    report = json.loads(first.read_text())
    before = report["sets"]["set"]["theirs"]
    report["provenance"] = {"theirs": "somewhere"}
    report["sets"]["set"]["ours"] = {key: -1.0 for key in before}  # what is measured again counts
    first.write_text(json.dumps(report))
    capsys.readouterr()
    again = [*arguments, "--beside", str(first), "--json", str(second)]
    assert main(again) == 0
    text = capsys.readouterr().out
    after = json.loads(second.read_text())
    assert after["sets"]["set"]["theirs"] == before and after["provenance"] == {"theirs": "somewhere"}
    assert f"| theirs | {before['EN']:.3f} |" in text and "-1.0" not in text
    assert after["sets"]["set"]["ours"]["EN"] > 0 and after["models"] == report["models"]
    # fewer pairs or another picture: not the same means
    assert main([*again, "--limit", "1"]) == 2
    assert "other pairs" in capsys.readouterr().err
    cv2.imwrite(str(tmp_path / "set" / "vi" / "1.png"), picture(9))
    assert main(again) == 2
    assert "other pairs" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{}", '{"data": {}, "sets": {"other": {}}}', '{"data": 1, "sets": 2}'])
def test_a_file_that_is_no_report_of_these_sets_is_an_error(text, tmp_path, capsys):
    for kind in ("ir", "vi"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "set" / kind / "1.png"), picture(0))
    (tmp_path / "report.json").write_text(text)
    assert main(["--data", str(tmp_path / "set"), "--beside", str(tmp_path / "report.json")]) == 2
    assert "report.json" in capsys.readouterr().err


def test_a_folder_without_pairs_is_an_error(tmp_path, capsys):
    assert main(["--data", str(tmp_path)]) == 2
    assert "no folders of infrared and visible" in capsys.readouterr().err


@pytest.mark.parametrize(("engine", "precision"), [(None, "fp32"), ("openvino", "fp32"), ("openvino:bf16", None)])
def test_models_compute_in_fp32_unless_another_precision_is_named(engine, precision, tmp_path, monkeypatch):
    # the fastest differs from CPU to CPU, and so would the numbers
    for kind in ("ir", "vi"):
        (tmp_path / kind).mkdir()
        cv2.imwrite(str(tmp_path / kind / "1.png"), picture(0))
    asked = []

    def network(weights, device=None, engine=None, precision="fp32"):
        asked.append((weights, engine, precision))
        return Method(lambda sample: sample.vis)

    monkeypatch.setattr("benchmarks.quality.network", network)
    option = ["--engine", engine] if engine else []
    assert main(["--data", str(tmp_path), "--weights", "ours=lite", *option]) == 0
    assert ("lite", engine, precision) in asked
