"""What a model file says of itself, read without importing a runtime.

Graphs hold the network (``.onnx`` for any runtime, ``.xml`` with its ``.bin`` for OpenVINO; ``python -m export`` writes
them), and ``.safetensors`` its weights alone (written by the trainer and by ``pyldfusion import-weights``). All carry
metadata, and give the weights back under the names of the state dict. A TensorRT engine (``.engine``, ``.plan``,
``.trt``) gives nothing back; what is known of it is in a file beside it (:mod:`~pyldfusion.sidecar`).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from . import onnx_file, openvino_file, sidecar
from .errors import ArtefactError, DependencyError

__all__ = ["BUNDLED", "METHODS", "NAMES", "Artefact", "open_artefact", "save_weights"]

WEIGHTS = Path(__file__).parent / "weights"
#: Names of the bundled files, which may be given instead of a path.
BUNDLED = ("full", "lite")
#: Names of methods that need no file, and what they are.
METHODS = {"pyramid": "edge-preserving pyramid (pyldfusion.kernels.pyramid), no network and no weights"}
#: All that may be given instead of a path.
NAMES = (*BUNDLED, *METHODS)
#: Prefix of initialisers in a graph, where the network is a part of the frame graph.
GRAPH_PREFIX = "generator."

_KINDS = {
    ".onnx": "onnx",
    ".xml": "openvino",
    ".safetensors": "safetensors",
    ".engine": "tensorrt",
    ".trt": "tensorrt",
    ".plan": "tensorrt",
}
#: What reads graphs: both modules have the same two functions.
_GRAPHS = {"onnx": onnx_file, "openvino": openvino_file}


@dataclass(frozen=True)
class Artefact:
    """A model file and what it says of itself; or a method without a file, of :data:`METHODS`.

    Attributes:
        path: where it is; of a method the name alone.
        kind: ``"onnx"``, ``"openvino"``, ``"safetensors"``, ``"tensorrt"`` or ``"method"``.
        metadata: everything the file carries, strings by name: variant, recipe, precision, io, versions, date, ...
    """

    path: Path
    kind: str
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def variant(self) -> str:
        """``"full"``, ``"lite"``, or ``"unknown"`` for a graph that did not come from here."""
        return self.metadata.get("variant", "unknown")

    @property
    def precision(self) -> str:
        """How the weights are stored and computed: ``"fp32"``, ``"fp16-stored"``, ..."""
        return self.metadata.get("precision", "unknown" if self.kind == "tensorrt" else "fp32")

    @property
    def io(self) -> str:
        """``"frames"`` (uint8 pictures in and out), ``"planes"`` (float luma planes) or ``"weights"`` (no graph)."""
        return "weights" if self.kind == "safetensors" else self.metadata.get("io", "unknown")

    @property
    def temporal(self) -> bool:
        """Whether it is a graph that smooths its statistics over time."""
        return self.metadata.get("temporal") == "yes"

    @property
    def exact(self) -> bool:
        """Whether 16 bits are too few for what it computes beside the network: coordinates, or a state over time."""
        return self.temporal or self.metadata.get("warp") == "yes"

    @cached_property
    def fixed(self) -> tuple[int | None, int | None, int | None]:
        """Frames at once, height and width that a graph is for; None for what it leaves open."""
        sizes = self.metadata.get("shape", "").split(",")
        n, h, w = (int(s) if re.fullmatch("[0-9]{1,6}", s) else None for s in (sizes if len(sizes) == 3 else "NHW"))
        return n, h, w

    @property
    def called(self) -> str:
        """What a message calls things of its kind: ``".onnx files"``, ``"the method 'pyramid'"``."""
        return f"the method {self.path.name!r}" if self.kind == "method" else f"{self.path.suffix} files"

    @property
    def size(self) -> int:
        """Bytes on disk; 0 of a method."""
        return sum(file.stat().st_size for file in self._files)

    @property
    def _files(self) -> tuple[Path, ...]:
        if self.kind == "method":
            return ()
        return (self.path, self.path.with_suffix(".bin")) if self.kind == "openvino" else (self.path,)

    @cached_property
    def sha256(self) -> str:
        """Hash of the file, hexadecimal; of an OpenVINO model, of both files one after the other; "" of a method."""
        if not self._files:
            return ""
        digest = hashlib.sha256()
        for path in self._files:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    def state_dict(self) -> dict[str, np.ndarray]:
        """The network's weights, float32, by the names of ``Generator.state_dict()``.

        A graph leaves out biases that are zero, as those are that the export found dead (:mod:`pyldfusion.rewrites`);
        they come back as zeros.

        Raises:
            ArtefactError: the file holds no such weights.
        """
        if self.kind == "safetensors":
            return _read_safetensors(self.path)
        if self.kind == "method":
            raise ArtefactError(f"{self.path.name} is a method without weights; open a file that holds a network")
        if self.kind not in _GRAPHS:
            raise ArtefactError(f"{self.path.name} is a {self.kind} engine: the weights cannot be read back from it")
        with _reading(self.path):
            weights = {
                name.removeprefix(GRAPH_PREFIX): tensor.astype(np.float32)
                for name, tensor in _GRAPHS[self.kind].read_initialisers(self.path)
                if name.startswith(GRAPH_PREFIX)
            }
            _undo_rewrites(weights)
        if not weights:
            raise ArtefactError(f"{self.path} holds no weights of a fusion network; was it exported by pyldfusion?")
        return weights


def _undo_rewrites(weights: dict[str, np.ndarray]) -> None:
    """Graph's weights -> the network's, in place: the inverse of :mod:`pyldfusion.rewrites`."""
    last = weights.get("decoder.out.weight")
    if last is not None and last.shape[0] > 1:  # one kernel, at as many shifts as there are outputs (BlockConv)
        kernel = last.shape[2] - math.isqrt(last.shape[0]) + 1
        weights["decoder.out.weight"] = last[:1, :, :kernel, :kernel]
        if "decoder.out.bias" in weights:
            weights["decoder.out.bias"] = weights["decoder.out.bias"][:1]
    for name, tensor in list(weights.items()):
        if name.endswith((".gamma", ".beta")):
            weights[name] = tensor.reshape(-1)
        bias = name.removesuffix("weight") + "bias"
        if name.endswith("weight") and bias not in weights:
            # a transposed convolution has its outputs on the second axis
            outputs = tensor.shape[1 if name.startswith("decoder.up.") else 0]
            weights[bias] = np.zeros(outputs, np.float32)


def open_artefact(path: str | Path) -> Artefact:
    """Look at a model file.

    Args:
        path: a file, ``"full"`` or ``"lite"`` for the bundled ones, or ``"pyramid"``, which needs none.

    Raises:
        ArtefactError: missing, empty, of an unknown suffix, damaged, or a suffix that does not fit its content.
    """
    if str(path) in METHODS:
        facts = {"variant": str(path), "io": "frames", "method": METHODS[str(path)], "clip_trained": "no weights"}
        return Artefact(Path(path), "method", facts)
    # whatever lies here under that name: no model file is without a suffix
    file = WEIGHTS / f"{path}.onnx" if str(path) in BUNDLED else Path(path)
    if not file.is_file():
        what = "is a directory" if file.is_dir() else "does not exist"
        raise ArtefactError(
            f"model file {str(file)!r} {what}; expected {', '.join(sorted(_KINDS))}, or a name: " + ", ".join(NAMES)
        )
    kind = _KINDS.get(file.suffix.lower())
    if kind is None:
        authors = "; the authors' files become ours with `pyldfusion import-weights`" if file.suffix == ".pt" else ""
        known = ", ".join(sorted(_KINDS))
        raise ArtefactError(f"{file.name}: unknown kind of model file; expected one of {known}{authors}")
    if file.stat().st_size == 0:
        raise ArtefactError(f"{file} is empty")
    readers = {"safetensors": _safetensors_metadata, "tensorrt": _sidecar_metadata}
    readers |= {name: module.read_metadata for name, module in _GRAPHS.items()}
    with _reading(file):
        metadata = readers[kind](file)
    return Artefact(file, kind, metadata)


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Whatever a parser trips over becomes one typed error."""
    try:
        yield
    except ArtefactError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, struct.error, OverflowError, RecursionError) as error:
        raise ArtefactError(f"{file} is damaged or not a {file.suffix} file ({error})") from error


