"""`pyldfusion fuse` from the command line to the files, with the bundled lite network."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from pyldfusion import Fuser, InputError, cli, views
from pyldfusion.media import VideoReader, VideoWriter, read_image, write_image
from pyldfusion.scene import Scene
from pyldfusion.thermal import to_8bit

MODEL = ["--model", "lite", "--engine", "onnxruntime", "--threads", "2"]
SIZE = (96, 72)  # width, height


@pytest.fixture(scope="module")
def scenes():
    """Three registered pairs, infrared in 16 bits."""
    return [Scene(seed=seed, size=SIZE, kind="dusk", bits=16).render(t=0.0) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def fuser():
    with Fuser("lite", engine="onnxruntime", threads=2) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path, monkeypatch, scenes):
    """The working directory: ir/ (8 bits) and vis/ with pairs 1, 2, 3, and single files of the first pair."""
    monkeypatch.chdir(tmp_path)
    for index, (ir, vis) in enumerate(scenes, 1):
        write_image(f"ir/{index}.png", to_8bit(ir))
        write_image(f"vis/{index}.png", vis)
    write_image("ir.png", to_8bit(scenes[0].ir))
    write_image("vis.png", scenes[0].vis)
    return tmp_path


def fuse(*argv):
    return cli.main(["fuse", *map(str, argv), *MODEL])


def clips(frames=(5, 5)):
    """tir.mkv and tvis.mkv, lossless, 12 frames a second, of a scene that moves."""
    scene = Scene(seed=1, size=SIZE, kind="dusk")
    rendered = [scene.render(t=index / 12) for index in range(max(frames))]
    for name, count, which in (("tir.mkv", frames[0], 0), ("tvis.mkv", frames[1], 1)):
        with VideoWriter(name, 12) as writer:
            for frame in rendered[:count]:
                writer.write(frame[which])
    return rendered


def leftovers(folder):
    return [path for path in Path(folder).rglob("*.part*")]


def test_one_pair_is_what_the_fuser_gives(folder, scenes, fuser, capsys):
    assert fuse("ir.png", "vis.png") == 0
    fused = read_image("fused_vis.png")
    assert np.array_equal(fused, fuser.fuse(to_8bit(scenes[0].ir), scenes[0].vis))
    out, err = capsys.readouterr()
    assert "fused_vis.png: 96x72, lite on onnxruntime fp32" in out and not err


def test_a_failing_pair_does_not_stop_the_others(folder, capsys):
    Path("ir/2.png").write_bytes(Path("ir/2.png").read_bytes()[:500])
    assert fuse("ir", "vis") == 1
    assert sorted(os.listdir("fused")) == ["1.png", "3.png"]
    out, err = capsys.readouterr()
    assert "2 pairs fused, 1 failed" in out and "ir/2.png" in err and err.count("\n") == 1


def test_json_is_a_line_for_each_pair(folder, capsys):
    Path("ir/2.png").write_text("hello")
    assert fuse("ir/*.png", "vis/*", "out/{stem}_{view}.png", "--json", "--view", "fused,side") == 1
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["vis"] for record in records] == ["vis/1.png", "vis/2.png", "vis/3.png"]
    assert [record["error"] is None for record in records] == [True, False, True]
    assert records[0]["out"] == {"fused": "out/1_fused.png", "side": "out/1_side.png"}
    assert (records[0]["width"], records[0]["height"]) == SIZE and records[0]["milliseconds"] > 0
    assert read_image(records[2]["out"]["side"]).shape == (72, 3 * 96, 3)


def test_nothing_written_is_exit_code_2(folder, capsys):
    for name in ("1", "2", "3"):
        Path(f"ir/{name}.png").write_text("hello")
    assert fuse("ir", "vis") == 2
    assert fuse("ir/1.png", "vis/1.png") == 2
    assert not list(folder.glob("fused*/*.png"))


def test_files_without_partner_are_told(folder, capsys):
    os.remove("ir/2.png")
    write_image("ir/7.png", np.zeros((72, 96), np.uint8))
    assert fuse("ir", "vis") == 0
    err = capsys.readouterr().err
    assert "2 files have no partner" in err and "7.png" in err and "2.png" in err


def test_sixteen_bits_in_and_out(folder, scenes, fuser):
    ir, vis = scenes[0].ir, scenes[0].vis.astype(np.uint16) * 257
    write_image("ir16.tif", ir)
    write_image("vis16.png", vis)
    ir.astype("<u2").tofile("ir.y16")
    expected = fuser.fuse(ir, vis)
    assert fuse("ir16.tif", "vis16.png", "a.tif") == 0
    assert fuse("ir.y16", "vis16.png", "--raw-size", "96x72", "b.png") == 0
    for name in ("a.tif", "b.png"):
        fused = read_image(name)
        assert fused.dtype == np.uint16 and np.array_equal(fused, expected)
    assert fuse("ir.y16", "vis16.png", "c.jpg", "--raw-size", "96x72") == 0
    assert read_image("c.jpg").dtype == np.uint8
    assert fuse("ir16.tif", "vis16.png", "d.png", "--thermal", 7000, 7600) == 0
    assert np.array_equal(read_image("d.png"), fuser.fuse(ir, vis, thermal=(7000, 7600)))


def test_temperatures_are_infrared(folder, scenes, fuser, capsys):
    """TIFF files of floats, as radiometric cameras' programs write them: percentiles, or a range in degrees."""
    celsius = 0.04 * scenes[0].ir.astype(np.float32) - 273.15
    cv2.imwrite("celsius.tif", celsius)
    assert fuse("celsius.tif", "vis.png", "a.png", "--view", "fused,ir") == 0
    assert np.abs(read_image("a.png").astype(int) - fuser.fuse(scenes[0].ir, read_image("vis.png"))).max() <= 2
    assert fuse("celsius.tif", "vis.png", "b.png", "--thermal", 8, 35) == 0
    assert np.array_equal(read_image("b.png"), fuser.fuse(celsius, read_image("vis.png"), thermal=(8, 35)))
    capsys.readouterr()
    assert fuse("celsius.tif", "vis.png", "c.png", "--thermal", 500, 600) == 0
    assert "--thermal 500 600 makes 100% of the infrared black or white" in capsys.readouterr().err
    assert cli.main(["eval", "celsius.tif", "vis.png", "a.png"]) == 0
    cv2.imwrite("empty.tif", np.full((72, 96), np.nan, np.float32))
    assert fuse("empty.tif", "vis.png", "d.png") == 2
    assert "no finite value" in capsys.readouterr().err


