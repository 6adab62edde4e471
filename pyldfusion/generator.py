"""The fusion network G of LDFusion, the only definition of it.

Source: Wang et al., "LDFusion" (ACM MM 2025, doi 10.1145/3746027.3755182), Sec. 3, and the shapes of the weights
its authors publish; the ``lite`` variant follows the same author's LD-Lite (LDFusion pruned by half).

Two branches of the same shape and with separate weights look at the visible and at the infrared plane. Each has a
content encoder (what is where) and, in ``full``, a style encoder (how it looks as a whole). Two residual blocks fuse
the concatenated content under the style's control (AdaIN); a decoder brings it back to one plane.

The network's quirks are kept, because published weights need them: convolutions pad by reflection but the stride-2
ones pad with zeros; the decoder overshoots to ``8*floor(H/8)+21`` and is cropped at the top left; its LayerNorm
divides by an *unbiased* standard deviation with eps outside the root.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import torch_ops
from .artefact import Artefact, open_artefact
from .errors import ArtefactError, InputError
from .image import MIN_SIDE
from .smoothing import smoothed_codes, smoothed_mean, smoothed_moments, smoothed_norm, smoothing

__all__ = ["VARIANTS", "Generator", "Variant", "load_generator"]

NORM_EPS = 1e-5


@dataclass(frozen=True)
class Variant:
    """What distinguishes one shape of the network from another.

    Attributes:
        widths: channels of the content encoder at full, 1/2, 1/4 and 1/8 resolution; the decoder goes the same way
            back from ``2 * widths[3]``.
        style: whether there are style encoders and AdaIN blocks between encoder and decoder.
        output: squashing of the last convolution, ``"tanh"`` (clamped to [0, 1] afterwards) or ``"sigmoid"``.
    """

    widths: tuple[int, int, int, int]
    style: bool
    output: str


#: ``full`` is LDFusion (5.77 M parameters), ``lite`` is LD-Lite (0.65 M).
VARIANTS = {
    "full": Variant(widths=(16, 32, 64, 128), style=True, output="tanh"),
    "lite": Variant(widths=(8, 16, 32, 64), style=False, output="sigmoid"),
}


# The norms, with what comes after them, go to the custom operators of torch_ops.py where it wants them (on CUDA).


def instance_norm(x: Tensor, *, relu: bool = False, residual: Tensor | None = None) -> Tensor:
    """Zero mean and unit biased variance per plane of ``x`` [N,C,H,W]; then ReLU, or ``residual`` added."""
    if (normed := smoothed_norm(x, NORM_EPS)) is not None:
        return _then(normed, relu, residual)
    if torch_ops.wants(x):
        return torch_ops.adain(x, eps=NORM_EPS, relu=relu, residual=residual)
    normed = F.instance_norm(x, eps=NORM_EPS)
    if normed.requires_grad:
        # torch 2.13 on the CPU: of one picture, a gradient in channels_last order is read as if it were contiguous
        normed.register_hook(Tensor.contiguous)
    return _then(normed, relu, residual)


def adain(x: Tensor, weight: Tensor, bias: Tensor, *, relu: bool = False, residual: Tensor | None = None) -> Tensor:
    """Adaptive instance norm (Huang & Belongie 2017): ``instance_norm(x) * weight + bias``.

    ``x`` [N,C,H,W], ``weight`` and ``bias`` [N,C]; then ReLU, or plus ``residual``. Written as an instance norm and an
    affine map; as a batch norm in training mode it would not survive an ONNX export.
    """
    if torch_ops.wants(x) and not smoothing():
        return torch_ops.adain(x, weight, bias, eps=NORM_EPS, relu=relu, residual=residual)
    return _then(instance_norm(x) * weight[:, :, None, None] + bias[:, :, None, None], relu, residual)


def centred(x: Tensor) -> Tensor:
    """Planes [N,1,H,W] less their means; exactly 0 where a plane is flat.

    The first norm removes the mean anyway. To remove it before spares runtimes that compute variances in one pass or in
    16 bits their rounding. And of a flat plane, a covered lens, nothing may be left: each norm would raise it 316-fold,
    until it looked like a picture, and its gradient with it. So a pixel is taken off first, which leaves zeros, whose
    mean has no rounding.
    """
    pixel = x[:, :, :1, :1]
    x = x - pixel
    mean = x.mean((2, 3), keepdim=True)
    return x - (smoothed_mean(pixel + mean) - pixel if smoothing() else mean)


def _then(x: Tensor, relu: bool, residual: Tensor | None) -> Tensor:
    if relu:
        return F.relu(x)
    return x if residual is None else residual + x


class SampleNorm(nn.Module):
    """The decoder's LayerNorm, then ReLU: mean and unbiased std over C,H,W per sample, gamma and beta per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        if torch_ops.wants(x) and not smoothing():
            return torch_ops.sample_norm(x, self.gamma, self.beta, eps=NORM_EPS, relu=True)
        dtype = x.dtype
        if x.dtype in (torch.float16, torch.bfloat16):
            x = x.float()  # squares of 16-bit numbers overflow, and their mean has too few digits
        mean = x.mean((1, 2, 3), keepdim=True)
        centred = x - mean
        count = x.shape[1] * x.shape[2] * x.shape[3]
        # spelt out rather than Tensor.std: the mean is taken once, also in exported graphs
        variance = (centred * centred).mean((1, 2, 3), keepdim=True)
        centred, variance = smoothed_moments(x, mean, centred, variance)
        std = (variance * (count / (count - 1))).sqrt()
        normed = centred / (std + NORM_EPS) * self.gamma[:, None, None] + self.beta[:, None, None]
        return F.relu(normed if normed.dtype == dtype else normed.to(dtype))


