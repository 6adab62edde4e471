"""The search without a target: scenes whose pairs lie exactly on each other, moved by known homographies; and drift."""

from __future__ import annotations

import logging
import threading

import cv2
import numpy as np
import pytest

from benchmarks.registration import random_homography, spoilt
from pyldfusion import CalibrationError, InputError
from pyldfusion.calibration import Calibration, Plane, align, load_calibration, save_calibration
from pyldfusion.calibration.automatic import default_start, search
from pyldfusion.calibration.blocks import refine
from pyldfusion.calibration.drift import Drift
from pyldfusion.calibration.geometry import grid_error
from pyldfusion.camera import Events
from pyldfusion.cli import main
from pyldfusion.registration import Registration
from pyldfusion.scene import Scene

SIZE = 320, 240


@pytest.fixture(scope="module")
def pairs():
    """One pair of three streets."""
    return [tuple(Scene(seed, SIZE, kind).render(1.0)) for seed, kind in ((1, "night"), (2, "day"), (3, "dusk"))]


@pytest.mark.parametrize("number", range(3))
def test_a_known_homography_is_found(pairs, number):
    ir, vis = pairs[number]
    truth = random_homography(np.random.default_rng(number), SIZE)
    found = align([(spoilt(ir, truth), vis)])
    assert grid_error(found.homography, truth, SIZE) < 2.0
    assert found.expected_error < 1.0 and found.support > 0.5 and found.frames == 1


def test_polarity_depth_and_size_of_infrared_do_not_matter(pairs):
    ir, vis = pairs[1]
    small = cv2.resize(ir, (160, 120), interpolation=cv2.INTER_AREA)
    counts = (7000 - 8 * small.astype(np.int32)).astype(np.uint16)  # black hot, 16 bits, half the size
    found = align([(counts, vis)])
    assert grid_error(found.homography, default_start((160, 120), SIZE), (160, 120)) < 1.0


def test_a_start_leads_to_views_that_differ_by_more(pairs):
    ir, vis = pairs[1]
    truth = np.array([[0.7, 0, 48.0], [0, 0.7, 36], [0, 0, 1]])
    narrow = spoilt(ir, truth)
    assert search([(narrow, vis)]).doubt
    start = np.array([[0.72, 0, 40.0], [0, 0.72, 38], [0, 0, 1]])
    assert grid_error(align([(narrow, vis)], start).homography, truth, SIZE) < 2.0


def test_several_frames_are_one_answer(pairs):
    truth = random_homography(np.random.default_rng(9), SIZE)
    found = align([(spoilt(ir, truth), vis) for ir, vis in pairs])
    assert found.frames == 3 and grid_error(found.homography, truth, SIZE) < 1.5


def test_what_does_not_tell_is_refused(pairs):
    (_, first), (second, other) = pairs[0], pairs[1]
    noise = np.random.default_rng(0).integers(0, 256, SIZE[::-1], np.uint8)
    for ir, vis in ((second, first), (noise, other), (np.zeros_like(second), other), (second[:, ::-1].copy(), other)):
        with pytest.raises(CalibrationError, match=r"does not tell.*target"):
            align([(ir, vis)])


def test_frames_that_do_not_go_together(pairs):
    ir, vis = pairs[0]
    for frames, words in (
        ([], "no frames"), ([(ir, vis), (ir[:200], vis)], "infrared frames have the sizes"),
        ([(ir[:40], vis)], "at least 64"),
    ):  # fmt: skip
        with pytest.raises(CalibrationError, match=words):
            align(frames)


@pytest.mark.parametrize("ir, vis", [((160, 120), (640, 480)), ((640, 512), (1280, 720)), ((256, 192), (320, 240))])
def test_without_a_start_the_centres_meet(ir, vis):
    start = default_start(ir, vis)
    middle = cv2.perspectiveTransform(np.array([[[(ir[0] - 1) / 2, (ir[1] - 1) / 2]]]), start).ravel()
    assert np.allclose(middle, [(vis[0] - 1) / 2, (vis[1] - 1) / 2])
    assert np.isclose(np.linalg.det(start[:2, :2]), vis[0] * vis[1] / (ir[0] * ir[1]), rtol=0.05)


