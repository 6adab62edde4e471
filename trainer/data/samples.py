"""Crops of the language-driven recipe: every pair in turn, in an order that is shuffled anew each epoch."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch

from pyldfusion.errors import InputError

from ..config import Config, ConfigError, PatchConfig
from ..objective import Batch
from ..patches import inverse_maps
from .pairs import Pair, PairSet, planes_or_another

__all__ = ["EpochSamples", "affine_map", "bend", "crop_square"]

#: Shares of an epoch are whole numbers of this part of a sample: sums are exact.
UNIT = 1 << 20


class EpochSamples:
    """``samples(step)``: square crops of the pairs that are next in the epoch's order, ``samples.batch`` in all.

    An epoch has every pair ``samples.repeat`` times, times its weight. Of 2.3 times, two are in every epoch and the
    third in three of ten, drawn anew each epoch. The last partial batch is dropped. A sample is a function of (seed,
    epoch, place in the epoch) alone: neither the number of processes nor that of workers changes it.

    A sample is a random crop (reflect-padded where the picture is smaller), maybe under one random affine map, the same
    for both planes, drawn again while both are nearly constant. Noise is added to what the network sees, which is not
    clipped; the losses see the clean crop.

    Args:
        pairs: loaded for crops of this side (``load_pairs(..., crop=config.samples.crop)``).
        config: ``[samples]`` of it, the affine numbers of ``[patches]``, and the seed.
        rank, world: this process and the number of them; each takes its contiguous part of a batch.

    Attributes:
        steps_per_epoch: whole batches in an epoch.

    Raises:
        ConfigError: the batch cannot be divided among the processes.
        InputError: an epoch is less than a batch, or a picture is too small to be reflect-padded to a crop.
    """

    def __init__(self, pairs: PairSet, config: Config, rank: int = 0, world: int = 1) -> None:
        self.pairs, self.config, self.affine, self.seed = pairs.pairs, config.samples, config.patches, config.run.seed
        self.batch = self.config.batch
        if self.batch % world:
            raise ConfigError(
                f"samples.batch is {self.batch}, over all of {world} processes; expected a multiple of {world}"
            )
        self.first, self.share = rank * (self.batch // world), self.batch // world
        for pair in self.pairs:
            if 2 * min(pair.height, pair.width) <= self.config.crop:
                raise InputError(
                    f"{pair.name} is {pair.width}x{pair.height}; expected more than half of samples.crop, "
                    f"{self.config.crop}: load pairs with that crop, which leaves such pictures out"
                )
        weights = np.array([pair.weight for pair in self.pairs])
        self.units = np.rint(weights * self.config.repeat * UNIT).astype(np.int64)
        total = int(self.units.sum()) // UNIT
        self.steps_per_epoch = total // self.batch
        if not self.steps_per_epoch:
            raise InputError(
                f"samples in an epoch: {total} (pairs: {len(self.pairs)}, samples.repeat {self.config.repeat}, "
                f"weights {weights.min():g} to {weights.max():g}), less than a batch of {self.batch}; lower "
                f"samples.batch, or raise samples.repeat to {math.ceil(self.batch / weights.sum())}"
            )
        self._order = -1, np.empty(0, np.int64)

    def __call__(self, step: int) -> Batch:
        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        order = self.order(epoch)
        first = step_of_epoch * self.batch + self.first
        samples = [self._sample(order[place], epoch, place) for place in range(first, first + self.share)]
        names, clean, seen = zip(*samples, strict=True)
        clean_ir, clean_vis = _planes(clean)
        ir, vis = _planes(seen) if self.config.noise else (clean_ir, clean_vis)
        return Batch(step, ir, vis, clean_ir, clean_vis, names)

    def order(self, epoch: int) -> np.ndarray:
        """Indices of the pairs of an epoch in the order they come in, int64."""
        if self._order[0] != epoch:
            random = np.random.default_rng([self.seed, epoch])
            # Systematic sampling: along the pairs in random order, one sample whenever the sum of their shares passes
            # a whole number, from a random start. Each pair comes with exactly its share, whole shares always.
            line = random.permutation(len(self.pairs))
            passed = (np.cumsum(self.units[line]) + random.integers(UNIT)) // UNIT
            order = random.permutation(np.repeat(line, np.diff(passed, prepend=0)))
            self._order = epoch, order[: self.steps_per_epoch * self.batch]
        return self._order[1]

    def _sample(self, index: int, epoch: int, place: int) -> tuple[str, np.ndarray, np.ndarray]:
        """Name, the clean crops and the noisy ones, float32 [2,side,side]."""
        # from 1: a trailing 0 would give the generator that made the order
        random = np.random.default_rng([self.seed, epoch, 1 + place])
        pair, planes = planes_or_another(self.pairs[index], lambda: self._any(random))
        for _ in range(1 + self.config.redraws):
            crop = crop_square(planes, self.config.crop, random)
            if self.config.affine:
                crop = bend(crop, affine_map(self.affine, self.config.crop, random))
            least = self.config.least_deviation
            if least <= 0 or crop.std(axis=(1, 2)).max() >= least:
                break
        noise = np.float32(self.config.noise)
        seen = crop + noise * random.standard_normal(crop.shape, np.float32) if noise else crop
        return pair.name, crop, seen

    def _any(self, random: np.random.Generator) -> Pair:
        return self.pairs[random.integers(len(self.pairs))]


def crop_square(planes: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
    """A random square of uint8 [2,H,W] as float32 [2,side,side] in [0, 1].

    A picture under ``side`` is first padded by reflection, by what it lacks on both sides, so that it may lie anywhere
    in the crop (torchvision's ``RandomCrop(pad_if_needed=True, padding_mode="reflect")``). H, W > side / 2.
    """
    rows, columns = (_reflected(size, side, random) for size in planes.shape[1:])
    return planes[:, rows][:, :, columns].astype(np.float32) / 255


def _reflected(size: int, side: int, random: np.random.Generator) -> slice | np.ndarray:
    lacking = max(0, side - size)
    first = int(random.integers(size + 2 * lacking - side + 1)) - lacking
    if not lacking:
        return slice(first, first + side)
    last = size - 1
    return last - np.abs(last - np.abs(np.arange(first, first + side)))


def affine_map(config: PatchConfig, side: int, random: np.random.Generator) -> np.ndarray:
    """A random affine map about the centre of a square: float64 [2,3], from output pixels to input pixels.

    Rotation, then what was sheared along x and scaled, then a vertical shift by whole pixels; torchvision's
    ``RandomAffine`` with these ranges.
    """
    angle = np.radians([random.uniform(-config.degrees, config.degrees)])
    down = np.rint([random.uniform(-config.shift, config.shift) * side])
    scale = np.array([random.uniform(*config.scale)])
    shear = np.radians([random.uniform(-config.shear, config.shear)])
    matrix = inverse_maps(angle, down, scale, shear)[0]
    centre = np.full(2, (side - 1) / 2)
    matrix[:, 2] += centre - matrix[:, :2] @ centre
    return matrix


def bend(planes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Resample float32 [2,H,W] bilinearly, all planes by one map from output to input pixels; outside is 0."""
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.stack([cv2.warpAffine(plane, matrix, plane.shape[::-1], flags=how) for plane in planes])


def _planes(samples: tuple[np.ndarray, ...]) -> tuple[torch.Tensor, ...]:
    """N times [2,H,W] -> two of [N,1,H,W]."""
    return tuple(torch.from_numpy(np.stack(plane)[:, None]) for plane in zip(*samples, strict=True))
