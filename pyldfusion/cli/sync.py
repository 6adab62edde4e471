"""Find by how much one camera's frames come later than the other's, from what moves before both.

IR and VIS are cameras, network streams or files, as for pyldfusion stream (--list-schemes there shows all kinds); a
recording is given by --replay. The value is for --ir-delay of pyldfusion stream:

  pyldfusion sync v4l2:///dev/video2 rtsp://10.0.0.7/main --ir-format Y16
  pyldfusion sync --replay evening

Something that both cameras see must move: people, cars, a warm hand, or the cameras themselves, quickly and not evenly.
Where that is too little to be sure, no value is given.

Exit code: 0 with a value, 1 without one, 2 if something could not be opened, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..errors import InputError
from .cameras import add_camera_options, cameras_of, events_to
from .console import Console
from .options import number

if TYPE_CHECKING:
    from ..camera.sync import Track

HELP = "find the time by which one camera is late"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("uris", metavar="IR VIS", nargs="*", help="two cameras or files")
    add_camera_options(parser)
    add = parser.add_argument_group("looking").add_argument
    add("--seconds", type=number(1), default=20.0, metavar="S", help="to look for, or of the files (default: 20)")
    add("--reach", type=number(1), default=500.0, metavar="MS", help="greatest delay that is looked for (default: 500)")
    add("--replay", metavar="FOLDER", help="a recording of pyldfusion stream, in place of IR and VIS")
    add("--ir-layout", default="plain", metavar="NAME", help="of the counts, as for pyldfusion stream")
    add("--json", action="store_true", help="all numbers as one line of JSON")
    add("-q", "--quiet", action="store_true", help="print the value, or errors, only")


def run(args: argparse.Namespace) -> int:
    from ..camera.sync import find_delay

    with Console("sync", quiet=args.quiet) as console, events_to(console):
        ir, vis = _tracks(args, console)
        try:
            delay = find_delay(ir, vis, args.reach / 1000)
        except InputError as error:  # they show too little
            console.error(str(error))
            return 1
        if args.json:
            print(json.dumps({**asdict(delay), "doubt": delay.doubt}))
        if delay.doubt:
            console.error(f"not sure enough to give a value: {delay.doubt}")
            return 1
        console.note(
            f"infrared is {abs(1000 * delay.seconds):.1f} ms {'late' if delay.seconds >= 0 else 'early'}; "
            f"standard error {1000 * delay.error:.1f} ms, correlation {delay.correlation:.2f}, "
            f"{delay.lead:.1f} times the next best"
        )
        if not args.json:
            print(f"--ir-delay {1000 * delay.seconds:.1f}")
    return 0


def _tracks(args: argparse.Namespace, console: Console) -> tuple[Track, Track]:
    from ..camera import Recording
    from ..camera.sync import watch, watch_recording

    if args.replay:
        if args.uris:
            raise InputError("--replay takes the place of IR and VIS; give one or the other")
        with Recording(args.replay) as recording:
            return watch_recording(recording, args.ir_layout)
    if len(args.uris) != 2:
        raise InputError(f"{len(args.uris)} addresses; expected two, IR and VIS, or --replay FOLDER")
    console.note(f"looking for {args.seconds:g} s")
    ir, vis = cameras_of(args, args.uris)
    return watch(ir, vis, args.seconds, layout=args.ir_layout)
