"""One training step of the language-driven recipe, ours against the authors' way: `python -m benchmarks train`.

Same network, pair of frozen towers (ViT-B/32 and VGG-19, random weights: speed does not depend on them), pictures,
crops and affine maps on both sides, so that both compute the same loss; a step is forward, backward and Adam. The
authors' way, written again from their method: one crop after the other, each bent and resized for three planes of
three channels; 2 x crops x batch separate histograms; the whole of VGG-19 in fp32 on all three pictures; CLIP in fp32
on the CPU, and on CUDA in fp16 as OpenAI's loader gives it. The two take turns; the ratio is the median of the
rounds'. Memory is the peak of a process of its own (CPU) or of the allocator (CUDA). `--profile` says where our time
goes, and what the arithmetic alone would take at the rate that a large matrix product reaches here. On a CPU the batch
is 2 with the 32 crops of the recipe, so that all of it takes about four minutes on two old cores.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyldfusion.generator import Generator
from pyldfusion.scene import Scene
from trainer.build import make_objective
from trainer.config import Config, load_config
from trainer.entropy import patch_entropy
from trainer.objective import Batch
from trainer.patches import cut_patches, draw_patches
from trainer.run.precision import in_precision, resolve, weights_dtype
from trainer.start.initialise import initialise
from trainer.towers.torchvision_import import import_torchvision

ROOT = Path(__file__).resolve().parent.parent
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
Step = Callable[[int], tuple[float, float]]


def make_batch(config: Config, device: torch.device) -> Batch:
    """Crops of generated scenes, the same for both sides; about half of their patches pass the filter, as of photos."""
    size = config.samples.crop
    planes: list[list[np.ndarray]] = [[], []]
    for k in range(config.samples.batch):
        frame = Scene(seed=k, size=(640, 480), kind=("day", "dusk")[k % 2]).render(0.0)
        for found, plane in zip(planes, (frame.ir, cv2.cvtColor(frame.vis, cv2.COLOR_BGR2GRAY)), strict=True):
            found.append(plane[200 : 200 + size, 100 : 100 + size])
    ir, vis = (torch.from_numpy(np.stack(found)[:, None].astype(np.float32) / 255) for found in planes)
    return Batch(0, ir, vis, ir, vis).to(device)


def our_step(config: Config, batch: Batch, device: torch.device) -> Step:
    """As :mod:`trainer.loop` takes it."""
    config = resolve(config, device)
    dtype = weights_dtype(config.run.precision)
    generator = initialise(Generator("full")).to(device, dtype, memory_format=torch.channels_last)
    objective = make_objective(config, device)
    if config.run.compile:
        generator.compile()
    fuse = in_precision(generator, config.run.precision, device)
    batch = batch.to(device, dtype)
    optimiser = torch.optim.Adam(generator.parameters(), 1e-6)

    def step(number: int) -> tuple[float, float]:
        optimiser.zero_grad(set_to_none=True)
        losses = objective(fuse, replace(batch, step=number))
        loss = torch.stack(list(losses.parts.values())).sum()
        loss.backward()
        optimiser.step()
        return float(loss.detach()), float(losses.shown["kept"])

    return step


def authors_step(config: Config, batch: Batch, device: torch.device) -> Step:
    """The released training script's step, on our draws of crops and maps."""
    import_torchvision()
    import open_clip
    import torchvision

    generator = initialise(Generator("full")).to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        clip = open_clip.create_model(config.clip.model, pretrained=None).visual.eval().requires_grad_(False)
        vgg = torchvision.models.vgg19(weights=None).features.eval().requires_grad_(False)
    ours = make_objective(config, device)  # for the same weights and sentences
    _same_weights(clip, vgg, config)
    texts = [ours.clip.objective, ours.clip.infrared, ours.clip.visible]
    del ours
    half = device.type == "cuda"
    clip, vgg = (clip.half() if half else clip).to(device), vgg.to(device)
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    optimiser = torch.optim.Adam(generator.parameters(), 1e-6)
    weights = config.loss

    def encode(x: Tensor) -> Tensor:
        x = x.repeat(1, 3, 1, 1) if x.shape[1] == 1 else x
        x = (F.interpolate(x, size=224, mode="bilinear", align_corners=False) - mean) / std
        return clip(x.half() if half else x).float()

    def features(x: Tensor) -> list[Tensor]:
        x, found = x.repeat(1, 3, 1, 1), []
        for index, layer in enumerate(vgg):
            x = layer(x)  # in-place ReLUs overwrite what was kept
            if index in (5, 10, 21):
                found.append(x)
        return found

    def step(number: int) -> tuple[float, float]:
        optimiser.zero_grad()
        ir, vis = batch.clean_ir, batch.clean_vis
        fused = generator(batch.ir, batch.vis)
        ir_patches, vis_patches, fused_patches = authors_patches(config, number, ir, vis, fused)
        seen_vis, seen_ir, seen_fused = encode(vis), encode(ir), encode(fused)
        seen_patches = encode(fused_patches)
        sigma = config.patches.entropy
        valid = (authors_entropy(vis_patches) > sigma) * (authors_entropy(ir_patches) > sigma)
        valid = valid.to(device)
        direction = weights.whole * authors_direction(seen_fused, seen_ir, seen_vis, texts)
        direction = direction + weights.patches * authors_direction(seen_patches, seen_ir, seen_vis, texts, valid)
        phi = sum((1 - F.cosine_similarity(seen_fused, source)).mean() for source in (seen_ir, seen_vis))
        fidelity = sum(
            F.mse_loss(f, torch.maximum(a, b))
            for f, a, b in zip(features(fused), features(vis), features(ir), strict=True)
        )
        loss = direction + weights.regulariser * phi + weights.fidelity * fidelity
        loss.backward()
        optimiser.step()
        return float(loss.detach()), float(valid.float().mean())

    return step


