"""The homography that most blocks of a picture agree on, and how sure that is.

Every block of the placed infrared picture is compared with the visible one at all shifts within reach, over all frames
together; the homography is the one whose shifts are good ones for as many blocks as possible. Blocks that are drawn
anew, with repetition, tell how far it would be off with other luck (Efron's bootstrap).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .geometry import Matrix, Size, from_corner_shifts, resizing
from .structure import placed, structure

__all__ = ["Blocks", "Level", "Plane", "refine", "spread", "support"]

Plane = NDArray[np.float32]
Shifts = NDArray[np.float64]

#: Widths in pixels of the window in which a block looks for its shift, one step after the other.
WINDOWS = (6, 4, 3, 2, 1.5, 1.2, 1, 1, 1)
#: A block supports a shift if that is so many standard deviations better than the mean of its shifts.
SUPPORTS = 1.0
DRAWS = 24


@dataclass(frozen=True)
class Level:
    """One step of the refinement.

    Attributes:
        side: longer side in pixels at which it works.
        grid: (columns, rows) of blocks.
        reach: how far a block is shifted, in those pixels.
        stiffness: how hard the corners are held where blocks say little.
    """

    side: int
    grid: tuple[int, int]
    reach: int
    stiffness: float


@dataclass(frozen=True, eq=False)
class Blocks:
    """How well each block fits at each shift.

    Attributes:
        fit: float32 [N, 2 reach + 1, 2 reach + 1], (down, right).
        jacobian: float64 [N,2,8]: how the blocks' centres move with the picture's corners.
        size: (width, height) of the picture they were cut from.
        seen: bool [N], whether infrared is in half of the block or more.
    """

    fit: NDArray[np.float32]
    jacobian: NDArray[np.float64]
    size: Size
    seen: NDArray[np.bool_]

    def corner_shifts(self, stiffness: float, weights: NDArray[np.float64] | None = None) -> Shifts:
        """The corners' shifts [8] that suit the blocks best.

        Each step moves every block to the mean of the good shifts in a window around where the homography puts it
        (mean shift under a shared model, Saragih et al. 2011, eq. 30 ff.), and the windows get smaller.
        """
        reach = self.fit.shape[1] // 2
        down, right = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
        better = self.fit - self.fit.mean(axis=(1, 2), keepdims=True)
        better = np.maximum(better / (np.sqrt((better**2).mean()) + 1e-12), 0) ** 2
        if weights is not None:
            better = better * weights[:, None, None]
        corners = np.zeros(8)
        for window in WINDOWS:
            x, y = (self.jacobian @ corners).T[..., None, None]
            near = better * np.exp(((right - x) ** 2 + (down - y) ** 2) / (-2 * window**2))
            mass = near.sum(axis=(1, 2)) + 1e-9
            goal = np.stack([(near * right).sum(axis=(1, 2)), (near * down).sum(axis=(1, 2))], 1) / mass[:, None]
            mass /= window**2
            normal = np.einsum("nik,nil,n->kl", self.jacobian, self.jacobian, mass)
            normal += np.eye(8) * mass.sum() * stiffness
            corners = np.linalg.solve(normal, np.einsum("nik,ni,n->k", self.jacobian, goal, mass))
        return corners


def refine(irs: Sequence[Plane], viss: Sequence[Plane], matrix: Matrix, level: Level) -> tuple[Matrix, Blocks, Shifts]:
    """One step: the better homography (planes of ``irs`` to those of ``viss``), its blocks, and the corners' shifts."""
    size = viss[0].shape[1], viss[0].shape[0]
    blocks = _compare(irs, viss, matrix, level)
    shifts = blocks.corner_shifts(level.stiffness)
    to_level = resizing(size, blocks.size)
    moved = np.linalg.inv(to_level) @ from_corner_shifts(blocks.size, shifts) @ to_level @ matrix
    return moved / moved[2, 2], blocks, shifts


def support(blocks: Blocks, shifts: Shifts) -> float:
    """Share of the blocks that infrared sees for which the found shift is a good one, 0 to 1."""
    if not blocks.seen.any():
        return 0.0
    x, y = (blocks.jacobian @ shifts).astype(np.float32).T + np.float32(blocks.fit.shape[1] // 2)
    found = [
        float(cv2.remap(fit, x[k : k + 1], y[k : k + 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0, 0])
        for k, fit in enumerate(blocks.fit)
    ]
    deviation = blocks.fit.std(axis=(1, 2)) + 1e-12
    good = (found - blocks.fit.mean(axis=(1, 2))) / deviation > SUPPORTS
    return float(good[blocks.seen].mean())


def spread(blocks: Blocks, stiffness: float) -> float:
    """Root mean square distance of the corners, in pixels of ``blocks``, between draws of blocks."""
    rng = np.random.default_rng(0)
    count = len(blocks.fit)
    draws = (np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(DRAWS))
    found = np.array([blocks.corner_shifts(stiffness, draw.astype(np.float64)) for draw in draws])
    return float(np.sqrt(((found - np.median(found, axis=0)) ** 2).sum(axis=1).mean() / 4))


def _compare(irs: Sequence[Plane], viss: Sequence[Plane], matrix: Matrix, level: Level) -> Blocks:
    full = viss[0].shape[1], viss[0].shape[0]
    scale = min(1.0, level.side / max(full))
    size = round(full[0] * scale), round(full[1] * scale)
    columns, rows = ([round(k * side / n) for k in range(n + 1)] for side, n in zip(size, level.grid, strict=True))
    boxes = [
        (slice(top, low), slice(left, right))
        for top, low in itertools.pairwise(rows)
        for left, right in itertools.pairwise(columns)
    ]
    reach = level.reach
    fit: NDArray[np.float32] = np.zeros((len(boxes), 2 * reach + 1, 2 * reach + 1), np.float32)
    seen = np.zeros(len(boxes), bool)
    to_level = resizing(full, size) @ matrix
    for ir, vis in zip(irs, viss, strict=True):
        warped, inside = placed(ir, to_level, size)
        seen |= np.array([inside[box].mean() >= 0.5 for box in boxes])
        first = structure(warped) * inside[..., None]
        second = structure(cv2.resize(vis, size, interpolation=cv2.INTER_AREA))
        norm = np.sqrt(float((first * first).sum()) * float((second * second).sum())) + 1e-6
        second = np.pad(second, ((reach, reach), (reach, reach), (0, 0)))
        for k, (down, right) in enumerate(boxes):
            around = second[down.start : down.stop + 2 * reach, right.start : right.stop + 2 * reach]
            fit[k] += cv2.matchTemplate(around, np.ascontiguousarray(first[down, right]), cv2.TM_CCORR) / norm
    centres = np.array(
        [[(right.start + right.stop - 1) / 2, (down.start + down.stop - 1) / 2] for down, right in boxes]
    )
    moved = [
        cv2.perspectiveTransform(centres[:, None], from_corner_shifts(size, unit))[:, 0] - centres for unit in np.eye(8)
    ]
    return Blocks(fit / np.float32(len(irs)), np.stack(moved, axis=-1), size, seen)
