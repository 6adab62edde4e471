"""Flicker of fused videos: how much what stands still changes, beyond what the cameras themselves change.

Static is a pixel whose two inputs, smoothed, change by less than 3 grey levels from one frame to the next; in generated
sequences, before noise and gain are added. The change is that of the luma, the mean over those pixels and all frames;
beyond is it less the inputs', of which the larger one counts at each pixel. A trail is what a hot disc changes at
places that it has left within the last second, less what it changes where it never was.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pyldfusion import Fuser
from pyldfusion.errors import InputError
from pyldfusion.image import LUMA_BGR
from pyldfusion.media import open_pairs
from pyldfusion.scene import Scene

SIZE = (320, 240)
RATE = 25.0
STILL = 3.0  # grey levels

Plane = NDArray[np.float32]


class Sequence(NamedTuple):
    """Pairs of a video, and which pixels stand still from each frame to the next."""

    pairs: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]
    still: list[NDArray[np.bool_]]


def luma(frame: NDArray[np.uint8]) -> Plane:
    return frame.astype(np.float32) @ np.array(LUMA_BGR, np.float32)


def still(pairs: list[Any]) -> list[NDArray[np.bool_]]:
    def smooth(plane: NDArray[Any]) -> Plane:
        return np.asarray(cv2.GaussianBlur(plane.astype(np.float32), (0, 0), 1.5))

    planes = [(smooth(ir), smooth(luma(vis))) for ir, vis in pairs]
    return [
        np.max([np.abs(after - before) for before, after in zip(*both, strict=True)], axis=0) < STILL
        for both in itertools.pairwise(planes)
    ]


def clip(ir: Path, vis: Path, frames: int) -> Sequence:
    pairs = []
    for _, pair in zip(range(frames), open_pairs(str(ir), str(vis)), strict=False):
        small = [cv2.resize(frame, SIZE, interpolation=cv2.INTER_AREA) for frame in pair.read()]
        thermal = small[0] if small[0].ndim == 2 else cv2.cvtColor(small[0], cv2.COLOR_BGR2GRAY)
        pairs.append((thermal, small[1] if small[1].ndim == 3 else cv2.cvtColor(small[1], cv2.COLOR_GRAY2BGR)))
    return Sequence(pairs, still(pairs))


def generated(kind: str, frames: int, *, noise: float = 0.0, gain: float = 0.0) -> Sequence:
    """A street, with noise in grey levels in both cameras, and a gain of the infrared one that steps twice a second."""
    scene, random = Scene(seed=3, size=SIZE, kind=kind, ir_noise=0, vis_noise=0), np.random.default_rng(0)
    clean = [tuple(scene.render(i / RATE)) for i in range(frames)]
    pairs = []
    for i, pair in enumerate(clean):
        factors = (1 + gain * (int(2 * i / RATE) % 2), 1.0)
        noisy = [f * x + noise * random.standard_normal(x.shape) for f, x in zip(factors, pair, strict=True)]
        pairs.append(tuple(np.rint(np.clip(frame, 0, 255)).astype(np.uint8) for frame in noisy))
    return Sequence(pairs, still(clean))


def fused(model: str, temporal: float | None, engine: str | None, pairs: list[Any]) -> list[Plane]:
    with Fuser(model, "cpu", engine, temporal=temporal) as fuser:
        times = (i / RATE for i in range(len(pairs)))
        return [luma(frame) for frame in fuser.stream(pairs, times=times)]


def flicker(sequence: Sequence, planes: list[Plane]) -> tuple[float, float]:
    """Mean change of the fused luma and of the inputs, grey levels."""
    changes, inputs = [], []
    both = [(ir.astype(np.float32), luma(vis)) for ir, vis in sequence.pairs]
    for i, where in enumerate(sequence.still):
        if where.any():
            changes.append(np.abs(planes[i + 1] - planes[i])[where].mean())
            given = np.max([np.abs(b - a) for a, b in zip(both[i], both[i + 1], strict=True)], axis=0)
            inputs.append(given[where].mean())
    return float(np.mean(changes)), float(np.mean(inputs))


def disc(frames: int) -> tuple[list[Any], list[Any], list[NDArray[np.bool_]]]:
    """A still street without and with a hot disc that crosses it, and where that is."""
    ir, vis = Scene(seed=3, size=SIZE, kind="night", ir_noise=0, vis_noise=0).render(0.0)
    with_disc, where = [], []
    for i in range(frames):
        hot = ir.copy()
        at = round(20 + (SIZE[0] - 40) * i / (frames - 1)), SIZE[1] // 2
        cv2.circle(hot, at, 12, 255, -1)
        with_disc.append((hot, vis))
        where.append(cv2.circle(np.zeros(ir.shape, np.uint8), at, 24, 1, -1) > 0)
    return [(ir, vis)] * frames, with_disc, where


def trail(model: str, temporal: float | None, engine: str | None, frames: int) -> float:
    """Grey levels; see the module."""
    without, with_disc, where = disc(frames)
    changes = [
        np.abs(a - b) for a, b in zip(*(fused(model, temporal, engine, x) for x in (without, with_disc)), strict=True)
    ]
    never = ~np.any(where, axis=0)
    left = []
    for i in range(frames // 4, frames):
        gone = np.any(where[max(0, i - int(RATE)) : i], axis=0) & ~where[i]
        left.append(changes[i][gone].mean() - changes[i][never].mean())
    return float(np.mean(left))


def sequences(video: Path | None, frames: int) -> Iterator[tuple[str, Sequence]]:
    if video is not None:
        for path in sorted((video / "ir").iterdir()):
            yield path.stem, clip(path, video / "vi" / path.name, frames)
    yield "generated: night, noise of 4 levels", generated("night", frames, noise=4)
    yield "generated: night, gain steps of 15 %", generated("night", frames, gain=0.15)
    yield "generated: day, noise of 2, gain steps of 5 %", generated("day", frames, noise=2, gain=0.05)


def possible(models: Iterable[str], seconds: float, engine: str | None) -> Iterator[tuple[str, float | None]]:
    """Each model frame by frame and, where it has that form, smoothed over time."""
    for model in models:
        yield model, None
        try:
            Fuser(model, "cpu", engine, temporal=seconds).close()
        except InputError as error:
            print(f"only frame by frame: {error}")
        else:
            yield model, seconds


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks flicker", description=__doc__.split(":")[0])
    parser.add_argument("--video", type=Path, metavar="DIR", help="clips in ir/ and vi/ of the same names")
    parser.add_argument("--model", action="append", help="name or file; repeatable (default: lite, full)")
    parser.add_argument("--temporal", type=float, default=0.5, metavar="S", help="time constant (default: 0.5)")
    parser.add_argument("--engine", help="see Fuser; torch smooths any weights")
    parser.add_argument("--frames", type=int, default=50, metavar="N", help="of each sequence (default: 50)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="also as JSON")
    options = parser.parse_args(argv)
    if options.frames < 8:
        parser.error("--frames must be at least 8")
    methods = list(possible(options.model or ("lite", "full"), options.temporal, options.engine))
    rows: list[dict[str, Any]] = []
    for name, sequence in sequences(options.video, options.frames):
        print(name, flush=True)
        for model, seconds in methods:
            made = fused(model, seconds, options.engine, sequence.pairs)
            change, inputs = flicker(sequence, made)
            rows.append({"sequence": name, "model": Path(model).stem, "temporal": seconds})
            rows[-1] |= {"change": round(change, 3), "inputs": round(inputs, 3), "beyond": round(change - inputs, 3)}
            print(f"  {Path(model).stem:8} {seconds or 'frame by frame'}: {change:.3f}, beyond {change - inputs:+.3f}")
    trails = []
    for model, seconds in methods:
        left = trail(model, seconds, options.engine, options.frames)
        trails.append({"model": Path(model).stem, "temporal": seconds, "trail": round(left, 3)})
        print(f"trail of a hot disc, {Path(model).stem} {seconds or 'frame by frame'}: {left:+.3f} levels", flush=True)
    if options.output is not None:
        about = {"size": f"{SIZE[0]}x{SIZE[1]}", "frames": options.frames, "unit": "grey levels"}
        options.output.write_text(json.dumps({**about, "flicker": rows, "trail": trails}, indent=1) + "\n")
    return 0