def test_raw_without_size_says_the_option(folder, capsys):
    np.zeros((72, 96), "<u2").tofile("ir.y16")
    assert fuse("ir.y16", "vis.png") == 2
    assert "--raw-size" in capsys.readouterr().err


def test_other_sizes_are_resized_and_said_once(folder, fuser, capsys):
    for index in (1, 2, 3):
        write_image(f"ir/{index}.png", cv2.resize(read_image(f"ir/{index}.png"), (48, 36)))
    assert fuse("ir", "vis") == 0
    assert capsys.readouterr().err.count("infrared of 48x36 is resized to the visible 96x72") == 1
    resized = cv2.resize(read_image("ir/1.png"), SIZE, interpolation=cv2.INTER_CUBIC)
    assert np.array_equal(read_image("fused/1.png"), fuser.fuse(resized, read_image("vis/1.png")))


def test_another_aspect_needs_a_word(folder, capsys):
    write_image("wide.png", cv2.resize(read_image("ir.png"), (96, 60)))
    assert fuse("wide.png", "vis.png", "a.png") == 2
    err = capsys.readouterr().err
    assert "96x60" in err and "--calibration" in err and "--resize" in err and not Path("a.png").exists()
    assert fuse("wide.png", "vis.png", "--resize", "a.png") == 0


