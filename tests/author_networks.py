"""The authors' networks as independent references: written from the published shapes, layer by layer and by index.

Kept apart from ``pyldfusion.generator`` on purpose: another structure (flat ``nn.Sequential``, module padding, AdaIN as
a batch norm), the authors' names, the same function.
"""

from __future__ import annotations

import itertools
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn


class ResBlock(nn.Module):
    def __init__(self, width: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), norm(width), nn.ReLU(),
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), norm(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class AdaIN(nn.Module):
    """A batch norm over N*C "channels" in training mode: weight and bias are set from outside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        n, c = x.shape[:2]
        flat = x.reshape(1, n * c, *x.shape[2:])
        out = nn.functional.batch_norm(flat, None, None, self.weight, self.bias, True, 0.1, 1e-5)
        return out.view_as(x)


class LayerNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))
        self.beta = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        mean = x.reshape(n, -1).mean(1).view(n, 1, 1, 1)
        std = x.reshape(n, -1).std(1).view(n, 1, 1, 1)
        return (x - mean) / (std + 1e-5) * self.gamma.view(1, -1, 1, 1) + self.beta.view(1, -1, 1, 1)


def content_encoder(widths: list[int]) -> nn.Module:
    layers: list[nn.Module] = [
        nn.ReflectionPad2d(3),
        nn.Conv2d(1, widths[0], 7),
        nn.InstanceNorm2d(widths[0]),
        nn.ReLU(),
    ]
    for a, b in itertools.pairwise(widths):
        layers += [nn.Conv2d(a, b, 4, 2, 1), nn.InstanceNorm2d(b), nn.ReLU()]
    layers += [ResBlock(widths[-1], nn.InstanceNorm2d), ResBlock(widths[-1], nn.InstanceNorm2d)]
    return Wrapped(layers)


class Wrapped(nn.Module):
    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def style_encoder() -> nn.Module:
    layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(1, 16, 7), nn.ReLU()]
    for a, b in ((16, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(a, b, 4, 2, 1), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Conv2d(64, 8, 1)]
    return Wrapped(layers)


def up_layers(widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.ConvTranspose2d(a, b, 5, 2), LayerNorm(b), nn.ReLU()]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(widths[-1], 1, 7))


class LDFusion(nn.Module):
    """Both of the authors' files at once: the names of Enc_final.pt and Dec_final.pt do not collide."""

    def __init__(self) -> None:
        super().__init__()
        widths = [16, 32, 64, 128]
        self.content_encoder1, self.content_encoder2 = content_encoder(widths), content_encoder(widths)
        self.style_encoder1, self.style_encoder2 = style_encoder(), style_encoder()
        self.model_local = nn.Sequential(ResBlock(256, AdaIN), ResBlock(256, AdaIN))
        self.model_up = up_layers([256, 128, 64, 32])
        self.mlp = Wrapped([nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 2048)])

    def forward(self, ir: Tensor, vis: Tensor) -> Tensor:
        n = vis.shape[0]
        style = self.mlp(torch.cat((self.style_encoder1(vis), self.style_encoder2(ir)), 1).view(n, 16))
        at = 0
        for module in self.model_local.modules():
            if isinstance(module, AdaIN):
                module.bias = style[:, at : at + 256].reshape(-1)
                module.weight = style[:, at + 256 : at + 512].reshape(-1)
                at += 512
        x = self.model_local(torch.cat((self.content_encoder1(vis), self.content_encoder2(ir)), 1))
        out = torch.tanh(self.model_up(x)).clamp(0, 1)
        return out[:, :, : vis.shape[2], : vis.shape[3]]


class LDLite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = [8, 16, 32, 64]
        self.encoder = nn.Module()
        self.encoder.content_encoder1 = content_encoder(widths)
        self.encoder.content_encoder2 = content_encoder(widths)
        self.decoder = nn.Module()
        self.decoder.model_up = up_layers([128, 64, 32, 16])

    def forward(self, ir: Tensor, vis: Tensor) -> Tensor:
        x = torch.cat((self.encoder.content_encoder1(vis), self.encoder.content_encoder2(ir)), 1)
        out = torch.sigmoid(self.decoder.model_up(x)).clamp(0, 1)
        return out[:, :, : vis.shape[2], : vis.shape[3]]


def fill(network: nn.Module, seed: int = 1) -> nn.Module:
    """Seeded weights that keep the output off its limits; the rule of the reference fixtures."""
    state = {}
    for name, tensor in network.state_dict().items():
        rng, shape = np.random.default_rng([seed, crc32(name.encode())]), tuple(tensor.shape)
        if name.endswith(("running_mean", "running_var")):
            values = np.full(shape, float(name.endswith("var")))
        elif name.endswith("gamma"):
            values = rng.uniform(0.5, 1.5, shape)
        elif name.endswith(("beta", "bias")):
            values = 0.1 * rng.standard_normal(shape)
        else:
            values = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        if name.endswith("model_up.10.weight"):
            values = 0.3 * values
        elif name.endswith("model_up.10.bias"):
            values = values + 0.4
        state[name] = torch.from_numpy(values.astype(np.float32))
    network.load_state_dict(state)
    return network.eval()


def save_author_files(network: nn.Module, folder) -> list:
    """Write the network's weights as its authors publish them; returns the paths."""
    state = network.state_dict()
    if isinstance(network, LDLite):
        torch.save(state, folder / "final.pt")
        return [folder / "final.pt"]
    encoder = {k: v for k, v in state.items() if k.startswith(("content", "style"))}
    torch.save(encoder, folder / "Enc_final.pt")
    torch.save({k: v for k, v in state.items() if k not in encoder}, folder / "Dec_final.pt")
    return [folder / "Enc_final.pt", folder / "Dec_final.pt"]