def authors_patches(config: Config, step: int, ir: Tensor, vis: Tensor, fused: Tensor) -> list[Tensor]:
    """One crop after the other: cut, affine map (nearest), resize; [crops x B,3,224,224] of each."""
    import_torchvision()
    from torchvision.transforms import functional as T

    planes = torch.cat([x.repeat(1, 3, 1, 1) for x in (ir, vis, fused)])
    patches = draw_patches(config.patches, *ir.shape[2:], seed=config.run.seed, step=step)
    cut: list[list[Tensor]] = [[], [], []]
    for (left, top, side), inverse in zip(patches.boxes.tolist(), patches.maps, strict=True):
        angle, down, scale, shear = decompose(inverse)
        crop = T.crop(planes, top, left, side, side)
        crop = T.affine(crop, angle, [0, down], scale, [shear, 0.0])
        for found, part in zip(cut, T.resize(crop, [224]).chunk(3), strict=True):
            found.append(part)
    return [torch.cat(found) for found in cut]


def decompose(inverse: np.ndarray) -> tuple[float, int, float, float]:
    """Angle in degrees, whole pixels down, scale, shear in degrees of an inverse map [2,3] of `trainer.patches`."""
    forward = np.linalg.inv(inverse[:, :2])
    scale = float(np.hypot(*forward[:, 0]))
    angle = float(np.arctan2(forward[1, 0], forward[0, 0]))
    turned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) @ forward / scale
    down = -forward @ inverse[:, 2]
    return np.degrees(angle), round(float(down[1])), scale, float(np.degrees(np.arctan(-turned[0, 1])))


def authors_entropy(patches: Tensor) -> Tensor:
    """Bits of each patch, one after the other."""
    entropies = torch.zeros(len(patches))
    for i, patch in enumerate(patches):
        counts = torch.histc(patch.detach().flatten(), bins=256, min=0, max=1)
        share = counts / counts.sum()
        share = share[share > 0]
        entropies[i] = -(share * share.log2()).sum()
    return entropies


def authors_direction(
    fused: Tensor, ir: Tensor, vis: Tensor, texts: list[Tensor], valid: Tensor | None = None
) -> Tensor:
    """L_d with everything repeated to the number of patches."""
    count = len(fused) // len(ir)
    objective, text_ir, text_vis = texts
    loss = torch.zeros(len(fused), device=fused.device)
    for source, text in ((vis, text_vis), (ir, text_ir)):
        moved = F.normalize(fused) - F.normalize(source.repeat(count, 1))
        loss = loss + 0.5 * (1 - F.cosine_similarity(moved, (objective - text).repeat(len(fused), 1)))
    return (loss if valid is None else loss * valid).mean()


