"""The `pyldfusion` command: one verb, one module.

A verb's module is imported only when the verb is used, and exposes

- ``HELP``: one line for the overview,
- ``add_arguments(parser)`` and ``run(args) -> exit code``,
- where it has a file of options, ``expand(arguments)``: the command line with what that file says before it,

or, where the verb is a program of its own (`train`, `export`), ``HELP`` and ``main(argv) -> exit code``.

Exit codes: 0 all done, 1 some of the work failed, 2 wrong usage or unusable input, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from .. import __version__
from ..errors import PyldfusionError, did_you_mean
from .parser import Parser

__all__ = ["main"]

VERBS = {
    "fuse": "fuse",
    "stream": "stream",
    "calibrate": "calibrate",
    "sync": "sync",
    "eval": "eval",
    "demo": "demo",
    "info": "info",
    "doctor": "doctor",
    "bench": "bench",
    "import-weights": "import_weights",
    "export": "export",
    "train": "train",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and return its exit code; user errors are printed."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    set_up_opencv()
    verb = arguments[0] if arguments else "--help"
    try:
        if verb in ("-h", "--help", "help"):
            print(_overview())
            return 0
        if verb in ("-V", "--version"):
            print(f"pyldfusion {__version__}")
            return 0
        if verb not in VERBS:
            kind = "an option" if verb.startswith("-") else "a verb"
            close = did_you_mean(verb, [*VERBS, "--help", "--version"])
            return _fail(f"{verb!r} is not {kind} of pyldfusion{close}; see pyldfusion --help")
        code = _run_verb(verb, arguments[1:])
        sys.stdout.flush()  # here, where a reader that left is noticed
        return code
    except SystemExit as stop:  # argparse, after --help (0) or a usage error (2)
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        return _fail("interrupted", verb, code=130)
    except BrokenPipeError:  # the reader of our output left, as in `pyldfusion eval ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except PyldfusionError as error:
        return _fail(str(error), verb)
    except OSError as error:  # what no module foresaw: a folder that may not be read, a disk that fails
        return _fail(str(error), verb)
    except MemoryError:
        return _fail("out of memory; use smaller frames or close other programs", verb, code=1)


def _run_verb(verb: str, arguments: list[str]) -> int:
    module = _module(verb)
    if hasattr(module, "main"):
        return int(module.main(arguments))
    parser = Parser(f"pyldfusion {verb}", module.__doc__)
    module.add_arguments(parser)
    if hasattr(module, "expand"):
        arguments = module.expand(arguments)
    return int(module.run(parser.parse(arguments)))


def _module(verb: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{VERBS[verb]}")


def _overview() -> str:
    verbs = "\n".join(f"  {verb:<15} {_module(verb).HELP}" for verb in VERBS)
    return (
        "usage: pyldfusion VERB ...\n\n"
        "An infrared and a visible frame in, one picture out.\n\n"
        f"{verbs}\n\n"
        "pyldfusion VERB --help tells all about one of them; pyldfusion --version prints the version."
    )


def _fail(message: str, verb: str = "", code: int = 2) -> int:
    print(f"pyldfusion {verb}".rstrip() + f": {' '.join(message.split())}", file=sys.stderr)
    return code


def set_up_opencv() -> None:
    """Settings that OpenCV reads when it is imported; what the user set wins.

    Its own words about damaged files stay off the screen, since our errors say it, and a small file that claims to be
    a huge picture is refused before memory is taken for it. Its threads sleep between two calls rather than turn: they
    would take a millisecond of a core per frame from the engine.
    """
    settings = {"LOG_LEVEL": "OFF", "FFMPEG_LOGLEVEL": "-8", "IO_MAX_IMAGE_PIXELS": str(1 << 28)}
    settings |= {f"THREAD_POOL_ACTIVE_WAIT_{who}": "0" for who in ("MAIN", "WORKER")}
    for name, value in settings.items():
        os.environ.setdefault(f"OPENCV_{name}", value)
