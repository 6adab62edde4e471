"""Fused pictures and labels in the layout of YOLO trainers."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")

from pyldfusion import Fuser  # noqa: E402
from pyldfusion.artefact import open_artefact, save_weights  # noqa: E402
from pyldfusion.errors import InputError  # noqa: E402
from trainer.detection import main  # noqa: E402
from trainer.evaluation.labels import read_boxes, voc_names  # noqa: E402

SIZE = (80, 64)
NAMES = ["People", "Car", "Bus", "Lamp", "Motorcycle", "Truck"]


def voc(*objects: tuple[str, float, float, float, float], size=SIZE, difficult: int = 0) -> str:
    boxes = "".join(
        f"<object><name>{name}</name><pose>Unspecified</pose><difficult>{difficult}</difficult><bndbox>"
        f"<xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for name, a, b, c, d in objects
    )
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f'<?xml version="1.0"?>\n<annotation><filename>a.png</filename>{sides}{boxes}</annotation>'


@pytest.fixture(scope="module")
def m3fd(tmp_path_factory) -> Path:
    """Ten pairs in the layout of M3FD: Ir, Vis, Annotation; the last pair has no labels."""
    root = tmp_path_factory.mktemp("detection") / "M3FD"
    random = np.random.default_rng(0)
    for kind in ("Ir", "Vis", "Annotation"):
        (root / kind).mkdir(parents=True)
    for k in range(10):
        for kind, shape in (("Ir", (5, 4)), ("Vis", (5, 4, 3))):
            coarse = random.integers(0, 256, shape).astype(np.uint8)
            cv2.imwrite(str(root / kind / f"{k:05d}.png"), cv2.resize(coarse, SIZE, interpolation=cv2.INTER_LINEAR))
        if k < 9:
            text = voc(("Car", 8, 16, 40, 48), ("People", k, 0, k + 10, 64)) if k else voc()
            (root / "Annotation" / f"{k:05d}.xml").write_text(text)
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "lite.safetensors"
    save_weights(open_artefact("lite").state_dict(), path, {"variant": "lite"})
    return path


def export(m3fd: Path, out: Path, *more: object) -> int:
    argv = ["export", "--method", m3fd / "Ir", "--data", m3fd, "--labels", m3fd / "Annotation", "--out", out, *more]
    return main([str(item) for item in argv])


def stems(folder: Path) -> set[str]:
    return {path.stem for path in folder.iterdir()}


def test_the_layout_is_that_of_yolo_trainers(m3fd, tmp_path, capsys):
    yaml = pytest.importorskip("yaml")
    out = tmp_path / "yolo"
    assert export(m3fd, out, "--method", m3fd / "Vis", "--names", ",".join(NAMES)) == 0
    printed = capsys.readouterr()
    assert "left out, without labels: M3FD/00009" in printed.err
    assert "7 pictures for training, 2 for validation" in printed.out
    assert f"yolo detect train data={out / 'data.yaml'}" in printed.out

    described = yaml.safe_load((out / "data.yaml").read_text())
    assert described["names"] == dict(enumerate(NAMES))
    seen = set()
    for part in ("train", "val"):
        pictures, labels = out / described[part], out / described[part].replace("images", "labels")
        assert stems(pictures) == stems(labels)
        seen |= stems(pictures)
        for path in pictures.iterdir():  # in colour, lossless
            assert np.array_equal(cv2.imread(str(path)), cv2.imread(str(m3fd / "Vis" / path.name)))
    assert seen == {f"{k:05d}" for k in range(9)}

    (label,) = out.glob("labels/*/00003.txt")
    rows = [line.split() for line in label.read_text().splitlines()]
    assert [row[0] for row in rows] == ["1", "0"]  # Car, People
    assert [float(word) for word in rows[0][1:]] == pytest.approx([24 / 80, 0.5, 32 / 80, 0.5], abs=1e-6)
    assert [float(word) for word in rows[1][1:]] == pytest.approx([8 / 80, 0.5, 10 / 80, 1], abs=1e-6)
    (empty,) = out.glob("labels/*/00000.txt")
    assert empty.read_text() == ""  # labelled as empty is not the same as not labelled


def test_a_network_fuses_in_colour(m3fd, weights, tmp_path):
    (tmp_path / "pair.csv").write_text(f"ir,vis\n{m3fd / 'Ir' / '00004.png'},{m3fd / 'Vis' / '00004.png'}\n")
    argv = ["export", "--weights", weights, "--data", tmp_path / "pair.csv", "--out", tmp_path / "out", "--val", "0"]
    assert main([*map(str, argv), "--device", "cpu"]) == 0
    ir, vis = cv2.imread(str(m3fd / "Ir" / "00004.png"), 0), cv2.imread(str(m3fd / "Vis" / "00004.png"))
    with Fuser(weights, "cpu", precision="fp32") as fuser:
        fused = fuser.fuse(ir, vis)
    assert fused.shape == vis.shape
    assert np.array_equal(cv2.imread(str(tmp_path / "out" / "images" / "train" / "00004.png")), fused)


def test_the_split_depends_on_names_and_seed_alone(m3fd, tmp_path):
    other = tmp_path / "fewer"
    for kind in ("Ir", "Vis", "Annotation"):
        (other / kind).mkdir(parents=True)
        for path in (m3fd / kind).iterdir():
            (other / kind / path.name).write_bytes(path.read_bytes())
    assert export(m3fd, tmp_path / "a", "--val", "0.4") == export(other, tmp_path / "b", "--val", "0.4") == 0
    assert export(m3fd, tmp_path / "c", "--val", "0.4", "--seed", "1") == 0
    a, b, c = (stems(tmp_path / name / "images" / "val") for name in "abc")
    assert a == b and len(a) == len(c) == 4 and a != c


def test_a_split_from_a_file(m3fd, tmp_path):
    (tmp_path / "val.txt").write_text("00002\nsome/folder/00005.png\n\n")
    assert export(m3fd, tmp_path / "out", "--val", tmp_path / "val.txt") == 0
    assert stems(tmp_path / "out" / "images" / "val") == {"00002", "00005"}
    assert len(stems(tmp_path / "out" / "images" / "train")) == 7


def test_names_come_from_the_labels_where_they_are_not_given(m3fd, tmp_path):
    yaml = pytest.importorskip("yaml")
    assert export(m3fd, tmp_path / "a") == 0
    assert yaml.safe_load((tmp_path / "a" / "data.yaml").read_text())["names"] == {0: "Car", 1: "People"}
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "classes.txt").write_text("yes\nnull: 'x'\n")
    (labels / "00001.txt").write_text("1 0.5 0.5 0.2 0.2\n")
    assert export(m3fd, tmp_path / "b", "--labels", labels) == 0
    assert yaml.safe_load((tmp_path / "b" / "data.yaml").read_text())["names"] == {0: "yes", 1: "null: 'x'"}
    (written,) = (tmp_path / "b").glob("labels/*/*.txt")
    assert written.read_text() == "1 0.500000 0.500000 0.200000 0.200000\n"


def test_without_labels_there_are_pictures_alone(m3fd, tmp_path):
    argv = ["export", "--method", m3fd / "Ir", "--data", m3fd, "--out", tmp_path / "out"]
    assert main([str(item) for item in argv]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["images"]
    assert sum(len(stems(tmp_path / "out" / "images" / part)) for part in ("train", "val")) == 10


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("0 0.5 0.5 0.2\n", "line 1: '0 0.5 0.5 0.2'; expected a class number and four shares"),
        ("\n7 0.5 0.5 0.2 0.2\n", "line 2: class 7; expected 0 to 5"),
        ("0 40 30 20 20\n", "expected shares of the picture"),
        ("0 nan 0.5 0.2 0.2\n", "four shares"),
        ("Car 0.5 0.5 0.2 0.2\n", "expected a class number"),
        (voc(("car", 1, 1, 9, 9)), "class 'car' is not among the names; did you mean 'Car'?"),
        (voc(("Car", 9, 1, 1, 9)), "no four numbers xmin <= xmax"),
        (voc(("Car", "x", 1, 1, 9)), "no four numbers xmin <= xmax"),
        (voc(("", 1, 1, 9, 9)), "an object without name"),
        (voc(("Car", 1, 1, 9, 9), size=(1024, 768)), "a picture of 1024x768 and the fused one is 80x64"),
        (voc(("Car", 1, 1, 9, 9)).replace("<width>80", "<width>wide"), "its size is no two numbers"),
        ("<annotation><object>", "is not an XML file"),
        ("<html></html>", "begins with <html>"),
    ],
)
def test_labels_that_do_not_fit_are_named(tmp_path, label, message):
    path = tmp_path / ("a.xml" if label.startswith("<") else "a.txt")
    path.write_text(label)
    with pytest.raises(InputError) as error:
        read_boxes(path, NAMES, SIZE)
    assert message in str(error.value) and str(path) in str(error.value)


def test_boxes_are_clipped_and_difficult_ones_left_out(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(voc(("Bus", -8, 32, 8, 80), ("Car", 90, 5, 95, 9)))
    assert read_boxes(path, NAMES, SIZE) == "2 0.050000 0.750000 0.100000 0.500000\n"
    path.write_text(voc(("Bus", 1, 1, 9, 9), difficult=1))
    assert read_boxes(path, NAMES, SIZE) == "" and voc_names([path]) == ["Bus"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--val", "2"], "expected a share such as 0.2"),
        (["--val", "often"], "expected a share such as 0.2"),
        (["--names", "Car,Car"], "expected names that differ"),
        (["--names", "Car,Bus"], "class 'People' is not among the names"),
        (["--labels", "nowhere"], "nowhere is no folder"),
        (["--method", "nowhere"], "nowhere is no folder"),
    ],
)
def test_wrong_use_ends_with_a_message_and_leaves_nothing(m3fd, tmp_path, capsys, more, message):
    assert export(m3fd, tmp_path / "out", *more) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_folder_in_use_is_left_alone(m3fd, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    assert export(m3fd, tmp_path / "out") == 2
    assert "is in use" in capsys.readouterr().err
    (tmp_path / "labels").mkdir()
    assert export(m3fd, tmp_path / "new", "--labels", tmp_path / "labels", "--names", "Car") == 2
    assert "labels of none of the 10 pairs" in capsys.readouterr().err


def test_rows_of_a_manifest_that_are_left_out_are_told(m3fd, tmp_path, capsys):
    rows = [f"{m3fd}/Ir/0000{k}.png,{m3fd}/Vis/0000{k}.png" for k in range(3)]
    (tmp_path / "pairs.csv").write_text("\n".join(["ir,vis", *rows, "gone.png,gone.png"]))
    assert export(m3fd, tmp_path / "out", "--data", tmp_path / "pairs.csv", "--names", ",".join(NAMES)) == 0
    assert "pairs/line 5 is left out:" in capsys.readouterr().err


def test_the_command_line_is_read_as_those_of_the_other_commands(capsys):
    def says(*argv: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(argv)
        told = capsys.readouterr()
        assert ended.value.code == (0 if "--help" in argv else 2)
        return told.out + told.err

    text = says("--help")
    assert "python -m trainer.detection export --weights W --data M3FD" in text
    for option in ("--weights FILE", "--method DIR", "--labels DIR", "--val SHARE|FILE", "--seed N"):
        assert option in text
    assert "'--lables' is not an option; did you mean '--labels'?" in says(
        "export", "--method", "a", "--data", "b", "--out", "c", "--lables", "d"
    )
    assert "invalid choice: 'import'" in says("import", "--method", "a", "--data", "b", "--out", "c")
    assert "one of the arguments --weights --method is required" in says("export", "--data", "b", "--out", "c")
    assert "not allowed with" in says("export", "--method", "a", "--weights", "w", "--data", "b", "--out", "c")
