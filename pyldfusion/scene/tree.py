"""Trees: grown once per scene as a few prototypes, lit where they stand, swayed by the wind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from .camera import NEAR, Camera
from .canvas import Patch
from .light import Lighting
from .plan import Climate, Tree
from .texture import Array

__all__ = ["Grown", "grow", "stand", "sway"]

SPECIES = ("round", "conifer", "bare", "bush")


@dataclass(frozen=True)
class Grown:
    """A prototype tree of height 1: the root is at the middle of the lower border.

    Attributes:
        data: [h,w,4] linear BGR reflectance and temperature over the air's; alpha: [h,w].
    """

    data: Array
    alpha: Array


def grow(species: int, seed: int, pixels: int) -> Grown:
    """Grow a tree about ``pixels`` high: branches by recursion, leaves in clumps, far side first."""
    rng = np.random.default_rng([seed, 5])
    kind = SPECIES[species % len(SPECIES)]
    fine = 2
    h = int(pixels * fine)
    w = int(h * {"round": 0.95, "conifer": 0.6, "bare": 0.85, "bush": 1.5}[kind])
    data = np.zeros((h, w, 4), np.float32)
    alpha = np.zeros((h, w), np.float32)
    bark = np.array([0.05, 0.065, 0.085]) * rng.uniform(0.7, 1.5)
    hue = rng.uniform(0, 1)
    leaf = np.array([0.02, 0.075, 0.045]) * (1 - hue) + np.array([0.025, 0.09, 0.085]) * hue
    if kind == "round" and rng.random() < 0.2:
        leaf = np.array([0.02, 0.09, 0.17])  # autumn

    def at(x: float, y: float) -> tuple[float, float]:
        return w / 2 + x * h, h * (1 - y)

    def limb(x0: float, y0: float, x1: float, y1: float, r0: float, r1: float) -> None:
        (ax, ay), (bx, by) = at(x0, y0), at(x1, y1)
        nx, ny = ay - by, bx - ax
        norm = max((nx * nx + ny * ny) ** 0.5, 1e-6)
        nx, ny = nx / norm, ny / norm
        for k in range(3):  # a light, a middle and a dark side
            lo, hi = (2 * k / 3 - 1), (2 * (k + 1) / 3 - 1)
            corners = [(ax + nx * lo * r0 * h, ay + ny * lo * r0 * h), (ax + nx * hi * r0 * h, ay + ny * hi * r0 * h),
                       (bx + nx * hi * r1 * h, by + ny * hi * r1 * h), (bx + nx * lo * r1 * h, by + ny * lo * r1 * h)]
            colour = bark * (0.7, 1.0, 1.3)[k if nx < 0 else 2 - k]
            _poly(data, alpha, corners, (*colour, 1.1 - 0.3 * abs(k - 1)))

    tips: list[tuple[float, float, float]] = []

    def branch(x: float, y: float, angle: float, length: float, radius: float, depth: int) -> None:
        steps = 3
        for _ in range(steps):
            angle += rng.normal(0, 0.12)
            x1, y1 = x + np.sin(angle) * length / steps, y + np.cos(angle) * length / steps
            limb(x, y, x1, y1, radius, radius * 0.85)
            x, y, radius = x1, y1, radius * 0.85
        tips.append((x, y, length))
        if depth > 0:
            for side in (-1, 1, 0) if rng.random() < 0.5 else (-1, 1):
                turn = side * rng.uniform(0.35, 0.75) + rng.normal(0, 0.1)
                branch(x, y, angle + turn, length * rng.uniform(0.62, 0.8), radius * 0.72, depth - 1)

    if kind == "conifer":
        limb(0, 0, 0, 0.5, 0.016, 0.01)
        _tiers(data, alpha, rng, leaf * 0.7, at, h)
    elif kind == "bush":
        for k, y in enumerate(np.linspace(0.85, 0.1, 40)):
            x = rng.uniform(-1, 1) * 0.62 * (1 - 0.35 * y)
            light = (0.5 + 0.5 * k / 40) * (0.5 + 0.6 * y)
            _clump(data, alpha, rng, at(x, y * 0.9), 0.14 * h, 70, leaf * light, h * 1.9, 0.4 + 0.6 * k / 40)
    elif kind == "bare":
        branch(0, 0, rng.normal(0, 0.05), 0.30, 0.022, 5)
        for x, y, _ in tips[::2]:
            _clump(data, alpha, rng, at(x, min(y, 0.95)), 0.035 * h, 6, leaf * 1.2, h * 0.6, 0.9)
    else:
        branch(0, 0, rng.normal(0, 0.04), 0.26, 0.026, 3)
        crown = [(float(rng.normal(0, 0.15)), float(rng.uniform(0.36, 0.86))) for _ in range(24)]
        clumps = [(x, y) for x, y, _ in tips if y > 0.3] + [
            (x * (1.15 - abs(y - 0.55) * 1.2), y) for x, y in crown
        ]
        rng.shuffle(clumps)
        for k, (x, y) in enumerate(clumps):
            front = k / len(clumps)
            x, y = float(np.clip(x, -0.36, 0.36)), float(np.clip(y, 0.3, 0.88))
            light = (0.35 + 0.65 * front) * (0.55 + 0.6 * y)
            _clump(data, alpha, rng, at(x, y), rng.uniform(0.07, 0.12) * h, 80, leaf * light, h, 0.5 + 0.5 * front)
    size = (w // fine, h // fine)
    small = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA)
    mixed = cv2.resize(data * alpha[..., None], size, interpolation=cv2.INTER_AREA)
    return Grown(mixed / np.maximum(small, 1e-4)[..., None], small)


def _poly(data: Array, alpha: Array, corners: object, value: tuple[float, ...]) -> None:
    points = np.round(np.asarray(corners, np.float64) * 16).astype(np.int32)
    cv2.fillConvexPoly(data, points, [float(v) for v in value], cv2.LINE_8, 4)
    cv2.fillConvexPoly(alpha, points, 1.0, cv2.LINE_8, 4)


LEAF = np.array([(-1, 0), (-0.3, -0.45), (0.5, -0.35), (1, 0), (0.5, 0.35), (-0.3, 0.45)])


def _polys(data: Array, alpha: Array, corners: Any, colours: Any, heats: Any) -> None:
    """Many polygons [n,k,2] with colours [n,3] and temperatures [n], one over the other."""
    points = np.round(np.asarray(corners) * 16).astype(np.int32)
    for outline, value in zip(points, np.column_stack([colours, heats]).tolist(), strict=True):
        cv2.fillConvexPoly(data, outline, value, cv2.LINE_8, 4)
        cv2.fillConvexPoly(alpha, outline, 1.0, cv2.LINE_8, 4)


def _clump(
    data: Array, alpha: Array, rng: np.random.Generator, centre: tuple[float, float], radius: float, count: int,
    colour: Array, h: float, front: float,
) -> None:
    """A ball of leaves, brighter on top, with some colour of its own each; lower ones are drawn over upper ones."""
    angle, reach = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.random(count))
    dx, dy = np.cos(angle) * reach, -np.sin(angle) * reach
    order = np.argsort(dy)
    dx, dy = dx[order], dy[order]
    turn, size = rng.uniform(0, np.pi, count), h * rng.uniform(0.008, 0.017, count)
    c, s = np.cos(turn) * size, np.sin(turn) * size
    middle = np.stack([centre[0] + dx * radius, centre[1] + 0.8 * dy * radius], -1)
    leaves = np.einsum("kj,nji->nki", LEAF, np.stack([c, s, -s, c], -1).reshape(-1, 2, 2)) + middle[:, None]
    bright = (0.72 - 0.5 * dy) * rng.uniform(0.65, 1.35, count)
    warm = 0.5 * (1 - front) + rng.normal(0, 0.28, count) - 0.35 * (dy < 0)
    _polys(data, alpha, leaves, colour * bright[:, None], warm)


def _tiers(
    data: Array, alpha: Array, rng: np.random.Generator, colour: Array,
    at: Callable[[float, float], tuple[float, float]], h: int,
) -> None:
    """A cone of drooping twigs, from the bottom up so that upper ones lie over lower ones; the inside is dark."""
    cone = [at(0.0, 0.97), at(0.17, 0.14), at(-0.17, 0.14)]
    _poly(data, alpha, cone, (*(colour * 0.22), 0.5))
    for y in np.linspace(0.10, 0.98, 30):
        half = 0.25 * (1.0 - y) ** 0.85 + 0.008
        for x in rng.uniform(-1, 1, int(6 + 22 * half / 0.25)) * half:
            side = x / half
            cx, cy = at(float(x), float(y + rng.normal(0, 0.012)))
            light = (0.45 + 0.5 * y) * (0.65 + 0.35 * (1 - abs(side))) * rng.uniform(0.6, 1.3)
            n = 9  # needles hang down and out
            angle = np.pi / 2 - 0.75 * side + rng.normal(0, 0.35, n)
            start = np.array([cx, cy]) + rng.normal(0, 1, (n, 2)) * (0.012 * h, 0.006 * h)
            along = np.stack([np.cos(angle), np.sin(angle)], -1)
            out = along[:, ::-1] * (-1, 1) * h * 0.0028
            tip = start + along * h * rng.uniform(0.012, 0.032, (n, 1))
            bright = light * rng.uniform(0.6, 1.4, (n, 1))
            warm = 0.35 * (1 - abs(side)) + rng.normal(0, 0.3, n)
            _polys(data, alpha, np.stack([start + out, start - out, tip], 1), colour * bright, warm)


def stand(camera: Camera, tree: Tree, grown: Grown, climate: Climate, lighting: Lighting) -> Patch | None:
    """``grown`` as it stands at ``tree``, lit, at the view's resolution; None if it is out of view."""
    if tree.z < NEAR * 2:
        return None
    scale = camera.focal / tree.z
    h = max(round(tree.height * scale), 2)
    w = max(round(h * grown.alpha.shape[1] / grown.alpha.shape[0]), 2)
    u, v = camera.project(tree.x, 0.0, tree.z)
    x0, y0 = round(u - w / 2), round(v - h)
    if x0 >= camera.width or x0 + w <= 0 or y0 >= camera.height or v <= 0:
        return None
    shrink = h < grown.alpha.shape[0]
    mode = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    alpha = cv2.resize(grown.alpha, (w, h), interpolation=mode)
    data = cv2.resize(grown.data * grown.alpha[..., None], (w, h), interpolation=mode)
    data = data / np.maximum(alpha, 1e-3)[..., None]
    left, right = max(0, -x0 - 8), min(w, camera.width - x0 + 8)  # what is out of view needs no light
    top, bottom = max(0, -y0 - 8), min(h, camera.height - y0 + 8)
    data, alpha = np.ascontiguousarray(data[top:bottom, left:right]), alpha[top:bottom, left:right]

    across = (np.arange(left, right, dtype=np.float32) + 0.5) / w * 2 - 1
    up = 1 - (np.arange(top, bottom, dtype=np.float32) + 0.5) / h
    nx = np.broadcast_to(0.75 * across, alpha.shape)
    ny = np.broadcast_to(np.clip(1.6 * (up - 0.55), -0.5, 0.8)[:, None], alpha.shape)
    nz = -np.sqrt(np.clip(1 - nx**2 - ny**2, 0.05, 1))
    x = tree.x + nx * tree.height * 0.3
    y = np.broadcast_to((up * tree.height)[:, None], alpha.shape)
    light = lighting.on(x, y, np.full_like(x, tree.z), nx, ny, nz)
    data[..., :3] *= light * np.float32(1.15)
    data[..., 3] += np.float32(climate.air) + 0.03 * np.float32(climate.sky) * np.clip(ny, 0, 1)
    return Patch(x0 + left, y0 + top, data, np.ascontiguousarray(alpha))


