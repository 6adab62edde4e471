"""A window on a virtual screen (Xvfb), whose memory is read as the X server keeps it."""

from __future__ import annotations

import shutil
import subprocess
import time

import numpy as np
import pytest

from pyldfusion.camera import gst, open_sink, parse
from pyldfusion.errors import CameraError

if gst.why_not() or not gst.has_element("ximagesink"):
    pytest.skip("GStreamer, or its ximagesink (gstreamer1.0-x), is not installed", allow_module_level=True)
if shutil.which("Xvfb") is None:
    pytest.skip("Xvfb is not installed", allow_module_level=True)

PICTURE = np.full((48, 64, 3), (200, 120, 40), np.uint8)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The display's name, and the file with its memory."""
    folder = tmp_path_factory.mktemp("screen")
    with subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "320x240x24", "-fbdir", str(folder), "-nolisten", "tcp"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as run:  # fmt: skip
        number = run.stdout.readline().strip()
        if not number:
            run.kill()
            pytest.skip("Xvfb does not start here")
        yield f":{number}", folder / "Xvfb_screen0"
        run.terminate()


@pytest.fixture
def screen(server, monkeypatch):
    """Its memory: a function that gives BGRx [240,320,4]."""
    monkeypatch.setenv("DISPLAY", server[0])
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)

    def look():
        data = server[1].read_bytes()
        header = np.frombuffer(data[:100], ">u4")  # X11/XWDFile.h: [0] size, [12] bytes a line, [19] colours
        start, line = int(header[0] + 12 * header[19]), int(header[12])
        rows = np.frombuffer(data, np.uint8, 240 * line, start).reshape(240, line)
        return rows[:, : 4 * 320].reshape(240, 320, 4)

    return look


def show_until(window, condition, picture=PICTURE, seconds=120):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        window.write(picture, 0.0)
        time.sleep(0.02)
    assert condition()


def test_the_picture_is_on_the_screen(screen):
    with open_sink(parse("display://0", "sink")) as window:
        show_until(window, lambda: (screen()[..., :3] == PICTURE[0, 0]).all(axis=2).sum() == 64 * 48)
        assert not window.quit
        grey = np.full((48, 64), 77, np.uint8)
        show_until(window, lambda: (screen()[..., :3] == 77).all(axis=2).sum() == 64 * 48, grey)


def test_a_key_in_the_window_ends_the_stream(screen):
    from gi.repository import GstVideo

    if not hasattr(GstVideo, "navigation_event_new_key_press"):
        pytest.skip("this GStreamer cannot press keys; 1.22 can")
    with open_sink(parse("display://0", "sink")) as window:
        window.write(PICTURE, 0.0)
        element = gst.elements(window._pipeline, "ximagesink")[0]
        element.send_event(GstVideo.navigation_event_new_key_press("x", 0))
        assert not window.quit

        def pressed():
            element.send_event(GstVideo.navigation_event_new_key_press("q", 0))
            return window.quit

        show_until(window, pressed)


def test_a_screen_that_does_not_answer_is_said(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":4321")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(CameraError, match="is the screen there"):
        open_sink(parse("display://0", "sink"))
