"""One homography from the points of all views, and which views do not go with the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import CalibrationError
from .geometry import Matrix, Size
from .targets import Points

__all__ = ["Fit", "View", "fit_views"]

#: A view is left out if its error is more than so many times the median view's, and more than a pixel at 640.
OUTLYING = 3.0
#: Visible pixels at 640: of RANSAC, and of a fit that is refused.
INLIER, MOST_RMSE = 2.0, 3.0
#: Shares of the visible picture that the points should span: less is refused, and less is told.
LEAST_SPAN, LITTLE_SPAN = 0.005, 0.15


@dataclass(frozen=True, eq=False)
class View:
    """What one pair of pictures gave.

    Attributes:
        name: of the pair.
        ir, vis: the points, [N,2] each, in one order; empty where there are none.
        error: root mean square, visible pixels, once it is fitted.
        trouble: why it is not used; "" if it is.
    """

    name: str
    ir: Points
    vis: Points
    error: float = float("nan")
    trouble: str = ""


@dataclass(frozen=True, eq=False)
class Fit:
    """What the views give together.

    Attributes:
        homography: float64 [3,3], infrared to visible pixels.
        rmse: root mean square error of the points that are used, in visible pixels.
        views: all of them, with errors.
        warning: what a person should know; "" if nothing.
    """

    homography: Matrix
    rmse: float
    views: tuple[View, ...]
    warning: str


def fit_views(views: Sequence[View], vis_size: Size) -> Fit:
    """The homography that most points agree on (RANSAC), then the best one for the views that go with it.

    Raises:
        CalibrationError: too few points, points in too small a part of the picture, or views that disagree.
    """
    seen = [view for view in views if not view.trouble]
    if sum(len(view.ir) for view in seen) < 4:
        reasons = sorted({view.trouble for view in views if view.trouble})
        raise CalibrationError(
            f"no view of {len(views)} has the target in both pictures ({'; '.join(reasons) or 'no points'}); at least "
            "4 points are needed: fill a third of both pictures with it, keep it still and warm (or cold) against its "
            "ground, and check its kind and size"
        )
    unit = max(vis_size) / 640
    span = _span(seen, vis_size)
    if span < LEAST_SPAN:
        raise CalibrationError(
            f"the points span {span:.1%} of the visible picture, which says nothing about the rest of it; expected "
            f"{LITTLE_SPAN:.0%} or more: hold the target nearer, or in other places in other views"
        )
    homography = _homography(seen, cv2.RANSAC, INLIER * unit)
    warning = ""
    if len(seen) == 1:  # with no other view to tell, single points may be wrong, as picked ones are
        good = _distances(homography, seen[0]) <= INLIER * unit
        if good.sum() >= max(4, len(good) / 2) and not good.all():
            seen = [replace(seen[0], ir=seen[0].ir[good], vis=seen[0].vis[good])]
            warning = f"{(~good).sum()} point(s) of {len(good)} do not go with the others and are left out"
    errors = [_error(homography, view) for view in seen]
    limit = max(OUTLYING * float(np.median(errors)), unit)
    judged = iter(
        replace(view, error=error, trouble=f"does not go with the others ({error:.1f} px)" if error > limit else "")
        for view, error in zip(seen, errors, strict=True)
    )
    done = [view if view.trouble else next(judged) for view in views]
    used = [view for view in done if not view.trouble]
    homography = _homography(used, 0, INLIER * unit)
    done = [view if view.trouble else replace(view, error=_error(homography, view)) for view in done]
    used = [view for view in done if not view.trouble]
    counts = np.array([len(view.ir) for view in used])
    rmse = float(np.sqrt((counts * np.square([view.error for view in used])).sum() / counts.sum()))
    if rmse > MOST_RMSE * unit:
        raise CalibrationError(
            f"the views disagree: {rmse:.1f} px root mean square over {len(used)} views (expected "
            f"{MOST_RMSE * unit:.1f} at most); keep the target at one distance for one calibration, and "
            "still while it is taken"
        )
    if span < LITTLE_SPAN:
        warning += "; " if warning else ""
        warning += f"the points span {span:.0%} of the visible picture only; expect more error towards its borders"
    return Fit(homography, rmse, tuple(done), warning)


def _homography(views: Sequence[View], method: int, threshold: float) -> Matrix:
    ir, vis = (np.concatenate([getattr(view, side) for view in views]) for side in ("ir", "vis"))
    matrix, _ = cv2.findHomography(ir, vis, method, threshold)
    if matrix is None or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-9:
        raise CalibrationError("the points are on one line, or do not go together; expected points all over the view")
    return np.asarray(matrix, np.float64)


def _distances(homography: Matrix, view: View) -> NDArray[np.float64]:
    return np.linalg.norm(cv2.perspectiveTransform(view.ir[:, None], homography)[:, 0] - view.vis, axis=1)


def _error(homography: Matrix, view: View) -> float:
    return float(np.sqrt((_distances(homography, view) ** 2).mean()))


def _span(views: Sequence[View], size: Size) -> float:
    hull = cv2.convexHull(np.concatenate([view.vis for view in views]).astype(np.float32))
    return cv2.contourArea(hull) / (size[0] * size[1])
