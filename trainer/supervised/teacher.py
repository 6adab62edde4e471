"""The classical fusion that the bundled weights imitate: a Laplacian pyramid that knows noise from detail.

It is tuned to look like the pictures the authors of LDFusion published: crisp detail of both sources, hot things
bright, a wide contrast, flat surfaces flat. Four ideas:

1. Both sources are standardised (mean 0, deviation 1). The network's content encoders begin with instance norms and
   cannot see absolute levels; the target must not depend on what the pupil cannot see.
2. At each scale the source with the larger *local* activity gives the coefficient, softly: deciding for each pixel on
   its own would pick the noise peaks of both.
3. The gain of a coefficient follows its activity: below the noise floor it is damped, above it is raised, and strong
   edges keep their size (a raised strong edge is a halo).
4. The base is the sources' mean, lifted towards the infrared where that is hot, pixel by pixel and so without halos.

Everything is batched torch on [N,1,H,W] and cheap next to a training step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["TeacherConfig", "pyramid_fusion", "teach"]

#: Binomial kernel of Burt & Adelson's pyramid (1983).
BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


@dataclass(frozen=True)
class TeacherConfig:
    """What the teacher's picture looks like; amplitudes are in deviations of a source."""

    levels: int = 4
    gain: float = 1.7
    #: gain of the two coarsest levels: raised coarse levels look like halos.
    coarse_gain: float = 1.4
    #: activity, in noise floors, at which a coefficient is neither noise nor detail.
    coring: float = 3.5
    #: what is left of a coefficient deep in the noise.
    floor_gain: float = 0.3
    #: the noise floor is taken to be at least this: JPEG blocks and quantisation of a quiet picture.
    least_noise: float = 0.015
    #: the same in units of the picture's own range [0, 1]: video coding leaves steps of a grey level or two.
    coding_noise: float = 0.0035
    #: a source of less contrast than this (of [0, 1]) is not raised to the contrast of the other.
    least_contrast: float = 0.025
    #: activity above which the gain returns to 1.
    strong: float = 1.2
    #: sharpness of the choice between the sources.
    choice: float = 4.0
    #: the same for the two coarsest levels: where the sources disagree in sign there, a hard choice against a base that
    #: is their mean leaves a halo.
    coarse_choice: float = 1.0
    #: infrared level above which things count as hot, and how far the base follows them.
    hot: float = 1.2
    hot_lift: float = 0.4
    #: mean and deviation of the finished picture, and where its highlights and shadows start to bend.
    mean: float = 0.47
    deviation: float = 0.25
    knee: float = 0.37


def _blur(x: Tensor) -> Tensor:
    """Binomial 5x5, reflecting at the borders."""
    k = torch.tensor(BINOMIAL, dtype=x.dtype, device=x.device)
    x = F.conv2d(F.pad(x, (2, 2, 0, 0), mode="reflect"), k.view(1, 1, 1, 5))
    return F.conv2d(F.pad(x, (0, 0, 2, 2), mode="reflect"), k.view(1, 1, 5, 1))


def _down(x: Tensor) -> Tensor:
    return _blur(x)[:, :, ::2, ::2]


def _up(x: Tensor, size: torch.Size) -> Tensor:
    """Twice as large, to exactly ``size``; sample k of ``x`` lies at pixel 2k, as :func:`_down` left it."""
    n, c, h, w = x.shape
    height, width = size[-2:]
    # Linear interpolation between pixels 2k, then a [1 2 1] smoothing: the binomial expansion without its zeros.
    x = F.pad(x, (0, 1, 0, 1), mode="replicate")
    y = x.new_empty(n, c, h + 1, 2 * w)
    y[..., 0::2] = x[..., :-1] * 0.75 + (torch.cat((x[..., 1:2], x[..., :-2]), -1) + x[..., 1:]) * 0.125
    y[..., 1::2] = (x[..., :-1] + x[..., 1:]) * 0.5
    z = x.new_empty(n, c, 2 * h, 2 * w)
    z[..., 0::2, :] = y[..., :-1, :] * 0.75 + (torch.cat((y[..., 1:2, :], y[..., :-2, :]), -2) + y[..., 1:, :]) * 0.125
    z[..., 1::2, :] = (y[..., :-1, :] + y[..., 1:, :]) * 0.5
    return z[..., :height, :width]


def laplacian_pyramid(x: Tensor, levels: int) -> tuple[list[Tensor], Tensor]:
    """``x`` [N,1,H,W] -> band-pass levels, finest first, and the base; ends early where 3 pixels a side are reached."""
    bands = []
    for _ in range(levels):
        if min(x.shape[-2:]) < 6:
            break
        small = _down(x)
        bands.append(x - _up(small, x.shape))
        x = small
    return bands, x


