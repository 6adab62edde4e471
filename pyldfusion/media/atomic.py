"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import InputError

__all__ = ["atomic_path"]


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a hidden temporary path beside `path`; it becomes `path`, or is removed on an error.

    It has the suffix of `path`, for writers that choose the format by it.
    Missing parent folders are made; an existing file is replaced; a link keeps pointing where it points.
    Raises InputError where it cannot be written: folder read-only, disk full, not a regular file.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise InputError(f"cannot write {path}: it exists and is not a regular file; choose another name")
    blocked = next((parent for parent in target.parents if parent.exists() and not parent.is_dir()), None)
    if blocked is not None:
        raise InputError(f"cannot write {path}: {blocked} is not a folder; choose another name")
    part = target.with_name(f".{target.stem}.{os.getpid()}.part{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, target)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot write {path}: {reason}; check the folder and its free space") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
