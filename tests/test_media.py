"""Files in and out: depths, orientation, damage, pairing, and results that are whole or not there."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from pyldfusion.errors import InputError
from pyldfusion.media import (
    VideoReader,
    VideoWriter,
    atomic_path,
    list_images,
    match_stems,
    open_output,
    open_pairs,
    read_image,
    read_raw,
    to_eight_bits,
    write_image,
)
from pyldfusion.media.images import grey_if_grey, is_result
from pyldfusion.media.video import RawStream


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def smooth(height, width, seed=0):
    """A picture that survives lossy coding: a blurred random colour field, uint8 BGR."""
    field = cv2.GaussianBlur(np.random.default_rng(seed).random((height, width, 3), np.float32), (0, 0), 6)
    return cv2.normalize(field, None, 30, 220, cv2.NORM_MINMAX).astype(np.uint8)


def encoded(suffix, image):
    return cv2.imencode(suffix, image)[1].tobytes()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(17, 23), (17, 23, 3)])
def test_pictures_keep_their_depth_and_channels(tmp_path, suffix, dtype, shape):
    image = noise(*shape, dtype=dtype)
    write_image(tmp_path / f"a{suffix}", image)
    back = read_image(tmp_path / f"a{suffix}")
    assert back.dtype == dtype and np.array_equal(back, image)


def test_paths_may_be_in_any_script(tmp_path):
    path = tmp_path / "тепло 熱 ünï" / "пара 1.png"
    write_image(path, noise(20, 20))
    assert np.array_equal(read_image(path), noise(20, 20))


def test_alpha_is_dropped(tmp_path):
    image = noise(12, 14, 4)
    (tmp_path / "a.png").write_bytes(encoded(".png", image))
    assert np.array_equal(read_image(tmp_path / "a.png"), image[..., :3])


# TIFF tag 274: what was done to the picture that a viewer has to undo.
EXIF = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", EXIF)
def test_exif_orientation_is_honoured(tmp_path, orientation):
    plain = encoded(".jpg", smooth(24, 40))
    tiff = b"II*\0" + struct.pack("<I", 8) + struct.pack("<HHHIHHI", 1, 274, 3, 1, orientation, 0, 0)
    segment = b"Exif\0\0" + tiff
    (tmp_path / "a.jpg").write_bytes(
        plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]
    )
    expected = EXIF[orientation](cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_COLOR))
    assert np.array_equal(read_image(tmp_path / "a.jpg"), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_pixels_that_are_not_8_or_16_unsigned_bits_are_refused(tmp_path, dtype):
    cv2.imwrite(str(tmp_path / "a.tif"), np.ones((20, 20), dtype))
    with pytest.raises(InputError, match=np.dtype(dtype).name):
        read_image(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif", temperatures=True).dtype == dtype
    cv2.imwrite(str(tmp_path / "colour.tif"), np.ones((20, 20, 3), dtype))
    with pytest.raises(InputError, match=np.dtype(dtype).name):
        read_image(tmp_path / "colour.tif", temperatures=True)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_truncated_pictures_are_refused(tmp_path, suffix):
    data = encoded(suffix, noise(40, 50, 3))
    for share in (0.01, 0.1, 0.5, 0.9, 0.97):
        (tmp_path / f"a{suffix}").write_bytes(data[: int(len(data) * share)])
        with pytest.raises(InputError, match="a" + suffix):
            read_image(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp", ".pgm"])
def test_damaged_pictures_give_a_picture_or_an_input_error(tmp_path, suffix):
    rng = np.random.default_rng(5)
    data = np.frombuffer(encoded(suffix, noise(24, 30)), np.uint8)
    refused = 0
    for _ in range(60):
        spoilt = data.copy()
        where = rng.integers(0, min(len(spoilt), 200), 4)
        spoilt[where] = rng.integers(0, 256, 4)
        (tmp_path / f"a{suffix}").write_bytes(spoilt.tobytes())
        try:
            image = read_image(tmp_path / f"a{suffix}")
        except InputError:
            refused += 1
        else:
            assert image.dtype in (np.uint8, np.uint16) and image.ndim in (2, 3) and image.size
    assert refused


def test_what_is_no_picture_is_refused_by_name(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").touch()
    # A PNG that says it is 2^18 by 2^18 pixels, within 60 bytes.
    bomb = bytearray(encoded(".png", noise(4, 4)))
    bomb[16:24] = struct.pack(">II", 1 << 18, 1 << 18)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bytes(bomb[12:29])))
    (tmp_path / "bomb.png").write_bytes(bomb)
    for name, said in {"text": "not a whole", "empty": "0 bytes", "bomb": "PIXELS", "none": "no such file"}.items():
        with pytest.raises(InputError, match=said):
            read_image(tmp_path / f"{name}.png")
    with pytest.raises(InputError, match="directory"):
        read_image(tmp_path)


def test_raw_y16_is_little_endian_rows(tmp_path):
    (tmp_path / "a.y16").write_bytes(struct.pack("<6H", 1, 2, 3, 256, 65535, 0))
    assert read_raw(tmp_path / "a.y16", (3, 2)).tolist() == [[1, 2, 3], [256, 65535, 0]]


def test_raw_of_another_size_names_one_that_fits(tmp_path):
    (tmp_path / "a.y16").write_bytes(bytes(2 * 160 * 120))
    with pytest.raises(InputError, match="160x120"):
        read_raw(tmp_path / "a.y16", (640, 480))


def test_eight_bits_of_sixteen_keep_black_and_white():
    assert to_eight_bits(np.array([[0, 128, 129, 65535, 32896]], np.uint16)).tolist() == [[0, 0, 1, 255, 128]]


def test_formats_without_16_bits_get_the_upper_8(tmp_path):
    write_image(tmp_path / "a.bmp", np.full((8, 8), 257 * 77, np.uint16))
    assert np.array_equal(read_image(tmp_path / "a.bmp"), np.full((8, 8), 77, np.uint8))


def test_grey_pictures_stored_in_colour_are_one_plane():
    grey = smooth(30, 30)[..., 0]
    stored = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    stored[::2, :, 0] += 1  # what lossy coding does
    assert np.abs(grey_if_grey(stored).astype(int) - grey).max() <= 1
    palette = cv2.applyColorMap(grey, cv2.COLORMAP_JET)
    assert grey_if_grey(palette) is palette
    green = np.zeros_like(stored)
    green[..., 1] = grey  # the palette of night vision
    assert grey_if_grey(green) is green


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), atomic_path(path) as part:
            part.write_text("half")
            raise error
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_writing_follows_links_makes_folders_and_refuses_other_things(tmp_path):
    image = noise(8, 8)
    (tmp_path / "link.png").symlink_to(tmp_path / "real.png")
    write_image(tmp_path / "link.png", image)
    assert (tmp_path / "link.png").is_symlink() and np.array_equal(read_image(tmp_path / "real.png"), image)
    write_image(tmp_path / "new/deep/a.png", image)
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    for path, said in {"file/a.png": "not a folder", "folder.png": "not a regular file", "a.gif": ".png"}.items():
        with pytest.raises(InputError, match=said):
            write_image(tmp_path / path, image)
    with pytest.raises(InputError, match="shape"):
        write_image(tmp_path / "a.png", noise(8, 8, 5))
    assert not [path for path in tmp_path.rglob("*.part*")]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_said(tmp_path):
    with (
        pytest.raises(InputError, match="No space left"),
        atomic_path(tmp_path / "a.bin"),
        open("/dev/full", "wb") as out,
    ):
        out.write(b"x" * 100000)


def test_listing_counts_numbers_and_leaves_out_what_is_no_picture(tmp_path):
    for name in ("10.png", "2.JPG", "1.tif", "a.txt", ".hidden.png"):
        (tmp_path / name).touch()
    (tmp_path / "3.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["1.tif", "2.JPG", "10.png"]
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no pictures"):
        list_images(tmp_path / "none")


def paths(*names):
    from pathlib import Path

    return [Path(name) for name in names]


def test_files_pair_by_stem():
    pairs, alone = match_stems(paths("ir/1.png", "ir/2.png", "ir/4.png"), paths("vi/1.jpg", "vi/3.jpg", "vi/4.jpg"))
    assert [(str(ir), str(vis)) for ir, vis in pairs] == [("ir/1.png", "vi/1.jpg"), ("ir/4.png", "vi/4.jpg")]
    assert {path.name for path in alone} == {"2.png", "3.jpg"}


@pytest.mark.parametrize("ir, vis", [("7_ir.png", "7_vis.png"), ("IR_7.png", "RGB_7.png"), ("7-thermal.png", "7.png")])
def test_words_for_the_camera_are_ignored_if_no_stem_is_common(ir, vis):
    pairs, alone = match_stems(paths(ir), paths(vis))
    assert pairs == [tuple(paths(ir, vis))] and not alone


def test_pairs_that_are_none_or_ambiguous_are_refused():
    with pytest.raises(InputError, match="no infrared file"):
        match_stems(paths("a.png", "b.png"), paths("c.png"))
    with pytest.raises(InputError, match="same name '1'"):
        match_stems(paths("x/1.png", "y/1.png"), paths("1.png"))


def clip(path, frames, size=(48, 40), rate=12.0):
    with VideoWriter(path, rate) as writer:
        for index in range(frames):
            writer.write(smooth(size[1], size[0], seed=index))


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_videos_come_back(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    clip(path, 7)
    reader = VideoReader(path)
    frames = list(reader)
    assert len(frames) == 7 and reader.rate == pytest.approx(12) and frames[0].shape == (40, 48, 3)
    assert len(list(reader)) == 7  # may be read again
    for index, frame in enumerate(frames):
        error = np.abs(frame.astype(int) - smooth(40, 48, seed=index))
        assert error.max() == 0 if suffix == ".mkv" else error.mean() < 6
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("size", [(47, 40), (48, 41), (33, 17)])
def test_odd_sizes_lose_at_most_a_row_and_a_column(tmp_path, size):
    with pytest.warns(UserWarning, match=rf"{size[0]}x{size[1]} the last column or row is left out"):
        clip(tmp_path / "a.mkv", 3, size)
    kept = next(iter(VideoReader(tmp_path / "a.mkv")))
    assert np.array_equal(kept, smooth(size[1], size[0])[: size[1] // 2 * 2, : size[0] // 2 * 2])


def test_an_interrupted_video_ends_with_its_last_frame(tmp_path):
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "a.mp4") as writer:
        for index in range(5):
            writer.write(smooth(40, 48, seed=index))
        raise KeyboardInterrupt
    assert len(list(VideoReader(tmp_path / "a.mp4"))) == 5 and os.listdir(tmp_path) == ["a.mp4"]


def test_a_video_without_frames_does_not_appear(tmp_path):
    with VideoWriter(tmp_path / "a.mp4"):
        pass
    assert not os.listdir(tmp_path)


def test_a_video_is_of_one_size_and_a_known_format(tmp_path):
    with VideoWriter(tmp_path / "a.avi") as writer:
        writer.write(noise(40, 48))
        with pytest.raises(InputError, match="40x48"):
            writer.write(noise(48, 40))
    assert len(list(VideoReader(tmp_path / "a.avi"))) == 1
    with pytest.raises(InputError, match=r"\.mp4"):
        VideoWriter(tmp_path / "a.xyz")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(InputError, match="regular file"), VideoWriter(tmp_path / "folder.mp4") as writer:
        writer.write(noise(40, 48))


def test_a_disk_that_fills_up_is_noticed(tmp_path, monkeypatch):
    import shutil

    with pytest.raises(InputError, match="disk is full"), VideoWriter(tmp_path / "a.avi") as writer:
        writer.write(noise(40, 48, 3))
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(100, 100, 0))
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no video", bytes(5000)])
def test_what_is_no_video_is_refused(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.mp4"):
        VideoReader(tmp_path / "a.mp4")


def test_a_raw_file_may_hold_many_frames(tmp_path):
    frames = noise(5, 6, 8, dtype=np.uint16)
    (tmp_path / "a.y16").write_bytes(frames.astype("<u2").tobytes())
    stream = RawStream(tmp_path / "a.y16", (8, 6))
    assert stream.count == 5 and np.array_equal(np.stack(list(stream)), frames)
    with pytest.raises(InputError, match="whole number"):
        RawStream(tmp_path / "a.y16", (7, 6))


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for index in (1, 2, 10):
        write_image(f"ir/{index}.png", noise(20, 24, seed=index))
        write_image(f"vis/{index}.png", noise(20, 24, 3, seed=index))
    return tmp_path


def test_directories_and_patterns_pair(folders):
    for ir, vis in (("ir", "vis"), ("ir/*.png", "vis"), ("i*/*", "vis/*.png")):
        pairs = list(open_pairs(ir, vis))
        assert [pair.name for pair in pairs] == ["1", "2", "10"]
        first, second = pairs[2].read()
        assert np.array_equal(first, noise(20, 24, seed=10)) and np.array_equal(second, noise(20, 24, 3, seed=10))


def test_a_video_pairs_with_frames_in_order_and_ends_with_the_shorter(folders):
    clip("vis.mp4", 5, (24, 20))
    pairs = open_pairs("ir", "vis.mp4")
    read = [pair.read() for pair in pairs]
    assert pairs.count == 3 and pairs.rate == pytest.approx(12)
    assert [np.array_equal(ir, noise(20, 24, seed=seed)) for (ir, _), seed in zip(read, (1, 2, 10), strict=True)]
    assert pairs.ended_early.startswith("ir ends after 3")


def test_sources_that_do_not_go_together_are_refused(folders):
    clip("vis.mp4", 2, (24, 20))
    cases = {
        ("ir/1.png", "vis"): "one picture",
        ("ir/1.png", "vis.mp4"): "a video",
        ("ir/1.pgn", "vis/1.png"): "did you mean ir/1.png",
        ("nowhere/1.png", "vis/1.png"): "directory nowhere does not exist",
        ("ir/*.bmp", "vis"): "no file matches",
        ("/dev/null", "vis"): "neither a file nor a directory",
    }
    for (ir, vis), said in cases.items():
        with pytest.raises(InputError, match=said):
            open_pairs(ir, vis)


def written(out, pairs, views=("fused",)):
    """Where the views of each pair would go."""
    output = open_output(out, pairs, list(views))
    return [str(output.path(pair.name, index, view)) for index, pair in enumerate(pairs) for view in views]


def test_where_results_go(folders):
    one, many = open_pairs("ir/1.png", "vis/1.png"), open_pairs("ir", "vis")
    assert written(None, one) == ["fused_1.png"]
    assert written(None, one, ["side"]) == ["side_1.png"]
    assert written(None, many) == ["fused/1.png", "fused/2.png", "fused/10.png"]
    assert written("x.tif", one, ["fused", "ir"]) == ["x.tif", "x_ir.tif"]
    assert written("x", one) == written("x/", one) == ["x/1.png"]
    assert written("a/{stem}_{view}.jpg", one, ["fused", "ir"]) == ["a/1_fused.jpg", "a/1_ir.jpg"]
    assert written("f%03d.png", many) == written("f{index:03d}.png", many) == ["f000.png", "f001.png", "f002.png"]
    assert written("{odd}/", one) == ["{odd}/1.png"]


@pytest.mark.parametrize(
    "out, said",
    [
        ("one.png", "both be written"),
        ("{view}.png", "both be written"),
        ("vis", "replace an input"),
        ("{stme}.png", "did you mean {stem}"),
        ("{0}.png", "unknown placeholder"),
        ("{stem.png", "not a pattern"),
        ("{stem:d}.png", "not a pattern"),
        ("x.gif", "cannot write .gif"),
    ],
)
def test_places_that_cannot_be_are_refused(folders, out, said):
    with pytest.raises(InputError, match=said):
        open_output(out, open_pairs("ir", "vis"), ["fused"])


def test_frames_do_not_come_among_the_pictures_that_are_read(folders):
    clip("vis.mp4", 2, (24, 20))
    Path("link").symlink_to("ir")
    Path("links").mkdir()
    for index in (1, 2, 10):
        Path(f"links/{index}.png").symlink_to(f"../ir/{index}.png")
    for ir in ("ir", "ir/*.png", "link", "links"):
        pairs = open_pairs(ir, "vis.mp4")
        for out in ("ir", "ir/{index:03d}.png", "ir/%d.png", "./ir/new_{stem}.jpg", "link/{index}.png"):
            with pytest.raises(InputError, match="among the pictures that are read"):
                open_output(out, pairs, ["fused", "ir"], force=True)
        assert written("ir/fused/{index}.png", pairs) == ["ir/fused/0.png", "ir/fused/1.png"]
    with pytest.raises(InputError, match="among the pictures"):
        open_output("links/{index}.png", pairs, ["fused"])
    with pytest.raises(InputError, match="among the pictures"):  # the second frame alone
        Path("ir").rename("v1")
        open_output("v{index}/{index}.png", open_pairs("v1", "vis.mp4"), ["fused"])


def test_a_file_without_partner_is_not_replaced_either(folders):
    write_image("ir/0.png", noise(20, 24))
    with pytest.raises(InputError, match=r"ir/0\.png would replace an input"):
        open_output("ir/{index}.png", open_pairs("ir", "vis"), ["fused"])


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("picture", [noise(20, 24), noise(20, 24, 3), noise(20, 24).astype(np.uint16) * 257])
def test_results_say_who_wrote_them(tmp_path, suffix, picture):
    plain, marked = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write_image(plain, picture)
    write_image(marked, picture, mark=True)
    assert not is_result(plain) and is_result(marked) and not is_result(tmp_path / "none")
    assert np.array_equal(read_image(plain), read_image(marked))
    data = marked.read_bytes()
    if suffix == ".png":
        length, kind = struct.unpack(">I4s", data[33:41])
        body, crc = data[41 : 41 + length], data[41 + length : 45 + length]
        assert (kind, body) == (b"tEXt", b"Software\0pyldfusion") and crc == struct.pack(">I", zlib.crc32(kind + body))
        assert data[45 + length :] == plain.read_bytes()[33:]


def test_one_picture_is_replaced_if_it_is_a_result_or_by_force(folders):
    one = open_pairs("ir/1.png", "vis/1.png")
    for name in ("third.png", "ir_3.png", "fused_x.tif", "a.tif"):
        write_image(name, noise(20, 24))
    for name in ("third.png", "ir_3.png", "a.tif"):
        with pytest.raises(InputError, match=f"OUT {name} exists and pyldfusion did not write it.*quotes.*--force"):
            open_output(name, one, ["fused"])
        open_output(name, one, ["fused"], force=True)
    write_image("new_ir.png", noise(20, 24))
    with pytest.raises(InputError, match=r"OUT new_ir\.png exists"):
        open_output("new.png", one, ["fused", "ir"])
    open_output("fused_x.tif", one, ["fused"])
    for name in ("new.png", "new.jpg"):
        for _ in range(2):
            open_output(name, one, ["fused"]).write("1", 0, "fused", noise(20, 24))
    with pytest.raises(InputError, match="would replace an input"):
        open_output("vis/1.png", one, ["fused"], force=True)
    for _ in range(2):
        for suffix in ("png", "tif"):
            open_output(f"out/{{stem}}.{suffix}", one, ["fused"]).write("1", 0, "fused", noise(20, 24))


def test_a_video_does_not_replace_its_input_and_frames_need_numbers(folders):
    clip("vis.mp4", 2, (24, 20))
    pairs = open_pairs("ir", "vis.mp4")
    for out, said in {"vis.mp4": "replace an input", "one.png": "many frames"}.items():
        with pytest.raises(InputError, match=said):
            open_output(out, pairs, ["fused"])
    clip("a_ir.mp4", 2, (24, 20))
    with pytest.raises(InputError, match=r"the result a_ir\.mp4 would replace an input"):
        open_output("a.mp4", open_pairs("a_ir.mp4", "vis.mp4"), ["fused", "ir"])
    assert str(open_output(None, pairs, ["side"]).paths["side"]) == "side_vis.mp4"
