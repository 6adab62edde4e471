"""Decoded planes kept within a budget, so that a picture is decoded once and not once an epoch."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np

from pyldfusion.errors import InputError

from ..config import ConfigError, DataConfig

__all__ = ["PlaneCache", "size_text"]


class PlaneCache:
    """Keeps uint8 planes in memory or in a file; each process has a cache of its own.

    The file has no name from the first moment, so that nothing is left behind however the run ends. It is read with
    ``pread``: processes that fork from this one share it, and a failing disk is an error rather than a crash, as it
    would be through a memory map.

    Args:
        config: ``cache``, ``cache_gb`` (10^9 bytes) and ``cache_dir`` of ``[data]``.

    Raises:
        ConfigError: the folder for the file cannot be written to.
    """

    def __init__(self, config: DataConfig) -> None:
        self.kind = config.cache
        self.used, self.budget = 0, 0 if config.cache == "no" else int(config.cache_gb * 1e9)
        if self.kind == "disk":
            try:
                self._file = tempfile.TemporaryFile(dir=config.cache_dir or None, buffering=0)  # noqa: SIM115
            except OSError as error:
                raise ConfigError(
                    f"data.cache_dir is {config.cache_dir!r}: no file can be made there ({error.strerror or error}); "
                    'expected a folder to write to, or data.cache = "memory"'
                ) from error

    def keep(self, planes: np.ndarray) -> Callable[[], np.ndarray] | None:
        """What gives ``planes`` (uint8, C-contiguous) back later, or None where they do not fit."""
        if self.used + planes.nbytes > self.budget:
            return None
        start = self.used
        if self.kind == "disk":
            try:
                _write(self._file.fileno(), planes, start)
            except OSError as error:
                self.budget = 0
                warnings.warn(
                    f"the disk cache ends after {size_text(start)} ({error.strerror or error}); the other pictures "
                    "are decoded every time: give data.cache_dir more room, or lower data.cache_gb",
                    stacklevel=2,
                )
                return None
        self.used += planes.nbytes
        return partial(self._read, start, planes.shape) if self.kind == "disk" else partial(_itself, planes)

    def _read(self, start: int, shape: tuple[int, ...]) -> np.ndarray:
        planes = np.empty(shape, np.uint8)
        left = memoryview(planes).cast("B")
        try:
            while left:
                count = os.preadv(self._file.fileno(), [left], start)
                if not count:
                    raise OSError("it is shorter than it was")
                left, start = left[count:], start + count
        except OSError as error:
            raise InputError(f"the disk cache cannot be read ({error.strerror or error})") from error
        return planes


def size_text(count: int) -> str:
    """So many bytes in words, in a unit in which they are no 0.00: ``"1.25 GB"``, ``"7.4 MB"``, ``"86 kB"``."""
    if count >= 1e8:
        return f"{count / 1e9:.2f} GB"
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.0f} kB"


def _itself(planes: np.ndarray) -> np.ndarray:
    return planes


def _write(file: int, planes: np.ndarray, start: int) -> None:
    left = memoryview(planes).cast("B")
    while left:
        count = os.pwrite(file, left, start)
        left, start = left[count:], start + count
