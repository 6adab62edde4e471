"""``python -m trainer.prepare``: the folder of licensed pairs that the bundled weights are trained on.

Takes pictures and clips of M3SVD (MIT licence) and generated scenes; writes ir/, vi/ and a manifest that says of every
pair where it comes from, under what terms, and its hashes.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from pyldfusion.cli.parser import Parser
from pyldfusion.errors import InputError, PyldfusionError
from pyldfusion.media.roots import find_roots

from .data.provenance import MANIFEST

M3SVD = ("M3SVD (Linfeng-Tang/M3SVD)", "MIT")
SCENES = ("pyldfusion.scene", "Apache-2.0")

Item = tuple[str, np.ndarray, np.ndarray, tuple[str, str]]


def pictures(root: Path, prefix: str) -> Iterator[Item]:
    """Pairs of ``root`` whose names begin with ``prefix``."""
    for files in (files for found in find_roots([root]) for files in found.files):
        if files.ir.stem.startswith(prefix):
            # the codec's own luma, 1 level off read_planes' here and there: what the bundled weights were trained on
            ir, vis = (cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in (files.ir, files.vis))
            if ir is None or vis is None:
                raise InputError(f"{files.ir} or {files.vis} cannot be decoded")
            yield files.ir.stem, ir, vis, M3SVD


def films(root: Path, every: int) -> Iterator[Item]:
    """Every ``every``-th frame of the clips that ``root`` has in both ir/ and vi/."""
    clips = sorted((root / "ir").glob("*.mp4"))
    if not clips:
        raise InputError(
            f"{root / 'ir'} has no .mp4 clips; expected those of infrared there, of visible in {root / 'vi'}"
        )
    for ir_path in clips:
        vis_path = root / "vi" / ir_path.name
        both = [cv2.VideoCapture(str(path)) for path in (ir_path, vis_path)]
        number = 0
        while all(clip.grab() for clip in both):
            if number % every == every // 2:
                ir, vis = (cv2.cvtColor(clip.retrieve()[1], cv2.COLOR_BGR2GRAY) for clip in both)
                yield f"film_{ir_path.stem}_v{number:04d}", ir, vis, M3SVD
            number += 1
        if not number:
            raise InputError(f"{ir_path} and {vis_path} give no frames")


def scenes(count: int, seed: int, size: tuple[int, int] = (640, 480)) -> Iterator[Item]:
    """Generated night and dusk scenes."""
    from pyldfusion.scene import Scene

    for k in range(count):
        scene = Scene(seed=seed + k, size=size, kind=("night", "dusk")[k % 2])
        frame = scene.render(0.0)
        ir, vis = np.asarray(frame.ir), cv2.cvtColor(frame.vis, cv2.COLOR_BGR2GRAY)
        yield f"scene_{k:04d}", ir, vis, SCENES


def write(out: Path, items: Iterator[Item]) -> int:
    """Write pairs as PNG and the manifest; returns how many."""
    for folder in ("ir", "vi"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    rows = []
    for name, ir, vis, (source, terms) in items:
        hashes = []
        for folder, plane in (("ir", ir), ("vi", vis)):
            path = out / folder / f"{name}.png"
            if not cv2.imwrite(str(path), plane):
                raise InputError(f"cannot write {path}")
            hashes.append(hashlib.sha256(plane.tobytes()).hexdigest())
        rows.append([name, source, terms, *hashes])
    with (out / MANIFEST).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "source", "terms", "sha256_ir", "sha256_vi"])
        writer.writerows(rows)
    return len(rows)


def main(argv: list[str] | None = None) -> int:
    p = Parser("python -m trainer.prepare", "Make the folder of pairs for the bundled weights.")
    p.add_argument("--out", required=True, type=Path)
    p.add_argument("--m3svd", type=Path, help="folder with ir/ and vi/ pictures of M3SVD")
    p.add_argument("--prefix", default="m3svd_", help="names of the M3SVD pictures begin with this")
    p.add_argument("--video", type=Path, help="folder with ir/ and vi/ clips of M3SVD")
    p.add_argument("--every", type=int, default=12, help="frames between two that are taken from a clip")
    p.add_argument("--scenes", type=int, default=0, help="number of generated scenes")
    p.add_argument("--seed", type=int, default=0)
    args = p.parse(sys.argv[1:] if argv is None else argv)

    def items() -> Iterator[Item]:
        if args.m3svd:
            yield from pictures(args.m3svd, args.prefix)
        if args.video:
            yield from films(args.video, args.every)
        yield from scenes(args.scenes, args.seed)

    try:
        if not (args.m3svd or args.video or args.scenes > 0):
            raise InputError("nothing to take pairs from; expected --m3svd, --video or --scenes")
        if args.every < 1:
            raise InputError(f"--every is {args.every}; expected a number of frames of at least 1")
        count = write(args.out, items())
    except (PyldfusionError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{count} pairs in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
