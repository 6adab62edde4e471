"""Find out how an infrared camera's picture lies on a visible camera's, and keep it in a file.

IR and VIS are two pictures, directories (paired by file stem), quoted patterns, videos, or live cameras as in
pyldfusion stream. With a target, held at one distance in several places of the view:

  pyldfusion calibrate ir/ vis/ --target circles 7x5 -o calibration.json
  pyldfusion calibrate v4l2:///dev/video2 csi://0 --target checkerboard 9x6 --distance 5 -o calibration.json
  pyldfusion calibrate ir.png vis.png --target points picked.csv -o calibration.json

or from the scene itself, which is refused when the scene does not tell:

  pyldfusion calibrate ir.mp4 vis.mp4 --auto -o calibration.json

Then: pyldfusion fuse ir.png vis.png fused.png --calibration calibration.json

Exit code: 0 if the file is written, 1 if the pictures do not give a calibration, 2 if something could not be opened or
the arguments are wrong. Nothing is written then.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CalibrationError, InputError
from .console import Console
from .options import number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..calibration import Calibration, Lens, Plane
    from ..calibration.fit import View
    from ..calibration.geometry import Size
    from ..calibration.targets import Target
    from ..calibration.views import Taken

HELP = "find out how infrared lies on the visible picture"

VIEWS, VIEWS_AUTO = 20, 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ir", metavar="IR", help="infrared: picture, directory, quoted pattern, video or camera")
    parser.add_argument("vis", metavar="VIS", help="visible: the same")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the file, as calibration.json")

    how = parser.add_argument_group("how")
    add = how.add_mutually_exclusive_group(required=True).add_argument
    add("--target", nargs="+", metavar="KIND",
        help="circles CxR, checkerboard CxR (corners inside), apriltag [FAMILY], or points FILE.csv")  # fmt: skip
    add("--auto", action="store_true", help="no target: from edges that both pictures show")
    add = how.add_argument
    add("--start", metavar="FILE", help="of --auto: about where it is, a calibration or a homography")
    add(
        "--lens",
        action="store_true",
        help="of circles or a checkerboard: what the lenses bend as well, from 6 views up",
    )
    add("--distance", type=number(0.01), metavar="M", help="of the target, in metres")
    add("--add", action="store_true", help="another distance for a calibration that FILE already holds")

    add = parser.add_argument_group("views").add_argument
    add(
        "--views",
        type=number(1, int),
        metavar="N",
        help=f"so many pairs of files, evenly apart, or views of cameras (default: {VIEWS}, with --auto {VIEWS_AUTO})",
    )
    add("--ir-layout", default="plain", metavar="NAME", help="of the counts, as in pyldfusion stream")
    add("--interval", type=number(0), default=1.0, metavar="S", help="between views of cameras (default: 1)")
    add("--timeout", type=number(0.1), default=120.0, metavar="S", help="of cameras: stop looking (default: 120)")

    add = parser.add_argument_group("messages").add_argument
    add("--check", metavar="PICTURE", help="write the last view, infrared in red over the visible one, to look at")
    add("--json", action="store_true", help="print the result as a JSON object")
    add("-q", "--quiet", action="store_true", help="print errors only")


@dataclass
class _Found:
    """What the views gave, the last of them, and the sizes of all of them."""

    plane: Plane
    sizes: tuple[Size, Size]
    last: Taken
    views: tuple[View, ...] = ()
    lenses: tuple[Lens | None, Lens | None] = (None, None)


def run(args: argparse.Namespace) -> int:
    from ..calibration import save_calibration
    from ..calibration.targets import parse_target
    from ..calibration.views import take_views

    target = parse_target(args.target) if args.target else None
    known = _checked(args, target)
    _check_files(args, target)
    start = _start(args.start) if args.start else None
    lenses = (known.ir_lens, known.vis_lens) if known else (None, None)
    count = args.views or (VIEWS if target else VIEWS_AUTO)
    with Console("calibrate", count, "views", args.quiet) as console:
        if known is None:
            _note_replaced(args, console)
        views = take_views(args.ir, args.vis, count, args.interval, args.timeout, args.ir_layout)
        try:
            if target is None:
                found = _automatic(views, count, start, args.distance, console)
            else:
                found = _with_target(target, views, count, args.distance, lenses, args.lens, console)
        except CalibrationError as error:
            console.error(f"{error}; nothing is written")
            return 1
        calibration = _joined(known, found, str(target) if target else "automatic")
        if args.check:  # first: if it cannot be written, nothing is
            _write_check(args.check, calibration, args.distance, found.last)
        save_calibration(calibration, args.output)
        _report(args, calibration, found, console)
    return 0


def _checked(args: argparse.Namespace, target: Target | None) -> Calibration | None:
    """The calibration that another distance is added to. Raises InputError for options that do not go together."""
    from ..calibration import load_calibration
    from ..media import WRITABLE_SUFFIXES

    if args.start and target:
        raise InputError("--start is for --auto; a target needs none")
    if args.lens and (target is None or not target.grid[0] or args.add):
        raise InputError("--lens is for a new calibration with circles or a checkerboard")
    if args.add and args.distance is None:
        raise InputError("--add needs --distance M: a calibration has one homography for each distance")
    if args.check and Path(args.check).suffix.lower() not in WRITABLE_SUFFIXES:  # said before anyone holds a target
        raise InputError(f"--check {args.check}: not a picture; expected one of {' '.join(WRITABLE_SUFFIXES)}")
    known = load_calibration(args.output) if args.add else None
    if known and target is None and (known.ir_lens or known.vis_lens):
        raise InputError("--add: this calibration has lenses, which --auto does not take into account; use a target")
    return known


def _check_files(args: argparse.Namespace, target: Target | None) -> None:
    """Raises InputError if a file that is written would replace an input or the other one."""
    from ..camera import parse
    from ..media import check_not_input

    addresses = [parse(text, "source") for text in (args.ir, args.vis)]
    inputs = [address.target for address in addresses if address.scheme.name == "file"]
    inputs += [str(target.file)] if target is not None and target.kind == "points" else []
    check_not_input("-o", args.output, inputs)
    if args.check:
        check_not_input("--check", args.check, [*inputs, *([args.start] if args.start else [])])
        if Path(args.check).resolve() == Path(args.output).resolve():
            raise InputError(f"--check and -o would both be written to {args.check}; give two names")


def _note_replaced(args: argparse.Namespace, console: Console) -> None:
    """Tell of other distances in a calibration that the new one replaces."""
    from ..calibration import load_calibration

    try:
        planes = load_calibration(args.output).planes
    except CalibrationError:  # none there, or no calibration
        return
    distances = [plane.distance for plane in planes if plane.distance is not None]
    if set(distances) - {args.distance}:
        held = " and ".join(f"{distance:g} m" for distance in sorted(distances))
        console.note(f"{args.output} has a calibration at {held}, which will be replaced; --add keeps other distances")


def _report(args: argparse.Namespace, calibration: Calibration, found: _Found, console: Console) -> None:
    plane = found.plane
    if args.json:
        print(json.dumps({
            "out": args.output, "method": calibration.method, "rmse": round(plane.rmse, 4),
            "views": [_row(view) for view in found.views], "homography": plane.homography.tolist(),
            "distance": plane.distance,
        }))  # fmt: skip
        return
    for line in _table(found.views):
        console.result(line)
    for name, lens in zip(("infrared", "visible"), found.lenses, strict=True):
        if lens is not None and args.lens:
            console.result(f"{name} lens: {lens}")
    words = f"{plane.rmse:.2f} px {'expected error' if args.auto else 'root mean square error'}"
    console.result(f"{args.output}: {words}, of {plane.views} view{'s' * (plane.views > 1)}")


def _with_target(
    target: Target,
    views: Iterable[Taken],
    count: int,
    distance: float | None,
    lenses: tuple[Lens | None, Lens | None],
    find_lenses: bool,
    console: Console,
) -> _Found:
    import numpy as np

    from ..calibration import Plane
    from ..calibration.fit import View, fit_views
    from ..calibration.lens import find_lens, undistorted
    from ..calibration.targets import match, read_points

    picked = read_points(target.file) if target.kind == "points" else None
    found: list[View] = []
    sizes, last = None, None
    for name, ir, vis in views:
        sizes = _same_sizes(sizes, ir, vis, name)
        last = name, ir, vis
        try:
            points = picked or match(target, ir, vis)
        except CalibrationError as error:
            found.append(View(name, np.empty((0, 2)), np.empty((0, 2)), trouble=str(error)))
        else:
            found.append(View(name, *points))
            console.advance()
        if picked or sum(not view.trouble for view in found) >= count:
            break
    if sizes is None or last is None:
        raise CalibrationError("there are no views")
    if find_lenses:
        good = [view for view in found if not view.trouble]
        lenses = (
            find_lens([view.ir for view in good], target.grid, sizes[0], "infrared"),
            find_lens([view.vis for view in good], target.grid, sizes[1], "visible"),
        )
    fit = fit_views([undistorted(view, *lenses) for view in found], sizes[1])
    if fit.warning:
        console.note(fit.warning)
    used = sum(not view.trouble for view in fit.views)
    return _Found(Plane(fit.homography, distance, fit.rmse, used), sizes, last, fit.views, lenses)


def _automatic(
    views: Iterable[Taken], count: int, start: NDArray[np.float64] | None, distance: float | None, console: Console
) -> _Found:
    from ..calibration import Plane, align

    taken: list[Taken] = []
    sizes = None
    for name, ir, vis in views:
        sizes = _same_sizes(sizes, ir, vis, name)
        taken.append((name, ir, vis))
        console.advance()
        if len(taken) == count:
            break
    if sizes is None:
        raise CalibrationError("there are no views")
    found = align([(ir, vis) for _, ir, vis in taken], start)
    console.note(f"{found.support:.0%} of what infrared sees supports it")
    return _Found(Plane(found.homography, distance, found.expected_error, len(taken)), sizes, taken[-1])


def _same_sizes(sizes: tuple[Size, Size] | None, ir: Any, vis: Any, name: str) -> tuple[Size, Size]:
    now = (ir.shape[1], ir.shape[0]), (vis.shape[1], vis.shape[0])
    if sizes is not None and now != sizes:
        words = " and ".join(f"{width}x{height}" for width, height in now)
        before = " and ".join(f"{width}x{height}" for width, height in sizes)
        raise CalibrationError(f"{name} has {words} pixels, the views before {before}; expected one size a camera")
    return now


def _start(path: str) -> Any:
    """The homography in a calibration or in a bare file."""
    from ..calibration import load_calibration
    from ..registration import load_homography

    try:
        return load_homography(path)
    except InputError as error:
        try:
            return load_calibration(path).homography()
        except CalibrationError:
            raise error from None


def _joined(known: Calibration | None, found: _Found, method: str) -> Calibration:
    """A new calibration, or the known one with a distance more."""
    from ..calibration import Calibration

    if known is None:
        ir_lens, vis_lens = found.lenses
        return Calibration(*found.sizes, (found.plane,), method, ir_lens=ir_lens, vis_lens=vis_lens)
    if (known.ir_size, known.vis_size) != found.sizes:
        raise InputError(
            f"--add: the calibration is for {known.ir_size} and {known.vis_size} pixels, these views have "
            f"{found.sizes[0]} and {found.sizes[1]}; expected the same"
        )
    return known.with_plane(found.plane)


def _table(views: tuple[View, ...]) -> list[str]:
    if not views:
        return []
    width = max(4, *(len(view.name) for view in views))
    lines = [f"{'view':<{width}}  points  error px"]
    for view in views:
        error = f"{view.error:8.2f}" if view.error == view.error else " " * 8
        lines.append(f"{view.name:<{width}}  {len(view.ir):6}  {error}  {view.trouble}".rstrip())
    return lines


def _row(view: View) -> dict[str, Any]:
    error = round(view.error, 4) if view.error == view.error else None
    return {"name": view.name, "points": len(view.ir), "error": error, "trouble": view.trouble}


def _write_check(path: str, calibration: Calibration, distance: float | None, view: Taken) -> None:
    import numpy as np

    from ..image import infrared_to_8bit
    from ..media import write_image
    from ..registration import Registration

    ir, vis = (infrared_to_8bit(frame) for frame in view[1:])
    placed, _ = Registration(calibration=calibration, distance=distance).place(ir, (vis.shape[1], vis.shape[0]))
    write_image(path, np.dstack([vis, vis, placed]))
