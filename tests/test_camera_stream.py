"""The pipeline and its verb: files in, files out; live scenes; faults; signals; options from a file."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest

from pyldfusion import Fuser, cli
from pyldfusion.calibration import Calibration, Plane
from pyldfusion.camera import CameraPair, Events, FramePair
from pyldfusion.camera.prepare import Preparer
from pyldfusion.camera.sinks import Sink
from pyldfusion.camera.stream import Stream
from pyldfusion.camera.systemd import notify, service
from pyldfusion.cli import stream
from pyldfusion.cli.parser import Parser
from pyldfusion.errors import InputError
from pyldfusion.registration import Registration
from pyldfusion.scene import Scene
from pyldfusion.thermal import GainControl

from .camera_frames import frame
from .conftest import ROOT
from .mjpeg_server import MjpegServer

SIZE = (96, 64)
LIVE = "size=96x64&fps=25&repeat=2&seed=1"


@pytest.fixture(scope="module")
def fuser():
    with Fuser("lite", threads=1) as fuser:
        yield fuser


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Six pairs as 16-bit and colour pictures, and the visible ones as a video."""
    folder = tmp_path_factory.mktemp("pairs")
    scene = Scene(1, SIZE, bits=16)
    video = cv2.VideoWriter(str(folder / "vis.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, SIZE)
    for k in range(6):
        ir, vis = scene.render(k / 10)
        for side, picture in (("ir", ir), ("vis", vis)):
            (folder / side).mkdir(exist_ok=True)
            cv2.imwrite(str(folder / side / f"{k}.png"), picture)
        video.write(vis)
    video.release()
    return folder


def read(folder):
    return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(folder.glob("*.png"))]


def test_every_pair_of_files_is_fused_as_by_hand(fuser, pictures, tmp_path):
    with (
        CameraPair(str(pictures / "ir"), str(pictures / "vis")) as pairs,
        Stream(fuser, pairs, [f"{tmp_path}/out/", f"{tmp_path}/out.avi", "null://"]) as running,
    ):
        running.run()
    gain = GainControl()
    sides = zip(read(pictures / "ir"), read(pictures / "vis"), strict=True)
    expected = [fuser.fuse(gain(ir, k / 25), vis) for k, (ir, vis) in enumerate(sides)]
    assert len(expected) == 6 and np.array_equal(read(tmp_path / "out"), expected)
    stats = running.stats()
    assert stats["fused"] == 6 and stats["skipped"] == 0 and stats["events"] == {}
    assert all(each == {"written": 6, "dropped": 0, "failed": False} for each in stats["outputs"].values())
    assert {"pair", "prepare", "engine", "show", "total"} <= stats["latency_ms"].keys()
    assert json.dumps(stats)


def test_stream_takes_pairs(fuser, pictures):
    with CameraPair(f"scene://ir?{LIVE}&live=no&bits=8&frames=3", f"scene://vis?{LIVE}&live=no&frames=3") as pairs:
        assert len(list(fuser.stream(pairs))) == 3


class Collect(Sink):
    def __init__(self):
        self.pictures, self.times = [], []

    def write(self, picture, time):
        self.pictures.append(picture)
        self.times.append(time)


@pytest.fixture
def collected(monkeypatch):
    """What reaches null://."""
    sink = Collect()
    monkeypatch.setattr("pyldfusion.camera.stream.open_sink", lambda *_: sink)
    return sink


def test_live_scenes_end_by_frames_and_duration(fuser, collected):
    with CameraPair(f"scene://ir?{LIVE}", f"scene://vis?{LIVE}") as pairs:
        with Stream(fuser, pairs, ["null://"], words=True, view="side") as running:
            running.run(frames=5)
        assert running.stats()["shown"] == 5 and collected.pictures[0].shape == (64, 3 * 96, 3)
    with CameraPair(f"scene://ir?{LIVE}", f"scene://vis?{LIVE}") as pairs, Stream(fuser, pairs, ["null://"]) as running:
        start = time.monotonic()
        running.run(duration=0.5)
        assert 0.4 < time.monotonic() - start < 60
    assert all(b > a for a, b in itertools.pairwise(collected.times[:5]))


def test_a_camera_that_leaves_is_shown_as_left(fuser, collected):
    server = MjpegServer(size=SIZE)
    with (
        CameraPair(f"scene://ir?{LIVE}", f"{server.url}#timeout=1.5", alone=True, lost_after=0.4) as pairs,
        Stream(fuser, pairs, ["null://"]) as running,
    ):
        runner = threading.Thread(target=running.run)
        runner.start()
        wait_for(lambda: running.fused >= 2)
        server.close()
        wait_for(lambda: running.alone >= 3)  # the infrared alone, on the visible frame's size
        assert runner.is_alive()
        running.stop()
        runner.join(60)
    assert {picture.shape for picture in collected.pictures} == {(64, 96, 3)}
    last = collected.pictures[-1]
    assert np.array_equal(last[..., 0], last[..., 2]) and last.std() > 5
    assert running.stats()["events"]["vis lost"] == 1


def wait_for(condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    assert condition()


def test_a_stream_without_outputs_left_ends(fuser, tmp_path):
    class Full(Sink):
        def write(self, picture, time):
            raise InputError("the disk is full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyldfusion.camera.stream.open_sink", lambda *_: Full())
        with (
            CameraPair(f"scene://ir?{LIVE}", f"scene://vis?{LIVE}") as pairs,
            Stream(fuser, pairs, ["null://"]) as running,
            pytest.raises(RuntimeError, match="every output has failed"),
        ):
            running.run()


def pair_of(ir, vis, time=0.0):
    return FramePair(
        None if ir is None else frame(time, image=ir), None if vis is None else frame(time, image=vis), 0.0, False, 0
    )


GREY, COLOUR = np.full((32, 48), 90, np.uint8), np.full((64, 96, 3), 50, np.uint8)


def test_preparing_puts_infrared_onto_the_visible_frame():
    prepared = Preparer()(pair_of(GREY, COLOUR))
    assert prepared.ir.shape == (64, 96) and prepared.ir.dtype == np.uint8 and prepared.flags == ()
    homography = np.array([[1.0, 0, 20], [0, 1, 10], [0, 0, 1]])
    prepared = Preparer(Registration(homography))(pair_of(GREY, COLOUR))
    assert prepared.cover[25, 40] == 1 and prepared.cover[0, 0] == 0


def test_preparing_what_is_left_of_a_pair():
    prepare = Preparer()
    assert prepare(pair_of(GREY, COLOUR)).flags == ()
    alone = prepare(pair_of(None, COLOUR))
    assert alone.ir is None and alone.vis is COLOUR and alone.flags == ("ir lost",)
    alone = prepare(pair_of(GREY, None))
    assert alone.ir.shape == (64, 96) and alone.vis is None and alone.flags == ("vis lost",)


def test_infrared_alone_at_the_beginning_is_shown_whatever_the_calibration():
    alone = Preparer()(pair_of(GREY, None))
    assert alone.ir is GREY and alone.flags == ("vis lost",)  # nothing says where it would lie
    calibration = Calibration((48, 32), (96, 54), (Plane(np.diag([2.0, 2.0, 1.0])),))
    prepare = Preparer(Registration(calibration=calibration))
    assert prepare(pair_of(GREY, None)).ir.shape == (54, 96)  # as it will be when the visible camera is there
    assert prepare(pair_of(GREY, np.full((54, 96, 3), 50, np.uint8))).flags == ()


def test_packed_pixels_need_a_layout():
    packed = np.zeros((32, 48, 2), np.uint8)
    with pytest.raises(InputError, match="--ir-layout y16"):
        Preparer()(pair_of(packed, COLOUR))
    assert Preparer(layout="y16")(pair_of(packed, COLOUR)).flags == ()


def test_the_first_pair_must_fit_and_later_ones_are_told():
    tall = np.random.default_rng(0).integers(0, 256, (3, 48, 32), np.uint8)
    with pytest.raises(InputError, match="differ by more than 2 % in aspect"):
        Preparer()(pair_of(tall[0], COLOUR))
    events = Events()
    prepare = Preparer(events=events)
    prepare(pair_of(GREY, COLOUR))
    for k in range(3):
        prepared = prepare(pair_of(tall[k], COLOUR, k))
        assert prepared.ir is None and prepared.flags == ("ir unusable",)
    assert events.counts() == {"ir unusable": 3}


@pytest.mark.parametrize("frozen", ["hold", "visible"])
def test_frozen_infrared(frozen):
    prepare = Preparer(frozen=frozen)
    for k in range(20):
        prepared = prepare(pair_of(GREY.copy(), COLOUR, k / 30))
    assert prepared.flags == ("ir frozen",) and (prepared.ir is None) == (frozen == "visible")


def test_layouts_and_gain_are_applied():
    counts = np.linspace(7000, 8000, 64 * 96).reshape(64, 96).astype(np.uint16)
    double = np.vstack([np.zeros_like(counts), counts])
    prepare = Preparer(
        gain=GainControl("fixed", (7000, 8000)), layout="lower-half", dead_pixels=True, column_noise=True
    )
    prepared = prepare(pair_of(double, COLOUR))
    assert prepared.ir.shape == (64, 96) and prepared.ir[0, 0] < 3 and prepared.ir[-1, -1] > 252


# the verb


def test_the_verb_on_files(pictures, tmp_path, capsys):
    out = tmp_path / "out.avi"
    words = ["stream", str(pictures / "ir"), str(pictures / "vis.avi"), str(out), "--ir-rate", "10", "--stats", "-"]
    assert cli.main([*words, "--gain", "plateau", "--view", "pip"]) == 0
    told = capsys.readouterr()
    final = json.loads(told.out.splitlines()[-1])
    assert final["final"] and final["fused"] == 6 and final["cameras"]["skew_ms"]["p99"] == 0
    assert cv2.VideoCapture(str(out)).get(cv2.CAP_PROP_FRAME_COUNT) == 6
    assert "6 pairs fused" in told.err and "latency" not in told.err  # of files it is how long they waited


@pytest.mark.parametrize(
    "words",
    [
        ["{0}/ir", "{0}/vis", "{0}/vis/%03d.png"],
        ["{0}/ir", "{0}/vis", "{0}/out/../ir/{{index}}.png"],
        ["{0}/ir", "{0}/vis", "{0}/link/"],
        ["{0}/ir", "{0}/vis", "null://", "file://{0}/link/a_%d.jpg"],
        ["{0}/ir/*.png", "{0}/vis/*.png", "{0}/ir/%d.png"],
        ["{0}/ir/1.png", "{0}/vis/1.png", "{0}/vis/%d.png"],
        ["{0}/ir/1.png", "{0}/vis/1.png", "{0}/link/{{index}}.png"],
        ["{0}/linked.png", "{0}/ir/1.png", "{0}/vis/%d.png"],
        ["{0}/ir", "{0}/vis.avi", "null://", "--stats", "{0}/vis.avi"],
        ["{0}/ir", "{0}/vis.avi", "null://", "--stats", "{0}/ir/1.png"],
    ],
)
def test_input_pictures_are_never_written_over(pictures, tmp_path, words, capsys):
    shutil.copytree(pictures, tmp_path / "s")
    (tmp_path / "s" / "link").symlink_to(tmp_path / "s" / "vis")
    (tmp_path / "s" / "linked.png").symlink_to(tmp_path / "s" / "vis" / "2.png")
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    assert cli.main(["stream", *(word.format(tmp_path / "s") for word in words), "--model", "pyramid"]) == 2
    told = capsys.readouterr().err
    assert re.search("would (write|replace)", told) and "Traceback" not in told
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()} == files


@pytest.mark.parametrize(
    "ir, vis, out, made",
    [
        ("ir/1.png", "vis/1.png", "vis/fused_%d.png", "vis/fused_0.png"),  # a name that no input has
        ("ir/", "vis/", "vis/fused/", "vis/fused/000000.png"),
        ("ir/", "vis.avi", "%d.png", "0.png"),
    ],
)
def test_pictures_beside_inputs_are_fine(pictures, tmp_path, ir, vis, out, made):
    shutil.copytree(pictures, tmp_path / "s")
    words = [f"{tmp_path}/s/{word}" for word in (ir, vis, out)]
    assert cli.main(["stream", *words, "--model", "pyramid", "-q", "--frames", "1"]) == 0
    assert (tmp_path / "s" / made).exists()


def test_one_pair_is_told_in_the_singular_and_with_what(pictures, capsys):
    words = [str(pictures / "ir" / "1.png"), str(pictures / "vis" / "1.png"), "null://"]
    assert cli.main(["stream", *words, "--model", "pyramid"]) == 0
    opening, running, summary = capsys.readouterr().err.splitlines()
    assert opening == f"pyldfusion stream: opening {words[0]} and {words[1]}"
    assert re.search(r" to null:// by pyramid on \w+ \w+; Ctrl-C ends it$", running)
    assert summary == "pyldfusion stream: 1 pair fused, 0 pictures of one camera, 0 pairs skipped"


def test_live_cameras_have_their_latency_in_the_summary(capsys):
    scenes = [f"scene://{view}?{LIVE}" for view in ("ir", "vis")]
    assert cli.main(["stream", *scenes, "null://", "--model", "pyramid", "--frames", "2"]) == 0
    assert re.search(r"2 pairs fused.*; latency p50 \d+ ms", capsys.readouterr().err)


def test_cameras_are_announced_before_they_are_opened(capsys):
    assert cli.main(["stream", "/dev/video97", "scene://vis", "null://", "--model", "pyramid"]) == 2
    assert capsys.readouterr().err.startswith("pyldfusion stream: opening v4l2:///dev/video97 and scene://vis\n")


def test_a_stream_that_fuses_nothing_says_so_and_ends_with_1(pictures, tmp_path, capsys):
    (tmp_path / "ir").mkdir()
    (tmp_path / "ir" / "1.png").write_bytes(b"no picture")
    words = [str(tmp_path / "ir"), str(pictures / "vis" / "1.png"), f"{tmp_path}/out.avi", "--model", "pyramid", "-q"]
    assert cli.main(["stream", *words, "--pairing", "drop"]) == 1
    assert "nothing was fused: IR gave 0 frames, VIS 1 frame; check" in capsys.readouterr().err
    scene = "size=96x64&live=no&frames=1"
    words = [f"scene://ir?{scene}", f"scene://vis?{scene}", "null://", "--model", "pyramid", "-q", "--ir-delay", "900"]
    assert cli.main(["stream", *words, "--pairing", "drop", "--max-skew", "5"]) == 1
    assert "no pair came of them; see --pairing, --max-skew and --ir-delay" in capsys.readouterr().err


def test_a_raw_file_without_its_size(pictures, tmp_path, capsys):
    raw = tmp_path / "counts.raw"
    raw.write_bytes(np.arange(96 * 64, dtype="<u2").tobytes())
    words = [str(pictures / "vis" / "1.png"), "null://", "--model", "pyramid", "-q"]
    assert cli.main(["stream", str(raw), *words]) == 2
    told = capsys.readouterr().err
    assert "raw infrared has no size in the file" in told and f"{raw}#size=WIDTHxHEIGHT" in told
    assert cli.main(["stream", f"{raw}#size=96x64", *words]) == 0
    assert cli.main(["stream", str(raw), *words, "--ir-width", "96", "--ir-height", "64"]) == 0
    assert cli.main(["stream", str(tmp_path / "none.raw"), *words]) == 2
    assert "no such file" in capsys.readouterr().err


def test_options_from_a_file_and_the_command_line_wins(pictures, tmp_path, capsys):
    config = tmp_path / "cameras.toml"
    config.write_text(
        f'ir = "{pictures}/ir"\nvis = "{pictures}/vis"\nout = ["{tmp_path}/a/", "null://"]\nframes = 4\n'
        'thermal = [7000, 7600]\nview = "ir"\nir-rate = 25\nquiet = true\n'
    )
    assert cli.main(["stream", "--config", str(config), "--frames", "2", "--view=fused"]) == 0
    assert len(read(tmp_path / "a")) == 2
    config.write_text('veiw = "ir"\n')
    assert cli.main(["stream", "--config", str(config), "a", "b"]) == 2
    assert f"--config {config}: 'veiw' is not an option; did you mean 'view'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content, words",
    [
        ("drift = true", ["--drift"]),
        ("overlay = false\ndrift = false", []),
        ("ir-live = false\nvis-raw = true", ["--ir-live=no", "--vis-raw=yes"]),  # switches of the file, not of argparse
        ("thermal = [-5, 7000]\nir-loop = 1000000", ["--thermal", "-5", "7000", "--ir-loop=1000000"]),
    ],
)
def test_values_of_a_file(tmp_path, content, words):
    config = tmp_path / "cameras.toml"
    config.write_text(content)
    arguments = stream.expand(["a", "b", "null://", "--config", str(config)])
    assert arguments[: len(words)] == words
    parser = Parser("pyldfusion stream", None)
    stream.add_arguments(parser)
    assert parser.parse(arguments).uris == ["a", "b", "null://"]  # a last switch takes none of them


