"""What a model file says of itself, read without importing a runtime.

Two kinds of file hold the network: ``.onnx`` (a graph for any runtime, written by ``python -m export``) and
``.safetensors`` (weights alone, written by the trainer and by ``pyldfusion import-weights``). Both carry metadata,
and both give the weights back under the names of the state dict.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ArtefactError, DependencyError

__all__ = ["BUNDLED", "Artefact", "open_artefact", "save_weights"]

WEIGHTS = Path(__file__).parent / "weights"
#: Names that may be given instead of a path.
BUNDLED = ("full", "lite")
#: Prefix of initialisers in a graph, where the network is a part of the frame graph.
GRAPH_PREFIX = "generator."

_KINDS = {
    ".onnx": "onnx",
    ".safetensors": "safetensors",
    ".engine": "tensorrt",
    ".trt": "tensorrt",
    ".plan": "tensorrt",
}


@dataclass(frozen=True)
class Artefact:
    """A model file and what it says of itself.

    Attributes:
        path: where it is.
        kind: ``"onnx"``, ``"safetensors"`` or ``"tensorrt"``.
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
        return self.metadata.get("precision", "fp32")

    @property
    def io(self) -> str:
        """``"frames"`` (uint8 pictures in and out), ``"planes"`` (float luma planes) or ``"weights"`` (no graph)."""
        return "weights" if self.kind == "safetensors" else self.metadata.get("io", "unknown")

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.path.stat().st_size

    @cached_property
    def sha256(self) -> str:
        """Hash of the file, hexadecimal."""
        with self.path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def state_dict(self) -> dict[str, np.ndarray]:
        """The network's weights, float32, by the names of ``Generator.state_dict()``.

        Biases that the export found dead (see :mod:`pyldfusion.rewrites`) come back as zeros: the function is the same.

        Raises:
            ArtefactError: the file holds no such weights.
        """
        if self.kind == "safetensors":
            return _read_safetensors(self.path)
        if self.kind != "onnx":
            raise ArtefactError(f"{self.path.name} is a {self.kind} engine: the weights cannot be read back from it")
        weights = {
            name.removeprefix(GRAPH_PREFIX): tensor.astype(np.float32)
            for name, tensor in _onnx_initialisers(self.path.read_bytes())
            if name.startswith(GRAPH_PREFIX)
        }
        if not weights:
            raise ArtefactError(f"{self.path} holds no weights of a fusion network; was it exported by pyldfusion?")
        for name, tensor in list(weights.items()):
            bias = name.removesuffix("weight") + "bias"
            if name.endswith("weight") and bias not in weights:
                weights[bias] = np.zeros(tensor.shape[0], np.float32)
        return weights


def open_artefact(path: str | Path) -> Artefact:
    """Look at a model file.

    Args:
        path: a file, or ``"full"`` or ``"lite"`` for the bundled ones.

    Raises:
        ArtefactError: missing, empty, of an unknown suffix, damaged, or a suffix that does not fit its content.
    """
    bundled = str(path) in BUNDLED and not Path(path).exists()
    file = WEIGHTS / f"{path}.onnx" if bundled else Path(path)
    if not file.is_file():
        what = "is a directory" if file.is_dir() else "does not exist"
        raise ArtefactError(
            f"model file {str(file)!r} {what}; expected {', '.join(sorted(_KINDS))}, or the name of a bundled model: "
            + " or ".join(BUNDLED)
        )
    kind = _KINDS.get(file.suffix.lower())
    if kind is None:
        raise ArtefactError(f"{file.name}: unknown kind of model file; expected one of {', '.join(sorted(_KINDS))}")
    if file.stat().st_size == 0:
        raise ArtefactError(f"{file} is empty")
    readers = {"onnx": _onnx_metadata, "safetensors": _safetensors_metadata}
    try:
        metadata = readers[kind](file) if kind in readers else {}
    except (ValueError, IndexError, KeyError, TypeError, struct.error, OverflowError, RecursionError) as error:
        raise ArtefactError(f"{file} is damaged or not a {file.suffix} file ({error})") from error
    return Artefact(file, kind, metadata)


