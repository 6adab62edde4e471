"""`calibration.json`: how the infrared camera's picture lies on the visible camera's."""

from __future__ import annotations

import datetime
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CalibrationError, InputError
from ..media.atomic import atomic_path
from .geometry import Matrix, Size, resized, resizing
from .matrix import checked_homography

__all__ = ["Calibration", "Lens", "Plane", "load_calibration", "save_calibration"]

FORMAT, VERSION = "pyldfusion calibration", 1
#: Aspects may differ by so much: 2 %.
ASPECT_TOLERANCE = 0.02
#: A camera nearer than this share of the nearest calibrated distance is not extrapolated to.
NEAREST = 0.5


@dataclass(frozen=True, eq=False)
class Plane:
    """One distance of a calibration.

    Attributes:
        homography: float64 [3,3], infrared to visible pixels, undistorted where the calibration has lenses.
        distance: of what was looked at, in metres; None if nobody measured it.
        rmse: root mean square error of the points, or what the automatic search expects, in visible pixels.
        views: how many pairs it was made of.
    """

    homography: Matrix
    distance: float | None = None
    rmse: float = math.nan
    views: int = 1


@dataclass(frozen=True, eq=False)
class Lens:
    """A camera's intrinsics in OpenCV's terms.

    Attributes:
        matrix: float64 [3,3], in pixels of the calibrated size.
        distortion: k1, k2, p1, p2 and up to ten more.
    """

    matrix: Matrix
    distortion: NDArray[np.float64]

    def scaled(self, before: Size, after: Size) -> Lens:
        """The same lens, of pictures that were resized."""
        return Lens(resizing(before, after) @ self.matrix, self.distortion)

    def __str__(self) -> str:
        matrix, (k1, k2) = self.matrix, self.distortion[:2]
        centre = f"centre {matrix[0, 2]:.0f}, {matrix[1, 2]:.0f}"
        return f"focal length {matrix[0, 0]:.0f} px, {centre}, distortion k1 {k1:.3f}, k2 {k2:.3f}"


@dataclass(frozen=True, eq=False)
class Calibration:
    """How two cameras see the same things.

    Attributes:
        ir_size, vis_size: (width, height) of the pictures it was made with.
        planes: one for each distance, at least one.
        method: how it was made, for people.
        date: when, ISO 8601.
        ir_lens, vis_lens: intrinsics, or None for lenses without distortion.

    Raises:
        CalibrationError: no plane, two planes of one distance, or several of which one has none.
    """

    ir_size: Size
    vis_size: Size
    planes: tuple[Plane, ...]
    method: str = ""
    date: str = field(default_factory=lambda: datetime.datetime.now(datetime.timezone.utc).isoformat("T", "seconds"))
    ir_lens: Lens | None = None
    vis_lens: Lens | None = None

    def __post_init__(self) -> None:
        distances = [plane.distance for plane in self.planes]
        if not distances or (len(distances) > 1 and None in distances) or len(set(distances)) < len(distances):
            raise CalibrationError(
                f"a calibration has homographies at {distances or 'no'} metres; expected one, or several each with a "
                "distance of its own"
            )

    def homography(self, distance: float | None = None) -> Matrix:
        """The homography for things ``distance`` metres away, by default those of the farthest calibrated plane.

        Between two distances the homography of parallel planes is linear in the inverse distance (Hartley & Zisserman,
        Multiple View Geometry, eq. 13.2), and so it is beyond the farthest and up to half the nearest.

        Raises:
            CalibrationError: a distance that this calibration says nothing about.
        """
        planes = sorted(self.planes, key=lambda plane: plane.distance or math.inf)
        if distance is None:
            return planes[-1].homography
        if not (math.isfinite(distance) and distance > 0):
            raise CalibrationError(f"distance is {distance}; expected metres, above 0")
        known = [plane.distance for plane in planes if plane.distance is not None]
        if distance in known:
            return planes[known.index(distance)].homography
        if len(known) < 2:
            has = f"of {known[0]:g} m alone" if known else "without a distance"
            raise CalibrationError(
                f"distance is {distance:g} m and the calibration is {has}; calibrate at a second distance with --add, "
                "or leave --distance out"
            )
        if distance < NEAREST * known[0]:
            raise CalibrationError(
                f"distance is {distance:g} m and the nearest that is calibrated {known[0]:g} m; calibrate nearer"
            )
        after = min(max(int(np.searchsorted(known, distance)), 1), len(known) - 1)
        near, far = known[after - 1], known[after]
        share = (1 / distance - 1 / far) / (1 / near - 1 / far)
        matrix = share * planes[after - 1].homography + (1 - share) * planes[after].homography
        return matrix / matrix[2, 2]

    def for_sizes(self, ir: Size, vis: Size, distance: float | None = None) -> tuple[Matrix, Lens | None, Lens | None]:
        """The homography and both lenses for pictures of these sizes, (width, height).

        Raises:
            CalibrationError: sizes of another aspect than the calibrated ones, or a distance that cannot be.
        """
        for name, given, known in (("infrared", ir, self.ir_size), ("visible", vis, self.vis_size)):
            if abs(given[0] * known[1] / (given[1] * known[0]) - 1) > ASPECT_TOLERANCE:
                raise CalibrationError(
                    f"the {name} picture is {given[0]}x{given[1]} and was calibrated at {known[0]}x{known[1]}; another "
                    "aspect shows another part of the view: calibrate again, or set the camera as it was"
                )
        matrix = resized(self.homography(distance), (self.ir_size, ir), (self.vis_size, vis))
        return (
            matrix,
            self.ir_lens and self.ir_lens.scaled(self.ir_size, ir),
            self.vis_lens and self.vis_lens.scaled(self.vis_size, vis),
        )

    def with_plane(self, plane: Plane) -> Calibration:
        """The same with one distance more, or that distance made anew."""
        others = [other for other in self.planes if other.distance != plane.distance]
        return Calibration(
            self.ir_size, self.vis_size, (*others, plane), self.method, ir_lens=self.ir_lens, vis_lens=self.vis_lens
        )


