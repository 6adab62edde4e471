"""Where results go: OUT on a command line as a picture, a directory, a pattern or a video."""

from __future__ import annotations

import difflib
import re
import string
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from ..errors import InputError
from .images import WRITABLE_SUFFIXES, is_result, write_image
from .sources import FilePairs, StreamPairs
from .video import VIDEO_CODECS, VideoWriter

__all__ = ["PictureOutput", "VideoOutput", "is_video", "open_output", "picture_pattern"]

FIELDS = ("stem", "view", "index")
PRINTF = re.compile(r"%(0?\d*)d")


class PictureOutput:
    """One file for each pair and view. `pattern` holds {stem}, {index} and {view}; existing files are replaced."""

    def __init__(self, pattern: str, views: list[str]) -> None:
        self.pattern = pattern
        self._views = views

    def __enter__(self) -> PictureOutput:
        return self

    def __exit__(self, *_: object) -> None: ...

    def path(self, name: str, index: int, view: str) -> Path:
        """The file for one view of one pair; with several views and no {view}, all but the first get a suffix."""
        path = Path(self.pattern.format(stem=name, index=index, view=view))
        if view == self._views[0] or "{view" in self.pattern:
            return path
        return path.with_name(f"{path.stem}_{view}{path.suffix}")

    def write(self, name: str, index: int, view: str, picture: NDArray[Any]) -> Path:
        """Write one picture; returns its path."""
        path = self.path(name, index, view)
        write_image(path, picture, mark=True)
        return path

    def check(self, pairs: FilePairs, force: bool = False) -> None:
        """Raises InputError if two results would have one name, or if one would replace an input.

        If OUT names one picture, also if a file is there that is no result, unless `force`: the third file of an
        unquoted *.png is taken for OUT.
        """
        inputs = {path.resolve() for path in pairs.inputs}
        one = pairs.count == 1 and "{" not in self.pattern
        taken: dict[Path, str] = {}
        for index, (_, vis) in enumerate(pairs.files):
            for view in self._views:
                path = self.path(vis.stem, index, view)
                if path.resolve() in inputs:
                    raise InputError(f"the result {path} would replace an input; choose another OUT")
                if path in taken:
                    raise InputError(
                        f"{taken[path]} and {vis.name} would both be written to {path}; "
                        "give a directory, or a pattern such as fused_{stem}.png"
                    )
                taken[path] = vis.name
                if one and not force and path.is_file() and not _may_replace(path):
                    raise InputError(
                        f"OUT {path} exists and pyldfusion did not write it; choose another OUT, put a pattern such as "
                        "'*.png' in quotes, or give --force to replace it"
                    )

    def check_frames(self, pairs: StreamPairs) -> None:
        """Raises InputError if a result would come into the folder of an input sequence of pictures."""
        inputs = pairs.pictures
        folders = {folder.resolve() for folder in {path.parent for path in inputs}}
        folders |= {path.resolve().parent for path in inputs}  # of links: writing goes through them
        stem = Path(pairs.texts[1]).stem
        for folder in {
            self.path(f"{stem}_{index:06d}", index, view).parent for index in range(len(inputs)) for view in self._views
        }:
            if folder.resolve() in folders:
                raise InputError(
                    f"the results would come into {folder}, among the pictures that are read, and could replace them; "
                    "choose another folder for OUT"
                )


class VideoOutput:
    """A video for each view. Closing finishes them; what was written before an interruption is whole."""

    def __init__(self, path: Path, views: list[str], rate: float | None) -> None:
        self.paths = {view: path if view == views[0] else path.with_stem(f"{path.stem}_{view}") for view in views}
        self._writers = {view: VideoWriter(file, rate) for view, file in self.paths.items()}
        self._stack = ExitStack()

    def __enter__(self) -> VideoOutput:
        for writer in self._writers.values():
            self._stack.enter_context(writer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, name: str, index: int, view: str, picture: NDArray[Any]) -> Path:
        """Add one frame; returns the video's path."""
        self._writers[view].write(picture)
        return self.paths[view]


