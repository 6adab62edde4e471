"""Metadata and weights of an OpenVINO model (``.xml`` beside ``.bin``), read without OpenVINO.

The ``.xml`` is read once, as a stream: document types, and with them entities of any kind, are refused, so a small
file cannot grow, and no file but the ``.bin`` beside it is ever opened. OpenVINO trusts both: it maps the ``.bin`` into
memory and dies of one that is too short or whose numbers lead it astray. So only what has the hash that the exporter
wrote is let through.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

__all__ = ["SECTION", "content_hash", "read_initialisers", "read_metadata"]

#: The part of ``rt_info`` that is ours.
SECTION = "pyldfusion"
#: Where the model's own ``rt_info`` begins: behind layers and edges, which may have some of their own.
_END = b"\n\t<rt_info>"

_DTYPES: dict[str, np.dtype[Any]] = {"f32": np.dtype("<f4"), "f16": np.dtype("<f2"), "f64": np.dtype("<f8")}
#: Bounds of what is read: bytes of the .xml (the full network has 1 million), and elements inside each other.
_LARGEST, _DEEPEST = 1 << 26, 64


def read_metadata(path: Path) -> dict[str, str]:
    """The strings in ``rt_info`` that are ours, and ``openvino``: the version that wrote the file.

    Raises:
        ValueError, LookupError, TypeError: not such a file, or a damaged one; a ``.bin`` that is missing or of another
            size than the ``.xml`` says; content of another hash than the metadata say, or without one.
    """
    metadata = _read(path).metadata
    if metadata.get("content_sha256") != content_hash(path):
        raise ValueError(
            "the hash in its metadata is not that of the two files: they are damaged, do not belong together, or were "
            "not written by pyldfusion; OpenVINO would run what they hold unchecked. Export it again"
        )
    return metadata


def content_hash(path: Path) -> str:
    """SHA-256 of a model but for its metadata, over both files."""
    content = path.read_bytes()
    digest = hashlib.sha256(content[: content.rfind(_END)])
    digest.update(path.with_suffix(".bin").read_bytes())
    return digest.hexdigest()


def read_initialisers(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Names and values of the floating-point constants, as stored (float16, float32 or float64).

    Raises:
        ValueError, LookupError, TypeError: as :func:`read_metadata`.
    """
    constants = _read(path).constants
    with path.with_suffix(".bin").open("rb") as file:
        for constant in constants:
            if constant.dtype in _DTYPES:
                file.seek(constant.offset)
                values: np.ndarray = np.frombuffer(file.read(constant.size), _DTYPES[constant.dtype])
                yield constant.name, values.reshape(constant.shape)


@dataclass
class _Constant:
    name: str
    dtype: str = ""
    shape: tuple[int, ...] = ()
    offset: int = 0
    size: int = 0


@dataclass
class _Content:
    metadata: dict[str, str] = field(default_factory=dict)
    constants: list[_Constant] = field(default_factory=list)
    layers: int = 0


def _read(path: Path) -> _Content:
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"it has more than {_LARGEST} bytes")
    content = _Content()
    parser = expat.ParserCreate()
    inside: list[str] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        inside.append(tag)
        if len(inside) > _DEEPEST:
            raise ValueError(f"its elements are nested more than {_DEEPEST} deep")
        if inside[:2] == ["net", "rt_info"]:
            _metadata(content.metadata, inside[2:], attributes)
        elif tag == "layer":
            content.layers += 1
            if attributes["type"] == "Const":
                content.constants.append(_Constant(attributes["name"].removesuffix("_compressed")))
        elif tag == "data" and inside[-2:-1] == ["layer"] and "offset" in attributes:
            constant = content.constants[-1]
            constant.dtype = attributes["element_type"]
            constant.shape = tuple(int(number) for number in attributes["shape"].split(",") if number.strip())
            constant.offset, constant.size = int(attributes["offset"]), int(attributes["size"])

    def refuse(*declaration: object) -> None:
        raise ValueError("it declares a document type, which no model does")

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda tag: inside.pop()
    parser.StartDoctypeDeclHandler = refuse
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
    except expat.ExpatError as error:
        raise ValueError(str(error)) from error
    if not content.layers:
        raise ValueError("it holds no layers of a model")
    _check_weights(path.with_suffix(".bin"), content.constants)
    return content


def _metadata(metadata: dict[str, str], inside: list[str], attributes: dict[str, str]) -> None:
    """One element of rt_info: ``<name value=""/>``, or ``<info name="" value=""/>`` where it is no XML name."""
    if "value" not in attributes:
        return
    name = attributes["name"] if inside[-1] == "info" else inside[-1]
    if inside[0] == SECTION and len(inside) == 2:
        metadata[name] = attributes["value"]
    elif name == "OpenVINO Runtime" or (name == "Runtime_version" and len(inside) == 1):
        metadata["openvino"] = attributes["value"].split("-")[0]


def _check_weights(file: Path, constants: list[_Constant]) -> None:
    if not file.is_file():
        raise ValueError(f"its weights are missing: {file.name} must lie beside it")
    expected = max((constant.offset + constant.size for constant in constants), default=0)
    if file.stat().st_size != expected:
        raise ValueError(
            f"{file.name} has {file.stat().st_size} bytes and the model needs {expected}: the two files do not belong "
            "together, or one is cut short"
        )
    for constant in constants:
        if constant.offset < 0 or constant.size < 0:
            raise ValueError(f"constant {constant.name} lies outside {file.name}")
