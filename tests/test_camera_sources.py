"""Frames, their times and their counts: files and scenes as cameras, and devices that fail."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from pyldfusion.camera import CameraPair, Events, parse
from pyldfusion.camera.frame import Stamper
from pyldfusion.camera.handover import Ended, Handover
from pyldfusion.camera.latency import Rate
from pyldfusion.camera.sources import BadFrame, Camera, Taken, open_device
from pyldfusion.camera.sources.base import back_off
from pyldfusion.errors import CameraError, InputError

SMALL = "size=48x32&live=no"


def read_all(text, limit=100):
    """Frames of an address, through the camera's thread, and its events."""
    events, frames, ended = Events(), [], threading.Event()
    address = parse(text, "source")
    camera = Camera("ir", open_device(address), events, address.options["flip"])
    camera.open()
    camera.start(lambda frame: frames.append(frame) if len(frames) < limit else camera.stop(), ended.set)
    assert ended.wait(120)
    camera.join()
    return frames, events.counts()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for k in range(4):
        cv2.imwrite(str(folder / f"{k}.png"), np.full((24, 32), 1000 * k, np.uint16))
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.5, (48, 32))
    for k in range(6):
        writer.write(np.full((32, 48, 3), 40 * k, np.uint8))
    writer.release()
    return path


def test_a_directory_keeps_its_16_bits(pictures):
    frames, events = read_all(str(pictures))
    assert [int(frame.image[0, 0]) for frame in frames] == [0, 1000, 2000, 3000]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.04, 0.08, 0.12])  # 25 a second where none is known
    assert [(frame.number, frame.dropped, frame.clock) for frame in frames] == [(k, 0, "file") for k in range(4)]
    assert events == {}


def test_a_video_has_its_own_rate(video):
    frames, _ = read_all(f"file://{video}")
    assert [frame.time for frame in frames] == pytest.approx([k / 12.5 for k in range(6)])
    assert [round(float(frame.image.mean()) / 40) for frame in frames] == list(range(6))


def test_loops_go_on_in_time(pictures):
    frames, _ = read_all(f"{pictures}#loop=3&fps=10")
    assert [frame.time for frame in frames] == pytest.approx([k / 10 for k in range(12)])
    assert len(read_all(f"{pictures}#loop=0", limit=30)[0]) == 30


def test_patterns_and_single_pictures(pictures):
    assert len(read_all(f"{pictures}/[12].png")[0]) == 2
    assert len(read_all(f"{pictures}/3.png")[0]) == 1


def test_raw_frames(tmp_path):
    values = np.arange(3 * 24 * 32, dtype="<u2").reshape(3, 24, 32)
    (tmp_path / "clip.y16").write_bytes(values.tobytes())
    frames, _ = read_all(f"{tmp_path}/clip.y16#size=32x24")
    assert np.array_equal(np.stack([frame.image for frame in frames]), values)
    with pytest.raises(InputError, match="needs both"):
        open_device(parse(f"{tmp_path}/clip.y16#width=32", "source"))


def test_a_picture_that_cannot_be_read_is_counted_and_passed(tmp_path):
    for k in range(3):
        cv2.imwrite(str(tmp_path / f"{k}.png"), np.full((24, 32), k, np.uint8))
    (tmp_path / "1.png").write_bytes(b"\x89PNG no")
    frames, events = read_all(str(tmp_path))
    assert [(int(frame.image[0, 0]), frame.number, frame.dropped) for frame in frames] == [(0, 0, 0), (2, 2, 1)]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.08])
    assert events == {"ir bad frame": 1}