def test_a_homography_brings_infrared_to_visible_pixels(folder, scenes, fuser):
    ir, vis = to_8bit(scenes[0].ir), scenes[0].vis
    write_image("moved.png", ir[:, 16:])  # its pixel 0 is the visible's pixel 16
    Path("h.txt").write_text("1 0 16\n0 1 0\n0 0 1\n")
    assert fuse("moved.png", "vis.png", "a.png", "--homography", "h.txt") == 0
    fused = read_image("a.png")
    assert np.array_equal(fused[:, :16], vis[:, :16])  # no infrared there
    filled = np.hstack([np.repeat(ir[:, 16:17], 16, axis=1), ir[:, 16:]])
    assert np.array_equal(fused[:, 26:], fuser.fuse(filled, vis)[:, 26:])
    Path("h.txt").write_text("1 0 900\n0 1 0\n0 0 1\n")
    assert fuse("moved.png", "vis.png", "a.png", "--homography", "h.txt") == 2


def test_unregistered_pairs_are_warned_of_once(folder, capsys):
    assert fuse("ir", "vis") == 0
    assert "unregistered" not in capsys.readouterr().err
    os.makedirs("other")
    for name, vis in (("1", "2"), ("2", "3"), ("3", "1")):
        os.rename(f"vis/{vis}.png", f"other/{name}.png")
    assert fuse("ir", "other") == 0
    err = capsys.readouterr().err
    assert err.count("look unregistered") == 1 and "--calibration" in err


def test_pictures_that_show_nothing_are_not_called_unregistered(folder, scenes, capsys):
    rng = np.random.default_rng(0)
    noisy = rng.normal(7000, 6, (72, 96)).round().astype(np.uint16)
    black = np.clip(rng.normal(3, 2, (72, 96, 3)), 0, 255).astype(np.uint8)
    cases = {
        "infrared": [("flat.png", np.full((72, 96), 90, np.uint8)), ("covered.tif", noisy)],
        "visible": [("dark.png", black), ("white.png", np.full((72, 96), 65535, np.uint16))],
    }
    for word, pictures in cases.items():
        for name, picture in pictures:
            write_image(name, picture)
            assert fuse(*((name, "vis.png") if word == "infrared" else ("ir.png", name)), "fused.png", "--json") == 0
            out, err = capsys.readouterr()
            assert f"the {word} picture is nearly uniform: a covered lens" in err and err.count("\n") == 1, name
            assert json.loads(out)["edge_correlation"] < 0.1


def test_a_pair_that_fails_is_not_called_unregistered(folder, monkeypatch, capsys):
    def refuse(self, *frames, **options):
        raise InputError("no")

    monkeypatch.setattr(Fuser, "fuse", refuse)
    assert fuse("ir/1.png", "vis/2.png") == 2
    assert capsys.readouterr().err == "pyldfusion fuse: no\n"


def test_a_thermal_range_beside_the_data_is_said_once(folder, scenes, capsys):
    for index, scene in enumerate(scenes, 1):
        write_image(f"deep/{index}.tif", scene.ir)
    low, high = scenes[0].ir.min(), scenes[0].ir.max()
    assert fuse("deep", "vis", "out", "--thermal", low, high) == 0
    assert capsys.readouterr().err == ""
    assert fuse("deep", "vis", "out", "--thermal", 27000, 33000) == 0
    err = capsys.readouterr().err
    assert f"1: --thermal 27000 33000 makes 100% of the infrared black or white; its values are {low} to {high}" in err
    assert err.count("black or white") == 1 and "unregistered" not in err and "uniform" not in err


def test_an_unquoted_pattern_replaces_no_picture(folder, capsys):
    files = [f"vis/{index}.png" for index in (1, 2, 3)]
    before = [Path(file).read_bytes() for file in files]
    assert fuse(*files) == 2
    err = capsys.readouterr().err
    assert "OUT vis/3.png exists and pyldfusion did not write it" in err and "quotes" in err and "--force" in err
    assert [Path(file).read_bytes() for file in files] == before
    assert fuse(*files, "--force") == 0 and Path(files[2]).read_bytes() != before[2]
    assert fuse(files[0], files[1], files[1], "--force") == 2


