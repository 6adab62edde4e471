"""INT8 in the graph: convolutions whose input and weights pass through QuantizeLinear and DequantizeLinear nodes.

One graph serves ONNX Runtime, OpenVINO and TensorRT, which all fold such pairs into integer kernels where they have
them. ONNX Runtime's quantiser writes the nodes; what it is told here is which layers, and the range of each input.

Weights are symmetric, with a scale per output channel. A convolution's output stays in float: the norm after it
wants all its digits. Norms, reductions and what becomes of the style codes are never quantised.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pyldfusion.artefact import GRAPH_PREFIX
from pyldfusion.engines.onnx import import_onnxruntime
from pyldfusion.errors import DependencyError, InputError

from .calibration import Feed

if TYPE_CHECKING:
    import onnx

__all__ = ["ACTIVATIONS", "KEEP", "Calibrated", "by_layers", "calibrate", "clip_range", "quantize", "runner"]

#: How the inputs of convolutions become 8 bits. CPUs without VNNI add two products of uint8 and int8 in 16 bits, which
#: saturate; with weights in -64..64 they cannot, and those cost less than the saturation does (docs/int8.md).
ACTIVATIONS = {
    "asymmetric": "uint8 with a zero point, all 256 steps for what comes out of a ReLU; weights of 7 bits; for CPUs",
    "symmetric": "int8 around zero, half the steps after a ReLU; weights of 8 bits; what TensorRT takes",
}
#: Layers that stay in float, as patterns. A first layer sees a plane whose contrast may be a few grey levels, which the
#: norm after it brings to one whatever it was; the heads give the style codes, which steer every pixel.
KEEP = ("*.stem", "style_*.head")
#: Operators with weights that are quantised; the axis of the output channels in those.
CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1}
#: Values of each tensor and feed that its range is found from.
SAMPLES = 1 << 13


def quantize(
    model: onnx.ModelProto, pairs: Sequence[Feed], *, keep: Iterable[str] = KEEP, activations: str = "asymmetric"
) -> onnx.ModelProto:
    """The graph with its convolutions in INT8.

    Args:
        model: a graph in FP32 or FP16 of :func:`~export.onnx.build_model`; not changed. What stays in float stays in
            its type.
        pairs: inputs to calibrate with (:func:`~export.calibration.feeds`).
        keep: layers that stay in float, by the names of :attr:`Calibrated.layers`; ``*`` stands for anything.
        activations: see :data:`ACTIVATIONS`.

    Raises:
        InputError: no pairs, inputs the graph does not take, an unknown name or pattern.
        DependencyError: ONNX Runtime's quantiser cannot be imported.
    """
    calibrated = calibrate(model, pairs, activations=activations)
    return calibrated.quantized(calibrated.matching(keep))


@dataclass(frozen=True)
class Calibrated:
    """A graph that was looked at while it ran, ready to be quantised in any choice of layers.

    Attributes:
        model: the graph, with weights that are computed in it folded; its convolutions are called as in ``layers``.
        layers: name of each convolution, in the graph's order: that of its weights (``decoder.up.0``).
        ranges: least and largest value that 8 bits are to hold, by the name of the tensor.
        signed: tensors that become int8 around zero whatever ``activations`` says: of both signs, into a ConvTranspose,
            of which OpenVINO has no kernel with a zero point (it would compute it in float).
        activations: see :data:`ACTIVATIONS`.
    """

    model: onnx.ModelProto
    layers: tuple[str, ...]
    ranges: Mapping[str, tuple[float, float]]
    signed: frozenset[str]
    activations: str

    def matching(self, patterns: Iterable[str]) -> frozenset[str]:
        """The layers that ``patterns`` name. Raises InputError for a name, not a pattern, that is no layer's."""
        patterns = tuple(patterns)
        for pattern in patterns:
            if not set(pattern) & set("*?[") and pattern not in self.layers:
                raise InputError(f"no layer is called {pattern!r}; the layers are {', '.join(self.layers)}")
        return frozenset(n for n in self.layers if any(fnmatch.fnmatchcase(n, p) for p in patterns))

    def quantized(self, keep: Iterable[str] = ()) -> onnx.ModelProto:
        """The graph in INT8 but for the layers ``keep``; equal for equal arguments, to the byte."""
        import onnx
        from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorData, TensorsData

        kept = set(keep)
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        chosen = [name for name in self.layers if name not in kept]
        if not chosen:
            return model
        dtype = np.float16 if _is_half(model) else np.float32
        ranges = {
            name: TensorData(lowest=np.array(low, dtype), highest=np.array(high, dtype))
            for name, (low, high) in self.ranges.items()
        }
        symmetric = self.activations == "symmetric"
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=not symmetric,  # weights of 7 bits; see ACTIVATIONS
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
            nodes_to_quantize=chosen,
            nodes_to_exclude=[],
            op_types_to_quantize=list(CHANNEL_AXIS),
            extra_options={
                "ActivationSymmetric": symmetric,
                "WeightSymmetric": True,
                "OpTypesToExcludeOutputQuantization": list(CHANNEL_AXIS),
                "QuantizeBias": False,
                "DedicatedQDQPair": False,
                "TensorQuantOverrides": {
                    name: [{"quant_type": QuantType.QInt8, "symmetric": True}] for name in sorted(self.signed)
                },
            },
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        result: onnx.ModelProto = quantizer.model.model
        result.producer_name = model.producer_name
        del result.graph.value_info[:]
        onnx.checker.check_model(result, full_check=True)
        return result


