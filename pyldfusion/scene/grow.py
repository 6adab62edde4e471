"""How trees grow: branches by recursion, leaves in clumps, as polygons that can be drawn at any size."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from .texture import Array

__all__ = ["BUSH", "Grown", "grow"]

SPECIES = ("round", "conifer", "bare", "bush")
BUSH = 3
LEAF = np.array([(-1, 0), (-0.3, -0.45), (0.5, -0.35), (1, 0), (0.5, 0.35), (-0.3, 0.45)])
FINE = 2  # samples a side of a pixel
BLANK = -1000.0


@dataclass
class Grown:
    """A tree of height 1 with its root at (0, 0), up positive.

    Attributes:
        width: of the box around it.
        batches: convex polygons [n,k,2] with values [n,4] (linear BGR reflectance, temperature over the air's), from
            far to near.
    """

    width: float
    batches: list[tuple[Array, Array]] = field(default_factory=list)

    def add(self, points: Any, colours: Any, warmth: Any) -> None:
        self.batches.append((np.asarray(points, np.float32), np.column_stack([colours, warmth])))

    def draw(self, height: int, window: tuple[int, int, int, int]) -> tuple[Array, Array]:
        """The part ``window`` (left, top, right, bottom) of its picture ``height`` pixels high: values and coverage."""
        left, top, right, bottom = window
        board = np.zeros(((bottom - top) * FINE, (right - left) * FINE, 4), np.float32)
        board[..., 3] = BLANK
        size = height * FINE
        origin = np.array([self.width * size / 2 - left * FINE - 0.5, size - top * FINE - 0.5], np.float32)
        for points, values in self.batches:
            corners = np.clip(points * (size, -size) + origin, -8000, 8000)
            for outline, value in zip(np.round(corners * 16).astype(np.int32), values.tolist(), strict=True):
                cv2.fillConvexPoly(board, outline, value, cv2.LINE_8, 4)
        drawn = (board[..., 3] > BLANK).astype(np.float32)
        shape = (right - left, bottom - top)
        alpha = cv2.resize(drawn, shape, interpolation=cv2.INTER_AREA)
        mixed = cv2.resize(board * drawn[..., None], shape, interpolation=cv2.INTER_AREA)
        return mixed / np.maximum(alpha, 1e-4)[..., None], alpha


@lru_cache(maxsize=64)
def grow(species: int, seed: int, detail: float) -> Grown:
    """Grow a tree; ``detail`` (0 to 1) thins its leaves out for small pictures and makes each larger."""
    rng = np.random.default_rng([seed, 5])
    kind = SPECIES[species % len(SPECIES)]
    tree = Grown({"round": 0.95, "conifer": 0.6, "bare": 0.85, "bush": 1.5}[kind])
    bark = np.array([0.05, 0.065, 0.085]) * rng.uniform(0.7, 1.5)
    hue = rng.uniform(0, 1)
    leaf = np.array([0.02, 0.075, 0.045]) * (1 - hue) + np.array([0.025, 0.09, 0.085]) * hue
    if kind == "round" and rng.random() < 0.2:
        leaf = np.array([0.02, 0.09, 0.17])  # autumn
    if kind == "conifer":
        _limbs(tree, bark, [(0, 0, 0, 0.5, 0.016, 0.01)])
        _tiers(tree, rng, leaf * 0.7, detail)
    elif kind == "bush":
        for k, y in enumerate(np.linspace(0.85, 0.1, 40)):
            x = rng.uniform(-1, 1) * 0.62 * (1 - 0.35 * y)
            light = (0.5 + 0.5 * k / 40) * (0.5 + 0.6 * y)
            _clump(tree, rng, (x, y * 0.9), 0.14, 70 * detail, leaf * light, 1.9 / detail**0.5, 0.4 + 0.6 * k / 40)
    elif kind == "bare":
        segments, tips = _branches(rng, 0.30, 0.022, 5)
        _limbs(tree, bark, segments)
        for x, y in tips[::2]:
            _clump(tree, rng, (x, min(y, 0.95)), 0.035, 6, leaf * 1.2, 0.6, 0.9)
    else:
        segments, tips = _branches(rng, 0.26, 0.026, 3)
        _limbs(tree, bark, segments)
        crown = [(rng.normal(0, 0.15), rng.uniform(0.36, 0.86)) for _ in range(24)]
        clumps = [tip for tip in tips if tip[1] > 0.3] + [(x * (1.15 - abs(y - 0.55) * 1.2), y) for x, y in crown]
        rng.shuffle(clumps)
        for k, (x, y) in enumerate(clumps):
            front = k / len(clumps)
            x, y = float(np.clip(x, -0.36, 0.36)), float(np.clip(y, 0.3, 0.88))
            colour = leaf * ((0.35 + 0.65 * front) * (0.55 + 0.6 * y))
            radius = rng.uniform(0.07, 0.12)
            _clump(tree, rng, (x, y), radius, 80 * detail, colour, 1 / detail**0.5, 0.5 + 0.5 * front)
    return tree


Segment = tuple[float, float, float, float, float, float]


def _branches(
    rng: np.random.Generator, length: float, radius: float, depth: int
) -> tuple[list[Segment], list[tuple[float, float]]]:
    """Segments (x0, y0, x1, y1, r0, r1) of a trunk and its branches, and where they end."""
    segments: list[Segment] = []
    tips: list[tuple[float, float]] = []

    def branch(x: float, y: float, angle: float, length: float, radius: float, depth: int) -> None:
        for _ in range(3):
            angle = 0.93 * angle + rng.normal(0, 0.11)  # up, more or less
            x1, y1 = x + float(np.sin(angle)) * length / 3, y + float(np.cos(angle)) * length / 3
            segments.append((x, y, x1, y1, radius, radius * 0.85))
            x, y, radius = x1, y1, radius * 0.85
        tips.append((x, y))
        if depth > 0:
            for side in (-1, 1, 0) if rng.random() < 0.5 else (-1, 1):
                turn = side * rng.uniform(0.35, 0.75) + rng.normal(0, 0.1)
                branch(x, y, angle + turn, length * rng.uniform(0.62, 0.8), radius * 0.72, depth - 1)

    branch(0.0, 0.0, rng.normal(0, 0.04), length, radius, depth)
    return segments, tips


def _limbs(tree: Grown, bark: Array, segments: list[Segment]) -> None:
    """Tapered bars with a light, a middle and a dark side."""
    x0, y0, x1, y1, r0, r1 = np.array(segments).T
    nx, ny = y1 - y0, x0 - x1
    norm = np.maximum(np.hypot(nx, ny), 1e-6)
    nx, ny = nx / norm, ny / norm
    for k in range(3):
        edges = [(2 * m / 3 - 1) for m in (k, k + 1)]
        corners = [
            np.stack([x + nx * edge * r, y + ny * edge * r], -1)
            for edge, (x, y, r) in zip(
                (edges[0], edges[1], edges[1], edges[0]), ((x0, y0, r0),) * 2 + ((x1, y1, r1),) * 2, strict=True
            )
        ]
        colours = np.broadcast_to(bark * (1.3, 1.0, 0.7)[k], (len(segments), 3))
        tree.add(np.stack(corners, 1), colours, np.full(len(segments), 1.1 - 0.3 * abs(k - 1)))


def _clump(
    tree: Grown,
    rng: np.random.Generator,
    centre: tuple[float, float],
    radius: float,
    count: float,
    colour: Array,
    size: float,
    front: float,
) -> None:
    """A ball of leaves, brighter on top, with some colour of its own each; lower ones lie over upper ones."""
    n = max(int(count), 1)
    angle, reach = rng.uniform(0, 2 * np.pi, n), np.sqrt(rng.random(n))
    order = np.argsort(-np.sin(angle) * reach)
    dx, dy = (np.cos(angle) * reach)[order], (np.sin(angle) * reach)[order]
    turn, long = rng.uniform(0, np.pi, n), size * rng.uniform(0.008, 0.017, n)
    c, s = np.cos(turn) * long, np.sin(turn) * long
    middle = np.stack([centre[0] + dx * radius, centre[1] + 0.8 * dy * radius], -1)
    leaves = np.einsum("kj,nji->nki", LEAF, np.stack([c, s, -s, c], -1).reshape(-1, 2, 2)) + middle[:, None]
    bright = (0.72 + 0.5 * dy) * rng.uniform(0.65, 1.35, n)
    warm = 0.5 * (1 - front) + rng.normal(0, 0.28, n) - 0.35 * (dy > 0)
    tree.add(leaves, colour * bright[:, None], warm)


def _tiers(tree: Grown, rng: np.random.Generator, colour: Array, detail: float) -> None:
    """A cone of drooping twigs, from the bottom up so that upper ones lie over lower ones; the inside is dark."""
    tree.add([[(0.0, 0.97), (0.17, 0.14), (-0.17, 0.14)]], [colour * 0.22], [0.5])
    needles = 9
    for y in np.linspace(0.10, 0.98, 30):
        half = 0.25 * (1.0 - y) ** 0.85 + 0.008
        twigs = int((6 + 22 * half / 0.25) * detail) + 1
        side = np.repeat(rng.uniform(-1, 1, twigs), needles)
        n = twigs * needles
        light = (0.45 + 0.5 * y) * (0.65 + 0.35 * (1 - np.abs(side))) * np.repeat(rng.uniform(0.6, 1.3, twigs), needles)
        high = y + np.repeat(rng.normal(0, 0.012, twigs), needles)
        start = np.stack([side * half, high], -1) + rng.normal(0, 1, (n, 2)) * (0.012, 0.006)
        angle = np.pi / 2 - 0.75 * side + rng.normal(0, 0.35, n)  # needles hang down and out
        along = np.stack([np.cos(angle), -np.sin(angle)], -1)
        out = along[:, ::-1] * (-1, 1) * 0.0028 / detail
        tip = start + along * rng.uniform(0.012, 0.032, (n, 1))
        bright = light * rng.uniform(0.6, 1.4, n)
        warm = 0.35 * (1 - np.abs(side)) + rng.normal(0, 0.3, n)
        tree.add(np.stack([start + out, start - out, tip], 1), colour * bright[:, None], warm)
