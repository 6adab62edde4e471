"""Files of a run, written to a temporary name and renamed: a kill at any moment leaves the last good one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pyldfusion.errors import ArtefactError

__all__ = ["load_state", "load_weights", "save_state", "save_weights"]


def _atomically(path: Path, write: Callable[[str], Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(str(temporary))
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_weights(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A ``.safetensors`` file of float32 tensors with what should be known of them."""
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in weights.items()}
    _atomically(path, lambda temporary: save_file(tensors, temporary, dict(metadata)))


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` file. Raises :class:`ArtefactError` if it is none."""
    try:
        return load_file(str(path))
    except Exception as error:
        raise ArtefactError(f"{path} cannot be read as safetensors weights: {error}") from None


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Everything a run needs to go on, one file."""
    _atomically(path, lambda temporary: torch.save(state, temporary))


def load_state(path: Path) -> dict[str, Any]:
    """Inverse of :func:`save_state`; only tensors and plain values are read, never code."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ArtefactError(f"nothing to resume: {path} does not exist; start the run without --resume") from None
    except Exception as error:
        raise ArtefactError(f"{path} cannot be read as the state of a run: {error}") from None