@pytest.mark.parametrize(
    "content, said",
    [
        ("overlya = false", "did you mean 'overlay'"),
        ("overlay = 'yes'", "overlay is 'yes'; expected true or false"),
        ("view = ['ir', 'pip']", "expected one value"),
        ("thermal = [1, 2, 3]", "expected a list of 2"),
        ("thermal = 3", "expected a list of 2"),
        ("[ir]\nrate = 3", "expected one value"),
        ("config = 'other.toml'", "'config' is not an option"),
    ],
)
def test_mistakes_in_a_file(tmp_path, content, said, capsys):
    config = tmp_path / "cameras.toml"
    config.write_text(content)
    assert cli.main(["stream", "--config", str(config), "a", "b"]) == 2
    told = capsys.readouterr().err
    assert said in told and f"--config {config}: " in told


def test_list_schemes_and_help_come_from_the_table(capsys):
    from pyldfusion.camera.uri import SCHEMES, options_of

    assert cli.main(["stream", "--list-schemes"]) == 0
    told = capsys.readouterr().out
    assert cli.main(["stream", "--help"]) == 0
    helped = capsys.readouterr().out
    for scheme in SCHEMES:
        assert scheme.example in told and scheme.tried in told
        for option in options_of(scheme):
            assert option.name in told
            assert scheme.role == "sink" or f"--ir-{option.name} " in helped


