"""Numbers people quote of a fused picture: EN CC CC_uint8 SD EI VIFF SF AG MI Qabf SSIM.

Each function takes ``fused`` alone or ``(fused, ir, vis)``, and :func:`evaluate` computes all of them at once,
sharing what they have in common.

Pictures are uint8 [H, W] or [H, W, 3] in BGR, which MATLAB's rgb2gray weights turn to grey, rounded. uint16 (the full
range 0..65535, divided by 257) and float in [0, 1] (times 255) are rounded to 8 bits first. Raw 14- or 16-bit thermal
counts use a small part of their range: scale them before, as :class:`pyldfusion.Fuser` does. All three must be of one
size. Wrong element types raise :class:`~pyldfusion.errors.DtypeError`; wrong shapes, sizes that differ, empty
pictures, NaN and floats outside [0, 1] raise :class:`~pyldfusion.errors.InputError`.

All values are on the 0..255 scale where they have a unit. A value that a picture does not have is NaN: the
correlation with a constant picture, Qabf where no source has an edge, AG of a single row. VIFF below 41 pixels and SSIM
below 11 pixels are NaN with a RuntimeWarning.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import nan
from typing import Any

from . import gradients, histograms, windows
from .pictures import Grey, grey, triple

__all__ = ["ag", "cc", "cc_uint8", "ei", "en", "evaluate", "mi", "qabf", "sd", "sf", "ssim", "viff"]


def evaluate(fused: Any, ir: Any, vis: Any) -> dict[str, float]:
    """All metrics of one fused picture, keyed EN CC CC_uint8 SD EI VIFF SF AG MI Qabf SSIM.

    Arguments and errors as the module describes. Same values as the functions below, in less time.
    """
    f, a, b = triple(fused, ir, vis)
    with_ir, with_vis = histograms.joint_histogram(a, f), histograms.joint_histogram(b, f)
    levels = with_ir.sum(axis=0)
    slopes = [gradients.gradients(picture) for picture in (f, a, b)]
    return {
        "EN": histograms.entropy(levels),
        "CC": (histograms.correlation(with_ir) + histograms.correlation(with_vis)) / 2,
        "CC_uint8": (histograms.correlation_uint8(with_ir) + histograms.correlation_uint8(with_vis)) / 2,
        "SD": histograms.deviation(levels),
        "EI": gradients.edge_intensity(slopes[0]),
        "VIFF": _windowed("VIFF", windows.visual_fidelity, windows.VIFF_SIDE, f, a, b),
        "SF": gradients.spatial_frequency(f),
        "AG": gradients.average_gradient(f),
        "MI": histograms.mutual_information(with_ir) + histograms.mutual_information(with_vis),
        "Qabf": gradients.edge_preservation(*slopes),
        "SSIM": _windowed("SSIM", windows.structural_similarity, windows.SSIM_SIDE, f, a, b),
    }


def _windowed(name: str, metric: Callable[[Grey, Grey, Grey], float], side: int, *pictures: Grey) -> float:
    """``metric`` of the pictures, or NaN and a warning where a side is too short for its window."""
    height, width = pictures[0].shape
    if min(height, width) < side:
        warnings.warn(
            f"{name} needs {side} pixels on each side and the pictures are {width}x{height}: it is NaN",
            RuntimeWarning,
            stacklevel=3,
        )
        return nan
    return metric(*pictures)