def _same_weights(clip: nn.Module, vgg: nn.Sequential, config: Config) -> None:
    """Give the authors' side the random weights of ours."""
    from trainer.towers.open_clip_model import load_open_clip
    from trainer.towers.vgg import load_vgg

    model, _, _ = load_open_clip(config.clip, config.run.seed)
    clip.load_state_dict(model.visual.state_dict())
    ours = load_vgg(config.vgg, "cpu", config.run.seed).layers
    for theirs, layer in zip(vgg, ours, strict=False):
        if isinstance(theirs, nn.Conv2d):
            theirs.weight.copy_(layer.weight)
            theirs.bias.copy_(layer.bias)


def peak_megabytes(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    # not getrusage's figure: a child begins with its parent's
    peak = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak[1]) / 1024 if peak else math.nan


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


SIDES = {"authors": authors_step, "ours": our_step}


def race(config: Config, device: torch.device, rounds: int) -> dict[str, Any]:
    """Both in turn, in one process; the first round only warms up."""
    batch = make_batch(config, device)
    steps = {name: make(config, batch, device) for name, make in SIDES.items()}
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    losses: dict[str, list[float]] = {name: [] for name in SIDES}
    kept: list[float] = []
    for number in range(rounds + 1):
        for name, step in steps.items():
            synchronise(device)
            start = time.perf_counter()
            loss, share = step(number)
            synchronise(device)
            if number:
                seconds[name].append(time.perf_counter() - start)
                losses[name].append(loss)
                kept.append(share)
    ratios = [a / b for a, b in zip(seconds["authors"], seconds["ours"], strict=True)]
    apart = max(abs(a - b) / abs(a) for a, b in zip(losses["authors"], losses["ours"], strict=True))
    return {
        "authors_s": statistics.median(seconds["authors"]),
        "ours_s": statistics.median(seconds["ours"]),
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "rounds": rounds,
        "patches_kept": statistics.mean(kept),
        "loss_authors": losses["authors"][-1],
        "loss_ours": losses["ours"][-1],
        "largest_relative_difference_of_losses": apart,
    }


