"""Outputs: what independent readers find in them, slow ones, full disks, clients that leave."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import threading
import time
import urllib.request

import cv2
import numpy as np
import pytest

from pyldfusion.camera import Events, parse
from pyldfusion.camera.sinks import Output, Shown, Sink, open_sink
from pyldfusion.errors import CameraError, InputError


def picture(value, size=(48, 32)):
    return np.full((size[1], size[0], 3), value, np.uint8)


def sink(text, **options):
    return open_sink(parse(str(text), "sink"), **options)


def frames_of(path):
    capture, found = cv2.VideoCapture(str(path)), []
    while True:
        whole, frame = capture.read()
        if not whole:
            return found
        found.append(frame)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_every_frame_of_a_file_is_in_the_video(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    with sink(path, rate=12.5) as video:
        for k in range(8):
            video.write(picture(30 * k), k / 12.5)
        assert not path.exists()  # it appears whole
    found = frames_of(path)
    assert len(found) == 8 and np.abs([f.mean() for f in found] - 30.0 * np.arange(8)).max() < 6
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="FFmpeg's ffprobe is not installed")
def test_ffprobe_agrees(tmp_path):
    with sink(tmp_path / "out.mp4", rate=20, live=True) as video:
        for k in range(20):
            video.write(picture(k), 100 + k / 10)  # 10 a second, shown at 20
    told = subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-show_entries", "stream=width,height,nb_read_frames,r_frame_rate",
         "-of", "csv=p=0", str(tmp_path / "out.mp4")],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    assert told == "48,32,20/1,39"


def test_a_live_video_plays_as_it_was(tmp_path):
    """Gaps are filled by the picture after them, a burst keeps one per place, a long pause is cut."""
    path = tmp_path / "out.avi"
    with sink(path, rate=10, live=True) as video:
        for t, value in ((5.0, 0), (5.1, 40), (5.4, 80), (5.41, 120), (5.5, 160), (95.5, 200)):
            video.write(picture(value), t)
    assert [round(frame.mean() / 40) for frame in frames_of(path)] == [0, 1, 2, 2, 2, 4, 5]


def test_another_size_is_brought_to_the_first(tmp_path):
    with sink(tmp_path / "out.avi", rate=10) as video:
        video.write(picture(10), 0)
        video.write(picture(200, (96, 64)), 0.1)
    assert [frame.shape for frame in frames_of(tmp_path / "out.avi")] == [(32, 48, 3)] * 2


@pytest.mark.parametrize(
    "out, names",
    [
        ("img_%03d.png", ["img_000.png", "img_001.png"]),
        ("a_{index}.jpg", ["a_0.jpg", "a_1.jpg"]),
        ("folder/", ["000000.png", "000001.png"]),
    ],
)
def test_pictures(tmp_path, out, names):
    with sink(f"{tmp_path}/{out}") as pictures:
        for k in range(2):
            pictures.write(np.full((20, 30), 1000 * k, np.uint16), k)
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == names
    if out.endswith("png"):
        assert cv2.imread(str(tmp_path / names[1]), cv2.IMREAD_UNCHANGED)[0, 0] == 1000


@pytest.mark.parametrize(
    "text, said",
    [
        ("out.mp5", "cannot write .mp5"),
        ("one.png", "add {index}"),
        ("img_{indx}.png", "did you mean {index}"),
        ("img_%d.png#rate=5", "rate is for a video"),
    ],
)
def test_refused_files(text, said):
    with pytest.raises(InputError, match=said):
        sink(text)


def test_a_screen_that_is_not_there_is_said(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(CameraError, match=r"no screen here.*use another output, such as http"):
        sink("display://0")


def test_a_window_that_nothing_can_open_is_said_with_advice(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("pyldfusion.camera.gst.why_not", lambda: "No module named 'gi'")
    monkeypatch.setattr("pyldfusion.camera.sinks.display._has_windows", lambda: False)
    with pytest.raises(CameraError, match=r"install gstreamer1\.0-x and PyGObject"):
        sink("display://0")
    monkeypatch.setattr("pyldfusion.camera.sinks.display._has_windows", lambda: True)
    assert type(sink("display://0")).__name__ == "OpenCVWindow"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True)
    except OSError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def output(target, wait=True, queue=4):
    events = Events()
    return Output("out", target, queue, wait, events, lambda: None, lambda seconds: None), events


def test_a_full_disk_ends_one_output_with_one_event(small_disk):
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)  # 720 kB as PNG
    pictures, events = output(sink(f"{small_disk}/%03d.png"))
    for k in range(10):
        pictures.put(Shown(noise, k, 0.0))
    pictures.close()
    assert pictures.failed and pictures.written == 2 and events.counts() == {"output failed": 1}
    assert [path.name for path in sorted(small_disk.iterdir())] == ["000.png", "001.png"]  # whole, nothing else


def test_a_video_is_finished_before_the_disk_is_full(small_disk, monkeypatch):
    monkeypatch.setattr("pyldfusion.camera.disk.LOOK", 0.0)
    monkeypatch.setattr("pyldfusion.camera.disk.RESERVE", 1 << 20)
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    video, events = output(sink(f"{small_disk}/out.avi", rate=10))
    for k in range(100):
        video.put(Shown(noise, k / 10, 0.0))
    video.close()
    assert video.failed and events.counts() == {"output failed": 1}
    assert 3 < len(frames_of(small_disk / "out.avi")) < 100


class Slow(Sink):
    """A sink that waits until it may go on."""

    def __init__(self):
        self.may, self.seen = threading.Event(), []

    def write(self, picture, time):
        self.may.wait(120)
        self.seen.append(time)


def test_a_slow_output_drops_and_does_not_hold_up():
    slow = Slow()
    slow_output, _ = output(slow, wait=False, queue=3)
    fast_output, _ = output(Sink(), wait=False, queue=1000)
    for k in range(100):
        for each in (slow_output, fast_output):
            each.put(Shown(picture(0), k, 0.0))
    slow.may.set()
    fast_output.close()
    slow_output.close()
    assert fast_output.written == 100
    assert slow_output.written + slow_output.dropped == 100 and slow.seen[-3:] == [97, 98, 99]


def test_an_output_that_raises_anything_is_ended_alone():
    class Broken(Sink):
        def write(self, picture, time):
            raise ZeroDivisionError("driver")

        def close(self):
            raise ZeroDivisionError("driver again")

    broken, events = output(Broken())
    feeder = threading.Thread(target=lambda: [broken.put(Shown(picture(0), k, 0.0)) for k in range(20)], daemon=True)
    feeder.start()
    feeder.join(60)
    assert not feeder.is_alive()  # what it does not take is thrown away, though full=wait
    broken.close()
    assert broken.failed and broken.written == 0 and events.counts() == {"output failed": 1}


def test_each_output_that_fails_is_said(caplog):
    class Broken(Sink):
        def write(self, picture, time):
            raise InputError("the disk is full")

    events = Events()
    for name in ("a.mp4", "b.mp4"):
        broken = Output(name, Broken(), 4, True, events, lambda: None, lambda seconds: None)
        broken.put(Shown(picture(0), 0, 0.0))
        broken.close()
    told = [(record.levelname, record.message) for record in caplog.records]
    assert told == [("ERROR", f"{name}: the disk is full") for name in ("a.mp4", "b.mp4")]


@pytest.fixture
def page():
    with sink("http://@127.0.0.1:0") as page:
        yield page


def test_the_page_and_a_snapshot(page):
    page.write(picture(90), 0.0)
    with urllib.request.urlopen(page.url, timeout=60) as answer:
        assert b'src="/stream"' in answer.read()
    with urllib.request.urlopen(f"{page.url}/snapshot.jpg", timeout=60) as answer:
        shot = cv2.imdecode(np.frombuffer(answer.read(), np.uint8), cv2.IMREAD_COLOR)
    assert shot.shape == (32, 48, 3) and abs(shot.mean() - 90) < 3
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{page.url}/none", timeout=60)


def test_opencv_reads_the_stream(page):
    stop = threading.Event()

    def feed():
        k = 0
        while not stop.wait(0.02):
            page.write(picture(100 + k % 50), k)
            k += 1

    thread = threading.Thread(target=feed)
    thread.start()
    capture = cv2.VideoCapture(f"{page.url}/stream", cv2.CAP_FFMPEG)
    whole, frame = capture.read()
    capture.release()
    stop.set()
    thread.join()
    assert whole and frame.shape == (32, 48, 3) and 95 < frame.mean() < 155


def wait_for(condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    assert condition()


def test_clients_that_leave_are_counted_out(page):
    page.write(picture(1), 0.0)
    clients = []
    for _ in range(3):
        client = http.client.HTTPConnection("127.0.0.1", int(page.url.rpartition(":")[2]), timeout=60)
        client.request("GET", "/stream")
        client.getresponse().read(10)
        clients.append(client)
    wait_for(lambda: page.clients == 3)
    for client in clients:
        client.close()

    def write_until_noticed():
        page.write(picture(2), 0.0)
        return page.clients == 0

    wait_for(write_until_noticed)
    assert page.left == 3


def test_a_client_that_takes_nothing_does_not_hold_up_anybody(page):
    idle = socket.create_connection(("127.0.0.1", int(page.url.rpartition(":")[2])))
    idle.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    start = time.monotonic()
    for k in range(50):
        page.write(noise, k)
    assert time.monotonic() - start < 8
    page.close()  # which does not wait for it either
    assert time.monotonic() - start < 9
    idle.close()


def test_a_port_in_use_is_said(page):
    with pytest.raises(CameraError, match="is the port in use"):
        sink(f"http://@127.0.0.1:{page.url.rpartition(':')[2]}")


def test_no_thread_is_left():
    before = threading.active_count()
    for _ in range(3):
        with sink("http://@127.0.0.1:0") as page:
            page.write(picture(0), 0.0)
            urllib.request.urlopen(f"{page.url}/snapshot.jpg", timeout=60).read()
    wait_for(lambda: threading.active_count() <= before)
