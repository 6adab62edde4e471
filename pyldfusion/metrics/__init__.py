"""Numbers people quote of a fused picture: EN CC CC_uint8 SD EI VIFF SF AG MI Qabf SSIM.

Each function takes ``fused`` alone or ``(fused, ir, vis)``; :func:`evaluate` computes all of them at once and
shares what they have in common.

Pictures are NumPy arrays of shape [H, W], [H, W, 1] or [H, W, 3] in BGR, all three of one size. Colour is turned
to grey by MATLAB's rgb2gray weights and rounded. uint8 is taken as it is; uint16 (the full range 0..65535,
divided by 257) and float in [0, 1] (times 255) are rounded to 8 bits first. Raw thermal counts use a small part
of the 16 bits: scale them before, as :class:`pyldfusion.Fuser` does.

A wrong type raises :class:`~pyldfusion.errors.DtypeError`; wrong shapes, sizes that differ, empty pictures, NaN
and floats outside [0, 1] raise :class:`~pyldfusion.errors.InputError`.

Levels run from 0 to 255 in every formula. A value that a picture does not have is NaN: the correlation with a
constant picture, Qabf where no source has an edge, AG of a single row. VIFF is NaN with a RuntimeWarning where a
side is below 41 pixels, SSIM where it is below 11.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from math import isnan, nan
from typing import Any

from . import gradients, histograms, windows
from .pictures import Grey, grey, triple

__all__ = [
    "NAMES",
    "ag",
    "cc",
    "cc_uint8",
    "ei",
    "en",
    "evaluate",
    "mean",
    "mi",
    "qabf",
    "sd",
    "sf",
    "ssim",
    "viff",
]

#: The keys of :func:`evaluate`, in order.
NAMES = ("EN", "CC", "CC_uint8", "SD", "EI", "VIFF", "SF", "AG", "MI", "Qabf", "SSIM")


def evaluate(fused: Any, ir: Any, vis: Any) -> dict[str, float]:
    """All metrics of one fused picture, keyed EN CC CC_uint8 SD EI VIFF SF AG MI Qabf SSIM.

    The values of the functions below, in less time; uses two threads. Arguments and errors as the module says.
    """
    f, a, b = triple(fused, ir, vis)
    with ThreadPoolExecutor(max_workers=1) as helper:  # VIFF is half of all the work
        fits = _fits("VIFF", windows.VIFF_SIDE, f)
        fidelity = helper.submit(windows.visual_fidelity, f, a, b) if fits else None
        similarity = windows.structural_similarity(f, a, b) if _fits("SSIM", windows.SSIM_SIDE, f) else nan
        with_ir, with_vis = histograms.joint_histogram(a, f), histograms.joint_histogram(b, f)
        levels = with_ir.sum(axis=0)
        slopes = [gradients.gradients(picture) for picture in (f, a, b)]
        values = (
            histograms.entropy(levels),
            (histograms.correlation(with_ir) + histograms.correlation(with_vis)) / 2,
            (histograms.correlation_uint8(with_ir) + histograms.correlation_uint8(with_vis)) / 2,
            histograms.deviation(levels),
            gradients.edge_intensity(slopes[0]),
            fidelity.result() if fidelity else nan,
            gradients.spatial_frequency(f),
            gradients.average_gradient(f),
            histograms.mutual_information(with_ir) + histograms.mutual_information(with_vis),
            gradients.edge_preservation(*slopes),
            similarity,
        )
    return dict(zip(NAMES, values, strict=True))


def mean(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric over several pictures' rows of :func:`evaluate`, keyed as the first row is.

    A picture without a value (NaN) is left out of that metric's mean; NaN where none has one, {} for no rows.
    """
    rows = list(rows)
    found = {name: [row[name] for row in rows if not isnan(row[name])] for name in (rows[0] if rows else ())}
    return {name: statistics.fmean(values) if values else nan for name, values in found.items()}


def en(fused: Any) -> float:
    """Entropy of the levels in bits, 0..8: -sum p log2 p over the 256-bin histogram, empty bins skipped."""
    return histograms.entropy(histograms.histogram(grey("fused", fused)))


def sd(fused: Any) -> float:
    """Standard deviation of the levels, 0..127.5, dividing by the number of pixels."""
    return histograms.deviation(histograms.histogram(grey("fused", fused)))


