"""Targets drawn into both views of a scene: points, one homography of all views, and the command."""

from __future__ import annotations

import json
import re
import shlex

import cv2
import numpy as np
import pytest

from benchmarks.drawn_targets import TRUTH, pair
from pyldfusion import CalibrationError, InputError
from pyldfusion.calibration import Calibration, Lens, Plane, load_calibration
from pyldfusion.calibration.fit import View, fit_views
from pyldfusion.calibration.geometry import grid_error
from pyldfusion.calibration.lens import find_lens, undistorted
from pyldfusion.calibration.targets import find, match, parse_target, read_points
from pyldfusion.calibration.views import take_views
from pyldfusion.camera import parse
from pyldfusion.cli import calibrate, main
from pyldfusion.cli.parser import Parser
from pyldfusion.errors import CameraError
from pyldfusion.registration import Registration
from pyldfusion.scene import Scene

from .conftest import ROOT

SIZE = 640, 480
DOCS = (ROOT / "docs" / "cameras.md").read_text()


@pytest.fixture(scope="module")
def scene():
    return Scene(1, SIZE, "day", people=1, cars=1)


@pytest.fixture(scope="module")
def circles(scene):
    return [pair("circles", (7, 5), seed, scene=scene) for seed in (0, 3)]


@pytest.fixture
def folders(tmp_path, circles):
    for index, frames in enumerate(circles):
        for name, frame in zip(("ir", "vis"), frames, strict=True):
            (tmp_path / name).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / name / f"{index}.png"), frame)
    return tmp_path


def fitted(words, frames):
    target = parse_target(words)
    return fit_views([View(str(k), *match(target, *two)) for k, two in enumerate(frames)], SIZE)


@pytest.mark.parametrize("words, grid", [(["checkerboard", "8x6"], (8, 6)), (["apriltag"], (3, 2))])
@pytest.mark.parametrize("heated", [True, False])
def test_targets_give_the_homography_within_half_a_pixel(scene, words, grid, heated):
    fit = fitted(words, [pair(words[0], grid, 2, scene=scene, heated=heated)])
    assert grid_error(fit.homography, TRUTH, SIZE) < 0.5 and fit.rmse < 0.5


def test_circles_of_two_views_give_it(circles):
    fit = fitted(["circles", "5x7"], circles)  # rows and columns the other way round are found too
    assert grid_error(fit.homography, TRUTH, SIZE) < 0.2 and fit.rmse < 0.2 and fit.warning == ""


def test_small_16_bit_pictures_are_enlarged(circles):
    small = cv2.resize(circles[0][0], (160, 120), interpolation=cv2.INTER_AREA).astype(np.uint16) * 9 + 7000
    points = find(parse_target(["circles", "7x5"]), small)[0]
    large = find(parse_target(["circles", "7x5"]), circles[0][0])[0]
    assert np.abs((points + 0.5) * 4 - 0.5 - large).max() < 0.6


def test_what_is_no_target():
    for words, said in (
        (["circle", "7x5"], "did you mean 'circles'"), (["circles"], "CxR"), (["circles", "7by5"], "columns x rows"),
        (["circles", "2x5"], "at least 3"), (["apriltag", "36h12"], "did you mean '36h1"), (["points"], "FILE"),
        (["circles", "7x5", "ir", "vis"], "IR and VIS before it"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            parse_target(words)
    with pytest.raises(CalibrationError, match="not found in the infrared"):
        match(parse_target(["apriltag"]), np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3), np.uint8))


def grid_view(name, truth=TRUTH, at=(100, 100), step=60.0, off=0.0):
    points = np.stack(np.meshgrid(np.arange(5.0), np.arange(4.0)), -1).reshape(-1, 2) * step + at
    return View(name, points, cv2.perspectiveTransform(points[:, None], truth)[:, 0] + off)