def collapse(bands: list[Tensor], base: Tensor) -> Tensor:
    """The inverse of :func:`laplacian_pyramid`."""
    for band in reversed(bands):
        base = _up(base, band.shape) + band
    return base


def pyramid_fusion(ir: Tensor, vis: Tensor, levels: int = 4) -> Tensor:
    """The plain Laplacian-pyramid fusion others are measured against: larger coefficient, mean base, clamped."""
    bands_ir, base_ir = laplacian_pyramid(ir, levels)
    bands_vis, base_vis = laplacian_pyramid(vis, levels)
    bands = [torch.where(a.abs() > b.abs(), a, b) for a, b in zip(bands_ir, bands_vis, strict=True)]
    return collapse(bands, (base_ir + base_vis) / 2).clamp(0, 1)


def standardise(x: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Mean 0 and deviation 1 per picture, less where the deviation is near ``least`` or under it.

    Returns the picture and what it was divided by, [N,1,1,1].
    """
    x = x - x.mean((2, 3), keepdim=True)
    scale = (x.square().mean((2, 3), keepdim=True) + least * least).sqrt()
    return x / scale, scale


def _activity(band: Tensor) -> Tensor:
    """Local root mean square of a band, 5x5."""
    return _blur(band.square()).clamp(min=0).sqrt()


def _noise_floor(activity: Tensor) -> Tensor:
    """[N,1,1,1]: activity of the quietest fifth of the picture. Some part of nearly every picture is flat."""
    return activity.flatten(1).quantile(0.2, 1)[:, None, None, None]


def _gain(activity: Tensor, noise: Tensor, gain: float, config: TeacherConfig) -> Tensor:
    ratio = (activity / (config.coring * noise)).square()
    kept = config.floor_gain + (1 - config.floor_gain) * ratio / (1 + ratio)
    raised = 1 + (gain - 1) / (1 + (activity / config.strong).square())
    return kept * raised


def teach(ir: Tensor, vis: Tensor, config: TeacherConfig | None = None) -> Tensor:
    """The picture to imitate.

    Args:
        ir: infrared, [N,1,H,W] float in [0, 1].
        vis: visible luma, the same shape.
        config: the look.

    Returns:
        [N,1,H,W] in [0, 1].
    """
    c = config or TeacherConfig()
    ir, scale_ir = standardise(ir, c.least_contrast)
    vis, scale_vis = standardise(vis, c.least_contrast)
    # The base: the mean, and where the infrared is hot and brighter than it, towards the infrared.
    mean = (ir + vis) / 2
    hot = torch.sigmoid((ir - c.hot) * 4)
    lifted = mean + c.hot_lift * hot * F.relu(ir - mean)
    bands_ir, _ = laplacian_pyramid(ir, c.levels)
    bands_vis, _ = laplacian_pyramid(vis, c.levels)
    _, base = laplacian_pyramid(lifted, c.levels)
    bands = []
    for level, (a, b) in enumerate(zip(bands_ir, bands_vis, strict=True)):
        coarse = level >= len(bands_ir) - 2
        gain, choice = (c.coarse_gain, c.coarse_choice) if coarse else (c.gain, c.choice)
        act_a, act_b = _activity(a), _activity(b)
        noise_a = _noise_floor(act_a).clamp(min=c.least_noise).maximum(c.coding_noise / scale_ir)
        noise_b = _noise_floor(act_b).clamp(min=c.least_noise).maximum(c.coding_noise / scale_vis)
        # What is noise in one source must not win over quiet detail of the other.
        clear_a, clear_b = F.relu(act_a - noise_a) + 1e-4, F.relu(act_b - noise_b) + 1e-4
        share = torch.sigmoid(choice * (clear_a / clear_b).log())
        bands.append(share * a * _gain(act_a, noise_a, gain, c) + (1 - share) * b * _gain(act_b, noise_b, gain, c))
    return tone(collapse(bands, base), c)


def tone(x: Tensor, config: TeacherConfig) -> Tensor:
    """Set mean and deviation; bend highlights and shadows smoothly into [0, 1] instead of clipping them."""
    x = standardise(x, 0.2)[0] * config.deviation
    knee = config.knee
    for side in (1, -1):
        room = (1 - config.mean if side > 0 else config.mean) - knee
        room = max(room, 0.02)
        over = F.relu(side * x - knee)
        x = x - side * (over - room * torch.tanh(over / room))
    return (x + config.mean).clamp(0, 1)
