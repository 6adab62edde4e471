"""Fuse a generated night scene and show what comes out: the first thing to run after installing.

Writes ir.png, vis.png, fused.png and side.png (all three beside each other).
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from .options import add_model_options, open_fuser, size

HELP = "fuse a generated pair and print its numbers"

FRAMES = 10  # timed, after the first


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    add = parser.add_argument_group("scene").add_argument
    add("--out", type=Path, default=Path("out/demo"), metavar="DIR", help="where the pictures go (default: out/demo)")
    add("--size", type=size, default=(640, 480), metavar="WxH", help="default: 640x480")
    add("--seed", type=int, default=1, metavar="N", help="which scene (default: 1)")
    add("--kind", default="night", help="night (default), dusk, day, fog, smoke, rain or indoor")


def run(args: argparse.Namespace) -> int:
    from ..media import write_image
    from ..metrics import evaluate
    from ..scene import Scene
    from ..views import view_picture

    ir, vis = Scene(seed=args.seed, size=args.size, kind=args.kind).render(t=0.0)
    with open_fuser(args) as fuser:
        fused = fuser.fuse(ir, vis)
        milliseconds = []
        for _ in range(FRAMES):
            start = time.perf_counter()
            fuser.fuse(ir, vis)
            milliseconds.append(1000 * (time.perf_counter() - start))
        info = fuser.info
    side = view_picture("side", ir, vis, fused)
    for name, picture in {"ir": ir, "vis": vis, "fused": fused, "side": side}.items():
        write_image(args.out / f"{name}.png", picture)
    numbers = evaluate(fused, ir, vis)
    print(f"picture  {args.out / 'fused.png'}  (with its sources: {args.out / 'side.png'})")
    print(f"model    {info['model']}: {info['model_chosen']}")
    engine = f"{info['engine']} {info['engine_version']} {info['precision']}"
    print(f"engine   {engine} on {info['device']}, {info['threads']} threads")
    print(f"speed    {statistics.median(milliseconds):.1f} ms a frame of {args.size[0]}x{args.size[1]}")
    print("numbers  " + "  ".join(f"{name} {numbers[name]:.3f}" for name in ("EN", "CC", "SD", "EI", "VIFF")))
    return 0