def calibrate(model: onnx.ModelProto, pairs: Sequence[Feed], *, activations: str = "asymmetric") -> Calibrated:
    """Run the graph on ``pairs`` and note what goes into each convolution; see :func:`quantize`."""
    if activations not in ACTIVATIONS:
        raise InputError(f"activations is {activations!r}; expected one of {', '.join(ACTIVATIONS)}")
    if not pairs:
        raise InputError("no pairs to calibrate with; expected at least one, better some tens")
    try:
        import_onnxruntime()
        import onnxruntime.quantization  # noqa: F401
    except ImportError as error:
        raise DependencyError(f"INT8 needs {error.name}: pip install 'pyldfusion[export]'") from error
    model, layers = by_layers(model)
    inputs = dict.fromkeys(node.input[0] for node in _convolutions(model))
    samples: dict[str, list[np.ndarray]] = {name: [] for name in inputs}
    run = runner(model, tuple(inputs))
    for feed in pairs:
        for name, values in zip(inputs, run(feed), strict=True):
            samples[name].append(_sample(values))
    seen = {name: np.concatenate(parts) for name, parts in samples.items()}
    raised = {node.input[0] for node in _convolutions(model) if node.op_type == "ConvTranspose"}
    signed = frozenset(name for name in raised if activations == "asymmetric" and (seen[name] < 0).any())
    ranges = {name: clip_range(seen[name], "symmetric" if name in signed else activations) for name in seen}
    return Calibrated(model, layers, ranges, signed, activations)


def runner(model: onnx.ModelProto, outputs: Sequence[str]) -> Callable[[Feed], list[np.ndarray]]:
    """What runs a graph in ONNX Runtime as it is written, with none of the kernels for 8 bits.

    Their sums saturate on CPUs without VNNI, and each runtime has its own; so this is what the graph says, whatever
    machine it is exported on.

    Args:
        model: the graph; any tensor of it can be an output.
        outputs: names of the tensors to give.
    """
    import onnx

    onnxruntime = import_onnxruntime()
    there = {value.name for value in model.graph.output}
    if added := [name for name in outputs if name not in there]:
        exposed = onnx.ModelProto()
        exposed.CopyFrom(model)
        exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in added)
        model = exposed
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # errors come as exceptions
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(feed: Feed) -> list[np.ndarray]:
        try:
            results: list[np.ndarray] = session.run(list(outputs), dict(feed))
        except Exception as error:  # the binding's own exceptions have no common public base
            given = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in feed.items())
            raise InputError(f"the graph does not run on {given}: {error}") from error
        return results

    return run


