"""The whole loss written plainly from the equations in float64, and the judges that it and the trainer share."""

from __future__ import annotations

import copy
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402

from trainer.config import ClipConfig, Config, LossConfig, PatchConfig, RunConfig  # noqa: E402
from trainer.objective import Batch  # noqa: E402
from trainer.patches import draw_patches  # noqa: E402
from trainer.towers.clip import Clip, ImageTower  # noqa: E402
from trainer.towers.open_clip_model import load_open_clip  # noqa: E402
from trainer.towers.vgg import FidelityTower  # noqa: E402

from .small_towers import need_open_clip  # noqa: E402

SIZE = 32
SENTENCES = {
    "objective": "a clear image with detailed background and salient objects",
    "infrared": "an infrared image",
    "visible": "a visible gray image",
    "scene/b": "a car at night",
    "c": "people in a park",
}
#: sigma lies among the patches' entropies, so that some count and some do not
PATCHES = PatchConfig(count=5, side=(15, 28), one_side=False, entropy=6.6)
CONFIG = Config(run=RunConfig(seed=3), patches=PATCHES, loss=LossConfig(0.2, 0.8, 0.5, 1.0))


@dataclass
class Judges:
    """Real architectures at random weights, as they come (``model``, ``layers``) and as the trainer has them."""

    model: torch.nn.Module
    normalisation: dict
    layers: torch.nn.Sequential
    texts: dict[str, torch.Tensor]
    clip: Clip
    vgg: FidelityTower


def vgg_layers(width):
    """VGG-19 up to conv4_2 as torchvision builds it, at seeded random weights."""
    from torchvision.models.vgg import cfgs, make_layers

    torch.manual_seed(0)
    layers = make_layers([entry if entry == "M" else int(entry * width) for entry in cfgs["E"][:13]])
    for layer in layers:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return layers.requires_grad_(False).double()


