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
from typing import TYPE_CHECKING, Any

from ..errors import CalibrationError, InputError
from .console import Console

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..calibration import Calibration, Plane
    from ..calibration.fit import View
    from ..calibration.geometry import Size
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
    add("--distance", type=float, metavar="M", help="of the target, in metres")
    add("--add", action="store_true", help="another distance for a calibration that FILE already holds")

    add = parser.add_argument_group("views").add_argument
    add("--views", type=int, metavar="N", help=f"at most so many (default: {VIEWS}, with --auto {VIEWS_AUTO})")
    add("--interval", type=float, default=1.0, metavar="S", help="between views of cameras (default: 1)")
    add("--timeout", type=float, default=120.0, metavar="S", help="of cameras: stop looking (default: 120)")

    add = parser.add_argument_group("messages").add_argument
    add("--check", metavar="PICTURE", help="write the last view, infrared in red over the visible one, to look at")
    add("--json", action="store_true", help="print the result as a JSON object")
    add("-q", "--quiet", action="store_true", help="print errors only")


def run(args: argparse.Namespace) -> int:
    from ..calibration import load_calibration, save_calibration
    from ..calibration.targets import parse_target
    from ..calibration.views import take_views

    target = parse_target(args.target) if args.target else None
    count = args.views or (VIEWS if target else VIEWS_AUTO)
    if count < 1 or args.interval < 0 or not args.timeout > 0 or not (args.distance is None or args.distance > 0):
        raise InputError("--views, --interval, --timeout and --distance are numbers above 0")
    if args.start and target:
        raise InputError("--start is for --auto; a target needs none")
    if args.add and args.distance is None:
        raise InputError("--add needs --distance M: a calibration has one homography for each distance")
    start = _start(args.start) if args.start else None
    known = load_calibration(args.output) if args.add else None
    with Console("calibrate", count, "views", args.quiet) as console:
        views = take_views(args.ir, args.vis, count, args.interval, args.timeout)
        try:
            if target is None:
                plane, sizes, last, rows = _automatic(views, count, start, args.distance, console)
            else:
                plane, sizes, last, rows = _with_target(target, views, count, args.distance, console)
        except CalibrationError as error:
            console.error(f"{error}; nothing is written")
            return 1
        calibration = _joined(known, plane, sizes, str(target) if target else "automatic")
        save_calibration(calibration, args.output)
        if args.check:
            _write_check(args.check, plane.homography, last)
        words = f"{plane.rmse:.2f} px {'root mean square error' if target else 'expected error'}"
        if args.json:
            print(json.dumps({
                "out": args.output, "method": calibration.method, "rmse": round(plane.rmse, 4), "views": rows,
                "homography": plane.homography.tolist(), "distance": plane.distance,
            }))  # fmt: skip
        else:
            console.result(f"{args.output}: {words}, of {plane.views} view{'s' * (plane.views > 1)}")
    return 0


def _with_target(
    target: Any, views: Any, count: int, distance: float | None, console: Console
) -> tuple[Plane, tuple[Size, Size], Taken, list[dict[str, Any]]]:
    import numpy as np

    from ..calibration import Plane
    from ..calibration.fit import View, fit_views
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
    fit = fit_views(found, sizes[1])
    for line in _table(fit.views):
        console.result(line)
    if fit.warning:
        console.note(fit.warning)
    used = sum(not view.trouble for view in fit.views)
    return Plane(fit.homography, distance, fit.rmse, used), sizes, last, [_row(view) for view in fit.views]


def _automatic(
    views: Any, count: int, start: NDArray[np.float64] | None, distance: float | None, console: Console
) -> tuple[Plane, tuple[Size, Size], Taken, list[dict[str, Any]]]:
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
    console.note(f"{found.support:.0%} of the picture supports it")
    return Plane(found.homography, distance, found.expected_error, len(taken)), sizes, taken[-1], []


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


def _joined(known: Calibration | None, plane: Plane, sizes: tuple[Size, Size], method: str) -> Calibration:
    """A new calibration, or the known one with a distance more."""
    from ..calibration import Calibration

    if known is None:
        return Calibration(*sizes, (plane,), method)
    if (known.ir_size, known.vis_size) != sizes:
        raise InputError(
            f"--add: the calibration is for {known.ir_size} and {known.vis_size} pixels, these views have {sizes[0]} "
            f"and {sizes[1]}; expected the same"
        )
    return known.with_plane(plane)


def _table(views: tuple[View, ...]) -> list[str]:
    width = max(4, *(len(view.name) for view in views))
    lines = [f"{'view':<{width}}  points  error px"]
    for view in views:
        error = f"{view.error:8.2f}" if view.error == view.error else " " * 8
        lines.append(f"{view.name:<{width}}  {len(view.ir):6}  {error}  {view.trouble}".rstrip())
    return lines


def _row(view: View) -> dict[str, Any]:
    error = round(view.error, 4) if view.error == view.error else None
    return {"name": view.name, "points": len(view.ir), "error": error, "trouble": view.trouble}


def _write_check(path: str, homography: NDArray[np.float64], view: Taken) -> None:
    import numpy as np

    from ..image import infrared_to_8bit
    from ..media import write_image
    from ..registration import Registration

    ir, vis = (infrared_to_8bit(frame) for frame in view[1:])
    placed, _ = Registration(homography).place(ir, (vis.shape[1], vis.shape[0]))
    write_image(path, np.dstack([vis, vis, placed]))
