"""The time between two cameras, from motion: blobs on known paths, seen by two cameras with known clocks."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pytest

from pyldfusion import cli
from pyldfusion.camera import CameraPair, Frame, Recorder
from pyldfusion.camera.sync import Track, find_delay, watch
from pyldfusion.errors import InputError

SIZE = (96, 72)
SECONDS = 7.0


class Blobs:
    """Things that move to and fro unevenly, hot in infrared and of any brightness in visible light."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.swing = rng.uniform(0.05, 0.2, (4, 3, 2))  # thing, wave, axis
        self.speed, self.phase = rng.uniform(1, 6, (4, 3, 2)), rng.uniform(0, 6.28, (4, 3, 2))
        self.heat, self.light = rng.uniform(200, 500, 4), rng.uniform(-80, 80, 4)
        self.ground = cv2.GaussianBlur(rng.normal(0, 60, SIZE[::-1]), (0, 0), 3)

    def see(self, name, t, shift=0):
        """The picture of a camera at a time: uint16 counts or uint8 BGR."""
        place = 0.5 + (self.swing * np.sin(self.speed * t + self.phase)).sum(axis=1)
        x, y = np.arange(SIZE[0]) - shift, np.arange(SIZE[1])[:, None]
        value = 7000 + self.ground if name == "ir" else 120 - self.ground
        for (u, v), strength in zip(place, self.heat if name == "ir" else self.light, strict=True):
            value = value + strength * np.exp(-((x - u * SIZE[0]) ** 2 + (y - v * SIZE[1]) ** 2) / 50)
        if name == "ir":
            return value.astype(np.uint16)
        return np.repeat(np.clip(value, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def track(blobs, name, rate, late=0.0, jitter=0.0, drops=0.0, phase=0.0, shift=0, seconds=SECONDS):
    """A camera whose frames come ``late``, with jitter and drops."""
    rng, found = np.random.default_rng([ord(name[0]), rate]), Track()
    for k, t in enumerate(np.arange(phase, seconds, 1 / rate)):
        if rng.random() >= drops:
            found.add(Frame(blobs.see(name, t, shift), t + late + rng.normal(0, jitter), "arrival", t, k, 0))
    return found


@pytest.fixture(scope="module")
def blobs():
    return Blobs()


@pytest.fixture(scope="module")
def visible(blobs):
    return track(blobs, "vis", 30, jitter=0.003, drops=0.05)


@pytest.mark.parametrize("late, rate, shift", [(0.040, 9, 0), (-0.060, 9, 6), (0.040, 30, 6)])
def test_a_late_camera_with_jitter_and_drops(blobs, visible, late, rate, shift):
    ir = track(blobs, "ir", rate, late, jitter=0.005, drops=0.05, phase=0.013, shift=shift)
    delay = find_delay(ir, visible, reach=0.2)
    assert delay.doubt == "" and abs(delay.seconds - late) < 0.005
    assert delay.error < 0.004 and delay.correlation > 0.5
    assert abs(delay.shift[0] - shift / SIZE[0]) < 1 / 48 and abs(delay.shift[1]) < 1 / 36


def test_cameras_in_step_are_not_drawn_to_whole_frames(blobs):
    """Both at exactly 25 Hz: a delay of 1.4 frames is between two pictures of the other camera, always."""
    ir, vis = track(blobs, "ir", 25, 0.056), track(blobs, "vis", 25)
    assert abs(find_delay(ir, vis, 0.2).seconds - 0.056) < 0.004


def test_the_faster_camera_may_be_the_infrared_one(blobs):
    ir, vis = track(blobs, "ir", 25, 0.03), track(blobs, "vis", 10)
    assert abs(find_delay(ir, vis, 0.2).seconds - 0.03) < 0.005


def test_a_camera_that_sends_each_frame_three_times(blobs, visible):
    ir = Track()
    for k in range(int(27 * SECONDS)):
        image = blobs.see("ir", k // 3 / 9)
        ir.add(Frame(image, k / 27 + 0.04, "arrival", 0.0, k, 0))
    assert len(ir) == int(9 * SECONDS) and abs(find_delay(ir, visible, 0.2).seconds - 0.04) < 0.005


def test_what_cannot_be_told_is_refused(visible):
    others = track(Blobs(7), "ir", 9)
    assert "do not see the same motion" in find_delay(others, visible, 0.2).doubt
    rng, noise = np.random.default_rng(0), Track()
    for k in range(90):
        noise.add(Frame(rng.integers(7000, 7010, SIZE[::-1]).astype(np.uint16), k / 10, "arrival", 0.0, k, 0))
    assert find_delay(noise, visible, 0.2).doubt


def test_too_little_to_look_at_is_said(blobs, visible):
    with pytest.raises(InputError, match="give it more seconds"):
        find_delay(track(blobs, "ir", 9, seconds=2), visible)
    still = Track()
    for k in range(90):
        still.add(Frame(np.full(SIZE[::-1], 7000 + k, np.uint16), k / 10, "arrival", 0.0, k, 0))
    with pytest.raises(InputError, match="nothing moves"):
        find_delay(still, visible, 0.2)
    with pytest.raises(InputError, match="0 different frames"):
        find_delay(Track(), visible)


@pytest.fixture(scope="module")
def videos(blobs, tmp_path_factory):
    """Two videos of 12.5 Hz, the infrared 80 ms late."""
    folder = tmp_path_factory.mktemp("sync")
    for name, late in (("ir", 1), ("vis", 0)):
        video = cv2.VideoWriter(str(folder / f"{name}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 12.5, SIZE)
        for k in range(100):
            picture = blobs.see(name, (k - late) / 12.5)
            video.write(picture if name == "vis" else cv2.cvtColor((picture // 8 - 800).astype(np.uint8), 8))
        video.release()
    return [str(folder / f"{name}.avi") for name in ("ir", "vis")]


def test_the_verb_prints_the_option(videos, capsys):
    assert cli.main(["sync", *videos, "--reach", "200"]) == 0
    told = capsys.readouterr()
    assert abs(float(re.fullmatch(r"--ir-delay (\S+)\n", told.out)[1]) - 80) < 4 and "standard error" in told.err
    assert cli.main(["sync", *reversed(videos), "--reach", "200", "--json", "-q"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert abs(told["seconds"] + 0.08) < 0.004 and told["doubt"] == ""


def test_a_recording_is_as_good_as_its_cameras(videos, tmp_path, capsys):
    with CameraPair(*videos) as pairs, Recorder(tmp_path / "kept", pairs.events, False, pairs.rates) as recorder:
        for pair in pairs:
            recorder.put(pair)
    assert cli.main(["sync", "--replay", str(tmp_path / "kept"), "--reach", "200"]) == 0
    assert abs(float(capsys.readouterr().out.split()[1]) - 80) < 4


def test_live_cameras_are_looked_at_for_so_long(videos):
    ir, vis = watch(f"{videos[0]}#pace=yes", videos[1], 0.5)
    assert 1 < len(ir) <= 8 and 1 < len(vis) <= 8 and vis.times[-1] - vis.times[0] < 0.6


@pytest.mark.parametrize(
    "words, said",
    [
        (["scene://ir"], "1 addresses; expected two"),
        (["none.mp4", "scene://vis"], "no such file"),
        (["a", "b", "--replay", "c"], "takes the place"),
        (["a", "b", "--ir-layout", "doubel"], "layout is 'doubel'"),
    ],
)
def test_mistakes_are_one_line(words, said, capsys):
    assert cli.main(["sync", *words]) == 2
    assert said in capsys.readouterr().err


def test_too_little_to_tell_is_exit_code_1(videos, capsys):
    assert cli.main(["sync", *videos, "--seconds", "1", "-q"]) == 1
    assert "give it more seconds" in capsys.readouterr().err


def test_a_layout_that_does_not_fit_is_said(videos, capsys):
    assert cli.main(["sync", *videos, "--ir-layout", "telemetry-200"]) == 2
    assert "expected 16-bit counts" in capsys.readouterr().err