def make_judges(path: Path) -> Judges:
    """A CLIP of open_clip with a ViT of two layers, the first ten convolutions of a VGG-19 of 1/8 width; float64."""
    need_open_clip()
    vision = {"image_size": SIZE, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
    path.write_text(json.dumps({"embed_dim": 32, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}))
    layers = vgg_layers(width=1 / 8)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of random weights
            model, tokenizer, normalisation = load_open_clip(ClipConfig(str(path), pretrained="none"), seed=0)
        model = model.double()
        with torch.no_grad():
            texts = {name: F.normalize(model.encode_text(tokenizer([text]))) for name, text in SENTENCES.items()}
        tower = ImageTower(copy.deepcopy(model.visual), **normalisation)
        vgg = FidelityTower(copy.deepcopy(layers))
    finally:
        torch.set_default_dtype(usual)
    clip = Clip(tower, texts["objective"], texts["infrared"], texts["visible"], {})
    return Judges(model.eval().requires_grad_(False), normalisation, layers, texts, clip, vgg)


class Pixels(torch.nn.Module):
    """A network whose output is what is learned: gradients with respect to G's output are those of its planes."""

    def __init__(self, planes):
        super().__init__()
        self.planes = torch.nn.Parameter(planes)
        self.calls = 0

    def forward(self, ir, vis):
        self.calls += 1
        return self.planes * 1


def smooth(random, *shape, grain=3):
    """Blurred noise in [0, 1] with every grey level."""
    noise = torch.from_numpy(random.standard_normal((*shape[:-2], shape[-2] // grain + 2, shape[-1] // grain + 2)))
    planes = F.interpolate(noise, shape[-2:], mode="bicubic")
    return (planes / 4 + 0.5).clamp(0, 1)


def batch_of(height=37, width=44, count=3, seed=0, step=4):
    """Pairs of which the second's infrared is half flat; the network sees them with noise."""
    random = np.random.default_rng(seed)
    ir, vis = smooth(random, count, 1, height, width), smooth(random, count, 1, height, width)
    ir[1 % count, :, :, : width // 2] = 0.4
    noise = 0.03 * torch.from_numpy(random.standard_normal((2, *ir.shape)))
    names = tuple(f"scene/{letter}" for letter in "abcdefgh"[:count])
    return Batch(step, ir + noise[0], vis + noise[1], ir, vis, names)


def fused_of(batch, seed=9):
    return 0.5 * smooth(np.random.default_rng(seed), *batch.ir.shape) + 0.25 * (batch.clean_ir + batch.clean_vis)


# the reference: Eqs. 3, 7, 13, 16 and 17, one picture and one crop at a time


def embedding(judges, plane):
    """v(x): unit-length embedding of one plane [H,W]."""
    picture = plane[None, None].repeat(1, 3, 1, 1)
    if plane.shape != (SIZE, SIZE):
        picture = F.interpolate(picture, (SIZE, SIZE), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(judges.normalisation[name], dtype=torch.float64) for name in ("mean", "std"))
    embedded = judges.model.visual((picture - mean[:, None, None]) / std[:, None, None])[0]
    return embedded / embedded.square().sum().sqrt()


def cosine(a, b):
    return (a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()


def direction(fused, ir, vis, objective, text_ir, text_vis):
    return 1 - (cosine(fused - vis, objective - text_vis) + cosine(fused - ir, objective - text_ir)) / 2


def patch_by_hand(plane, box, inverse):
    """One crop, bent and resized to SIZE: four neighbours within the crop, weighted; 0 outside of it."""
    left, top, side = (int(number) for number in box)
    crop = plane[top : top + side, left : left + side]
    steps = (np.arange(SIZE) + 0.5) / SIZE * side - side / 2
    x, y = np.meshgrid(steps, steps)
    x, y = (row[0] * x + row[1] * y + row[2] for row in inverse)
    inside = torch.from_numpy((np.abs(x) <= side / 2) & (np.abs(y) <= side / 2))
    x, y = (np.clip(axis + (side - 1) / 2, 0, side - 1) for axis in (x, y))
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    x1, y1 = np.minimum(x0 + 1, side - 1), np.minimum(y0 + 1, side - 1)
    right, below = torch.from_numpy(x - x0), torch.from_numpy(y - y0)
    upper = crop[y0, x0] * (1 - right) + crop[y0, x1] * right
    lower = crop[y1, x0] * (1 - right) + crop[y1, x1] * right
    return (upper * (1 - below) + lower * below) * inside


def entropy(patch):
    counts, _ = np.histogram(patch.detach().numpy(), bins=256, range=(0, 1))
    p = counts[counts > 0] / counts.sum()
    return -(p * np.log2(p)).sum()


def features(judges, plane):
    x, found, number = plane[None, None].repeat(1, 3, 1, 1), [], 0
    for layer in judges.layers:
        if isinstance(layer, torch.nn.Conv2d):
            x = F.relu(F.conv2d(x, layer.weight, layer.bias, padding=1))
            number += 1
            if number in (3, 5, 10):
                found.append(x[0])
        elif isinstance(layer, torch.nn.MaxPool2d):
            x = F.max_pool2d(x, 2)
    return found


def reference(judges, config, fused, batch, objectives=None):
    """The parts of the loss with their weights, and the share of patches kept."""
    texts = judges.texts
    patches = draw_patches(config.patches, *fused.shape[-2:], seed=config.run.seed, step=batch.step)
    whole, patch, phi, fidelity, kept = [], [], [], [], []
    for n, (f, i, v) in enumerate(zip(fused[:, 0], batch.clean_ir[:, 0], batch.clean_vis[:, 0], strict=True)):
        prompts = (texts[objectives[n]] if objectives else texts["objective"], texts["infrared"], texts["visible"])
        sources = embedding(judges, i), embedding(judges, v)
        seen = embedding(judges, f)
        whole.append(direction(seen, *sources, *(text[0] for text in prompts)))
        phi.append((1 - cosine(seen, sources[1])).abs() + (1 - cosine(seen, sources[0])).abs())
        for box, inverse in zip(patches.boxes, patches.maps, strict=True):
            cut_ir, cut_vis, cut_fused = (patch_by_hand(plane, box, inverse) for plane in (i, v, f))
            counts = min(entropy(cut_ir), entropy(cut_vis)) > config.patches.entropy
            kept.append(float(counts))
            patch.append(
                direction(embedding(judges, cut_fused), *sources, *(text[0] for text in prompts)) * float(counts)
            )
        layers = zip(features(judges, f), features(judges, i), features(judges, v), strict=True)
        fidelity.append(sum(((a - torch.maximum(b, c)) ** 2).mean() for a, b, c in layers))
    weights = config.loss
    parts = {
        "whole": weights.whole * torch.stack(whole).mean(),
        "patches": weights.patches * torch.stack(patch).mean(),
        "regulariser": weights.regulariser * torch.stack(phi).mean(),
        "fidelity": weights.fidelity * torch.stack(fidelity).mean(),
    }
    return parts, np.mean(kept)


def gradients(parts, planes):
    """Of each part apart, so that none can hide another."""
    return {name: torch.autograd.grad(part, planes, retain_graph=True)[0] for name, part in parts.items()}


def close(got, expected, name=""):
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11, msg=lambda text: f"{name}: {text}")
