"""Tell what a model file is: which network, its precision, what it takes and gives, where it comes from."""

from __future__ import annotations

import argparse
import json
from typing import Any

HELP = "tell what a model file is"

LONG = 300  # characters of a value that a screen is given


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help=".onnx, .xml, .safetensors, .engine, or full, lite or pyramid")
    parser.add_argument("--json", action="store_true", help="as a JSON object")


def run(args: argparse.Namespace) -> int:
    facts = _facts(args.file)
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    metadata = facts.pop("metadata")
    lines = {name: _readable(name, value) for name, value in facts.items()}
    lines |= {name: _short(value) for name, value in metadata.items() if name not in facts}
    width = max(map(len, lines))
    for name, value in lines.items():
        print(f"{name:<{width}}  {value}")
    if metadata.get("clip_trained") == "no":
        print(
            "\nTrained by supervision alone, not by the language-driven loss of LDFusion. The authors' language-trained"
            "\nweights come in with: pyldfusion import-weights final.pt -o lite.safetensors (their LD-Lite, 2.6 MB)."
        )
    return 0


def _facts(file: str) -> dict[str, Any]:
    from ..artefact import open_artefact
    from ..errors import ArtefactError, DependencyError

    artefact = open_artefact(file)
    try:
        parameters = sum(tensor.size for tensor in artefact.state_dict().values())
    except (ArtefactError, DependencyError):  # an engine, a foreign graph, or safetensors is not installed
        parameters = None
    return {
        "file": str(artefact.path),
        "kind": artefact.kind,
        "variant": artefact.variant,
        "precision": artefact.precision,
        "io": artefact.io,
        "opset": artefact.metadata.get("opset"),
        "parameters": parameters,
        "size": artefact.size,
        "sha256": artefact.sha256 or None,
        "metadata": artefact.metadata,
    }


def _short(value: str) -> str:
    """A training's whole configuration is three thousand characters."""
    return value if len(value) <= LONG else f"{value[:LONG]}... (all {len(value)} characters: --json)"


def _readable(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name == "parameters":
        return f"{value:,} ({value / 1e6:.2f} million)"
    return f"{value:,} bytes" if name == "size" else str(value)
