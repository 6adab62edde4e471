"""What was really built. A builder that takes the wrong types gives an engine that runs, slowly, under a wrong name."""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pyldfusion.errors import EngineError

if TYPE_CHECKING:
    import tensorrt

__all__ = ["check_precision", "check_types", "layer_precisions"]

#: How the inspector calls types, in its words of 8.6 ("Channel major FP16 format ...") and later ("Half").
_TYPES = {
    "BF16": r"bf16|bfloat16",
    "FP16": r"fp16|half|float16",
    "INT8": r"int8",
    "FP8": r"fp8",
    "FP32": r"fp32|float32|\bfloat\b",
}
_COMPUTES = re.compile(r"conv|gemm|matmul|matrix|kgen|myelin|fusion", re.IGNORECASE)


def check_types(engine: tensorrt.ICudaEngine, expected: Mapping[str, Any]) -> None:
    """Whether an engine takes and gives what its graph does.

    Args:
        engine: after it was loaded.
        expected: name of every input and output -> its type in the network.

    Raises:
        EngineError: other names, or another type.
    """
    found = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        found[name] = engine.get_tensor_dtype(name)
    if found != dict(expected):
        raise EngineError(f"the engine has other inputs and outputs than its graph: {found}; expected {dict(expected)}")


def layer_precisions(
    trt: ModuleType, engine: tensorrt.ICudaEngine, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, int]:
    """Number of layers that compute, by the smallest type they read, without those that TensorRT tells nothing of.

    Args:
        trt: the package.
        engine: built with detailed verbosity.
        shapes: of its inputs, by name: where sizes are dynamic, formats are known for given ones alone.
    """
    inspector: tensorrt.EngineInspector = engine.create_engine_inspector()
    context: tensorrt.IExecutionContext = engine.create_execution_context()
    if context is not None:  # there may be no memory for one
        for name, shape in shapes.items():
            context.set_input_shape(name, shape)
        inspector.execution_context = context
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        layers = json.loads(text).get("Layers", [])
    except (ValueError, AttributeError):
        layers = []
    counts: Counter[str] = Counter()
    for layer in layers:
        if not isinstance(layer, dict) or not _COMPUTES.search(
            f"{layer.get('LayerType')} {layer.get('ParameterType')}"
        ):
            continue
        tensors = [tensor for tensor in layer.get("Inputs", ()) if isinstance(tensor, dict)]
        reads = " ".join(str(tensor.get("Format/Datatype", tensor.get("Datatype", ""))) for tensor in tensors)
        smallest = next((name for name in ("INT8", "FP8", "FP16", "BF16", "FP32") if _is(name, reads)), None)
        if smallest is not None:
            counts[smallest] += 1
    return dict(counts.most_common())


def _is(name: str, words: str) -> bool:
    found = words if name in ("BF16", "FP8") else re.sub(_TYPES["BF16"], "", words, flags=re.IGNORECASE)
    return re.search(_TYPES[name], found, re.IGNORECASE) is not None


def check_precision(precision: str, layers: Mapping[str, int]) -> None:
    """Raises EngineError where a precision was asked for and no layer is in it; warns where that cannot be known."""
    wanted = {"fp16": "FP16", "int8": "INT8"}.get(precision)
    if wanted and not layers:
        warnings.warn(
            f"TensorRT tells no types of the engine's layers: whether it computes in {precision} is not known",
            stacklevel=4,
        )
    elif wanted and not layers.get(wanted):
        found = ", ".join(f"{count} in {name}" for name, count in layers.items())
        raise EngineError(
            f"{precision} was asked for, but no layer of the engine computes in it (layers: {found}); it was not kept. "
            f"Is the graph an {precision} one (python -m export --format onnx --precision {precision})?"
        )
