"""What went wrong in a stream: counted every time, said when it happens first, or each time where it is for good."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter

__all__ = ["Events"]

#: Seconds before the same event is said again.
QUIET = 60.0

_log = logging.getLogger("pyldfusion.camera")


class Events:
    """Counters by name. Each is logged at its first event, and then at most once a minute with its count.

    May be used from any thread.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._said: dict[str, float] = {}
        self._lock = threading.Lock()

    def tell(self, kind: str, text: str, quiet: float = QUIET) -> None:
        """One more event of a kind (such as ``"ir lost"``), with what there is to say about it, unless something of
        this kind was said within ``quiet`` seconds."""
        now = time.monotonic()
        with self._lock:
            self._counts[kind] += 1
            count = self._counts[kind]
            if now - self._said.get(kind, -QUIET) < quiet:
                return
            self._said[kind] = now
        _log.warning("%s%s", " ".join(text.split()), f" (time {count} of this)" if count > 1 and quiet else "")

    def fail(self, kind: str, text: str) -> None:
        """A part of the stream (such as one output of several) has ended for good: said each time, as an error."""
        with self._lock:
            self._counts[kind] += 1
        _log.error("%s", " ".join(text.split()))

    def counts(self) -> dict[str, int]:
        """How often each happened, as a new dict."""
        with self._lock:
            return dict(self._counts)