@pytest.mark.parametrize(
    "flip, expected",
    [
        ("none", lambda x: x),
        ("horizontal", lambda x: cv2.flip(x, 1)),
        ("vertical", lambda x: cv2.flip(x, 0)),
        ("rotate-90", lambda x: cv2.rotate(x, cv2.ROTATE_90_CLOCKWISE)),
        ("rotate-180", lambda x: cv2.rotate(x, cv2.ROTATE_180)),
        ("rotate-270", lambda x: cv2.rotate(x, cv2.ROTATE_90_COUNTERCLOCKWISE)),
    ],
)
@pytest.mark.parametrize("channels", [(), (3,)])
def test_flip(tmp_path, flip, expected, channels):
    picture = np.random.default_rng(0).integers(0, 256, (24, 32, *channels), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    (frame,), _ = read_all(f"{tmp_path}#flip={flip}")
    assert np.array_equal(frame.image, expected(picture)) and frame.image.flags.c_contiguous


def test_a_paced_file_takes_its_time(pictures):
    start = time.monotonic()
    frames, _ = read_all(f"{pictures}#pace=yes&fps=40")
    assert time.monotonic() - start >= 3 / 40
    assert np.diff([frame.time for frame in frames]) == pytest.approx(1 / 40)
    assert all(frame.arrived >= frame.time for frame in frames)


def test_scenes_show_one_moment_in_two_views():
    from pyldfusion.scene import Scene

    ir, _ = read_all(f"scene://ir?{SMALL}&seed=4&fps=5&frames=2")
    vis, _ = read_all(f"scene://vis?{SMALL}&seed=4&fps=5&frames=2")
    scene = Scene(4, (48, 32), bits=16)
    for k in range(2):
        expected = scene.render(k / 5)
        assert np.array_equal(ir[k].image, expected.ir) and np.array_equal(vis[k].image, expected.vis)
        assert ir[k].time == vis[k].time == pytest.approx(k / 5)


def test_a_street_is_drawn_once_for_both_views(monkeypatch):
    from pyldfusion.scene import Scene

    drawn, render = [], Scene.render
    monkeypatch.setattr(Scene, "render", lambda scene, t: drawn.append(t) or render(scene, t))
    with CameraPair(f"scene://ir?{SMALL}&frames=12", f"scene://vis?{SMALL}&frames=12") as pairs:
        assert len(list(pairs)) == 12
    assert sorted(drawn) == pytest.approx([k / 30 for k in range(12)])


def test_a_scene_drops_and_jitters_by_its_seed():
    text = f"scene://ir?{SMALL}&frames=60&repeat=1&drops=0.3&jitter=3&lag=40"
    frames, _ = read_all(text)
    again, _ = read_all(text)
    assert [frame.time for frame in frames] == [frame.time for frame in again]
    assert 25 < len(frames) < 55
    numbers = [frame.number for frame in frames]
    assert [frame.dropped for frame in frames] == [n - k for k, n in enumerate(numbers)]
    off = np.array([frame.time for frame in frames]) - np.array(numbers) / 30
    assert off.mean() == pytest.approx(0.04, abs=0.003) and off.std() == pytest.approx(0.003, rel=0.5)


def test_a_live_scene_keeps_its_rate():
    frames, _ = read_all("scene://ir?size=48x32&repeat=1&fps=50&frames=8")
    assert all(frame.clock == "arrival" for frame in frames)
    times = [frame.time for frame in frames]
    assert all(b > a for a, b in itertools.pairwise(times))
    assert frames[-1].number >= 6  # on a machine that stalls some are lost, and counted


class Flaky:
    """A device that does what its script says: a picture, an error to raise, or None for the end."""

    live = True
    rate = 30.0

    def __init__(self, *script, live=True, broken_opens=0, error=CameraError):
        self.script, self.live, self.broken, self.error = list(script), live, broken_opens, error
        self.opened = self.closed = 0

    def open(self, stop):
        self.opened += 1
        if self.opened > 1 and self.broken:
            self.broken -= 1
            raise self.error("still away")

    def read(self):
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def close(self):
        self.closed += 1


def picture(value=0, shape=(16, 16)):
    return np.full(shape, value, np.uint8)


def run(device):
    events, frames, ended = Events(), [], threading.Event()
    camera = Camera("vis", device, events)
    camera.open()
    camera.start(frames.append, ended.set)
    assert ended.wait(120)
    camera.join()
    return frames, events.counts(), camera


@pytest.mark.parametrize("error", [CameraError, cv2.error, OSError])
def test_a_lost_camera_comes_back(monkeypatch, error):
    monkeypatch.setattr("pyldfusion.camera.sources.base.FIRST_PAUSE", 0.001)
    device = Flaky(Taken(picture()), CameraError("gone"), Taken(picture(1)), None, broken_opens=3, error=error)
    frames, events, camera = run(device)
    assert len(frames) == 2 and camera.returns == 1 and device.opened == 5 and device.closed >= 4
    assert events == {"vis lost": 1, "vis back": 1}


def test_whatever_a_driver_raises_is_survived(monkeypatch):
    monkeypatch.setattr("pyldfusion.camera.sources.base.FIRST_PAUSE", 0.001)
    frames, events, _ = run(Flaky(cv2.error("driver"), Taken(picture()), BadFrame("torn"), Taken(picture()), None))
    assert len(frames) == 2 and frames[1].dropped == 1
    assert events == {"vis lost": 1, "vis back": 1, "vis bad frame": 1}


def test_a_file_that_fails_has_ended():
    frames, events, _ = run(Flaky(Taken(picture(), 0.0), OSError("disk"), live=False))
    assert len(frames) == 1 and events == {"vis lost": 1}


def test_another_size_in_mid_stream_is_told():
    frames, events, camera = run(Flaky(Taken(picture()), Taken(picture(0, (20, 30))), None))
    assert len(frames) == 2 and events == {"vis changes size": 1} and camera.size == (30, 20)


def test_stopping_a_camera_that_is_away_does_not_wait(monkeypatch):
    monkeypatch.setattr("pyldfusion.camera.sources.base.FIRST_PAUSE", 600.0)
    monkeypatch.setattr("pyldfusion.camera.sources.base.LONGEST_PAUSE", 600.0)
    device = Flaky(CameraError("gone"), broken_opens=1000)
    camera = Camera("vis", device, Events())
    camera.open()
    ended = threading.Event()
    camera.start(lambda frame: None, ended.set)
    camera.stop()
    assert ended.wait(120)
    camera.join()


def test_back_off_grows_to_a_limit():
    waits = [back_off(attempt) for attempt in range(12)]
    assert waits == sorted(waits) and waits[0] == 0.25 and waits[-1] == 5.0


def test_events_are_counted_every_time_and_said_once(caplog):
    events = Events()
    for k in range(1000):
        events.tell("ir bad frame", f"frame {k} is torn")
    assert events.counts() == {"ir bad frame": 1000}
    assert [record.message for record in caplog.records] == ["frame 0 is torn"]


def test_device_times():
    stamper = Stamper()
    assert stamper(99.99, 100.0) == (pytest.approx(99.99), "device")  # the monotonic clock, before arrival
    assert stamper(100.02, 100.03) == (pytest.approx(100.02), "device")
    assert stamper(5.0, 100.06) == (pytest.approx(100.06), "device")  # set back
    assert stamper.jumps == 1
    assert stamper(5.03, 100.10) == (pytest.approx(100.09), "device")
    assert stamper(None, 100.2) == (100.2, "arrival")
    foreign = Stamper()
    assert foreign(1e9, 7.0) == (7.0, "device") and foreign(1e9 + 0.03, 7.1) == (pytest.approx(7.03), "device")


def test_times_always_rise():
    rng = np.random.default_rng(0)
    stamper, arrived, last = Stamper(), 50.0, float("-inf")
    for _ in range(500):
        arrived += rng.uniform(0, 0.05)
        stamp = rng.choice([arrived - 0.01, rng.uniform(-1e6, 1e6), np.float64(3.0)])
        now, _ = stamper(float(stamp), arrived)
        assert now > last and abs(now - arrived) < 2
        last = now


def test_handover_drops_the_oldest_or_waits():
    drop = Handover[int](2, wait=False)
    assert [drop.put(k) for k in range(5)] == [True] * 5
    assert drop.dropped == 3 and [drop.get(), drop.get(), drop.get(0.0)] == [3, 4, None]
    wait = Handover[int](2, wait=True)
    thread = threading.Thread(target=lambda: [wait.put(k) for k in range(20)] and wait.close())
    thread.start()
    got = []
    with pytest.raises(Ended):
        while True:
            got.append(wait.get())
    thread.join()
    assert got == list(range(20)) and not wait.put(1)


def test_a_closed_handover_wakes_who_waits():
    full = Handover[int](1, wait=True)
    full.put(0)
    results = []
    thread = threading.Thread(target=lambda: results.append(full.put(1)))
    thread.start()
    full.close(discard=True)
    thread.join(120)
    assert results == [False]


def test_pairs_of_files_are_all_and_always_the_same(video, pictures):
    runs = []
    for _ in range(3):
        with CameraPair(f"{pictures}#fps=6.25", str(video)) as pairs:
            runs.append([(pair.ir.number, pair.vis.number, pair.held) for pair in pairs])
            assert pairs.stats()["paired"] == len(runs[-1])
    assert runs[0] == runs[1] == runs[2] == [(k // 2, k, k % 2 == 1) for k in range(6)]


def test_frames_that_end_together_are_a_pair():
    """The slower camera leads, and both end with it: no later frame says that its last one has its partner."""
    views = [f"scene://{view}?{SMALL}&repeat=1" for view in ("ir", "vis")]
    with CameraPair(f"{views[0]}&fps=1&frames=3", f"{views[1]}&fps=2&frames=5", policy="drop") as pairs:
        assert [(pair.ir.time, pair.vis.time) for pair in pairs] == [(0, 0), (1, 1), (2, 2)]


def test_pairs_of_files_can_be_counted_while_they_are_made(monkeypatch):
    switch = sys.getswitchinterval()
    views = [f"scene://{view}?size=16x16&live=no&repeat=1&frames=1500" for view in ("ir", "vis")]
    with CameraPair(*views) as pairs, ThreadPoolExecutor(1) as pool:
        done = threading.Event()

        def count():
            while not done.is_set():
                pairs.stats()

        counting = pool.submit(count)
        sys.setswitchinterval(1e-6)
        try:
            assert len(list(pairs)) == 1500
        finally:
            sys.setswitchinterval(switch)
            done.set()
        counting.result(60)


def test_the_true_times_of_pairs_of_9_and_30_hz():
    """Jitter, drops and a thermal camera that is 40 ms late: against the exposures, which the numbers tell."""
    faults = f"{SMALL}&repeat=1&jitter=2&drops=0.1"
    for policy, rate in (("drop", 9), ("hold", 30)):
        with CameraPair(
            f"scene://ir?{faults}&fps=9&lag=40&frames=90&seed=1", f"scene://vis?{faults}&fps=30&frames=300&seed=2",
            policy=policy, ir_delay=0.04,
        ) as pairs:  # fmt: skip
            taken = list(pairs)
        errors = np.array([pair.ir.number / 9 - pair.vis.number / 30 for pair in taken if not pair.held])
        assert np.abs(errors).max() <= 0.5 / 30 + 5 * 0.002 * np.sqrt(2)  # half a frame, and what jitter hides
        assert np.abs(errors).mean() < 0.012 and abs(errors.mean()) < 0.004
        assert 0.7 * 10 * rate < len(taken) <= 10 * rate + 1


def test_pairs_of_live_scenes_have_one_content():
    """With the delay known, both are of one exposure; a machine that stalls may spoil a few."""
    with CameraPair(
        "scene://ir?size=48x32&fps=20&repeat=1&lag=40", "scene://vis?size=48x32&fps=20&repeat=1", ir_delay=0.04
    ) as pairs:
        taken = list(itertools.islice(pairs, 6))
        assert pairs.live
        ir, vis = (pairs.cameras[name].device._first for name in ("ir", "vis"))  # exposures before the first frame
    apart = [ir + pair.ir.number - vis - pair.vis.number for pair in taken if not pair.held]
    assert len(apart) >= 3 and np.median(apart) == 0
    assert [pair.number for pair in taken] == sorted(pair.number for pair in taken)


def test_pairs_that_the_caller_is_too_slow_for_are_counted():
    scene = "size=48x32&fps=200&repeat=1&frames=40"
    with CameraPair(f"scene://ir?{scene}", f"scene://vis?{scene}") as pairs:
        given = sum(time.sleep(0.02) is None for _ in pairs)
        assert pairs.skipped > 0 and given + pairs.skipped == pairs.stats()["paired"]


def test_a_rate_falls_when_nothing_comes_any_more():
    rate = Rate(2.0)
    assert rate.value(0.0) == 0
    for k in range(100):
        rate.tick(k / 25)
    assert rate.value(99 / 25) == pytest.approx(25) and rate.value(99 / 25 + 10) <= 0.1
    slow = Rate(2.0)
    for k in range(3):
        slow.tick(5.0 * k)
    assert slow.value(11.0) == pytest.approx(0.2)


def test_a_file_with_a_camera_is_played_at_its_rate(video):
    with CameraPair("scene://ir?size=48x32&fps=25&repeat=1", str(video)) as pairs:
        taken = list(pairs)
    assert taken and all(pair.vis.clock == "device" for pair in taken)


def test_a_pair_can_be_stopped_from_elsewhere():
    with CameraPair("scene://ir?size=48x32&repeat=1", "scene://vis?size=48x32&repeat=1") as pairs:
        threading.Timer(0.1, pairs.stop).start()
        for _ in pairs:
            pass


def test_no_thread_is_left(video):
    before = threading.active_count()
    for _ in range(3):
        with CameraPair(str(video), str(video)) as pairs:
            next(iter(pairs))
    assert threading.active_count() <= before  # one of an earlier test may have ended


def test_what_cannot_be_opened_is_said_at_once(tmp_path, video):
    with pytest.raises(InputError, match="no such file"):
        CameraPair(str(video), str(tmp_path / "none.mp4"))
    with pytest.raises(CameraError, match="no such device"):
        CameraPair("/dev/video99", str(video))
    with pytest.raises(InputError, match="did you mean 'hold'"):
        CameraPair(str(video), str(video), policy="hodl")


def test_real_clips_are_cameras(shared):
    """Four recorded pairs of a thermal and a visible camera: every frame has its partner."""
    clips = sorted((shared / "data" / "video" / "ir").glob("*.mp4"))
    assert len(clips) == 4
    for ir in clips:
        with CameraPair(str(ir), str(ir.parent.parent / "vi" / ir.name)) as pairs:
            found = list(itertools.islice(pairs, 20))
        assert [pair.ir.number for pair in found] == [pair.vis.number for pair in found] == list(range(20))
        assert all(pair.skew == 0 and pair.ir.image.shape[:2] == (480, 640) for pair in found)


def test_a_pair_takes_paths_and_numbers(tmp_path, monkeypatch):
    for name in ("ir", "vis"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((24, 32), 9, np.uint8))
    with CameraPair(tmp_path / "ir.png", tmp_path / "vis.png") as pairs:
        assert [pair.vis.image.shape[:2] for pair in pairs] == [(24, 32)]
    with pytest.raises(CameraError, match="/dev/video97"):
        CameraPair(97, tmp_path / "vis.png")
    with pytest.raises(InputError, match="a camera is None"):
        CameraPair(tmp_path / "ir.png", None)
