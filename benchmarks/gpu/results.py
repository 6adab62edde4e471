"""The figures of one GPU: a JSON file that grows with every measurement, and the Markdown table made from it."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"

Column = tuple[str, str, str]  # key of the figure, heading, format

#: Sections of the file in the table's order.
TABLES: dict[str, tuple[str, tuple[Column, ...]]] = {
    "build": ("Build", (("seconds", "s", ".0f"), ("bytes", "bytes", ",d"))),
    "test": (
        "Tests",
        (("passed", "passed", "d"), ("failed", "failed", "d"), ("skipped", "skipped", "d"), ("seconds", "s", ".0f")),
    ),
    "sanitize": (
        "compute-sanitizer, over the kernel tests",
        (("errors", "errors", "d"), ("tests", "tests", "d"), ("seconds", "s", ".0f")),
    ),
    "peaks": ("Peak rates, measured", (("value", "value", ".1f"), ("unit", "unit", "s"))),
    "kernels": (
        "Norms with ReLU (each tensor counted once, against the copy bandwidth; torch: the faster of its usual ways)",
        (
            ("us", "µs", ".1f"),
            ("gb_s", "GB/s", ".0f"),
            ("of_copy", "of copy", ".0%"),
            ("of_same_copy", "of a copy of this size", ".0%"),
            ("torch_us", "torch, µs", ".1f"),
            ("times_torch", "x torch", ".2f"),
        ),
    ),
    "entropy": (
        "Entropy of patches (against the read bandwidth; torch: the authors' histc loop)",
        (
            ("us", "µs", ".1f"),
            ("gb_s", "GB/s", ".0f"),
            ("of_read", "of read", ".0%"),
            ("times_best", "x the fastest content", ".2f"),
            ("torch_us", "torch, µs", ".0f"),
            ("times_torch", "x torch", ".1f"),
        ),
    ),
    "frames": (
        "Passes round the network (each frame and plane counted once, against the copy bandwidth)",
        (("us", "µs", ".1f"), ("gb_s", "GB/s", ".0f"), ("of_copy", "of copy", ".0%")),
    ),
    "fuse": (
        "Frames to frames, full network (floor: each convolution's arithmetic or its bytes, at the measured rates)",
        (
            ("fps", "frames/s", ".1f"),
            ("p50_ms", "p50, ms", ".3f"),
            ("p99_ms", "p99, ms", ".3f"),
            ("times_authors", "x authors' eager fp32", ".2f"),
            ("floor_ms", "floor, ms", ".3f"),
        ),
    ),
    "profile": (
        "Where a frame's time goes on the device, 640x480",
        (("us", "µs", ".1f"), ("share", "share", ".0%"), ("calls", "calls", "d")),
    ),
    "accuracy": (
        "Against the CPU in fp32",
        (("within_one", "within 1 level", ".4%"), ("psnr_db", "PSNR, dB", ".1f")),
    ),
    "train": (
        "Training step",
        (
            ("authors_s", "authors', s", ".3f"),
            ("ours_s", "ours, s", ".3f"),
            ("ratio", "x authors'", ".2f"),
            ("peak_authors_mb", "authors' peak, MB", ".0f"),
            ("peak_ours_mb", "ours, MB", ".0f"),
        ),
    ),
    "trained": (
        "The bundled recipe, in pieces (the start and the loading of the pairs counted)",
        (
            ("steps", "steps", "d"),
            ("complete", "complete", "s"),
            ("steps_s", "steps/s", ".2f"),
            ("loss", "loss", ".4f"),
        ),
    ),
    "endure": (
        "Endurance: the full recipe, random towers",
        (
            ("steps", "steps", "d"),
            ("steps_s", "steps/s", ".2f"),
            ("first_mb", "peak memory at first, MB", ".0f"),
            ("last_mb", "later, MB", ".0f"),
            ("non_finite", "losses not finite", "d"),
        ),
    ),
}


@dataclass
class Results:
    """Figures of one device: ``sections[section][name]`` is a measurement with its commit and date.

    Attributes:
        path: the JSON file; every :meth:`record` writes it.
        environment: device, driver, versions, of the run at hand.
    """

    path: Path
    environment: dict[str, Any]
    sections: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, device: str) -> Results:
        """The file of this machine's GPU in ``folder``; begun from the repository's own where there is none yet."""
        environment = describe(device)
        name = re.sub(r"[^a-z0-9]+", "-", str(environment["device"]).lower()).strip("-") + ".json"
        folder.mkdir(parents=True, exist_ok=True)
        results = cls(folder / name, environment)
        for earlier in (folder / name, RESULTS / name):
            if earlier.is_file():
                results.sections = json.loads(earlier.read_text())["sections"]
                break
        return results

    def record(self, section: str, name: str, figures: Mapping[str, Any]) -> None:
        """Keeps a measurement, in place of an earlier one of this name, and says it."""
        if section not in TABLES:
            raise ValueError(f"unknown section {section!r}")
        origin = {key: self.environment[key] for key in ("commit", "date")}
        self.sections.setdefault(section, {})[name] = {**figures, **origin}
        whole = {"environment": self.environment, "sections": self.sections}
        written = self.path.with_suffix(".part")
        written.write_text(json.dumps(whole, indent=1) + "\n")
        written.replace(self.path)
        print(
            f"{section}: {name}: " + ", ".join(f"{key} {_short(value)}" for key, value in figures.items()), flush=True
        )

    @property
    def table_path(self) -> Path:
        return self.path.with_suffix(".md")

    def write_table(self) -> None:
        self.table_path.write_text(self.table())

    def table(self) -> str:
        """All figures as Markdown; what was not measured says so."""
        about = self.environment
        lines = [
            f"# {about['device']}\n",
            f"Driver {about['driver']}, CUDA {about['cuda']}, torch {about['torch']}; {about['date']}, commit "
            f"{about['commit'][:12]}. Written by `make gpu`; the figures are in `{self.path.name}`.",
        ]
        for section, (title, columns) in TABLES.items():
            rows = self.sections.get(section, {})
            if not rows:
                lines.append(f"\n## {title}\n\nnot measured")
                continue
            lines.append(f"\n## {title}\n\n| | " + " | ".join(heading for _, heading, _ in columns) + " |")
            lines.append("|---|" + "---:|" * len(columns))
            for name, figures in rows.items():
                cells = [_cell(figures.get(key), form) for key, _, form in columns]
                lines.append(f"| {name} | " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"


def describe(device: str) -> dict[str, Any]:
    """The machine and what runs on it."""
    import torch

    about = {
        "device": f"{platform.machine()} CPU",
        "driver": "none",
        "cuda": str(torch.version.cuda),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
    }
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        about |= {
            "device": card.name,
            "driver": _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").partition("\n")[0],
            "compute_capability": f"{card.major}.{card.minor}",
            "multiprocessors": card.multi_processor_count,
            "memory_gib": round(card.total_memory / 2**30, 1),
            "l2_mib": round(l2_bytes() / 2**20, 1),
            "cudnn": torch.backends.cudnn.version(),
        }
    return about


def l2_bytes() -> int:
    """Second-level cache of the GPU; where torch does not tell, as much as any had when this was written."""
    import torch

    return int(getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 128 << 20))


def commit() -> str:
    """Of the checkout, with a + where files differ from it; copies without git may be told by ``PYLDFUSION_COMMIT``."""
    found = _said("git", "-C", str(ROOT), "rev-parse", "HEAD")
    if not found:
        return os.environ.get("PYLDFUSION_COMMIT", "unknown")
    return found + ("+" if _said("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no") else "")


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(value: Any, form: str) -> str:
    return "not measured" if value is None else format(value, form)
