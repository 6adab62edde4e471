"""What differs between TensorRT 8.6, 10.x and 11.x when an engine is built; all branches are here.

Names are looked up, never numbers: the values of enumerations shift between major versions.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pyldfusion.errors import InputError
from pyldfusion.tensorrt_api import Version

if TYPE_CHECKING:
    import tensorrt

__all__ = [
    "compatibility",
    "may_type_weakly",
    "network_flags",
    "parser_messages",
    "set_parser_flags",
    "set_precision",
    "use_little_memory",
    "watch",
]

_log = logging.getLogger("pyldfusion.tensorrt")


def may_type_weakly(version: Version, weak_typing: bool) -> None:
    """Raises InputError where weak typing was asked for and is gone."""
    if version.since(11) and weak_typing:
        raise InputError(f"TensorRT {version} has no weak typing: the graph's types decide; build without weak_typing")


def network_flags(trt: ModuleType, version: Version, weak_typing: bool) -> int:
    """For ``create_network``."""
    if version.before(10):
        return 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    if version.before(11) and not weak_typing:
        return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    return 0


def set_parser_flags(trt: ModuleType, version: Version, parser: tensorrt.OnnxParser) -> None:
    """8.6 makes a plugin of InstanceNormalization unless told otherwise; later versions have a layer for it."""
    if version.before(10):
        parser.set_flag(trt.OnnxParserFlag.NATIVE_INSTANCENORM)


def parser_messages(version: Version, parser: tensorrt.OnnxParser, names: Sequence[str]) -> list[str]:
    """What the parser refused, with the node each time.

    Args:
        version: TensorRT's.
        parser: after a parse that failed.
        names: the graph's nodes in order; 8.6 knows only their index.
    """
    messages = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        node = error.node()
        where = names[node] if 0 <= node < len(names) else f"node {node}"
        if version.since(10):
            where = f"{error.node_name() or where} ({error.node_operator()})"
        messages.append(f"{where}: {error.desc()}")
    return messages


def set_precision(
    trt: ModuleType,
    version: Version,
    config: tensorrt.IBuilderConfig,
    network: tensorrt.INetworkDefinition,
    precision: str,
    weak_typing: bool,
) -> None:
    """Allow the precision that the graph is in, where its types alone do not decide.

    Norms and reductions are then held in FP32 by name, which strong typing has from the graph's casts.
    """
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default: ten bits where the graph says fp32
    if version.before(10) or (version.before(11) and weak_typing):
        if precision not in ("fp16", "int8"):
            return
        config.set_flag(trt.BuilderFlag.FP16)
        if precision == "int8":
            config.set_flag(trt.BuilderFlag.INT8)  # ranges are in the graph, as Q/DQ
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
        wide = (trt.LayerType.NORMALIZATION, trt.LayerType.REDUCE, trt.LayerType.UNARY)
        for index in range(network.num_layers):
            layer = network.get_layer(index)
            if layer.type in wide and layer.get_output(0).dtype in (trt.DataType.FLOAT, trt.DataType.HALF):
                layer.precision = trt.DataType.FLOAT


def use_little_memory(trt: ModuleType, config: tensorrt.IBuilderConfig) -> None:
    """For boards whose GPU shares 4 to 8 GB with everything else.

    cuDNN and cuBLAS cost hundreds of megabytes by being loaded (11 has done without them), parallel streams have
    activations each, and a low level of optimisation tries fewer kernels that want workspace.
    """
    sources = 0
    for source in (trt.TacticSource.EDGE_MASK_CONVOLUTIONS, trt.TacticSource.JIT_CONVOLUTIONS):
        sources |= 1 << int(source)
    config.set_tactic_sources(sources)
    config.max_aux_streams = 0


def compatibility(
    trt: ModuleType, version: Version, config: tensorrt.IBuilderConfig, *, hardware: str, versions: bool
) -> None:
    """Let the plan run on other GPUs or with later versions, at some cost in speed.

    Args:
        trt: the package.
        version: its version.
        config: what to change.
        hardware: ``"none"``, ``"ampere+"`` (any discrete GPU from Ampere on; Jetsons have none of it), or
            ``"same-capability"`` (from 10.13).
        versions: later versions of the same major, and 10 for a plan of 8.6 (host code is in the plan).

    Raises:
        InputError: a level that this version does not have.
    """
    if versions:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if hardware == "ampere+":
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    elif hardware == "same-capability":
        if version.before(10, 13):
            raise InputError(f"hardware compatibility 'same-capability' needs TensorRT 10.13; this is {version}")
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
    elif hardware != "none":
        raise InputError(f"hardware compatibility is {hardware!r}; expected none, ampere+ or same-capability")


def watch(trt: ModuleType, version: Version, config: tensorrt.IBuilderConfig) -> Any:
    """Say how far a build is, where the version tells; what is returned has to live as long as the build."""
    if version.before(10):
        return None

    class Progress(trt.IProgressMonitor):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            _log.info("%s: %d of %d", phase_name, step + 1, self._steps.get(phase_name, step + 1))
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    monitor = Progress()
    config.progress_monitor = monitor
    return monitor
