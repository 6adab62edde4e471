"""``python -m benchmarks TOPIC [OPTIONS]``: runs one topic and prints its table."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

TOPICS = {
    "cpu": "the network as its authors wrote it against every engine here, frames to frames; startup and memory",
    "flicker": "how much fused videos change where nothing moves, frame by frame and smoothed over time; trails",
    "gpu": "the CUDA half built, checked and measured on this machine's GPU",
    "kernels": "the native kernels against NumPy's own functions",
    "load": "arithmetic and memory traffic of a frame, and the least time it can take on NVIDIA's boards; computed",
    "metrics": "the five numbers and the others against a plain NumPy version",
    "precision": "what the GPU engine's 16-bit precisions cost in accuracy; on a CPU too",
    "quality": "EN CC SD EI VIFF of weights and of classical fusion on test sets",
    "registration": "the search without a target on spoilt real pairs and scenes, and targets drawn into scenes",
    "stream": "the camera pipeline: its cost beside the engine, its rate against the engine alone, memory",
    "tensorrt": "TensorRT engines of this machine: accuracy against ONNX Runtime in fp32, and speed beside trtexec's",
    "train": "one step of language-driven training against the authors' way of doing it",
}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    topic = arguments.pop(0) if arguments else "--help"
    if topic in TOPICS:
        return importlib.import_module(f"benchmarks.{topic}").main(arguments) or 0
    listing = "\n".join(f"  {name:12} {what}" for name, what in TOPICS.items())
    print(f"usage: python -m benchmarks TOPIC [OPTIONS]\n\ntopics:\n{listing}\n\nEach takes --help.")
    if topic in ("-h", "--help"):
        return 0
    print(f"error: unknown topic {topic!r}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
