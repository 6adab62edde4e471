"""A model repository for Triton Inference Server from an exported file: ``NAME/config.pbtxt`` and ``NAME/1/model.*``.

The graph takes and gives frames, so the server needs no code around it. Requests of one size are batched by the server
(dynamic batching) as far as the file allows. The layout is NVIDIA's: model_config.proto of triton-inference-server.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyldfusion import sidecar
from pyldfusion.artefact import Artefact
from pyldfusion.errors import ArtefactError, InputError
from pyldfusion.media.atomic import atomic_path

__all__ = ["BACKENDS", "Backend", "write_repository"]

#: What batches may hold of a file that takes any number of frames.
MAX_BATCH = 8
#: How long the server waits for more requests before it computes those it has: well below a frame's time.
QUEUE_MICROSECONDS = 500


@dataclass(frozen=True)
class Backend:
    """How Triton runs a kind of file.

    Attributes:
        name: of the backend.
        file: name that the backend looks for; files beside it keep their own suffix.
        kind: where its instances run.
    """

    name: str
    file: str
    kind: str


#: By kind of artefact.
BACKENDS = {
    "onnx": Backend("onnxruntime", "model.onnx", "KIND_AUTO"),
    "openvino": Backend("openvino", "model.xml", "KIND_CPU"),
    "tensorrt": Backend("tensorrt", "model.plan", "KIND_GPU"),
}
#: Type and dimensions, without the batch, of what a graph takes and gives, by its ``io``; H and W stand for sizes.
PORTS: Mapping[str, Mapping[str, tuple[str, tuple[int | str, ...]]]] = {
    "frames": {
        "ir": ("TYPE_UINT8", ("H", "W", 1)),
        "vis": ("TYPE_UINT8", ("H", "W", 3)),
        "fused": ("TYPE_UINT8", ("H", "W", 3)),
    },
    "planes": {name: ("TYPE_FP32", (1, "H", "W")) for name in ("ir", "vis", "fused")},
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def write_repository(
    artefact: Artefact,
    directory: str | Path,
    *,
    name: str | None = None,
    max_batch: int | None = None,
    queue_microseconds: int = QUEUE_MICROSECONDS,
    instances: int = 1,
) -> Path:
    """Add an exported file to a model repository, as a new version of its model.

    Args:
        artefact: an ``.onnx``, ``.xml`` or TensorRT file of pyldfusion.
        directory: the repository; made if it is not there.
        name: of the model; None takes the file's.
        max_batch: frames at once; None takes what the file allows, at most :data:`MAX_BATCH`. 0 turns batching off.
        queue_microseconds: how long to wait for a fuller batch.
        instances: how many run beside each other (on every GPU, if they run there).

    Returns:
        The model's folder. It holds ``config.pbtxt`` and the new version, a number above those that were there.

    Raises:
        ArtefactError: a kind of file that Triton does not run, or one that does not say what it takes.
        InputError: numbers or a name that cannot be, or more frames than the file takes.
    """
    backend = BACKENDS.get(artefact.kind)
    if backend is None:
        raise ArtefactError(
            f"Triton does not run {artefact.path.suffix} files; export {artefact.path.name} as "
            f"{', '.join(BACKENDS)} first"
        )
    ports = PORTS.get(artefact.io)
    if ports is None:
        raise ArtefactError(f"{artefact.path} does not say what it takes and gives; was it exported by pyldfusion?")
    if artefact.exact:  # what these take beside frames is no part of the configuration
        raise ArtefactError(
            f"{artefact.path.name} takes more than two frames; export it without --warp and --temporal for Triton"
        )
    name = artefact.path.stem if name is None else name
    if not _NAME.fullmatch(name):
        raise InputError(f"the model's name is {name!r}; expected letters, digits, '_', '-' and '.': rename the file")
    if instances < 1 or queue_microseconds < 0 or (max_batch is not None and max_batch < 0):
        raise InputError(
            f"max_batch is {max_batch}, queue_microseconds {queue_microseconds} and instances {instances}; expected "
            "numbers from 0, 0 and 1 up"
        )
    batch, height, width = _sizes(artefact)
    config = _config(artefact, backend, name, ports, batch, {"H": height, "W": width}, max_batch)
    config["instance_group"] = [{"count": instances, "kind": _Word(backend.kind)}]
    if config["max_batch_size"] > 1:
        config["dynamic_batching"] = {"max_queue_delay_microseconds": queue_microseconds}
    folder = Path(directory) / name
    _add_version(artefact, folder, backend)
    with atomic_path(folder / "config.pbtxt") as part:
        part.write_text(_text(config))
    return folder


class _Word(str):
    """A member of an enumeration, which is written without quotes."""


def _config(
    artefact: Artefact,
    backend: Backend,
    name: str,
    ports: Mapping[str, tuple[str, tuple[int | str, ...]]],
    batch: tuple[int, int | None],
    sides: Mapping[str, int],
    max_batch: int | None,
) -> dict[str, Any]:
    least, most = batch
    if max_batch is not None and most is not None and max_batch > most:
        raise InputError(f"max_batch is {max_batch}, and {artefact.path.name} takes at most {most} frames at once")
    # A number of frames that is fixed is an axis like others to Triton, which batches what has an axis for it.
    fixed = least == most or least > 1 or max_batch == 0
    if fixed and max_batch:
        raise InputError(f"max_batch is {max_batch}, and {artefact.path.name} takes {least} frames at once, no fewer")
    allowed = min(most or MAX_BATCH, MAX_BATCH) if max_batch is None else max_batch
    tensors = {
        port: {
            "name": port,
            "data_type": _Word(kind),
            "dims": [
                *([least if least == most else -1] if fixed else []),
                *(sides[side] if isinstance(side, str) else side for side in dims),
            ],
        }
        for port, (kind, dims) in ports.items()
    }
    about = {key: artefact.metadata.get(key, "unknown") for key in ("variant", "precision", "weights_sha256", "colour")}
    return {
        "name": name,
        "backend": backend.name,
        "max_batch_size": 0 if fixed else allowed,
        "input": [tensors["ir"], tensors["vis"]],
        "output": [tensors["fused"]],
        "version_policy": {"latest": {"num_versions": 1}},
        "parameters": [{"key": key, "value": {"string_value": value}} for key, value in about.items()],
    }


def _sizes(artefact: Artefact) -> tuple[tuple[int, int | None], int, int]:
    """(least, most) frames at once, most None for any; height and width, -1 where they are not fixed."""
    if artefact.kind == "tensorrt":
        known = sidecar.read(artefact.path)
        if known is None:
            raise ArtefactError(f"{artefact.path} has no sidecar that says which sizes it is for")
        ranges = list(zip(known.profiles[0].least, known.profiles[0].most, strict=True))
    else:
        ranges = [_range(axis) for axis in artefact.metadata.get("shape", "N,H,W").split(",")]
    (least, most), *sides = ranges
    height, width = (low if low == high else -1 for low, high in sides)
    return (least, None if most < 0 else most), height, width


def _range(axis: str) -> tuple[int, int]:
    """``"480"``, ``"16:480:1088"`` or a name, as :class:`~export.shape.Shape` writes them; -1 for no bound."""
    numbers = axis.split(":")
    return (int(numbers[0]), int(numbers[-1])) if numbers[0].isdigit() else (1, -1)


def _add_version(artefact: Artefact, folder: Path, backend: Backend) -> None:
    """Copy the file, with those that belong to it, into the first free version; it appears whole."""
    folder.mkdir(parents=True, exist_ok=True)
    version = 1 + max((int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()), default=0)
    staged = folder / f".{version}.part"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    try:
        shutil.copyfile(artefact.path, staged / backend.file)
        if artefact.kind == "openvino":
            shutil.copyfile(artefact.path.with_suffix(".bin"), staged / Path(backend.file).with_suffix(".bin"))
        if artefact.kind == "tensorrt":
            shutil.copyfile(sidecar.sidecar_path(artefact.path), sidecar.sidecar_path(staged / backend.file))
        staged.rename(folder / str(version))
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _text(message: Mapping[str, Any], indent: str = "") -> str:
    """A message in protobuf's text format."""
    lines = []
    for name, value in message.items():
        for item in value if isinstance(value, list) and value and isinstance(value[0], dict) else [value]:
            if isinstance(item, Mapping):
                lines.append(f"{indent}{name} {{\n{_text(item, indent + '  ')}{indent}}}\n")
            elif isinstance(item, list):
                lines.append(f"{indent}{name}: [{', '.join(map(str, item))}]\n")
            else:
                lines.append(f"{indent}{name}: {item if isinstance(item, (_Word, int)) else json.dumps(item)}\n")
    return "".join(lines)