def reflect_conv(in_channels: int, out_channels: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, padding_mode="reflect")


class ResidualBlock(nn.Module):
    """conv 3x3, norm, ReLU, conv 3x3, norm, plus the input; the norm is AdaIN where a style is given."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = reflect_conv(channels, channels, 3)
        self.conv2 = reflect_conv(channels, channels, 3)

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """``x`` [N,C,H,W]; ``style`` [N,4C]: bias and weight of the first AdaIN, then of the second."""
        if style is None:
            return instance_norm(self.conv2(instance_norm(self.conv1(x), relu=True)), residual=x)
        bias1, weight1, bias2, weight2 = style.chunk(4, 1)
        hidden = adain(self.conv1(x), weight1, bias1, relu=True)
        return adain(self.conv2(hidden), weight2, bias2, residual=x)


class ContentEncoder(nn.Module):
    """[N,1,H,W] -> [N,C,H//8,W//8]: where things are, without overall brightness and contrast (instance norms)."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.stem = reflect_conv(1, widths[0], 7)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in itertools.pairwise(widths))
        self.blocks = nn.ModuleList(ResidualBlock(widths[-1]) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = instance_norm(self.stem(centred(x)), relu=True)
        for conv in self.down:
            x = instance_norm(conv(x), relu=True)
        for block in self.blocks:
            x = block(x)
        return x


class StyleEncoder(nn.Module):
    """[N,1,H,W] -> [N,8]: how the picture looks as a whole."""

    CODES = 8

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.stem = reflect_conv(1, widths[0], 7)
        channels = (*widths[:3], widths[2])  # the last stage does not widen
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in itertools.pairwise(channels))
        self.head = nn.Conv2d(channels[-1], self.CODES, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for conv in self.down:
            x = F.relu(conv(x))
        return self.head(x.mean((2, 3), keepdim=True)).squeeze((2, 3))


class StyleFusion(nn.Module):
    """Style codes of both sources -> the weights and biases of the four AdaINs that steer two residual blocks."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = 256
        self.mlp = nn.ModuleList(
            [nn.Linear(2 * StyleEncoder.CODES, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 8 * channels)]
        )
        self.blocks = nn.ModuleList(ResidualBlock(channels) for _ in range(2))

    def forward(self, content: Tensor, codes: Tensor) -> Tensor:
        """``content`` [N,C,h,w], ``codes`` [N,16] -> [N,C,h,w]."""
        hidden = F.relu(self.mlp[1](F.relu(self.mlp[0](codes))))
        for block, style in zip(self.blocks, self.mlp[2](hidden).chunk(2, 1), strict=True):
            content = block(content, style)
        return content


class Decoder(nn.Module):
    """[N,C,h,w] -> [N,1,8h+21,8w+21], before the squashing."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        channels = (2 * widths[3], *reversed(widths[1:]))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 5, 2) for a, b in itertools.pairwise(channels))
        self.norm = nn.ModuleList(SampleNorm(c) for c in channels[1:])
        self.out: nn.Module = reflect_conv(channels[-1], 1, 7)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.up, self.norm, strict=True):
            x = norm(conv(x))
        return self.out(x)


class Crop(nn.Module):
    """The top left of ``x`` [N,C,...], as high and wide as ``like`` [N,C,H,W]."""

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        return x[:, :, : like.shape[2], : like.shape[3]]


class Generator(nn.Module):
    """The fusion network.

    Args:
        variant: ``"full"``, ``"lite"`` or a :class:`Variant`.

    Raises:
        InputError: an unknown variant.

    Example:
        >>> fused = Generator("lite")(ir, vis)  # three planes [N,1,H,W]
    """

    def __init__(self, variant: str | Variant = "full") -> None:
        super().__init__()
        if isinstance(variant, str) and variant not in VARIANTS:
            raise InputError(f"unknown network variant {variant!r}; known: {', '.join(VARIANTS)}")
        self.variant = variant if isinstance(variant, str) else "custom"
        self.shape = VARIANTS[variant] if isinstance(variant, str) else variant
        widths = self.shape.widths
        self.content_vis = ContentEncoder(widths)
        self.content_ir = ContentEncoder(widths)
        if self.shape.style:
            self.style_vis = StyleEncoder(widths)
            self.style_ir = StyleEncoder(widths)
            self.fusion = StyleFusion(2 * widths[3])
        self.decoder = Decoder(widths)
        self.crop: nn.Module = Crop()

    def forward(self, ir: Tensor, vis: Tensor) -> Tensor:
        """Fuse two planes.

        Args:
            ir: infrared, [N,1,H,W] float in [0, 1].
            vis: luma of the visible picture, the same shape and range.

        Returns:
            The fused luma, [N,1,H,W] in [0, 1].

        Raises:
            InputError: shapes that differ, are not [N,1,H,W] or are under 16 pixels a side.
        """
        if not torch.compiler.is_compiling() and not torch.jit.is_tracing():
            self._check(ir, vis)
        # (vis, ir) inside: the order of the published weights.
        x = torch.cat((self.content_vis(vis), self.content_ir(ir)), 1)
        if self.shape.style:
            x = self.fusion(x, smoothed_codes(torch.cat((self.style_vis(vis), self.style_ir(ir)), 1)))
        x = self.crop(self.decoder(x), vis)
        return torch.sigmoid(x) if self.shape.output == "sigmoid" else torch.tanh(x).clamp(min=0)

    @staticmethod
    def _check(ir: Tensor, vis: Tensor) -> None:
        for name, x in (("ir", ir), ("vis", vis)):
            if x.ndim != 4 or x.shape[1] != 1 or min(x.shape[2:]) < MIN_SIDE:
                raise InputError(
                    f"{name} has shape {tuple(x.shape)}; expected [N,1,H,W] with H and W of at least {MIN_SIDE}"
                )
        if ir.shape != vis.shape:
            raise InputError(f"ir {tuple(ir.shape)} and vis {tuple(vis.shape)} must have one shape")


def load_generator(source: Artefact | str | Path) -> Generator:
    """The network with the weights of a file, float32, in evaluation mode.

    Args:
        source: ``.safetensors`` or an exported ``.onnx``, ``"full"`` or ``"lite"`` for the bundled ones, or an
            :class:`~pyldfusion.artefact.Artefact`.

    Raises:
        ArtefactError: not a file of this network; says which tensors are missing, unknown or of a wrong shape.
    """
    artefact = source if isinstance(source, Artefact) else open_artefact(source)
    if artefact.kind == "method":
        raise ArtefactError(f"{artefact.path} has no network; expected {', '.join(VARIANTS)}, or a file of one")
    if artefact.variant not in VARIANTS:
        raise ArtefactError(
            f"{artefact.path} does not say which network it holds (variant: {artefact.variant!r}, expected one of "
            f"{', '.join(VARIANTS)}); the authors' files become ours with `pyldfusion import-weights`"
        )
    generator = Generator(artefact.variant)
    state, expected = artefact.state_dict(), generator.state_dict()
    wrong = sorted(
        [f"{name} is missing" for name in expected.keys() - state.keys()]
        + [f"{name} is unknown" for name in state.keys() - expected.keys()]
        + [
            f"{name} has shape {state[name].shape}, expected {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in state and state[name].shape != tuple(tensor.shape)
        ]
    )
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ArtefactError(f"{artefact.path} is not a {artefact.variant} network: {'; '.join(wrong[:3])}{more}")
    generator.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in state.items()})
    return generator.eval()
