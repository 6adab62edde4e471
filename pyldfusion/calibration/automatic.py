"""How two cameras lie on each other, from what they see: no target, but it says no when the scene does not tell.

First a turn, a size and a shift for the whole picture, tried on small pictures (phase does the shifts); then, finer and
finer, a homography that its blocks agree on. Several frames are added up, which helps where things move.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import CalibrationError
from .blocks import Level, Plane, refine, spread, support
from .geometry import Matrix, Size, resizing
from .structure import grey, placed, structure

__all__ = ["Alignment", "align", "default_start", "search"]

#: Longer side of the small pictures.
COARSE = 160
#: What is tried there: scales, degrees, and shifts up to this share of the longer side.
SCALES = tuple(1 + 0.025 * k for k in range(-3, 4))
TURNS = tuple(1.25 * k for k in range(-4, 5))
SHIFT = 0.1
LEVELS = (Level(320, (6, 5), 10, 6e-4), Level(640, (8, 6), 8, 1e-3), Level(640, (10, 8), 6, 2.5e-3))

#: An alignment is believed if its expected error is no more than this share of the longer side, and this share of the
#: blocks that infrared sees supports it. Set on training pairs: of 131 that were moved, one that is believed is over
#: 5 px (at 640) off; with 0.45 there were four. docs/cameras.md has what comes of it on others.
MOST_ERROR = 2.0 / 640
LEAST_SUPPORT = 0.55

MIN_PIXELS = 64


@dataclass(frozen=True, eq=False)
class Alignment:
    """What a search found.

    Attributes:
        homography: float64 [3,3], infrared to visible pixels.
        expected_error: how far the corners would move had the picture other details, in visible pixels.
        support: share of the blocks that infrared sees for which it is a good place, 0 to 1.
        frames: how many pairs it was made of.
        doubt: why it should not be believed; "" if nothing speaks against it.
    """

    homography: Matrix
    expected_error: float
    support: float
    frames: int
    doubt: str


def align(pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]], start: Matrix | None = None) -> Alignment:
    """Find the homography from infrared to visible pixels from frames alone.

    Args:
        pairs: (ir, vis) of one moment each, as ``Fuser.fuse`` takes them; all infrared frames of one size and all
            visible ones of one. Several with different things in them are better than one.
        start: about where it is; without it, both are taken to show the same view with the same centre. Around it are
            searched: shifts up to a tenth of the longer side, 6 % of size, 4 degrees and some perspective.

    Raises:
        CalibrationError: frames that do not go together, or scenes that do not tell where infrared lies.
    """
    found = search(pairs, start)
    if found.doubt:
        raise CalibrationError(
            f"the scene does not tell how the pictures lie on each other: {found.doubt}; give more frames with edges "
            "in both pictures all over the view (buildings, by day, nothing near), a better start, or use a target"
        )
    return found


def search(pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]], start: Matrix | None = None) -> Alignment:
    """:func:`align` without the last word: what was found, believable or not (``doubt`` says it)."""
    planes = [(grey(ir), grey(vis)) for ir, vis in pairs]
    irs, viss = [ir for ir, _ in planes], [vis for _, vis in planes]
    _check(irs, viss)
    ir_size, size = ((plane.shape[1], plane.shape[0]) for plane in (irs[0], viss[0]))
    matrix = _coarse(irs, viss, default_start(ir_size, size) if start is None else start)
    for level in LEVELS:
        matrix, blocks, shifts = refine(irs, viss, matrix, level)
    error = spread(blocks, LEVELS[-1].stiffness) * max(size) / max(blocks.size)
    share = support(blocks, shifts)
    doubt = ""
    if share < LEAST_SUPPORT:
        doubt = f"only {share:.0%} of what infrared sees supports what was found (expected {LEAST_SUPPORT:.0%})"
    elif error > MOST_ERROR * max(size):
        doubt = f"it could be off by {error:.1f} px (expected at most {MOST_ERROR * max(size):.1f})"
    return Alignment(matrix, error, share, len(planes), doubt)


def default_start(ir: Size, vis: Size) -> Matrix:
    """Where infrared lies if both cameras look at the same point with about the same angle of view."""
    scale = float(np.sqrt(vis[0] * vis[1] / (ir[0] * ir[1])))
    scales = [to / of for to, of in zip(vis, ir, strict=True)]
    if max(scales) / min(scales) < 1.02:
        return resizing(ir, vis)
    right, down = ((to - 1) / 2 - scale * (of - 1) / 2 for to, of in zip(vis, ir, strict=True))
    return np.array([[scale, 0, right], [0, scale, down], [0, 0, 1.0]])


def _check(irs: Sequence[Plane], viss: Sequence[Plane]) -> None:
    if not irs:
        raise CalibrationError("there are no frames; expected at least one pair")
    for name, planes in (("infrared", irs), ("visible", viss)):
        sizes = sorted({(plane.shape[1], plane.shape[0]) for plane in planes})
        if len(sizes) > 1:
            raise CalibrationError(f"the {name} frames have the sizes {sizes}; expected one size")
        if min(sizes[0]) < MIN_PIXELS:
            raise CalibrationError(
                f"the {name} frames are {sizes[0][0]}x{sizes[0][1]}; expected at least {MIN_PIXELS} pixels a side"
            )


def _coarse(irs: Sequence[Plane], viss: Sequence[Plane], start: Matrix) -> Matrix:
    """The best of the turns, sizes and shifts."""
    full = viss[0].shape[1], viss[0].shape[0]
    scale = COARSE / max(full)
    size = round(full[0] * scale), round(full[1] * scale)
    reach = round(SHIFT * COARSE)
    shape = cv2.getOptimalDFTSize(size[1] + reach), cv2.getOptimalDFTSize(size[0] + reach)
    to_small = resizing(full, size)
    firsts, spectra, norms = [], [], []
    for ir, vis in zip(irs, viss, strict=True):
        warped, inside = placed(ir, to_small @ start, size)
        firsts.append(structure(warped) * inside[..., None])
        second = structure(cv2.resize(vis, size, interpolation=cv2.INTER_AREA))
        norms.append(float((second * second).sum()))
        spectra.append(np.fft.rfft2(second, shape, axes=(0, 1)))
    best = -np.inf, np.eye(3)
    for zoom, turn in itertools.product(SCALES, TURNS):
        turned = _turned(size, zoom, turn)
        total = np.zeros((2 * reach + 1, 2 * reach + 1))
        for first, spectrum, norm in zip(firsts, spectra, norms, strict=True):
            moved = cv2.warpPerspective(first, turned, size)
            product = (spectrum * np.conj(np.fft.rfft2(moved, shape, axes=(0, 1)))).sum(axis=2)
            all_shifts = np.roll(np.fft.irfft2(product, shape), (reach, reach), (0, 1))
            total += all_shifts[: 2 * reach + 1, : 2 * reach + 1] / np.sqrt(norm * float((moved * moved).sum()) + 1e-6)
        down, right = np.unravel_index(total.argmax(), total.shape)
        if total[down, right] > best[0]:
            shift = np.array([[1, 0, right - reach], [0, 1, down - reach], [0, 0, 1.0]])
            best = float(total[down, right]), shift @ turned
    return np.asarray(np.linalg.inv(to_small) @ best[1] @ to_small @ start)


def _turned(size: Size, zoom: float, degrees: float) -> Matrix:
    centre = (size[0] - 1) / 2, (size[1] - 1) / 2
    return np.vstack([cv2.getRotationMatrix2D(centre, degrees, zoom), [0, 0, 1]])
