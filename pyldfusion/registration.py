"""The infrared picture onto the visible one: resizing, homographies, calibrations, and a check of the result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .calibration.file import ASPECT_TOLERANCE, Calibration, Lens, load_calibration
from .calibration.geometry import Matrix, Size, largest_rectangle, resizing
from .calibration.matrix import checked_homography, load_homography
from .errors import InputError, did_you_mean
from .image import MIN_SIDE

__all__ = [
    "OUTSIDE",
    "UNREGISTERED_BELOW",
    "Field",
    "Registration",
    "as_registration",
    "edge_correlation",
    "load_homography",
    "visible_outside",
]

UNREGISTERED_BELOW = 0.1  # edge_correlation under this: the pair is probably not registered

Cover = NDArray[np.float32]

#: What becomes of the visible frame where infrared sees nothing: it is shown alone, it is cut off, or it is fused with
#: the infrared frame's border, repeated.
OUTSIDE = ("mask", "crop", "repeat")

FEATHER = 8.0  # pixels over which the picture goes over to visible alone at the infrared's edge
COARSE = 240  # pixels of the longer side at which edges are compared


@dataclass(frozen=True, eq=False)
class Field:
    """Where infrared frames of one size lie in visible frames of one size.

    Attributes:
        homography: float64 [3,3], from infrared pixels to pixels of the box, without lenses; its inverse is the
            ``matrix`` that ``kernels.frame_to_plane`` takes.
        box: (x, y, width, height) of the visible frame that is used: all of it, or the common view.
        cover: float32 [height, width] of the box: 1 where infrared is, falling to 0 where there is none; None if it
            is everywhere.
        maps: columns and rows of the infrared frame that the box's pixels are, float32, where lenses bend.
    """

    homography: Matrix
    box: tuple[int, int, int, int]
    cover: Cover | None = None
    maps: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def crop(self, vis: NDArray[Any]) -> NDArray[Any]:
        """The box of a visible frame, a view; the frame itself where that is all of it."""
        x, y, width, height = self.box
        return vis if vis.shape[:2] == (height, width) else vis[y : y + height, x : x + width]

    def warp(self, ir: NDArray[Any]) -> NDArray[Any]:
        """An infrared frame in the box, same dtype, bilinear; outside, its border is repeated."""
        size = self.box[2:]
        if self.maps is not None:
            return cv2.remap(ir, *self.maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return cv2.warpPerspective(ir, self.homography, size, borderMode=cv2.BORDER_REPLICATE)


class Registration:
    """Brings infrared frames onto visible ones, by a homography or calibration if there is one and else by resizing.

    Args:
        homography: 3x3, from infrared to visible pixels. Without it, shapes whose aspects differ by more than 2 % are
            refused unless ``resize`` allows the stretch: they are two different fields of view.
        resize: see there.
        calibration: in place of a homography; it is scaled to the frames' sizes and knows lenses.
        distance: metres to what is looked at, of a calibration that has several.
        outside: one of :data:`OUTSIDE`.

    Raises:
        InputError: a word or a matrix that cannot be; CalibrationError: a distance that the calibration has not.
    """

    def __init__(
        self,
        homography: NDArray[Any] | None = None,
        resize: bool = False,
        *,
        calibration: Calibration | None = None,
        distance: float | None = None,
        outside: str = "mask",
    ) -> None:
        if outside not in OUTSIDE:
            close = did_you_mean(outside, OUTSIDE)
            raise InputError(f"outside is {outside!r}; expected {', '.join(OUTSIDE)}{close}")
        if homography is not None and calibration is not None:
            raise InputError("both a homography and a calibration are given; expected one of them")
        if distance is not None:
            if calibration is None:
                raise InputError("a distance is given without a calibration, which alone knows what it means")
            calibration.homography(distance)
        self.homography = None if homography is None else checked_homography(np.asarray(homography), "homography")
        self.resize, self.calibration, self.distance, self.outside = resize, calibration, distance, outside
        self._correction: tuple[Matrix, Size] | None = None
        self._fields: dict[tuple[Size, Size], Field] = {}

    @property
    def only_resizes(self) -> bool:
        """Whether nothing but the frames' sizes says where infrared lies."""
        return self.homography is None and self.calibration is None and self._correction is None

    def corrected(self, correction: Matrix, size: Size) -> Registration:
        """The same with ``correction`` after it: from pixels of a visible frame of ``size`` to pixels of the same.

        A box of the common view stays the one of this registration, so that pictures keep their size.
        """
        other = Registration(
            self.homography, self.resize, calibration=self.calibration, distance=self.distance, outside=self.outside
        )
        other._correction = correction, size
        return other

    def place(self, ir: NDArray[Any], size: Size) -> tuple[NDArray[Any], Cover | None]:
        """The infrared frame [H, W] or [H, W, C] in the box of a visible frame of ``size`` (width, height).

        Returns it, in its dtype, with ``Field.cover``. Raises InputError as :meth:`field` does.
        """
        before = ir.shape[1], ir.shape[0]
        if self.only_resizes and before == size:
            return ir, None
        field = self.field(before, size)
        if not self.only_resizes:
            return field.warp(ir), field.cover
        shrinks = before[0] >= size[0] and before[1] >= size[1]
        return cv2.resize(ir, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC), None

    def join(self, ir: NDArray[Any], vis: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], Cover | None]:
        """Both frames in the box: the infrared one placed, the visible one as a view, and the cover."""
        size = vis.shape[1], vis.shape[0]
        placed, cover = self.place(ir, size)
        return placed, self.field((ir.shape[1], ir.shape[0]), size).crop(vis), cover

    def only_homography(self, ir: Size, vis: Size) -> Matrix | None:
        """The homography from infrared pixels to pixels of the box, where it says all; None where frames are only
        resized, or lenses bend. Raises as :meth:`field` does."""
        if self.only_resizes:
            return None
        field = self.field(ir, vis)
        return field.homography if field.maps is None else None

    def field(self, ir: Size, vis: Size) -> Field:
        """Where infrared frames of a size (width, height) lie in visible ones of a size.

        Raises:
            InputError: different aspects without a homography, a homography that puts nothing into the visible frame,
                or a common view of less than 16 pixels a side. CalibrationError: sizes that were not calibrated.
        """
        if (ir, vis) not in self._fields:
            self._fields[ir, vis] = self._find_field(ir, vis)
        return self._fields[ir, vis]

    def _find_field(self, ir: Size, vis: Size) -> Field:
        matrix, *lenses = self._mapping(ir, vis)
        whole = 0, 0, *vis
        if self.only_resizes:
            return Field(matrix, whole)
        cropped = self.outside == "crop"
        box = _common_view(matrix, ir, vis, lenses) if cropped else whole
        if self._correction is not None:
            shift, size = self._correction
            matrix = resizing(size, vis) @ shift @ resizing(vis, size) @ matrix
        moved = np.array([[1, 0, -box[0]], [0, 1, -box[1]], [0, 0, 1.0]]) @ matrix
        field = Field(moved, box, None, _maps(matrix, box, lenses))
        inside = _inside(field, ir)
        if inside.max() == 0:
            raise _nothing(ir, vis)
        if self.outside == "repeat" or inside.min() == 255 or (cropped and self._correction is None):
            return field
        return Field(moved, box, _feathered(inside == 255), field.maps)

    def _mapping(self, ir: Size, vis: Size) -> tuple[Matrix, Lens | None, Lens | None]:
        """From infrared to visible pixels before any correction, and the lenses."""
        if self.calibration is not None:
            return self.calibration.for_sizes(ir, vis, self.distance)
        if self.homography is not None:
            return self.homography, None, None
        if not self.resize and abs(ir[0] * vis[1] / (ir[1] * vis[0]) - 1) > ASPECT_TOLERANCE + 1e-9:
            raise InputError(
                f"infrared of {ir[0]}x{ir[1]} and visible of {vis[0]}x{vis[1]} differ by more than 2 % in "
                "aspect, so they show different views; give --calibration FILE (pyldfusion calibrate makes it) or "
                "--homography FILE (3x3, infrared to visible pixels), or --resize to stretch the infrared all the same "
                "(in Python: Fuser(registration=))"
            )
        return resizing(ir, vis), None, None


