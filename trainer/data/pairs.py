"""Pairs as the trainer sees them: looked through before the run, reported to a person, decoded once if they fit."""

from __future__ import annotations

import hashlib
import itertools
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from pyldfusion.errors import InputError
from pyldfusion.image import infrared_to_8bit
from pyldfusion.media import read_image, to_eight_bits
from pyldfusion.media.roots import FOLDERS, PairFiles, Root, find_roots

from ..config import DataConfig
from .cache import PlaneCache, size_text

__all__ = ["FOLDERS", "LEAST_SIDE", "Pair", "PairSet", "load_pairs", "planes_or_another", "read_planes"]

#: Pictures under this many pixels a side show next to nothing.
LEAST_SIDE = 32
#: A picture whose deviation is below this many grey levels is nearly constant.
FLAT = 2.0
#: So many names of a kind are listed in the report.
LISTED = 20
#: So many pairs are decoded ahead while pairs are looked through.
AHEAD = 16


@dataclass(frozen=True)
class Pair:
    """One picture of each kind, of one size.

    Attributes:
        files: where it comes from, its name, scene and weight.
        height, width: of both pictures.
        sha256: of both planes.
        kept: gives the planes if they are cached.
    """

    files: PairFiles
    height: int
    width: int
    sha256: str
    kept: Callable[[], np.ndarray] | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """``root/stem``."""
        return self.files.name

    @property
    def group(self) -> str:
        """What frames of one scene share."""
        return self.files.group

    @property
    def weight(self) -> float:
        """How often it is seen, against the others."""
        return self.files.weight

    @property
    def ir(self) -> np.ndarray:
        """Infrared plane, uint8 [H,W]."""
        return self.planes()[0]

    @property
    def vis(self) -> np.ndarray:
        """Luma of the visible picture, uint8 [H,W]."""
        return self.planes()[1]

    def planes(self) -> np.ndarray:
        """Both planes, (ir, vis), uint8 [2,H,W]; not to be written to.

        Raises:
            InputError: they are not cached, and a file is gone or has changed since the pairs were looked through.
        """
        if self.kept is not None:
            return self.kept()
        planes = read_planes(self.files.ir, self.files.vis)
        if planes.shape[1:] != (self.height, self.width):
            raise InputError(f"{self.files.vis} has changed its size since the run began")
        return planes


@dataclass
class PairSet:
    """The usable pairs, by root and name, and what there is to say of the others.

    Attributes:
        pairs: the pairs.
        skipped: name -> reason.
        roots: where they were looked for.
        flat: name -> which of its pictures is nearly constant; the pair is used nevertheless.
        padded: names of the pairs under the side of the crop, which are reflect-padded.
        crop: that side.
        kept: a phrase on how much is cached.
    """

    pairs: list[Pair] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    roots: list[Root] = field(default_factory=list)
    flat: dict[str, str] = field(default_factory=dict)
    padded: list[str] = field(default_factory=list)
    crop: int = LEAST_SIDE
    kept: str = ""

    def digest(self) -> str:
        """SHA-256 over names, sizes and pixels, in order of the names."""
        h = hashlib.sha256()
        for pair in sorted(self.pairs, key=lambda p: p.name):
            h.update(f"{pair.name} {(pair.height, pair.width)} {pair.sha256}".encode())
        return h.hexdigest()

    def report(self) -> str:
        """Some lines for a person: what is there, and by name what is not used or not as it should be."""
        sizes = Counter(f"{pair.width}x{pair.height}" for pair in self.pairs).most_common()
        listed = ", ".join(f"{size} ({n})" for size, n in sizes[:6])
        lines = [f"{_count(len(self.pairs), 'pair')} in {_count(len({p.group for p in self.pairs}), 'scene')}"]
        for root in self.roots:
            prefix = f"{root.label}/"
            used, skipped = (sum(n.startswith(prefix) for n in names) for names in (self._names(), self.skipped))
            line = f"  {root.label}: {_count(used, 'pair')} from {root.path}"
            line += f", weight {root.weight:g}" if root.weight != 1 else ""
            line += f", {skipped} skipped" if skipped else ""
            lines.append(line + (f" ({root.note})" if root.note else ""))
        if sizes:
            more = f", and {len(sizes) - 6} other sizes" if len(sizes) > 6 else ""
            lines.append(f"sizes: {listed}{more}")
        if self.kept:
            lines.append(self.kept)
        for what, names in (
            (f"reflect-padded, under the {self.crop} px of a crop", self.padded),
            ("used although nearly constant", [f"{name} ({which})" for name, which in self.flat.items()]),
            ("skipped", [f"{name}: {reason}" for name, reason in self.skipped.items()]),
        ):
            if names:
                lines.append(f"{what}: {len(names)}")
                lines += [f"  {name}" for name in names[:LISTED]]
                lines += [f"  and {len(names) - LISTED} more"] if len(names) > LISTED else []
        return "\n".join(lines)

    def _names(self) -> Iterator[str]:
        return (pair.name for pair in self.pairs)


