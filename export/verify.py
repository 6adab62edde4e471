"""Is the file that was written the network it was written from?

The file runs in every runtime installed here, on generated pairs of several sizes, and is compared with torch in
float64 on the weights as the file holds them. What storing them in 16 bits costs is reported beside it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pyldfusion.artefact import open_artefact
from pyldfusion.engines.onnx import import_onnxruntime
from pyldfusion.engines.openvino import import_openvino
from pyldfusion.errors import DependencyError, EngineError
from pyldfusion.frame_graph import FrameGraph
from pyldfusion.generator import Generator, load_generator
from pyldfusion.image import LUMA_BGR
from pyldfusion.scene import Scene

__all__ = ["SIZES", "TOLERANCE", "Check", "verify_onnx"]

#: (width, height) of the pairs; odd ones, and the smallest there is.
SIZES = ((160, 120), (171, 93), (16, 16), (17, 41))
#: Largest error allowed, in grey levels of 255. Runtimes sum in another order: a level at most.
TOLERANCE = 1.0


@dataclass(frozen=True)
class Check:
    """One runtime on one pair.

    Attributes:
        runtime: ``"onnxruntime"`` or ``"openvino"``.
        size: (width, height).
        max_error: largest difference to torch with the file's weights, in grey levels.
        psnr: of the same difference, dB to a peak of 255 levels; infinite if equal.
        storage_error: largest difference between the file's and the original weights' results, both in torch.
    """

    runtime: str
    size: tuple[int, int]
    max_error: float
    psnr: float
    storage_error: float


def verify_onnx(path: str | Path, original: Generator, tolerance: float = TOLERANCE) -> list[Check]:
    """Compare an exported file with the network.

    Args:
        path: the ``.onnx`` file, of either io.
        original: the network it was written from.
        tolerance: largest ``max_error`` allowed, in grey levels of 255.

    Raises:
        EngineError: a runtime cannot run the file, or differs by more than ``tolerance``; the message says how much.
        DependencyError: no runtime is installed.
    """
    artefact = open_artefact(path)
    stored = load_generator(artefact).double()
    exact = load_double(original)
    runtimes = [name for name in ("onnxruntime", "openvino") if importlib.util.find_spec(name)]
    if not runtimes:
        raise DependencyError("no runtime to verify the file with: pip install onnxruntime")
    checks = []
    for size in SIZES:
        inputs = _inputs(size, artefact.io)
        expected, plain = (_reference(network, inputs, artefact.io) for network in (stored, exact))
        for runtime, result in _run(path, runtimes, inputs):
            # planes are judged in grey levels too
            scale = 1.0 if artefact.io == "frames" else 255.0
            difference = scale * np.abs(result.astype(np.float64) - expected)
            storage = scale * np.abs(expected - plain).max()
            checks.append(Check(runtime, size, float(difference.max()), _psnr(difference), float(storage)))
    worst = max(checks, key=lambda check: check.max_error)
    if not worst.max_error <= tolerance:  # also true for NaN
        raise EngineError(
            f"{path} differs from the network by {worst.max_error:.2f} grey levels in {worst.runtime} at "
            f"{worst.size[0]}x{worst.size[1]}; allowed are {tolerance:g}. The file was kept for inspection."
        )
    return checks


def load_double(generator: Generator) -> Generator:
    """A float64 copy of ``generator`` in evaluation mode."""
    copied = Generator(generator.variant)
    copied.load_state_dict(generator.state_dict())
    return copied.double().eval()


def _inputs(size: tuple[int, int], io: str) -> dict[str, np.ndarray]:
    frame = Scene(seed=size[0], size=size).render(0.0)
    if io == "frames":
        return {"ir": frame.ir[None, :, :, None], "vis": frame.vis[None]}
    luma = (frame.vis @ np.array(LUMA_BGR) / 255).astype(np.float32)
    return {"ir": (frame.ir.astype(np.float32) / 255)[None, None], "vis": luma[None, None]}


def _reference(generator: Generator, inputs: dict[str, np.ndarray], io: str) -> np.ndarray:
    module = FrameGraph(generator).double() if io == "frames" else generator
    tensors = {
        name: torch.from_numpy(array if io == "frames" else array.astype(np.float64)) for name, array in inputs.items()
    }
    with torch.inference_mode():
        return np.asarray(module(**tensors).double().numpy())


def _run(path: str | Path, runtimes: list[str], inputs: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    if "onnxruntime" in runtimes:
        onnxruntime = import_onnxruntime()
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        yield "onnxruntime", session.run(["fused"], inputs)[0]
    if "openvino" in runtimes:
        openvino = import_openvino()
        hints = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(str(path), "CPU", hints)
        yield "openvino", compiled(inputs)["fused"]


def _psnr(difference: np.ndarray) -> float:
    mse = float(np.mean(difference**2))
    return float("inf") if mse == 0 else 10 * np.log10(255**2 / mse)
