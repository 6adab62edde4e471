"""GStreamer pipelines as text, made from addresses: what is asked and what is installed decide, nothing runs here."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..errors import CameraError, InputError
from .uri import Address

__all__ = ["FORMATS", "WINDOWS", "file_pipeline", "rtsp_server_pipeline", "sink_pipeline", "source_pipeline"]

#: Whether GStreamer has an element of this name.
Has = Callable[[str], bool]

#: Pixel formats that are understood at the end of a source's pipeline.
FORMATS = ("BGR", "BGRx", "GRAY8", "GRAY16_LE")

#: What says that there is a screen to: the element that shows a window there.
WINDOWS = {"DISPLAY": "ximagesink", "WAYLAND_DISPLAY": "waylandsink"}

#: Codec to: name in RTP, depayloader, parser, software decoder, hardware decoder (Jetson), payloader.
CODECS = {
    "h264": ("H264", "rtph264depay", "h264parse", "avdec_h264", "nvv4l2decoder", "rtph264pay config-interval=1"),
    "h265": ("H265", "rtph265depay", "h265parse", "avdec_h265", "nvv4l2decoder", "rtph265pay config-interval=1"),
    "mjpeg": ("JPEG", "rtpjpegdepay", "jpegparse", "jpegdec", "nvv4l2decoder mjpeg=1", "rtpjpegpay"),
}

#: Suffix of a file to what puts H.264 into it.
_MUXERS = {".mp4": "mp4mux", ".m4v": "mp4mux", ".mov": "qtmux", ".mkv": "matroskamux"}

_TO_BGR = "videoconvert ! video/x-raw,format=BGR"
_FROM_NVMM = f"nvvidconv ! video/x-raw,format=BGRx ! {_TO_BGR}"
_APPSRC = "appsrc name=pyldfusion is-live=true do-timestamp=true format=time"
#: The newest frame only, at once.
_APPSINK = "appsink name=pyldfusion max-buffers=1 drop=true sync=false"


def source_pipeline(address: Address, has: Has) -> str:
    """The pipeline of a camera, up to its ``appsink``.

    Args:
        has: whether an element is installed, for ``decoder=auto``.

    Raises:
        InputError: a ``gst://`` pipeline without an appsink.
        CameraError: a hardware decoder was asked for and is not installed.
    """
    name, target, options = address.scheme.name, address.target, address.options
    if name == "gst":
        if "appsink" not in target:
            raise InputError(f"gst://{target}: the pipeline has no appsink; end it with ! appsink")
        return target
    if name == "csi":
        wanted = _caps("video/x-raw(memory:NVMM)", options["width"], options["height"], options["rate"], "NV12")
        return f"nvarguscamerasrc sensor-id={target} ! {wanted} ! {_FROM_NVMM} ! {_APPSINK}"
    if name == "shm":
        caps = _caps("video/x-raw", options["width"], options["height"], options["rate"], options["format"])
        return f"shmsrc socket-path={quoted(target)} is-live=true do-timestamp=true ! {caps} ! {_APPSINK}"
    decode = _decode(address, has)
    if name == "rtp":
        host, port = address.host_port
        listen = f"address={quoted(host)} " if host else ""
        rtp = CODECS[options["codec"]][0]
        caps = f"application/x-rtp,media=video,clock-rate=90000,encoding-name={rtp}"
        return (
            f"udpsrc {listen}port={port} caps={quoted(caps)} ! rtpjitterbuffer latency={options['latency']} ! "
            f"{decode} ! {_APPSINK}"
        )
    location = quoted(address.url)
    source = f"rtspsrc location={location} latency={options['latency']} protocols={options['transport']}"
    return f"{source} ! {decode} ! {_APPSINK}"


def sink_pipeline(address: Address, has: Has) -> str:
    """The pipeline of an output, from its ``appsrc`` of BGRx frames."""
    name, target = address.scheme.name, address.target
    source = f"{_APPSRC} ! videoconvert"
    if name == "rtp":
        host, port = address.host_port
        return f"{source} ! {_encode(address, has)} ! udpsink host={quoted(host)} port={port} sync=false"
    if name == "v4l2":
        return f"{source} ! video/x-raw,format=YUY2 ! v4l2sink device={quoted(target)} sync=false"
    if name == "display":
        element = next((e for variable, e in WINDOWS.items() if os.environ.get(variable) and has(e)), "autovideosink")
        return f"{source} ! {element} sync=false"
    return (
        f"{source} ! video/x-raw,format={address.options['format']} ! "
        f"shmsink socket-path={quoted(target)} wait-for-connection=false sync=false shm-size=67108864"
    )


def rtsp_server_pipeline(address: Address, has: Has) -> str:
    """What an RTSP server runs for its clients."""
    return f"( {_APPSRC} ! videoconvert ! {_encode(address, has)} name=pay0 )"


def file_pipeline(path: str, kilobits: int, has: Has) -> str:
    """From an ``appsrc`` of BGRx frames with times to a file of H.264. Raises InputError for another suffix."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in _MUXERS:
        raise InputError(f"{path}: h264 goes into {' '.join(_MUXERS)}, not {suffix or 'a file without suffix'}")
    source = "appsrc name=pyldfusion format=time block=true max-bytes=16777216"
    return f"{source} ! videoconvert ! {_h264(kilobits, has)} ! {_MUXERS[suffix]} ! filesink location={quoted(path)}"


