"""Fuse two cameras, live.

IR and VIS are cameras, network streams, files or generated scenes; OUT, one or several, is where the fused picture goes
(default: display://0). --list-schemes shows all kinds with their options, which follow a ? or #, or are given as
--ir-OPTION and --vis-OPTION:

  pyldfusion stream scene://ir scene://vis http://@:8080
  pyldfusion stream v4l2:///dev/video2 rtsp://10.0.0.7/main fused.mp4 --ir-format Y16 --resize
  pyldfusion stream ir.mp4 vis.mp4 fused.mp4 --frames 100

From cameras the newest pair is fused and what comes too fast is left out; from files every frame is. A camera that
disappears is opened again and again, and the other one is shown meanwhile.

Inputs and recordings are never replaced: an OUT that would do so is refused, and so is --record into a folder that
holds a recording.

Exit code: 0 at the end (also by --frames, --duration or SIGTERM), 1 if a file or an output failed or no picture was
made, 2 if something could not be opened or used, 130 after Ctrl-C. Files are finished in each case.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..camera.uri import SCHEMES, options_of, shown
from ..errors import CameraError, InputError, did_you_mean
from .cameras import add_camera_options, cameras_of, events_to
from .console import Console, counted
from .options import add_model_options, add_palette, add_registration_options, number, open_fuser, open_registration
from .overwriting import check_nothing_is_replaced

if TYPE_CHECKING:
    import tomllib
else:
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib

if TYPE_CHECKING:
    from ..camera import CameraPair, Events, Recording, Stream
    from ..camera.uri import Address

    TellStats = Callable[[dict[str, Any]], None]

HELP = "fuse two cameras, live"

REPORT = 1.0  # seconds between two lines of statistics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("uris", metavar="IR VIS [OUT ...]", nargs="*", help="cameras and outputs, see above")
    parser.add_argument("--list-schemes", action="store_true", help="show all kinds of cameras and outputs, and exit")
    parser.add_argument("--config", metavar="FILE", help="options from a TOML file; the command line wins")
    for name in ("ir", "vis"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)  # of the file
    parser.add_argument("--out", action="append", help=argparse.SUPPRESS)
    add_model_options(parser)
    parser.add_argument("--temporal", type=number(0), metavar="S",
        help="average the network's statistics over so many seconds: calmer; cuts begin anew")  # fmt: skip
    add_camera_options(parser)

    add = parser.add_argument_group("pairing").add_argument
    add("--pairing", choices=("hold", "repeat", "drop"), default="hold", metavar="POLICY",
        help="of cameras of different rates: hold the slower one's latest frame (default), repeat its nearest, or drop "
        "frames without a partner")  # fmt: skip
    add("--max-skew", type=number(0), metavar="MS", help="between frames of a pair (default: half a frame)")
    add("--ir-delay", type=number(None), default=0.0, metavar="MS", help="by which infrared frames come too late")
    add("--lost-after", type=number(0.05), default=1.0, metavar="S", help="without a frame: the other goes on alone")

    add = parser.add_argument_group("thermal").add_argument
    add("--gain", choices=("percentiles", "plateau"), default="percentiles", metavar="NAME",
        help="of 16-bit infrared: percentiles (default) or plateau equalisation")  # fmt: skip
    add("--thermal", type=float, nargs=2, metavar=("LO", "HI"), help="counts for black and white, instead of a gain")
    add("--smoothing", type=number(0), default=1.0, metavar="S", help="time constant of the gain (default: 1)")
    add("--ir-layout", default="plain", metavar="NAME",
        help="of the counts: plain, y16, mask-14, lower-half, upper-half, packed-14, telemetry-N or "
        "telemetry-top-N")  # fmt: skip
    add("--frozen", choices=("hold", "visible"), default="hold", metavar="WHAT",
        help="while infrared is frozen: hold its picture (default), or show the visible one alone")  # fmt: skip
    add("--dead-pixels", action="store_true", help="find and mend them")
    add("--column-noise", action="store_true", help="take it off")
    registration = add_registration_options(parser)
    registration.add_argument("--drift", type=number(0.1), nargs="?", const=10.0, metavar="PX",
        help="follow cameras that slowly move against each other, by at most so many pixels (10)")  # fmt: skip

    pictures = parser.add_argument_group("pictures")
    add = pictures.add_argument
    add("--view", choices=("fused", "side", "ir", "pip"), default="fused", metavar="VIEW",
        help="fused (default), side (all three), ir, or pip (ir in a corner)")  # fmt: skip
    add_palette(pictures)
    add("--overlay", action="store_true", help="write rate, latency, skew and warnings on the picture")

    add = parser.add_argument_group("running").add_argument
    add("--frames", type=number(1, int), metavar="N", help="end after so many pictures")
    add("--duration", type=number(0.001), metavar="S", help="end after so many seconds")
    add("--record", metavar="FOLDER", help="keep the pairs as the cameras gave them, without loss")
    add("--replay", metavar="FOLDER", help="fuse a recording again, in place of IR and VIS")
    add("--stats", metavar="FILE", help="statistics as JSON, one line a second and one at the end; - is stdout")
    add("--metrics", metavar="ADDRESS", help="the same for Prometheus, as http://@:9200 (needs prometheus_client)")
    add("-q", "--quiet", action="store_true", help="print errors only")


def expand(arguments: Sequence[str]) -> list[str]:
    """The command line with the options of ``--config FILE`` before it."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--config")
    try:
        path = finder.parse_known_args(arguments)[0].config
    except argparse.ArgumentError:
        return list(arguments)  # which the parser proper says
    if not path:
        return list(arguments)
    # The file is named again after its options: the last of them shall not take the first camera for its value.
    return [*_from_file(Path(path)), f"--config={path}", *arguments]


