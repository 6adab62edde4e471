"""``python -m trainer.pack``: a folder of pairs made small enough to take along to another machine.

What training reads of a pair is two 8-bit planes, and those are what is written, as WebP: without loss where the whole
fits, so that a run learns from the same pixels, else as good as fits.
"""

from __future__ import annotations

import csv
import hashlib
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from pyldfusion.cli.parser import Parser
from pyldfusion.errors import InputError, PyldfusionError

from .data.pairs import Pair, PairSet, load_pairs
from .data.provenance import MANIFEST, provenance_of

__all__ = ["main", "pack"]

#: OpenCV's name for WebP without loss.
LOSSLESS = 101
QUALITIES = (LOSSLESS, 100, 95, 90, 80, 60)
#: Of a file system, for every file; counted, since copies are weighed so.
BLOCK = 4096


def pack(pairs: PairSet, out: Path, most: int) -> tuple[int, int]:
    """Write ``ir/``, ``vi/`` and the manifest to ``out``, which training takes as its ``--data``.

    Args:
        pairs: what :func:`trainer.data.pairs.load_pairs` gave; skipped ones stay behind.
        out: a folder that does not exist or is empty.
        most: bytes that all of it may take.

    Returns:
        The quality (:data:`LOSSLESS` for none lost) and the bytes written.

    Raises:
        InputError: ``out`` holds something, two pairs have one name, or even the lowest quality does not fit.
    """
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty; expected a new folder")
    names = [pair.name.rpartition("/")[2] for pair in pairs.pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{twice[0]} is the name of several pairs; pack their folders one by one")
    for quality in QUALITIES:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            files = list(pool.map(lambda pair: _encoded(pair, quality), pairs.pairs))  # noqa: B023 - used here and now
        size = sum(-(-len(data) // BLOCK) * BLOCK for both in files for data in both)
        if size <= most:
            break
    else:
        raise InputError(
            f"{len(names)} pairs take {size / 1e6:.0f} MB at the lowest quality, and {most / 1e6:.0f} MB are allowed; "
            "pack fewer of them (--only), or allow more (--megabytes)"
        )
    note = "" if quality == LOSSLESS else f", packed as WebP of quality {quality}"
    rows = []
    for folder in ("ir", "vi"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for name, both, (source, terms) in zip(names, files, provenance_of(pairs), strict=True):
        hashes = []
        for folder, data in zip(("ir", "vi"), both, strict=True):
            (out / folder / f"{name}.webp").write_bytes(data)
            plane = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
            hashes.append(hashlib.sha256(plane.tobytes()).hexdigest())
        rows.append([name, source + note, terms, *hashes])
    with (out / MANIFEST).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "source", "terms", "sha256_ir", "sha256_vi"])
        writer.writerows(rows)
    return quality, size


def _encoded(pair: Pair, quality: int) -> tuple[bytes, bytes]:
    ir, vis = (
        cv2.imencode(".webp", plane, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes() for plane in pair.planes()
    )
    return ir, vis


def main(argv: Sequence[str] | None = None) -> int:
    p = Parser("python -m trainer.pack", "Make a folder of pairs small enough to take along.")
    p.add_argument("data", nargs="+", help="folders of pairs or CSV manifests, as the trainer takes them")
    p.add_argument("--out", required=True, type=Path)
    p.add_argument("--megabytes", type=float, default=40, help="of the whole folder, at most (default: %(default)s)")
    p.add_argument("--only", default="", metavar="PREFIX", help="pack the pairs whose names begin with this")
    args = p.parse(sys.argv[1:] if argv is None else argv)
    try:
        pairs = load_pairs(args.data, only=args.only)
        print(pairs.report())
        quality, size = pack(pairs, args.out, int(args.megabytes * 1e6))
    except (PyldfusionError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    how = "without loss" if quality == LOSSLESS else f"at WebP quality {quality}"
    print(f"{len(pairs.pairs)} pairs in {args.out}, {how}: {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
