"""Pairs of pictures on disk, and batches of them compared: what several test modules need."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tqdm")

from trainer.config import Config, load_config  # noqa: E402
from trainer.data.pairs import PairSet  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
PLANES = ("ir", "vis", "clean_ir", "clean_vis")


def picture(random: np.random.Generator, size=(96, 128)) -> np.ndarray:
    """Smooth and fine structure, uint8 [H,W]."""
    coarse = random.random((size[0] // 8, size[1] // 8)).astype(np.float32)
    fine = random.random((size[0] // 2, size[1] // 2)).astype(np.float32)
    x = sum(w * cv2.resize(p, size[::-1], interpolation=cv2.INTER_CUBIC) for w, p in ((0.8, coarse), (0.2, fine)))
    return np.clip(x * 255, 0, 255).astype(np.uint8)


def write_pairs(root: Path, names: list[str], folders=("ir", "vi"), size=(96, 128), seed=3) -> Path:
    random = np.random.default_rng(seed)
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            cv2.imwrite(str(root / folder / f"{name}.png"), picture(random, size))
    return root


def seven_pairs(root: Path) -> Path:
    """Seven pairs of three scenes; not to be changed."""
    return write_pairs(root, ["a_000", "a_001", "a_002", "a_003", "b_000", "b_001", "c"])


def stems(pairs: PairSet) -> list[str]:
    return [pair.name.split("/", 1)[1] for pair in pairs.pairs]


def reasons(pairs: PairSet) -> dict[str, str]:
    return {name.split("/", 1)[1]: reason for name, reason in pairs.skipped.items()}


def language(*options: str, preset: str = "paper") -> Config:
    return load_config(preset, ["samples.crop=64", "samples.batch=4", *options])


def equal(a, b) -> bool:
    return a.step == b.step and a.names == b.names and all(torch.equal(getattr(a, p), getattr(b, p)) for p in PLANES)


def joined(*parts):
    """What several ranks have of a step, one after the other."""
    planes = {name: torch.cat([getattr(part, name) for part in parts]) for name in PLANES}
    return replace(parts[0], **planes, names=sum((part.names for part in parts), ()))
