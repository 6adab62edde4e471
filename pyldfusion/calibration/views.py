"""Pairs of pictures to calibrate with: from files those that lie evenly apart, from cameras one every second or so."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from ..camera.layouts import find_layout
from ..camera.sources import BadFrame
from ..camera.uri import Address, parse
from ..errors import CameraError, InputError
from ..media import FilePairs, Pair, grey_if_grey, open_pairs
from ..thermal import to_counts

__all__ = ["Taken", "take_views"]

#: Name, infrared and visible picture.
Taken = tuple[str, NDArray[Any], NDArray[Any]]

#: Frames of a video of unknown length that lie between two views.
STEP = 10


def take_views(
    ir: str, vis: str, count: int, interval: float = 1.0, timeout: float = math.inf, layout: str = "plain"
) -> Iterator[Taken]:
    """Up to ``count`` pairs of two pictures, directories, patterns or videos, or what two cameras see.

    Args:
        ir, vis: as in ``pyldfusion fuse`` or ``pyldfusion stream``.
        count: of files it is the number of pairs; from cameras it is the caller who has had enough.
        interval: seconds between two pairs of cameras.
        timeout: seconds after which cameras end.
        layout: of infrared frames, see ``camera.layouts``.

    Raises:
        InputError, CameraError: what cannot be opened or read.
    """
    arrange = find_layout(layout)
    for name, infrared, visible in _frames(ir, vis, count, interval, timeout):
        try:
            yield name, grey_if_grey(arrange(infrared)), visible
        except BadFrame as error:
            raise InputError(f"{name}: not infrared of the layout {layout!r}: {error}") from None


def _frames(ir: str, vis: str, count: int, interval: float, timeout: float) -> Iterator[Taken]:
    addresses = [parse(text, "source") for text in (ir, vis)]
    if all(address.scheme.name == "file" for address in addresses):
        return _from_files(addresses[0].target, addresses[1].target, count)
    return _from_cameras(addresses, interval, timeout)


def _from_files(ir: str, vis: str, count: int) -> Iterator[Taken]:
    pairs = open_pairs(ir, vis)
    chosen = None if pairs.count is None else {round((k + 0.5) * pairs.count / count - 0.5) for k in range(count)}
    of_files = isinstance(pairs, FilePairs)
    given = 0
    for index, pair in enumerate(pairs):
        if (index in chosen) if chosen is not None else index % STEP == 0:
            yield _read(pair, of_files)
            given += 1
        if given == count:
            return


def _read(pair: Pair, of_files: bool) -> Taken:
    ir, vis = pair.read()
    return pair.name if of_files else pair.vis, to_counts(ir) if ir.dtype.kind in "fi" else ir, vis


def _from_cameras(addresses: list[Address], interval: float, timeout: float) -> Iterator[Taken]:
    from ..camera import CameraPair

    with CameraPair(*addresses) as pairs:
        start, last = time.monotonic(), -math.inf
        # By a timer: cameras that give no pair hold the loop up.
        timer = threading.Timer(min(timeout, threading.TIMEOUT_MAX), pairs.stop)
        timer.daemon = True
        timer.start()
        try:
            for pair in pairs:
                assert pair.ir is not None and pair.vis is not None  # pairs of one frame were not asked for
                if pair.vis.time - last >= interval:
                    last = pair.vis.time
                    yield f"second {time.monotonic() - start:.0f}", pair.ir.image, pair.vis.image
        finally:
            timer.cancel()
    if last == -math.inf:
        raise CameraError(
            f"{addresses[0]} and {addresses[1]} gave no pair of frames; do both give pictures (pyldfusion stream)?"
        )