def clip_range(values: np.ndarray, activations: str) -> tuple[float, float]:
    """The least and largest value to hold in 8 bits, so that the mean squared error of ``values`` is least.

    What lies outside is clipped, and what is inside has finer steps. Clipping by a percentile instead gives a higher
    PSNR, but loses the few brightest things of a picture, which is what an infrared camera is there for.

    Raises:
        InputError: values that are not finite.
    """
    if not np.isfinite(values).all():
        raise InputError("the network gives values that are not finite on a pair: are its weights whole?")
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if low == high:
        return low, high
    symmetric = activations == "symmetric"
    steps, extent = (127, max(-low, high)) if symmetric else (255, high - low)
    errors = {}
    for part in np.linspace(0.2, 1.0, 33):
        scale = part * extent / steps
        least, most = (-127, 127) if symmetric else (round(part * low / scale), round(part * high / scale))
        errors[part] = float(np.mean((np.clip(np.rint(values / scale), least, most) * scale - values) ** 2))
    best = float(min(errors, key=errors.__getitem__))
    return best * low, best * high


def _sample(values: np.ndarray) -> np.ndarray:
    values = values.ravel().astype(np.float32)
    return values[np.random.default_rng(0).integers(values.size, size=min(values.size, SAMPLES))]


def by_layers(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """A copy in which convolutions have plain weights and the names of their layers, and types are known; those names.

    The last convolution's weights are laid out by nodes of the graph (:class:`~pyldfusion.rewrites.BlockConv`).
    """
    import onnx
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    origin = {tensor.name: tensor.name for tensor in model.graph.initializer}  # constant -> an initialiser in it
    computed: list[onnx.NodeProto] = []
    rest: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if all(name in origin or not name for name in node.input):
            origin |= dict.fromkeys(node.output, origin[node.input[0]] if node.input else "")
            computed.append(node)
        else:
            rest.append(node)
    wanted = list(dict.fromkeys(name for node in rest for name in node.input if name in origin))
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    if folded := [name for node in computed for name in node.output if name in wanted]:
        values = [onnx.ValueInfoProto(name=name) for name in folded]
        part = onnx.helper.make_graph(computed, "constants", [], values, model.graph.initializer)
        constants = onnx.helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
        for name, array in zip(folded, ReferenceEvaluator(constants).run(folded, {}), strict=True):
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    used = [tensor for tensor in graph.initializer if tensor.name in wanted]
    for field, items in ((graph.node, rest), (graph.initializer, used)):
        kept = [type(item).FromString(item.SerializeToString()) for item in items]
        del field[:]
        field.extend(kept)
    for node in _convolutions(result):
        name = origin[node.input[1]]
        if name.startswith(GRAPH_PREFIX):
            node.name = name.removeprefix(GRAPH_PREFIX).removesuffix(".weight")
    del graph.value_info[:]
    if _is_half(result):  # Q and DQ of 16-bit floats came with opset 19
        result = onnx.version_converter.convert_version(result, max(19, result.opset_import[0].version))
    result = onnx.shape_inference.infer_shapes(result, strict_mode=True)
    return result, tuple(node.name for node in _convolutions(result))


def _convolutions(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    return (node for node in model.graph.node if node.op_type in CHANNEL_AXIS)


def _is_half(model: onnx.ModelProto) -> bool:
    """Whether convolutions are computed in FP16."""
    weights = {node.input[1] for node in _convolutions(model)}
    types = {tensor.data_type for tensor in model.graph.initializer if tensor.name in weights}
    return 10 in types  # TensorProto.FLOAT16