def test_a_view_that_does_not_go_with_the_others_is_named_and_left_out():
    views = [grid_view("a"), grid_view("b", at=(250, 180)), grid_view("moved", at=(60, 200), off=6.0)]
    fit = fit_views(views, SIZE)
    assert [bool(view.trouble) for view in fit.views] == [False, False, True]
    assert grid_error(fit.homography, TRUTH, SIZE) < 1e-3 and fit.rmse < 1e-3


def test_single_wrong_points_of_one_view_do_not_count():
    view = grid_view("picked")
    view.vis[3] += 40
    fit = fit_views([view], SIZE)
    assert grid_error(fit.homography, TRUTH, SIZE) < 1e-3 and "1 point" in fit.warning


def test_views_from_which_no_calibration_can_be_had():
    nothing = np.empty((0, 2))
    line = np.stack([np.arange(8.0) * 50, np.arange(8.0) * 50], 1)
    spread = np.random.default_rng(0).normal(0, 12, (20, 2))
    for views, words in (
        ([], "no view of 0"),
        ([View("a", nothing, nothing, trouble="circles not found in the infrared picture")], "not found in the inf"),
        ([grid_view("small", step=4.0)], "nearer"),
        ([View("line", line, line)], "span"),
        ([View("a", grid_view("").ir, grid_view("").vis + spread), grid_view("b")], "one distance|still"),
    ):
        with pytest.raises(CalibrationError, match=words):
            fit_views(views, SIZE)
    assert "7%" in fit_views([grid_view("a", step=40)], SIZE).warning


def grid_seen(lens, tilt, place):
    """A 7x5 grid as a camera sees it, by OpenCV's projection: a reference that is not the one under test."""
    flat = np.zeros((35, 3))
    flat[:, :2] = np.mgrid[:7, :5].T.reshape(-1, 2) - (3, 2)
    return cv2.projectPoints(flat, np.array(tilt), np.array(place), lens.matrix, lens.distortion)[0][:, 0]


def test_lenses_are_found_from_tilted_views():
    """Two cameras in one place, one turned: then one homography is right for all views."""
    ir = Lens(np.array([[500.0, 0, 319.5], [0, 500, 239.5], [0, 0, 1]]), np.array([-0.25, 0.06, 0, 0, 0]))
    vis = Lens(np.array([[520.0, 0, 330.0], [0, 520, 235], [0, 0, 1]]), np.array([0.05, -0.02, 0, 0, 0]))
    turn = cv2.Rodrigues(np.array([0.01, -0.02, 0.015]))[0]
    truth = vis.matrix @ turn @ np.linalg.inv(ir.matrix)
    rng = np.random.default_rng(0)
    views = []
    for number in range(10):
        tilt, place = rng.uniform(-0.5, 0.5, 3), np.array([*rng.uniform(-2, 2, 2), rng.uniform(9, 12)])
        turned = cv2.Rodrigues(turn @ cv2.Rodrigues(tilt)[0])[0]
        seen = grid_seen(ir, tilt, place), grid_seen(vis, turned, turn @ place)
        views.append(View(str(number), *(points + rng.normal(0, 0.05, points.shape) for points in seen)))
    lenses = [find_lens([getattr(view, side) for view in views], (7, 5), SIZE, side) for side in ("ir", "vis")]
    assert abs(lenses[0].distortion[0] + 0.25) < 0.02 and abs(lenses[0].matrix[0, 0] - 500) < 8
    fit = fit_views([undistorted(view, *lenses) for view in views], SIZE)
    assert fit.rmse < 0.3
    with pytest.raises(CalibrationError, match="disagree"):
        fit_views(views, SIZE)
    calibration = Calibration(SIZE, SIZE, (Plane(fit.homography),), ir_lens=lenses[0], vis_lens=lenses[1])
    columns, rows = Registration(calibration=calibration).field(SIZE, SIZE).maps
    for view in views[:3]:  # where a visible point is, the map leads to the infrared one
        inside = ((view.vis > 0) & (view.vis < np.array(SIZE) - 1)).all(axis=1)
        for (x, y), point in zip(view.vis[inside].astype(np.float32), view.ir[inside], strict=True):
            found = [cv2.remap(m, x[None], y[None], cv2.INTER_LINEAR)[0, 0] for m in (columns, rows)]
            assert np.linalg.norm(found - point) < 1.0
    assert grid_error(fit.homography, truth / truth[2, 2], SIZE) < 6  # the centres are less sure than their relation
    with pytest.raises(CalibrationError, match="6 views"):
        find_lens([views[0].ir] * 5, (7, 5), SIZE, "infrared")
    upright = np.mgrid[:7, :5].T.reshape(-1, 2) * 40.0 + 100
    with pytest.raises(CalibrationError, match="tilt the target differently"):
        find_lens([upright] * 6, (7, 5), SIZE, "infrared")
    for seed in range(4):  # nearly upright: hundreds of focal lengths fit to a tenth of a pixel
        rng = np.random.default_rng(seed)
        places = [np.array([*rng.uniform(-2, 2, 2), rng.uniform(9, 12)]) for _ in range(8)]
        flat = [grid_seen(ir, rng.uniform(-0.02, 0.02, 3), place) for place in places]
        with pytest.raises(CalibrationError, match=r"tilted too little|no lens explains"):
            find_lens([points + rng.normal(0, 0.05, points.shape) for points in flat], (7, 5), SIZE, "infrared")
    with pytest.raises(CalibrationError, match="no lens explains"):
        find_lens([view.ir + rng.normal(0, 5, view.ir.shape) for view in views], (7, 5), SIZE, "infrared")


