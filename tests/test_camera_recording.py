"""Recorded pairs: without loss, with their times, and fused again to the same pictures."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from pyldfusion import Fuser, cli
from pyldfusion.camera import CameraPair, Events, FramePair, Recorder, Recording, Stream
from pyldfusion.errors import InputError

from .camera_frames import frame

RNG = np.random.default_rng(0)


def pictures(shape, dtype=np.uint8, count=4):
    return [RNG.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True) for _ in range(count)]


def record(folder, pairs, live=False):
    events = Events()
    with Recorder(folder, events, live, (9.0, 30.0)) as recorder:
        for pair in pairs:
            recorder.put(pair)
    return recorder, events.counts()


def same(first, second):
    assert (first is None) == (second is None)
    if first is not None:
        assert first.image.dtype == second.image.dtype and np.array_equal(first.image, second.image)
        assert (first.time, first.clock, first.number, first.dropped) == (
            second.time, second.clock, second.number, second.dropped,
        )  # fmt: skip


@pytest.mark.parametrize("shape, dtype", [((49, 67), np.uint16), ((49, 67), np.uint8), ((49, 67, 3), np.uint8)])
def test_pairs_come_back_bit_for_bit(tmp_path, shape, dtype):
    irs = [frame(0.1 + k / 9, k, image=image) for k, image in enumerate(pictures(shape, dtype))]
    viss = [frame(k / 30, 2 * k, image=image) for k, image in enumerate(pictures((66, 98, 3), count=6))]
    pairs = [FramePair(irs[k // 3], vis, 0.001 * k, k % 3 > 0, k) for k, vis in enumerate(viss)]
    pairs.insert(2, FramePair(None, frame(0.05, image=viss[0].image), None, False, 9))
    pairs.append(FramePair(irs[2], None, None, False, 10))
    recorder, events = record(tmp_path / "r", pairs)
    assert recorder.written == len(pairs) and not recorder.failed and events == {}
    again = list(Recording(tmp_path / "r"))
    assert len(again) == len(pairs)
    for first, second in zip(pairs, again, strict=True):
        same(first.ir, second.ir)
        same(first.vis, second.vis)
        assert (first.skew, first.held) == (second.skew, second.held)
    assert again[0].ir is again[1].ir  # a held frame is one frame
    assert Recording(tmp_path / "r").rates == (pytest.approx(9), pytest.approx(30))


def test_other_programs_can_read_it(tmp_path):
    irs = pictures((48, 64), np.uint16)
    record(tmp_path, [FramePair(frame(k, image=ir), None, None, False, k) for k, ir in enumerate(irs)])
    capture = cv2.VideoCapture(str(tmp_path / "ir.mkv"))
    assert capture.get(cv2.CAP_PROP_FOURCC) == cv2.VideoWriter.fourcc(*"ffv1")
    assert not (tmp_path / "vis.mkv").exists()
    assert [json.loads(line)["ir"]["time"] for line in (tmp_path / "pairs.jsonl").read_text().splitlines()] == [
        0,
        1,
        2,
        3,
    ]


def test_a_raw_yuyv_frame_is_kept_as_words(tmp_path):
    image = pictures((48, 32, 2))[0]
    record(tmp_path, [FramePair(frame(0, image=image), None, None, False, 0)])
    (pair,) = Recording(tmp_path)
    assert np.array_equal(pair.ir.image, image.view("<u2")[..., 0])


def test_frames_that_change_end_the_recording_and_what_was_there_is_whole(tmp_path):
    sizes = [(48, 64)] * 3 + [(24, 32)] + [(48, 64)] * 50
    pairs = [FramePair(frame(k, image=np.zeros(s, np.uint8)), None, None, False, k) for k, s in enumerate(sizes)]
    recorder, events = record(tmp_path, pairs)
    assert recorder.failed and recorder.written == 3 and events == {"recording ended": 1}
    assert len(list(Recording(tmp_path))) == 3


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is not a folder"):
        Recorder(tmp_path / "file", Events(), live=False)
    scene = "size=48x32&repeat=1&live=no&frames=3"
    words = ["stream", f"scene://ir?{scene}", f"scene://vis?{scene}", "null://", "--model", "pyramid", "-q"]
    assert cli.main([*words, "--record", str(tmp_path / "file")]) == 2


def test_what_is_no_recording(tmp_path):
    with pytest.raises(InputError, match="no recording"):
        Recording(tmp_path)
    record(tmp_path, [FramePair(frame(k), None, None, False, k) for k in range(3)])
    index = tmp_path / "pairs.jsonl"
    lines = index.read_text()
    for damaged in (
        "{",
        '{"skew": 1}\n',
        lines + lines.splitlines()[-1].replace('"frame": 2', '"frame": 9'),
        lines.replace('"frame": 2', '"frame": 0'),
        "[1]\n",
        '{"skew": 0, "held": false, "ir": {"kind": []}}\n',
    ):
        index.write_text(damaged)
        with pytest.raises(InputError, match=r"damaged"):
            list(Recording(tmp_path))


def test_a_recording_without_its_video(tmp_path):
    record(tmp_path, [FramePair(frame(0), None, None, False, 0)])
    (tmp_path / "ir.mkv").unlink()
    with pytest.raises(InputError, match=r"ir\.mkv: no such file"):
        list(Recording(tmp_path))


def test_a_live_stream_recorded_and_replayed_gives_the_same_pictures(tmp_path, capsys):
    """Every pair of a run from files, with gain over time and held frames, and again from its recording."""
    scenes = [f"scene://{view}?size=64x48&live=no&seed=2&repeat=3&frames=12" for view in ("ir", "vis")]
    words = ["--gain", "plateau", "--threads", "1", "-q"]
    first = ["stream", f"{scenes[0]}&fps=9", f"{scenes[1]}&fps=30", f"{tmp_path}/first/", *words]
    assert cli.main([*first, "--record", f"{tmp_path}/kept", "--stats", f"{tmp_path}/stats"]) == 0
    final = json.loads((tmp_path / "stats").read_text().splitlines()[-1])
    assert final["recorded"] == {"pairs": final["fused"], "dropped": 0, "failed": False}
    assert cli.main(["stream", "scene://ir", "scene://vis", "null://", "--replay", f"{tmp_path}/kept", *words]) == 2
    assert "--replay takes the place of IR and VIS" in capsys.readouterr().err
    assert cli.main(["stream", "--replay", f"{tmp_path}/kept", f"{tmp_path}/again/", *words]) == 0
    pairs = zip(sorted((tmp_path / "first").iterdir()), sorted((tmp_path / "again").iterdir()), strict=True)
    compared = [np.array_equal(cv2.imread(str(a)), cv2.imread(str(b))) for a, b in pairs]
    assert len(compared) >= 10 and all(compared)


def test_live_pairs_can_be_recorded(tmp_path):
    scene = "size=48x32&fps=25&repeat=1"
    with CameraPair(f"scene://ir?{scene}&frames=8", f"scene://vis?{scene}&frames=8") as cameras:
        recorder, _ = record(tmp_path, taken := list(cameras), live=True)
    assert recorder.written + recorder.dropped == len(taken)
    for first, second in zip(taken, Recording(tmp_path), strict=recorder.dropped == 0):
        same(first.vis, second.vis)


@pytest.fixture
def kept(tmp_path):
    """A recording of three pairs."""
    folder = tmp_path / "kept"
    images = pictures((48, 64), count=3)
    record(
        folder, [FramePair(frame(k / 10, image=i), frame(k / 10, image=i), 0.0, False, k) for k, i in enumerate(images)]
    )
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


SCENES = [f"scene://{view}?size=48x32&repeat=1&live=no&frames=3" for view in ("ir", "vis")]


@pytest.mark.parametrize(
    "words, said",
    [
        (["--replay", "{kept}", "{kept}/ir.mkv"], "is a file of the recording that --replay reads"),
        (["--replay", "{kept}", "null://", "{kept}/../kept/vis.mkv"], "is a file of the recording that --replay reads"),
        (["--replay", "{kept}", "file://{kept}/vis.mkv"], "is a file of the recording that --replay reads"),
        (["--replay", "{kept}", "{kept}/pairs.jsonl"], "is a file of the recording that --replay reads"),
        (["--replay", "{kept}", "{link}/vis.mkv"], "is a file of the recording that --replay reads"),
        (["--replay", "{kept}", "null://", "--record", "{link}"], "is the folder that --replay reads"),
        (["--replay", "{kept}", "null://", "--stats", "{kept}/pairs.jsonl"], "would replace an output or a recording"),
        ([*SCENES, "null://", "--record", "{kept}"], "choose another folder"),
        ([*SCENES, "{new}/ir.mkv", "--record", "{new}"], "would replace an input or another output"),
    ],
)
def test_a_recording_is_never_replaced(kept, tmp_path, words, said, capsys, monkeypatch):
    def never(*_, **__):
        raise AssertionError("something was opened")

    for what in ("pyldfusion.cli.stream.open_fuser", "pyldfusion.cli.stream._open_pairs"):
        monkeypatch.setattr(what, never)
    (tmp_path / "link").symlink_to(kept)
    before = contents(kept)
    words = [word.format(kept=kept, link=tmp_path / "link", new=tmp_path / "new") for word in words]
    assert cli.main(["stream", *words, "--model", "pyramid"]) == 2
    assert said in capsys.readouterr().err and contents(kept) == before


@pytest.mark.parametrize("left", ["pairs.jsonl", "ir.mkv", "vis.mkv"])
def test_a_recorder_refuses_a_folder_with_any_part_of_a_recording(kept, left, tmp_path):
    for path in kept.iterdir():
        if path.name != left:
            path.unlink()
    before = contents(kept)
    with pytest.raises(InputError, match=rf"already holds a recording \({left}\); choose another folder"):
        Recorder(kept, Events(), live=False)
    with (
        Fuser("pyramid", threads=1) as fuser,
        CameraPair(*SCENES) as pairs,
        pytest.raises(InputError, match="choose another folder"),
    ):
        Stream(fuser, pairs, [str(tmp_path / "out.avi")], record=kept)
    assert contents(kept) == before and not (tmp_path / "out.avi").exists()


def test_a_folder_with_other_files_can_be_recorded_in(tmp_path):
    (tmp_path / "notes.txt").write_text("evening")
    assert cli.main(["stream", *SCENES, "null://", "--model", "pyramid", "-q", "--record", str(tmp_path)]) == 0
    assert len(list(Recording(tmp_path))) == 3 and (tmp_path / "notes.txt").read_text() == "evening"
    assert cli.main(["stream", "--replay", str(tmp_path), f"{tmp_path}/fused.avi", "--model", "pyramid", "-q"]) == 0


def test_an_empty_recording_fuses_nothing_and_says_so(tmp_path, capsys):
    record(tmp_path, [])
    assert cli.main(["stream", "--replay", str(tmp_path), "null://", "--model", "pyramid", "-q"]) == 1
    assert f"nothing was fused: the recording {tmp_path} gave 0 pairs" in capsys.readouterr().err
