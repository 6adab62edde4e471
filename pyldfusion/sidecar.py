"""What is known of a TensorRT engine, in a file beside it: ``model.engine`` has ``model.engine.json``.

The engine itself stays as TensorRT wrote it, so that trtexec, Triton and DeepStream load it. An engine runs only where
it was built for, and loading one runs code from it: so the sidecar says where that is and what its bytes are.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ArtefactError

__all__ = ["FORMAT", "Profile", "Sidecar", "read", "sidecar_path", "write"]

#: Version of the file's layout.
FORMAT = 1
#: A sidecar is some kilobytes.
MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Profile:
    """Sizes an engine takes, (N, H, W) each: the least, the one it is fastest for, the largest."""

    least: tuple[int, int, int]
    usual: tuple[int, int, int]
    most: tuple[int, int, int]

    def holds(self, shape: tuple[int, int, int]) -> bool:
        return all(low <= side <= high for low, side, high in zip(self.least, shape, self.most, strict=True))

    def __str__(self) -> str:
        """N x H x W, as in the names of engines: ``1x480x640``, ``1-4x16-1088x640``."""
        return "x".join(
            str(low) if low == high else f"{low}-{high}" for low, high in zip(self.least, self.most, strict=True)
        )


@dataclass(frozen=True)
class Sidecar:
    """Facts about one engine.

    Attributes:
        plan_sha256: of the engine's bytes, hexadecimal.
        precision: ``"fp32"``, ``"fp16"``, ``"int8"``, or ``"unknown"`` for a foreign graph.
        profiles: see :class:`Profile`; at least one.
        tensorrt: the version that built it, ``"10.3.0"``.
        cuda: the newest CUDA of the driver there, ``"12.6"``.
        gpu: name of the GPU it was built on.
        capability: its compute capability, ``"8.7"``.
        hardware_compatibility: ``"none"``, ``"ampere+"`` or ``"same-capability"``.
        version_compatible: whether later versions of TensorRT run it; it then holds code for the host.
        onnx: name of the file beside it that it was built from.
        graph_sha256: of that file.
        built: date, ISO 8601.
        options: of the command that built it, for building it again.
        layers: number of layers by the precision of what they read.
        metadata: all that the ONNX file says of itself: variant, weights_sha256, io, recipe, colour, versions, ...
        verified: report of the verification, by name.
    """

    plan_sha256: str
    precision: str
    profiles: tuple[Profile, ...]
    tensorrt: str
    cuda: str
    gpu: str
    capability: str
    hardware_compatibility: str
    version_compatible: bool
    onnx: str
    graph_sha256: str
    built: str
    options: dict[str, Any] = field(default_factory=dict)
    layers: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    verified: dict[str, str] = field(default_factory=dict)

    def flat(self) -> dict[str, str]:
        """All of it as strings by name, as other artefacts have their metadata."""
        own = {
            "precision": self.precision,
            "profiles": ", ".join(map(str, self.profiles)),
            "tensorrt": self.tensorrt,
            "cuda": self.cuda,
            "gpu": f"{self.gpu} (compute capability {self.capability})",
            "hardware_compatibility": self.hardware_compatibility,
            "version_compatible": "yes" if self.version_compatible else "no",
            "onnx": self.onnx,
            "graph_sha256": self.graph_sha256,
            "plan_sha256": self.plan_sha256,
            "built": self.built,
            "layers": ", ".join(f"{count} {name}" for name, count in self.layers.items()),
        }
        # the graph's own sizes are not the engine's
        of_graph = {name: value for name, value in self.metadata.items() if name != "shape"}
        return {**of_graph, **self.verified, **own}


def sidecar_path(engine: str | Path) -> Path:
    """Where the sidecar of an engine is."""
    engine = Path(engine)
    return engine.with_name(engine.name + ".json")


def read(engine: str | Path) -> Sidecar | None:
    """The sidecar of an engine; None if there is none.

    Raises:
        ArtefactError: it is damaged, or of a later layout.
    """
    path = sidecar_path(engine)
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError("it is too large")
        content = json.loads(path.read_bytes())
        layout = content.pop("sidecar")
        if layout != FORMAT:
            raise ArtefactError(
                f"{path} has layout {layout!r}, and this pyldfusion reads {FORMAT}; install a newer one"
            )
        return _checked(content)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        if isinstance(error, ArtefactError):
            raise
        raise ArtefactError(
            f"{path} is damaged ({error}); build the engine again, or delete this file to open the engine as it is"
        ) from error


def write(engine: str | Path, sidecar: Sidecar) -> None:
    """Write the sidecar of an engine, whole or not at all."""
    from .media.atomic import atomic_path  # here: reading one needs no OpenCV

    content = {"sidecar": FORMAT, **dataclasses.asdict(sidecar)}
    with atomic_path(sidecar_path(engine)) as part:
        part.write_text(json.dumps(content, indent=2) + "\n")


def _checked(content: dict[str, Any]) -> Sidecar:
    """Every field there is, of its type; fields of later versions are left out."""
    known = {item.name: str(item.type) for item in dataclasses.fields(Sidecar)}
    values = {name: value for name, value in content.items() if name in known}
    for name, value in values.items():
        kind = {"str": str, "bool": bool}.get(known[name], list if name == "profiles" else dict)
        if not isinstance(value, kind):
            raise ValueError(f"{name} is {value!r}")
    if Path(values["onnx"]).name != values["onnx"]:  # it lies beside the engine and nowhere else
        raise ValueError(f"onnx is {values['onnx']!r}")
    profiles = tuple(
        Profile(*((int(n), int(h), int(w)) for n, h, w in (entry["least"], entry["usual"], entry["most"])))
        for entry in values.pop("profiles")
    )
    if not profiles:
        raise ValueError("it names no profiles")
    for name in ("metadata", "verified"):
        values[name] = {str(key): str(value) for key, value in values.get(name, {}).items()}
    return Sidecar(profiles=profiles, **values)
