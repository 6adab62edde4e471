"""Tables of methods on sets of pairs."""

from __future__ import annotations

import csv
import importlib
import json
import math
import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")

from pyldfusion import Fuser, metrics  # noqa: E402
from pyldfusion.artefact import open_artefact, save_weights  # noqa: E402
from pyldfusion.media.roots import find_roots  # noqa: E402
from pyldfusion.scene import Scene  # noqa: E402
from trainer.evaluate import main  # noqa: E402
from trainer.evaluation.scoring import Pictures, read_sample, score, short_side_size  # noqa: E402
from trainer.evaluation.tables import FORMATS, Row, markdown, summarise  # noqa: E402

from .conftest import ROOT  # noqa: E402

COLUMNS = ("EN", "CC", "CC_uint8", "SD", "EI", "VIFF")
SIZES = {"town": [(75, 64), (64, 81)], "field": [(66, 66)]}


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> Path:
    """Two sets of pairs of several odd sizes, and the folders of three methods beside them."""
    folder = tmp_path_factory.mktemp("sets")
    number = 0
    for label, sizes in SIZES.items():
        for k, size in enumerate(sizes):
            number += 1
            frame = Scene(seed=number, size=size, kind="dusk").render(0)
            assert frame.vis.ndim == 3
            mean = np.rint(frame.vis / 2.0 + frame.ir.reshape(*frame.ir.shape[:2], 1) / 2.0).astype(np.uint8)
            for kind, picture in (
                (f"{label}/ir", frame.ir),
                (f"{label}/vi", frame.vis),
                (f"warm/{label}", frame.ir),  # the infrared itself, in a folder for each set
                (f"mean-{label}", mean),  # one folder for each set
            ):
                (folder / kind).mkdir(parents=True, exist_ok=True)
                assert cv2.imwrite(str(folder / kind / f"{label}{k}.png"), picture)
    return folder


def run(capsys, *argv: object) -> tuple[int, str, str]:
    code = main([str(item) for item in argv])
    out, err = capsys.readouterr()
    return code, out, err


def data(sets: Path, *labels: str) -> list[str]:
    return [part for label in labels for part in ("--data", str(sets / label))]


def expected(sets: Path, label: str, fuse) -> dict[str, float]:
    """Straight from files to means, without the module under test."""
    rows = []
    for path in sorted((sets / label / "vi").iterdir()):
        ir, vis = cv2.imread(str(sets / label / "ir" / path.name), 0), cv2.imread(str(path))
        rows.append(metrics.evaluate(fuse(ir, vis), ir, vis))
    return {name: float(np.mean([row[name] for row in rows])) for name in COLUMNS}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """The bundled lite weights as a run leaves them."""
    path = tmp_path_factory.mktemp("runs") / "mine" / "weights.safetensors"
    path.parent.mkdir()
    save_weights(open_artefact("lite").state_dict(), path, {"variant": "lite"})
    return path


def test_the_table_holds_the_means_of_the_metrics(sets, capsys, weights):
    """Of a network and of a folder, for each set and over all pairs."""
    methods = ["--weights", weights, "--method", f"warm={sets / 'warm'}"]
    code, out, _ = run(capsys, *methods, *data(sets, "town", "field"), "--format", "json", "--device", "cpu")
    assert code == 0
    table = json.loads(out)
    assert list(table) == ["town", "field", "all sets"]
    with Fuser(weights, "cpu", precision="fp32") as fuser:
        for label in ("town", "field"):
            assert list(table[label]) == ["mine", "warm"]  # weights.safetensors is called as its run is
            for name, fuse in (("mine", fuser.fuse), ("warm", lambda ir, vis: ir)):
                row = table[label][name]
                assert row["measured"] == row["pairs"] == len(SIZES[label])
                assert row["metrics"] == pytest.approx(expected(sets, label, fuse), rel=1e-12)
    every, parts = table["all sets"]["warm"], [table[label]["warm"] for label in SIZES]
    assert every["pairs"] == 3
    for key in COLUMNS:  # the mean over pairs, not over sets
        mean = sum(part["metrics"][key] * part["pairs"] for part in parts) / 3
        assert every["metrics"][key] == pytest.approx(mean, rel=1e-12)


