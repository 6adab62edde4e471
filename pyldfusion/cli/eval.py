"""Measure fused pictures against their sources: EN CC CC_uint8 SD EI VIFF SF AG MI Qabf SSIM.

IR and VIS are as for `pyldfusion fuse`: two images, directories (paired by file stem), quoted patterns or videos. FUSED
is an image, a directory of pictures named as the visible or the infrared ones, or a video. Prints a row for each and
the mean of the rows that have a value.

The infrared is first treated as fuse treats it: other sizes are resized onto the visible frame, 16 bits are scaled by
the 0.5 and 99.5 percentiles unless --thermal gives the range. 16-bit visible and fused pictures are divided by 257.

Exit code: 0 if every pair was measured, 1 if some were not, 2 if none was or the arguments are wrong.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, PyldfusionError
from .console import Console
from .options import add_registration_options, note_if_clipped, open_registration, size

if TYPE_CHECKING:
    from ..media import FilePairs, Pair, StreamPairs
    from ..registration import Registration

HELP = "measure fused pictures"

Fused = Callable[["Pair"], tuple[str, Any]]  # where the fused picture of a pair comes from, and the picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("ir", metavar="IR", help="infrared: an image, directory, quoted pattern or video")
    add("vis", metavar="VIS", help="visible: the same")
    add("fused", metavar="FUSED", help="fused: an image, directory or video")

    add = parser.add_argument_group("results").add_argument
    add("--csv", nargs="?", const="-", metavar="FILE", help="write CSV, its last row the mean; without FILE, print it")
    add("--json", nargs="?", const="-", metavar="FILE", help="write JSON; without FILE, print it")
    add("-q", "--quiet", action="store_true", help="print errors only")

    add = parser.add_argument_group("infrared").add_argument
    add("--raw-size", type=size, metavar="WxH", help="size of raw infrared files (little-endian, 16 bits, no header)")
    add("--thermal", type=float, nargs=2, metavar=("LO", "HI"), help="counts or temperatures for black and white")
    add_registration_options(parser)


def run(args: argparse.Namespace) -> int:
    from ..media import FilePairs, StreamPairs, open_pairs
    from ..thermal import check_range

    if args.csv == "-" and args.json == "-":
        raise InputError("--csv and --json would both be printed; give one of them a file name after it")
    _check_targets(args)
    registration = open_registration(args)
    thermal = check_range(args.thermal)
    pairs = open_pairs(args.ir, args.vis, args.raw_size)
    fused = _fused_of(args.fused, pairs)
    unit = "frames" if isinstance(pairs, StreamPairs) else "pairs"
    with Console("eval", pairs.count, unit, args.quiet) as console:
        if isinstance(pairs, FilePairs):
            console.note_alone(pairs.alone)
        records = []
        for pair in pairs:
            records.append(_measure(pair, fused, registration, thermal, console))
            console.advance()
        if isinstance(pairs, StreamPairs) and pairs.ended_early:
            console.note(pairs.ended_early)
        _tell(records, args, console)
        failed = sum(record["error"] is not None for record in records)
        if failed:
            console.error(f"{failed} of {len(records)} {unit} could not be measured")
        return 0 if not failed else 1 if failed < len(records) else 2


def _check_targets(args: argparse.Namespace) -> None:
    """Raises InputError if a file of results would replace an input or the other one."""
    from ..media import check_not_input

    inputs = [text for text in (args.ir, args.vis, args.fused, args.calibration, args.homography) if text]
    files = [(option, file) for option, file in (("--csv", args.csv), ("--json", args.json)) if file not in (None, "-")]
    for option, file in files:
        check_not_input(option, file, inputs)
    if len(files) == 2 and Path(args.csv).resolve() == Path(args.json).resolve():
        raise InputError(f"--csv and --json would both be written to {args.csv}; give two names")


def _measure(
    pair: Pair,
    fused_of: Fused,
    registration: Registration,
    thermal: tuple[float, float] | None,
    console: Console,
) -> dict[str, Any]:
    """The record of one pair: its name and files, and its metrics or what was wrong."""
    record: dict[str, Any] = {"name": pair.name, "ir": pair.ir, "vis": pair.vis, "fused": None}
    try:
        record["fused"], fused = fused_of(pair)
        ir, vis = pair.read()
        return record | {"metrics": _metrics(pair.name, fused, ir, vis, registration, thermal, console), "error": None}
    except PyldfusionError as error:
        console.error(f"{pair.name}: {error}")
        return record | {"metrics": None, "error": str(error)}


def _metrics(
    name: str,
    fused: Any,
    ir: Any,
    vis: Any,
    registration: Registration,
    thermal: tuple[float, float] | None,
    console: Console,
) -> dict[str, float]:
    from ..image import infrared_to_8bit
    from ..metrics import evaluate
    from ..thermal import to_counts

    given, (height, width), clip = ir, vis.shape[:2], thermal
    if ir.dtype.kind in "fi":  # temperatures
        ir, clip = to_counts(ir, thermal), (0.0, 65535.0)
    ir, vis, _ = registration.join(ir, vis)
    if ir.dtype.itemsize == 2:
        ir = infrared_to_8bit(ir, thermal=clip)
    elif thermal is not None:
        raise InputError("--thermal is given, but the infrared has 8 bits; a range is for 16-bit infrared alone")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        metrics = evaluate(fused, ir, vis)
    if registration.only_resizes and given.shape[:2] != (height, width):
        came = f"{given.shape[1]}x{given.shape[0]}"
        console.note(f"infrared of {came} is resized to the visible {width}x{height}", kind="resized")
    note_if_clipped(console, name, given, thermal)
    for warning in caught:
        console.note(str(warning.message), kind=str(warning.message)[:4])  # one for VIFF, one for SSIM
    return metrics


def _fused_of(text: str, pairs: FilePairs | StreamPairs) -> Fused:
    """How to get at the fused picture of each pair, which are asked for in order."""
    from ..media import StreamPairs, VideoReader, list_images, read_image
    from ..media.video import VIDEO_SUFFIXES

    path = Path(text)
    if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
        if not isinstance(pairs, StreamPairs):
            raise InputError(f"{path} is a video and its sources are pictures; expected a picture or a directory")
        frames = iter(VideoReader(path))

        def from_video(pair: Pair) -> tuple[str, Any]:
            frame = next(frames, None)
            if frame is None:
                raise InputError(f"{path} has no frame for this pair; it is shorter than its sources")
            return str(path), frame

        return from_video
    if path.is_file():
        if pairs.count != 1:
            raise InputError(f"{path} is one picture and its sources are several; expected a directory")
        return lambda pair: (str(path), read_image(path))
    if not path.exists():
        raise InputError(f"{path}: no such file or directory")

    files: dict[str, Path] = {}
    for file in list_images(path):
        if file.stem in files:
            raise InputError(f"{files[file.stem]} and {file} have the same name {file.stem!r}; keep one of them")
        files[file.stem] = file

    def from_files(pair: Pair) -> tuple[str, Any]:
        names = [pair.name] if isinstance(pairs, StreamPairs) else [pair.name, Path(pair.ir).stem]
        file = next((files[name] for name in names if name in files), None)
        if file is None:
            raise InputError(f"no fused picture in {path} is named {' or '.join(dict.fromkeys(names))}")
        return str(file), read_image(file)

    return from_files


def _tell(records: list[dict[str, Any]], args: argparse.Namespace, console: Console) -> None:
    """Write what was asked for, and the table unless something else is printed."""
    for target, text_of in ((args.csv, _csv), (args.json, _json)):
        if target == "-":
            print(text_of(records), end="", flush=True)
        elif target is not None:
            _write(target, text_of(records))
    if "-" not in (args.csv, args.json) and any(record["metrics"] for record in records):
        console.result(_table(records))


def _table(records: list[dict[str, Any]]) -> str:
    from ..metrics import NAMES

    measured = [record for record in records if record["metrics"]]
    rows = [(record["name"], record["metrics"]) for record in measured]
    rows.append((f"mean of {len(measured)}", _mean(records)))
    wide = max(len(name) for name, _ in rows)
    lines = [" " * wide + "".join(f"{name:>10}" for name in NAMES)]
    lines += [f"{name:<{wide}}" + "".join(f"{row[key]:10.4f}" for key in NAMES) for name, row in rows]
    return "\n".join(lines)


def _csv(records: list[dict[str, Any]]) -> str:
    from ..metrics import NAMES

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", *NAMES])
    rows = [(record["name"], record["metrics"]) for record in records if record["metrics"]]
    for name, row in [*rows, ("mean", _mean(records))]:
        writer.writerow([name, *("" if math.isnan(row[key]) else repr(row[key]) for key in NAMES)])
    return text.getvalue()


def _json(records: list[dict[str, Any]]) -> str:
    def with_null(row: dict[str, float]) -> dict[str, float | None]:
        return {name: None if math.isnan(value) else value for name, value in row.items()}

    images = [record | {"metrics": record["metrics"] and with_null(record["metrics"])} for record in records]
    return json.dumps({"images": images, "mean": with_null(_mean(records))}, indent=1, allow_nan=False) + "\n"


def _mean(records: list[dict[str, Any]]) -> dict[str, float]:
    """The mean of each metric over the records that have a value of it; NaN if none has."""
    from ..metrics import NAMES, mean

    return dict.fromkeys(NAMES, math.nan) | mean(record["metrics"] for record in records if record["metrics"])


def _write(target: str, text: str) -> None:
    from ..media import atomic_path

    with atomic_path(target) as part:
        part.write_text(text, "utf-8")
