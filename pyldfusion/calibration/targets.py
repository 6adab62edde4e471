"""Targets that both cameras see: grids of circles, checkerboards, AprilTags; found by OpenCV, light or heated."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import CalibrationError, InputError, did_you_mean
from ..image import infrared_to_8bit
from .geometry import resizing

__all__ = ["TARGETS", "Points", "Target", "find", "match", "parse_target", "read_points"]

#: float64 [N,2]: (x, y) of the target's points in pixels.
Points = NDArray[np.float64]
Grey = NDArray[np.uint8]

#: What a target is, with what follows its name.
TARGETS = {
    "circles": "CxR",
    "checkerboard": "CxR",
    "apriltag": "[FAMILY]",
    "points": "FILE.csv",
}
#: Dictionaries of ``cv2.aruco``.
FAMILIES = ("16h5", "25h9", "36h10", "36h11")
#: Thermal pictures are small: those with a shorter side than this are enlarged before anything is looked for.
ENLARGE_BELOW = 480


@dataclass(frozen=True)
class Target:
    """What is held in front of the cameras.

    Attributes:
        kind: one of :data:`TARGETS`.
        grid: columns and rows of circles, or of inner corners, of a grid.
        family: of AprilTags.
        file: of picked points.
    """

    kind: str
    grid: tuple[int, int] = (0, 0)
    family: str = ""
    file: str = ""

    def __str__(self) -> str:
        detail = f"{self.grid[0]}x{self.grid[1]}" if self.grid[0] else self.family or Path(self.file).name
        return f"{self.kind} {detail}"


def parse_target(words: Sequence[str]) -> Target:
    """A target from the words that people write: ``["circles", "7x5"]``.

    Raises:
        InputError: an unknown kind, or what follows it is missing or wrong.
    """
    kind, *rest = words
    if kind not in TARGETS:
        close = did_you_mean(kind, TARGETS) or f"; it can be {', '.join(TARGETS)}"
        raise InputError(f"{kind!r} is not a target{close}")
    if len(rest) > 1 or (not rest and kind != "apriltag"):
        raise InputError(f"--target {' '.join(words)}: expected {kind} {TARGETS[kind]}, and IR and VIS before it")
    if kind == "points":
        return Target(kind, file=rest[0])
    if kind == "apriltag":
        family = (rest or ["36h11"])[0].lower().removeprefix("tag")
        if family not in FAMILIES:
            raise InputError(f"{family!r} is not a family of AprilTags{did_you_mean(family, FAMILIES)}")
        return Target(kind, family=family)
    sides = re.fullmatch(r"(\d{1,3})[xX](\d{1,3})", rest[0])
    if sides is None or min(int(sides[1]), int(sides[2])) < 3:
        raise InputError(
            f"{rest[0]!r} is not the size of a grid; expected columns x rows such as 7x5, at least 3 each: the "
            "circles, or of a checkerboard the corners inside it"
        )
    return Target(kind, (int(sides[1]), int(sides[2])))


def match(target: Target, ir: NDArray[Any], vis: NDArray[Any]) -> tuple[Points, Points]:
    """The target's points in both pictures of a pair, in one order.

    Raises:
        CalibrationError: it is not in one of them.
    """
    found = {}
    for name, frame in (("infrared", ir), ("visible", vis)):
        points = find(target, frame)
        if not points:
            raise CalibrationError(f"{target.kind} not found in the {name} picture")
        found[name] = points
    first, second = found["infrared"], found["visible"]
    if target.kind != "apriltag":
        return _same_order(first[0], second[0], target.grid), second[0]
    common = sorted(first.keys() & second.keys())
    if not common:
        raise CalibrationError(f"no tag is in both pictures: infrared has {sorted(first)}, visible {sorted(second)}")
    return np.concatenate([first[k] for k in common]), np.concatenate([second[k] for k in common])


def find(target: Target, frame: NDArray[Any]) -> dict[int, Points]:
    """A target's points in one picture, uint8 or uint16 [H,W] or [H,W,3], dark on light or light on dark.

    By tag, of other targets all under 0; empty if it is not there.
    """
    detect: Callable[[Grey, Target], dict[int, Points]] = {
        "circles": _circles,
        "checkerboard": _checkerboard,
        "apriltag": _tags,
    }[target.kind]
    plane = infrared_to_8bit(frame)
    before = plane.shape[1], plane.shape[0]
    factor = max(1, -(-ENLARGE_BELOW // min(before)))
    for image in _variants(plane, factor):
        if found := detect(image, target):
            back = np.linalg.inv(resizing(before, (factor * before[0], factor * before[1])))
            return {
                name: np.asarray(cv2.perspectiveTransform(points.astype(np.float64).reshape(-1, 1, 2), back)[:, 0])
                for name, points in found.items()
            }
    return {}


def read_points(path: str | Path) -> tuple[Points, Points]:
    """Points that a person picked: a CSV file with ir_x, ir_y, vis_x, vis_y in each row, with or without that header.

    Raises:
        CalibrationError: no such file, or not four numbers in each row.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if "".join(row).strip() and not row[0].lstrip().startswith("#")]
    except (OSError, ValueError, csv.Error) as error:
        raise CalibrationError(f"{path}: cannot be read ({error})") from error
    names = ["ir_x", "ir_y", "vis_x", "vis_y"]
    if rows and any(word.strip().isidentifier() for word in rows[0]):
        header = [word.strip().lower() for word in rows.pop(0)]
        if missing := [name for name in names if name not in header]:
            raise CalibrationError(f"{path}: the header lacks {', '.join(missing)}; expected {', '.join(names)}")
        try:
            rows = [[row[header.index(name)] for name in names] for row in rows]
        except IndexError as error:
            raise CalibrationError(f"{path}: a row is shorter than the header") from error
    try:
        points = np.array([[float(word) for word in row] for row in rows], np.float64)
    except ValueError as error:
        raise CalibrationError(f"{path}: {error}; expected numbers: {', '.join(names)}") from error
    if points.ndim != 2 or points.shape[1] != 4 or not np.isfinite(points).all():
        raise CalibrationError(f"{path}: expected rows of four finite numbers: {', '.join(names)}")
    return points[:, :2], points[:, 2:]


