"""The table of formats: what can be written, from which the help, the checks, the docs, `bench` and `doctor` follow.

Adding a format is a row here, a module of this package with ``write_model`` (and ``add_report``, where a file is built;
:mod:`export.pipeline` calls both), and a row in :data:`pyldfusion.engines.choice.RUNTIMES` for what opens it. Nothing
here imports torch, onnx or a runtime.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from pyldfusion.engines.choice import RUNTIMES
from pyldfusion.errors import InputError, did_you_mean

from .precision import RECIPES

__all__ = ["FORMATS", "Format", "find", "find_suffix", "precision_table", "table"]


@dataclass(frozen=True)
class Format:
    """One row: a kind of file that can be written.

    Attributes:
        name: the word after ``--format``.
        suffix: of the file, with its dot.
        kind: what :class:`~pyldfusion.artefact.Artefact` calls such files.
        module: the module of this package that writes it.
        precisions: recipes it comes in, of :data:`~export.precision.RECIPES`; the first is the default.
        half: the one of them that ``--half`` stands for.
        options: options of the command that only some formats have, and this one has.
        packages: what must be installed to write it, beside torch, onnx and onnxscript.
        install: the command that installs them.
        about: one line for help and docs.
        built: made for the machine it is written on, in minutes: it is not written a second time.
    """

    name: str
    suffix: str
    kind: str
    module: str
    precisions: tuple[str, ...]
    half: str
    options: tuple[str, ...]
    packages: tuple[str, ...]
    install: str
    about: str
    built: bool = False

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The engines of :class:`~pyldfusion.Fuser` that open it."""
        return tuple(name for name, row in RUNTIMES.items() if self.kind in row.kinds)

    @property
    def missing(self) -> tuple[str, ...]:
        """The packages that writing it needs and this machine has not."""
        needed = ("torch", "onnx", "onnxscript", *self.packages)
        return tuple(package for package in needed if importlib.util.find_spec(package) is None)


FORMATS = {
    row.name: row
    for row in (
        Format(
            name="onnx",
            suffix=".onnx",
            kind="onnx",
            module="onnx",
            precisions=("fp32", "fp16-stored", "fp16", "int8"),
            half="fp16",
            options=(),
            packages=(),
            install="pip install 'pyldfusion[export]'",
            about="one graph that every runtime reads, and the source of the other formats",
        ),
        Format(
            name="openvino",
            suffix=".xml",
            kind="openvino",
            module="openvino",
            precisions=("fp32", "fp16-stored", "fp16", "int8"),
            half="fp16-stored",
            options=(),
            packages=("openvino",),
            install="pip install 'pyldfusion[export,openvino]'",
            about="an OpenVINO model, with its weights beside it in a .bin",
        ),
        Format(
            name="engine",
            suffix=".engine",
            kind="tensorrt",
            module="engine",
            precisions=("fp32", "fp16", "int8"),
            half="fp16",
            options=(
                "device",
                "workspace",
                "optimization_level",
                "timing_cache",
                "low_memory",
                "hardware",
                "version_compatible",
                "weak_typing",
                "force",
            ),
            packages=("tensorrt",),
            install="pip install 'pyldfusion[export,tensorrt]', or on a Jetson the system's package",
            about="a TensorRT engine for the GPU it is built on, its graph and a sidecar beside it",
            built=True,
        ),
    )
}


def find(name: str) -> Format:
    """The format of that name; raises InputError, with the closest name or suffix, for an unknown one."""
    if name in FORMATS:
        return FORMATS[name]
    bare = str(name).lower().lstrip(".")
    meant = next((row.name for row in FORMATS.values() if bare in (row.kind, row.suffix[1:])), name)
    known = ", ".join(f"{row.name} ({row.suffix})" for row in FORMATS.values())
    raise InputError(f"{name!r} is not a format{did_you_mean(meant, FORMATS, 0.5)}; there are: {known}")


def find_suffix(path: Path) -> Format:
    """The format that a file of that name is; raises InputError where no format ends so."""
    for row in FORMATS.values():
        if path.suffix == row.suffix:
            return row
    suffixes = {row.suffix: row for row in FORMATS.values()}
    raise InputError(
        f"no format ends in {path.suffix or 'nothing'!r}{did_you_mean(path.suffix, suffixes, 0.5)}; expected "
        f"{path} to end in {' or '.join(suffixes)}"
    )


def table() -> str:
    """The formats as a Markdown table, as docs/export.md has it."""
    head = ("`--format`", "file", "precisions", "options of its own", "opened by", "what it is")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in FORMATS.values():
        options = ", ".join(f"`--{name.replace('_', '-')}`" for name in row.options)
        lines.append(
            f"| `{row.name}` | `{row.suffix}` | {', '.join(row.precisions)} | {options or '-'} "
            f"| {', '.join(row.runtimes) or '-'} | {row.about} |"
        )
    return "\n".join(lines)


def precision_table() -> str:
    """The recipes as a Markdown table, as docs/export.md has it."""
    rows = (f"| `{name}` | {recipe.meaning} |" for name, recipe in RECIPES.items())
    return "\n".join(["| `--precision` | what it is |", "|---|---|", *rows])
