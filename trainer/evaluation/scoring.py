"""Methods of fusion measured on sets of pairs: what the tables of :mod:`trainer.evaluate` and of the benchmarks hold.

A method is anything that gives a fused picture for a pair: a network, or a folder of pictures that another program
has made. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pyldfusion import Fuser, metrics
from pyldfusion.errors import InputError
from pyldfusion.image import infrared_to_8bit
from pyldfusion.media import list_images, read_image, to_eight_bits
from pyldfusion.media.roots import PairFiles, Root

__all__ = ["Method", "Pictures", "Sample", "Scores", "network", "read_sample", "score", "short_side_size"]

Image = NDArray[np.uint8]
#: Method -> name of the pair (``set/stem``) -> metric -> value.
Scores = dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True)
class Sample:
    """One pair, ready to be fused and measured.

    Attributes:
        files: where it comes from.
        ir: uint8 [H,W].
        vis: uint8 [H,W] or BGR [H,W,3], of the same size.
        native: (width, height) of the files.
    """

    files: PairFiles
    ir: Image
    vis: Image
    native: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) at which it is measured."""
        return self.vis.shape[1], self.vis.shape[0]


@dataclass(frozen=True)
class Method:
    """A way to a fused picture.

    Attributes:
        fuse: gives the picture of a sample, uint8 [H,W] or BGR [H,W,3], of the sample's size.
        has: whether it can, for a pair.
    """

    fuse: Callable[[Sample], Image]
    has: Callable[[PairFiles], bool] = lambda files: True


class Pictures:
    """Fused pictures in a folder, or in a folder of it named as the set is; matched by stem.

    Raises:
        InputError: the folder does not exist, or two of its files have one stem.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"{folder} is no folder; expected one of fused pictures, named as the pairs are")

    def method(self) -> Method:
        return Method(self.read, lambda files: self.find(files) is not None)

    def find(self, files: PairFiles) -> Path | None:
        """The file of a pair, if there is one."""
        label, _, stem = files.name.partition("/")
        for part in (label, ""):
            found = self._files.get((part, stem))
            if found is not None:
                return found
        return None

    def read(self, sample: Sample) -> Image:
        """The picture of a pair, resized with it if it is of the sources' native size.

        Raises:
            InputError: there is none, it cannot be decoded, or it is of another size.
        """
        path = self.find(sample.files)
        if path is None:
            raise InputError(f"{self.folder} has no picture named {sample.files.name.partition('/')[2]!r}")
        fused = to_eight_bits(read_image(path))
        size = fused.shape[1], fused.shape[0]
        if size not in (sample.native, sample.size):
            raise InputError(
                f"{path} is {_text(size)} and its pair is {_text(sample.native)}; expected one size: metrics of a "
                "picture that was resized cannot be compared"
            )
        return _resized(fused, sample.size)

    @cached_property
    def _files(self) -> dict[tuple[str, str], Path]:
        """(folder of the set or "", stem) -> file."""
        found: dict[tuple[str, str], Path] = {}
        for part in ("", *sorted(entry.name for entry in self.folder.iterdir() if entry.is_dir())):
            try:
                files = list_images(self.folder / part)
            except InputError:  # no pictures in this one
                continue
            for path in files:
                if (part, path.stem) in found:
                    raise InputError(
                        f"{found[part, path.stem]} and {path} have the same name {path.stem!r}; keep one of them"
                    )
                found[part, path.stem] = path
        return found


def network(
    weights: str | Path, device: str | None = None, engine: str | None = None, precision: str | None = "fp32"
) -> Method:
    """A network of ours from a file or a bundled name; the arguments are those of :class:`pyldfusion.Fuser`.

    Raises:
        ArtefactError, DependencyError, DeviceError: as it does.
    """
    fuser = Fuser(weights, device, engine, precision=precision)
    return Method(lambda sample: fuser.fuse(sample.ir, sample.vis))


def read_sample(files: PairFiles, short_side: int = 0, luma: bool = False) -> Sample:
    """Decode a pair as the runtime does.

    Args:
        files: the pair.
        short_side: resize so that the short side has so many pixels, by area where that shrinks and by cubic
            interpolation where it enlarges; 0: native size.
        luma: the visible picture without its colour.

    Raises:
        InputError: a file that cannot be read, or sizes that differ.
    """
    ir, vis = infrared_to_8bit(read_image(files.ir)), to_eight_bits(read_image(files.vis))
    if luma:
        vis = _luma(vis)
    native = vis.shape[1], vis.shape[0]
    if ir.shape != vis.shape[:2]:
        raise InputError(
            f"{files.ir} is {_text((ir.shape[1], ir.shape[0]))} and {files.vis} is {_text(native)}; expected one size"
        )
    size = short_side_size(native, short_side)
    return Sample(files, _resized(ir, size), _resized(vis, size), native)


def short_side_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(width, height) in the same proportion with a short side of ``side`` pixels; 0: as it is."""
    if not side:
        return size
    scale = side / min(size)
    return round(size[0] * scale), round(size[1] * scale)


def score(
    root: Root,
    methods: Mapping[str, Method],
    *,
    short_side: int = 0,
    luma: bool = False,
    limit: int = 0,
    common: bool = False,
    also: Callable[[Any, Any, Any], dict[str, float]] | None = None,
    advance: Callable[[], object] = lambda: None,
) -> Scores:
    """Every metric of every method for every pair of a set that it has.

    Args:
        root: the set.
        methods: by name.
        short_side, luma: as in :func:`read_sample`; ``luma`` holds for the fused pictures too.
        limit: the first so many pairs only; 0: all.
        common: only the pairs that every method has.
        also: (fused, ir, vis) -> more values of the same kind.
        advance: called after every pair.

    Raises:
        InputError: a picture that cannot be read, sizes that differ.
    """
    scores: Scores = {name: {} for name in methods}
    for files in root.files[: limit or None]:
        able = {name: method for name, method in methods.items() if method.has(files)}
        if able and not (common and len(able) < len(methods)):
            sample = read_sample(files, short_side, luma)
            for name, method in able.items():
                fused = method.fuse(sample)
                # others' pictures may have three channels where the pair has one
                triple = _luma(fused) if luma else fused, sample.ir, sample.vis
                scores[name][files.name] = metrics.evaluate(*triple) | (also(*triple) if also else {})
        advance()
    return scores


def _luma(image: Image) -> Image:
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


def _resized(image: Image, size: tuple[int, int]) -> Image:
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if size[0] <= width else cv2.INTER_CUBIC)


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