def test_an_exported_file_and_a_bundled_name_do_too(sets, capsys, weights):
    argv = ["--weights", "lite", "--weights", f"mine={weights}", *data(sets, "field"), "--format", "json"]
    code, out, _ = run(capsys, *argv, "--device", "cpu")
    rows = json.loads(out)["field"]
    assert code == 0 and rows["lite"]["metrics"] == pytest.approx(rows["mine"]["metrics"], rel=0.01)


def test_csv_and_the_suffix_of_the_file(sets, capsys, tmp_path):
    out = tmp_path / "new" / "table.csv"
    code, printed, _ = run(capsys, "--method", f"warm={sets / 'warm'}", *data(sets, "town"), "--out", out)
    assert code == 0 and printed == ""
    (row,) = csv.DictReader(out.open(newline=""))
    assert (row["set"], row["method"], row["measured"], row["pairs"]) == ("town", "warm", "2", "2")
    wanted = expected(sets, "town", lambda ir, vis: ir)
    assert {key: float(row[key]) for key in COLUMNS} == pytest.approx(wanted, rel=1e-12)


def test_what_a_method_lacks_is_named_and_it_is_never_the_best(sets, capsys, tmp_path):
    (tmp_path / "town0.png").write_bytes((sets / "mean-town" / "town0.png").read_bytes())
    methods = ["--method", f"warm={sets / 'warm'}", "--method", f"few={tmp_path}"]
    methods += ["--method", f"mean={sets / 'mean-town'}"]
    code, out, err = run(capsys, *methods, *data(sets, "town"))
    assert code == 0 and "few has no picture of town/town1" in err and "warm has" not in err
    assert "| few (1 of 2) |" in out and "### town (2 pairs)" in out
    assert "**" not in next(line for line in out.splitlines() if line.startswith("| few"))
    assert "CC_uint8 is what the LDFusion paper's tables hold under CC" in out

    code, out, err = run(capsys, *methods, *data(sets, "town"), "--common", "--format", "json")
    rows = json.loads(out)["town"]
    assert code == 0 and all(row["measured"] == row["pairs"] == 1 for row in rows.values())
    assert rows["few"]["metrics"] == rows["mean"]["metrics"]


def test_limit_takes_the_first_pairs(sets, capsys):
    code, out, _ = run(
        capsys, "--method", f"warm={sets / 'warm'}", *data(sets, "town"), "--limit", 1, "--format", "json"
    )
    assert code == 0 and json.loads(out)["town"]["warm"]["pairs"] == 1


@pytest.mark.parametrize("side", [48, 100])
def test_short_side_resizes_sources_and_pictures_alike(sets, capsys, side):
    argv = ["--method", f"warm={sets / 'warm'}", *data(sets, "town"), "--short-side", side, "--format", "json"]
    code, out, _ = run(capsys, *argv)
    assert code == 0
    rows = []
    for path in sorted((sets / "town" / "vi").iterdir()):
        ir, vis = cv2.imread(str(sets / "town" / "ir" / path.name), 0), cv2.imread(str(path))
        scale = side / min(ir.shape)
        size = round(ir.shape[1] * scale), round(ir.shape[0] * scale)
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        ir, vis = (cv2.resize(x, size, interpolation=how) for x in (ir, vis))
        assert min(ir.shape) == side
        rows.append(metrics.evaluate(ir, ir, vis))
    wanted = {key: float(np.mean([row[key] for row in rows])) for key in COLUMNS}
    assert json.loads(out)["town"]["warm"]["metrics"] == pytest.approx(wanted, rel=1e-12)


def test_the_short_side_is_the_short_side():
    assert short_side_size((640, 480), 0) == (640, 480)
    assert short_side_size((640, 480), 240) == (320, 240)
    assert short_side_size((333, 501), 768) == (768, 1155)