def as_registration(given: Registration | Calibration | str | Path | None) -> Registration | None:
    """What says how frames lie on each other, as people give it: the path of a calibration is read.

    Raises:
        InputError: something else; CalibrationError: a file that is none.
    """
    if given is None or isinstance(given, Registration):
        return given
    if isinstance(given, (str, Path)):
        given = load_calibration(given)
    if not isinstance(given, Calibration):
        raise InputError(
            f"registration is a {type(given).__name__}; expected a Registration, a Calibration or the path of one"
        )
    return Registration(calibration=given)


def visible_outside(fused: NDArray[Any], vis: NDArray[Any], cover: Cover) -> NDArray[Any]:
    """`fused` where infrared covers the frame, `vis` where it does not, blended at the edge; shape and dtype of both.

    `fused` and `vis` are uint8, uint16 or float, [H, W] or [H, W, C]; `cover` is what `Registration.place` gives, and
    is not to be changed after its first use here: what follows from it is kept for the next frame.
    """
    global _edge
    edge = _edge
    if edge is None or edge.cover is not cover:
        edge = _edge = _Edge(cover)
    out = np.array(fused, order="C")
    cv2.copyTo(vis, edge.outside, out)
    here, there = (frame.reshape(cover.size, -1)[edge.places].astype(np.float32) for frame in (out, vis))
    mixed = there + (here - there) * edge.shares
    out.reshape(cover.size, -1)[edge.places] = mixed if out.dtype.kind == "f" else np.rint(mixed)
    return out


class _Edge:
    """Where a cover is nothing (uint8 [H, W]), and its edge: a thin band, and only it needs arithmetic."""

    def __init__(self, cover: Cover) -> None:
        self.cover = cover
        self.outside = (cover <= 0).astype(np.uint8)
        self.places = np.flatnonzero((cover > 0) & (cover < 1))
        self.shares = cover.ravel()[self.places, None]


