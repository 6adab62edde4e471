"""The folder of licensed pairs: what goes in, the manifest, and what weights say of it."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from trainer.data.pairs import load_pairs
from trainer.data.provenance import describe_data
from trainer.prepare import main


def write_clip(path: Path, frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write MPEG-4")
    for k in range(frames):
        writer.write(np.full((48, 64, 3), 20 + 8 * k, np.uint8))
    writer.release()


@pytest.fixture
def sources(tmp_path):
    random = np.random.default_rng(0)
    for kind in ("ir", "vi"):
        (tmp_path / "pictures" / kind).mkdir(parents=True)
        (tmp_path / "clips" / kind).mkdir(parents=True)
        for name in ("m3svd_0001_0000", "m3svd_0001_0006", "other_1"):
            plane = random.integers(0, 256, (48, 64), np.uint8)
            cv2.imwrite(str(tmp_path / "pictures" / kind / f"{name}.png"), plane)
        write_clip(tmp_path / "clips" / kind / "0002_1200.mp4", 10)
    return tmp_path


def test_pictures_clips_and_scenes_with_a_manifest(sources, capsys):
    out = sources / "made"
    arguments = ["--out", str(out), "--m3svd", str(sources / "pictures"), "--video", str(sources / "clips")]
    assert main([*arguments, "--every", "4", "--scenes", "1", "--seed", "7"]) == 0
    assert "5 pairs" in capsys.readouterr().out
    with (out / "manifest.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert sorted(rows) == [
        "film_0002_1200_v0002",
        "film_0002_1200_v0006",
        "m3svd_0001_0000",
        "m3svd_0001_0006",
        "scene_0000",
    ]
    assert rows["m3svd_0001_0000"]["terms"] == "MIT" and rows["scene_0000"]["terms"] == "Apache-2.0"
    for name, row in rows.items():
        for kind in ("ir", "vi"):
            plane = cv2.imread(str(out / kind / f"{name}.png"), cv2.IMREAD_UNCHANGED)
            assert plane.ndim == 2 and plane.dtype == np.uint8
            assert row[f"sha256_{kind}"] == hashlib.sha256(plane.tobytes()).hexdigest()
    taken = [cv2.imread(str(out / "vi" / f"film_0002_1200_v000{k}.png"), 0).mean() for k in (2, 6)]
    assert taken == pytest.approx([36, 68], abs=4)  # the frames of those numbers


def test_weights_say_what_they_saw(sources):
    out = sources / "made"
    assert main(["--out", str(out), "--m3svd", str(sources / "pictures"), "--scenes", "1"]) == 0
    described = describe_data(load_pairs([out]))
    assert described["trained_on"] == "M3SVD (Linfeng-Tang/M3SVD): 2 pairs; pyldfusion.scene: 1 pairs"
    assert described["terms"] == "Apache-2.0; MIT"
    again = describe_data(load_pairs([out]))
    assert again["data_sha256"] == described["data_sha256"]
    plane = cv2.imread(str(out / "ir" / "m3svd_0001_0000.png"), 0)
    plane[0, 0] ^= 1
    cv2.imwrite(str(out / "ir" / "m3svd_0001_0000.png"), plane)
    assert describe_data(load_pairs([out]))["data_sha256"] != described["data_sha256"]


def test_pairs_of_unknown_origin_are_said_to_be_so(sources):
    root = sources / "pictures"
    assert "not stated" in describe_data(load_pairs([root]))["terms"]


def test_a_wrong_folder_is_named(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "out"), "--m3svd", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
