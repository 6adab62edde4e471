"""Crops of the supervised recipe: scenes at random, in several sizes, with the flaws of :mod:`trainer.data.augment`."""

from __future__ import annotations

import math
import re
from typing import Any

import cv2
import numpy as np
import torch

from pyldfusion.errors import InputError

from ..config import AugmentConfig, Config, CropConfig
from ..objective import Batch
from .augment import appearance, degrade, paste
from .pairs import Pair, PairSet, planes_or_another

__all__ = ["SceneCrops", "crop_pair", "parse_size"]


class SceneCrops:
    """Seeded crops: ``crops(step)`` is the same whenever and wherever it is asked for.

    Scenes are drawn with the square root of their number of frames, times their weight: neither one long film nor one
    odd frame rules.

    Args:
        pairs: what crops are cut from.
        config: ``[crops]`` and ``[augment]`` of it, the seed, and its epochs.
        steps: of the whole run, 0: as many as the epochs take; the last part of it has crops of other sizes.
        rank, world: this process and the number of them. They share the samples of a step, whose number is rounded up
            to a multiple of ``world``.

    Attributes:
        steps_per_epoch: steps that see as many crops, of the early sizes, as there are pairs.

    Raises:
        InputError: a crop size that is none.
    """

    def __init__(self, pairs: PairSet, config: Config, steps: int, rank: int = 0, world: int = 1) -> None:
        self.config, self.augment, self.seed = config.crops, config.augment, config.run.seed
        self.rank, self.world = rank, world
        groups: dict[str, list[Pair]] = {}
        for pair in pairs.pairs:
            groups.setdefault(pair.group, []).append(pair)
        self.groups = [groups[name] for name in sorted(groups)]
        weights = np.sqrt([len(group) for group in self.groups])
        weights *= [np.mean([pair.weight for pair in group]) for group in self.groups]
        self.weights = weights / weights.sum()
        self.crops = [parse_size(text) for text in self.config.crops]
        self.late = [parse_size(text) for text in self.config.late_crops]
        samples = np.mean([world * self._share(*size) for size in self.crops])
        self.steps_per_epoch = math.ceil(len(pairs.pairs) / samples)
        self.steps = steps or config.run.epochs * self.steps_per_epoch

    def __call__(self, step: int) -> Batch:
        random = np.random.default_rng([self.seed, step])
        crops = self.late if step >= self.config.late_from * self.steps else self.crops
        width, height = crops[random.integers(len(crops))]
        share = self._share(width, height)
        # a generator of its own for every sample: who makes it, and in what order, does not matter
        samples = [
            self._sample(np.random.default_rng([self.seed, step, k]), width, height)
            for k in range(self.rank * share, (self.rank + 1) * share)
        ]
        names, *planes = zip(*samples, strict=True)
        return Batch(step, *(torch.from_numpy(np.stack(plane)[:, None]) for plane in planes), names=names)

    def _share(self, width: int, height: int) -> int:
        """Samples of a step that one process makes."""
        return math.ceil(max(1, round(self.config.batch_pixels / (width * height))) / self.world)

    def _sample(self, random: np.random.Generator, width: int, height: int) -> tuple[Any, ...]:
        """Name, what the network sees (ir, vis) and the clean crops, float32 [height,width]."""
        for _ in range(5):  # a crop without content teaches little
            pair, planes = self._draw(random)
            ir, vis = crop_pair(planes, random, width, height, self.config, self.augment)
            if max(ir.std(), vis.std()) > 0.05:
                break
        if random.random() < self.augment.mix:
            _, planes = self._draw(random)
            ir, _ = crop_pair(planes, random, width, height, self.config, self.augment)
        if random.random() < self.augment.negative:
            vis = 1 - vis  # the infrared's polarity is its meaning; the visible's brightness is only light
        if random.random() < self.augment.shape:
            ir, vis = paste(ir, vis, random)
        clean = appearance(ir, random, self.augment), appearance(vis, random, self.augment)
        seen = degrade(clean[0], random, self.augment), degrade(clean[1], random, self.augment)
        clean = tuple(flat if flat is not None else plane for plane, (_, flat) in zip(clean, seen, strict=True))
        return pair.name, seen[0][0], seen[1][0], *clean

    def _draw(self, random: np.random.Generator) -> tuple[Pair, np.ndarray]:
        def draw() -> Pair:
            group = self.groups[random.choice(len(self.groups), p=self.weights)]
            return group[random.integers(len(group))]

        return planes_or_another(draw(), draw)


def parse_size(text: str) -> tuple[int, int]:
    """``"160x128"`` -> (160, 128), width first.

    Raises:
        InputError: anything else, or a side under 32.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match or min(map(int, match.groups())) < 32:
        raise InputError(f"{text!r} is no crop size; expected WIDTHxHEIGHT of at least 32x32, such as 160x160")
    return int(match[1]), int(match[2])


def crop_pair(
    planes: np.ndarray, random: np.random.Generator, width: int, height: int, config: CropConfig, augment: AugmentConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the same region from both planes of uint8 [2,H,W], resized to ``width`` x ``height``, maybe flipped.

    Returns:
        float32 [height,width] in [0, 1] of the infrared and of the visible.
    """
    m = config.margin
    full_height, full_width = planes.shape[1] - 2 * m, planes.shape[2] - 2 * m
    most = min(full_width / width, full_height / height)
    whole = random.random() < config.whole
    least = min(config.least_zoom, most)
    zoom = most if whole else least * (most / least) ** random.random()
    w, h = min(full_width, max(8, round(width * zoom))), min(full_height, max(8, round(height * zoom)))
    x, y = m + random.integers(full_width - w + 1), m + random.integers(full_height - h + 1)
    how = cv2.INTER_AREA if zoom >= 1 else cv2.INTER_CUBIC
    ir, vis = (cv2.resize(plane[y : y + h, x : x + w], (width, height), interpolation=how) for plane in planes)
    if random.random() < augment.shift:
        dx, dy = random.uniform(-1, 1, 2) * augment.shift_pixels
        move = np.float32([[1, 0, dx], [0, 1, dy]])
        ir = cv2.warpAffine(ir, move, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if random.random() < augment.flip:
        ir, vis = ir[:, ::-1], vis[:, ::-1]
    return tuple(np.ascontiguousarray(plane, np.float32) / 255 for plane in (ir, vis))  # type: ignore[return-value]
