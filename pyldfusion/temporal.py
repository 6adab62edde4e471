"""How much of a video's past counts for its next frame: a time constant, and nothing after a cut."""

from __future__ import annotations

import math
import numbers
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from .artefact import BUNDLED, Artefact, open_artefact
from .errors import InputError

__all__ = ["CUT", "Past", "temporal_artefact"]

#: Mean change of either camera's thumbnail, in grey levels, from which a frame begins anew: a cut, or a step of a
#: camera's gain, which the norms of that frame alone take out. Measured from frame to frame: at most 2.6 in the clips
#: of M3SVD (150 frames of each), 4.7 and 9.4 at gain steps of 5 and 15 %, from 26 between scenes. Where much moves and
#: frames are few, frames begin anew that need not: they are then as without smoothing.
CUT = 3.0
THUMBNAIL = (32, 24)


class Past:
    """The weight of the frames before, frame after frame.

    Args:
        seconds: the time constant: after it, a past frame counts for 1/e of what it did.

    Raises:
        InputError: it is no number above 0.
    """

    def __init__(self, seconds: float) -> None:
        if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 < seconds < math.inf:
            raise InputError(f"temporal is {seconds!r}; expected seconds, a number above 0, or None for frames alone")
        self._seconds = float(seconds)
        self._time = 0.0
        self._thumbnails: list[NDArray[np.float32]] = []
        self._shape: tuple[int, ...] = ()

    def forget(self) -> None:
        """The next frame is the first."""
        self._shape = ()

    def weight(self, ir: NDArray[np.uint8], vis: NDArray[np.uint8], time: float) -> float:
        """Of the frames before, for this one: 0 for the first, after a cut, or of another size, else below 1.

        Args:
            ir: uint8 [H,W].
            vis: uint8 [H,W,3].
            time: seconds, of any clock; one that runs back, or NaN, begins anew.

        Raises:
            InputError: a time that is no number.
        """
        if not isinstance(time, numbers.Real):
            raise InputError(f"time is {time!r}; expected a number of seconds")
        before, step, shape = self._thumbnails, time - self._time, self._shape
        self._thumbnails = [
            cv2.resize(frame, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32) for frame in (ir, vis)
        ]
        self._time, self._shape = time, vis.shape
        if shape != vis.shape or not step >= 0:  # also true for NaN
            return 0.0
        changes = (np.abs(now - then).mean() for now, then in zip(self._thumbnails, before, strict=True))
        return 0.0 if max(changes) >= CUT else min(math.exp(-step / self._seconds), 1 - 1e-6)


def temporal_artefact(artefact: Artefact, engine: str | None) -> Artefact:
    """The form of a file that smooths over time: itself, the one beside it, or for torch the same weights.

    Raises:
        InputError: there is none; says how to make it.
    """
    if artefact.kind not in ("onnx", "openvino", "safetensors"):
        raise InputError(f"temporal is for networks on a CPU so far; {artefact.path.name} fuses every frame alone")
    if artefact.temporal:
        return artefact
    torch = engine is not None and engine.partition(":")[0] == "torch"
    if torch or artefact.kind == "safetensors":
        return replace(artefact, metadata={**artefact.metadata, "temporal": "yes"})
    beside = artefact.path.with_name(f"{artefact.path.stem}-temporal{artefact.path.suffix}")
    if beside.is_file():
        found = open_artefact(beside)
        if found.metadata.get("weights_sha256") == artefact.metadata.get("weights_sha256"):
            return found
    bundled = artefact.path == Path(__file__).parent / "weights" / artefact.path.name and artefact.path.stem in BUNDLED
    name = artefact.path.stem if bundled else str(artefact.path)
    raise InputError(
        f"{artefact.path.name} has no form that smooths over time; make it once (`pyldfusion export {name} --temporal`"
        f", which writes {beside.name}) and open that, or take engine='torch'"
    )
