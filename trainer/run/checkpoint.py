"""The state of a run on disk: a kill or a full disk at any moment leaves the last good one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from pyldfusion.errors import ArtefactError, PyldfusionError

__all__ = ["CheckpointError", "load_state", "save_state"]


#: What a state has.
KEYS = {"variant", "step", "skipped", "generator", "optimiser", "average", "scaler", "config"}


class CheckpointError(PyldfusionError, OSError):
    """A checkpoint could not be written; the one before it is whole."""


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Everything a run needs to go on, in one file: written under another name, then renamed.

    Raises:
        CheckpointError: no space, no permission; ``path`` is what it was.
    """
    for left in path.parent.glob(f".{path.name}.*"):  # of a run that was killed while it wrote
        left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        torch.save(state, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as RuntimeError
        raise CheckpointError(f"{path} could not be written ({error}); free some space or set another --out") from None
    finally:
        temporary.unlink(missing_ok=True)


def load_state(path: Path) -> dict[str, Any]:
    """Inverse of :func:`save_state`; only tensors and plain values are read, never code.

    Raises:
        ArtefactError: no such file, or not one of :func:`save_state`.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ArtefactError(f"nothing to resume: {path} does not exist; start the run without --resume") from None
    except Exception as error:
        raise ArtefactError(f"{path} cannot be read as the state of a run: {error}") from None
    if not isinstance(state, dict) or not state.keys() >= KEYS:
        raise ArtefactError(f"{path} is not the state of a run; expected a file that the trainer wrote")
    return state