def test_pictures_already_resized_are_taken_as_they_are(sets, capsys, tmp_path):
    for path in (sets / "town" / "ir").iterdir():
        picture = cv2.imread(str(path), 0)
        size = short_side_size((picture.shape[1], picture.shape[0]), 48)
        cv2.imwrite(str(tmp_path / path.name), cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
    methods = ["--method", f"warm={sets / 'warm'}", "--method", f"small={tmp_path}"]
    _, out, _ = run(capsys, *methods, *data(sets, "town"), "--short-side", 48, "--format", "json")
    rows = json.loads(out)["town"]
    assert rows["small"] == rows["warm"]


def wrong_size(tmp_path: Path) -> Path:
    (tmp_path / "wrong").mkdir()
    cv2.imwrite(str(tmp_path / "wrong" / "field0.png"), np.zeros((50, 60), np.uint8))
    return tmp_path / "wrong"


def twins(tmp_path: Path) -> Path:
    for suffix in ("png", "bmp"):
        cv2.imwrite(str(tmp_path / f"field0.{suffix}"), np.zeros((66, 66), np.uint8))
    return tmp_path


def rubbish(tmp_path: Path) -> Path:
    (tmp_path / "field0.png").write_bytes(b"no picture")
    return tmp_path


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (lambda sets, tmp: [], "nothing to evaluate"),
        (lambda sets, tmp: ["--weights", tmp / "no.onnx"], "does not exist"),
        (lambda sets, tmp: ["--method", f"x={tmp / 'none'}"], "is no folder"),
        (lambda sets, tmp: ["--method", sets / "warm"], "expected NAME=DIR"),
        (lambda sets, tmp: ["--method", f"x={tmp}"], "a picture of none of the 1 pairs"),
        (lambda sets, tmp: ["--method", f"x={wrong_size(tmp)}"], "field0.png is 60x50 and its pair is 66x66"),
        (lambda sets, tmp: ["--method", f"x={twins(tmp)}"], "have the same name 'field0'"),
        (lambda sets, tmp: ["--method", f"x={rubbish(tmp)}"], "not a whole picture"),
        (lambda sets, tmp: ["--weights", "lite", "--weights", "lite"], "two methods are called 'lite'"),
        (lambda sets, tmp: ["--method", f"x={sets / 'warm'}", "--short-side", -1], "--short-side is -1"),
        (lambda sets, tmp: ["--method", f"x={sets / 'warm'}", "--data", tmp], "no folders of infrared and visible"),
    ],
)
def test_wrong_use_ends_with_a_message(sets, capsys, tmp_path, methods, message):
    code, out, err = run(capsys, *methods(sets, tmp_path), *data(sets, "field"))
    assert code == 2 and out == "" and message in " ".join(err.split()) and "Traceback" not in err


def test_sources_of_two_sizes_are_refused_by_name(tmp_path, capsys, sets):
    for kind, shape in (("ir", (50, 60)), ("vi", (60, 50))):
        (tmp_path / "field" / kind).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "field" / kind / "field0.png"), np.zeros(shape, np.uint8))
    code, _, err = run(capsys, "--method", f"x={sets / 'warm'}", "--data", tmp_path / "field")
    assert code == 2 and "60x50" in err and "50x60" in err


def rows(**values: tuple[float, float]) -> dict[str, Row]:
    return {name: Row(4, 4, dict(zip(("EN", "CC"), pair, strict=True))) for name, pair in values.items()}


def test_the_best_of_every_column_is_bold_as_it_is_shown():
    table = {"A_1": rows(a=(7.0004, 0.5), b=(7.0001, math.nan), c=(6.9, 0.7))}
    text = markdown(table, ("EN", "CC"))
    assert (
        "| a | **7.000** | 0.500 |" in text and "| b | **7.000** | -- |" in text and "| c | 6.900 | **0.700** |" in text
    )
    assert "**" not in markdown(table, ("EN", "CC"), bold=False)
    assert "**" not in markdown({"A": rows(a=(1, 2))}, ("EN", "CC"))  # alone, there is no best


