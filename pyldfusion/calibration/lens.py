"""A camera's lens from views of one grid (Zhang's method, OpenCV's ``calibrateCamera``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from ..errors import CalibrationError
from .file import Lens
from .fit import View
from .geometry import Size
from .targets import Points

__all__ = ["find_lens", "undistorted"]

FEWEST_VIEWS = 6
#: Root mean square error in pixels at 640 that is refused.
MOST_RMSE = 1.0
#: Standard deviation of the focal length, as a share of it, that is refused: views without tilt fit any of them.
MOST_DOUBT = 0.06
#: Degrees between the two views whose tilts differ most, at least: views of one tilt fit nearly any lens.
LEAST_SPREAD = 10.0
#: Focal lengths that are believed, in longer sides of the picture.
FOCAL_LENGTHS = 0.3, 10.0


def find_lens(views: Sequence[Points], grid: tuple[int, int], size: Size, name: str) -> Lens:
    """The lens of the camera that took pictures of ``size`` with the points of a grid, row by row, in each view.

    Args:
        name: of the camera, for errors.

    Raises:
        CalibrationError: under 6 views, or views that no lens explains, or that many lenses do.
    """
    if len(views) < FEWEST_VIEWS:
        raise CalibrationError(
            f"a lens needs {FEWEST_VIEWS} views of a tilted target or more, in all parts of the picture; here are "
            f"{len(views)}: take more, or leave --lens out"
        )
    flat = np.zeros((grid[0] * grid[1], 3), np.float32)
    flat[:, :2] = np.mgrid[: grid[0], : grid[1]].T.reshape(-1, 2)
    try:
        error, matrix, distortion, turns, _, deviations, *_ = cv2.calibrateCameraExtended(
            [flat] * len(views), [points.astype(np.float32) for points in views], size, np.eye(3), np.zeros(5),
            flags=cv2.CALIB_FIX_K3 | cv2.CALIB_FIX_ASPECT_RATIO,
        )  # fmt: skip
    except cv2.error:  # of views without any tilt
        error, matrix, distortion, turns, deviations = math.inf, np.eye(3), np.zeros(5), (), np.zeros(2)
    most = MOST_RMSE * max(size) / 640
    if not (np.isfinite(matrix).all() and error <= most):
        raise CalibrationError(
            f"no lens explains the views of the {name} camera: {error:.2f} px root mean square error (expected "
            f"{most:.2f} at most); tilt the target differently in each view, and keep it flat and still"
        )
    doubt = float(deviations.ravel()[1] / matrix[1, 1])  # of fy, to which fx is tied; 0 where it could not be told
    if not 0 < doubt <= MOST_DOUBT:
        raise CalibrationError(
            f"the views of the {name} camera do not tell its lens: the target is tilted too little in all of them; "
            "tilt it by 15 degrees or more, differently in each view"
        )
    normals = np.array([cv2.Rodrigues(turn)[0][:, 2] for turn in turns])  # of the target, in each view
    spread = math.degrees(math.acos(np.clip((normals @ normals.T).min(), -1, 1)))
    if spread < LEAST_SPREAD:
        raise CalibrationError(
            f"the views of the {name} camera do not tell its lens: the target is tilted too little, or alike in all of "
            f"them (tilts differ by {spread:.0f} degrees, expected {LEAST_SPREAD:.0f} or more); tilt it by 15 degrees "
            "or more, differently in each view"
        )
    focal, centre = matrix[0, 0] / max(size), matrix[:2, 2]
    if not (FOCAL_LENGTHS[0] <= focal <= FOCAL_LENGTHS[1] and (centre >= 0).all() and (centre < size).all()):
        raise CalibrationError(
            f"the views of the {name} camera give a lens that cannot be: focal length {matrix[0, 0]:.0f} px, centre "
            f"{centre[0]:.0f}, {centre[1]:.0f} in a picture of {size[0]}x{size[1]} (expected {FOCAL_LENGTHS[0]:g} to "
            f"{FOCAL_LENGTHS[1]:g} times its longer side, and a centre inside); tilt the target by 15 degrees or more, "
            "differently in each view, and in all parts of the picture"
        )
    return Lens(np.asarray(matrix, np.float64), np.asarray(distortion, np.float64).ravel())


def undistorted(view: View, ir: Lens | None, vis: Lens | None) -> View:
    """The view as lenses without distortion would have it."""
    return view if view.trouble else replace(view, ir=_straight(view.ir, ir), vis=_straight(view.vis, vis))


def _straight(points: Points, lens: Lens | None) -> Points:
    if lens is None:
        return points
    moved = cv2.undistortPoints(points[:, None], lens.matrix, lens.distortion, P=lens.matrix)
    return np.asarray(moved[:, 0], np.float64)
