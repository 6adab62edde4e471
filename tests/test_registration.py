"""Infrared onto visible: sizes, homographies, what is outside, and whether a pair fits."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from pyldfusion import Fuser, kernels
from pyldfusion.calibration import Calibration, Lens, Plane, load_calibration, save_calibration
from pyldfusion.camera import CameraPair, Frame, FramePair, Preparer
from pyldfusion.cli import main
from pyldfusion.errors import InputError
from pyldfusion.media import read_image
from pyldfusion.registration import (
    UNREGISTERED_BELOW,
    Registration,
    as_registration,
    edge_correlation,
    load_homography,
    visible_outside,
)
from pyldfusion.scene import Scene

H = np.array([[1.1, 0.02, 12.0], [-0.01, 0.95, -4.0], [1e-5, -2e-5, 1.0]])


def ramp(height, width, dtype=np.uint8):
    y, x = np.mgrid[:height, :width]
    return (2 * x + 3 * y).astype(dtype)


def bilinear(frame, x, y):
    """Plain bilinear interpolation at real coordinates inside the frame."""
    x0, y0 = int(np.floor(x)), int(np.floor(y))
    a, b = x - x0, y - y0
    rows = [(1 - a) * frame[r, x0] + a * frame[r, x0 + 1] for r in (y0, y0 + 1)]
    return (1 - b) * rows[0] + b * rows[1]


def test_frames_of_one_size_pass_untouched():
    frame = ramp(20, 30)
    placed, cover = Registration().place(frame, (30, 20))
    assert placed is frame and cover is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(60, 40), (15, 10), (31, 21)])
def test_other_sizes_are_resized(dtype, size):
    placed, cover = Registration().place(ramp(20, 30, dtype), size)
    assert placed.shape == size[::-1] and placed.dtype == dtype and cover is None
    # A ramp stays a ramp: compare with the ramp in the new frame's coordinates, away from the border.
    x = (np.arange(size[0]) + 0.5) * 30 / size[0] - 0.5
    y = (np.arange(size[1]) + 0.5) * 20 / size[1] - 0.5
    expected = 2 * x[None] + 3 * y[:, None]
    assert np.abs(placed - expected)[3:-3, 3:-3].max() < 1.5


@pytest.mark.parametrize(
    "shape, fits", [((100, 102), True), ((100, 103), False), ((100, 98), True), ((100, 97), False)]
)
def test_two_percent_of_aspect_are_tolerated(shape, fits):
    frame = ramp(*shape)
    if fits:
        assert Registration().place(frame, (200, 200))[0].shape == (200, 200)
    else:
        with pytest.raises(InputError, match=r"--homography.*--resize"):
            Registration().place(frame, (200, 200))
    assert Registration(resize=True).place(frame, (200, 200))[0].shape == (200, 200)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_homography_maps_infrared_to_visible_pixels(dtype):
    frame = cv2.GaussianBlur(np.random.default_rng(0).random((60, 80)), (0, 0), 3)
    frame = (cv2.normalize(frame, None, 0, 1, cv2.NORM_MINMAX) * np.iinfo(dtype).max).astype(dtype)
    placed, cover = Registration(H).place(frame, (90, 70))
    assert placed.shape == (70, 90) and placed.dtype == dtype
    inverse = np.linalg.inv(H)
    for x, y in [(20, 10), (45, 30), (70, 44)]:
        sx, sy, w = inverse @ (x, y, 1)
        expected = bilinear(frame.astype(float), sx / w, sy / w)
        assert abs(float(placed[y, x]) - expected) < 0.03 * np.iinfo(dtype).max
    assert cover is not None


def test_the_cover_is_one_inside_zero_outside_and_soft_between():
    shift = np.array([[1, 0, 20], [0, 1, 0], [0, 0, 1.0]])
    _, cover = Registration(shift).place(ramp(40, 60), (60, 40))
    assert cover.dtype == np.float32 and cover.shape == (40, 60)
    assert (cover[:, :20] == 0).all() and (cover[:, 30:] == 1).all()
    assert (np.diff(cover[20]) >= 0).all() and 0 < cover[20, 22] < 1
    assert Registration(np.diag([2.0, 2.0, 1.0])).place(ramp(40, 60), (60, 40))[1] is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_outside_is_the_visible_picture(dtype, channels):
    rng = np.random.default_rng(1)
    fused, vis = rng.integers(0, np.iinfo(dtype).max, (2, 8, 10, *channels)).astype(dtype)
    cover = np.zeros((8, 10), np.float32)
    cover[:, 5:], cover[:, 4] = 1, 0.5
    mixed = visible_outside(fused, vis, cover)
    assert mixed.dtype == dtype
    assert np.array_equal(mixed[:, 5:], fused[:, 5:]) and np.array_equal(mixed[:, :4], vis[:, :4])
    assert np.abs(mixed[:, 4] - (fused[:, 4] / 2 + vis[:, 4] / 2)).max() <= 0.5


@pytest.mark.parametrize(
    "matrix, said",
    [
        ([[1, 0, 500], [0, 1, 0], [0, 0, 1]], "puts nothing"),
        ([[1, 0, 0], [0, 1, 0], [-0.05, 0, 1]], "puts nothing"),  # the horizon is in the picture
        ([[1, 0, 0], [2, 0, 0], [0, 0, 1]], "cannot be inverted"),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 0]], "last entry"),
        ([[1, 0, np.nan], [0, 1, 0], [0, 0, 1]], "finite"),
        ([[1, 0], [0, 1]], "3x3"),
    ],
)
def test_homographies_that_cannot_be_are_refused(matrix, said):
    with pytest.raises(InputError, match=said):
        Registration(np.array(matrix, float)).place(ramp(40, 60), (60, 40))


def save(folder, kind):
    """The matrix H, times 2, in one of the forms people have it in."""
    path = folder / f"h.{kind.split('-')[0]}"
    twice = 2 * H
    if kind == "npy":
        np.save(path, twice)
    elif kind == "txt":
        np.savetxt(path, twice, header="infrared to visible")
    elif kind == "csv":
        np.savetxt(path, twice, delimiter=",")
    elif kind == "json":
        path.write_text(json.dumps(twice.tolist()))
    elif kind == "json-flat":
        path.write_text(json.dumps({"rmse": 0.4, "matrix": twice.ravel().tolist()}))
    elif kind == "json-named":
        path.write_text(json.dumps({"camera": np.eye(3).tolist(), "homography": twice.tolist()}))
    else:
        storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
        if kind.endswith("named"):
            storage.write("camera_matrix", np.eye(3))
            storage.write("rmse", 0.4)
        storage.write("H", twice)
        storage.release()
    return path


@pytest.mark.parametrize("kind", ["npy", "txt", "csv", "json", "json-flat", "json-named", "yml", "xml", "yaml-named"])
def test_homography_files(tmp_path, kind):
    assert np.allclose(load_homography(save(tmp_path, kind)), H, rtol=1e-12)


@pytest.mark.parametrize(
    "name, content",
    [
        ("h.txt", b"1 2 3"),
        ("h.txt", b"hello"),
        ("h.txt", b"\xff\xfe\x00"),
        ("h.txt", b"1 0 0 0 1 0 0 0 nan"),
        ("h.json", b"{"),
        ("h.json", b'{"a": [[1,0,0],[0,1,0],[0,0,1]], "b": [[1,0,0],[0,1,0],[0,0,1]]}'),
        ("h.json", b'{"homography": "none"}'),
        ("h.npy", b"\x93NUMPY"),
        ("h.yml", b"%YAML:1.0\n---\nH: 3\n"),
        ("h.yml", b"hello"),
        ("h.xml", b""),
    ],
)
def test_files_that_hold_no_homography_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        load_homography(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        load_homography(tmp_path / f"no-{name}")


@pytest.mark.parametrize("bits", [8, 16])
def test_scenes_correlate_until_they_are_moved(bits):
    first, second = (Scene(seed=seed, size=(320, 240), bits=bits).render(t=0.0) for seed in (3, 4))
    assert edge_correlation(first.ir, first.vis) > UNREGISTERED_BELOW
    assert edge_correlation(first.ir, second.vis) < UNREGISTERED_BELOW
    assert edge_correlation(first.ir[:, ::-1], first.vis) < UNREGISTERED_BELOW


def test_correlation_of_special_frames():
    frame = Scene(seed=3, size=(64, 48)).render(t=0.0).vis
    assert edge_correlation(frame, frame) == pytest.approx(1)
    assert edge_correlation(255 - frame, frame) == pytest.approx(1, abs=0.02)
    assert edge_correlation(np.zeros((48, 64), np.uint8), frame) == 0
    assert -1 <= edge_correlation(frame[:16, :16], frame[:16, 16:32]) <= 1


def test_real_pairs_are_told_from_strangers(shared):
    """The rates of the docstring, on the test pairs alone."""
    files = sorted((shared / "data" / "test").glob("*/ir/*"))
    pairs = [(read_image(ir), read_image(ir.parents[1] / "vi" / ir.name)) for ir in files]
    own = [edge_correlation(ir, vis) for ir, vis in pairs]
    other = []
    for (ir, _), (_, vis) in zip(pairs, pairs[7:] + pairs[:7], strict=True):
        other.append(edge_correlation(cv2.resize(ir, vis.shape[1::-1]), vis))
    assert np.mean(np.less(own, UNREGISTERED_BELOW)) <= 0.07
    assert np.mean(np.less(other, UNREGISTERED_BELOW)) >= 0.95


def test_cropping_to_the_common_view_moves_nothing():
    ir, vis = Scene(seed=3, size=(160, 120)).render(t=0.0)
    shift = np.array([[1, 0, 20.0], [0, 1, -7], [0, 0, 1]])
    whole, _, cover = Registration(shift).join(ir, vis)
    placed, cropped, none = Registration(shift, outside="crop").join(ir, vis)
    assert none is None and cover is not None
    assert cropped.shape[:2] == placed.shape == (112, 140)  # of 113: even numbers alone
    assert np.array_equal(placed, whole[:112, 20:]) and np.array_equal(cropped, vis[:112, 20:])
    assert cover[:112, 28:].min() > 0
    repeated, same, none = Registration(shift, outside="repeat").join(ir, vis)
    assert none is None and same.shape == vis.shape and np.array_equal(repeated, whole)


def test_the_native_kernel_does_what_a_field_says():
    ir, vis = Scene(seed=3, size=(160, 120)).render(t=0.0)
    turn = np.array([[0.97, 0.05, 6.0], [-0.04, 0.98, 5], [1e-4, 0, 1]])
    registration = Registration(turn, outside="crop")
    field = registration.field((160, 120), (160, 120))
    plane = kernels.frame_to_plane(
        ir, "grey", size=field.box[2:], matrix=np.linalg.inv(field.homography), dtype=np.uint8
    )
    assert np.abs(plane.astype(int) - registration.join(ir, vis)[0]).max() <= 4  # OpenCV's weights have 5 bits
    assert np.abs(plane.astype(int) - registration.join(ir, vis)[0]).mean() < 0.5


def test_a_common_view_that_is_none():
    for x, words in ((200.0, "nothing"), (150.0, "common view")):
        with pytest.raises(InputError, match=words):
            Registration(np.array([[1, 0, x], [0, 1, 0], [0, 0, 1.0]]), outside="crop").field((160, 120), (160, 120))


def test_lenses_bend_as_opencv_says():
    """Against undistorting the infrared picture first, which is what people do by hand."""
    matrix = np.array([[150.0, 0, 79.5], [0, 150, 59.5], [0, 0, 1]])
    lens = Lens(matrix, np.array([-0.3, 0.1, 0.002, -0.001, 0]))
    shift = np.array([[1, 0, 5.0], [0, 1, 3], [0, 0, 1]])
    ir = cv2.GaussianBlur(Scene(seed=3, size=(160, 120)).render(t=0.0).ir, (0, 0), 2)
    calibration = Calibration((160, 120), (160, 120), (Plane(shift),), ir_lens=lens)
    placed, cover = Registration(calibration=calibration).place(ir, (160, 120))
    straight = cv2.warpPerspective(cv2.undistort(ir, matrix, lens.distortion), shift, (160, 120))
    assert cover is None  # what such a lens sees is wider than its undistorted picture
    assert np.abs(placed.astype(int) - straight)[8:, 8:].max() <= 3
    bent = Calibration((160, 120), (160, 120), (Plane(np.eye(3)),), ir_lens=lens, vis_lens=lens)
    assert np.abs(Registration(calibration=bent).place(ir, (160, 120))[0].astype(int) - ir).max() <= 2


def test_options_that_do_not_go_together():
    calibration = Calibration((160, 120), (160, 120), (Plane(np.eye(3)),))
    for arguments, words in (
        ({"outside": "cropped"}, "did you mean 'crop'"),
        ({"homography": np.eye(3), "calibration": calibration}, "one of them"),
        ({"distance": 3.0}, "without a calibration"),
        ({"calibration": calibration, "distance": 3.0}, "without a distance"),
    ):
        with pytest.raises(InputError, match=words):
            Registration(**arguments)
    with pytest.raises(InputError, match="a dict"):
        as_registration({})
    assert as_registration(None) is None


@pytest.mark.parametrize("outside", ["mask", "crop", "repeat"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_fuser_fuses_pairs_as_cameras_gave_them(tmp_path, outside, dtype):
    ir, vis = Scene(seed=3, size=(160, 120)).render(t=0.0)
    scaled = {np.uint8: vis, np.uint16: vis.astype(np.uint16) * 257, np.float32: vis.astype(np.float32) / 255}[dtype]
    shift = np.array([[1, 0, 20.0], [0, 1, -7], [0, 0, 1]])
    registration = Registration(calibration=Calibration((160, 120), (160, 120), (Plane(shift),)), outside=outside)
    placed, seen, cover = registration.join(ir, scaled)
    with Fuser("pyramid") as plain, Fuser("pyramid", registration=registration) as fuser:
        expected = plain.fuse(placed, seen)
        fused = fuser.fuse(ir, scaled)
        batch = fuser.fuse_batch([ir, ir], [scaled, scaled])
        fuser.warmup((64, 48))
    if cover is not None:
        expected = visible_outside(expected, seen, cover)
        assert np.array_equal(fused[:, :20], scaled[:, :20])
    assert fused.dtype == dtype and np.array_equal(fused, expected) and np.array_equal(batch, [fused, fused])


def test_pictures_keep_their_size_without_infrared():
    ir, vis = (Frame(image, 0.0, "arrival", 0.0, 0, 0) for image in Scene(seed=3, size=(160, 120)).render(t=0.0))
    shift = np.array([[1, 0, 20.0], [0, 1, -7], [0, 0, 1]])
    prepare = Preparer(Registration(calibration=Calibration((160, 120), (160, 120), (Plane(shift),)), outside="crop"))
    for infrared in (None, ir, None):
        prepared = prepare(FramePair(infrared, vis, None, False, 0))
        assert prepared.vis.shape == (112, 140, 3) and prepared.cover is None
    assert prepare(FramePair(ir, None, None, False, 0)).ir.shape == (112, 140)


def test_camera_pairs_and_streams_take_a_calibration(tmp_path):
    shift = np.array([[1, 0, 20.0], [0, 1, -7], [0, 0, 1]])
    save_calibration(Calibration((160, 120), (160, 120), (Plane(shift),)), tmp_path / "c.json")
    for name, frame in zip(("ir", "vis"), Scene(seed=3, size=(160, 120)).render(t=0.0), strict=True):
        cv2.imwrite(str(tmp_path / f"{name}.png"), frame)
    registration = Registration(calibration=load_calibration(tmp_path / "c.json"), outside="crop")
    with CameraPair(str(tmp_path / "ir.png"), str(tmp_path / "vis.png"), registration=registration) as pairs:
        (pair,) = pairs
        ir, vis = pair
        assert ir.shape == vis.shape[:2] == (112, 140) and pair.ir.image.shape == (120, 160)
    both = [str(tmp_path / "ir.png"), str(tmp_path / "vis.png")]
    options = ["--calibration", str(tmp_path / "c.json"), "--outside", "crop", "--model", "pyramid", "-q"]
    assert main(["stream", *both, str(tmp_path / "streamed_%d.png"), *options]) == 0
    assert main(["fuse", *both, str(tmp_path / "fused.png"), *options]) == 0
    streamed = cv2.imread(str(next(tmp_path.glob("streamed_*.png"))))
    assert np.array_equal(streamed, cv2.imread(str(tmp_path / "fused.png"))) and streamed.shape[:2] == (112, 140)