def _variants(plane: Grey, factor: int) -> Iterator[Grey]:
    """A picture as detectors like it, and with light and dark exchanged."""
    low, high = np.percentile(plane, (0.5, 99.5))
    stretched = np.clip((plane - low) * (255 / max(high - low, 1.0)), 0, 255).astype(np.uint8)
    if factor > 1:
        stretched = np.asarray(cv2.resize(stretched, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC))
    yield stretched
    yield 255 - stretched


def _circles(image: Grey, target: Target) -> dict[int, Points]:
    parameters = cv2.SimpleBlobDetector_Params()  # type: ignore[attr-defined]
    parameters.minArea = 12
    parameters.maxArea = image.size / (target.grid[0] * target.grid[1])
    parameters.minDistBetweenBlobs = 4
    detector = cv2.SimpleBlobDetector_create(parameters)  # type: ignore[attr-defined]
    for outline in _groups(detector.detect(image), target.grid[0] * target.grid[1]):
        inside = cv2.fillConvexPoly(np.zeros_like(image), outline, 255)
        alone = np.where(inside > 0, image, np.uint8(255))
        for flags in (cv2.CALIB_CB_SYMMETRIC_GRID, cv2.CALIB_CB_SYMMETRIC_GRID | cv2.CALIB_CB_CLUSTERING):
            for grid in (target.grid, target.grid[::-1]):
                found, centres = cv2.findCirclesGrid(alone, grid, flags=flags, blobDetector=detector)
                if found:
                    return {0: _as_grid(centres, grid, target.grid)}
    return {}


def _groups(blobs: Sequence[Any], least: int) -> Iterator[NDArray[np.int32]]:
    """The outlines [N,1,2] of at least so many blobs of about one size that stand together; the smallest group first.

    Windows of a house are blobs as well, and OpenCV's search for the grid wants few others.
    """
    if len(blobs) < least:
        return
    centres = np.array([blob.pt for blob in blobs], np.float32)
    sizes = np.array([blob.size for blob in blobs])
    apart = np.linalg.norm(centres[:, None] - centres, axis=2)
    unlike = np.maximum.outer(sizes, sizes) > 1.5 * np.minimum.outer(sizes, sizes)
    apart[unlike | np.eye(len(blobs), dtype=bool)] = np.inf
    nearest = apart.min(axis=1)
    linked = apart < 1.6 * np.minimum.outer(nearest, nearest)
    names = np.arange(len(blobs))
    while True:  # each blob takes the lowest name among its neighbours
        lower = np.minimum(names, np.where(linked, names, len(blobs)).min(axis=1))
        if (lower == names).all():
            break
        names = lower
    groups = sorted((np.flatnonzero(names == name) for name in set(names)), key=len)
    for group in groups:
        if len(group) >= least:
            middle = centres[group].mean(axis=0)
            margin = float(nearest[group].mean())
            away = centres[group] - middle
            away *= 1 + margin / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), margin)
            yield cv2.convexHull(np.rint(middle + away).astype(np.int32))


def _checkerboard(image: Grey, target: Target) -> dict[int, Points]:
    flags = cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_ACCURACY
    for grid in (target.grid, target.grid[::-1]):
        found, corners = cv2.findChessboardCornersSB(image, grid, flags=flags)
        if found:
            return {0: _as_grid(corners, grid, target.grid)}
    return {}


def _tags(image: Grey, target: Target) -> dict[int, Points]:
    parameters = cv2.aruco.DetectorParameters()
    parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_APRILTAG
    dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, f"DICT_APRILTAG_{target.family.upper()}"))
    corners, names, _ = cv2.aruco.ArucoDetector(dictionary, parameters).detectMarkers(image)
    if names is None:
        return {}
    return {int(name): four.reshape(4, 2).astype(np.float64) for name, four in zip(names.ravel(), corners, strict=True)}


def _as_grid(points: NDArray[Any], found: tuple[int, int], wanted: tuple[int, int]) -> Points:
    """Points found row by row of ``found`` columns, row by row of ``wanted`` columns."""
    grid = points.reshape(found[1], found[0], 2)
    return (grid if found == wanted else grid.transpose(1, 0, 2)).reshape(-1, 2).astype(np.float64)


def _same_order(points: Points, like: Points, grid: tuple[int, int]) -> Points:
    """Points of a grid, which has several first corners, in the order in which they lie most like the other ones."""
    rows = points.reshape(grid[1], grid[0], 2)
    orders = [rows, rows[::-1], rows[:, ::-1], rows[::-1, ::-1]]
    if grid[0] == grid[1]:
        orders += [order.transpose(1, 0, 2) for order in orders]
    wanted = like - like.mean(axis=0)

    def likeness(order: NDArray[Any]) -> float:
        flat = order.reshape(-1, 2)
        return float(((flat - flat.mean(axis=0)) * wanted).sum())

    return np.asarray(max(orders, key=likeness).reshape(-1, 2))
