"""Pairs from folders, and the crops a step sees.

A root holds infrared and visible pictures under one of the folder names that data sets use, paired by file stem.
Planes are decoded once and kept in memory as bytes. A batch is a function of (seed, step) alone, so a resumed run
sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from pyldfusion.errors import InputError

from .augment import appearance, degrade, paste
from .config import AugmentConfig, DataConfig

__all__ = ["FOLDERS", "Batch", "Batches", "Pair", "PairSet", "find_pairs", "load_pairs"]

#: Folder names of public data sets, (infrared, visible).
FOLDERS = (
    ("ir", "vi"),
    ("ir", "vis"),
    ("Ir", "Vis"),
    ("IR", "VI"),
    ("infrared", "visible"),
    ("Infrared", "Visible"),
    ("cropinfrared", "crop_LR_visible"),
    ("thermal", "rgb"),
    ("thermal", "visible"),
)
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Pair:
    """One picture of each kind; ``group`` is what frames of one scene share."""

    name: str
    group: str
    ir: np.ndarray  # uint8 [H,W]
    vis: np.ndarray


@dataclass
class PairSet:
    """Decoded pairs and what was wrong with the others."""

    pairs: list[Pair] = field(default_factory=list)
    #: name -> reason
    skipped: dict[str, str] = field(default_factory=dict)

    def digest(self) -> str:
        """SHA-256 over names and pixels, in order of the names."""
        h = hashlib.sha256()
        for pair in sorted(self.pairs, key=lambda p: p.name):
            h.update(f"{pair.name} {pair.ir.shape}".encode())
            h.update(pair.ir.tobytes())
            h.update(pair.vis.tobytes())
        return h.hexdigest()

    def report(self) -> str:
        """A few lines for a person."""
        sizes: dict[str, int] = {}
        for pair in self.pairs:
            size = f"{pair.ir.shape[1]}x{pair.ir.shape[0]}"
            sizes[size] = sizes.get(size, 0) + 1
        common = sorted(sizes.items(), key=lambda item: -item[1])
        text = [f"{len(self.pairs)} pairs in {len({p.group for p in self.pairs})} scenes"]
        listed = ", ".join(f"{size} ({n})" for size, n in common[:6])
        text.append(f"sizes: {listed}{' ...' if len(common) > 6 else ''}")
        text += [f"skipped {name}: {reason}" for name, reason in self.skipped.items()]
        return "\n".join(text)


def find_pairs(root: Path) -> tuple[list[tuple[Path, Path]], dict[str, str]]:
    """Files of ``root`` paired by stem, and the stems that have no partner with the reason.

    Raises:
        InputError: no known pair of folders, or nothing in them.
    """
    for ir_name, vis_name in FOLDERS:
        folders = root / ir_name, root / vis_name
        if all(folder.is_dir() for folder in folders):
            break
    else:
        known = ", ".join("/".join(names) for names in FOLDERS)
        raise InputError(f"{root} has no folders of infrared and visible pictures; looked for {known}")
    ir, vis = ({p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in SUFFIXES} for folder in folders)
    found = [(ir[stem], vis[stem]) for stem in sorted(ir.keys() & vis.keys())]
    if not found:
        raise InputError(f"{folders[0]} and {folders[1]} share no picture of the same name")
    return found, {stem: "has no partner" for stem in sorted(ir.keys() ^ vis.keys())}


def load_pairs(roots: Sequence[str | Path], only: str = "") -> PairSet:
    """Decode every pair under ``roots``; what cannot be used is skipped and named, never fatal.

    Args:
        roots: folders as :func:`find_pairs` understands them.
        only: keep the names that begin with this.

    Raises:
        InputError: a root without pictures, or nothing usable at all.
    """
    result = PairSet()
    for root in map(Path, roots):
        found, alone = find_pairs(root)
        result.skipped.update({f"{root.name}/{stem}": reason for stem, reason in alone.items()})
        for ir_path, vis_path in found:
            if not ir_path.stem.startswith(only):
                continue
            name = f"{root.name}/{ir_path.stem}"
            ir, vis = (cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in (ir_path, vis_path))
            if ir is None or vis is None:
                kind = "infrared" if ir is None else "visible"
                result.skipped[name] = f"the {kind} picture cannot be decoded"
            elif flaw := _flaw(ir, vis):
                result.skipped[name] = flaw
            else:
                result.pairs.append(Pair(name, _group(name), ir, vis))
    if not result.pairs:
        raise InputError(f"no usable pair under {', '.join(map(str, roots))}:\n" + result.report())
    return result


def _flaw(ir: np.ndarray, vis: np.ndarray) -> str:
    """Why a decoded pair cannot be used, "" if it can."""
    for kind, picture in (("infrared", ir), ("visible", vis)):
        if min(picture.shape) < 32:
            return f"the {kind} picture is {picture.shape[1]}x{picture.shape[0]}, under 32 pixels a side"
    if ir.shape != vis.shape:
        return f"sizes differ: {ir.shape[1]}x{ir.shape[0]} and {vis.shape[1]}x{vis.shape[0]}"
    if max(ir.std(), vis.std()) < 2:
        return "both pictures are nearly constant"
    return ""


def _group(name: str) -> str:
    """``m3svd/0111_1716_v0060`` -> ``m3svd/0111_1716``: without the last number, which counts frames."""
    return re.sub(r"_v?\d+$", "", name)


@dataclass(frozen=True)
class Batch:
    """[N,1,H,W] float in [0, 1]: what the network sees, and what the target is made from."""

    ir: Tensor
    vis: Tensor
    clean_ir: Tensor
    clean_vis: Tensor


class Batches:
    """Seeded crops: ``batches(step)`` is the same whenever and wherever it is asked for.

    Scenes are drawn with the square root of their number of frames: neither one long film nor one odd frame rules.
    """

    def __init__(self, pairs: PairSet, data: DataConfig, augment: AugmentConfig, seed: int, steps: int) -> None:
        self.config, self.augment, self.seed, self.steps = data, augment, seed, steps
        groups: dict[str, list[Pair]] = {}
        for pair in pairs.pairs:
            groups.setdefault(pair.group, []).append(pair)
        self.groups = [groups[name] for name in sorted(groups)]
        weights = np.sqrt([len(group) for group in self.groups])
        self.weights = weights / weights.sum()
        self.crops = [parse_size(text) for text in data.crops]
        self.late = [parse_size(text) for text in data.late_crops]

    def __call__(self, step: int) -> Batch:
        random = np.random.default_rng([self.seed, step])
        crops = self.late if step >= self.config.late_from * self.steps else self.crops
        width, height = crops[random.integers(len(crops))]
        count = max(1, round(self.config.batch_pixels / (width * height)))
        # a generator of its own for every sample: who makes it, and in what order, does not matter
        samples = [self._sample(np.random.default_rng([self.seed, step, k]), width, height) for k in range(count)]
        planes = [torch.from_numpy(np.stack(planes)[:, None]) for planes in zip(*samples, strict=True)]
        return Batch(*planes)

    def _sample(self, random: np.random.Generator, width: int, height: int) -> tuple[np.ndarray, ...]:
        for _ in range(5):  # a crop without content teaches little
            ir, vis = crop_pair(self._draw(random), random, width, height, self.config, self.augment)
            if max(ir.std(), vis.std()) > 0.05:
                break
        if random.random() < self.augment.mix:
            ir, _ = crop_pair(self._draw(random), random, width, height, self.config, self.augment)
        if random.random() < self.augment.negative:
            vis = 1 - vis  # the infrared's polarity is its meaning; the visible's brightness is only light
        if random.random() < self.augment.shape:
            ir, vis = paste(ir, vis, random)
        clean = appearance(ir, random, self.augment), appearance(vis, random, self.augment)
        seen = degrade(clean[0], random, self.augment), degrade(clean[1], random, self.augment)
        clean = tuple(flat if flat is not None else plane for plane, (_, flat) in zip(clean, seen, strict=True))
        return seen[0][0], seen[1][0], *clean

    def _draw(self, random: np.random.Generator) -> Pair:
        group = self.groups[random.choice(len(self.groups), p=self.weights)]
        return group[random.integers(len(group))]


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
    pair: Pair, random: np.random.Generator, width: int, height: int, config: DataConfig, augment: AugmentConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the same region from both pictures, resized to ``width`` x ``height``, flipped; float32 in [0, 1]."""
    m = config.margin
    full_height, full_width = pair.ir.shape
    full_height, full_width = full_height - 2 * m, full_width - 2 * m
    most = min(full_width / width, full_height / height)
    whole = random.random() < config.whole
    least = min(config.least_zoom, most)
    zoom = most if whole else least * (most / least) ** random.random()
    w, h = min(full_width, max(8, round(width * zoom))), min(full_height, max(8, round(height * zoom)))
    x, y = m + random.integers(full_width - w + 1), m + random.integers(full_height - h + 1)
    how = cv2.INTER_AREA if zoom >= 1 else cv2.INTER_CUBIC
    region = slice(y, y + h), slice(x, x + w)
    ir, vis = (cv2.resize(plane[region], (width, height), interpolation=how) for plane in (pair.ir, pair.vis))
    if random.random() < augment.shift:
        dx, dy = random.uniform(-1, 1, 2) * augment.shift_pixels
        move = np.float32([[1, 0, dx], [0, 1, dy]])
        ir = cv2.warpAffine(ir, move, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if random.random() < augment.flip:
        ir, vis = ir[:, ::-1], vis[:, ::-1]
    return tuple(np.ascontiguousarray(plane, np.float32) / 255 for plane in (ir, vis))  # type: ignore[return-value]