def save_calibration(calibration: Calibration, path: str | Path) -> None:
    """Write it as JSON; the file is whole or not there.

    Raises:
        InputError: it cannot be written.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "date": calibration.date,
        "method": calibration.method,
        "ir": _camera(calibration.ir_size, calibration.ir_lens),
        "vis": _camera(calibration.vis_size, calibration.vis_lens),
        "homographies": [
            {
                "distance": plane.distance,
                "rmse": plane.rmse if math.isfinite(plane.rmse) else None,
                "views": plane.views,
                "matrix": plane.homography.tolist(),
            }
            for plane in calibration.planes
        ],
    }
    with atomic_path(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def load_calibration(path: str | Path) -> Calibration:
    """Read what :func:`save_calibration` or a person wrote.

    Raises:
        CalibrationError: no such file, or not a calibration: the message names the entry.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise CalibrationError(
            f"{path}: cannot be read ({error.strerror}); pyldfusion calibrate writes such files"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CalibrationError(
            f"{path}: not a calibration file ({error}); a bare matrix goes to --homography"
        ) from error
    try:
        return _read(content)
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from None


def _camera(size: Size, lens: Lens | None) -> dict[str, Any]:
    camera: dict[str, Any] = {"width": size[0], "height": size[1]}
    if lens is not None:
        camera |= {"camera_matrix": lens.matrix.tolist(), "distortion": lens.distortion.tolist()}
    return camera


def _read(content: Any) -> Calibration:
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        raise CalibrationError(
            f'not a calibration file, which has "format": "{FORMAT}"; a bare matrix goes to --homography'
        )
    if content.get("version") != VERSION:
        raise CalibrationError(f"version is {content.get('version')!r}; this program reads {VERSION}")
    (ir_size, ir_lens), (vis_size, vis_lens) = (_read_camera(content, name) for name in ("ir", "vis"))
    rows = content.get("homographies")
    if not isinstance(rows, list):
        raise CalibrationError(f"homographies is {rows!r}; expected a list")
    planes = tuple(_read_plane(row, f"homographies[{index}]") for index, row in enumerate(rows))
    method, date = (content.get(name, "") for name in ("method", "date"))
    if not isinstance(method, str) or not isinstance(date, str):
        raise CalibrationError(f"method and date are {method!r} and {date!r}; expected text")
    return Calibration(ir_size, vis_size, planes, method, date, ir_lens, vis_lens)


def _read_camera(content: Mapping[str, Any], name: str) -> tuple[Size, Lens | None]:
    camera = content.get(name)
    if not isinstance(camera, Mapping):
        raise CalibrationError(f"{name} is {camera!r}; expected width and height")
    size = _number(camera, "width", name, 1), _number(camera, "height", name, 1)
    if size != (int(size[0]), int(size[1])):
        raise CalibrationError(f"{name} has the size {size}; expected whole pixels")
    whole = int(size[0]), int(size[1])
    if camera.get("camera_matrix") is None:
        return whole, None
    matrix = _matrix(camera["camera_matrix"], f"{name}.camera_matrix")
    if matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise CalibrationError(f"{name}.camera_matrix has the focal lengths {matrix[0, 0]:g}, {matrix[1, 1]:g}")
    distortion = _array(camera.get("distortion", [0.0] * 5), f"{name}.distortion").ravel()
    if distortion.size not in (4, 5, 8, 12, 14):
        raise CalibrationError(f"{name}.distortion has {distortion.size} numbers; expected 4, 5, 8, 12 or 14")
    return whole, Lens(matrix, distortion)


def _read_plane(row: Any, name: str) -> Plane:
    if not isinstance(row, Mapping):
        raise CalibrationError(f"{name} is {row!r}; expected an object with a matrix")
    matrix = _matrix(row.get("matrix"), f"{name}.matrix")
    distance = None if row.get("distance") is None else _number(row, "distance", name, 1e-6)
    rmse = math.nan if row.get("rmse") is None else _number(row, "rmse", name, 0)
    return Plane(matrix, distance, rmse, int(_number({"views": 1, **row}, "views", name, 0)))


def _number(row: Mapping[str, Any], key: str, name: str, least: float) -> float:
    value = row.get(key)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= sys.float_info.max:
        return float(value)
    raise CalibrationError(f"{name}.{key} is {value!r}; expected a number of at least {least:g}")


def _array(value: Any, name: str) -> NDArray[np.float64]:
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.array(math.nan)
    if not np.isfinite(array).all():
        raise CalibrationError(f"{name} is {value!r}; expected finite numbers")
    return array


def _matrix(value: Any, name: str) -> Matrix:
    try:
        return checked_homography(_array(value, name), name)
    except InputError as error:
        raise CalibrationError(str(error)) from None