def memory(options: argparse.Namespace, side: str) -> float:
    """Peak of two steps of one side in a process of its own, in MB; the interpreter and torch are part of it."""
    command = [sys.executable, "-m", "benchmarks", "train", "--memory-of", side, *settings(options)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def settings(options: argparse.Namespace) -> list[str]:
    passed = ["--batch", str(options.batch), "--patches", str(options.patches), "--device", options.device]
    return passed + [part for item in options.set for part in ("--set", item)]


def profile(config: Config, device: torch.device, rounds: int) -> dict[str, Any]:
    """Milliseconds of each part of our step, forward and backward, each alone; and the floor of the arithmetic."""
    from torch.utils.flop_counter import FlopCounterMode

    config = resolve(config, device)
    dtype = weights_dtype(config.run.precision)
    batch = make_batch(config, device).to(device, dtype)
    generator = initialise(Generator("full")).to(device, dtype, memory_format=torch.channels_last)
    fuse = in_precision(generator, config.run.precision, device)
    objective = make_objective(config, device)
    tower, vgg = objective.clip.tower, objective.vgg
    size = tower.size
    patches = draw_patches(config.patches, *batch.ir.shape[2:], seed=0, step=0)
    sources = torch.cat([batch.ir, batch.vis])
    fused = fuse(batch.ir, batch.vis).detach()
    with torch.no_grad():
        bits = patch_entropy(sources[:, 0], patches, size).view(len(patches), 2, -1)
        enough = (bits > config.patches.entropy).all(1).flatten()
        shown = cut_patches(fused[:, 0], patches, size).reshape(-1, 1, size, size)
    shown = shown[enough] if device.type == "cpu" else shown
    leaf = {name: x.clone().requires_grad_() for name, x in (("fused", fused), ("shown", shown))}

    def both(run: Callable[[], Tensor]) -> Callable[[], None]:
        return lambda: run().float().square().mean().backward()

    parts: dict[str, Callable[[], Any]] = {
        "generator": both(lambda: fuse(batch.ir, batch.vis)),
        "CLIP, sources": lambda: tower(sources),
        "CLIP, fused and its patches": both(lambda: tower(torch.cat([leaf["fused"], leaf["shown"]]))),
        "VGG, sources": lambda: vgg(sources),
        "VGG, fused": both(lambda: vgg(leaf["fused"])[2]),
        "entropy of patches, sources": lambda: patch_entropy(sources[:, 0], patches, size),
        "cutting patches, fused": both(lambda: cut_patches(leaf["fused"][:, 0], patches, size)),
    }
    rows = []
    for name, run in parts.items():
        graph = torch.no_grad() if "sources" in name else nullcontext()
        with graph:
            run()
            with FlopCounterMode(display=False) as counter:
                run()
            rows.append((name, timed(run, device, rounds), counter.get_total_flops() / 1e9))
    # only formats in use: one that the device emulates takes minutes
    formats = {"generator": config.run.precision, "CLIP": config.clip.precision, "VGG": config.vgg.precision}
    dtypes = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    rates = {name: peak_rate(dtypes[name], device) for name in sorted(set(formats.values()))}
    floor = sum(1e3 * gflop / rates[formats.get(name.split(",")[0], "fp32")] for name, _, gflop in rows)
    return {
        "parts": [{"part": name, "ms": 1e3 * seconds, "gflop": flop} for name, seconds, flop in rows],
        "matrix_product_gflops": rates,
        "floor_ms": floor,
        "patches_encoded": len(shown),
    }


def timed(run: Callable[[], Any], device: torch.device, rounds: int) -> float:
    """Median seconds."""
    found = []
    for _ in range(rounds):
        synchronise(device)
        start = time.perf_counter()
        run()
        synchronise(device)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def peak_rate(dtype: torch.dtype, device: torch.device, side: int = 2048) -> float:
    """GFLOP/s of a product of two large matrices."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    a @ b
    return 2 * side**3 / timed(lambda: a @ b, device, 7) / 1e9


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks train", description=__doc__)
    cuda = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--batch", type=int, default=16 if cuda else 2, help="pairs of 224 px (16 on CUDA, 2 on a CPU)")
    parser.add_argument("--patches", type=int, default=32, help="crops a step (default: %(default)s, the recipe's)")
    parser.add_argument("--rounds", type=int, default=20 if cuda else 3, help="steps of each side that are timed")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="an option of ours")
    parser.add_argument("--profile", action="store_true", help="where the time of our step goes")
    parser.add_argument("--memory-of", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore", UserWarning)  # random towers are meant
    device = torch.device(options.device)
    config = load_config(
        "paper",
        [
            f"samples.batch={options.batch}",
            f"patches.count={options.patches}",
            "clip.pretrained=none",
            "vgg.weights=none",
            *options.set,
        ],
    )
    if options.memory_of:
        step = SIDES[options.memory_of](config, make_batch(config, device), device)
        for number in range(2):
            step(number)
        print(peak_megabytes(device))
        return 0

    about = {
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
        "batch": options.batch,
        "crops": options.patches,
        "set": options.set,
    }
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    found = race(config, device, options.rounds)
    report: dict[str, Any] = {"environment": about, **found, "peak_mb": {}}
    write(options.json, report)  # at once: for what follows there may be no time
    report["peak_mb"] = peaks = {side: memory(options, side) for side in SIDES}
    print("\n| way | s a step | steps/s | peak MB | loss |\n|---|---:|---:|---:|---:|")
    for side in SIDES:
        seconds = found[f"{side}_s"]
        print(f"| {side} | {seconds:.3f} | {1 / seconds:.2f} | {peaks[side]:.0f} | {found[f'loss_{side}']:.5f} |")
    print(
        f"\nours is {found['ratio']:.2f} times as fast ({found['ratio_low']:.2f} to {found['ratio_high']:.2f} in "
        f"{found['rounds']} rounds); losses differ by at most {found['largest_relative_difference_of_losses']:.2%}; "
        f"{found['patches_kept']:.0%} of the patches kept"
    )
    if options.profile:
        report["profile"] = seen = profile(config, device, max(3, options.rounds // 2))
        print("\n| part | ms | GFLOP |\n|---|---:|---:|")
        for row in seen["parts"]:
            print(f"| {row['part']} | {row['ms']:.0f} | {row['gflop']:.1f} |")
        print(f"\nfloor of the arithmetic: {seen['floor_ms']:.0f} ms; {seen['patches_encoded']} patches encoded")
    write(options.json, report)
    return 0


def write(path: Path | None, report: dict[str, Any]) -> None:
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n")
