"""What a verb says to a person: notes, errors and progress on stderr, so that stdout holds results alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

__all__ = ["Console", "counted"]

EVERY = 0.1  # seconds between two pictures of the bar
EVERY_LOGGED = 30.0  # seconds between two lines of progress where stderr is a file


def counted(count: int, noun: str) -> str:
    """``1 pair``, ``2 pairs``."""
    return f"{count} {noun}{'s' * (count != 1)}"


class Console:
    """Messages of one verb, each note said once, and a progress bar below them; a context manager.

    The bar appears where stderr is a terminal; elsewhere long work gets a line now and then. `quiet` leaves only
    errors.
    """

    def __init__(self, verb: str, total: int | None = None, unit: str = "pairs", quiet: bool = False) -> None:
        self._name, self._total, self._unit, self._quiet = f"pyldfusion {verb}", total, unit, quiet
        self._tty = sys.stderr.isatty()
        self._said: set[str] = set()
        self._start = self._shown = time.monotonic()
        self._bar = False
        self.done = 0

    def __enter__(self) -> Console:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    def note(self, text: str, kind: str = "") -> None:
        """Tell something, unless a note of this `kind` (default: the text) was told before."""
        if self._quiet or (kind or text) in self._said:
            return
        self._said.add(kind or text)
        self.error(text)

    def note_alone(self, files: Sequence[Path]) -> None:
        """Tell of files without a partner, if there are any."""
        if files:
            names = ", ".join(path.name for path in files[:3]) + (", ..." if len(files) > 3 else "")
            has, are = ("has", "is") if len(files) == 1 else ("have", "are")
            self.note(f"{counted(len(files), 'file')} {has} no partner of the same stem and {are} left out: {names}")

    def result(self, text: str) -> None:
        """Print a result for people, on stdout."""
        self._clear()
        if not self._quiet:
            print(text, flush=True)

    def error(self, text: str) -> None:
        """Tell of something that failed."""
        self._clear()
        sys.stderr.write(f"{self._name}: {' '.join(text.split())}\n")  # in one piece: other threads tell things too
        sys.stderr.flush()

    def advance(self) -> None:
        """One more of the total is done."""
        self.done += 1
        now = time.monotonic()
        if self._quiet or self._total == 1 or now - self._shown < (EVERY if self._tty else EVERY_LOGGED):
            return
        self._shown = now
        rate = self.done / max(now - self._start, 1e-9)
        line = f"{self.done}{f'/{self._total}' if self._total else ''} {self._unit}, {rate:.1f} a second"
        if self._total:
            line += f", {max(0, self._total - self.done) / rate:.0f} s left"
        if not self._tty:
            self.error(line)
            return
        if self._total:
            filled = min(24, 24 * self.done // self._total)
            line = f"[{'#' * filled}{'.' * (24 - filled)}] {line}"
        print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)
        self._bar = True

    def _clear(self) -> None:
        if self._bar:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._bar = False