def test_help_imports_nothing_heavy():
    code = "import sys; from pyldfusion.cli import main; main(['stream', '--list-schemes']); "
    code += "print({'torch', 'onnxruntime', 'openvino'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert told.stdout.endswith("set()\n")


@pytest.mark.parametrize(
    "words, said",
    [
        (["scene://ir"], "two cameras are needed"),
        (["scene://ir", "scene://viz"], "expected for example scene://ir"),
        ([f"scene://ir?{LIVE}", f"scene://vis?{LIVE}", "fused.mp5"], "cannot write .mp5"),
        (["scene://ir", "scene://vis", "null://", "--ir-sed", "3"], "did you mean '--ir-seed'"),
        (["scene://ir", "scene://vis", "null://", "--ir-loop", "3"], "'loop' is not an option of a scene source"),
        (["scene://ir", "scene://vis", "null://", "--ir-layout", "doubel"], "layout is 'doubel'"),
        (["scene://ir", "scene://vis", "null://", "--max-skew", "-1"], "not a number of at least 0"),
        (["none.mp4", "scene://vis", "null://"], "no such file"),
        (["ir.mp4", "vis.mp4", "./vis.mp4"], "would replace an input or another output"),
        (["scene://ir", "scene://vis", "a.mp4", "file://a.mp4"], "would replace an input or another output"),
        (["scene://ir", "scene://vis", "null://", "--config", "none.toml"], "none.toml"),
    ],
)
def test_mistakes_are_one_line(words, said, capsys):
    assert cli.main(["stream", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_a_verb_whose_outputs_fail_says_so_and_ends_with_1(pictures, tmp_path, capsys, monkeypatch):
    class Full(Sink):
        def write(self, picture, time):
            raise InputError("the disk is full")

    monkeypatch.setattr("pyldfusion.camera.stream.open_sink", lambda *_: Full())
    words = ["stream", str(pictures / "ir"), str(pictures / "vis"), "null://", "--model", "pyramid", "-q"]
    assert cli.main([*words, "--stats", f"{tmp_path}/stats"]) == 1
    assert "null://: the disk is full" in capsys.readouterr().err
    assert json.loads((tmp_path / "stats").read_text().splitlines()[-1])["final"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device here")
def test_statistics_that_cannot_be_written_do_not_end_the_stream(pictures, tmp_path, capsys):
    words = ["stream", str(pictures / "ir"), str(pictures / "vis"), f"{tmp_path}/out/", "--model", "pyramid", "-q"]
    assert cli.main([*words, "--stats", "/dev/full"]) == 1
    assert "--stats /dev/full: No space left" in capsys.readouterr().err
    assert len(read(tmp_path / "out")) == 6


DOCS = (ROOT / "docs" / "cameras.md").read_text()
COMMANDS = re.findall(r"^pyldfusion stream ([^#\n]+)", DOCS, re.M)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_docs_commands_can_be_read(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cameras.toml").write_text(re.search(r"```toml\n(.*?)```", DOCS, re.S)[1])
    parser = argparse.ArgumentParser(exit_on_error=False)
    stream.add_arguments(parser)
    args = parser.parse_intermixed_args(stream.expand(shlex.split(command)))
    cameras, outputs = stream._addresses(args)
    assert len(cameras) == (0 if args.replay else 2) and outputs


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signals_finish_the_files(number, code, tmp_path):
    out = tmp_path / "out.avi"
    run = subprocess.Popen(
        [sys.executable, "-m", "pyldfusion", "stream", f"scene://ir?{LIVE}", f"scene://vis?{LIVE}", str(out),
         f"{tmp_path}/all/", "--threads", "1"],
        cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_for(lambda: len(list(tmp_path.glob("all/*.png"))) >= 3)
        assert not out.exists()
        run.send_signal(number)
        _, told = run.communicate(timeout=120)
    finally:
        run.kill()
    assert run.returncode == code, told
    assert cv2.VideoCapture(str(out)).read()[0] and "pairs fused" in told and "Traceback" not in told


def test_systemd_is_told(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "60000")
        made = itertools.chain([1, 2, 2, 2], itertools.repeat(3))
        with service(lambda: next(made)):
            told = [manager.recv(100) for _ in range(4)]  # a picture that stays the second tells nothing
        assert [*told, manager.recv(100)] == [b"READY=1", *[b"WATCHDOG=1"] * 3, b"STOPPING=1"]
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify("READY=1")


def test_nothing_is_left_behind(fuser):
    before, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with (
            CameraPair(f"scene://ir?{LIVE}", f"scene://vis?{LIVE}") as pairs,
            Stream(fuser, pairs, ["http://@127.0.0.1:0", "null://"]) as running,
        ):
            running.run(frames=2)
    wait_for(lambda: threading.active_count() <= before)
    assert len(os.listdir("/proc/self/fd")) <= files
