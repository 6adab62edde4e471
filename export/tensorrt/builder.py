"""An engine from an ONNX file: parse, configure, build, read back, write with a sidecar."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pyldfusion import hardware, onnx_file, sidecar
from pyldfusion.errors import ArtefactError, DeviceError, EngineError, InputError
from pyldfusion.media.atomic import atomic_path
from pyldfusion.sidecar import Profile, Sidecar
from pyldfusion.tensorrt_api import Version, import_tensorrt, make_logger, take_errors

from ..shape import ANY, Shape
from . import readback, versions

if TYPE_CHECKING:
    import tensorrt

__all__ = ["HARDWARE", "BuildOptions", "build_engine", "engine_name"]

_log = logging.getLogger("pyldfusion.tensorrt")

#: Part of the GPU's free memory that a build may use as workspace, unless told otherwise. The rest is for weights,
#: activations and everybody else; a board shares it with the whole system.
WORKSPACE_SHARE, LOW_MEMORY_SHARE = 0.5, 0.2
#: The GPUs an engine can be for: the one it is built on, any from Ampere on, any of the same compute capability.
HARDWARE = ("none", "ampere+", "same-capability")
#: Optimisation levels of TensorRT: 0 builds fastest, 5 runs fastest; and ours for boards with little memory.
LEVELS, LOW_MEMORY_LEVEL = range(6), 2


@dataclass(frozen=True)
class BuildOptions:
    """How to build.

    Attributes:
        device: number of the GPU that it is built on and for.
        workspace: GiB of GPU memory that a layer may use for itself; None: :data:`WORKSPACE_SHARE` of what is free.
        optimization_level: 0 to 5; None is TensorRT's own choice (3).
        timing_cache: file with measurements of earlier builds, made if it is not there; building again takes seconds.
        low_memory: for boards of 4 to 8 GB: less workspace, no libraries that are large to load, fewer trials.
        hardware: of :data:`HARDWARE`, see :func:`.versions.compatibility`.
        version_compatible: run with later versions of TensorRT too.
        weak_typing: let TensorRT choose among the precision's types, as 8.6 does; for 10.x, where strong typing fails.
        force: replace an engine that is newer than its ONNX file.
    """

    device: int = 0
    workspace: float | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    low_memory: bool = False
    hardware: str = "none"
    version_compatible: bool = False
    weak_typing: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        if self.workspace is not None and not self.workspace > 0:
            raise InputError(f"workspace is {self.workspace!r}; expected GiB above 0")
        if self.optimization_level is not None and self.optimization_level not in LEVELS:
            raise InputError(
                f"optimization_level is {self.optimization_level!r}; expected 0 (builds fast) to 5 (runs fast)"
            )


def engine_name(stem: str, precision: str, shape: Shape, device: int = 0) -> str:
    """The name of an engine: what, precision, NxHxW, GPU: ``lite-fp16-1x480x640-sm87.engine``."""
    major, minor = hardware.cuda_capability(device)
    stem = stem.removesuffix(f"-{precision}")
    return f"{stem}-{precision}-{Profile(*shape.profile)}-sm{major}{minor}.engine"


def build_engine(
    onnx: str | Path, path: str | Path, shape: Shape | None = None, options: BuildOptions | None = None
) -> Sidecar:
    """Build an engine for a GPU of this machine and write it with its sidecar, whole or not at all.

    Args:
        onnx: the graph, in the precision that its metadata name.
        path: ``.engine``, ``.plan`` or ``.trt``.
        shape: the sizes it is for; the graph's own where that is fixed. None: any that fit
            :data:`~export.shape.ANY`.
        options: see :class:`BuildOptions`.

    Returns:
        What the sidecar says.

    Raises:
        InputError: the engine is newer than the graph (and ``force`` is not set), or options that cannot be.
        ArtefactError: the graph is damaged, foreign, or of operators that this TensorRT does not know.
        DependencyError: no TensorRT.
        DeviceError: no such GPU.
        EngineError: the build failed, or gave another precision than the graph's.
    """
    onnx, path, options = Path(onnx), Path(path), options or BuildOptions()
    check_overwrite(path, onnx, options.force)
    try:
        content = onnx.read_bytes()
        metadata = onnx_file.read_metadata(onnx)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ArtefactError(f"{onnx} is not an ONNX file that can be read ({error})") from error
    precision = metadata.get("precision", "unknown")
    trt = import_tensorrt()
    version = Version.of(trt)
    versions.may_type_weakly(version, options.weak_typing)
    with hardware.cuda_context(options.device):
        plan, profile, layers = _build(trt, version, onnx, content, precision, shape or Shape(), options)
    major, minor = hardware.cuda_capability(options.device)
    made = Sidecar(
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        precision=precision,
        profiles=(profile,),
        tensorrt=str(trt.__version__),
        cuda=hardware.cuda_version(),
        gpu=hardware.cuda_name(options.device),
        capability=f"{major}.{minor}",
        hardware_compatibility=options.hardware,
        version_compatible=options.version_compatible,
        onnx=onnx.name,
        graph_sha256=hashlib.sha256(content).hexdigest(),
        built=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        options=_as_json(options),
        layers=layers,
        metadata=metadata,
    )
    with atomic_path(path) as part:
        part.write_bytes(plan)
        # never an engine beside the sidecar of another: an engine alone opens too
        sidecar.sidecar_path(path).unlink(missing_ok=True)
    sidecar.write(path, made)
    return made


def check_overwrite(path: Path, source: Path, force: bool) -> None:
    """Raises InputError if ``path`` is newer than what it would be made from."""
    if path.exists() and not force and source.exists() and path.stat().st_mtime > source.stat().st_mtime:
        raise InputError(f"{path} exists and is newer than {source.name}; --force builds it again")


def _build(
    trt: ModuleType, version: Version, onnx: Path, content: bytes, precision: str, shape: Shape, options: BuildOptions
) -> tuple[bytes, Profile, dict[str, int]]:
    logger = make_logger(trt)
    builder: tensorrt.Builder = trt.Builder(logger)
    network: tensorrt.INetworkDefinition = builder.create_network(
        versions.network_flags(trt, version, options.weak_typing)
    )
    parser: tensorrt.OnnxParser = trt.OnnxParser(network, logger)
    versions.set_parser_flags(trt, version, parser)
    if not parser.parse(content):
        messages = versions.parser_messages(version, parser, onnx_file.read_node_names(onnx))
        reasons = "; ".join(messages) or take_errors(logger) or "it does not say why"
        raise ArtefactError(f"TensorRT {version} does not take {onnx}: {reasons}")
    config: tensorrt.IBuilderConfig = builder.create_builder_config()
    profile, usual = _profile(builder, config, network, shape)
    _configure(trt, version, builder, config, options)
    versions.set_precision(trt, version, config, network, precision, options.weak_typing)
    progress = versions.watch(trt, version, config)
    cache = _load_timing_cache(config, options.timing_cache)
    _log.info("building %s for %s with TensorRT %s", onnx.name, hardware.cuda_name(options.device), trt.__version__)
    memory = builder.build_serialized_network(network, config)
    del progress
    if memory is None:
        raise _build_error(onnx, take_errors(logger), options)
    plan = bytes(memory)
    _save_timing_cache(config, cache, options.timing_cache)
    runtime: tensorrt.Runtime = trt.Runtime(logger)
    if options.version_compatible:
        runtime.engine_host_code_allowed = True
    engine: tensorrt.ICudaEngine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(f"TensorRT does not load the engine it has just built: {take_errors(logger)}")
    readback.check_types(engine, _types(network))
    layers = readback.layer_precisions(trt, engine, usual)
    readback.check_precision(precision, layers)
    return plan, profile, layers


def _configure(
    trt: ModuleType, version: Version, builder: tensorrt.Builder, config: tensorrt.IBuilderConfig, options: BuildOptions
) -> None:
    free, _ = hardware.cuda_memory(options.device)
    share = LOW_MEMORY_SHARE if options.low_memory else WORKSPACE_SHARE
    workspace = int(free * share) if options.workspace is None else int(options.workspace * 2**30)
    if workspace > free:
        raise DeviceError(
            f"a workspace of {workspace / 2**30:.2f} GiB was asked for, and {free / 2**30:.2f} GiB of GPU memory are "
            "free; ask for less, or for none to take a share of what is free"
        )
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # or the precision of layers cannot be read back
    if options.low_memory:
        versions.use_little_memory(trt, config)
        config.builder_optimization_level = LOW_MEMORY_LEVEL
        builder.max_threads = 1
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    versions.compatibility(trt, version, config, hardware=options.hardware, versions=options.version_compatible)


def _profile(
    builder: tensorrt.Builder, config: tensorrt.IBuilderConfig, network: tensorrt.INetworkDefinition, shape: Shape
) -> tuple[Profile, dict[str, tuple[int, ...]]]:
    """One optimisation profile, every input's axes called N, H and W from ``shape``; and the inputs' usual shapes.

    Infrared of a size of its own (IH, IW) may have any that an engine of no given size takes.
    """
    profile: tensorrt.IOptimizationProfile = builder.create_optimization_profile()
    sizes = dict(zip("NHW", zip(*shape.profile, strict=True), strict=True))
    sizes |= {"IH": ANY["height"], "IW": ANY["width"]}
    asked = dict(zip("NHW", shape.dims, strict=True))
    dynamic = False
    inputs = {}
    for index in range(network.num_inputs):
        tensor: tensorrt.ITensor = network.get_input(index)
        ranges = []
        for axis, side in enumerate(tensor.shape):
            name = tensor.get_dimension_name(axis) or _usual_name(tensor, axis)
            if side >= 0 and name in sizes:  # fixed in the graph
                if isinstance(asked[name], int) and asked[name] != side:
                    raise InputError(
                        f"the graph is for {name}={side}; {name}={asked[name]} was asked for: export it again"
                    )
                sizes[name] = (side, side, side)
            elif side < 0 and name not in sizes:
                raise ArtefactError(f"input {tensor.name!r} has an axis {name!r} of no fixed size; expected N, H or W")
            dynamic = dynamic or side < 0
            ranges.append(sizes[name] if side < 0 else (side, side, side))
        inputs[tensor.name] = tuple(side for _, side, _ in ranges)
        if any(side < 0 for side in tensor.shape):
            profile.set_shape(tensor.name, *(tuple(size) for size in zip(*ranges, strict=True)))
    if dynamic:
        config.add_optimization_profile(profile)
    least, usual, most = ((n, h, w) for n, h, w in zip(*(sizes[name] for name in "NHW"), strict=True))
    return Profile(least, usual, most), inputs


def _usual_name(tensor: tensorrt.ITensor, axis: int) -> str:
    """The meaning of an axis of fixed size, which has no name: frames are [N,H,W,C], planes [N,1,H,W]."""
    names = "N"
    if len(tensor.shape) == 4:
        names = "NCHW" if tensor.shape[1] == 1 and tensor.shape[3] not in (1, 3) else "NHWC"
    return names[axis] if axis < len(names) else ""


def _types(network: tensorrt.INetworkDefinition) -> dict[str, Any]:
    types = {}
    for index in range(network.num_inputs):
        tensor: tensorrt.ITensor = network.get_input(index)
        types[tensor.name] = tensor.dtype
    for index in range(network.num_outputs):
        result: tensorrt.ITensor = network.get_output(index)
        types[result.name] = result.dtype
    return types


def _load_timing_cache(config: tensorrt.IBuilderConfig, file: Path | None) -> tensorrt.ITimingCache:
    """The cache of a file, or an empty one; what a foreign or damaged file holds is not worth a failed build."""
    content = file.read_bytes() if file is not None and file.is_file() else b""
    for attempt in dict.fromkeys((content, b"")):
        try:
            cache: tensorrt.ITimingCache = config.create_timing_cache(attempt)
            if cache is not None and config.set_timing_cache(cache, False):
                return cache
        except (RuntimeError, ValueError, TypeError) as error:
            _log.debug("timing cache: %s", error)
        if attempt:
            warnings.warn(
                f"the timing cache {file} is damaged, or of another GPU or TensorRT; it is replaced", stacklevel=4
            )
    return None


def _save_timing_cache(config: tensorrt.IBuilderConfig, cache: tensorrt.ITimingCache, file: Path | None) -> None:
    if file is None or cache is None:
        return
    used: tensorrt.ITimingCache = config.get_timing_cache() or cache
    with atomic_path(file) as part:
        part.write_bytes(bytes(used.serialize()))


def _build_error(onnx: Path, said: str, options: BuildOptions) -> EngineError:
    help_ = ""
    if "memory" in said.lower():
        free, total = hardware.cuda_memory(options.device)
        help_ = f" ({free / 2**30:.2f} of {total / 2**30:.2f} GiB are free); "
        help_ += "close other programs, build for smaller frames" + (
            "" if options.low_memory else ", or with --low-memory"
        )
    return EngineError(f"TensorRT cannot build {onnx.name}: {said or 'it does not say why'}{help_}")


def _as_json(options: BuildOptions) -> dict[str, Any]:
    values = dataclasses.asdict(options)
    values["timing_cache"] = None if options.timing_cache is None else str(options.timing_cache)
    del values["force"]
    return values
