"""The state of a run on disk: a kill at any moment leaves the last good one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from pyldfusion.errors import ArtefactError

__all__ = ["load_state", "save_state"]


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Everything a run needs to go on, in one file: written under another name, then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        torch.save(state, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_state(path: Path) -> dict[str, Any]:
    """Inverse of :func:`save_state`; only tensors and plain values are read, never code."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ArtefactError(f"nothing to resume: {path} does not exist; start the run without --resume") from None
    except Exception as error:
        raise ArtefactError(f"{path} cannot be read as the state of a run: {error}") from None
