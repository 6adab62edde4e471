"""argparse as all our commands use it: the close match of a mistyped option, and errors on one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ..errors import did_you_mean

__all__ = ["Parser"]

QUOTES = "; if it comes from a pattern such as *.png, put the pattern in quotes"


class Parser(argparse.ArgumentParser):
    """A parser for the command ``prog``; a wrong command line ends the process with code 2 and one line on stderr."""

    def __init__(self, prog: str, description: str | None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse a command line; options may stand between positional arguments."""
        args, unknown = self.parse_known_intermixed_args(arguments)
        if unknown:
            option = next((word.split("=")[0] for word in unknown if word.startswith("-")), None)
            if option is None:
                files = all(Path(word).exists() for word in unknown)  # as a shell makes of a pattern
                self.error(f"unexpected argument {unknown[0]!r}{QUOTES if files else ''}")
            self.error(f"{option!r} is not an option{did_you_mean(option, self._option_string_actions)}")
        return args

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)
