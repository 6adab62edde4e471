"""Network cameras that stall, leave and come back, change size and send rubbish; real servers on loopback."""

from __future__ import annotations

import threading
import time

import pytest

from pyldfusion.camera import CameraPair, parse
from pyldfusion.camera.sources import open_device
from pyldfusion.errors import CameraError

from .mjpeg_server import MjpegServer

SCENE = "scene://ir?size=64x48&fps=30&repeat=1&bits=8"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("pyldfusion.camera.sources.base.FIRST_PAUSE", 0.05)


class Watch:
    """Pairs of the scene and a network camera, looked at until something is so."""

    def __init__(self, url, **options):
        self.pairs = CameraPair(SCENE, f"{url}#timeout=1.5", alone=True, lost_after=0.4, **options)
        self.iterator = iter(self.pairs)

    def until(self, condition, seconds=120.0):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pair = next(self.iterator)
            if condition(pair):
                return pair
        raise AssertionError(f"not within {seconds} s; {self.pairs.events.counts()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pairs.close()


def both(pair):
    return pair.ir is not None and pair.vis is not None


def test_a_camera_that_stalls_and_goes_on():
    with MjpegServer() as server, Watch(server.url) as watch:
        watch.until(both)
        server.stalled.set()
        watch.until(lambda pair: pair.vis is None)  # the infrared goes on alone
        server.stalled.clear()
        watch.until(both)
        events = watch.pairs.events.counts()
    assert events.get("vis lost", 0) == events.get("vis back", 0)


def test_a_camera_that_disappears_and_comes_back():
    server = MjpegServer()
    with Watch(server.url) as watch:
        watch.until(both)
        server.close()
        watch.until(lambda pair: pair.vis is None)
        for _ in range(5):
            assert next(watch.iterator).ir is not None
        with MjpegServer(port=server.port):
            pair = watch.until(both)
            assert pair.vis.time > pair.ir.time - 1
            assert watch.pairs.cameras["vis"].returns == 1
            assert watch.pairs.events.counts() == {"vis lost": 1, "vis back": 1}


def goes_on(watch):
    """Until three more visible frames have come, in a pair."""
    last = watch.pairs.cameras["vis"].received
    return watch.until(lambda pair: both(pair) and watch.pairs.cameras["vis"].received > last + 3)


def test_frames_of_another_size_go_on_in_the_first_one():
    """OpenCV's FFmpeg scales them."""
    with MjpegServer() as server, Watch(server.url) as watch:
        watch.until(both)
        server.size = (96, 64)
        assert goes_on(watch).vis.image.shape == (48, 64, 3)


def test_torn_frames_are_survived():
    with MjpegServer() as server, Watch(server.url) as watch:
        watch.until(both)
        server.torn.set()
        end = time.monotonic() + 0.5
        watch.until(lambda pair: time.monotonic() > end)
        server.torn.clear()
        goes_on(watch)


def test_the_clock_of_network_frames_is_their_arrival():
    with MjpegServer() as server, Watch(server.url) as watch:
        pair = watch.until(both)
        assert pair.vis.clock == "arrival" and abs(pair.vis.time - pair.vis.arrived) < 1e-5


def test_nobody_there_is_said_in_time():
    with MjpegServer() as server:
        url = server.url
    start = time.monotonic()
    with pytest.raises(CameraError, match=r"cannot be opened within 0\.5 s"):
        open_device(parse(f"{url}#timeout=0.5", "source")).open(threading.Event())
    assert time.monotonic() - start < 60


def test_a_server_that_says_nothing_is_said_in_time():
    with MjpegServer() as server:
        server.stalled.set()
        start = time.monotonic()
        with pytest.raises(CameraError, match="cannot be opened"):
            open_device(parse(f"{server.url}#timeout=0.5", "source")).open(threading.Event())
        assert time.monotonic() - start < 60


def test_nothing_is_left_behind():
    before = set(threading.enumerate())
    with MjpegServer() as server:
        for _ in range(2):
            with Watch(server.url) as watch:
                watch.until(both)
    end = time.monotonic() + 60
    while (left := set(threading.enumerate()) - before) and time.monotonic() < end:
        time.sleep(0.01)
    assert not left
