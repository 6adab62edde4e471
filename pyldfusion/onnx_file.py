"""Metadata and weights of an ONNX file, read without the onnx package and without a runtime.

ONNX is protobuf. What is needed of it (onnx.proto3; fields by number) is little enough to read directly, so that a
machine that only runs models can still say what a file is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["read_initialisers", "read_metadata", "read_node_names"]

_MODEL_OPSETS, _MODEL_GRAPH, _MODEL_METADATA = 8, 7, 14
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_NODE_NAME = 3
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 4, 8, 9
_TENSOR_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 10: np.dtype("<f2"), 11: np.dtype("<f8")}


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


def read_metadata(path: Path) -> dict[str, str]:
    """The strings a model carries, and ``opset``: the version of the standard operators.

    Raises:
        ValueError, IndexError, TypeError: not an ONNX file, or a damaged one: where the file says its graph's hash,
            that is compared, since a runtime may do anything with a damaged graph.
    """
    metadata: dict[str, str] = {}
    graph = None
    opsets = []
    for number, value in _fields(memoryview(path.read_bytes())):
        if number == _MODEL_METADATA:
            entry = {n: _text(v) for n, v in _fields(value)}
            metadata[entry.get(1, "")] = entry.get(2, "")
        elif number == _MODEL_OPSETS:
            opset = dict(_fields(value))
            domain, version = _text(opset.get(1, b"")), str(opset.get(2, 0))
            opsets.append(f"{domain}:{version}")
            if not domain:
                metadata["opset"] = version
        elif number == _MODEL_GRAPH:
            graph = value
    if graph is None:
        raise ValueError("it holds no graph")
    if "graph_sha256" in metadata:
        digest = hashlib.sha256(",".join(opsets).encode())
        digest.update(graph)
        if digest.hexdigest() != metadata["graph_sha256"]:
            raise ValueError("its graph is not the one that was written; metadata 'graph_sha256' has that one's hash")
    return metadata


def read_initialisers(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Names and values of the graph's floating-point constants, as stored (float16, float32 or float64).

    Raises:
        ValueError, IndexError, TypeError: not an ONNX file, or a damaged one.
    """
    for number, graph in _fields(memoryview(path.read_bytes())):
        if number != _MODEL_GRAPH:
            continue
        for graph_field, tensor in _fields(graph):
            if graph_field == _GRAPH_INITIALIZER:
                parsed = _tensor(tensor)
                if parsed is not None:
                    yield parsed


def read_node_names(path: Path) -> list[str]:
    """Names of the graph's nodes, in order.

    Raises:
        ValueError, IndexError, TypeError: not an ONNX file, or a damaged one.
    """
    return [
        _text(dict(_fields(node)).get(_NODE_NAME, b""))
        for number, graph in _fields(memoryview(path.read_bytes()))
        if number == _MODEL_GRAPH
        for graph_field, node in _fields(graph)
        if graph_field == _GRAPH_NODE
    ]


def _tensor(data: memoryview) -> tuple[str, np.ndarray] | None:
    shape: list[int] = []
    dtype, name, content = 0, "", memoryview(b"")
    for number, value in _fields(data):
        if number == _TENSOR_DIMS:
            shape += [value] if isinstance(value, int) else list(_varints(value))
        elif number == _TENSOR_TYPE:
            dtype = value
        elif number == _TENSOR_NAME:
            name = _text(value)
        elif number in (_TENSOR_RAW, _TENSOR_FLOATS):
            content = value
    if dtype not in _TENSOR_DTYPES:
        return None  # shapes and indices
    values: np.ndarray = np.frombuffer(content, _TENSOR_DTYPES[dtype])
    return name, values.reshape(shape)


def _text(value: Any) -> str:
    if isinstance(value, int):  # of which bytes() would make as many zeros
        raise ValueError("a number stands where a text should")
    return bytes(value).decode()


def _varints(packed: memoryview) -> Iterator[int]:
    value = shift = 0
    for byte in packed:
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            yield value
            value = shift = 0