@pytest.mark.parametrize("tilt", [0, 5, 15, 25])
@pytest.mark.parametrize("bend", [0.0, -0.25])
def test_views_that_share_one_tilt_tell_no_lens(tilt, bend):
    """Shifted and turned in their plane alone: focal lengths of 8000 px at 640 fit as well as the true 500."""
    lens = Lens(np.array([[500.0, 0, 319.5], [0, 500, 239.5], [0, 0, 1]]), np.array([bend, 0, 0, 0, 0]))
    leaning = cv2.Rodrigues(np.array([np.radians(tilt), 0, 0]))[0]
    for seed in range(3):
        rng = np.random.default_rng(seed)
        views = []
        for _ in range(8):
            turned = leaning @ cv2.Rodrigues(np.array([0, 0, rng.uniform(-1, 1)]))[0]
            points = grid_seen(lens, cv2.Rodrigues(turned)[0], [*rng.uniform(-2, 2, 2), rng.uniform(9, 12)])
            views.append(points + rng.normal(0, 0.05, points.shape))
        with pytest.raises(CalibrationError, match=r"tilted too little|no lens explains"):
            find_lens(views, (7, 5), SIZE, "infrared")


def test_a_lens_that_cannot_be_is_refused_and_one_that_can_is_told():
    rng = np.random.default_rng(0)
    for focal, off, said in ((500.0, 600, "centre 9"), (9000.0, 0, "focal length 9"), (500.0, 0, "")):
        lens = Lens(np.array([[focal, 0, 319.5], [0, focal, 239.5], [0, 0, 1]]), np.zeros(5))
        far = focal / 500
        places = [[*rng.uniform(-2, 2, 2), far * rng.uniform(9, 12)] for _ in range(12)]
        views = [grid_seen(lens, rng.uniform(-0.6, 0.6, 3), place) + np.array((off, 0)) for place in places]
        if said:
            with pytest.raises(CalibrationError, match=f"cannot be: .*{said}"):
                find_lens(views, (7, 5), SIZE, "infrared")
        else:
            found = find_lens(views, (7, 5), SIZE, "infrared")
            assert str(found).startswith("focal length 500 px, centre 319, 240, distortion k1 0.000")


