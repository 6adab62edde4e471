"""A stand-in for the few classes of NVIDIA's TensorRT that pyldfusion uses. It is not TensorRT and builds no engines.

Its "plan" is a JSON text that holds the ONNX graph, which ONNX Runtime computes. So it shows the logic round TensorRT
(profiles, precisions read back, errors, versions), never TensorRT's speed, accuracy or taste in graphs. Its names are
checked against NVIDIA's lists (test_tensorrt_api.py).

    trt = tensorrt_stand_in.package("10.3.0")
    trt.behaviour.refuse = "out of memory"
"""

from __future__ import annotations

import base64
import ctypes
import enum
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

_NUMPY = {"UINT8": np.uint8, "FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8}
_WORDS = {"fp32": "Float", "fp16": "Half", "int8": "Int8"}


@dataclass
class Behaviour:
    """What a test lets the stand-in do, and what it saw.

    Attributes:
        refuse: message with which a build fails.
        refuse_node: message with which the parser refuses the graph's second node.
        precision: what layers are built in, whatever the graph says.
        types: type of the engine's output, whatever the graph says.
        unknown: whether the output's shape is known only when the engine has run.
        fail: message with which computing fails.
        launch: how work is put on a stream: called with the stream's handle and a function.
        built: the settings of the last build.
        calls: what was called, in order.
    """

    refuse: str = ""
    refuse_node: str = ""
    precision: str = ""
    types: str = ""
    unknown: bool = False
    fail: str = ""
    launch: Callable[[int, Callable[[], None]], None] = lambda stream, work: work()
    built: dict[str, Any] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)


