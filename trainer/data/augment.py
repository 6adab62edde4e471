"""What other cameras would have made of a scene: changes of appearance, and flaws that the network should overlook."""

from __future__ import annotations

import cv2
import numpy as np

from ..config import AugmentConfig

__all__ = ["appearance", "degrade", "paste"]


def appearance(plane: np.ndarray, random: np.random.Generator, config: AugmentConfig) -> np.ndarray:
    """Gamma, uneven light, lack of focus, the local equalisation of some thermal cameras.

    float32 [H,W] in [0, 1] in and out. The target is made from the result: these are other pictures of the scene, not
    worse ones.
    """
    if random.random() < config.gamma:
        plane = plane ** np.float32(np.exp(random.uniform(-1, 1) * config.gamma_range))
    if random.random() < config.shade:
        light = cv2.resize(random.uniform(0.3, 1.5, (3, 3)).astype(np.float32), plane.shape[::-1])
        plane = np.clip(plane * light, 0, 1)
    if random.random() < config.soft:
        # The instance norms raise what little fine detail an unsharp picture has, noise above all.
        plane = cv2.GaussianBlur(plane, (0, 0), random.uniform(0.5, 2))
    if random.random() < config.equalise:
        clahe = cv2.createCLAHE(random.uniform(1, 3), (4, 4))
        plane = clahe.apply(np.rint(plane * 255).astype(np.uint8)).astype(np.float32) / 255
    return plane


def degrade(
    plane: np.ndarray, random: np.random.Generator, config: AugmentConfig
) -> tuple[np.ndarray, np.ndarray | None]:
    """Contrast, blur, noise, JPEG, quantisation; float32 [H,W] in [0, 1] in and out.

    Returns the worse picture, and what the target should be made from instead of the clean one where nothing of it
    is left (a constant), else None.
    """
    flat = None
    if random.random() < config.useless:
        plane = flat = np.full_like(plane, random.uniform(0.02, 0.9))
    elif random.random() < config.contrast:
        # An instance norm undoes the change of contrast but not what the noise below then amounts to.
        factor = config.least_contrast ** random.random()
        plane = plane * factor + random.uniform(0, 1 - factor)
    if random.random() < config.blur:
        plane = cv2.GaussianBlur(plane, (0, 0), random.uniform(0.3, 0.8))
    if random.random() < config.noise:
        plane = plane + _noise(plane.shape, random, config.noise_range)
    seen = np.rint(np.clip(plane, 0, 1) * 255).astype(np.uint8)
    if random.random() < config.jpeg:
        done, code = cv2.imencode(".jpg", seen, (cv2.IMWRITE_JPEG_QUALITY, int(random.integers(40, 96))))
        seen = cv2.imdecode(code, cv2.IMREAD_GRAYSCALE) if done else seen
    return seen.astype(np.float32) / 255, flat


def paste(ir: np.ndarray, vis: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One to three flat polygons, each in one source or in both: saturated skies, walls, hot or cold bodies."""
    height, width = ir.shape
    for _ in range(random.integers(1, 4)):
        centre = random.uniform(0, 1, 2) * (width, height)
        corners = centre + random.uniform(-0.4, 0.4, (random.integers(3, 7), 2)) * random.uniform(0.2, 1.5) * height
        mask = np.zeros_like(ir)
        cv2.fillPoly(mask, [np.int32(cv2.convexHull(np.float32(corners)))], 1.0)
        mask = cv2.GaussianBlur(mask, (0, 0), random.uniform(0.5, 2)) * np.float32(random.uniform(0.6, 1))
        where = random.integers(1, 4)  # 1: infrared, 2: visible, 3: both
        if where & 1:
            ir = ir * (1 - mask) + mask * np.float32(random.beta(0.5, 0.5))  # mostly nearly black or white
        if where & 2:
            vis = vis * (1 - mask) + mask * np.float32(random.beta(0.5, 0.5))
    return ir, vis


def _noise(shape: tuple[int, ...], random: np.random.Generator, most: float) -> np.ndarray:
    """Sensor noise: white, sometimes grainy (as after a camera's own filter), sometimes in columns."""
    strength = most * random.random() ** 1.5 * (3 if random.random() < 0.15 else 1)
    noise = random.standard_normal(shape, np.float32)
    kind = random.random()
    if kind < 0.4:
        noise = cv2.GaussianBlur(noise, (0, 0), random.uniform(0.5, 1.4), sigmaY=random.uniform(0.4, 1.0))
        noise /= noise.std() + 1e-6
    elif kind < 0.5:
        noise = noise * 0.7 + random.standard_normal((1, shape[1]), np.float32) * 0.7
    return noise * np.float32(strength)
