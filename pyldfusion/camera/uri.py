"""The words for cameras and outputs: one table that parsing, help, checks and the docs are made from.

They are those of jetson-utils (``csi://0``, ``rtsp://...``, ``display://0``), but an unknown scheme, option or value is
an error with the close match. Options follow a ``#``, or a ``?`` where that is not part of the address itself:
``scene://ir?seed=1``, ``rtsp://host/name?key=7#timeout=3``.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote, unquote_plus

from ..errors import InputError, did_you_mean

__all__ = [
    "SCHEMES",
    "Address",
    "Given",
    "Option",
    "Role",
    "Scheme",
    "as_address",
    "options_of",
    "parse",
    "shown",
    "source_options",
    "table",
]

Role = Literal["source", "sink"]


@dataclass(frozen=True)
class Option:
    """One option of a scheme.

    Attributes:
        kind: ``"whole"`` (int), ``"number"`` (float), ``"yes/no"`` (bool), ``"word"`` (one of ``words``) or ``"text"``.
        default: its value where it is not given; None leaves it to the device or the file.
        low, high: bounds of a number.
    """

    name: str
    kind: str
    default: Any
    help: str
    words: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf

    def read(self, text: str) -> Any:
        """The value that ``text`` stands for. Raises InputError."""
        if self.kind == "text" and text:
            return text
        if self.kind == "word" and text in self.words:
            return text
        if self.kind == "yes/no" and text.lower() in _YES_NO:
            return _YES_NO[text.lower()]
        if self.kind in ("whole", "number"):
            try:
                value = int(text) if self.kind == "whole" else float(text)
            except ValueError:
                value = math.nan
            if self.low <= value <= self.high and not math.isinf(value):
                return value
        raise InputError(f"{self.name} is {text!r}; expected {self.expected}{did_you_mean(text, self.words)}")

    @property
    def expected(self) -> str:
        """What a value looks like, in words."""
        if self.kind == "word":
            return ", ".join(self.words)
        if self.kind in ("whole", "number"):
            kind = "a whole number" if self.kind == "whole" else "a number"
            low, high = (f"{bound:g}" for bound in (self.low, self.high))
            return kind if low == "-inf" else f"{kind} from {low}" + ("" if high == "inf" else f" to {high}")
        return {"yes/no": "yes or no", "text": "a text"}[self.kind]


_YES_NO = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}


@dataclass(frozen=True)
class Scheme:
    """One row of the table: a kind of camera or of output.

    Attributes:
        back_end: what does the work.
        tried: with what it was tried; the docs say it.
        target: what stands between ``://`` and the options, as a pattern that the whole of it must match; what it calls
            ``port`` is checked too.
        separators: what begins the options: not ``?`` where that is part of the address, nothing for a pipeline.
    """

    name: str
    role: Role
    example: str
    help: str
    back_end: str
    tried: str
    options: tuple[Option, ...] = ()
    target: str = r".*"
    separators: str = "#?"


@dataclass(frozen=True)
class Address:
    """A URI, taken apart and checked. ``options`` has a value for every option of the scheme."""

    scheme: Scheme
    target: str
    options: Mapping[str, Any]

    def __str__(self) -> str:
        """For people: without options, and without the password; of a file its path."""
        return _for_people(self.scheme.name, self.target)

    @property
    def url(self) -> str:
        """Scheme and target, password included: what a server is asked for."""
        return f"{self.scheme.name}://{self.target}"

    @property
    def host_port(self) -> tuple[str, int]:
        """Of an address that has a port: its host, "" for this machine, and the port."""
        host, _, port = self.target.partition("/")[0].removeprefix("@").rpartition(":")
        return host, int(port)


#: How addresses end that have a port.
_PORT = r":(?P<port>\d{1,5})"

_RATE = Option("rate", "number", None, "frames a second", low=0.01, high=1000)
_WIDTH = Option("width", "whole", None, "pixels", low=16, high=16384)
_HEIGHT = Option("height", "whole", None, "pixels", low=16, high=16384)
_TIMEOUT = Option("timeout", "number", 5.0, "seconds without a frame after which it is opened anew", low=0.1, high=600)

_CODEC = ("h264", "h265", "mjpeg")
#: Those of :mod:`pyldfusion.scene`, which takes OpenCV to import.
_SCENES = ("night", "dusk", "day", "fog", "smoke", "rain", "indoor")
#: Of network streams that GStreamer reads: the codec first.
_DECODING = (
    Option("codec", "word", None, "of the stream (default: found out)", _CODEC),
    Option("latency", "whole", 100, "of the jitter buffer, ms", low=0, high=10000),
    Option("decoder", "word", "auto", "hardware is a Jetson's", ("auto", "software", "hardware")),
)
#: Of network streams that GStreamer sends.
_ENCODING = (
    Option("codec", "word", "h264", "of the stream", ("h264", "mjpeg")),
    Option("bitrate", "whole", 4000, "of h264, kbit/s", low=50, high=200000),
)
#: What every camera has.
_SOURCE = (
    Option("flip", "word", "none", "mirrored, or turned clockwise, before --ir-layout",
           ("none", "horizontal", "vertical", "rotate-90", "rotate-180", "rotate-270")),
)  # fmt: skip
#: What every output has.
_SINK = (
    Option("queue", "whole", 4, "frames that may wait for it", low=1, high=1000),
    Option("full", "word", "auto", "when they do: drop the oldest, wait (files from files), or auto",
           ("auto", "drop", "wait")),
)  # fmt: skip

SCHEMES: tuple[Scheme, ...] = (
    Scheme(
        "file", "source", "file:///data/ir.mp4", "a video, picture, directory, pattern or raw Y16 file; the bare path",
        "OpenCV", "files on disk",
        (
            Option("rate", "number", None, "frames a second (default: the video's, else 25)", low=0.01, high=1000),
            Option("loop", "whole", 1, "times to play it; 0 is without end", low=0),
            Option("pace", "yes/no", False, "play at its rate; otherwise as fast as the frames are taken"),
            Option("width", "whole", None, "of a raw file", low=1, high=16384),
            Option("height", "whole", None, "of a raw file", low=1, high=16384),
        ), r".+", separators="#",
    ),
    Scheme(
        "scene", "source", "scene://ir?size=640x480&fps=9&seed=1", "one of the two views of a generated street",
        "pyldfusion.scene", "generated",
        (
            Option("width", "whole", 320, "pixels", low=16, high=8192),
            Option("height", "whole", 256, "pixels", low=16, high=8192),
            Option("rate", "number", 30.0, "frames a second", low=0.01, high=1000),
            Option("seed", "whole", 0, "which street", low=0),
            Option("kind", "word", "night", "light and weather", _SCENES),
            Option("bits", "whole", 16, "of the infrared view: 8, or 16 for counts of 0.04 K", low=8, high=16),
            Option("noise", "number", None, "kelvin in ir, grey levels in vis (default: 0.05, 1.5)", low=0, high=255),
            Option("jitter", "number", 0.0, "standard deviation of the arrival, ms", low=0, high=10000),
            Option("lag", "number", 0.0, "from exposure to arrival, ms", low=0, high=10000),
            Option("drops", "number", 0.0, "share of frames that are lost", low=0, high=0.99),
            Option("frames", "whole", 0, "how many there are; 0 is without end", low=0),
            Option("repeat", "whole", 0, "draw so many frames, then show them again and again; 0 draws all", low=0),
            Option("live", "yes/no", True, "in real time; otherwise as fast as the frames are taken"),
        ), r"(ir|vis)",
    ),
    Scheme(
        "csi", "source", "csi://0?size=1280x720&fps=30", "a camera on a Jetson's CSI connector, by its number",
        "GStreamer (nvarguscamerasrc)", "not run on hardware", (_WIDTH, _HEIGHT, _RATE, _TIMEOUT), r"\d{1,2}",
    ),
    Scheme(
        "rtsp", "source", "rtsp://192.168.1.20/stream1", "a network camera",
        "GStreamer where it is installed, else OpenCV (FFmpeg)", "servers on loopback, H.264 and MJPEG; no camera",
        (
            _TIMEOUT,
            Option("transport", "word", "tcp", "of the pictures", ("tcp", "udp")),
            Option("backend", "word", "auto", "who reads it", ("auto", "gstreamer", "opencv")),
            *_DECODING,
        ), r"[^/].*", separators="#",
    ),
    Scheme(
        "rtp", "source", "rtp://@:5004?codec=h264", "RTP over UDP, sent to a port of this machine",
        "GStreamer", "a sender on loopback; no camera",
        (_TIMEOUT, replace(_DECODING[0], default="h264"), *_DECODING[1:]), rf"@?[^/@:]*{_PORT}",
    ),
    Scheme(
        "gst", "source", "gst://videotestsrc is-live=true ! appsink", "any GStreamer pipeline that ends in an appsink",
        "GStreamer", "test sources, 8 and 16 bits", (_RATE, _TIMEOUT), r".+", separators="",
    ),
    Scheme(
        "shm", "source", "shm:///tmp/ir.sock?size=640x512&format=GRAY16_LE",
        "frames of another program, in shared memory", "GStreamer (shmsrc)", "a sender on this machine",
        (
            Option("width", "whole", 640, "pixels", low=16, high=16384),
            Option("height", "whole", 480, "pixels", low=16, high=16384),
            Option("rate", "number", 30.0, "frames a second", low=0.01, high=1000),
            Option("format", "word", "BGR", "of the pixels", ("BGR", "BGRx", "GRAY8", "GRAY16_LE")),
            _TIMEOUT,
        ), r"/.+",
    ),
    *(
        Scheme(
            name, "source", f"{name}://192.168.1.20/video.mjpg", "MJPEG over HTTP",
            "OpenCV (FFmpeg)", "a server on loopback; no camera" if name == "http" else "not run",
            (_TIMEOUT,), r"[^/].*", separators="#",
        )
        for name in ("http", "https")
    ),
    Scheme(  # the last one's options are those that --help explains
        "v4l2", "source", "v4l2:///dev/video0?format=Y16", "a USB or built-in camera; also /dev/video0, or 0",
        "OpenCV; V4L2 itself for 16 bits and raw", "not run on hardware; a simulated driver",
        (
            _WIDTH, _HEIGHT, _RATE, Option("format", "text", None, "up to four letters: Y16, YUYV, MJPG, ..."),
            Option("raw", "yes/no", False, "frames as they are sent, YUYV as [H,W,2]; Y10 to Y16 always are"),
            replace(_TIMEOUT, help=f"{_TIMEOUT.help} (v4l2 through OpenCV: 10)"),
        ), r"/dev/\S+",
    ),
    Scheme(
        "file", "sink", "file:///data/fused.mp4", "a video (.mp4 .mkv .avi) or pictures (img_%05d.png); the bare path",
        "OpenCV; GStreamer for H.264", "files on disk",
        (
            Option("rate", "number", None, "of a video (default: the cameras')", low=0.01, high=1000),
            Option("codec", "word", "auto", "of a video: by its suffix, or H.264 through GStreamer", ("auto", "h264")),
            Option("bitrate", "whole", None, "of h264, kbit/s (default: 4000)", low=50, high=200000),
        ), r".+", separators="#",
    ),
    Scheme(
        "http", "sink", "http://@:8080", "a page with the moving picture (MJPEG), for any browser",
        "http.server", "clients on loopback",
        (Option("quality", "whole", 80, "of the JPEG pictures", low=1, high=100),), rf"@?[^/?#@:]*{_PORT}",
    ),
    Scheme(
        "rtsp", "sink", "rtsp://@:8554/fused", "an RTSP server",
        "GStreamer (gst-rtsp-server)", "ffprobe, OpenCV and GStreamer on loopback", _ENCODING, rf"@?[^/@:]*{_PORT}/.+",
    ),
    Scheme(
        "rtp", "sink", "rtp://192.168.1.5:5004", "RTP over UDP, to a port of a machine",
        "GStreamer", "loopback", _ENCODING, rf"[^/@:]+{_PORT}",
    ),
    Scheme(
        "v4l2", "sink", "v4l2:///dev/video9", "a loopback device (v4l2loopback), as a camera for other programs",
        "GStreamer (v4l2sink)", "not run on hardware", target=r"/dev/\S+",
    ),
    Scheme(
        "shm", "sink", "shm:///tmp/fused.sock", "shared memory, for another program",
        "GStreamer (shmsink)", "a reader on this machine",
        (Option("format", "word", "BGR", "of the pixels", ("BGR", "BGRx", "GRAY8")),), r"/.+",
    ),
    Scheme(
        "display", "sink", "display://0", "a window; q or Escape in it ends the stream",
        "GStreamer (ximagesink, waylandsink), or OpenCV where it has windows",
        "GStreamer on a virtual X server (Xvfb); no screen", target=r"\d*",
    ),
    Scheme("null", "sink", "null://", "nowhere, to measure", "-", "yes", target=r""),
)  # fmt: skip

#: Other words for options, as other programs have them.
_SYNONYMS = {"fps": "rate", "framerate": "rate"}


def options_of(scheme: Scheme) -> tuple[Option, ...]:
    """All options of a row: its own and those that every source or sink has."""
    return scheme.options + (_SOURCE if scheme.role == "source" else _SINK)


def parse(text: str, role: Role, given: Mapping[str, str] | None = None) -> Address:
    """Take a URI apart.

    Args:
        text: ``scheme://target``, a path, or for a source a number or ``/dev/videoN``.
        role: what it is used as.
        given: options from elsewhere, as text; they win over those in ``text``.

    Raises:
        InputError: an unknown scheme, option or value, with the close match.
    """
    name, separator, rest = text.partition("://")
    if not separator:
        name, rest = _bare(text, role)
    scheme = _scheme(name.lower(), role, rest)
    target, options = _split(rest, scheme)
    options = _spelt(options) | _spelt(dict(given or {}))
    where = _for_people(scheme.name, target)
    match = re.fullmatch(scheme.target, target, re.DOTALL)
    if match is None:
        raise InputError(f"{where}: not a {scheme.name} address; expected for example {scheme.example}")
    if int(match.groupdict().get("port", 0)) > 65535:
        raise InputError(f"{where}: there is no port {match['port']}; expected one up to 65535")
    known = {option.name: option for option in options_of(scheme)}
    for word in options:
        if word not in known:
            close = did_you_mean(word, known) or f"; it has {', '.join(known)}"
            raise InputError(f"{where}: {word!r} is not an option of a {scheme.name} {role}{close}")
    values = {option.name: option.default for option in known.values()}
    for word, value in options.items():
        try:
            values[word] = known[word].read(value)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    return Address(scheme, unquote(target) if scheme.name == "file" and separator else target, values)


#: What programs give for an address: its text, a parsed one, a path, or the number of a USB camera.
Given: TypeAlias = "str | int | Path | Address"


def as_address(given: Given, role: Role) -> Address:
    """The address of what a program gave: one, its text, a path, or for a source the number of a USB camera.

    Raises:
        InputError: anything else, a number that no camera has, or what :func:`parse` raises.
    """
    if isinstance(given, Address):
        return given
    if isinstance(given, str):
        return parse(given, role)
    if isinstance(given, Path):
        text = str(given)
        return parse(f"./{text}" if text.isdigit() else text, role)  # a path of digits is no number of a camera
    if role == "source" and isinstance(given, Integral) and not isinstance(given, bool):
        if not 0 <= int(given) <= 99:
            raise InputError(f"camera {given}: no number of a USB camera; expected 0 to 99, as 0 for /dev/video0")
        return parse(str(int(given)), role)
    kind, further = ("a camera", ", or a number such as 0 for /dev/video0") if role == "source" else ("an output", "")
    raise InputError(f"{kind} is {given!r} ({type(given).__name__}); expected an address as text, a path{further}")


def table(role: Role) -> str:
    """The rows of one role as a Markdown table, options with their defaults; the docs hold it word for word."""
    lines = [
        f"| {'camera' if role == 'source' else 'output'} | example | options (default) | back end | tried with |",
        "|---|---|---|---|---|",
    ]
    for scheme in SCHEMES:
        if scheme.role == role:
            options = ", ".join(
                f"`{option.name}`" + ("" if option.default is None else f" ({shown(option.default)})")
                for option in scheme.options
            )
            lines.append(
                f"| {scheme.help} | `{scheme.example}` | {options or '-'} | {scheme.back_end} | {scheme.tried} |"
            )
    return "\n".join(lines)


def _for_people(name: str, target: str) -> str:
    """An address without its password; that of a file as people write it."""
    return target if name == "file" else f"{name}://{re.sub(r':[^/?#]*@', ':***@', target)}"


def _bare(text: str, role: Role) -> tuple[str, str]:
    """Scheme and rest of what was given without a scheme."""
    if role == "source" and re.fullmatch(r"\d{1,2}", text):
        return "v4l2", f"/dev/video{text}"
    if role == "source" and text.startswith("/dev/"):
        return "v4l2", text
    return "file", text


def _scheme(name: str, role: Role, rest: str) -> Scheme:
    where = _for_people(name, rest)
    names = list(dict.fromkeys(scheme.name for scheme in SCHEMES if scheme.role == role))
    for scheme in SCHEMES:
        if (scheme.name, scheme.role) == (name, role):
            return scheme
    if any(scheme.name == name for scheme in SCHEMES):
        kinds = ("where pictures go, not a camera", "cameras") if role == "source" else ("a camera", "outputs")
        raise InputError(f"{where}: {name}:// is {kinds[0]}; {kinds[1]} are {', '.join(names)}")
    close = did_you_mean(name, names) or f"; known are {', '.join(names)}"
    raise InputError(f"{where}: {name!r} is not a scheme of a {role}{close}")


def _split(rest: str, scheme: Scheme) -> tuple[str, dict[str, str]]:
    """The target and the options as text; a file whose name has the separators in it is taken as it is."""
    if scheme.name == "file" and os.path.exists(rest):
        return rest, {}
    target, *rests = re.split(f"[{scheme.separators}]", rest, maxsplit=1) if scheme.separators else [rest]
    options: dict[str, str] = {}
    for item in rests[0].split("&") if rests and rests[0] else []:
        word, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"{_for_people(scheme.name, target)}: option {item!r} has no value; write {word}=VALUE")
        if unquote_plus(word) in options:
            raise InputError(f"{_for_people(scheme.name, target)}: option {word!r} is given twice")
        options[unquote_plus(word)] = unquote_plus(value)
    return target, options


def _spelt(options: Mapping[str, str]) -> dict[str, str]:
    """Options by their own names: synonyms replaced, ``size`` taken apart."""
    found: dict[str, str] = {}
    for word, value in options.items():
        if word == "size":
            match = re.fullmatch(r"(\d+)[xX](\d+)", value)
            if match is None:
                raise InputError(f"size is {value!r}; expected WIDTHxHEIGHT such as 640x480")
            found |= {"width": match[1], "height": match[2]}
        else:
            found[_SYNONYMS.get(word, word)] = value
    return found


def shown(value: Any) -> str:
    """A value of an option as it is written."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def source_options() -> Iterable[tuple[Option, list[str]]]:
    """Every option that a camera may have, with the schemes that have it."""
    found: dict[str, tuple[Option, list[str]]] = {}
    for scheme in SCHEMES:
        if scheme.role == "source":
            for option in options_of(scheme):
                schemes = [*found[option.name][1], scheme.name] if option.name in found else [scheme.name]
                found[option.name] = option, schemes  # the last one's words are the general ones
    return found.values()
