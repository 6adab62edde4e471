"""The native module, loaded or its absence explained, and the checks that all its doors share."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DependencyError, DtypeError, InputError

try:
    from . import _native
except ImportError as error:
    raise DependencyError(
        f"pyldfusion's native module cannot be loaded ({error}). Install the package with `pip install .`, or in a "
        "checkout build it with `python setup.py build_ext --inplace`"
    ) from error

__all__ = ["_native", "checked_array", "checked_dtype", "packed", "same_place", "thread_count"]


def thread_count(threads: int | None = None) -> int:
    """Threads to use: ``threads``, else ``PYLDFUSION_THREADS``, else the number of CPUs this process may run on.

    Raises:
        InputError: not a whole number from 1 to 1024.
    """
    source = "threads"
    given: Any = threads
    if threads is None:
        source, given = "the environment variable PYLDFUSION_THREADS", os.environ.get("PYLDFUSION_THREADS")
        if not given:
            return _cpus()
    try:
        count = int(given) if isinstance(given, str) else given.__index__()
    except (AttributeError, TypeError, ValueError):
        count = 0
    if not 1 <= count <= 1024:
        raise InputError(f"{source} is {given!r}; expected a whole number from 1 to 1024")
    return count


def _cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def checked_array(name: str, value: Any, axes: tuple[str, ...], *dtypes: type[np.generic]) -> NDArray[Any]:
    """``value`` as an array, or an error if it is not of these axes and one of these types in native byte order."""
    array = np.asarray(value)
    if not any(array.dtype == dtype for dtype in dtypes):
        names = ", ".join(np.dtype(dtype).name for dtype in dtypes)
        raise DtypeError(f"{name} is {array.dtype}; expected {names}. Convert with .astype() and mind the value range")
    if array.ndim != len(axes):
        raise InputError(f"{name} has shape {array.shape}; expected [{','.join(axes)}], {len(axes)} dimensions")
    return array


def checked_dtype(dtype: Any, *dtypes: type[np.generic]) -> np.dtype[Any]:
    """``dtype``, as a name or whatever NumPy takes for one, or an error if it is none of these."""
    try:
        wanted = np.dtype(dtype)
        if wanted in dtypes:
            return wanted
        given = str(wanted)
    except TypeError:
        given = repr(dtype)
    raise DtypeError(f"dtype is {given}; expected one of {', '.join(np.dtype(known).name for known in dtypes)}")


def packed(array: NDArray[Any]) -> NDArray[Any]:
    """``array``, or a copy that is C-contiguous and aligned."""
    return np.require(array, requirements=["C_CONTIGUOUS", "ALIGNED"])


def same_place(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two arrays of one shape and dtype are the same memory."""
    return a.ctypes.data == b.ctypes.data and a.strides == b.strides
