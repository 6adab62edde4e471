"""The network as an ONNX file: one graph with dynamic N, H and W that every runtime reads."""

from __future__ import annotations

import copy
import datetime
import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pyldfusion import __version__
from pyldfusion.errors import ArtefactError, InputError
from pyldfusion.generator import Generator
from pyldfusion.media.atomic import atomic_path
from pyldfusion.rewrites import zero_dead_biases

from .opset import OPSET, check_opset, to_opset
from .precision import RECIPES
from .shape import Shape
from .trace import trace

if TYPE_CHECKING:
    import onnx

__all__ = ["IO", "build_model", "describe", "export_onnx", "graph_hash", "write_model"]

#: What the graph takes and gives.
IO = {
    "frames": "ir uint8 [N,H,W,1], vis uint8 [N,H,W,3] (BGR) -> fused uint8 [N,H,W,3]",
    "planes": "ir, vis float32 [N,1,H,W] in [0,1] (vis: luma) -> fused the same",
}
#: The same where the graph lays the infrared onto the visible itself.
WARPED_IO = {
    "frames": "ir uint8 [N,IH,IW,1], vis uint8 [N,H,W,3] (BGR), homography float32 [N,3,3] (pixels of ir to pixels of "
    "vis) -> fused uint8 [N,H,W,3]",
    "planes": "ir [N,1,IH,IW], vis (luma) [N,1,H,W] float32 in [0,1], homography float32 [N,3,3] (pixels of ir to "
    "pixels of vis) -> fused as vis",
}
#: Added to it where the graph smooths its statistics over time.
TEMPORAL_IO = (
    "; keep float32 [1] (weight of the frames before), state_* float32 [N,S] -> new_state_* for the next frame"
)

DYNAMIC = Shape.dynamic()


def export_onnx(
    generator: Generator,
    path: str | Path,
    *,
    io: str = "frames",
    precision: str = "fp32",
    shape: Shape = DYNAMIC,
    warp: bool = False,
    temporal: bool = False,
    opset: int = OPSET,
    metadata: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Write ``generator`` as ONNX, whole or not at all: :func:`build_model`, a recipe, :func:`write_model`.

    Args:
        generator: the network; not changed.
        path: the ``.onnx`` file to write.
        io: see :data:`IO`.
        precision: see :data:`~export.precision.RECIPES`.
        shape: the sizes it takes.
        warp: whether it takes a homography, see :func:`build_model`.
        temporal: whether it smooths its statistics over time, see there.
        opset: version of ONNX's standard operators, see :data:`~export.opset.OPSETS`.
        metadata: what is known of the weights; passed on into the file.

    Returns:
        The metadata written.

    Raises:
        InputError: an unknown ``io``, ``precision`` or ``opset``, or weights that 16 bits cannot hold.
        ArtefactError: a suffix that is not ``.onnx``.
        DependencyError: onnx or onnxscript is missing.
    """
    _check_name("precision", precision, RECIPES)
    path = _check_suffix(path)
    model = RECIPES[precision].apply(
        build_model(generator, io=io, shape=shape, warp=warp, temporal=temporal, opset=opset)
    )
    about = {
        **(metadata or {}),
        **describe(generator, io=io, precision=precision, shape=shape, warp=warp, temporal=temporal),
    }
    return write_model(model, path, about)


def build_model(
    generator: Generator,
    *,
    io: str = "frames",
    shape: Shape = DYNAMIC,
    warp: bool = False,
    temporal: bool = False,
    opset: int = OPSET,
) -> onnx.ModelProto:
    """The network as a graph in FP32, with the exact rewrites of :mod:`pyldfusion.rewrites`.

    Its initialisers are named as the state dict, with ``generator.`` before them.

    Args:
        generator: the network; not changed.
        io: see :data:`IO`.
        shape: the sizes it takes; axes that are not fixed are called N, H and W.
        warp: whether there is an input more, ``homography`` float32 [N,3,3], from pixels of the infrared to pixels of
            the visible, and ``ir`` is of any size of its own, called IH and IW (:mod:`export.warp`).
        temporal: whether norms are written out and their statistics smoothed over time (:mod:`pyldfusion.smoothing`),
            for frames without ``warp``: inputs more are ``keep`` and ``state_*``, outputs more ``new_state_*``.
        opset: version of ONNX's standard operators, see :data:`~export.opset.OPSETS`.

    Raises:
        InputError: an unknown ``io`` or ``opset``.
        DependencyError: onnx or onnxscript is missing.
    """
    _check_name("io", io, IO)
    check_opset(opset)
    return to_opset(trace(generator, io, shape, warp, temporal), opset)


def describe(
    generator: Generator,
    *,
    io: str,
    precision: str,
    shape: Shape = DYNAMIC,
    warp: bool = False,
    temporal: bool = False,
) -> dict[str, str]:
    """What a file says of the graph in it, beside what is known of its weights."""
    plain = copy.deepcopy(generator)
    zero_dead_biases(plain)
    # of the weights that count, in 16 bits whatever they are stored in: a file that is made of another has its hash
    state = {name: tensor.detach().cpu().half() for name, tensor in plain.state_dict().items()}
    return {
        "variant": generator.variant,
        "io": io,
        "signature": (WARPED_IO if warp else IO)[io] + (TEMPORAL_IO if temporal else ""),
        "warp": "yes" if warp else "no",
        "temporal": "yes" if temporal else "no",
        "precision": precision,
        "shape": str(shape),
        "colour": "BGR, luma by BT.601 (OpenCV), chroma of vis",
        "weights_sha256": _hash(state),
    }


def write_model(model: onnx.ModelProto, path: str | Path, metadata: Mapping[str, str]) -> dict[str, str]:
    """Write a graph, whole or not at all.

    Args:
        model: the graph; its metadata are replaced.
        path: the ``.onnx`` file.
        metadata: what the file says of itself.

    Returns:
        The metadata written: those given, with the versions and the date of the export.

    Raises:
        ArtefactError: a suffix that is not ``.onnx``.
        InputError: it cannot be written there.
    """
    import onnx

    path = _check_suffix(path)
    onnx.checker.check_model(model, full_check=True)
    about = {
        **metadata,
        "format": "pyldfusion",
        "pyldfusion": __version__,
        "exported": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "exporter": ", ".join(
            f"{package} {version(package).split('+')[0]}" for package in ("torch", "onnx", "onnxscript")
        ),
        "graph_sha256": graph_hash(model),
    }
    del model.metadata_props[:]
    for key, value in sorted(about.items()):
        model.metadata_props.add(key=key, value=value)
    model.producer_name, model.producer_version = "pyldfusion", __version__
    with atomic_path(path) as part:
        part.write_bytes(model.SerializeToString())
    return about


def _check_name(what: str, name: str, known: Mapping[str, object]) -> None:
    if name not in known:
        raise InputError(f"{what} is {name!r}; expected one of {', '.join(known)}")


def _check_suffix(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != ".onnx":
        raise ArtefactError(f"an ONNX file ends in .onnx: {path}")
    return path


def graph_hash(model: onnx.ModelProto) -> str:
    """SHA-256 of the graph with its weights, without metadata: the same for the same weights, options and versions."""
    opsets = ",".join(f"{opset.domain}:{opset.version}" for opset in model.opset_import)
    return hashlib.sha256(opsets.encode() + model.graph.SerializeToString(deterministic=True)).hexdigest()


def _hash(state: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