def test_every_run_can_be_repeated(folder):
    clips()
    for words in (
        ("ir.png", "vis.png"), ("ir.png", "vis.png", "fused.tif"), ("ir.png", "vis.png", "all.png", "--view", "side"),
        ("ir.png", "vis.png", "a.jpg", "--view", "ir,pip"), ("ir", "vis", "out"), ("ir", "vis", "{stem}.tif"),
        ("ir", "tvis.mkv", "frames/{index:03d}.png"), ("tir.mkv", "tvis.mkv", "a.mkv"),
    ):  # fmt: skip
        assert fuse(*words) == 0 and fuse(*words) == 0, words


def test_frames_of_a_video_do_not_replace_the_pictures_they_came_from(folder, capsys):
    clips()
    before = {path: path.read_bytes() for path in Path("ir").iterdir()}
    assert fuse("ir", "tvis.mkv", "ir/{index}.png") == 2
    assert "among the pictures that are read" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("ir").iterdir()} == before


def test_swapped_arguments_are_noticed(folder, capsys):
    assert fuse("vis.png", "ir.png", "a.png") == 0
    assert "are they swapped?" in capsys.readouterr().err


def test_one_file_twice_is_noticed(folder, capsys):
    assert fuse("vis.png", "vis.png", "a.png") == 0
    assert "IR and VIS are the same file" in capsys.readouterr().err


def test_views(folder, scenes):
    assert fuse("ir.png", "vis.png", "a.png", "--view", "fused", "--view", "side,ir", "--palette", "hot") == 0
    fused, side, ir = (read_image(f"a{end}.png") for end in ("", "_side", "_ir"))
    colours = cv2.applyColorMap(to_8bit(scenes[0].ir), cv2.COLORMAP_HOT)
    assert np.array_equal(ir, colours)
    assert np.array_equal(side, np.hstack([colours, scenes[0].vis, fused]))


@pytest.mark.parametrize("palette", views.PALETTES)
def test_palettes_show_hotter_as_something_else(palette):
    ramp = np.arange(256, dtype=np.uint8)[None].repeat(2, axis=0)
    picture = views.palette_picture(ramp, palette)
    assert picture.shape == (2, 256, 3) and picture.dtype == np.uint8
    assert len(np.unique(picture[0], axis=0)) > 200
    deep = views.palette_picture(ramp.astype(np.uint16) * 40 + 7000, palette, thermal=(7000, 7000 + 255 * 40))
    assert np.array_equal(deep, picture)


def test_grey_visible_gives_a_grey_picture(folder, scenes):
    write_image("grey.png", cv2.cvtColor(scenes[0].vis, cv2.COLOR_BGR2GRAY))
    assert fuse("ir.png", "grey.png", "a.png", "--view", "fused,side") == 0
    assert read_image("a.png").shape == (72, 96) and read_image("a_side.png").shape == (72, 288, 3)


