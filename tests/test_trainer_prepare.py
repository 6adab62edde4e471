"""The folder of licensed pairs: what goes in, the manifest, what weights say of it, and how it is packed."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from pyldfusion.errors import InputError
from trainer.data.pairs import load_pairs
from trainer.data.provenance import describe_data
from trainer.pack import main as pack
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


def test_a_manifest_that_cannot_be_read_is_an_error(sources):
    root = sources / "pictures"
    (root / "manifest.csv").write_bytes("name,source\na,M\xfcnchen\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"manifest\.csv: no manifest that can be read"):
        describe_data(load_pairs([root]))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "nothing to take pairs from; expected --m3svd, --video or --scenes"),
        (("--video", "EMPTY"), "has no .mp4 clips"),
        (("--video", "EMPTY", "--every", "0"), "--every is 0"),
    ],
)
def test_what_cannot_be_prepared_is_said(tmp_path, capsys, arguments, says):
    assert main(["--out", str(tmp_path / "out"), *(word.replace("EMPTY", str(tmp_path)) for word in arguments)]) == 2
    assert says in capsys.readouterr().err


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path, capsys):
    (tmp_path / "out").touch()
    assert main(["--out", str(tmp_path / "out"), "--scenes", "1"]) == 2
    assert "error: " in capsys.readouterr().err


# packed


def test_what_is_packed_without_loss_is_the_same_data(sources, capsys):
    made, packed = sources / "made", sources / "packed"
    assert main(["--out", str(made), "--m3svd", str(sources / "pictures"), "--scenes", "1"]) == 0
    assert pack([str(made), "--out", str(packed), "--megabytes", "1"]) == 0
    assert "3 pairs" in capsys.readouterr().out
    whole, small = load_pairs([made]), load_pairs([packed])
    assert [pair.planes().tobytes() for pair in small.pairs] == [pair.planes().tobytes() for pair in whole.pairs]
    before, after = describe_data(whole), describe_data(small)
    assert after["trained_on"] == before["trained_on"] and after["terms"] == before["terms"]
    for name in ("ir", "vi"):
        assert len(list((packed / name).glob("*.webp"))) == 3


def test_what_does_not_fit_loses_quality_and_says_so(sources, capsys):
    made, packed = sources / "made", sources / "packed"
    assert main(["--out", str(made), "--scenes", "1"]) == 0
    assert pack([str(made), "--out", str(packed), "--megabytes", "0.13"]) == 0
    size = sum(file.stat().st_size for file in packed.rglob("*.webp"))
    assert "at WebP quality" in capsys.readouterr().out and size <= 0.13e6
    small = load_pairs([packed])
    assert "packed as WebP of quality" in describe_data(small)["trained_on"]
    difference = small.pairs[0].planes().astype(int) - load_pairs([made]).pairs[0].planes()
    assert 0 < np.square(difference).mean() < 30
    rows = list(csv.DictReader((packed / "manifest.csv").open(newline="")))
    assert rows[0]["sha256_ir"] == hashlib.sha256(small.pairs[0].ir.tobytes()).hexdigest()


def test_what_cannot_be_packed_is_said(sources, capsys):
    pictures = str(sources / "pictures")
    for arguments, says in (
        ([pictures, "--out", str(sources / "a"), "--megabytes", "0.01"], "pack fewer of them"),
        ([pictures, "--out", pictures], "is not empty"),
        ([str(sources / "none"), "--out", str(sources / "b")], "no such folder"),
    ):
        assert pack(arguments) == 2
        assert says in capsys.readouterr().err
