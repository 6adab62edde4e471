"""Programs timed in turn, so that what else runs on the machine disturbs all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

__all__ = ["in_turns"]


def in_turns(*runs: Callable[[], Any], rounds: int) -> list[list[float]]:
    """Seconds that each of ``runs`` took in each round, one after the other; a first round only warms up."""
    seconds: list[list[float]] = [[] for _ in runs]
    for number in range(rounds + 1):
        for run, taken in zip(runs, seconds, strict=True):
            start = time.perf_counter()
            run()
            if number:
                taken.append(time.perf_counter() - start)
    return seconds