def load_pairs(
    roots: Sequence[str | Path], data: DataConfig | None = None, only: str = "", crop: int = LEAST_SIDE
) -> PairSet:
    """Look through every pair under ``roots`` and cache what fits; what cannot be used is skipped, never fatal.

    Args:
        roots: folders or CSV manifests, maybe with a weight, as :func:`pyldfusion.media.roots.find_roots` takes them.
        data: how planes are cached; None: in memory, within the default budget.
        only: keep the pairs whose stem begins with this.
        crop: side of the crops that will be cut, in pixels. Pairs under it are reflect-padded; reflection can at most
            double a side, so those under half of it and a pixel are skipped, and all under :data:`LEAST_SIDE`.

    Raises:
        InputError: a root that does not exist or has no pairs, or nothing usable at all.
        ConfigError: the folder of the disk cache cannot be written to.
    """
    result = PairSet(roots=find_roots(roots), crop=crop)
    cache = PlaneCache(data or DataConfig())
    least = max(LEAST_SIDE, crop // 2 + 1)
    wanted = []
    for root in result.roots:
        result.skipped.update(root.skipped)
        wanted += [files for files in root.files if files.name.removeprefix(f"{root.label}/").startswith(only)]
    for files, planes, digest in _decoded(wanted):
        flaw = str(planes) if isinstance(planes, InputError) else _flaw(planes, least)
        if flaw:
            result.skipped[files.name] = flaw
            continue
        height, width = planes.shape[1:]
        if min(height, width) < crop:
            result.padded.append(files.name)
        if which := _flat(planes):
            result.flat[files.name] = which[0]
        result.pairs.append(Pair(files, height, width, digest, cache.keep(planes)))
    if not result.pairs:
        what = f"no usable pair whose name begins with {only!r}" if only else "no usable pair"
        raise InputError(f"{what} under {', '.join(map(str, roots))}:\n{result.report()}")
    if (again := sum(pair.kept is None for pair in result.pairs)) < len(result.pairs):
        where = "in memory" if cache.kind == "memory" else "on disk"
        result.kept = f"kept {where}: {size_text(cache.used)}"
        result.kept += f"; {_count(again, 'pair')} do not fit and are decoded every time" if again else ""
    else:
        result.kept = "decoded every time"
    return result


def read_planes(ir: Path, vis: Path) -> np.ndarray:
    """Decode a pair as the runtime does: uint8 [2,H,W], (ir, vis).

    Infrared of 16 bits is scaled between its 0.5 and 99.5 percentiles, false colour becomes its luma. The visible
    picture becomes its luma (ITU-R BT.601); 16 bits are divided by 257. An EXIF orientation is applied to both.

    Raises:
        InputError: a file that cannot be read or decoded, or sizes that differ.
    """
    infrared, visible = read_image(ir), to_eight_bits(read_image(vis))
    if infrared.shape[:2] != visible.shape[:2]:
        sizes = " and ".join(f"{picture.shape[1]}x{picture.shape[0]}" for picture in (infrared, visible))
        raise InputError(f"sizes differ: {sizes} ({ir} and {vis})")
    luma = visible if visible.ndim == 2 else cv2.cvtColor(visible, cv2.COLOR_BGR2GRAY)
    return np.stack([infrared_to_8bit(infrared), luma])


def planes_or_another(pair: Pair, another: Callable[[], Pair], tries: int = 8) -> tuple[Pair, np.ndarray]:
    """The pair and its planes, or those of another where its files are gone since the run began.

    A run of days should not end because of one file. Cached planes cannot vanish; the others can, and then the sample
    is made from ``another()``, with a warning.

    Raises:
        InputError: none of ``tries`` others could be read either; names the last file.
    """
    for _ in range(tries):
        try:
            return pair, pair.planes()
        except InputError as error:
            warnings.warn(f"{error}; another pair takes its place", stacklevel=2)
            pair = another()
    return pair, pair.planes()


def _decoded(wanted: list[PairFiles]) -> Iterator[tuple[PairFiles, np.ndarray | InputError, str]]:
    """Planes of every pair in order and their SHA-256, by several threads a little ahead; the error where it cannot be.

    Hashed here, so that what is not cached need not be decoded again for it.
    """

    def decode(files: PairFiles) -> tuple[np.ndarray | InputError, str]:
        try:
            planes = read_planes(files.ir, files.vis)
        except InputError as error:
            return error, ""
        return planes, hashlib.sha256(planes).hexdigest()

    bar = tqdm(total=len(wanted), desc="reading pairs", unit="pair", delay=2, leave=False, disable=None)
    with bar, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        todo = iter(wanted)
        while some := list(itertools.islice(todo, AHEAD)):
            for files, (planes, digest) in zip(some, pool.map(decode, some), strict=True):
                yield files, planes, digest
                bar.update()


def _flaw(planes: np.ndarray, least: int) -> str:
    """Why a decoded pair cannot be used, "" if it can."""
    height, width = planes.shape[1:]
    if min(height, width) < least:
        return f"{width}x{height} pixels; expected at least {least} a side"
    return "both pictures are nearly constant" if len(_flat(planes)) == 2 else ""


def _flat(planes: np.ndarray) -> list[str]:
    """Which of the two are nearly constant."""
    return [kind for kind, plane in zip(("infrared", "visible"), planes, strict=True) if plane.std() < FLAT]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