def sway(patch: Patch, height: int, root: int, t: float, seed: int) -> Patch:
    """``patch`` bent by the wind at time ``t``: the top moves most, and gusts run through the leaves.

    ``height`` and ``root`` are the tree's height and its root's row in pixels, which the patch may not show.
    """
    h, w = patch.alpha.shape
    phase = seed % 628 / 100
    up = np.clip((root - patch.y0 - np.arange(h, dtype=np.float32)) / max(height, 1), 0, 1)[:, None]
    across = np.arange(w, dtype=np.float32)[None, :] / max(height, 1)
    bend = 0.010 * height * np.sin(0.9 * t + phase) * (0.7 + 0.3 * np.sin(0.23 * t + phase))
    gust = 0.0035 * height
    dx = bend * up**1.6 + gust * up * np.sin(2.3 * t + 9 * across + 14 * up + phase)
    dy = 0.5 * gust * up * np.sin(2.9 * t + 13 * across - 9 * up + phase)
    map_x = (np.arange(w, dtype=np.float32)[None, :] - dx).astype(np.float32)
    map_y = (np.arange(h, dtype=np.float32)[:, None] - dy).astype(np.float32)
    alpha = cv2.remap(patch.alpha, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    data = cv2.remap(patch.data, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return replace(patch, data=data, alpha=alpha)
