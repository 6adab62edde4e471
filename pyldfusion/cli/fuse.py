"""Fuse infrared and visible pictures, directories or videos.

IR and VIS are two images, two directories (paired by file stem), two quoted patterns, or two videos. OUT is an image, a
directory, a pattern with {stem}, {index} or {view}, or a video (.mp4 .avi .mkv). Without it results go to the current
directory: fused_STEM.png, the directory fused/, or fused_STEM.mp4. Existing results are replaced. An OUT that is one
existing picture is replaced only if its name begins with fused, if it says that pyldfusion wrote it (.png and .jpg do),
or with --force.

Infrared of another size is resized onto the visible frame. 16-bit infrared and temperatures (TIFF of floats) are scaled
by their 0.5 and 99.5 percentiles unless --thermal gives the range; 16-bit visible gives 16-bit .png or .tif. Videos
lose their sound.

Exit code: 0 if every pair was written, 1 if some were not, 2 if none was or the arguments are wrong, 130 after Ctrl-C.
Finished files are whole even then, and a video ends with the last fused frame.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from typing import TYPE_CHECKING, Any

from ..errors import InputError, PyldfusionError
from .console import Console, counted
from .options import (
    add_model_options,
    add_palette,
    add_registration_options,
    note_if_clipped,
    number,
    open_fuser,
    open_registration,
    size,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..fuser import Fuser
    from ..media import FilePairs, Pair, PictureOutput, StreamPairs, VideoOutput
    from ..registration import Registration

    Output = PictureOutput | VideoOutput

HELP = "fuse images, directories or videos"

EDGE_CHECKS = 10  # pairs whose edges are compared before a run is called unregistered
UNIFORM_GREYS = 3.0  # of 255: a blurred picture that spans fewer shows nothing
UNIFORM_SHARE = 0.3  # what a blur leaves of a picture against what it takes; 0.1 of white noise, over 1 of scenes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ir", metavar="IR", help="infrared: an image, directory, quoted pattern or video")
    parser.add_argument("vis", metavar="VIS", help="visible: the same")
    parser.add_argument("out", metavar="OUT", nargs="?", help="image, directory, pattern or video (default: see above)")
    parser.add_argument("--force", action="store_true", help="replace the picture OUT whoever wrote it; never an input")
    add_model_options(parser)

    pictures = parser.add_argument_group("pictures")
    add = pictures.add_argument
    add(
        "--view",
        type=_views,
        action="extend",
        metavar="VIEW",
        help="fused (default), side (all three), ir or pip (ir in a corner); or several",
    )
    add_palette(pictures)
    add("--raw-size", type=size, metavar="WxH", help="size of raw infrared files (little-endian, 16 bits, no header)")
    add("--thermal", type=float, nargs=2, metavar=("LO", "HI"), help="counts or temperatures for black and white")
    add("--fps", type=_rate, metavar="RATE", help="frames a second of a video written (default: the visible video's)")

    add("--temporal", type=number(0), metavar="S",
        help="of videos: average the network's statistics over so many seconds: calmer; cuts begin anew")  # fmt: skip

    add_registration_options(parser)

    add = parser.add_argument_group("messages").add_argument
    add("--json", action="store_true", help="print a JSON object for each pair (or video), one a line")
    add("-q", "--quiet", action="store_true", help="print errors only")


def run(args: argparse.Namespace) -> int:
    from ..media import DEFAULT_RATE, StreamPairs, open_output, open_pairs

    views = list(dict.fromkeys(args.view or ["fused"]))
    pairs = open_pairs(args.ir, args.vis, args.raw_size)
    if args.temporal is not None and not isinstance(pairs, StreamPairs):
        raise InputError(f"--temporal is for videos; {args.ir} and {args.vis} are pictures, each for itself")
    output = open_output(args.out, pairs, views, args.fps, args.force)
    registration = open_registration(args)
    thermal = (args.thermal[0], args.thermal[1]) if args.thermal else None
    unit = "frames" if isinstance(pairs, StreamPairs) else "pairs"
    with Console("fuse", pairs.count, unit, args.quiet) as console, warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: console.note(str(message))
        with open_fuser(args, thermal=thermal, temporal=args.temporal) as fuser:
            worker = _Worker(fuser, registration, views, args.palette, thermal, console)
            if isinstance(pairs, StreamPairs):
                return _fuse_video(pairs, output, worker, args.json, args.fps or pairs.rate or DEFAULT_RATE)
            return _fuse_files(pairs, output, worker, args.json)


def _fuse_files(pairs: FilePairs, output: Output, worker: _Worker, as_json: bool) -> int:
    """Every pair by itself: one that fails is told, and the others go on."""
    console, failed = worker.console, 0
    console.note_alone(pairs.alone)
    try:
        with output:
            for index, pair in enumerate(pairs):
                record: dict[str, Any] = {"ir": pair.ir, "vis": pair.vis, "error": None}
                try:
                    record |= worker.fuse(pair, index, output)
                except PyldfusionError as error:
                    failed += 1
                    record["error"] = str(error)
                    console.error(str(error) if pairs.count == 1 else f"{pair.name}: {error}")
                if as_json:
                    print(json.dumps(record), flush=True)
                elif pairs.count == 1 and worker.written:
                    files = ", ".join(record["out"].values())
                    console.result(f"{files}: {record['width']}x{record['height']}, {worker.with_what}")
                console.advance()
    except KeyboardInterrupt:
        console.error(f"interrupted; {counted(worker.written, 'pair')} written")
        return 130
    worker.warn_if_unregistered()
    if not as_json and pairs.count != 1:
        counts = f"{counted(worker.written, 'pair')} fused, {failed} failed, in {console.seconds:.1f} s"
        console.result(f"{counts}{f'; the last is {worker.last}' if worker.written else ''}; {worker.with_what}")
    return 0 if not failed else 1 if worker.written else 2


def _fuse_video(pairs: StreamPairs, output: Output, worker: _Worker, as_json: bool, rate: float) -> int:
    """Two videos: one result, which ends where the first of them ends, or fails, or is interrupted."""
    console = worker.console
    record: dict[str, Any] = {"ir": pairs.texts[0], "vis": pairs.texts[1], "error": None}
    milliseconds: list[float] = []
    code = 0
    try:
        with output:
            try:
                for index, pair in enumerate(pairs):
                    record |= worker.fuse(pair, index, output, compare=index < EDGE_CHECKS, at=index / rate)
                    milliseconds.append(record["milliseconds"])
                    console.advance()
            except (PyldfusionError, KeyboardInterrupt) as error:
                if not milliseconds:
                    raise
                record["error"] = str(error) or "interrupted"
                code = 130 if isinstance(error, KeyboardInterrupt) else 1
    except (PyldfusionError, KeyboardInterrupt) as error:  # no frame, or a video that could not be finished
        record |= {"error": str(error) or "interrupted", "out": {}}
        raise
    finally:
        if milliseconds:
            record |= {"frames": len(milliseconds), "milliseconds": round(statistics.median(milliseconds), 2)}
            record["edge_correlation"] = round(worker.correlation, 4)
        if as_json:
            print(json.dumps(record), flush=True)
    frames = counted(len(milliseconds), "frame")
    if code:
        console.error(f"stopped after {frames}; what was fused is written: {record['error']}")
    elif pairs.ended_early:
        console.note(pairs.ended_early)
    worker.warn_if_unregistered()
    if not as_json:
        speed = f"{len(milliseconds) / console.seconds:.1f} a second"
        console.result(f"{worker.last}: {frames}, {speed}, {worker.with_what}")
    return code


class _Worker:
    """One pair from reading to writing, and what there is to say about it."""

    def __init__(
        self,
        fuser: Fuser,
        registration: Registration,
        views: list[str],
        palette: str,
        thermal: tuple[float, float] | None,
        console: Console,
    ) -> None:
        self.fuser, self.registration, self.views, self.palette = fuser, registration, views, palette
        self.thermal, self.console = thermal, console
        self.last = ""  # the first view's path, of the latest pair
        self.written = 0  # pairs whose views are all on disk
        self._latest = 0.0  # edge correlation of the latest pair that was compared
        self._correlations: list[float] = []

    @property
    def with_what(self) -> str:
        """The network and engine, for people."""
        info = self.fuser.info
        return f"{info['model']} on {info['engine']} {info['precision']}"

    @property
    def correlation(self) -> float:
        """Median edge correlation of the first pairs; 0 if all were uniform."""
        return statistics.median(self._correlations[:EDGE_CHECKS] or [0.0])

    def fuse(
        self, pair: Pair, index: int, output: Output, compare: bool = True, at: float | None = None
    ) -> dict[str, Any]:
        """Fuse one pair and write its views; returns what --json tells. Raises PyldfusionError.

        `compare` says whether to look at the edges of this pair; `at` is its time in a video, in seconds.
        """
        from ..media import grey_if_grey
        from ..registration import visible_outside
        from ..thermal import to_counts
        from ..views import view_picture

        measured, vis = pair.read()
        ir, thermal = measured, self.thermal
        if measured.dtype.kind in "fi":  # temperatures
            ir, thermal = to_counts(measured, self.thermal), (0.0, 65535.0)
        if pair.ir == pair.vis:
            self.console.note("IR and VIS are the same file: was another one meant?", kind="same")
        if ir.ndim == 3 and grey_if_grey(vis).ndim == 2:
            self.console.note("IR is in colour and VIS is grey: are they swapped? IR comes first", kind="swapped")
        height, width = vis.shape[:2]
        came, given = f"{ir.shape[1]}x{ir.shape[0]}", ir
        matrix = None
        if self.fuser.warps:
            matrix = self.registration.only_homography((ir.shape[1], ir.shape[0]), (width, height))
        ir, vis, cover = self.registration.join(ir, vis)
        if self.registration.only_resizes and came != f"{width}x{height}":
            self.console.note(f"infrared of {came} is resized to the visible {width}x{height}", kind="resized")
        start = time.perf_counter()
        fused = self.fuser.fuse(ir if matrix is None else given, vis, homography=matrix, thermal=thermal, time=at)
        milliseconds = 1000 * (time.perf_counter() - start)
        if cover is not None:
            fused = visible_outside(fused, vis, cover)
        written = {}
        for view in self.views:
            picture = view_picture(view, ir, vis, fused, self.palette, thermal)
            written[view] = str(output.write(pair.name, index, view, picture))
        self.last = written[self.views[0]]
        self.written += 1
        if compare:
            self._compare(pair.name, measured, ir, vis, thermal)
        return {
            "out": written,
            "width": vis.shape[1],
            "height": vis.shape[0],
            "milliseconds": round(milliseconds, 2),
            "edge_correlation": round(self._latest, 4),
        }

    def _compare(
        self,
        name: str,
        measured: NDArray[Any],
        ir: NDArray[Any],
        vis: NDArray[Any],
        thermal: tuple[float, float] | None,
    ) -> None:
        """Look at the edges of a pair that was fused; pictures without any say nothing about how they lie."""
        from ..image import infrared_to_8bit
        from ..registration import UNREGISTERED_BELOW, edge_correlation

        clipped = note_if_clipped(self.console, name, measured, self.thermal)
        self._latest = edge_correlation(ir, vis)
        if self._latest < UNREGISTERED_BELOW:
            seen = infrared_to_8bit(ir, thermal=thermal) if ir.dtype.itemsize == 2 else ir
            uniform = [word for word, plane in (("infrared", seen), ("visible", vis)) if _is_uniform(plane)]
            for word in uniform:
                if not (clipped and word == "infrared"):
                    self.console.note(
                        f"{name}: the {word} picture is nearly uniform: a covered lens, or a wrong range?", kind=word
                    )
            if uniform:
                return
        self._correlations.append(self._latest)
        if len(self._correlations) == EDGE_CHECKS:
            self.warn_if_unregistered()

    def warn_if_unregistered(self) -> None:
        """One warning a run, by the median of its first pairs."""
        from ..registration import UNREGISTERED_BELOW

        if self._correlations and self.correlation < UNREGISTERED_BELOW:
            self.console.note(
                f"the infrared and the visible picture look unregistered (their edges correlate by "
                f"{self.correlation:.2f}; registered pairs have more than {UNREGISTERED_BELOW}), so expect "
                "double contours; pyldfusion calibrate finds out how they lie, --calibration FILE uses it",
                kind="unregistered",
            )


def _is_uniform(picture: NDArray[Any]) -> bool:
    """Whether a picture shows nothing: one grey, or noise alone, of which a blur leaves little."""
    import cv2
    import numpy as np

    from ..media import to_eight_bits

    picture = to_eight_bits(picture)
    height, width = picture.shape[:2]
    scale = min(1.0, 240 / max(height, width))
    size = max(8, round(width * scale)), max(8, round(height * scale))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    plane = small if small.ndim == 2 else small.mean(axis=2)
    blurred = cv2.GaussianBlur(plane, (0, 0), 3.0)
    return bool(np.ptp(blurred) < UNIFORM_GREYS or blurred.std() < UNIFORM_SHARE * (plane - blurred).std())


def _views(text: str) -> list[str]:
    from ..views import VIEWS

    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in VIEWS:
            raise argparse.ArgumentTypeError(f"{name!r} is not a view; expected {', '.join(VIEWS)}")
    return names


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate; expected frames a second, up to 1000")
    return rate
