"""The table of cameras and outputs: what parses, what is refused and with which hint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyldfusion.camera.uri import SCHEMES, as_address, options_of, parse, table
from pyldfusion.errors import InputError
from pyldfusion.scene import KINDS

from .conftest import ROOT


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: f"{scheme.role}-{scheme.name}")
def test_every_example_parses(scheme):
    address = parse(scheme.example, scheme.role)
    assert address.scheme is scheme
    assert set(address.options) == {option.name for option in options_of(scheme)}


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: f"{scheme.role}-{scheme.name}")
def test_defaults_and_words_are_values(scheme):
    for option in options_of(scheme):
        assert option.help and option.expected
        if option.kind == "word":
            assert option.default is None or option.default in option.words
        if option.default is not None and not isinstance(option.default, bool):
            assert option.read(str(option.default)) == option.default


def test_every_kind_of_scene_can_be_a_camera():
    (words,) = (option.words for option in parse("scene://ir", "source").scheme.options if option.name == "kind")
    assert words == tuple(KINDS)


@pytest.mark.parametrize(
    "text, scheme, target",
    [
        ("0", "v4l2", "/dev/video0"),
        ("/dev/video2", "v4l2", "/dev/video2"),
        ("v4l2:///dev/video1", "v4l2", "/dev/video1"),
        ("clip.mp4", "file", "clip.mp4"),
        ("ir/*.png", "file", "ir/*.png"),
        ("ir/img_???.png", "file", "ir/img_???.png"),
        ("file:///data/a%20b.mp4", "file", "/data/a b.mp4"),
        ("file:///data/a+b.mp4", "file", "/data/a+b.mp4"),
        ("RTSP://user:word@10.0.0.1/s?x=1", "rtsp", "user:word@10.0.0.1/s?x=1"),
        ("http://cam/video.mjpg?user=me&width=5", "http", "cam/video.mjpg?user=me&width=5"),
        ("scene://ir", "scene", "ir"),
    ],
)
def test_sources(text, scheme, target):
    address = parse(text, "source")
    assert (address.scheme.name, address.target) == (scheme, target)


def test_options_and_their_synonyms():
    address = parse("scene://ir?size=640x480&fps=9&seed=3&live=no", "source", {"rate": "12.5"})
    options = address.options
    assert (options["width"], options["height"], options["seed"], options["live"]) == (640, 480, 3, False)
    assert options["rate"] == 12.5  # what is given apart wins
    assert options["jitter"] == 0.0


def test_the_password_is_for_the_server_alone():
    for text in ("rtsp://me:secret@cam/1", "rtsp://me:se:secret@cam/1", "rtsp://me:p@secret@cam:554/1"):
        address = parse(text, "source")
        assert "secret" not in str(address) and "me:***@cam" in str(address) and "secret" in address.url
    for text, role in (
        ("rtsp://me:secret@cam/1#timeout=never", "source"),
        ("rtsp://me:secret@cam/1#timeout", "source"),
        ("rtsp://me:secret@cam/1#timeout=1&timeout=2", "source"),
        ("rstp://me:secret@cam/1", "source"),
        ("https://me:secret@cam/1", "sink"),
        ("rtsp://me:secret@cam:554/1", "sink"),
    ):
        with pytest.raises(InputError, match=r"me:\*\*\*@cam") as caught:
            parse(text, role)
        assert "secret" not in str(caught.value)
    assert str(parse("rtsp://cam:554/a@b", "source")) == "rtsp://cam:554/a@b"
    assert str(parse("http://@:8080", "sink")) == "http://@:8080"


def test_a_file_is_said_as_it_is_written():
    assert str(parse("out.mp4#rate=5", "sink")) == "out.mp4" == str(parse("file://out.mp4", "sink"))


def test_a_file_with_separators_in_its_name(tmp_path):
    file = tmp_path / "a#rate=3.png"
    file.write_bytes(b"x")
    assert parse(str(file), "source").target == str(file)


@pytest.mark.parametrize(
    "text, role, said",
    [
        ("rttsp://cam/1", "source", "did you mean 'rtsp'?"),
        ("scne://ir", "source", "did you mean 'scene'?"),
        ("gopher://ir", "source", "known are"),
        ("display://0", "source", "display:// is where pictures go, not a camera"),
        ("scene://ir", "sink", "scene:// is a camera"),
        ("scene://thermal", "source", "expected for example scene://ir"),
        ("scene://ir?sed=1", "source", "did you mean 'seed'?"),
        ("scene://ir?bogus=1", "source", "it has width"),
        ("scene://ir?seed=one", "source", "expected a whole number from 0"),
        ("scene://ir?drops=1", "source", "expected a number from 0 to 0.99"),
        ("scene://ir?rate=nan", "source", "expected a number"),
        ("scene://ir?live=maybe", "source", "expected yes or no"),
        ("scene://ir?kind=nigth", "source", "did you mean 'night'?"),
        ("scene://ir?seed", "source", "write seed=VALUE"),
        ("scene://ir?seed=1&seed=2", "source", "given twice"),
        ("scene://ir?size=640", "source", "WIDTHxHEIGHT"),
        ("rtsp://cam/1#transport=tpc", "source", "did you mean 'tcp'?"),
        ("v4l2://video0", "source", "expected for example v4l2:///dev/video0"),
        ("rtsp://", "source", "not a rtsp address"),
        ("http://@:port", "sink", "expected for example http://@:8080"),
        ("http://@:80800", "sink", "there is no port 80800"),
        ("rtsp://@:85540/fused", "sink", "there is no port 85540"),
        ("rtp://@:99999", "source", "there is no port 99999"),
        ("null://x", "sink", "not a null address"),
        ("", "source", "not a file address"),
    ],
)
def test_refused(text, role, said):
    with pytest.raises(InputError, match=said.replace("?", r"\?").replace("(", r"\(")):
        parse(text, role)


@given(st.text(max_size=40), st.sampled_from(["source", "sink"]))
def test_any_text_parses_or_is_refused(text, role):
    try:
        parse(text, role)
    except InputError as error:
        assert str(error)


def test_the_docs_have_the_table():
    docs = (ROOT / "docs" / "cameras.md").read_text()
    for role in ("source", "sink"):
        assert table(role) in docs


@pytest.mark.parametrize(
    "camera, scheme, target",
    [
        (0, "v4l2", "/dev/video0"),
        (np.int64(12), "v4l2", "/dev/video12"),
        ("0", "v4l2", "/dev/video0"),
        (Path("/dev/video3"), "v4l2", "/dev/video3"),
        (Path("clips/ir.mp4"), "file", "clips/ir.mp4"),
        (Path("0"), "file", "./0"),  # a path is no number
    ],
)
def test_what_programs_give_as_a_camera(camera, scheme, target):
    address = as_address(camera, "source")
    assert (address.scheme.name, address.target) == (scheme, target)
    assert as_address(address, "source") is address


@pytest.mark.parametrize(
    "camera, role, said",
    [
        (-1, "source", "camera -1: no number of a USB camera; expected 0 to 99"),
        (100, "source", "expected 0 to 99"),
        (True, "source", r"a camera is True \(bool\); expected an address as text, a path, or a number"),
        (None, "source", r"a camera is None \(NoneType\)"),
        (1.0, "source", r"a camera is 1.0 \(float\)"),
        (0, "sink", r"an output is 0 \(int\); expected an address as text, a path$"),
    ],
)
def test_what_is_no_camera(camera, role, said):
    with pytest.raises(InputError, match=said):
        as_address(camera, role)


def test_paths_are_outputs_too():
    assert as_address(Path("fused.mp4"), "sink").target == "fused.mp4"
