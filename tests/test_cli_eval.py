"""`pyldfusion eval`: what it reads, prints and writes, and what it does with bad files."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from pyldfusion import metrics
from pyldfusion.cli import main
from pyldfusion.thermal import to_8bit


def picture(seed: int, height: int = 60, width: int = 80) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(height, width))
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def save(path: Path, image: np.ndarray) -> np.ndarray:
    path.parent.mkdir(exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return image


@pytest.fixture
def folder(tmp_path):
    """ir, vis and fused with the pairs 2 and 10; `fused, ir, vis` of each in a dict."""
    triples = {}
    for name, seed in (("2", 0), ("10", 10)):
        ir, vis = picture(seed), cv2.merge([picture(seed + 1), picture(seed + 2), picture(seed + 3)])
        fused = cv2.addWeighted(cv2.cvtColor(ir, cv2.COLOR_GRAY2BGR), 0.5, vis, 0.5, 0)
        for kind, image in (("ir", ir), ("vis", vis), ("fused", fused)):
            save(tmp_path / kind / f"{name}.png", image)
        triples[name] = (fused, ir, vis)
    (tmp_path / "triples").mkdir()
    return tmp_path, triples


def evaluate(root: Path, *options: str, ir: str = "ir", vis: str = "vis", fused: str = "fused") -> int:
    return main(["eval", *(str(root / part) for part in (ir, vis, fused)), *options])


def means(*rows: dict[str, float]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in metrics.NAMES}


def test_table_of_a_directory(folder, capsys):
    root, triples = folder
    assert evaluate(root) == 0
    out, err = capsys.readouterr()
    assert err == ""
    header, first, second, mean = (line.split() for line in out.splitlines())
    rows = {name: metrics.evaluate(*triple) for name, triple in triples.items()}
    assert header == list(metrics.NAMES)
    assert first == ["2", *(f"{value:.4f}" for value in rows["2"].values())]
    assert second == ["10", *(f"{value:.4f}" for value in rows["10"].values())]
    assert mean == ["mean", "of", "2", *(f"{value:.4f}" for value in means(*rows.values()).values())]


def test_one_triple(folder, capsys):
    root, triples = folder
    assert evaluate(root, "--json", ir="ir/2.png", vis="vis/2.png", fused="fused/2.png") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"][0]["metrics"] == found["mean"] == metrics.evaluate(*triples["2"])


def test_json_and_csv_hold_the_whole_numbers(folder, capsys):
    root, triples = folder
    rows = {name: metrics.evaluate(*triple) for name, triple in triples.items()}
    files = root / "new" / "a.csv", root / "b.json"
    assert evaluate(root, "--csv", str(files[0]), "--json", str(files[1])) == 0
    assert "mean of 2" in capsys.readouterr().out
    found = json.loads(files[1].read_text())
    assert [image["name"] for image in found["images"]] == ["2", "10"]
    for image in found["images"]:
        name = image["name"]
        assert image["metrics"] == rows[name]
        assert image["error"] is None
        for kind in ("ir", "vis", "fused"):
            assert image[kind] == str(root / kind / f"{name}.png")
    assert found["mean"] == pytest.approx(means(*rows.values()), rel=1e-12)
    table = list(csv.DictReader(io.StringIO(files[0].read_text())))
    assert [line["name"] for line in table] == ["2", "10", "mean"]
    for line in table[:2]:
        assert {name: float(line[name]) for name in metrics.NAMES} == rows[line["name"]]
    assert float(table[2]["VIFF"]) == pytest.approx(found["mean"]["VIFF"], rel=1e-12)


@pytest.mark.parametrize("option", ["--csv", "--json"])
def test_without_a_file_it_is_printed_in_place_of_the_table(folder, capsys, option):
    root, _ = folder
    file = root / "out"
    assert evaluate(root, option, str(file), "--quiet") == 0
    assert capsys.readouterr().out == ""
    for target in ([], ["-"]):
        assert evaluate(root, option, *target) == 0
        assert capsys.readouterr().out == file.read_text()


def test_bad_files_are_told_and_the_rest_is_measured(folder, capsys):
    root, triples = folder
    for name, seed in (("cut", 20), ("lost", 30), ("small", 40)):
        for kind in ("ir", "vis", "fused"):
            save(root / kind / f"{name}.png", picture(seed))
    (root / "vis" / "cut.png").write_bytes((root / "vis" / "2.png").read_bytes()[:500])
    (root / "fused" / "lost.png").unlink()
    save(root / "fused" / "small.png", picture(3, 60, 70))
    assert evaluate(root, "--json", str(root / "a.json"), "--csv", str(root / "a.csv")) == 1
    out, err = capsys.readouterr()
    assert "mean of 2" in out
    assert "cut: " in err
    assert "no fused picture" in err
    assert "lost" in err
    assert "fused 70x60, ir 80x60, vis 80x60" in err
    assert "3 of 5 pairs could not be measured" in err
    found = json.loads((root / "a.json").read_text())
    errors = {image["name"]: image["error"] for image in found["images"]}
    assert {name for name, error in errors.items() if error} == {"cut", "lost", "small"}
    assert all((image["metrics"] is None) == bool(image["error"]) for image in found["images"])
    assert found["mean"] == pytest.approx(means(*(metrics.evaluate(*t) for t in triples.values())), rel=1e-12)
    assert len((root / "a.csv").read_text().splitlines()) == 1 + 2 + 1


def test_nothing_measured_is_exit_code_2(folder, capsys):
    root, _ = folder
    for file in (root / "fused").iterdir():
        file.write_text("not a picture")
    assert evaluate(root, "--json") == 2
    out, err = capsys.readouterr()
    assert set(json.loads(out)["mean"].values()) == {None}
    assert "2 of 2 pairs could not be measured" in err


def test_files_without_partner_are_left_out(folder, capsys):
    root, _ = folder
    save(root / "ir" / "alone.png", picture(1))
    save(root / "fused" / "side.png", picture(1))
    assert evaluate(root) == 0
    out, err = capsys.readouterr()
    assert "mean of 2" in out
    assert "1 file has no partner of the same stem and is left out: alone.png" in err


def test_the_mean_leaves_out_what_has_no_value(folder, capsys):
    root, triples = folder
    for kind in ("ir", "vis", "fused"):
        save(root / kind / "tiny.png", picture(len(kind), 20, 90))
        save(root / kind / "tiny2.png", picture(len(kind), 21, 90))
    assert evaluate(root, "--json", str(root / "a.json"), "--csv", str(root / "a.csv")) == 0
    out, err = capsys.readouterr()
    assert err.count("VIFF needs 41 pixels") == 1
    assert out.count("nan") == 2
    found = json.loads((root / "a.json").read_text())
    tiny = found["images"][-1]["metrics"]
    assert tiny["VIFF"] is None
    assert tiny["SSIM"] is not None
    expected = [metrics.viff(*triple) for triple in triples.values()]
    assert found["mean"]["VIFF"] == pytest.approx(sum(expected) / 2, rel=1e-12)
    row = list(csv.DictReader(io.StringIO((root / "a.csv").read_text())))[-2]
    assert row["VIFF"] == ""
    assert float(row["EN"]) == tiny["EN"]


def test_deep_infrared_is_scaled_as_fuse_does(folder, capsys):
    root, triples = folder
    fused, ir, vis = triples["2"]
    counts = 21000 + 9 * ir.astype(np.uint16)
    counts[0, :3] = 65535
    save(root / "deep" / "2.tif", counts)
    for options, thermal in (([], None), (["--thermal", "21000", "23295"], (21000.0, 23295.0))):
        assert evaluate(root, "--json", *options, ir="deep/2.tif", vis="vis/2.png", fused="fused/2.png") == 0
        found = json.loads(capsys.readouterr().out)["mean"]
        assert found == metrics.evaluate(fused, to_8bit(counts, thermal), vis)
    counts.astype("<u2").tofile(root / "deep" / "2.raw")
    options = ["--json", "--raw-size", "80x60", "--thermal", "21000", "23295"]
    assert evaluate(root, *options, ir="deep/2.raw", vis="vis/2.png", fused="fused/2.png") == 0
    assert json.loads(capsys.readouterr().out)["mean"] == found


def test_infrared_of_another_size_is_resized_and_said_once(folder, capsys):
    root, triples = folder
    for name, (_, ir, _) in triples.items():
        save(root / "ir" / f"{name}.png", cv2.resize(ir, (40, 30), interpolation=cv2.INTER_AREA))
    assert evaluate(root) == 0
    assert capsys.readouterr().err.count("infrared of 40x30 is resized to the visible 80x60") == 1
    for name, (_, ir, _) in triples.items():
        save(root / "ir" / f"{name}.png", ir[:, :60])
    assert evaluate(root) == 2
    assert "--resize" in capsys.readouterr().err
    assert evaluate(root, "--resize") == 0


def test_a_homography_puts_the_infrared_where_it_belongs(folder, capsys):
    root, triples = folder
    for name, (_, ir, _) in triples.items():
        save(root / "ir" / f"{name}.png", np.ascontiguousarray(ir[:, ::-1]))
    mirror = root / "h.txt"
    mirror.write_text("-1 0 79\n0 1 0\n0 0 1\n")
    assert evaluate(root, "--json", "--homography", str(mirror)) == 0
    found = json.loads(capsys.readouterr().out)["mean"]
    assert found == pytest.approx(means(*(metrics.evaluate(*triple) for triple in triples.values())), rel=1e-9)


def test_fused_pictures_may_be_named_as_the_infrared(folder, capsys):
    root, _ = folder
    for name in ("2", "10"):
        for kind, affix in (("ir", "_ir"), ("vis", "_vis"), ("fused", "_ir")):
            (root / kind / f"{name}.png").rename(root / kind / f"{name}{affix}.png")
    assert evaluate(root) == 0
    assert "mean of 2" in capsys.readouterr().out


def test_a_video_against_its_fused_frames_and_video(folder, capsys):
    root, _ = folder
    irs, viss = [picture(seed) for seed in range(5)], [picture(seed) for seed in range(5, 10)]
    for kind, frames in (("ir", irs), ("vis", viss), ("fused", viss), ("short", viss[:3])):
        writer = cv2.VideoWriter(str(root / f"{kind}.avi"), cv2.VideoWriter_fourcc(*"FFV1"), 10, (80, 60))
        for frame in frames:
            writer.write(cv2.merge([frame] * 3))
        writer.release()
    for index, frame in enumerate(viss):
        save(root / "frames" / f"vis_{index:06d}.png", frame)
    expected = means(*(metrics.evaluate(vis, ir, vis) for ir, vis in zip(irs, viss, strict=True)))
    for fused in ("fused.avi", "frames"):
        assert evaluate(root, "--json", ir="ir.avi", vis="vis.avi", fused=fused) == 0
        found = json.loads(capsys.readouterr().out)
        assert len(found["images"]) == 5
        assert found["mean"] == pytest.approx(expected, rel=1e-9)
    assert evaluate(root, ir="ir.avi", vis="vis.avi", fused="short.avi") == 1
    assert "shorter than its sources" in capsys.readouterr().err


def test_usage_errors(folder, capsys):
    root, triples = folder
    cases = [
        ((root / "ir", root / "vis", root / "none"), [], "no such file or directory"),
        ((root / "ir", root / "vis", root / "triples"), [], "no pictures"),
        ((root / "ir", root / "vis", root / "fused" / "2.png"), [], "one picture"),
        ((root / "ir", root / "vis"), [], "FUSED"),
        ((root / "ir", root / "vis", root / "fused"), ["--csv", "-", "--json", "-"], "both be printed"),
        ((root / "ir", root / "vis", root / "fused"), ["--thermal", "9", "3"], "thermal"),
        ((root / "ir", root / "vis", root / "fused"), ["--thermal", "3", "9"], "the infrared has 8 bits"),
        ((root / "ir", root / "vis", root / "fused"), ["--json", str(root / "ir")], "cannot write"),
    ]
    for places, options, message in cases:
        assert main(["eval", *map(str, places), *options]) == 2, message
        assert message in capsys.readouterr().err
    save(root / "fused" / "2.bmp", triples["2"][0])
    assert evaluate(root) == 2
    assert "same name '2'" in capsys.readouterr().err


def test_no_input_is_replaced(folder, capsys):
    root, _ = folder
    (root / "h.txt").write_text("1 0 0\n0 1 0\n0 0 1\n")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    inputs = [root / "ir/2.png", root / "vis/10.png", root / "fused/2.png", root / "h.txt"]
    for option in ("--csv", "--json"):
        for path in inputs:
            assert evaluate(root, option, str(path), "--homography", str(root / "h.txt")) == 2
            assert f"{option} {path} would replace an input" in capsys.readouterr().err
    assert evaluate(root, "--csv", str(root / "a"), "--json", str(root / "a")) == 2
    assert "would both be written" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    for _ in range(2):  # results among the pictures are no input
        assert evaluate(root, "--json", str(root / "fused/a.json")) == 0


def test_notes_are_of_pairs_that_are_measured(folder, capsys):
    root, triples = folder
    counts = save(root / "deep" / "2.tif", 21000 + 9 * triples["2"][1][:, :60].astype(np.uint16))
    words = {"ir": "deep/2.tif", "vis": "vis/2.png", "fused": "fused/2.png"}
    assert evaluate(root, "--thermal", "0", "9", **words) == 2
    err = capsys.readouterr().err
    assert "--resize" in err and "is resized to" not in err and "black or white" not in err
    assert evaluate(root, "--thermal", "0", "9", "--resize", **words) == 0
    err = capsys.readouterr().err
    assert "infrared of 60x60 is resized" in err
    values = f"{counts.min()} to {counts.max()}"
    assert f"2: --thermal 0 9 makes 100% of the infrared black or white; its values are {values}" in err


def test_fixtures_through_the_command(shared, capsys):
    """The mean of the authors' two pictures, as the original programs give it."""
    folder = shared / "metrics"
    if not (folder / "images" / "ldfusion").is_dir():
        pytest.skip(f"no images in {folder}")
    with open(folder / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if "/ldfusion/" in row["fused_path"]]
    assert len(rows) == 2
    assert evaluate(folder / "images" / "ldfusion", "--json") == 0
    mean = json.loads(capsys.readouterr().out)["mean"]
    for name in ("EN", "CC", "CC_uint8", "SD", "EI", "VIFF"):
        assert math.isclose(mean[name], sum(float(row[name]) for row in rows) / 2, rel_tol=1e-9), name