def run(args: argparse.Namespace) -> int:
    if args.list_schemes:
        print(_schemes())
        return 0
    from ..calibration.drift import Drift
    from ..camera import Events, Preparer, Stream
    from ..camera.prometheus import serve
    from ..camera.systemd import service

    cameras, outputs = _addresses(args)
    events = Events()
    preparer = Preparer(
        open_registration(args), _gain(args), layout=args.ir_layout, frozen=args.frozen, dead_pixels=args.dead_pixels,
        column_noise=args.column_noise, drift=Drift(args.drift, events=events) if args.drift else None, events=events,
    )  # fmt: skip
    with ExitStack() as stack:
        console = stack.enter_context(Console("stream", quiet=args.quiet))
        stack.enter_context(events_to(console))
        fuser = stack.enter_context(open_fuser(args, temporal=args.temporal))
        whence = args.replay or " and ".join(map(str, cameras))
        console.note(f"opening {whence}")
        pairs = _open_pairs(args, cameras, events)
        stack.callback(pairs.close)
        tell_stats = stack.enter_context(_open_stats(args.stats, events))
        with Stream(
            fuser, pairs, outputs, preparer, view=args.view, palette=args.palette, words=args.overlay,
            record=args.record,
        ) as stream:  # fmt: skip
            where = ", ".join(out.name + f" ({out.sink.url})" * bool(out.sink.url) for out in stream.outputs)
            info = fuser.info
            what = f"{info['model']} on {info['engine']} {info['precision']}"
            console.note(f"{whence} to {where} by {what}; Ctrl-C ends it")
            if args.metrics:
                url = stack.enter_context(serve(args.metrics, stream.stats))
                console.note(f"metrics at {url}")
            with _signals(stream) as came, _reports(stream, tell_stats), service(lambda: stream.shown):
                try:
                    stream.run(args.frames, args.duration)
                except CameraError as error:  # of outputs that have all failed; files are finished all the same
                    console.error(str(error))
        final = stream.stats()
        if tell_stats is not None:
            tell_stats({"final": True} | final)
        console.note(_summary(final, pairs.live))
    nothing = not final["fused"] and not final["shown"] and not came  # who ended it knows
    if nothing:
        console.error(_nothing(final["cameras"], args.replay))
    failed = nothing or any(part.failed for part in (*stream.outputs, stream.recorder) if part is not None)
    failed |= "statistics ended" in events.counts()
    failed |= not pairs.live and any(f"{name} lost" in final["events"] for name in ("ir", "vis"))
    return 130 if signal.SIGINT in came else 1 if failed else 0


def _addresses(args: argparse.Namespace) -> tuple[list[Address], list[Address]]:
    """Cameras (none of a recording) and outputs; those of a file count where the command line has none."""
    from ..camera import parse

    count = 0 if args.replay else 2
    uris = args.uris or [uri for uri in (args.ir, args.vis) if uri][:count]
    if len(uris) < count:
        raise InputError("two cameras are needed, IR and VIS; pyldfusion stream --list-schemes shows what they can be")
    cameras = cameras_of(args, uris[:count])
    try:
        outputs = [parse(uri, "sink") for uri in uris[count:] or args.out or ["display://0"]]
    except InputError as error:
        if args.replay and args.uris:
            raise InputError(f"{error}; --replay takes the place of IR and VIS, so all of these are outputs") from None
        raise
    check_nothing_is_replaced(args, cameras, outputs)
    return cameras, outputs


def _open_pairs(args: argparse.Namespace, cameras: list[Address], events: Events) -> CameraPair | Recording:
    from ..camera import CameraPair, Recording

    if args.replay:
        return Recording(args.replay, events)
    return CameraPair(
        *cameras, policy=args.pairing, max_skew=None if args.max_skew is None else args.max_skew / 1000,
        ir_delay=args.ir_delay / 1000, lost_after=args.lost_after, alone=True, events=events,
    )  # fmt: skip


def _gain(args: argparse.Namespace) -> Any:
    from ..thermal import GainControl

    if args.thermal:
        return GainControl("fixed", args.thermal)
    return GainControl(args.gain, smoothing=args.smoothing)