def cc(fused: Any, ir: Any, vis: Any) -> float:
    """Pearson's correlation with the fused picture, -1..1, the mean of both sources'.

    This is the plain number; a paper's table may hold :func:`cc_uint8` under the same name.
    """
    f, a, b = triple(fused, ir, vis)
    return sum(histograms.correlation(histograms.joint_histogram(source, f)) for source in (a, b)) / 2


def cc_uint8(fused: Any, ir: Any, vis: Any) -> float:
    """:func:`cc` as MATLAB computes it in uint8 arithmetic; the LDFusion paper's table holds this one.

    Deviations from the mean are rounded and clipped to 0..255 and their products are clipped to 255, so dark
    pixels do not count and bright ones count alike. Not comparable with the plain CC: never negative, and above 1
    for some pictures.
    """
    f, a, b = triple(fused, ir, vis)
    return sum(histograms.correlation_uint8(histograms.joint_histogram(source, f)) for source in (a, b)) / 2


def ei(fused: Any) -> float:
    """Edge intensity: the mean length of the Sobel gradient (weights 1 2 1, no 1/8), border replicated."""
    return gradients.edge_intensity(gradients.gradients(grey("fused", fused)))


def viff(fused: Any, ir: Any, vis: Any) -> float:
    """Visual information fidelity for fusion, 0 and up; 1 for as much information as the sources hold.

    Han, Cai, Cao and Xu, "A new image fusion performance metric based on visual information fidelity",
    Information Fusion 14, 2013. Four scales, windows of 17, 9, 5 and 3 pixels, scale weights 1, 0, 0.15 and 1.
    NaN with a RuntimeWarning below 41 pixels.
    """
    f, a, b = triple(fused, ir, vis)
    return windows.visual_fidelity(f, a, b) if _fits("VIFF", windows.VIFF_SIDE, f) else nan


def sf(fused: Any) -> float:
    """Spatial frequency: sqrt(RF^2 + CF^2), where RF^2 and CF^2 are the sums of the squared differences of
    horizontal and vertical neighbours, each over the number of pixels.

    Eskicioglu and Fisher, "Image quality measures and their performance", IEEE Trans. Communications 43, 1995.
    """
    return gradients.spatial_frequency(grey("fused", fused))


def ag(fused: Any) -> float:
    """Average gradient: the mean of sqrt((dx^2 + dy^2) / 2), forward differences, less the last row and column.

    Cui, Feng, Xu, Li and Chen, "Detail preserved fusion of visible and infrared images using regional saliency
    extraction and multi-scale image decomposition", Optics Communications 341, 2015.
    """
    return gradients.average_gradient(grey("fused", fused))


def mi(fused: Any, ir: Any, vis: Any) -> float:
    """Mutual information with the fused picture in bits, the sum of both sources', 256x256-bin histograms.

    Qu, Zhang and Yan, "Information measure for performance of image fusion", Electronics Letters 38, 2002.
    """
    f, a, b = triple(fused, ir, vis)
    return sum(histograms.mutual_information(histograms.joint_histogram(source, f)) for source in (a, b))


def qabf(fused: Any, ir: Any, vis: Any) -> float:
    """How much of the sources' edges the fused picture keeps, in strength and direction, 0..1.

    Xydeas and Petrovic, "Objective image fusion performance measure", Electronics Letters 36, 2000. Sobel
    gradients, border replicated; sigmoids 0.9994, -15, 0.5 for strength and 0.9879, -22, 0.8 for direction; each
    pixel weighted by its source's gradient (L = 1). Opposite directions count as the same.
    """
    f, a, b = (gradients.gradients(picture) for picture in triple(fused, ir, vis))
    return gradients.edge_preservation(f, a, b)


def ssim(fused: Any, ir: Any, vis: Any) -> float:
    """Structural similarity to the fused picture, -1..1, the mean of both sources'.

    Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural
    similarity", IEEE Trans. Image Processing 13, 2004. Gaussian window of 11 pixels, sigma 1.5, wholly inside
    the picture; K1 = 0.01, K2 = 0.03, L = 255. NaN with a RuntimeWarning below 11 pixels.
    """
    f, a, b = triple(fused, ir, vis)
    return windows.structural_similarity(f, a, b) if _fits("SSIM", windows.SSIM_SIDE, f) else nan


def _fits(name: str, side: int, picture: Grey) -> bool:
    """Whether both sides reach ``side`` pixels; warns the caller's caller if not."""
    height, width = picture.shape
    if min(height, width) >= side:
        return True
    warnings.warn(
        f"{name} needs {side} pixels on each side and the pictures are {width}x{height}: it is NaN",
        RuntimeWarning,
        stacklevel=3,
    )
    return False
