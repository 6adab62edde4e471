"""The two cameras' electronics and optics: from linear light and degrees to the numbers a driver hands over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .texture import Array

__all__ = ["KELVIN_PER_COUNT", "Thermal", "Visible"]

#: Of a 16-bit thermal frame: counts times this are kelvin ("TLinear" at high resolution in many 14-bit cameras).
KELVIN_PER_COUNT = 0.04
#: What a 14-bit converter can say at most.
MAX_COUNT = (1 << 14) - 1
ZERO_CELSIUS = 273.15


def _moved(image: Array, offset: tuple[float, float], blur: float) -> Array:
    """``image`` shifted right and down by ``offset`` pixels and blurred by a Gaussian of ``blur`` pixels."""
    if offset != (0.0, 0.0):
        matrix = np.array([[1, 0, offset[0]], [0, 1, offset[1]]], np.float64)
        size = (image.shape[1], image.shape[0])
        image = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if blur > 0:
        image = cv2.GaussianBlur(image, (0, 0), blur, borderType=cv2.BORDER_REPLICATE)
    return image


def _encoding() -> NDArray[np.float32]:
    """sRGB levels 0..255 of 4096 linear values (IEC 61966-2-1)."""
    x = np.arange(4096, dtype=np.float64) / 4095
    return (255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)).astype(np.float32)


ENCODED = _encoding()


@dataclass(frozen=True)
class Visible:
    """A colour camera.

    Attributes:
        exposure: how much of the light counts; veil: how far light spreads in lens and air, as a share.
        noise: standard deviation in grey levels (shot noise is about even after the tone curve; read noise nearly
            doubles it in the dark); offset, blur: pixels.
    """

    exposure: float
    veil: float
    noise: float
    offset: tuple[float, float]
    blur: float

    def read(self, radiance: Array, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Linear BGR ``radiance`` [H,W,3] -> uint8 BGR."""
        image = _moved(radiance, self.offset, 0.0)
        image = self._bloom(image) * (np.float32(self.exposure) * _vignette(image.shape[:2]))[..., None]
        image = _moved(image, (0.0, 0.0), self.blur)
        np.negative(image, out=image)
        np.exp(image, out=image)
        image = ENCODED[(4095.5 - 4095 * image).astype(np.uint16)]
        if self.noise > 0:
            sigma = np.float32(self.noise) * (1 + 0.8 * np.exp(image * np.float32(-1 / 40)))
            image = image + sigma * rng.standard_normal(image.shape, np.float32)
        return np.clip(np.rint(image), 0, 255).astype(np.uint8)

    def _bloom(self, image: Array) -> Array:
        """Light of bright spots spread over two scales, worked out on a smaller picture."""
        h, w = image.shape[:2]
        step = 4 if min(h, w) >= 64 else 1
        small = cv2.resize(image, (-(-w // step), -(-h // step)), interpolation=cv2.INTER_AREA)
        bright = np.minimum(np.maximum(small - 0.7 / np.float32(self.exposure), 0), 30)
        reach = max(h, w) / step
        spread = 0.6 * cv2.GaussianBlur(bright, (0, 0), max(0.006 * reach, 0.4))
        spread += 0.6 * cv2.GaussianBlur(bright, (0, 0), max(0.035 * reach, 0.6))
        return image + np.float32(self.veil) * cv2.resize(spread, (w, h), interpolation=cv2.INTER_LINEAR)


def _vignette(shape: tuple[int, int]) -> Array:
    """[H,W]: 1 in the middle, about 0.72 in the corners."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) ** 2 for n in shape)
    return 1 / (1 + np.float32(0.19) * (y[:, None] + x[None, :]))


@dataclass(frozen=True)
class Thermal:
    """A long-wave infrared camera.

    Attributes:
        bits: 8 (gain controlled, white hot) or 16 (counts of 0.04 K).
        low, high, gamma: the gain control of the scene: temperatures that become 0 and 255 and the curve between.
        noise: temporal noise (NETD) in kelvin; the fixed pattern of columns and pixels has 0.8 times that.
        pattern_seed: of the fixed pattern; offset, blur: pixels.
    """

    bits: int
    low: float
    high: float
    gamma: float
    noise: float
    pattern: Any
    offset: tuple[float, float]
    blur: float

    def read(self, heat: Array, rng: np.random.Generator) -> NDArray[Any]:
        """Degrees Celsius [H,W] -> uint8 or uint16 [H,W]."""
        heat = _moved(heat, self.offset, self.blur)
        if self.noise > 0:
            heat = heat + np.float32(self.noise) * (self.pattern + rng.standard_normal(heat.shape, np.float32))
        if self.bits == 16:
            counts = np.rint((heat + np.float32(ZERO_CELSIUS)) / np.float32(KELVIN_PER_COUNT))
            return np.clip(counts, 0, MAX_COUNT).astype(np.uint16)
        share = np.clip((heat - np.float32(self.low)) / np.float32(self.high - self.low), 0, 1)
        return np.rint(255 * np.power(share, np.float32(self.gamma))).astype(np.uint8)


def fixed_pattern(shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """What a thermal detector adds to every frame, for a temporal noise of 1: columns, rows, pixels; deviation 0.8."""
    h, w = shape
    columns, rows, pixels = (rng.standard_normal(shape, np.float32) for shape in ((1, w), (h, 1), (h, w)))
    return np.float32(0.5) * columns + np.float32(0.25) * rows + np.float32(0.57) * pixels