def test_picked_points(tmp_path):
    path = tmp_path / "picked.csv"
    path.write_text("# by hand\nVIS_X, vis_y, ir_x, ir_y\n1,2,3,4\n5,6,7,8\n")
    assert [side.tolist() for side in read_points(path)] == [[[3, 4], [7, 8]], [[1, 2], [5, 6]]]
    path.write_text("3,4,1,2\n")
    assert read_points(path)[1].tolist() == [[1, 2]]
    for content in ("", "1,2,3\n", "a,b,c,d\n1,2,3,4\n", "1,2,x,4\n", "1,2,nan,4\n", "ir_x,ir_y,vis_x,vis_y\n1,2\n"):
        path.write_text(content)
        with pytest.raises(CalibrationError, match=r"picked\.csv"):
            read_points(path)


def test_the_command_writes_what_fuse_takes(folders, capsys):
    out, check = folders / "calibration.json", folders / "check.png"
    ir, vis = folders / "ir", folders / "vis"
    words = ["calibrate", str(ir), str(vis), "--target", "circles", "7x5", "-o", str(out), "--distance", "4"]
    assert main([*words, "--check", str(check)]) == 0
    printed = capsys.readouterr().out
    assert "error px" in printed and "of 2 views" in printed and check.is_file()
    calibration = load_calibration(out)
    assert calibration.planes[0].distance == 4 and calibration.method == "circles 7x5"
    assert grid_error(calibration.homography(), TRUTH, SIZE) < 0.2
    words = ["fuse", str(ir / "0.png"), str(vis / "0.png"), str(folders / "fused.png"), "--model", "pyramid", "-q"]
    assert main([*words, "--calibration", str(out), "--outside", "crop"]) == 0
    shape = cv2.imread(str(folders / "fused.png")).shape
    assert shape[0] < 480 and shape[1] <= 640 and shape[0] % 2 == shape[1] % 2 == 0
    assert main([*words, "--calibration", str(out), "--distance", "9"]) == 2


