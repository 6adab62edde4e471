"""Fusion without a network: the typed door to ``csrc/pyramid.h``, an edge-preserving pyramid that knows noise."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .frame_kernels import check_out
from .native import _native, checked_array, checked_dtype, thread_count

__all__ = ["PyramidLook", "pyramid", "pyramid_workspace"]

_PLANES = (np.uint8, np.float32)


@dataclass(frozen=True)
class PyramidLook:
    """What the fused picture looks like; amplitudes are in deviations of a source, which is standardised first.

    The three numbers of a tuple are for details of up to 6, 12 and 24 pixels.

    Raises:
        InputError: a value outside its range.
    """

    #: variance from which a step is kept as it is rather than taken for detail: what is raised beyond it is a halo.
    edge: tuple[float, ...] = (0.12, 0.1, 0.06)
    #: gain of clear detail.
    gain: tuple[float, ...] = (2.2, 2.2, 2.1)
    #: how hard the choice between the sources is, 1, 2 or 4; soft where they may disagree in sign over a wide place.
    choice: tuple[int, ...] = (2, 1, 1)
    #: amplitude of detail above which the gain returns to 1.
    strong: float = 1.2
    #: amplitude, in noise floors, at which detail is half gone.
    coring: float = 2.4
    #: what is left of detail deep in the noise.
    floor_gain: float = 0.05
    #: the noise floor is what this part of the picture stays below: nearly every picture has a flat place.
    quiet: float = 0.22
    #: the noise floor is at least this,
    least_noise: float = 0.02
    #: and this in units of the picture's own range [0, 1]: video coding leaves steps of a grey level or two.
    coding_noise: float = 0.006
    #: a source of less contrast than this (of [0, 1]) is not raised to the contrast of the other.
    least_contrast: float = 0.025
    #: infrared level above which things count as hot, how far the base follows them, and by how much at most they
    #: exceed that level there: the less, the more is seen of what they show within.
    hot: float = 1.2
    hot_lift: float = 0.4
    hot_room: float = 2.5
    #: how much of ``edge`` is taken off for the infrared beside them, so that they get no dark rim.
    hot_keep: float = 0.9
    #: mean and deviation of the finished picture, and where its highlights and shadows start to bend.
    mean: float = 0.46
    deviation: float = 0.265
    knee: float = 0.25

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            values = value if isinstance(value, (tuple, list)) else (value,)
            expected = 3 if field.name in ("edge", "gain", "choice") else 1
            if len(values) != expected or not all(
                isinstance(v, (int, float)) and math.isfinite(v) and v >= 0 for v in values
            ):
                what = "three finite numbers" if expected == 3 else "a finite number"
                raise InputError(f"{field.name} is {value!r}; expected {what} from 0 up")
        for name in ("edge", "strong", "coring", "least_noise", "least_contrast", "hot_room"):
            value = getattr(self, name)
            if min(value if isinstance(value, (tuple, list)) else (value,)) < 1e-4:
                raise InputError(f"{name} is {value!r}; expected at least 0.0001")
        if not set(self.choice) <= {1, 2, 4}:
            raise InputError(f"choice is {self.choice!r}; expected 1, 2 or 4 for each of the three levels")
        for name in ("quiet", "hot_lift", "hot_keep", "mean"):
            if getattr(self, name) > 1:
                raise InputError(f"{name} is {getattr(self, name)!r}; expected a number from 0 to 1")


def pyramid_workspace(height: int, width: int) -> NDArray[np.float64]:
    """Memory that :func:`pyramid` needs for planes of this size, about 21 bytes a pixel; to be used again and again.

    Raises:
        InputError: a size below 1x1.
    """
    if min(height, width) < 1:
        raise InputError(f"planes of {width}x{height} (width x height); expected at least 1x1")
    return np.empty(_native.pyramid_workspace(height, width), np.float64)


def pyramid(
    ir: NDArray[Any],
    vis: NDArray[Any],
    look: PyramidLook | None = None,
    *,
    dtype: Any = np.float32,
    out: NDArray[Any] | None = None,
    workspace: NDArray[np.float64] | None = None,
    threads: int | None = None,
) -> NDArray[Any]:
    """Fuse two planes by an edge-preserving pyramid: detail of the clearer source, hot things bright, noise damped.

    Both planes are smoothed at three scales by a self-guided filter (He, Sun & Tang 2013), which keeps steps; what it
    takes out is detail. At each scale the source whose detail is clearer of its noise floor gives most of it, at a gain
    that is below 1 in the noise and above it beyond. The base is the mean of both, lifted towards the infrared where
    that is hot, and the result has a set mean and deviation. These two, the sources' own, and the noise floors are
    statistics of whole pictures, and all that a frame of a video can flicker by.

    Args:
        ir: infrared [H, W], uint8, or float32 in [0, 1]; clipped, NaN is 0. Any size from 1x1, any strides.
        vis: luma of the visible picture, the same choice.
        look: see :class:`PyramidLook`.
        dtype: of the result: float32, or uint8 (nearest).
        out: where to write: [H, W] of that type, any strides; allocated when None.
        workspace: what :func:`pyramid_workspace` gives for planes as large or larger; allocated when None.
        threads: at most this many. The result does not depend on it.

    Returns:
        [H, W] in [0, 1] (uint8: 0 to 255): ``out`` if it was given.

    Raises:
        DtypeError: another element type.
        InputError: other shapes, sizes that differ, empty planes, an ``out`` that overlaps a source, a small workspace.
    """
    ir = checked_array("ir", ir, ("H", "W"), *_PLANES)
    vis = checked_array("vis", vis, ("H", "W"), *_PLANES)
    if ir.shape != vis.shape or not ir.size:
        raise InputError(
            f"ir is {ir.shape[1]}x{ir.shape[0]} and vis is {vis.shape[1]}x{vis.shape[0]} (width x height); expected "
            "one size, at least 1x1"
        )
    if out is None:
        out = np.empty(ir.shape, checked_dtype(dtype, *_PLANES))
    check_out("out", out, ir.shape, *_PLANES)
    if np.may_share_memory(out, ir) or np.may_share_memory(out, vis):
        raise InputError("out overlaps an input; expected memory of its own")
    needed = _native.pyramid_workspace(*ir.shape)
    if workspace is None:
        workspace = np.empty(needed, np.float64)
    elif not isinstance(workspace, np.ndarray) or workspace.dtype != np.float64 or workspace.ndim != 1:
        raise InputError("workspace is not what pyramid_workspace gives; expected a float64 array of one dimension")
    elif workspace.size < needed or not workspace.flags.carray:
        raise InputError(f"workspace has {workspace.size} elements; {ir.shape[1]}x{ir.shape[0]} planes need {needed}")
    ir, vis = (x if _regular(x) else x.copy() for x in (ir, vis))
    _native.pyramid(ir, vis, out, asdict(look or PyramidLook()), workspace, thread_count(threads))
    return out


def _regular(plane: NDArray[Any]) -> bool:
    return plane.flags.aligned and not any(stride % plane.itemsize for stride in plane.strides)
