"""Items from one thread to another, through a queue that has an end and a rule for when it is full."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Generic, TypeVar

__all__ = ["Ended", "Handover"]

T = TypeVar("T")


class Ended(Exception):  # noqa: N818  (not an error)
    """No more items will come."""


class Handover(Generic[T]):
    """A bounded queue between threads.

    Args:
        size: how many items may wait.
        wait: whether :meth:`put` waits for room; otherwise the oldest item is dropped for the new one.

    Attributes:
        dropped: how many were.
    """

    def __init__(self, size: int, wait: bool) -> None:
        self.size, self.wait = size, wait
        self.dropped = 0
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> bool:
        """Add an item; False once the queue is closed, also while waiting for room."""
        with self._changed:
            while self.wait and len(self._items) >= self.size and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            if len(self._items) >= self.size:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self._changed.notify_all()
            return True

    def get(self, timeout: float | None = None) -> T | None:
        """The oldest item, or None after ``timeout`` seconds without one. Raises Ended when closed and empty."""
        until = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._items:
                if self._closed:
                    raise Ended
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._changed.wait(left)
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self, discard: bool = False) -> None:
        """No more items: waiting ones are still given out unless ``discard``."""
        with self._changed:
            self._closed = True
            if discard:
                self._items.clear()
            self._changed.notify_all()
