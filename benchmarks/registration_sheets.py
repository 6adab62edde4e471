"""Who is right, the data set or the search? Sheets for a person to judge by eye, without knowing which is which."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from pyldfusion.calibration.geometry import Matrix
from pyldfusion.calibration.structure import grey
from pyldfusion.media import write_image

__all__ = ["Sheets"]

#: Of the picture's sides, which is left out: what the warp left black would tell which is which.
BORDER = 0.06
#: Share of the pixels that are edges at least, and how much weaker the ends of an edge may be (Canny).
STRONG, WEAK = 0.07, 0.5


class Sheets:
    """A folder of pictures: infrared's edges on the visible picture, as delivered and as found, in random order.

    ``key.json`` tells the order, for after the judging.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._rng = np.random.default_rng([seed, 11])
        self._key: list[dict[str, str | list[str]]] = []

    def add(self, name: str, ir: np.ndarray, vis: np.ndarray, found: Matrix) -> None:
        """One pair, ``ir`` [H,W] and ``vis`` [H,W] or [H,W,3] uint8 as delivered; ``found``: from infrared pixels."""
        order = ["delivered", "found"]
        matrices = {"delivered": np.eye(3), "found": found}
        self._rng.shuffle(order)
        sides = [_edges_on(cv2.warpPerspective(ir, matrices[which], ir.shape[::-1]), vis) for which in order]
        sheet = f"{len(self._key):03}.png"
        write_image(self._folder / sheet, np.concatenate(sides, axis=1))
        self._key.append({"sheet": sheet, "pair": name, "left and right": order})
        (self._folder / "key.json").write_text(json.dumps(self._key, indent=1) + "\n")


def _edges_on(ir: np.ndarray, vis: np.ndarray) -> np.ndarray:
    smooth = cv2.GaussianBlur(ir, (0, 0), 1.5)
    steps = cv2.magnitude(*(cv2.Sobel(smooth, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1))))
    strong = float(np.quantile(steps, 1 - STRONG))
    luma = grey(vis)
    low, high = np.percentile(luma, (1, 99))
    luma = np.clip((luma - low) / max(high - low, 1.0), 0, 1) * 150 + 60
    sheet = np.repeat(luma[..., None], 3, axis=2).astype(np.uint8)
    sheet[cv2.Canny(smooth, WEAK * strong, strong) > 0] = (0, 50, 255)
    down, right = (round(BORDER * side) for side in ir.shape)
    return sheet[down:-down, right:-right]
