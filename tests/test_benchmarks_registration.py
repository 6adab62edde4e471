"""The benchmark of registration, on two small scenes in place of data."""

from __future__ import annotations

import json

import cv2
import numpy as np

from benchmarks import registration
from benchmarks.registration_sheets import Sheets
from pyldfusion.scene import Scene


def test_a_short_run_has_all_figures(tmp_path, monkeypatch, capsys):
    for name in ("ir", "vi"):
        (tmp_path / "set" / name).mkdir(parents=True)
    for index in range(2):
        ir, vis = Scene(index + 1, (160, 120), "day").render(1.0)
        cv2.imwrite(str(tmp_path / "set" / "ir" / f"{index}.png"), ir)
        cv2.imwrite(str(tmp_path / "set" / "vi" / f"{index}.png"), vis)
    monkeypatch.setattr(registration, "_scenes", lambda seed: iter([]))
    monkeypatch.setattr(registration, "_targets", lambda seed: {})
    out = tmp_path / "out.json"
    assert registration.main(["--data", str(tmp_path / "set"), "--out", str(out)]) == 0
    assert "| set | 2 |" in capsys.readouterr().out and '"strangers": 1' in out.read_text()


def test_a_sheet_shows_both_and_only_the_key_tells_which_is_which(tmp_path):
    ir, vis = Scene(1, (160, 120), "day").render(1.0)
    shifted = np.array([[1, 0, 8.0], [0, 1, 0], [0, 0, 1]])
    sheets = Sheets(tmp_path, seed=0)
    for number in range(8):
        sheets.add(str(number), ir, vis, shifted)
    key = json.loads((tmp_path / "key.json").read_text())
    assert {tuple(row["left and right"]) for row in key} == {("delivered", "found"), ("found", "delivered")}
    for row in key:
        sheet = cv2.imread(str(tmp_path / row["sheet"]))
        edges = dict(zip(row["left and right"], np.split((sheet == (0, 50, 255)).all(axis=2), 2, axis=1), strict=True))
        moved = np.roll(edges["delivered"], 8, axis=1)[:, 24:-24]
        assert (moved & edges["found"][:, 24:-24]).sum() > 0.6 * moved.sum() > 0


def test_the_homographies_are_what_the_docs_say():
    for seed in range(20):
        matrix = registration.random_homography(np.random.default_rng(seed), (640, 480))
        middle = cv2.perspectiveTransform(np.array([[[319.5, 239.5]]]), matrix).ravel() - (319.5, 239.5)
        assert np.abs(middle).max() <= 40
        a, b = (cv2.perspectiveTransform(np.array([[[319.5 + d, 239.5]]]), matrix).ravel() for d in (-0.5, 0.5))
        step = b - a
        assert abs(np.hypot(*step) - 1) < 0.051 and abs(np.degrees(np.arctan2(step[1], step[0]))) < 3.1
