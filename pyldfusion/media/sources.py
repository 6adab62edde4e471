"""What IR and VIS on a command line mean: pictures, directories, patterns, videos, and how they pair."""

from __future__ import annotations

import difflib
import glob
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import InputError
from .images import RAW_SUFFIXES, READABLE_SUFFIXES, grey_if_grey, read_image, read_raw
from .pairing import list_images, match_stems, natural_order
from .video import VIDEO_SUFFIXES, FrameStream, ImageStream, RawStream, VideoReader

__all__ = ["FilePairs", "Pair", "StreamPairs", "check_not_input", "open_pairs", "open_stream"]

Image = NDArray[Any]
Size = tuple[int, int]


@dataclass(frozen=True)
class Pair:
    """One pair to fuse: what to call its result, where it comes from, and how to read (ir, vis)."""

    name: str
    ir: str
    vis: str
    read: Callable[[], tuple[Image, Image]]


@dataclass(frozen=True)
class Source:
    """One of the two arguments: its files, and what they are."""

    text: str
    kind: str  # "image", "images" (a directory or a pattern) or "video"
    paths: list[Path]


class FilePairs:
    """Pairs of picture files. `alone` are the files without a partner."""

    rate = None

    def __init__(self, pairs: Sequence[tuple[Path, Path]], alone: Sequence[Path], raw_size: Size | None) -> None:
        self.files = list(pairs)
        self.alone = list(alone)
        self.count: int | None = len(self.files)
        self._raw_size = raw_size

    @property
    def inputs(self) -> list[Path]:
        """All files that the two texts name, with and without a partner."""
        return [*(path for files in self.files for path in files), *self.alone]

    def __iter__(self) -> Iterator[Pair]:
        for ir, vis in self.files:
            yield Pair(vis.stem, str(ir), str(vis), partial(self._read, ir, vis))

    def _read(self, ir: Path, vis: Path) -> tuple[Image, Image]:
        return _read_infrared(ir, self._raw_size), read_image(vis)


class StreamPairs:
    """Frames of two streams, first with first; ends with the shorter one (`ended_early` says which)."""

    alone: tuple[Path, ...] = ()

    def __init__(self, irs: FrameStream, viss: FrameStream, texts: tuple[str, str]) -> None:
        self._irs, self._viss, self.texts = irs, viss, texts
        self.rate = viss.rate or irs.rate
        counts = [stream.count for stream in (irs, viss) if stream.count is not None]
        self.count = min(counts) if counts else None
        self.ended_early = ""

    @property
    def pictures(self) -> list[Path]:
        """The files of those of the two streams that are sequences of pictures."""
        return [path for stream in (self._irs, self._viss) if isinstance(stream, ImageStream) for path in stream.paths]

    def __iter__(self) -> Iterator[Pair]:
        stem = Path(self.texts[1]).stem
        irs, viss = iter(self._irs), iter(self._viss)
        index = 0
        while True:
            ir, vis = next(irs, None), next(viss, None)
            if ir is None or vis is None:
                if (ir is None) != (vis is None):
                    frames = f"{index} frame{'s' * (index != 1)}"
                    self.ended_early = f"{self.texts[ir is not None]} ends after {frames}, before the other"
                return
            from_ir, from_vis = (f"{text} frame {index}" for text in self.texts)
            yield Pair(f"{stem}_{index:06d}", from_ir, from_vis, partial(_decoded, ir, vis))
            index += 1


def open_pairs(ir: str, vis: str, raw_size: Size | None = None) -> FilePairs | StreamPairs:
    """Make pairs of what the two texts name: an image, a directory, a quoted pattern or a video each.

    Directories and patterns are paired by file stem (see `match_stems`). If one is a video, the other is a video, a
    directory or a pattern of frames in order, or, for infrared, a raw file with many frames. `raw_size` is
    (width, height) of raw Y16 files. Raises InputError for anything that does not exist or does not go together.
    """
    first, second = _open_source(ir, raw_size), _open_source(vis, None)
    if "video" in (first.kind, second.kind):
        return StreamPairs(_stream(first, raw_size), _stream(second, None), (ir, vis))
    if first.kind != second.kind:
        one, many = (ir, vis) if first.kind == "image" else (vis, ir)
        raise InputError(f"{one} is one picture and {many} several; give two pictures, or two directories")
    if first.kind == "image":
        return FilePairs([(first.paths[0], second.paths[0])], [], raw_size)
    pairs, alone = match_stems(first.paths, second.paths)
    return FilePairs(pairs, alone, raw_size)


def open_stream(text: str, raw_size: Size | None = None) -> FrameStream:
    """The frames that one text names, in order: a video, a picture, a directory or pattern of pictures, or with
    `raw_size` a file of raw frames. Raises InputError for anything that does not exist or cannot be decoded."""
    source = _open_source(text, raw_size)
    if source.kind == "image" and raw_size is None:
        return ImageStream(source.paths)
    return _stream(source, raw_size)


def check_not_input(option: str, out: str, texts: Iterable[str]) -> None:
    """Refuse to replace an input.

    Args:
        option: what asked for the file, for the error.
        out: the file that would be written.
        texts: what names the inputs: files, directories of pictures, patterns; anything else is passed over.

    Raises:
        InputError: `out` is one of them.
    """
    target = Path(out).resolve()
    for text in texts:
        path = Path(text)
        if path.is_dir():
            suffixes = READABLE_SUFFIXES + RAW_SUFFIXES
            files = [file for file in path.iterdir() if file.suffix.lower() in suffixes]
        else:
            files = [path] if path.exists() else [Path(name) for name in glob.glob(text, recursive=True)]
        if target in {file.resolve() for file in files}:
            raise InputError(f"{option} {out} would replace an input; choose another file")


def _open_source(text: str, raw_size: Size | None) -> Source:
    path = Path(text)
    suffixes = READABLE_SUFFIXES + (RAW_SUFFIXES if raw_size else ())
    if path.is_dir():
        return Source(text, "images", list_images(path, suffixes))
    if path.is_file():
        return Source(text, "video" if path.suffix.lower() in VIDEO_SUFFIXES else "image", [path])
    if not path.exists() and glob.has_magic(text):
        found = [Path(name) for name in glob.glob(text, recursive=True)]
        found = sorted((file for file in found if file.is_file()), key=natural_order)
        if not found:
            raise InputError(f"no file matches the pattern {text!r}")
        return Source(text, "images", found)
    if path.exists():
        raise InputError(f"{text}: neither a file nor a directory")
    raise InputError(f"{text}: no such file or directory{_closest(path)}")


def _stream(source: Source, raw_size: Size | None) -> FrameStream:
    if source.kind == "video":
        return VideoReader(source.paths[0])
    if source.kind == "images":
        return ImageStream(source.paths)
    if raw_size is not None:
        return RawStream(source.paths[0], raw_size)
    raise InputError(f"{source.text} is one picture and the other a video; expected a video or a directory of frames")


def _decoded(ir: Image, vis: Image) -> tuple[Image, Image]:
    return grey_if_grey(ir), vis


def _read_infrared(path: Path, raw_size: Size | None) -> Image:
    if path.suffix.lower() in READABLE_SUFFIXES:
        return grey_if_grey(read_image(path, temperatures=True))
    if raw_size is not None:
        return read_raw(path, raw_size)
    if path.suffix.lower() in RAW_SUFFIXES:
        raise InputError(f"{path}: raw infrared has no size in the file; give --raw-size WIDTHxHEIGHT")
    return grey_if_grey(read_image(path))


def _closest(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"; the directory {path.parent} does not exist"
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.parent / close[0]}?" if close else ""