def save_weights(state: Mapping[str, Any], path: str | Path, metadata: Mapping[str, str]) -> dict[str, str]:
    """Write weights as ``.safetensors``, whole or not at all.

    Args:
        state: tensors (torch or NumPy) by the names of ``Generator.state_dict()``; stored as float32.
        path: the file.
        metadata: strings; ``variant`` is expected by whoever opens the file.

    Returns:
        The metadata written, with ``pyldfusion`` (version) added.

    Raises:
        ArtefactError: a wrong suffix.
        DependencyError: the package ``safetensors`` is missing.
        InputError: it cannot be written there.
    """
    from . import __version__

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ArtefactError(f"a weight file ends in .safetensors: {path}")
    metadata = {"format": "pyldfusion", "pyldfusion": __version__, **metadata}
    # np.array copies: safetensors would write the memory behind a strided view, not the view
    tensors = {name: np.array(np.asarray(tensor), np.float32, order="C") for name, tensor in state.items()}
    content = _safetensors().save(tensors, metadata)  # its own writer tells of a full disk by a type that is not public
    from .media.atomic import atomic_path  # here: reading needs no OpenCV

    with atomic_path(path) as part:
        part.write_bytes(content)
    return metadata


def _sidecar_metadata(path: Path) -> dict[str, str]:
    known = sidecar.read(path)
    return known.flat() if known is not None else {}


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise DependencyError(
            "reading and writing .safetensors needs the package safetensors: pip install 'pyldfusion[export]'"
        ) from error
    return safetensors.numpy


def _safetensors_metadata(path: Path) -> dict[str, str]:
    """The header alone: 8 bytes of length, then JSON (format of huggingface/safetensors)."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > path.stat().st_size:
            raise ValueError("the header is longer than the file")
        header = json.loads(file.read(length))
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    if 8 + length + end != path.stat().st_size:
        raise ValueError("the file is cut short")
    return {str(name): str(value) for name, value in header.get("__metadata__", {}).items()}


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    numpy = _safetensors()
    try:
        return {name: tensor.astype(np.float32) for name, tensor in numpy.load_file(path).items()}
    except Exception as error:  # the library's error type is not public
        raise ArtefactError(f"{path} is damaged ({error})") from error