def test_the_command_writes_a_calibration_or_says_why_not(tmp_path, pairs, capsys):
    truth = random_homography(np.random.default_rng(4), SIZE)
    for name in ("ir", "vis", "strange"):
        (tmp_path / name).mkdir()
    (stranger, _), (ir, vis) = pairs[:2]
    for name, frame in (("ir", spoilt(ir, truth)), ("vis", vis), ("strange", stranger)):
        cv2.imwrite(str(tmp_path / name / "1.png"), frame)
    out = tmp_path / "c.json"
    words = ["calibrate", str(tmp_path / "ir"), str(tmp_path / "vis"), "--auto", "-o", str(out)]
    assert main(words) == 0
    calibration = load_calibration(out)
    assert grid_error(calibration.homography(), truth, SIZE) < 2 and calibration.planes[0].views == 1
    assert calibration.method == "automatic" and "expected error, of 1 view" in capsys.readouterr().out
    assert main([*words, "--start", str(out), "-q"]) == 0
    out.unlink()
    words[1] = str(tmp_path / "strange")
    assert main(words) == 1 and not out.exists()
    assert "does not tell" in capsys.readouterr().err


def follow(drift, ir, vis, seconds):
    """Call a drift as a stream of one still pair does, four times a second; what it ended with."""
    drift.wait = True
    registration = Registration(outside="crop")
    for tick in range(4 * seconds):
        registration = drift(registration, ir, vis, tick / 4)
    return registration


def test_drift_is_followed_in_small_logged_steps(pairs, caplog):
    ir, vis = pairs[1]
    off = np.array([[1, 0, -1.5], [0, 1, 0.5], [0, 0, 1]])
    events = Events()
    drift = Drift(interval=1, events=events)
    with caplog.at_level(logging.WARNING, "pyldfusion.camera"):
        registration = follow(drift, spoilt(ir, np.linalg.inv(off)), vis, 12)
    steps = events.counts()["drift"]
    assert grid_error(drift.correction, np.linalg.inv(off), SIZE) < 0.5
    assert 2 <= steps <= 6 and sum("drift: infrared moved" in text for text in caplog.messages) == steps
    assert registration.field(SIZE, SIZE).box == (0, 0, *SIZE)  # pictures keep their size


def test_drift_stays_within_its_limit(pairs):
    ir, vis = pairs[1]
    off = np.array([[1, 0, 3.0], [0, 1, 0], [0, 0, 1]])
    events = Events()
    drift = Drift(limit=0.8, interval=1, events=events)
    follow(drift, spoilt(ir, off), vis, 6)
    assert grid_error(drift.correction, np.eye(3), SIZE) <= 0.8 and events.counts()["drift limit"] >= 1


def test_nothing_is_moved_where_nothing_is_off_or_nothing_tells(pairs):
    (ir, vis), (stranger, _) = pairs[1], pairs[0]
    for frame in (ir, stranger, np.zeros_like(ir)):
        events = Events()
        registration = follow(Drift(interval=1, events=events), frame, vis, 3)
        assert registration.only_resizes and events.counts() == {}
    for numbers in ({"limit": 0.0}, {"interval": float("nan")}):
        with pytest.raises(InputError, match="above 0"):
            Drift(**numbers)


def test_a_look_at_pictures_of_another_size_does_not_count(pairs, monkeypatch):
    ir, vis = pairs[1]
    may, looks = threading.Event(), []

    def slow(irs, *rest):
        may.wait(120)
        looks.append(irs[0].shape)
        return refine(irs, *rest)

    monkeypatch.setattr("pyldfusion.calibration.drift.refine", slow)
    drift, registration = Drift(interval=1), Registration()
    for tick in range(4):
        registration = drift(registration, ir, vis, tick / 4)
    first = drift._thread
    small = [cv2.resize(frame, (160, 120)) for frame in (ir, vis)]
    registration = drift(registration, *small, 1.0)  # while that look is under way
    may.set()
    first.join(120)
    assert looks == [ir.shape[:2]] and drift._look is None


def test_a_stream_follows_drift(tmp_path, pairs):
    ir, vis = pairs[1]
    rng = np.random.default_rng(0)
    off = spoilt(ir, np.array([[1, 0, 2.0], [0, 1, 0], [0, 0, 1]])).astype(np.int32)
    for name in ("ir", "vis"):
        (tmp_path / name).mkdir()
    for index in range(12):  # the same picture again and again would be a frozen camera's
        noisy = np.clip(off + rng.integers(-1, 2, off.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "ir" / f"{index}.png"), noisy)
        cv2.imwrite(str(tmp_path / "vis" / f"{index}.png"), vis)
    save_calibration(Calibration(SIZE, SIZE, (Plane(np.eye(3)),)), tmp_path / "c.json")
    cameras = [f"{tmp_path / name}#rate=0.4" for name in ("ir", "vis")]
    words = ["stream", *cameras, "null://", "--model", "pyramid", "--calibration", str(tmp_path / "c.json"), "--drift"]
    stats = tmp_path / "stats.json"
    assert main([*words, "3", "-q", "--stats", str(stats)]) == 0
    assert '"drift": 1' in stats.read_text().splitlines()[-1]
