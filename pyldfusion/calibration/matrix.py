"""Files that hold a bare homography, in the forms other programs write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

__all__ = ["checked_homography", "load_homography"]


def load_homography(path: str | Path) -> NDArray[np.float64]:
    """Read a 3x3 homography (infrared to visible pixels), scaled so that its last entry is 1.

    Files: text (nine numbers, # starts a comment), .json (the rows, or an object that holds them), .npy, and
    what OpenCV's FileStorage writes (.yml, .yaml, .xml). Of several matrices the one called `homography` or `H`
    is taken.
    Raises InputError if there is no such file or no invertible 3x3 matrix in it.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a 3x3 homography as text, .json, .npy or .yml")
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            found: Any = np.load(path, allow_pickle=False)
        elif suffix == ".json":
            found = json.loads(path.read_text("utf-8"))
        elif suffix in (".yml", ".yaml", ".xml"):
            found = _read_file_storage(path)
        else:
            lines = [line.split("#")[0] for line in path.read_text("utf-8").splitlines()]
            found = [float(word) for word in " ".join(lines).replace(",", " ").replace(";", " ").split()]
    except (OSError, ValueError, EOFError, RecursionError, SystemError, cv2.error) as error:  # FileStorage: SystemError
        raise InputError(f"{path}: not a homography file ({error}); expected nine numbers, three a row") from error
    return checked_homography(_choose(found, path), str(path))


def _read_file_storage(path: Path) -> dict[str, Any]:
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)
    try:
        root = storage.root()
        nodes = {name: root.getNode(name) for name in root.keys()}  # noqa: SIM118  (not a dict)
        return {name: node.mat() for name, node in nodes.items() if node.isMap()}  # matrices are maps there
    finally:
        storage.release()


def _choose(found: Any, path: Path) -> NDArray[np.float64]:
    """The 3x3 matrix in what a file held: itself, or the one of its entries that is meant."""
    if not isinstance(found, Mapping):
        found = {"homography": found}
    matrices = {name: matrix for name, value in found.items() if (matrix := _as_matrix(value)) is not None}
    named = [matrix for name, matrix in matrices.items() if name.lower() in ("homography", "h")]
    if named or len(matrices) == 1:
        return named[0] if named else next(iter(matrices.values()))
    if "homographies" in found:
        raise InputError(f"{path}: a calibration, not a bare matrix; give it as --calibration")
    names = ", ".join(matrices) or "none"
    raise InputError(f"{path}: expected one 3x3 matrix, or one called 'homography'; it has {names}")


def _as_matrix(value: Any) -> NDArray[np.float64] | None:
    try:
        matrix = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return matrix.reshape(3, 3) if matrix.shape in ((3, 3), (9,)) else None


def checked_homography(matrix: NDArray[Any], name: str) -> NDArray[np.float64]:
    """`matrix` as float64 [3,3] with the last entry 1; InputError with `name` if it is no homography."""
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or matrix[2, 2] == 0:
        raise InputError(f"{name}: expected a finite 3x3 matrix whose last entry is not 0, got {matrix.tolist()}")
    scaled = matrix.astype(np.float64) / matrix[2, 2]
    if abs(np.linalg.det(scaled)) < 1e-9:
        raise InputError(f"{name}: the matrix cannot be inverted, so it is no homography: {matrix.tolist()}")
    return scaled