def test_latex_is_one_table_with_the_sets_side_by_side():
    table = {"TNO": rows(**{"a_b": (1, 0.5), "c": (2, 0.4)}), "R&S": rows(c=(3, 0.3))}
    text = FORMATS["latex"][1](table, ("EN", "CC"))
    assert r"\multicolumn{2}{c}{TNO} & \multicolumn{2}{c}{R\&S} \\" in text
    assert r"a\_b & 1.000 & \textbf{0.500} & -- & -- \\" in text
    assert r"c & \textbf{2.000} & 0.400 & 3.000 & 0.300 \\" in text
    assert text.count(r"\begin{tabular}{l|cc|cc}") == 1 and text.rstrip().endswith(r"\end{tabular}")
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines[1:]} == {4}  # as many columns in every line


def test_what_has_no_value_is_left_out_of_the_mean_and_empty_in_the_table():
    scores = {"A": {"m": {"A/1": {"EN": 1.0, "CC": math.nan}, "A/2": {"EN": 2.0, "CC": math.nan}}}}
    table = summarise(scores)
    assert "| m | 1.500 | -- |" in markdown(table, ("EN", "CC"))
    assert FORMATS["csv"][1](table, ("EN", "CC")).splitlines()[1] == "A,m,2,2,1.5,"
    assert json.loads(FORMATS["json"][1](table, ("EN", "CC")))["A"]["m"]["metrics"] == {"EN": 1.5, "CC": None}


def test_mean_of_metrics():
    assert metrics.mean([]) == {}
    found = metrics.mean([{"a": 1.0, "b": math.nan}, {"a": 4.0, "b": 2.0}])
    assert found == {"a": 2.5, "b": 2.0}
    assert math.isnan(metrics.mean([{"a": math.nan}])["a"])


def test_the_authors_pictures_have_their_published_programs_numbers(shared, tmp_path):
    """Colour PNGs through the table, against MATLAB's programs on the same triples."""
    for kind, folder in (("ir", "ir"), ("vi", "vi"), ("fused", "fused")):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for path in (shared / "upstream" / "results" / folder).iterdir():
            (tmp_path / "set" / kind / path.name).write_bytes(path.read_bytes())
    with (shared / "metrics" / "metrics.csv").open(newline="") as file:
        table = [row for row in csv.DictReader(file) if "ldfusion" in " ".join(row.values())]
    assert len(table) == 2
    (root,) = find_roots([tmp_path / "set"])
    scores = score(root, {"LDFusion": Pictures(tmp_path / "set" / "fused").method()})
    found = summarise({"M3FD": scores})["M3FD"]["LDFusion"].values
    for key in COLUMNS:
        wanted = np.mean([float(row[key]) for row in table])
        assert found[key] == pytest.approx(wanted, rel=1e-4), key


def test_deep_pictures_are_read_as_the_runtime_reads_them(tmp_path):
    for kind in ("ir", "vi"):
        (tmp_path / kind).mkdir()
    counts = np.linspace(20_000, 30_000, 64 * 48).astype(np.uint16).reshape(48, 64)
    cv2.imwrite(str(tmp_path / "ir" / "a.tiff"), counts)
    cv2.imwrite(str(tmp_path / "vi" / "a.png"), np.full((48, 64, 3), 257 * 100, np.uint16))
    (root,) = find_roots([tmp_path])
    sample = read_sample(root.files[0])
    assert sample.ir.dtype == sample.vis.dtype == np.uint8
    assert int(sample.ir.max()) - int(sample.ir.min()) == 255 and (sample.vis == 100).all()
    assert read_sample(root.files[0], luma=True).vis.shape == (48, 64)


DOCUMENTED = [
    line.split("#")[0]
    for block in re.findall(r"```\n(.*?)```", (ROOT / "docs" / "evaluation.md").read_text(), re.S)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("python -m trainer")
]


@pytest.mark.parametrize("command", DOCUMENTED)
def test_documented_commands_have_these_options(command):
    _, _, module, *argv = shlex.split(command)
    parser = importlib.import_module(module).parser()
    args = parser.parse_args(argv[: argv.index("--")] if "--" in argv else argv)
    for preset in getattr(args, "only", None) or []:
        assert preset in importlib.import_module(module).ABLATIONS
    assert len(DOCUMENTED) >= 7