def package(version: str) -> Any:
    """A module that looks like ``tensorrt`` of that version, as far as it is used."""
    numbers = tuple(map(int, version.split(".")[:2]))
    trt: Any = ModuleType("tensorrt")
    trt.__version__ = version
    trt.__spec__ = ModuleSpec("tensorrt", None)
    trt.behaviour = behaviour = Behaviour()

    def enumeration(name: str, members: Sequence[str]) -> Any:
        # the values are of this version alone, as TensorRT's are
        first = 7 if numbers >= (11, 0) else 1
        return enum.IntEnum(name, [(member, index) for index, member in enumerate(members, first)])

    old, new = numbers < (10, 0), numbers >= (11, 0)
    typed = [] if new else ["FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"]
    trt.BuilderFlag = enumeration("BuilderFlag", [*typed, "TF32", "VERSION_COMPATIBLE"])
    creation = ["EXPLICIT_BATCH"] if old else ["STRONGLY_TYPED"] if new else ["EXPLICIT_BATCH", "STRONGLY_TYPED"]
    trt.NetworkDefinitionCreationFlag = enumeration("NetworkDefinitionCreationFlag", creation)
    trt.OnnxParserFlag = enumeration("OnnxParserFlag", ["NATIVE_INSTANCENORM"])
    trt.MemoryPoolType = enumeration("MemoryPoolType", ["WORKSPACE"])
    trt.ProfilingVerbosity = enumeration("ProfilingVerbosity", ["NONE", "DETAILED"])
    trt.LayerInformationFormat = enumeration("LayerInformationFormat", ["ONELINE", "JSON"])
    trt.TacticSource = enumeration("TacticSource", ["EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"])
    levels = ["NONE", "AMPERE_PLUS", *(["SAME_COMPUTE_CAPABILITY"] if numbers >= (10, 13) else [])]
    trt.HardwareCompatibilityLevel = enumeration("HardwareCompatibilityLevel", levels)
    trt.DataType = enumeration("DataType", ["FLOAT", "HALF", "INT8", "INT32", "UINT8"])
    trt.TensorIOMode = enumeration("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
    trt.LayerType = enumeration("LayerType", ["CONVOLUTION", "NORMALIZATION", "REDUCE", "UNARY"])
    trt.ErrorCodeTRT = enumeration("ErrorCodeTRT", ["SUCCESS", "FAILED_EXECUTION"])

    class ILogger:
        Severity = enumeration("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])

    class IErrorRecorder:
        MAX_DESC_LENGTH = 127

    class IProgressMonitor:
        pass

    class IOutputAllocator:
        pass

    def log(logger: Any, message: str) -> None:
        logger.log(ILogger.Severity.ERROR, message)

    class ITensor:
        def __init__(self, name: str, dtype: Any, dims: list[int | str]) -> None:
            self._name, self._dtype, self._dims = name, dtype, dims

        name = property(lambda self: self._name)
        dtype = property(lambda self: self._dtype)
        shape = property(lambda self: tuple(side if isinstance(side, int) else -1 for side in self._dims))

        def get_dimension_name(self, index: int) -> str:
            return "" if isinstance(self._dims[index], int) else str(self._dims[index])

    class ILayer:
        if not new:
            precision = trt.DataType.HALF

        def __init__(self, kind: Any, dtype: Any) -> None:
            self._kind, self._dtype = kind, dtype

        type = property(lambda self: self._kind)

        def get_output(self, index: int) -> ITensor:
            return ITensor("", self._dtype, [])

    class INetworkDefinition:
        def __init__(self, flags: int) -> None:
            self._flags, self._content = flags, b""
            self._inputs: list[ITensor] = []
            self._outputs: list[ITensor] = []
            kinds = (trt.LayerType.CONVOLUTION, trt.LayerType.NORMALIZATION, trt.LayerType.REDUCE)
            self._layers = [ILayer(kind, trt.DataType.HALF) for kind in kinds]

        num_inputs = property(lambda self: len(self._inputs))
        num_outputs = property(lambda self: len(self._outputs))
        num_layers = property(lambda self: len(self._layers))

        def get_input(self, index: int) -> ITensor:
            return self._inputs[index]

        def get_output(self, index: int) -> ITensor:
            return self._outputs[index]

        def get_layer(self, index: int) -> ILayer:
            return self._layers[index]

    class ParserError:
        def node(self) -> int:
            return 1

        def desc(self) -> str:
            return behaviour.refuse_node

        if not old:

            def node_name(self) -> str:
                return "named"

            def node_operator(self) -> str:
                return "Oddity"

    class OnnxParser:
        def __init__(self, network: INetworkDefinition, logger: Any) -> None:
            self._network = network

        num_errors = property(lambda self: 1 if behaviour.refuse_node else 0)

        def set_flag(self, flag: Any) -> None:
            behaviour.calls.append(f"parser {flag.name}")

        def get_error(self, index: int) -> ParserError:
            return ParserError()

        def parse(self, content: bytes) -> bool:
            import onnx

            model = onnx.load_from_string(content)
            names = {onnx.TensorProto.UINT8: "UINT8", onnx.TensorProto.FLOAT: "FLOAT", onnx.TensorProto.FLOAT16: "HALF"}
            for values, tensors in (
                (model.graph.input, self._network._inputs),
                (model.graph.output, self._network._outputs),
            ):
                for value in values:
                    kind = value.type.tensor_type
                    dims = [dim.dim_param or dim.dim_value for dim in kind.shape.dim]
                    tensors.append(ITensor(value.name, trt.DataType[names[kind.elem_type]], dims))
            self._network._content = content
            return not behaviour.refuse_node

    class ITimingCache:
        def __init__(self, content: bytes) -> None:
            self._content = content

        def serialize(self) -> bytes:
            return self._content + b"+"

    class IOptimizationProfile:
        def __init__(self) -> None:
            self._shapes: dict[str, list[list[int]]] = {}

        def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
            self._shapes[input] = [list(min), list(opt), list(max)]

    class IBuilderConfig:
        profiling_verbosity = trt.ProfilingVerbosity.NONE
        builder_optimization_level = 3
        max_aux_streams = -1
        hardware_compatibility_level = trt.HardwareCompatibilityLevel.NONE
        if not old:
            progress_monitor: Any = None

        def __init__(self) -> None:
            self._flags = {trt.BuilderFlag.TF32}
            self._cache: ITimingCache | None = None
            self._profiles: list[IOptimizationProfile] = []
            self._workspace = self._sources = 0

        def set_flag(self, flag: Any) -> None:
            self._flags.add(flag)

        def clear_flag(self, flag: Any) -> None:
            self._flags.discard(flag)

        def set_memory_pool_limit(self, pool: Any, limit: int) -> None:
            self._workspace = limit

        def set_tactic_sources(self, sources: int) -> None:
            self._sources = sources

        def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
            self._profiles.append(profile)
            return 0

        def create_timing_cache(self, content: bytes) -> ITimingCache:
            return ITimingCache(content)

        def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
            if b"bad" in cache._content:
                return False
            self._cache = cache
            return True

        def get_timing_cache(self) -> ITimingCache | None:
            return self._cache

    class Builder:
        max_threads = 8

        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def create_network(self, flags: int) -> INetworkDefinition:
            return INetworkDefinition(flags)

        def create_builder_config(self) -> IBuilderConfig:
            return IBuilderConfig()

        def create_optimization_profile(self) -> IOptimizationProfile:
            return IOptimizationProfile()

        def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
            if behaviour.refuse:
                log(self._logger, behaviour.refuse)
                return None
            monitor = getattr(config, "progress_monitor", None)
            if monitor is not None:
                monitor.phase_start("building", None, 1)
                monitor.step_complete("building", 0)
                monitor.phase_finish("building")
            strong = not old and (new or network._flags & 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
            behaviour.built = {
                "strong": bool(strong),
                "explicit_batch": old and network._flags == 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH),
                "flags": sorted(flag.name for flag in config._flags),
                "workspace": config._workspace,
                "level": config.builder_optimization_level,
                "threads": self.max_threads,
                "sources": config._sources,
                "hardware": config.hardware_compatibility_level.name,
                "verbose": config.profiling_verbosity.name,
                "wide": [
                    layer.type.name for layer in network._layers if getattr(layer, "precision", 0) == trt.DataType.FLOAT
                ],
                "profiles": [profile._shapes for profile in config._profiles],
            }
            import onnx

            model = onnx.load_from_string(network._content)
            precision = {item.key: item.value for item in model.metadata_props}.get("precision", "fp32")
            if not strong and {"fp16": "FP16", "int8": "INT8"}.get(precision, "TF32") not in behaviour.built["flags"]:
                precision = "fp32"
            plan = {
                "version": version,
                "precision": behaviour.precision or precision,
                "profiles": [profile._shapes for profile in config._profiles],
                "inputs": {tensor.name: [tensor.dtype.name, tensor.shape] for tensor in network._inputs},
                "outputs": {
                    tensor.name: [behaviour.types or tensor.dtype.name, tensor.shape] for tensor in network._outputs
                },
                "host_code": trt.BuilderFlag.VERSION_COMPATIBLE in config._flags,
                "onnx": base64.b64encode(network._content).decode(),
            }
            return json.dumps(plan).encode()

    class EngineInspector:
        execution_context: Any = None

        def __init__(self, plan: dict[str, Any]) -> None:
            self._plan = plan

        def get_engine_information(self, format: Any) -> str:
            # as TensorRT: of dynamic shapes nothing is known before they are set
            known = not self._plan["profiles"] or (self.execution_context and self.execution_context._shapes)
            word = _WORDS.get(self._plan["precision"], "Float") if known else "N/A due to dynamic shapes"
            layers = [("CaskConvolution", word), ("CaskDeconvolution", word), ("Reformat", "Half"), ("kgen", "Float")]
            return json.dumps(
                {
                    "Layers": [
                        {"Name": str(i), "LayerType": kind, "Inputs": [{"Name": "x", "Format/Datatype": format}]}
                        for i, (kind, format) in enumerate(layers)
                    ]
                }
            )

    class IExecutionContext:
        error_recorder: Any = None

        def __init__(self, engine: ICudaEngine) -> None:
            self._engine, self._profile = engine, 0
            self._shapes: dict[str, tuple[int, ...]] = {}
            self._addresses: dict[str, int] = {}
            self._allocators: dict[str, Any] = {}
            import onnxruntime

            self._session = onnxruntime.InferenceSession(
                base64.b64decode(engine._plan["onnx"]), providers=["CPUExecutionProvider"]
            )

        def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
            behaviour.calls.append(f"profile {profile_index}")
            self._profile = profile_index
            return True

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            if self._engine._plan["profiles"]:
                least, _, most = self._engine._plan["profiles"][self._profile][name]
                fits = all(low <= side <= high for low, side, high in zip(least, shape, most, strict=True))
            else:
                fits = list(shape) == self._engine._plan["inputs"][name][1]
            if fits:
                self._shapes[name] = tuple(shape)
            return fits

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return self._shapes.get(name) or ((-1,) * 4 if behaviour.unknown else (*self._shapes["vis"][:3], 3))

        def set_output_allocator(self, name: str, output_allocator: Any) -> bool:
            self._allocators[name] = output_allocator
            return True

        def set_tensor_address(self, name: str, memory: int) -> bool:
            self._addresses[name] = memory
            return True

        def execute_async_v3(self, stream_handle: int) -> bool:
            if behaviour.fail:
                self.error_recorder.report_error(trt.ErrorCodeTRT.FAILED_EXECUTION, behaviour.fail)
                return False
            behaviour.calls.append("execute")
            for name, allocator in self._allocators.items() if behaviour.unknown else ():
                shape = (*self._shapes["vis"][:3], 3)
                words = (name, 0, int(np.prod(shape)), 256)
                given = allocator.reallocate_output(*words) if old else allocator.reallocate_output_async(*words, 1)
                if not given:
                    self.error_recorder.report_error(trt.ErrorCodeTRT.FAILED_EXECUTION, "no memory for an output")
                    return False
                allocator.notify_shape(name, shape)
                self._addresses[name] = given
            plan, addresses, shapes = self._engine._plan, dict(self._addresses), dict(self._shapes)

            def work() -> None:
                inputs = {
                    name: _array(addresses[name], shapes[name], _NUMPY[dtype])
                    for name, (dtype, _) in plan["inputs"].items()
                }
                for name, result in zip(plan["outputs"], self._session.run(None, inputs), strict=True):
                    _array(addresses[name], result.shape, result.dtype)[...] = result

            behaviour.launch(stream_handle, work)
            return True

    class ICudaEngine:
        error_recorder: Any = None

        def __init__(self, plan: dict[str, Any]) -> None:
            self._plan = plan
            self._tensors = {**plan["inputs"], **plan["outputs"]}

        num_io_tensors = property(lambda self: len(self._tensors))
        num_optimization_profiles = property(lambda self: max(1, len(self._plan["profiles"])))

        def get_tensor_name(self, index: int) -> str:
            return list(self._tensors)[index]

        def get_tensor_dtype(self, name: str) -> Any:
            return trt.DataType[self._tensors[name][0]]

        def get_tensor_mode(self, name: str) -> Any:
            return trt.TensorIOMode.INPUT if name in self._plan["inputs"] else trt.TensorIOMode.OUTPUT

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return tuple(self._tensors[name][1])

        def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
            if not self._plan["profiles"]:
                return [self.get_tensor_shape(name)] * 3
            return [tuple(shape) for shape in self._plan["profiles"][profile_index][name]]

        def create_engine_inspector(self) -> EngineInspector:
            return EngineInspector(self._plan)

        def create_execution_context(self) -> IExecutionContext | None:
            return None if behaviour.refuse else IExecutionContext(self)

    class Runtime:
        engine_host_code_allowed = False
        error_recorder: Any = None

        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, content: bytes) -> ICudaEngine | None:
            behaviour.calls.append("deserialize")
            try:
                plan = json.loads(content)
            except ValueError:
                log(self._logger, "Serialization assertion magicTag failed")
                return None
            if plan["version"] != version and not plan["host_code"]:
                log(self._logger, "Version tag does not match")
                return None
            if plan["host_code"] and not self.engine_host_code_allowed:
                log(self._logger, "engine_host_code_allowed is false")
                return None
            return ICudaEngine(plan)

    made = [
        ILogger, IErrorRecorder, IOutputAllocator, ITensor, ILayer, INetworkDefinition, ParserError, OnnxParser,
        ITimingCache, Builder,
        IOptimizationProfile, IBuilderConfig, EngineInspector, IExecutionContext, ICudaEngine, Runtime,
    ]  # fmt: skip
    for owner in (*made, *([] if old else [IProgressMonitor])):
        setattr(trt, owner.__name__, owner)
    return trt


def packages(versions: Sequence[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], Any]]:
    for version in versions:
        yield version, package(f"{version[0]}.{version[1]}.0")