def open_output(
    out: str | None, pairs: FilePairs | StreamPairs, views: list[str], rate: float | None = None, force: bool = False
) -> PictureOutput | VideoOutput:
    """Decide where the results of `pairs` go.

    Without `out`: `fused_STEM.png` for one pair, the directory `fused` for several, `fused_STEM.mp4` for a video
    (or another view's name in place of `fused`), all in the current directory. `rate` is the frames a second of a
    video, default the visible input's. Raises InputError for a suffix that cannot be written, an unknown
    placeholder, results that would share a name or replace an input; and, without `force`, for an `out` that is one
    picture and exists, unless it is marked as a result or its name begins with fused.
    """
    out = _default(pairs, views[0]) if out is None else out
    if is_video(out):
        video = VideoOutput(Path(out), views, rate or pairs.rate)
        inputs = {Path(text).resolve() for text in (pairs.texts if isinstance(pairs, StreamPairs) else ())}
        for path in video.paths.values():
            if path.resolve() in inputs:
                raise InputError(f"the result {path} would replace an input; choose another OUT")
        return video
    output = PictureOutput(picture_pattern(out, many=isinstance(pairs, StreamPairs)), views)
    if isinstance(pairs, FilePairs):
        output.check(pairs, force)
    else:
        output.check_frames(pairs)
    return output


def is_video(out: str) -> bool:
    """Whether `out` names a video, by its suffix."""
    return Path(out).suffix.lower() in VIDEO_CODECS and not Path(out).is_dir() and not out.endswith("/")


def picture_pattern(out: str, name: str = "{stem}", many: bool = True) -> str:
    """The pattern of `PictureOutput` for a directory (files called `name`), a pattern (also with %05d) or a picture.

    Raises InputError for a suffix that cannot be written, an unknown placeholder, and one picture for `many` frames.
    """
    suffix = Path(out).suffix.lower()
    if Path(out).is_dir() or out.endswith("/") or not suffix:
        folder = out.rstrip("/").replace("{", "{{").replace("}", "}}")
        return f"{folder}/{name}.png"
    if suffix not in WRITABLE_SUFFIXES:
        known = " ".join((*WRITABLE_SUFFIXES, *VIDEO_CODECS))
        raise InputError(f"{out}: cannot write {suffix}; use one of {known}, or a directory (with / at its end)")
    pattern = PRINTF.sub(lambda match: f"{{index:{match[1]}d}}", out)
    _check_fields(pattern)
    if many and "{stem" not in pattern and "{index" not in pattern:
        raise InputError(f"{out} is one picture, but a video has many frames; add {{index}} to it, or use .mp4")
    return pattern


def _may_replace(path: Path) -> bool:
    return path.stem.startswith("fused") or is_result(path)


def _default(pairs: FilePairs | StreamPairs, view: str) -> str:
    if isinstance(pairs, StreamPairs):
        return f"{view}_{Path(pairs.texts[1]).stem}.mp4"
    return f"{view}_{{stem}}.png" if pairs.count == 1 else f"{view}/"


def _check_fields(pattern: str) -> None:
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(pattern) if field is not None]
        unknown = next((field for field in fields if field not in FIELDS), None)
        if unknown is None:
            pattern.format(stem="a", index=1, view="fused")
            return
    except ValueError as error:
        message = f"OUT {pattern!r} is not a pattern ({error}); placeholders are {{stem}} {{index}} {{view}}"
        raise InputError(message) from None
    close = difflib.get_close_matches(unknown, FIELDS, n=1)
    hint = f"; did you mean {{{close[0]}}}?" if close else "; placeholders are {stem} {index} {view}"
    raise InputError(f"OUT {pattern!r} has an unknown placeholder {{{unknown}}}{hint}")