def test_videos_frame_by_frame(folder, fuser, capsys):
    rendered = clips()
    assert fuse("tir.mkv", "tvis.mkv", "out.mkv", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["frames"] == 5 and record["out"] == {"fused": "out.mkv"} and record["error"] is None
    video = VideoReader("out.mkv")
    assert video.rate == pytest.approx(12)
    for frame, (ir, vis) in zip(video, rendered, strict=True):
        assert np.array_equal(frame, fuser.fuse(ir, vis))


def test_a_video_is_smoothed_at_its_own_rate(folder, fuser, capsys):
    rendered = clips()
    assert fuse("tir.mkv", "tvis.mkv", "out.mkv", "--temporal", 0.5) == 0
    with Fuser("lite", engine="onnxruntime", temporal=0.5) as smoothed:
        expected = list(smoothed.stream(rendered, times=(k / 12 for k in range(5))))
    assert all(np.array_equal(frame, fused) for frame, fused in zip(VideoReader("out.mkv"), expected, strict=True))
    assert not np.array_equal(expected[-1], fuser.fuse(*rendered[-1]))
    assert fuse("ir", "vis", "out", "--temporal", 0.5) == 2
    assert "--temporal is for videos; ir and vis are pictures" in capsys.readouterr().err


def test_videos_end_with_the_shorter_and_have_a_default_name(folder, capsys):
    clips((3, 5))
    assert fuse("tir.mkv", "tvis.mkv", "--view", "side", "--fps", 30) == 0
    out, err = capsys.readouterr()
    assert "tir.mkv ends after 3 frames" in err and "side_tvis.mp4: 3 frames" in out
    video = VideoReader("side_tvis.mp4")
    assert len(list(video)) == 3 and video.rate == pytest.approx(30)


def test_videos_to_pictures_and_pictures_to_a_video(folder):
    clips()
    assert fuse("tir.mkv", "tvis.mkv", "frames/%02d.png") == 0
    assert sorted(os.listdir("frames")) == [f"{index:02d}.png" for index in range(5)]
    assert fuse("ir", "vis", "out.mkv") == 0
    assert len(list(VideoReader("out.mkv"))) == 3
    assert fuse("ir", "tvis.mkv", "mixed.mkv") == 0
    assert len(list(VideoReader("mixed.mkv"))) == 3


@pytest.mark.parametrize(
    "argv",
    [
        ("none.png", "vis.png"),
        ("ir.png", "vis.png", "vis.png"),
        ("ir", "vis", "one.png"),
        ("ir", "vis", "{stme}.png"),
        ("ir", "vis.png"),
        ("ir.png", "vis.png", "vis.png/a.png"),
        ("ir.png", "vis.png", "--homography", "none.txt"),
        ("ir.png", "vis.png", "--thermal", 9, 3),
        ("ir.png", "vis.png", "--thermal", 3, 9),  # a range is for 16 bits
        ("text.mp4", "vis.mp4"),
    ],
)
def test_what_cannot_be_is_one_line_and_changes_nothing(folder, capsys, argv):
    Path("text.mp4").write_text("no video")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert fuse(*argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("pyldfusion fuse: ")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_frames_too_small_for_the_network_are_refused(folder, capsys):
    for name in ("a", "b"):
        write_image(f"{name}.png", np.zeros((8, 8), np.uint8))
    assert fuse("a.png", "b.png", "c.png") == 2
    assert "16" in capsys.readouterr().err


def test_an_unknown_engine_names_the_known(folder, capsys):
    assert cli.main(["fuse", "ir.png", "vis.png", "--model", "lite", "--engine", "onnxruntme"]) == 2
    assert "did you mean 'onnxruntime'" in capsys.readouterr().err


def test_quiet_says_nothing(folder, capsys):
    write_image("ir.png", cv2.resize(read_image("ir.png"), (48, 36)))
    assert fuse("ir.png", "vis.png", "-q") == 0
    assert capsys.readouterr() == ("", "")


def test_an_interrupted_video_is_whole(folder, capsys, monkeypatch):
    clips()
    calls = []

    def fuse_twice(self, ir, vis, **options):
        calls.append(ir)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return vis

    monkeypatch.setattr(Fuser, "fuse", fuse_twice)
    assert fuse("tir.mkv", "tvis.mkv", "out.mp4", "--json") == 130
    record = json.loads(capsys.readouterr().out)
    assert record["frames"] == 2 and record["error"] == "interrupted"
    assert len(list(VideoReader("out.mp4"))) == 2 and not leftovers(".")


def test_ctrl_c_leaves_whole_files(folder):
    for index in range(4, 200):
        os.link("ir/1.png", f"ir/{index}.png")
        os.link("vis/1.png", f"vis/{index}.png")
    command = [sys.executable, "-m", "pyldfusion", "fuse", "ir", "vis", "out", *MODEL]
    package = Path(cli.__file__).parents[2]
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": package},
        # background jobs of a shell inherit an ignored SIGINT, and with it the tests that they run
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as run:
        deadline = time.monotonic() + 300
        while not list(Path("out").glob("[!.]*.png")) and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
        said = run.stderr.read()
        assert run.wait() == 130
    files = list(Path("out").iterdir())
    told = re.search(r"interrupted; (\d+) pairs? written", said)
    assert told and 0 < len(files) < 200 and int(told[1]) in (len(files), len(files) - 1)  # one may just have come
    assert all(read_image(path).shape == (72, 96, 3) for path in files)