def test_a_second_distance_and_json(folders, capsys):
    (folders / "picked.csv").write_text("10,10,12,10\n600,20,602,20\n590,400,592,400\n20,410,22,410\n300,200,302,200\n")
    out = folders / "c.json"
    words = ["calibrate", str(folders / "ir/0.png"), str(folders / "vis/0.png"), "-o", str(out), "--json", "-q"]
    words += ["--target", "points", str(folders / "picked.csv")]
    assert main([*words, "--distance", "2"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert np.allclose(report["homography"], [[1, 0, 2], [0, 1, 0], [0, 0, 1]], atol=1e-6)
    assert main([*words, "--distance", "9", "--add"]) == 0 and main([*words, "--add"]) == 2
    assert main([*words, "--lens"]) == 2
    assert [plane.distance for plane in load_calibration(out).planes] == [2, 9]
    words.remove("-q")
    capsys.readouterr()
    assert main([*words, "--distance", "9", "--add"]) == 0 and capsys.readouterr().err == ""
    assert main([*words, "--distance", "2"]) == 0
    assert f"{out} has a calibration at 2 m and 9 m, which will be replaced; --add" in capsys.readouterr().err
    assert main([*words, "--distance", "2"]) == 0 and capsys.readouterr().err == ""


def test_the_lenses_are_printed(folders, capsys, monkeypatch):
    lens = Lens(np.array([[500.0, 0, 319.5], [0, 500, 239.6], [0, 0, 1]]), np.array([-0.001, 0, 0, 0, 0]))
    monkeypatch.setattr("pyldfusion.calibration.lens.find_lens", lambda *_: lens)
    words = ["calibrate", str(folders / "ir"), str(folders / "vis"), "-o", str(folders / "c.json"), "--lens"]
    assert main([*words, "--target", "circles", "7x5"]) == 0
    out = capsys.readouterr().out
    assert f"infrared lens: {lens}\nvisible lens: {lens}\n" in out and "focal length 500 px" in out


def test_no_file_that_is_read_is_replaced(folders, capsys):
    picked = folders / "picked.csv"
    picked.write_text("10,10,12,10\n600,20,602,20\n590,400,592,400\n20,410,22,410\n300,200,302,200\n")
    ir, vis, out = (folders / name for name in ("ir/0.png", "vis/0.png", "c.json"))
    before = {path: path.read_bytes() for path in folders.rglob("*") if path.is_file()}
    for irs, viss, options, said in (
        (ir, vis, ["-o", out, "--check", vis], f"--check {vis} would replace an input"),
        (folders / "ir", folders / "vis", ["-o", out, "--check", folders / "vis/1.png"], "would replace an input"),
        (folders / "ir/*.png", folders / "vis/*.png", ["-o", out, "--check", ir], "would replace an input"),
        (ir, vis, ["-o", ir], f"-o {ir} would replace an input"),
        (ir, vis, ["-o", picked], f"-o {picked} would replace an input"),
        (ir, vis, ["-o", folders / "a.png", "--check", folders / "a.png"], "give two names"),
    ):
        assert main(["calibrate", *map(str, [irs, viss, *options]), "--target", "points", str(picked)]) == 2
        assert said in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folders.rglob("*") if path.is_file()} == before


def test_no_target_is_refused_with_advice_and_nothing_is_written(folders, capsys):
    out = folders / "c.json"
    words = ["calibrate", str(folders / "ir"), str(folders / "vis"), "-o", str(out), "--target", "apriltag"]
    assert main(words) == 1 and not out.exists()
    said = capsys.readouterr().err
    assert "not found in the infrared picture" in said and "nothing is written" in said
    assert main(["calibrate", "none", str(folders / "vis"), "-o", str(out), "--target", "apriltag"]) == 2
    (folders / "file").write_text("x")
    words = [*words[:5], "--target", "circles", "7x5", "--check"]
    for check in ("check.xyz", "file/check.png"):
        assert main([*words, str(folders / check)]) == 2 and not out.exists()


def test_counts_in_a_layout(tmp_path, circles):
    ir, vis = circles[0]
    counts = np.vstack([np.zeros_like(ir), ir]).astype("<u2") * 20 + 5000  # a double frame
    cv2.imwrite(str(tmp_path / "ir.png"), counts)
    cv2.imwrite(str(tmp_path / "vis.png"), vis)
    words = ["calibrate", str(tmp_path / "ir.png"), str(tmp_path / "vis.png"), "-o", str(tmp_path / "c.json"), "-q"]
    words += ["--target", "circles", "7x5", "--ir-layout"]
    assert main([*words, "lower-half"]) == 0 and load_calibration(tmp_path / "c.json").ir_size == SIZE
    assert main([*words, "packed-14"]) == 2 and main([*words, "lower-hal"]) == 2


@pytest.mark.parametrize("command", re.findall(r"^pyldfusion calibrate ([^#\n]+)", DOCS, re.M))
def test_the_docs_commands_can_be_read(command):
    parser = Parser("pyldfusion calibrate", None)
    calibrate.add_arguments(parser)
    args = parser.parse(shlex.split(command))
    assert args.output == "calibration.json" and (args.auto or parse_target(args.target))
    assert all(parse(uri, "source") for uri in (args.ir, args.vis))


def test_live_cameras_are_looked_at(tmp_path, capsys):
    scene = "rate=30&seed=1&size=64x64&repeat=4"
    words = ["calibrate", f"scene://ir?{scene}", f"scene://vis?{scene}", "-o", str(tmp_path / "c.json"), "--target"]
    assert main([*words, "apriltag", "--interval", "0.05", "--timeout", "0.5"]) == 1
    assert "apriltag not found" in capsys.readouterr().err


def test_cameras_that_give_nothing_are_left_in_time():
    silent = "size=32x32&repeat=1&lag=10000"  # a frame would come after 10 s
    with pytest.raises(CameraError, match="gave no pair of frames"):
        list(take_views(f"scene://ir?{silent}", f"scene://vis?{silent}", 20, timeout=0.1))


@pytest.mark.parametrize("words", [["--views", "0"], ["--views", "1.5"], ["--distance", "inf"], ["--timeout", "nan"]])
def test_numbers_that_cannot_be(words, capsys):
    assert main(["calibrate", "a", "b", "--auto", "-o", "c.json", *words]) == 2
    assert f"argument {words[0]}: '{words[1]}' is not a" in capsys.readouterr().err
