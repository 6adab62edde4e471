"""GStreamer: pipelines as text, frames out of bytes, and real streams on loopback, read back by others."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from pyldfusion.camera import CameraPair, gst, open_sink, parse
from pyldfusion.camera.pipelines import rtsp_server_pipeline, sink_pipeline, source_pipeline
from pyldfusion.camera.sinks.gstreamer import Feed
from pyldfusion.camera.sources import open_device
from pyldfusion.errors import CameraError, InputError
from pyldfusion.media import VideoReader

from .conftest import ROOT

needs_gstreamer = pytest.mark.skipif(bool(gst.why_not()), reason=gst.why_not().partition(";")[0] or "-")


@needs_gstreamer
def test_errors_of_modules_loaded_after_gstreamer_are_caught():
    """libgstreamer brings libunwind, which takes libgcc's place in what is loaded later: an exception there aborted."""
    program = """
import numpy as np
from pyldfusion.camera import gst
gst.load()
from pyldfusion import _native
try:
    _native.entropy(np.zeros((4, 4), np.uint8), np.zeros((1, 9), np.int32), 1)
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "entropy: wrong shapes\n"), done.stderr


def jetson(name):
    return True


def desktop(name):
    return not name.startswith("nv")


def source(text, has=desktop):
    return source_pipeline(parse(text, "source"), has)


def test_a_csi_camera_comes_out_of_the_jetsons_memory():
    assert source("csi://0?size=1280x720&fps=29.97") == (
        "nvarguscamerasrc sensor-id=0 ! video/x-raw(memory:NVMM),format=NV12,width=1280,height=720,framerate=29970/1000"
        " ! nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR"
        " ! appsink name=pyldfusion max-buffers=1 drop=true sync=false"
    )


def test_decoders_are_what_is_there_or_what_is_asked():
    text = "rtsp://cam/1#codec=h264&latency=50"
    assert "latency=50 protocols=tcp ! rtph264depay ! h264parse ! avdec_h264 ! videoconvert" in source(text)
    assert "h264parse ! nvv4l2decoder ! nvvidconv" in source(text, jetson)
    assert "avdec_h264" in source(f"{text}&decoder=software", jetson)
    assert "nvv4l2decoder mjpeg=1" in source("rtp://@:5004?codec=mjpeg", jetson)
    assert "decodebin ! videoconvert" in source("rtsp://cam/1")
    with pytest.raises(CameraError, match="no hardware decoder"):
        source(f"{text}&decoder=hardware")


def test_what_a_user_writes_stays_inside_its_quotes():
    assert r'location="rtsp://cam/a\" ! fakesink b=\"c"' in source('rtsp://cam/a" ! fakesink b="c')


def test_a_users_own_pipeline_is_taken_as_it_is():
    assert source("gst://videotestsrc ! a#b?c=1 ! appsink") == "videotestsrc ! a#b?c=1 ! appsink"
    with pytest.raises(InputError, match="no appsink"):
        source("gst://videotestsrc")


def test_the_encoder_is_the_jetsons_where_there_is_one():
    address = parse("rtp://10.0.0.1:5004?bitrate=2000", "sink")
    assert "x264enc tune=zerolatency speed-preset=ultrafast bitrate=2000" in sink_pipeline(address, desktop)
    assert "nvv4l2h264enc bitrate=2000000" in sink_pipeline(address, jetson)


ALL = [
    *[(text, "source") for text in (
        "csi://1", "rtsp://cam/1", "rtsp://cam/1#codec=h265&transport=udp", "rtp://@:5004", "rtp://239.0.0.1:5004?codec=mjpeg",
        "shm:///tmp/x?format=GRAY8", "gst://videotestsrc ! appsink",
    )],
    *[(text, "sink") for text in ("rtp://127.0.0.1:5004", "rtp://127.0.0.1:5004?codec=mjpeg", "v4l2:///dev/video9",
                                  "shm:///tmp/x", "rtsp://@:8554/a", "rtsp://@:8554/a?codec=mjpeg")],
]  # fmt: skip


@needs_gstreamer
@pytest.mark.parametrize("text, role", ALL)
def test_gstreamer_can_build_every_pipeline(text, role):
    address = parse(text, role)
    if role == "source":
        description = source_pipeline(address, desktop)
    elif address.scheme.name == "rtsp":
        description = rtsp_server_pipeline(address, desktop)
    else:
        description = sink_pipeline(address, desktop)
    missing = [
        word for part in description.split("!")
        if (word := part.strip(" ()").split()[0]) and "/" not in word and not gst.has_element(word)
    ]  # fmt: skip
    if missing:
        pytest.skip(f"GStreamer here has no {', '.join(missing)}")
    assert gst.launch(description, text) is not None


@needs_gstreamer
def test_a_pipeline_that_cannot_be_built_is_said_in_gstreamers_words():
    with pytest.raises(CameraError, match="no element"):
        open_device(parse("gst://nosuchsrc ! appsink", "source")).open(threading.Event())


@pytest.mark.parametrize("form, channels, dtype", [("BGR", 3, "u1"), ("BGRx", 4, "u1"), ("GRAY8", 1, "u1"),
                                                   ("GRAY16_LE", 1, "<u2")])  # fmt: skip
@pytest.mark.parametrize("padding", [0, 6])
def test_bytes_to_pictures(form, channels, dtype, padding):
    pixels = np.random.default_rng(0).integers(0, 1 << 8 * np.dtype(dtype).itemsize, (7, 5, channels)).astype(dtype)
    rows = [row.tobytes() + b"\xff" * padding for row in pixels]
    picture = gst.picture_of(b"".join(rows), form, 5, 7, len(rows[0]))
    assert np.array_equal(picture, pixels[..., 0] if channels == 1 else pixels[..., :3])
    assert picture.flags.c_contiguous and picture.flags.owndata | (picture.base is not None)
    with pytest.raises(CameraError, match="too short"):
        gst.picture_of(b"".join(rows)[:-8], form, 5, 7, len(rows[0]))


def test_a_format_that_is_not_understood_is_said():
    with pytest.raises(CameraError, match="put videoconvert"):
        gst.picture_of(b"", "NV12", 4, 4, 4)


def take(text, count=3):
    """Frames of a source, by itself."""
    device, stop = open_device(parse(text, "source")), threading.Event()
    try:
        device.open(stop)
        return [device.read() for _ in range(count)]
    finally:
        device.close()


def take_from_server(text):
    """Frames of a sender that may not be ready yet; opened again, as a camera is."""
    for attempt in range(4):
        try:
            return take(text)
        except CameraError:
            if attempt == 3:
                raise
            time.sleep(0.1)


@needs_gstreamer
@pytest.mark.parametrize("form, shape, dtype", [("BGR", (48, 50, 3), np.uint8), ("GRAY8", (48, 50), np.uint8),
                                                ("GRAY16_LE", (48, 50), np.uint16)])  # fmt: skip
def test_a_pipeline_of_ones_own(form, shape, dtype):
    caps = f"video/x-raw,format={form},width=50,height=48,framerate=50/1"
    frames = take(f"gst://videotestsrc is-live=true ! {caps} ! appsink")
    assert all(frame.image.shape == shape and frame.image.dtype == dtype for frame in frames)
    assert frames[0].image.std() > 0
    for first, second in itertools.pairwise(frames):
        assert second.stamp - first.stamp == pytest.approx(
            0.02, abs=0.002
        )  # the device's, without the scheduler's jitter
    assert abs(frames[-1].stamp - time.monotonic()) < 2  # on our clock


@needs_gstreamer
def test_the_end_of_a_pipeline_is_the_end():
    frames = take("gst://videotestsrc num-buffers=2 ! video/x-raw,format=GRAY8 ! appsink", 3)
    assert [frame is None for frame in frames] == [False, False, True]


@needs_gstreamer
def test_a_pipeline_that_says_nothing_is_said_in_time():
    start = time.monotonic()
    with pytest.raises(CameraError, match=r"no frame for 0\.3 s"):
        device = open_device(parse("gst://appsrc ! appsink", "source", {"timeout": "0.3"}))
        try:
            device.open(threading.Event())
        finally:
            device.close()
    assert time.monotonic() - start < 60


class Feeding:
    """A sink fed with pictures of a rising grey in a thread; a context manager that gives the sink."""

    def __init__(self, text, size=(96, 64)):
        self.sink, self.size = open_sink(parse(text, "sink")), size
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        k = 0
        while not self._stop.wait(0.03):
            picture = np.full((self.size[1], self.size[0], 3), (200, 120, 40), np.uint8)
            picture[:, k % self.size[0]] = 255
            self.sink.write(picture, k / 30)
            k += 1

    def __enter__(self):
        self._thread.start()
        return self.sink

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self.sink.close()


def is_it(picture):
    return picture.shape == (64, 96, 3) and np.abs(np.median(picture, axis=(0, 1)) - (200, 120, 40)).max() < 8


@needs_gstreamer
@pytest.mark.parametrize("codec", ["h264", "mjpeg"])
def test_an_rtsp_server_read_by_three_clients(codec):
    with Feeding(f"rtsp://@127.0.0.1:0/fused?codec={codec}") as sink:
        for backend in ("gstreamer", "opencv"):
            frames = take_from_server(f"{sink.url}#backend={backend}&timeout=20")
            assert is_it(frames[-1].image), backend
        if shutil.which("ffprobe"):
            told = subprocess.run(
                ["ffprobe", "-v", "error", "-rtsp_transport", "tcp", "-show_entries", "stream=codec_name,width,height",
                 "-of", "csv=p=0", sink.url],
                capture_output=True, text=True, timeout=120,
            ).stdout  # fmt: skip
            assert told.strip() == f"{codec},96,64"


@needs_gstreamer
def test_nothing_is_given_to_a_pipeline_that_does_not_play_yet():
    """It has a clock before it has a base time, and what is stamped then is hours ahead: that client saw nothing."""
    Gst = gst.load()
    pipeline = gst.launch("appsrc name=pyldfusion is-live=true do-timestamp=true format=time ! appsink name=out", "-")
    feed = Feed()
    feed.attach(pipeline.get_by_name("pyldfusion"))
    for state in (None, Gst.State.READY, Gst.State.PAUSED):
        if state is not None:
            pipeline.set_state(state)
        feed.push(np.zeros((8, 8), np.uint8))
        assert pipeline.get_by_name("pyldfusion").get_property("current-level-buffers") == 0
    pipeline.set_state(Gst.State.PLAYING)
    feed.push(np.zeros((8, 8), np.uint8))
    sample = pipeline.get_by_name("out").try_pull_sample(10 * Gst.SECOND)
    pipeline.set_state(Gst.State.NULL)
    assert sample is not None and sample.get_buffer().pts < 60 * Gst.SECOND


@needs_gstreamer
def test_several_clients_at_once_and_a_server_that_leaves_them():
    feeding = Feeding("rtsp://@127.0.0.1:0/fused?codec=mjpeg")
    with feeding as sink:
        devices = [open_device(parse(f"{sink.url}#timeout=20", "source")) for _ in range(3)]
        threads = [threading.Thread(target=device.open, args=(threading.Event(),)) for device in devices]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(is_it(device.read().image) for device in devices)
    assert not sink._thread.is_alive()  # though they are still connected
    for device in devices:
        device.close()


@needs_gstreamer
def test_an_rtsp_camera_that_leaves_and_comes_back(monkeypatch):
    monkeypatch.setattr("pyldfusion.camera.sources.base.FIRST_PAUSE", 0.05)
    feeding = Feeding("rtsp://@127.0.0.1:0/cam?codec=mjpeg")
    with feeding as sink:
        url = sink.url
        pairs = CameraPair(
            "scene://ir?size=96x64&fps=25&repeat=1&bits=8", f"{url}#timeout=2", alone=True, lost_after=0.4
        )
        found = iter(pairs)
        until(found, lambda pair: pair.ir is not None and pair.vis is not None)
        assert pairs.cameras["vis"].clock == "device"
    until(found, lambda pair: pair.vis is None)
    with Feeding(url.replace("rtsp://", "rtsp://@") + "?codec=mjpeg"):
        until(found, lambda pair: pair.ir is not None and pair.vis is not None)
        pairs.close()
    assert pairs.events.counts()["vis back"] == 1


def until(pairs, condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition(next(pairs)):
        assert time.monotonic() < end


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@needs_gstreamer
@pytest.mark.parametrize("codec", ["h264", "mjpeg"])
def test_rtp_from_here_to_here(codec):
    port = free_port()
    with Feeding(f"rtp://127.0.0.1:{port}?codec={codec}"):
        assert is_it(take_from_server(f"rtp://@127.0.0.1:{port}?codec={codec}&timeout=20")[-1].image)


@needs_gstreamer
def test_shared_memory(tmp_path):
    with Feeding(f"shm://{tmp_path}/a?format=BGR"):
        frames = take_from_server(f"shm://{tmp_path}/a?size=96x64&format=BGR&timeout=20")
    assert is_it(frames[-1].image) and frames[0].image.std() > 0


@needs_gstreamer
def test_two_rtsp_cameras_are_a_pair():
    """The two views of a scene, one over H.264 and one over MJPEG."""
    with (
        Feeding("rtsp://@127.0.0.1:0/ir?codec=mjpeg") as ir,
        Feeding("rtsp://@127.0.0.1:0/vis?codec=h264") as vis,
        CameraPair(f"{ir.url}#timeout=20", f"{vis.url}#timeout=20") as pairs,
    ):
        pair = next(iter(pairs))
        assert is_it(pair.ir.image) and is_it(pair.vis.image) and abs(pair.skew) < 5
        assert pair.ir.clock == pair.vis.clock == "device"


@needs_gstreamer
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_h264_files_have_a_bit_rate_and_every_frame(tmp_path, suffix):
    if not gst.has_element("x264enc"):
        pytest.skip("GStreamer here has no x264enc (gstreamer1.0-plugins-ugly)")
    noise = np.random.default_rng(0).integers(0, 256, (8, 121, 163, 3), np.uint8)
    sizes = {}
    for kilobits in (200, 4000):
        path = tmp_path / f"{kilobits}{suffix}"
        with open_sink(parse(f"file://{path}#codec=h264&bitrate={kilobits}", "sink"), 25) as video:
            for k in range(40):
                video.write(noise[k % 8], k / 25)
            assert not path.exists()  # it appears whole
        sizes[kilobits] = path.stat().st_size
        frames = list(VideoReader(path))
        assert len(frames) == 40 and frames[0].shape == (120, 162, 3)
    assert sizes[200] < sizes[4000] / 3
    if shutil.which("ffprobe"):
        told = subprocess.run(
            ["ffprobe", "-v", "error", "-show_entries", "stream=codec_name,r_frame_rate", "-of", "csv=p=0", str(path)],
            capture_output=True, text=True, timeout=120,
        ).stdout  # fmt: skip
        assert told.strip() == "h264,25/1"


@needs_gstreamer
@pytest.mark.parametrize(
    "text, said",
    [
        ("a.avi#codec=h264", "h264 goes into .mp4"),
        ("a.mp4#bitrate=500", "bitrate is of codec=h264"),
        ("a/#codec=h264", "codec is for a video"),
        (f"{ROOT}/README.md/a.mp4#codec=h264", "is not a folder"),
    ],
)
def test_files_that_h264_cannot_be_in(text, said):
    with pytest.raises(InputError, match=said), open_sink(parse(text, "sink"), 25) as video:
        video.write(np.zeros((32, 32), np.uint8), 0.0)


@needs_gstreamer
def test_a_port_in_use_is_said():
    with Feeding("rtsp://@127.0.0.1:0/a") as sink, pytest.raises(CameraError, match="is the port in use"):
        open_sink(parse(f"rtsp://@127.0.0.1:{sink.url.split(':')[2].split('/')[0]}/b", "sink"))


def test_without_gstreamer_the_advice_is_what_to_install(monkeypatch):
    monkeypatch.setattr(gst, "why_not", lambda: "No module named 'gi'; install GStreamer")
    with pytest.raises(ImportError, match="install GStreamer"):
        open_device(parse("csi://0", "source"))
    with pytest.raises(InputError, match="need GStreamer"):
        open_device(parse("rtsp://cam/1#codec=h264", "source"))
    assert type(open_device(parse("rtsp://cam/1", "source"))).__name__ == "OpenCVDevice"


@needs_gstreamer
def test_no_thread_or_file_is_left():
    def once():
        with Feeding("rtsp://@127.0.0.1:0/fused?codec=mjpeg") as sink:
            take_from_server(f"{sink.url}#timeout=20")

    def left():
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    once()  # GStreamer's own threads and pools begin here
    before = left()
    for _ in range(4):
        once()
    end = time.monotonic() + 60  # its threads close what they have in their own time
    while any(now > then for now, then in zip(left(), before, strict=True)) and time.monotonic() < end:
        time.sleep(0.02)
    assert all(now <= then for now, then in zip(left(), before, strict=True)), (left(), before)


@needs_gstreamer
def test_the_engine_can_be_opened_after_a_camera():
    code = (
        "import threading; from pyldfusion import Fuser; from pyldfusion.camera import parse\n"
        "from pyldfusion.camera.sources import open_device\n"
        "camera = open_device(parse('gst://videotestsrc ! video/x-raw,format=BGR ! appsink', 'source'))\n"
        "camera.open(threading.Event()); image = camera.read().image; camera.close()\n"
        "print(Fuser('lite').fuse(image, image).shape)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert run.returncode == 0 and "(240, 320, 3)" in run.stdout, run.stderr
