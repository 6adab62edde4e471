"""Raw V4L2: against the kernel's own header, constructed buffers, and a simulated driver. Not run on hardware."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import subprocess
import threading

import cv2
import numpy as np
import pytest

from pyldfusion.camera import parse, v4l2
from pyldfusion.camera.sources import BadFrame, open_device
from pyldfusion.errors import CameraError, InputError

HEADER = r"""
#include <linux/videodev2.h>
#include <stddef.h>
#include <stdio.h>
#define SIZE(name) printf("SIZES %s %zu\n", #name, sizeof(struct v4l2_##name))
#define VALUE(ours, theirs) printf("%s - %lu\n", #ours, (unsigned long)(theirs))
int main(void) {
  SIZE(capability); SIZE(format); SIZE(requestbuffers); SIZE(buffer); SIZE(streamparm);
  VALUE(QUERYCAP, VIDIOC_QUERYCAP); VALUE(S_FMT, VIDIOC_S_FMT); VALUE(REQBUFS, VIDIOC_REQBUFS);
  VALUE(QUERYBUF, VIDIOC_QUERYBUF); VALUE(QBUF, VIDIOC_QBUF); VALUE(DQBUF, VIDIOC_DQBUF);
  VALUE(STREAMON, VIDIOC_STREAMON); VALUE(S_PARM, VIDIOC_S_PARM);
  VALUE(CAPTURE, V4L2_BUF_TYPE_VIDEO_CAPTURE); VALUE(MMAP, V4L2_MEMORY_MMAP);
  VALUE(CAP_VIDEO_CAPTURE, V4L2_CAP_VIDEO_CAPTURE); VALUE(CAP_STREAMING, V4L2_CAP_STREAMING);
  VALUE(CAP_DEVICE_CAPS, V4L2_CAP_DEVICE_CAPS); VALUE(FLAG_ERROR, V4L2_BUF_FLAG_ERROR);
  VALUE(FLAG_TIMESTAMP_MASK, V4L2_BUF_FLAG_TIMESTAMP_MASK);
  VALUE(FLAG_TIMESTAMP_MONOTONIC, V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC);
  struct v4l2_buffer b = {0};
  b.index = 3; b.type = 1; b.bytesused = 70000; b.flags = 0x2041; b.timestamp.tv_sec = 12345; b.timestamp.tv_usec = 678;
  b.sequence = 99; b.memory = 1; b.m.offset = 0x20000; b.length = 81920;
  printf("BYTES buffer "); for (size_t k = 0; k < sizeof b; ++k) printf("%02x", ((unsigned char *)&b)[k]); puts("");
  struct v4l2_format f = {0};
  f.type = 1; f.fmt.pix.width = 640; f.fmt.pix.height = 514; f.fmt.pix.pixelformat = V4L2_PIX_FMT_Y16;
  f.fmt.pix.field = V4L2_FIELD_NONE; f.fmt.pix.bytesperline = 1280;
  printf("BYTES format "); for (size_t k = 0; k < sizeof f; ++k) printf("%02x", ((unsigned char *)&f)[k]); puts("");
  struct v4l2_streamparm p = {0};
  p.type = 1; p.parm.capture.timeperframe.numerator = 1000; p.parm.capture.timeperframe.denominator = 8700;
  printf("BYTES rate "); for (size_t k = 0; k < sizeof p; ++k) printf("%02x", ((unsigned char *)&p)[k]); puts("");
  printf("OFFSET capabilities %zu\n", offsetof(struct v4l2_capability, capabilities));
  printf("OFFSET device_caps %zu\n", offsetof(struct v4l2_capability, device_caps));
  return 0;
}
"""


def test_requests_and_structures_are_the_headers(tmp_path):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not os.path.exists("/usr/include/linux/videodev2.h"):
        pytest.skip("no C compiler, or no linux/videodev2.h")
    (tmp_path / "header.c").write_text(HEADER)
    subprocess.run([compiler, str(tmp_path / "header.c"), "-o", str(tmp_path / "header")], check=True)
    told = subprocess.run([str(tmp_path / "header")], capture_output=True, text=True, check=True).stdout
    form, buffer = (
        v4l2.PixelFormat(640, 514, "Y16", 1280),
        v4l2.Buffer(3, 70000, 0x2041, 12345.000678, 99, 0x20000, 81920),
    )
    ours = {"buffer": buffer.pack(), "format": form.pack(), "rate": v4l2.pack_rate(8.7)}
    offsets = {"capabilities": "84", "device_caps": "88"}
    for word, name, value in (line.split() for line in told.splitlines()):
        if word == "SIZES":
            assert v4l2.SIZES[name] == int(value), name
        elif word == "BYTES":
            assert ours[name].hex() == value, name
        elif word == "OFFSET":
            assert offsets[name] == value
        else:
            assert getattr(v4l2, word) == int(value), word
    assert v4l2.PixelFormat.unpack(form.pack()) == form
    assert v4l2.Buffer.unpack(buffer.pack()) == buffer and buffer.stamp == pytest.approx(12345.000678)
    assert v4l2.unpack_rate(ours["rate"]) == pytest.approx(8.7)


@pytest.mark.parametrize("padding", [0, 10])
@pytest.mark.parametrize("code", ["Y16", "Y14", "GREY", "YUYV"])
def test_frames_of_bytes(code, padding):
    channels, dtype = v4l2.RAW_FORMATS[code]
    pixels = np.random.default_rng(0).integers(0, 200, (6, 8, channels)).astype(dtype)
    data = b"".join(row.tobytes() + b"\xee" * padding for row in pixels)
    form = v4l2.PixelFormat(8, 6, code, len(data) // 6)
    frame = v4l2.decode(data, form)
    assert np.array_equal(frame, pixels[..., 0] if channels == 1 else pixels)
    assert frame.dtype == (np.uint16 if code.startswith("Y1") else np.uint8) and frame.flags.writeable
    with pytest.raises(BadFrame, match="a frame of 8x6"):
        v4l2.decode(data[: len(data) // 2], form)


def test_jpeg_frames():
    picture = np.full((16, 24, 3), 77, np.uint8)
    data = cv2.imencode(".jpg", picture)[1].tobytes()
    form = v4l2.PixelFormat(24, 16, "MJPG", 0)
    assert v4l2.decode(data, form).shape == (16, 24, 3)
    for torn in (b"", b"no picture"):
        with pytest.raises(BadFrame, match="no JPEG"):
            v4l2.decode(torn, form)


class Driver:
    """What a V4L2 driver does at each request, with a memory file for its buffers and a pipe that tells of frames."""

    def __init__(self, form, frames, caps=v4l2.CAP_VIDEO_CAPTURE | v4l2.CAP_STREAMING):
        self.form, self.frames, self.caps = form, list(frames), caps
        self.size = -(-form.stride * form.height // mmap.PAGESIZE) * mmap.PAGESIZE
        self.memory = os.memfd_create("v4l2")
        os.ftruncate(self.memory, 4 * self.size)
        self.queued, self.log = [], []

    def ioctl(self, file, request, data, _):
        name = next(name for name in ("QUERYCAP", "S_FMT", "S_PARM", "REQBUFS", "QUERYBUF", "QBUF", "DQBUF", "STREAMON")
                    if getattr(v4l2, name) == request)  # fmt: skip
        self.log.append(name)
        if name == "QUERYCAP":
            data[84:88] = (self.caps | v4l2.CAP_DEVICE_CAPS).to_bytes(4, "little")
            data[88:92] = self.caps.to_bytes(4, "little")
        elif name == "S_FMT":
            data[:] = self.form.pack()
        elif name == "QUERYBUF":
            slot = v4l2.Buffer.unpack(data).slot
            data[:] = v4l2.Buffer(slot, offset=slot * self.size, length=self.size).pack()
        elif name == "QBUF":
            self.queued.append(v4l2.Buffer.unpack(data).slot)
        elif name == "DQBUF":
            self._fill(data)

    def _fill(self, data):
        step = self.frames.pop(0)
        if isinstance(step, OSError):
            raise step
        picture, flags, seconds, sequence = step
        slot = self.queued.pop(0)
        os.pwrite(self.memory, picture, slot * self.size)
        data[:] = v4l2.Buffer(slot, len(picture), flags, seconds, sequence, slot * self.size, self.size).pack()


@pytest.fixture
def simulate(monkeypatch):
    """Makes a driver the one behind every file that is opened by the device."""

    def install(driver):
        module = "pyldfusion.camera.sources.v4l2"
        monkeypatch.setattr(f"{module}.fcntl.ioctl", driver.ioctl)
        monkeypatch.setattr(f"{module}.os.open", lambda *_: os.dup(driver.memory))
        monkeypatch.setattr(f"{module}.select.select", lambda files, *_: (files if driver.frames else [], [], []))
        return driver

    return install


COUNTS = np.arange(24 * 32, dtype="<u2").reshape(24, 32)
FORM = v4l2.PixelFormat(32, 24, "Y16", 64)
MONOTONIC = v4l2.FLAG_TIMESTAMP_MONOTONIC


def device(text="v4l2:///dev/video7?format=Y16&size=32x24&fps=9&timeout=0.2"):
    return open_device(parse(text, "source"))


def test_a_thermal_camera_is_streamed(simulate):
    frames = [
        ((COUNTS + k).tobytes(), MONOTONIC, 100 + k / 9, number) for k, number in enumerate((0, 1, 4, 5, 6, 7, 8))
    ]
    driver = simulate(Driver(FORM, frames))
    camera = device()
    camera.open(threading.Event())
    assert driver.log[:3] == ["QUERYCAP", "S_FMT", "S_PARM"] and driver.log[-1] == "STREAMON"
    assert driver.queued == [0, 1, 2, 3] and camera.rate == pytest.approx(9)
    taken = [camera.read() for _ in frames]
    assert all(np.array_equal(t.image, COUNTS + k) for k, t in enumerate(taken))
    assert [t.lost for t in taken] == [0, 0, 2, 0, 0, 0, 0]
    assert taken[3].stamp == pytest.approx(100 + 3 / 9, abs=1e-5)
    assert len(driver.queued) == 4  # every buffer went back
    with pytest.raises(CameraError, match=r"no frame for 0\.2 s"):
        camera.read()
    camera.close()
    camera.close()


def test_faults_of_a_driver(simulate):
    good = (COUNTS.tobytes(), 0, 5.0, 0)
    frames = [good, (COUNTS.tobytes(), v4l2.FLAG_ERROR, 5.1, 1), (b"short", 0, 5.2, 2), BlockingIOError(), good]
    simulate(Driver(FORM, [*frames, OSError(errno.ENODEV, "gone")]))
    camera = device()
    camera.open(threading.Event())
    assert camera.read().stamp is None  # not on the monotonic clock
    for said in ("is damaged", "5 bytes"):
        with pytest.raises(BadFrame, match=said):
            camera.read()
    assert camera.read() is not None
    with pytest.raises(CameraError, match="No such device"):
        camera.read()
    camera.close()


def test_a_double_frame_of_a_camera_that_says_yuyv(simulate):
    from pyldfusion.camera.layouts import find_layout

    double = np.vstack([np.zeros_like(COUNTS), COUNTS])
    simulate(Driver(v4l2.PixelFormat(32, 48, "YUYV", 64), [(double.tobytes(), 0, 0.0, 0)]))
    camera = device("v4l2:///dev/video7?format=YUYV&raw=yes&size=32x48")
    camera.open(threading.Event())
    assert np.array_equal(find_layout("lower-half")(camera.read().image), COUNTS)
    camera.close()


@pytest.mark.parametrize(
    "driver, said",
    [
        (Driver(FORM._replace(width=640), []), "gives 640x24 Y16, not 32x24 Y16"),
        (Driver(FORM._replace(code="YUYV"), []), "gives 32x24 YUYV, not 32x24 Y16"),
        (Driver(FORM, [], caps=v4l2.CAP_STREAMING), "is no camera that streams"),
    ],
)
def test_a_device_that_does_not_do_what_is_asked(simulate, driver, said):
    simulate(driver)
    camera = device()
    with pytest.raises(CameraError, match=said):
        camera.open(threading.Event())
    camera.close()


def test_what_is_no_device(tmp_path):
    (tmp_path / "video0").write_bytes(b"x")
    for text, said in (("/dev/video99", "No such file"), ("/dev/null", "Inappropriate ioctl")):
        with pytest.raises(CameraError, match=said):
            device(f"{text}?format=Y16").open(threading.Event())
    with pytest.raises(InputError, match="did you mean 'Y16'"):
        device("/dev/video0?raw=yes&format=Y61")
    assert type(device("/dev/video0?format=YUYV")).__name__ == "OpenCVDevice"