def _schemes() -> str:
    """The table for a terminal."""
    lines = []
    for role, title in (("source", "cameras"), ("sink", "outputs")):
        lines.append(f"{title}:")
        for scheme in SCHEMES:
            if scheme.role == role:
                lines += [f"  {scheme.example}", f"      {scheme.help}; {scheme.back_end}; tried with: {scheme.tried}"]
                for option in options_of(scheme):
                    default = "" if option.default is None else f" (default: {shown(option.default)})"
                    lines.append(f"      {option.name:<10} {option.help}: {option.expected}{default}")
    return "\n".join(lines)


@contextmanager
def _open_stats(path: str | None, events: Events) -> Iterator[TellStats | None]:
    """What writes a line of statistics; a full disk, or a reader that left, ends the statistics and not the stream."""
    if path is None:
        yield None
        return
    try:
        file = sys.stdout if path == "-" else open(path, "w", encoding="utf-8")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise InputError(f"--stats {path}: cannot be written ({error.strerror})") from None
    ended = False

    def tell(line: dict[str, Any]) -> None:
        nonlocal ended
        if not ended:
            try:
                print(json.dumps(line), file=file, flush=True)
            except OSError as error:
                ended = True
                events.fail("statistics ended", f"--stats {path}: {error.strerror}")

    try:
        yield tell
    finally:
        if path != "-":
            with suppress(OSError):  # of what could not be written before
                file.close()


@contextmanager
def _signals(stream: Stream) -> Iterator[set[int]]:
    """Ctrl-C and SIGTERM end the stream, a second one at once; the signals that came."""
    came: set[int] = set()
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(number: int, _: Any) -> None:
        came.add(number)
        signal.signal(number, before[number])
        # The lock of a queue may be held by the very code that was interrupted, so another thread takes it.
        threading.Thread(target=stream.stop, daemon=True).start()

    for each in before:
        signal.signal(each, on_signal)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _reports(stream: Stream, tell: TellStats | None) -> Iterator[None]:
    """A line of statistics every second."""
    if tell is None:
        yield
        return
    done = threading.Event()

    def report() -> None:
        start = time.monotonic()
        while not done.wait(REPORT):
            tell({"final": False, "seconds": round(time.monotonic() - start, 3)} | stream.stats())

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _summary(stats: dict[str, Any], live: bool) -> str:
    latency = stats["latency_ms"].get("total")
    fused, alone, skipped = (stats[name] for name in ("fused", "alone", "skipped"))
    words = [
        f"{counted(fused, 'pair')} fused, {counted(alone, 'picture')} of one camera, {counted(skipped, 'pair')} skipped"
    ]
    if latency and live:  # that of files is how long they waited for their turn
        words.append(f"latency p50 {latency['p50']:.0f} ms, p99 {latency['p99']:.0f} ms")
    words += [f"{kind}: {count}" for kind, count in stats["events"].items()]
    return "; ".join(words)


def _nothing(cameras: dict[str, Any], replay: str | None) -> str:
    """Why a stream made no picture, and what to do."""
    if replay:
        return f"nothing was fused: the recording {replay} gave {counted(cameras['given'], 'pair')}"
    ir, vis = (cameras[name]["received"] for name in ("ir", "vis"))
    words = f"nothing was fused: IR gave {counted(ir, 'frame')}, VIS {counted(vis, 'frame')}"
    if ir and vis:
        return f"{words}, but no pair came of them; see --pairing, --max-skew and --ir-delay"
    return f"{words}; check that both can be read, and what is said above"


def _from_file(path: Path) -> list[str]:
    """The options of a TOML file as words of a command line: ``ir-rate = 9`` is ``--ir-rate=9``."""
    try:
        with path.open("rb") as file:
            options = tomllib.load(file)
    except OSError as error:
        raise InputError(f"--config {path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"--config {path}: not a TOML file ({error})") from None
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    known = {option[2:]: action for option, action in parser._option_string_actions.items() if option[:2] == "--"}
    del known["config"]
    words: list[str] = []
    for name, value in options.items():
        if name not in known:
            raise InputError(f"--config {path}: {name!r} is not an option{did_you_mean(name, known)}")
        try:
            words += _words(name, value, known[name].nargs)
        except InputError as error:
            raise InputError(f"--config {path}: {error}") from None
    return words


def _words(name: str, value: Any, nargs: int | str | None) -> list[str]:
    """An option of the file; ``nargs`` is argparse's: 0 of a switch, "?" where the value may be left out."""
    if name == "out":
        return [f"--out={uri}" for uri in (value if isinstance(value, list) else [value])]
    if isinstance(value, bool) and nargs in (0, "?"):
        return [f"--{name}"] * value
    if isinstance(value, list) and len(value) == nargs:
        return [f"--{name}", *map(str, value)]
    if nargs == 0 or isinstance(nargs, int) or isinstance(value, (list, dict)):
        expected = "true or false" if nargs == 0 else "one value" if nargs in (None, "?") else f"a list of {nargs}"
        raise InputError(f"{name} is {value!r}; expected {expected}")
    return [f"--{name}={shown(value) if isinstance(value, bool) else value}"]