def save_weights(state: Mapping[str, Any], path: str | Path, metadata: Mapping[str, str]) -> dict[str, str]:
    """Write weights as ``.safetensors``, whole or not at all.

    Args:
        state: tensors (torch or NumPy) by the names of ``Generator.state_dict()``; stored as float32.
        path: the file; its folder must exist.
        metadata: strings; ``variant`` is expected by whoever opens the file.

    Returns:
        The metadata written, with ``pyldfusion`` (version) added.

    Raises:
        ArtefactError: a wrong suffix.
        DependencyError: the package ``safetensors`` is missing.
    """
    from . import __version__

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ArtefactError(f"a weight file ends in .safetensors: {path}")
    metadata = {"format": "pyldfusion", "pyldfusion": __version__, **metadata}
    # np.array copies: safetensors would write the memory behind a strided view, not the view
    tensors = {name: np.array(tensor, np.float32, order="C") for name, tensor in state.items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        _safetensors().save_file(tensors, partial, metadata)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return metadata


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


# ONNX is protobuf. What is needed of it (onnx.proto3, fields by number) is little enough to read directly, so that
# neither the onnx package nor a runtime has to be there to say what a file is.
_MODEL_OPSETS, _MODEL_GRAPH, _MODEL_METADATA = 8, 7, 14
_GRAPH_INITIALIZER = 5
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 4, 8, 9
_TENSOR_DTYPES = {1: np.dtype("<f4"), 10: np.dtype("<f2"), 11: np.dtype("<f8")}


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Field numbers and values of one protobuf message: int for numbers, memoryview for everything with a length."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value
            if shift > 63:
                raise ValueError("a number has no end")

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        if kind not in (1, 2, 5):
            raise ValueError("not a protobuf message")
        length = {1: 8, 5: 4}.get(kind) or varint()
        if (kind == 2 and length > len(data) - at) or at + length > len(data):
            raise ValueError("the file is cut short")
        yield key >> 3, data[at : at + length]
        at += length


def _onnx_metadata(path: Path) -> dict[str, str]:
    metadata: dict[str, str] = {}
    graph = False
    for number, value in _fields(memoryview(path.read_bytes())):
        if number == _MODEL_METADATA:
            entry = {n: bytes(v).decode() for n, v in _fields(value)}
            metadata[entry.get(1, "")] = entry.get(2, "")
        elif number == _MODEL_OPSETS:
            opset = dict(_fields(value))
            if not bytes(opset.get(1, b"")):
                metadata["opset"] = str(opset.get(2, 0))
        elif number == _MODEL_GRAPH:
            graph = True
    if not graph:
        raise ValueError("it holds no graph")
    return metadata


def _onnx_initialisers(data: bytes) -> Iterator[tuple[str, np.ndarray]]:
    for number, graph in _fields(memoryview(data)):
        if number != _MODEL_GRAPH:
            continue
        for graph_field, tensor in _fields(graph):
            if graph_field == _GRAPH_INITIALIZER:
                parsed = _onnx_tensor(tensor)
                if parsed is not None:
                    yield parsed


def _onnx_tensor(data: memoryview) -> tuple[str, np.ndarray] | None:
    shape: list[int] = []
    dtype, name, content = 0, "", memoryview(b"")
    for number, value in _fields(data):
        if number == _TENSOR_DIMS:
            shape += [value] if isinstance(value, int) else list(_varints(value))
        elif number == _TENSOR_TYPE:
            dtype = value
        elif number == _TENSOR_NAME:
            name = bytes(value).decode()
        elif number in (_TENSOR_RAW, _TENSOR_FLOATS):
            content = value
    if dtype not in _TENSOR_DTYPES:
        return None  # shapes and indices
    return name, np.frombuffer(content, _TENSOR_DTYPES[dtype]).reshape(shape)


def _varints(packed: memoryview) -> Iterator[int]:
    value = shift = 0
    for byte in packed:
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            yield value
            value = shift = 0
