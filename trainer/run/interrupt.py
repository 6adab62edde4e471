"""Ctrl-C and SIGTERM as a question that the loop asks between two steps."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["interrupted"]


@contextlib.contextmanager
def interrupted() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether SIGINT or SIGTERM came since; a second one interrupts at once."""
    came: list[int] = []

    def note(number: int, frame: Any) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever runs us handles signals
        before = {}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