#: Of the last cover: those of a stream, or of many pairs from two cameras, are one.
_edge: _Edge | None = None


def edge_correlation(ir: NDArray[Any], vis: NDArray[Any]) -> float:
    """How well the edges of a pair lie on each other: about 0 for unrelated pictures, at most 1.

    `ir` and `vis` are [H, W] or [H, W, 3] of one size, uint8, uint16 or float. Correlation coefficient of the
    gradient magnitudes at a longer side of 240 pixels, each divided by its local mean so that one strong edge
    cannot decide.

    Measured on 349 registered pairs (TNO, RoadScene, M3FD, M3SVD, MSRS, FMB, AWMM): 3 % are under 0.1, mostly
    dark or smoky ones. With these pairs spoilt on purpose: pictures of different scenes 98 %, shifted by 10 % of
    the width 98 %, by 5 % 91 %, mirrored 91 %, enlarged 1.3 times 91 %; but 1.1 times only 42 %.
    """
    first, second = _local_edges(ir), _local_edges(vis)
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.sqrt(np.sum(first * first) * np.sum(second * second)))
    return float(np.sum(first * second)) / norm if norm > 0 else 0.0


def _local_edges(frame: NDArray[Any]) -> NDArray[np.float32]:
    height, width = frame.shape[:2]
    scale = min(1.0, COARSE / max(height, width))
    size = max(8, round(width * scale)), max(8, round(height * scale))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    plane = cv2.GaussianBlur(small if small.ndim == 2 else small.mean(axis=2), (0, 0), 1.0)
    edges = cv2.magnitude(cv2.Sobel(plane, cv2.CV_32F, 1, 0), cv2.Sobel(plane, cv2.CV_32F, 0, 1))
    around = cv2.GaussianBlur(edges, (0, 0), COARSE / 16) + 0.05 * edges.mean() + 1e-6
    return np.asarray((edges / around)[2:-2, 2:-2])  # the border has no gradient of its own


def _common_view(matrix: Matrix, ir: Size, vis: Size, lenses: list[Lens | None]) -> tuple[int, int, int, int]:
    whole = 0, 0, *vis
    inside = _inside(Field(matrix, whole, None, _maps(matrix, whole, lenses)), ir)
    if inside.max() == 0:
        raise _nothing(ir, vis)
    box = largest_rectangle(inside == 255)
    if min(box[2:]) < MIN_SIDE:
        raise InputError(
            f"the common view of both frames is {box[2]}x{box[3]} pixels; expected at least {MIN_SIDE} a side: show "
            "the visible frame around it (--outside mask), or check the calibration"
        )
    return box


def _inside(field: Field, ir: Size) -> NDArray[np.uint8]:
    """255 where the box's pixels lie on the infrared frame alone, else less."""
    full = np.full((ir[1], ir[0]), 255, np.uint8)
    if field.maps is not None:
        return np.asarray(cv2.remap(full, *field.maps, cv2.INTER_LINEAR, borderValue=0))
    edges = np.array([[0, 0, 1], [ir[0], 0, 1], [ir[0], ir[1], 1], [0, ir[1], 1]], float)
    if (edges @ field.homography[2]).min() <= 0:  # a part of it is behind the camera
        return np.zeros((field.box[3], field.box[2]), np.uint8)
    return np.asarray(cv2.warpPerspective(full, field.homography, field.box[2:]))


def _maps(
    matrix: Matrix, box: tuple[int, int, int, int], lenses: list[Lens | None]
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Where each pixel of the box lies in the infrared frame, through both lenses; None without lenses."""
    ir, vis = lenses
    if ir is None and vis is None:
        return None
    x, y, width, height = box
    columns, rows = np.meshgrid(np.arange(x, x + width, dtype=np.float64), np.arange(y, y + height, dtype=np.float64))
    points: NDArray[Any] = np.stack([columns, rows], -1).reshape(-1, 1, 2)
    if vis is not None:
        points = cv2.undistortPoints(points, vis.matrix, vis.distortion, P=vis.matrix)
    points = cv2.perspectiveTransform(points, np.linalg.inv(matrix))
    if ir is not None:
        rays = cv2.undistortPoints(points, ir.matrix, np.zeros(5))
        rays = np.concatenate([rays, np.ones_like(rays[..., :1])], -1)
        points = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), ir.matrix, ir.distortion)[0]
    columns, rows = points.reshape(height, width, 2).astype(np.float32).transpose(2, 0, 1)
    return np.ascontiguousarray(columns), np.ascontiguousarray(rows)


def _feathered(inside: NDArray[np.bool_]) -> Cover:
    # A border of covered pixels around the frame: only edges inside the picture are feathered.
    padded = cv2.copyMakeBorder(inside.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    return np.minimum(distance / np.float32(FEATHER), np.float32(1))


def _nothing(ir: Size, vis: Size) -> InputError:
    return InputError(
        f"the homography puts nothing of the {ir[0]}x{ir[1]} infrared into the {vis[0]}x{vis[1]} visible frame; it has "
        "to map infrared to visible pixels: is it the inverse, or for other sizes?"
    )
