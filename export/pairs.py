"""Pairs to calibrate and verify with: real ones from a folder, or generated ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pyldfusion.errors import InputError
from pyldfusion.image import check_pair, infrared_to_8bit
from pyldfusion.media import read_image, to_eight_bits
from pyldfusion.media.roots import find_roots
from pyldfusion.scene import Scene

__all__ = ["GENERATED", "LARGEST", "Pair", "generated", "load_pairs", "real"]

#: (height, width) that pairs are cut to, from the middle: what is found out there holds for larger frames.
LARGEST = (480, 640)
#: (height, width) of generated pairs.
GENERATED = (256, 320)


@dataclass(frozen=True)
class Pair:
    """Registered frames: ``ir`` uint8 [H,W], ``vis`` uint8 [H,W,3] in BGR."""

    ir: NDArray[np.uint8]
    vis: NDArray[np.uint8]

    def resized(self, height: int, width: int) -> Pair:
        """The pair at another size."""
        if self.ir.shape == (height, width):
            return self
        smaller = height < self.ir.shape[0] or width < self.ir.shape[1]
        how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        ir, vis = (cv2.resize(frame, (width, height), interpolation=how) for frame in (self.ir, self.vis))
        return Pair(ir, vis)  # type: ignore[arg-type]


def load_pairs(data: Path | None, count: int, part: str) -> tuple[list[Pair], str]:
    """Up to ``count`` pairs, and in words what they are.

    Args:
        data: a folder with ``ir/`` and ``vis/``, or None for generated scenes.
        count: how many.
        part: ``"verify"`` takes every third pair of the folder, ``"calibrate"`` the others; both are spread over it.

    Raises:
        InputError: not such a folder, or files that do not pair.
    """
    if data is None:
        return generated(count, part), f"{count} generated pairs"
    pairs = real(data, count, part)
    return pairs, f"{len(pairs)} pairs of {data.resolve().name}"


def generated(count: int, part: str, size: tuple[int, int] = GENERATED) -> list[Pair]:
    """Scenes of :mod:`pyldfusion.scene`, other ones for each part; ``size`` is (height, width)."""
    first = {"verify": 1, "calibrate": 1001}[part]
    kinds = ("night", "dusk", "day")
    return [_drawn(first + i, size, kinds[i % len(kinds)]) for i in range(count)]


@cache  # a few hundred milliseconds each, and every file of a run is judged by the same ones
def _drawn(seed: int, size: tuple[int, int], kind: str) -> Pair:
    frame = Scene(seed=seed, size=(size[1], size[0]), kind=kind).render(0.0)
    for picture in (frame.ir, frame.vis):
        picture.flags.writeable = False
    return Pair(frame.ir, frame.vis)


def real(data: Path, count: int, part: str) -> list[Pair]:
    """Pairs of a folder; see :func:`load_pairs`."""
    files = [(pair.ir, pair.vis) for root in find_roots([data]) for pair in root.files]
    if not files:
        raise InputError(f"{data} has no pairs: no picture has a partner of its name in the other folder")
    if len(files) > 2:
        files = [pair for i, pair in enumerate(files) if (i % 3 == 1) == (part == "verify")]
    count = min(count, len(files))
    return [_read(*files[i * len(files) // count]) for i in range(count)]


def _read(ir_file: Path, vis_file: Path) -> Pair:
    try:
        ir, vis = check_pair(read_image(ir_file), read_image(vis_file))
    except InputError as error:
        raise InputError(f"{ir_file} and {vis_file} are no pair that can be used: {error}") from error
    ir, vis = infrared_to_8bit(ir), to_eight_bits(vis)
    if vis.ndim == 2 or vis.shape[2] == 1:
        vis = cv2.cvtColor(vis, cv2.COLOR_GRAY2BGR)
    height, width = (min(side, most) for side, most in zip(ir.shape, LARGEST, strict=True))
    top, left = (ir.shape[0] - height) // 2, (ir.shape[1] - width) // 2
    cut = np.s_[top : top + height, left : left + width]
    return Pair(np.ascontiguousarray(ir[cut]), np.ascontiguousarray(vis[cut]))