def classes(made: Any) -> Iterator[tuple[str, Any]]:
    for name, value in vars(made).items():
        if isinstance(value, type):
            yield name, value


def names(owner: Any) -> set[str]:
    """The public attributes that a class of the stand-in has of its own."""
    found = owner.__members__ if issubclass(owner, enum.Enum) else vars(owner)
    return {name for name in found if not name.startswith("_")}


def install(
    monkeypatch: Any, version: str = "10.3.0", *, capability: tuple[int, int] = (8, 7), free: float = 4.0
) -> Any:
    """Let a test find the stand-in as ``tensorrt``, on a machine with one GPU of that capability and free GiB."""
    from contextlib import nullcontext

    from pyldfusion import hardware

    made = package(version)
    monkeypatch.setitem(sys.modules, "tensorrt", made)
    for name, value in {
        "cuda_devices": lambda: 1,
        "cuda_capability": lambda index: capability,
        "cuda_name": lambda index: "Orin",
        "cuda_version": lambda: "12.6",
        "cuda_memory": lambda index: (int(free * 2**30), 8 * 2**30),
        "cuda_context": lambda index: nullcontext(SimpleNamespace()),
    }.items():
        monkeypatch.setattr(hardware, name, value)
    return made


def _array(address: int, shape: Sequence[int], dtype: Any) -> Any:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = (ctypes.c_uint8 * size).from_address(address)
    return np.frombuffer(memory, dtype).reshape(shape)
