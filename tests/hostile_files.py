"""Damaged model files, opened as a user would; ``python -m tests.hostile_files FOLDER FIRST COUNT``.

A process of its own for the test beside it: a crash or a file that takes all memory ends this process, and the last
line printed says which file it was.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

#: Bytes that some reader or other takes for something.
FOREIGN = (b"", b"\0", b"\x89PNG\r\n\x1a\n", b"PK\3\4", b"<!DOCTYPE html><html>", b"{}", b"\xff" * 64, b"ftrt" * 9)


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """A file with one kind of damage: cut short, bits or spans changed, taken out, doubled, or another file."""
    data = bytearray(content)
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 64))
    kind = rng.integers(10)
    if kind == 0:
        return FOREIGN[rng.integers(len(FOREIGN))]
    if kind <= 2:
        del data[start:]
    elif kind <= 5:
        for at in rng.integers(0, len(data), rng.integers(1, 6)):
            data[at] = int(rng.integers(256))
    elif kind == 6:
        data[start : start + length] = bytes([rng.choice([0, 0x7F, 0xFF])]) * length
    elif kind == 7:
        del data[start : start + length]
    elif kind == 8:
        data[start:start] = rng.bytes(length)
    else:
        data[start:start] = data[start : start + length]
    return bytes(data)


def open_and_fuse(path: Path, engine: str | None = None) -> str:
    """What a user does with a file: reads its weights and fuses a pair; "ok", or the typed error's name."""
    from pyldfusion import Fuser, PyldfusionError
    from pyldfusion.artefact import open_artefact

    outcome = "ok"
    for step in ("weights", "fuse"):
        try:
            if step == "weights":
                open_artefact(path).state_dict()
            else:
                with Fuser(path, engine=engine) as fuser:
                    fuser.fuse(np.zeros((16, 16), np.uint8), np.zeros((16, 16, 3), np.uint8))
        except PyldfusionError as error:
            outcome = type(error).__name__
    return outcome


def main(folder: Path, first: int, count: int) -> None:
    """Damage the files of ``folder`` in turn, and tell what became of each: a JSON line before and one after."""
    files = sorted(folder.iterdir())
    for path in files:  # what importing the runtimes takes is not a file's fault
        for engine in (None, *(["onnxruntime"] if path.suffix == ".onnx" else [])):
            open_and_fuse(path, engine)
    peak = _peak_mb()
    for seed in range(first, first + count):
        source = files[seed % len(files)]
        rng = np.random.default_rng(seed)
        work = folder.parent / f"{folder.name}-{first}"
        work.mkdir(exist_ok=True)
        for other in files:  # the .bin of an .xml and the reverse lie beside it, whole
            if other.stem == source.stem:
                (work / other.name).write_bytes(other.read_bytes())
        (work / source.name).write_bytes(mutated(source.read_bytes(), rng))
        opened = (work / source.name).with_suffix(".xml") if source.suffix == ".bin" else work / source.name
        print(json.dumps({"seed": seed, "file": source.name}), flush=True)
        engine = "onnxruntime" if opened.suffix == ".onnx" and rng.integers(2) else None
        start = time.perf_counter()
        outcome = open_and_fuse(opened, engine)
        taken = time.perf_counter() - start
        print(json.dumps({"outcome": outcome, "seconds": taken, "more_mb": _peak_mb() - peak}), flush=True)


def _peak_mb() -> float:
    """Largest resident memory of this process so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
