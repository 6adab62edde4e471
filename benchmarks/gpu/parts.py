"""A training run in files small enough to bring back: its state in 16 bits, cut into parts.

``python -m benchmarks.gpu.parts FOLDER --out RUN`` puts the parts together again: ``RUN/state.pt``, with which
``python -m trainer --resume`` goes on, and ``RUN/weights.safetensors``.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pyldfusion.artefact import open_artefact, save_weights
from pyldfusion.errors import ArtefactError, PyldfusionError
from trainer.run.checkpoint import load_state, save_state

__all__ = ["PART_BYTES", "join", "split"]

PART_BYTES = 15_000_000
INDEX = "parts.json"


def split(run: Path, folder: Path, most: int = PART_BYTES) -> list[Path]:
    """Write the state of the run in ``run`` to ``folder`` as ``state.0``, ``state.1`` ... and an index.

    Weights become float16; what the optimiser remembers becomes bfloat16, since squares of gradients are below
    float16's range. A run goes on with them, though not to the bit.

    Args:
        run: folder of a run of the trainer.
        folder: made if it is not there.
        most: bytes of a part.

    Raises:
        ArtefactError: there is no run in ``run``.
    """
    state = load_state(run / "state.pt")
    small = {
        key: _cast(value, {torch.float32: torch.bfloat16 if key == "optimiser" else torch.float16})
        for key, value in state.items()
    }
    buffer = io.BytesIO()
    torch.save({"state": small, "metadata": open_artefact(run / "weights.safetensors").metadata}, buffer)
    whole = buffer.getvalue()
    pieces = [whole[start : start + most] for start in range(0, len(whole), most)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)  # from here on the parts are none until all of them are there
    for old in folder.glob("state.*"):
        old.unlink()
    names = [f"state.{number}" for number in range(len(pieces))]
    for name, piece in zip(names, pieces, strict=True):
        (folder / name).write_bytes(piece)
    index = {"step": state["step"], "parts": names, "sha256": hashlib.sha256(whole).hexdigest()}
    (folder / INDEX).write_text(json.dumps(index) + "\n")
    return [folder / name for name in names]


def join(folder: Path, run: Path) -> int:
    """The inverse: ``state.pt`` and ``weights.safetensors`` in ``run``, float32 again; the steps done.

    Raises:
        ArtefactError: a part is missing or damaged.
    """
    try:
        index = json.loads((folder / INDEX).read_text())
        whole = b"".join((folder / name).read_bytes() for name in index["parts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"{folder} does not hold the parts of a run: {error}") from None
    if hashlib.sha256(whole).hexdigest() != index.get("sha256"):
        raise ArtefactError(f"{folder}: the parts do not fit together; bring all of {index['parts']} of one run")
    read = torch.load(io.BytesIO(whole), map_location="cpu", weights_only=True)
    state = _cast(read["state"], {torch.float16: torch.float32, torch.bfloat16: torch.float32})
    run.mkdir(parents=True, exist_ok=True)
    save_state(run / "state.pt", state)
    save_weights(state["average"], run / "weights.safetensors", {**read["metadata"], "step": str(state["step"])})
    return int(state["step"])


def _cast(value: Any, to: dict[torch.dtype, torch.dtype]) -> Any:
    """The same tree with tensors of several numbers in other types."""
    if isinstance(value, dict):
        return {key: _cast(item, to) for key, item in value.items()}
    if isinstance(value, list):
        return [_cast(item, to) for item in value]
    if isinstance(value, torch.Tensor) and value.numel() > 1:
        return value.detach().cpu().to(to.get(value.dtype, value.dtype))
    return value


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("benchmarks.gpu.parts", description="Put the parts of a training run together.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True, metavar="RUN")
    args = parser.parse_args(argv)
    try:
        step = join(args.folder, args.out)
    except PyldfusionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: step {step}; {args.out / 'weights.safetensors'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