def quoted(text: str) -> str:
    """Text as a value in a pipeline description."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _decode(address: Address, has: Has) -> str:
    """From RTP to BGR."""
    codec, decoder = address.options["codec"], address.options["decoder"]
    hardware = decoder == "hardware" or (decoder == "auto" and has("nvv4l2decoder") and has("nvvidconv"))
    if decoder == "hardware" and not (has("nvv4l2decoder") and has("nvvidconv")):
        raise CameraError(f"{address}: there is no hardware decoder (nvv4l2decoder) here; take decoder=software")
    if codec is None:
        return f"decodebin ! {_FROM_NVMM if hardware else _TO_BGR}"
    _, depay, parse, software, chip, _ = CODECS[codec]
    return f"{depay} ! {parse} ! {f'{chip} ! {_FROM_NVMM}' if hardware else f'{software} ! {_TO_BGR}'}"


def _encode(address: Address, has: Has) -> str:
    """From raw video to RTP."""
    codec, kilobits = address.options["codec"], address.options["bitrate"]
    pay = CODECS[codec][5]
    if codec == "mjpeg":
        # JPEG is full-range BT.601; without the word the greys would be squeezed to 16..235.
        return f"video/x-raw,format=I420,colorimetry=(string)1:4:0:0 ! jpegenc ! {pay}"
    return f"{_h264(kilobits, has)} ! {pay}"


def _h264(kilobits: int, has: Has) -> str:
    """From raw video to H.264."""
    if has("nvv4l2h264enc") and has("nvvidconv"):
        chip = f"nvv4l2h264enc bitrate={1000 * kilobits} insert-sps-pps=true maxperf-enable=true"
        return f"nvvidconv ! video/x-raw(memory:NVMM),format=NV12 ! {chip} ! h264parse"
    encoder = f"x264enc tune=zerolatency speed-preset=ultrafast bitrate={kilobits} key-int-max=30"
    return f"video/x-raw,format=I420 ! {encoder} ! h264parse"


def _caps(kind: str, width: int | None, height: int | None, rate: float | None, form: str | None) -> str:
    parts = [kind]
    parts += [f"format={form}"] * (form is not None)
    parts += [f"{name}={value}" for name, value in (("width", width), ("height", height)) if value is not None]
    if rate is not None:
        parts.append(f"framerate={round(1000 * rate)}/1000")
    return ",".join(parts)
