"""Options that several verbs share."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..fuser import Fuser
    from ..registration import Registration
    from .console import Console

__all__ = [
    "add_model_options",
    "add_palette",
    "add_registration_options",
    "note_if_clipped",
    "number",
    "open_fuser",
    "open_registration",
    "size",
]

MOST_CLIPPED = 0.95  # share of an infrared picture that may lie outside --thermal without a word


def number(low: float | None, kind: type = float) -> Callable[[str], Any]:
    """A parser for argparse: a finite number, at least ``low``."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or (low is not None and value < low):
            least = "" if low is None else f" of at least {low:g}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a {'whole ' * (kind is int)}number{least}")
        return value

    return read


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which network runs where; `open_fuser` opens what they say."""
    model = parser.add_argument_group("model")
    model.add_argument("--model", metavar="NAME|FILE", help="full, lite, pyramid, or a file: .onnx, .xml, .safetensors")
    model.add_argument("--engine", help="openvino, onnxruntime, torch or native (default: the fastest installed)")
    model.add_argument("--precision", help="fp32, bf16 or fp16 (default: the fastest that the device has itself)")
    model.add_argument("--device", help="cpu, cuda or cuda:N")
    model.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: the physical cores)")


def open_fuser(args: argparse.Namespace, **options: Any) -> Fuser:
    """The Fuser that the model options ask for; `options` are passed on to it."""
    from ..fuser import Fuser

    return Fuser(args.model, args.device, args.engine, precision=args.precision, threads=args.threads, **options)


def add_registration_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """How infrared of another view comes onto the visible frame; `open_registration` does what they say.

    Returns their group, for more of them.
    """
    group = parser.add_argument_group("infrared of another view")
    add = group.add_mutually_exclusive_group().add_argument
    add("--calibration", metavar="FILE", help="what pyldfusion calibrate wrote")
    add("--homography", metavar="FILE", help="3x3, infrared to visible pixels: text, .json, .npy or .yml")
    add("--resize", action="store_true", help="stretch infrared whose aspect differs by more than 2 %%")
    add = group.add_argument
    add("--distance", type=float, metavar="M", help="metres to what is looked at, for a calibration at several")
    add("--outside", default="mask", metavar="WHAT",
        help="where infrared sees nothing: mask (the visible picture alone, default), crop (to what both see), or "
        "repeat (its border is fused)")  # fmt: skip
    return group


def open_registration(args: argparse.Namespace) -> Registration:
    """The Registration that the options ask for. Raises InputError."""
    from ..calibration import load_calibration
    from ..registration import Registration, load_homography

    return Registration(
        load_homography(args.homography) if args.homography else None,
        args.resize,
        calibration=load_calibration(args.calibration) if args.calibration else None,
        distance=args.distance,
        outside=args.outside,
    )


def note_if_clipped(console: Console, name: str, ir: NDArray[Any], thermal: tuple[float, float] | None) -> bool:
    """Say so, once a run, when ``--thermal`` makes nearly all of an infrared picture black or white."""
    if thermal is None:
        return False
    low, high = thermal
    share = float(((ir < low) | (ir > high)).mean())
    if share <= MOST_CLIPPED:
        return False
    console.note(
        f"{name}: --thermal {low:g} {high:g} makes {share:.0%} of the infrared black or white; its values are "
        f"{ir.min()} to {ir.max()}",
        kind="clipped",
    )
    return True


def add_palette(group: argparse._ArgumentGroup) -> None:
    """``--palette``."""
    from ..views import PALETTES

    group.add_argument(
        "--palette", choices=PALETTES, default="inferno", help="colours of infrared: %(choices)s", metavar="NAME"
    )


def size(text: str) -> tuple[int, int]:
    """Parse WIDTHxHEIGHT; for argparse's `type`."""
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    if match is None or not int(match[1]) or not int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; expected WIDTHxHEIGHT such as 640x480")
    return int(match[1]), int(match[2])
