"""What a run leaves for people: ``log.csv``, TensorBoard, ``summary.json``."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Log", "Table", "write_summary"]


class Table:
    """A CSV file that a resumed run continues: rows from ``first`` on are dropped, new columns are added."""

    def __init__(self, path: Path, first: int) -> None:
        self.path, self.rows = path, []
        if first and path.is_file():
            with path.open(newline="", errors="replace") as file:
                lines = (line.replace("\0", "") for line in file)  # Python 3.10's csv refuses them
                rows = [row for row in csv.DictReader(lines) if _is_whole(row)]
            self.rows = [row for row in rows if int(row["step"]) < first]
        self.file: Any = None

    def write(self, row: dict[str, Any]) -> None:
        """Append a row; it is on disk when this returns."""
        if self.file is None:
            columns = list(dict.fromkeys([*row, *(self.rows[0] if self.rows else ())]))
            self.file = self.path.open("w", newline="")
            self.writer = csv.DictWriter(self.file, columns, restval="")
            self.writer.writeheader()
            self.writer.writerows(self.rows)
        self.writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
        self.file.flush()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


def _is_whole(row: dict[str | None, Any]) -> bool:
    """Whether a row is one that was written: a power cut or a full disk leaves less, or other bytes."""
    return None not in row and None not in row.values() and row.get("step", "").isdecimal()


class Log:
    """Scalars of a run, as ``log.csv``, ``validation.csv`` and TensorBoard events, and pictures.

    Args:
        out: folder of the run.
        first: the step it begins with; what an interrupted run wrote from there on is replaced.
    """

    def __init__(self, out: Path, first: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self.out = out
        self.table, self.validation = Table(out / "log.csv", first), Table(out / "validation.csv", first)
        self.board = SummaryWriter(str(out / "tensorboard"), purge_step=first or None)
        self.start, self.warned = time.monotonic(), False

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        for open_file in (self.table, self.validation, self.board):
            with self._tolerated():
                open_file.close()

    @contextlib.contextmanager
    def _tolerated(self) -> Iterator[None]:
        """A full disk ends no run: its checkpoints only warn, and so do its logs, once."""
        try:
            yield
        except OSError as error:
            if not self.warned:
                why = error.strerror or error
                warnings.warn(f"logs in {self.out} cannot be written ({why}); the run goes on", stacklevel=4)
            self.warned = True

    def step(self, step: int, values: dict[str, float]) -> None:
        """One row of ``log.csv``."""
        with self._tolerated():
            self.table.write({"step": step, **values, "seconds": time.monotonic() - self.start})
        with self._tolerated():
            for name, value in values.items():
                self.board.add_scalar(f"train/{name}", value, step)

    def validated(self, step: int, means: dict[str, float], strip: np.ndarray) -> None:
        """Metrics of the validation pairs, and their pictures uint8 [H,W]."""
        import cv2

        with self._tolerated():
            self.validation.write({"step": step, **means})
        with self._tolerated():
            for name, value in means.items():
                self.board.add_scalar(f"validation/{name}", value, step)
            self.board.add_image("validation/ir, vis, fused", strip, step, dataformats="HW")
        with self._tolerated():
            folder = self.out / "pictures"
            folder.mkdir(exist_ok=True)
            cv2.imwrite(str(folder / f"step_{step:06d}.png"), strip)


def write_summary(path: Path, values: dict[str, Any]) -> None:
    """``summary.json``, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(values, indent=1) + "\n")
    os.replace(temporary, path)
