"""calibration.json: what it says, distances, sizes, and files that are none."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from pyldfusion import CalibrationError, InputError
from pyldfusion.calibration import Calibration, Lens, Plane, load_calibration, save_calibration
from pyldfusion.calibration.geometry import grid_error, largest_rectangle, resizing
from pyldfusion.calibration.matrix import load_homography

IR, VIS = (160, 128), (320, 240)
K_IR = np.array([[150.0, 0, 79.5], [0, 150, 63.5], [0, 0, 1]])
K_VIS = np.array([[290.0, 0, 159.5], [0, 290, 119.5], [0, 0, 1]])


def plane_at(distance: float) -> Plane:
    """Two parallel cameras 6 cm apart that look at a wall straight on (Hartley & Zisserman, 13.2)."""
    moved = np.eye(3)
    moved[:, 2] += np.array([0.06, 0.01, 0.0]) / distance
    homography = K_VIS @ moved @ np.linalg.inv(K_IR)
    return Plane(homography / homography[2, 2], distance, 0.2, 5)


def test_a_file_says_all_that_the_calibration_says(tmp_path):
    lens = Lens(K_IR, np.array([-0.3, 0.1, 0.001, 0, 0]))
    made = Calibration(IR, VIS, (plane_at(2), plane_at(8)), "circles 7x5", ir_lens=lens)
    save_calibration(made, tmp_path / "new" / "calibration.json")
    read = load_calibration(tmp_path / "new" / "calibration.json")
    assert (read.ir_size, read.vis_size, read.method, read.date) == (IR, VIS, "circles 7x5", made.date)
    assert [plane.distance for plane in read.planes] == [2, 8] and read.planes[0].rmse == 0.2
    assert np.array_equal(read.planes[1].homography, plane_at(8).homography)
    assert np.array_equal(read.ir_lens.matrix, K_IR) and read.vis_lens is None


@pytest.mark.parametrize("distance", [2.0, 3.0, 5.0, 8.0, 50.0, 1.1])
def test_distances_between_the_calibrated_ones_follow_the_geometry(distance):
    calibration = Calibration(IR, VIS, (plane_at(8), plane_at(2)))
    assert grid_error(calibration.homography(distance), plane_at(distance).homography, IR) < 1e-9


def test_distances_that_the_calibration_does_not_know():
    both, one = Calibration(IR, VIS, (plane_at(2), plane_at(8))), Calibration(IR, VIS, (plane_at(2),))
    assert both.homography() is both.planes[1].homography  # the farther one
    assert one.homography() is one.homography(2.0)
    for calibration, distance, words in (
        (both, 0.9, "nearer"), (both, 0.0, "above 0"), (both, np.nan, "above 0"), (one, 3.0, "of 2 m alone"),
        (Calibration(IR, VIS, (Plane(np.eye(3)),)), 3.0, "without a distance"),
    ):  # fmt: skip
        with pytest.raises(CalibrationError, match=words):
            calibration.homography(distance)
    assert len(both.with_plane(plane_at(8)).planes) == 2 and len(both.with_plane(plane_at(4)).planes) == 3
    for planes in ((), (plane_at(2), plane_at(2)), (plane_at(2), Plane(np.eye(3)))):
        with pytest.raises(CalibrationError, match="a distance of its own"):
            Calibration(IR, VIS, planes)


def test_other_sizes_of_the_same_aspect_are_scaled():
    calibration = Calibration(IR, VIS, (plane_at(4),))
    matrix = calibration.for_sizes((320, 256), (640, 480))[0]
    points = np.array([[[20.0, 30.0]], [[150.0, 100.0]]])
    here = cv2.perspectiveTransform(points, plane_at(4).homography)
    larger = cv2.perspectiveTransform(2 * points + 0.5, matrix)  # pixel centres of twice the size
    assert np.allclose(larger, 2 * here + 0.5)
    assert np.allclose(cv2.perspectiveTransform(points, resizing(IR, (80, 64))), points / 2 - 0.25)
    for ir, vis, word in (((160, 120), VIS, "infrared"), (IR, (320, 256), "visible")):
        with pytest.raises(CalibrationError, match=rf"{word}.*another aspect"):
            calibration.for_sizes(ir, vis)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"format": "else"}, "--homography"),
        ({"version": 2}, "version"),
        ({"ir": None}, "ir is None"),
        ({"vis": {"width": 320}}, r"vis\.height"),
        ({"vis": {"width": 320, "height": -1}}, r"vis\.height"),
        ({"vis": {"width": 320, "height": 1.5}}, "whole pixels"),
        ({"vis": {"width": 320, "height": True}}, r"vis\.height"),
        ({"ir": {"width": 9, "height": 9, "camera_matrix": [[1]]}}, "camera_matrix"),
        ({"ir": {"width": 9, "height": 9, "camera_matrix": np.eye(3).tolist(), "distortion": [1]}}, "distortion"),
        ({"homographies": []}, "no"),
        ({"homographies": 3}, "list"),
        ({"homographies": [3]}, r"homographies\[0\]"),
        ({"homographies": [{"matrix": [[1, 0, 0]] * 3}]}, "last entry"),
        ({"homographies": [{"matrix": "x"}]}, "finite"),
        ({"homographies": [{"matrix": [[10**400, 0, 0], [0, 1, 0], [0, 0, 1]]}]}, "finite"),
        ({"homographies": [{"matrix": np.eye(3).tolist(), "distance": 10**400}]}, "distance"),
        ({"homographies": [{"matrix": np.eye(3).tolist(), "distance": 0}]}, "distance"),
        ({"homographies": [{"matrix": np.eye(3).tolist(), "rmse": "good"}]}, "rmse"),
        ({"method": 3}, "text"),
    ],
)
def test_files_that_hold_no_calibration_say_what_is_wrong(tmp_path, change, words):
    path = tmp_path / "c.json"
    save_calibration(Calibration(IR, VIS, (plane_at(2),)), path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CalibrationError, match=f"c.json.*{words}"):
        load_calibration(path)


def test_a_calibration_is_no_bare_matrix(tmp_path):
    save_calibration(Calibration(IR, VIS, (plane_at(2),)), tmp_path / "c.json")
    with pytest.raises(InputError, match="--calibration"):
        load_homography(tmp_path / "c.json")


def test_files_that_are_no_json(tmp_path):
    (tmp_path / "c.json").write_bytes(b"\xff{")
    (tmp_path / "deep.json").write_bytes(b"[" * 100_000)
    for name, words in (("c.json", "--homography"), ("deep.json", "--homography"), ("none.json", "cannot be read")):
        with pytest.raises(CalibrationError, match=words):
            load_calibration(tmp_path / name)
    with pytest.raises(InputError, match="not a homography file"):
        load_homography(tmp_path / "deep.json")
    with pytest.raises(InputError, match="cannot write"):
        save_calibration(Calibration(IR, VIS, (plane_at(2),)), tmp_path)


def test_the_largest_rectangle_is_the_one_that_trying_all_finds():
    rng = np.random.default_rng(2)
    for _ in range(12):
        quad = np.array([[3, 3], [25, 3], [25, 19], [3, 19]]) + rng.integers(-6, 7, (4, 2))
        inside = cv2.fillConvexPoly(np.zeros((23, 29), np.uint8), quad.astype(np.int32), 1) > 0
        total = np.pad(inside.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        best = max(
            (h * w)
            for y in range(0, 22, 2) for x in range(0, 28, 2)
            for h in range(0, 23 - y, 2) for w in range(0, 29 - x, 2)
            if total[y + h, x + w] - total[y, x + w] - total[y + h, x] + total[y, x] == h * w
        )  # fmt: skip
        x, y, width, height = largest_rectangle(inside)
        assert width * height == best and not (x | y | width | height) % 2
        assert inside[y : y + height, x : x + width].all()
    assert largest_rectangle(np.zeros((9, 9), bool))[2] == 0
