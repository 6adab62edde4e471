"""From a job to a file that was proven to be the network: trace, apply the recipe, write, verify, publish."""

from __future__ import annotations

import importlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyldfusion.artefact import open_artefact
from pyldfusion.errors import InputError
from pyldfusion.generator import Generator, load_generator

from .calibration import feeds
from .half_costs import half_costs
from .int8 import to_int8
from .onnx import build_model, describe
from .options import MIN_PSNR, Job
from .pairs import load_pairs
from .precision import RECIPES
from .sensitivity import name_costs
from .triton import write_repository
from .verify import Bounds, Report, verify

if TYPE_CHECKING:
    import onnx

__all__ = ["Result", "export"]

#: Pairs to verify with.
PAIRS = 4
#: Precisions that round to 16 bits.
HALVES = ("fp16", "fp16-stored")
#: How metadata begin that a file says of itself and not of its weights: not for a file made of it.
OF_THE_FILE = ("verified", "int8_", "graph_sha256", "content_sha256", "openvino", "opset")


@dataclass(frozen=True)
class Result:
    """What became of a job.

    Attributes:
        path: the file; beside the name that was asked for, with ``.rejected`` in it, where it failed.
        report: how it compares with the network; None where that was not asked for.
        advice: where it failed, what would help.
    """

    path: Path
    report: Report | None
    advice: str = ""

    @property
    def passed(self) -> bool:
        return self.report is None or self.report.passed


def export(job: Job, network: Generator | None = None) -> Result:
    """Write the file that a job asks for, and verify it.

    It is written in a folder beside its place, run there, and moved when it has passed: what has the name that was
    asked for is whole and is the network. What has not passed is kept as ``NAME.rejected.SUFFIX``, to be looked at,
    and an older file of the name asked for stays.

    Args:
        job: see :func:`~export.options.plan`.
        network: what to write; None reads it from the job's source.

    Raises:
        PyldfusionError: the weights, a package or a runtime; see :func:`~pyldfusion.generator.load_generator`,
            :func:`~export.onnx.build_model` and :func:`~export.verify.verify`.
    """
    network = network or load_generator(job.source)
    format_module = importlib.import_module(f".{job.format.module}", __package__)
    model = build_model(network, io=job.io, shape=job.shape, warp=job.warp, temporal=job.temporal, opset=job.opset)
    int8 = to_int8(model, job.data, bound=job.min_psnr, tensorrt=job.format.built) if job.precision == "int8" else None
    exact = copied(model) if job.precision in HALVES else None
    model = int8.model if int8 else RECIPES[job.precision].apply(model)
    about = {
        **{name: value for name, value in job.source.metadata.items() if not name.startswith(OF_THE_FILE)},
        **describe(network, io=job.io, precision=job.precision, shape=job.shape, warp=job.warp, temporal=job.temporal),
        **(int8.metadata if int8 else {}),
    }
    own = {"shape": job.shape, **job.own} if job.format.built else {}
    with _folder_beside(job.output) as folder:
        staged = Path(folder) / job.output.name
        format_module.write_model(model, staged, about, **own)
        report = None
        if job.verify:
            pairs, about_pairs = load_pairs(job.data, PAIRS, "verify")
            report = verify(
                staged,
                model,
                network,
                row=job.format,
                write=lambda graph, path: format_module.write_model(graph, path, about),
                io=job.io,
                precision=job.precision,
                shape=job.shape,
                bounds=Bounds({"bf16": MIN_PSNR["fp16"], job.precision: job.min_psnr}, job.tolerance),
                pairs=pairs,
                about_pairs=about_pairs,
            )
            if job.format.built:
                format_module.add_report(staged, report.metadata())
            else:
                format_module.write_model(model, staged, {**about, **report.metadata()})
        result = Result(job.output, report)
        if not result.passed:
            advice = int8.advice() if int8 else ""
            if exact is not None:
                inputs = feeds(exact, pairs)
                advice = name_costs(half_costs(exact, inputs, computed=job.precision == "fp16"), 16)
            result = Result(job.output.with_stem(f"{job.output.stem}.rejected"), report, advice)
        publish(staged, result.path)
    if job.triton is not None and result.passed:
        write_repository(open_artefact(result.path), job.triton)
    return result


def _folder_beside(path: Path) -> tempfile.TemporaryDirectory[str]:
    """On the file system of ``path``, so that files are moved from there and not copied."""
    try:
        return tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-")
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; check the folder and its free space, or give another "
            "place with -o"
        ) from error


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = type(model)()
    copy.CopyFrom(model)
    return copy


def publish(staged: Path, path: Path) -> None:
    """Move a file, and those that belong to it, to their place and name; the file itself last.

    Where a file has companions, an older one goes first: there is never a new companion with an old file.
    """
    companions = [file for file in staged.parent.iterdir() if file != staged]
    if companions:
        path.unlink(missing_ok=True)
    for file in companions:
        file.replace(path.with_name(path.stem + file.name.removeprefix(staged.stem)))
    staged.replace(path)
