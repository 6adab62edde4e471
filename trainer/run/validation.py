"""A look at pairs that are not trained on: five numbers, and a strip of pictures."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from pyldfusion import metrics
from pyldfusion.generator import Generator

from ..config import Config
from ..data.pairs import load_pairs

__all__ = ["Validation"]

NAMES = ("EN", "CC", "SD", "EI", "VIFF")
#: Height of one picture of the strip in pixels.
STRIP = 192


class Validation:
    """Fuses the pairs of ``config.validation.data`` at native size with given weights.

    The few pairs that are looked at are read here and kept: no file that vanishes later ends a run of days.

    Raises:
        InputError: no usable pair there.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        self.config, self.device = config.validation, device
        pairs = load_pairs([config.validation.data], config.data).pairs
        pairs.sort(key=lambda pair: pair.name)
        count = min(len(pairs), self.config.pairs)
        # spread over the names: neighbours are often frames of one scene
        chosen = (pairs[round(k * (len(pairs) - 1) / max(1, count - 1))] for k in range(count))
        self.pairs = [pair.planes() for pair in chosen]
        self.generator = Generator(config.network.variant).to(device).eval()

    @torch.no_grad()
    def __call__(self, weights: dict[str, Tensor]) -> tuple[dict[str, float], np.ndarray]:
        """Means of EN CC SD EI VIFF, and rows of (infrared, visible, fused), uint8 [H,W]."""
        self.generator.load_state_dict(weights)
        found, rows = [], []
        for ir, vis in self.pairs:
            planes = (torch.from_numpy(np.array(p, np.float32) / 255)[None, None].to(self.device) for p in (ir, vis))
            fused = self.generator(*planes)[0, 0].mul(255).round().byte().cpu().numpy()
            found.append(metrics.evaluate(fused, ir, vis))
            if len(rows) < self.config.shown:
                rows.append([_fit(picture) for picture in (ir, vis, fused)])
        means = {name: float(np.nanmean([values[name] for values in found])) for name in NAMES}
        width = max(picture.shape[1] for row in rows for picture in row)
        padded = [[np.pad(p, ((0, 0), (0, width - p.shape[1]))) for p in row] for row in rows]
        return means, np.vstack([np.hstack(row) for row in padded])


def _fit(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape
    return cv2.resize(np.asarray(picture), (max(1, round(width * STRIP / height)), STRIP), interpolation=cv2.INTER_AREA)
