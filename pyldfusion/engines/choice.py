"""Which engines there are, and which one runs a given file on this machine.

An engine is one module of this package with a function ``load(artefact, device, precision, threads)`` and one row of
``RUNTIMES``. Nothing here imports a runtime; the row's module does, when its engine was chosen.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass

from .. import hardware
from ..artefact import Artefact
from ..errors import ArtefactError, DependencyError, DeviceError, InputError, did_you_mean
from ..tensorrt_api import how_to_install
from .base import Engine

__all__ = [
    "RUNTIMES",
    "Runtime",
    "available",
    "choose",
    "computed",
    "cuda_usable",
    "installed",
    "native",
    "open_engine",
    "rebuilt",
]


@dataclass(frozen=True)
class Runtime:
    """One row of the table of engines.

    Attributes:
        module: the module of this package that has ``load``.
        package: what must be importable.
        install: the command that makes it so.
        kinds: kinds of artefact it opens.
        devices: where it can run, and what it can compute in there.
        lacks: precisions of files that it does not open, though it opens their kind.
        as_built: its files are for one device and one precision; there is nothing to choose.
    """

    module: str
    package: str
    install: str
    kinds: tuple[str, ...]
    devices: Mapping[str, tuple[str, ...]]
    as_built: bool = False
    lacks: tuple[str, ...] = ()

    def opens(self, artefact: Artefact) -> bool:
        """Whether it opens such a file."""
        return artefact.kind in self.kinds and artefact.precision not in self.lacks

    @property
    def precisions(self) -> tuple[str, ...]:
        """On any device."""
        return tuple(dict.fromkeys(precision for there in self.devices.values() for precision in there))


RUNTIMES = {
    "openvino": Runtime(
        "openvino", "openvino", "pip install 'pyldfusion[openvino]'", ("openvino", "onnx"), {"cpu": ("bf16", "fp32")}
    ),
    "onnxruntime": Runtime("onnx", "onnxruntime", "pip install onnxruntime", ("onnx",), {"cpu": ("fp32",)}),
    "native": Runtime("native", "pyldfusion._native", "pip install pyldfusion", ("method",), {"cpu": ("fp32",)}),
    "torch": Runtime(
        "torch",
        "torch",
        "pip install 'pyldfusion[export]'",
        ("safetensors", "onnx", "openvino"),
        {"cuda": ("fp16", "bf16", "fp32"), "cpu": ("fp32",)},
        lacks=("int8",),  # it takes the weights alone, and those of 8 bits are no network without their graph
    ),
    "tensorrt": Runtime(
        "tensorrt",
        "tensorrt",
        "pip install 'pyldfusion[tensorrt]'",
        ("tensorrt",),
        {"cuda": ("int8", "fp16", "fp32", "unknown")},
        as_built=True,
    ),
}

#: Least compute capability of an NVIDIA GPU that multiplies matrices in a precision faster than in fp32.
NATIVE = {"fp16": (7, 0), "bf16": (8, 0)}

PRECISIONS = ("fp32", "fp16", "bf16", "int8")

#: Engine and precision in the order of speed, as `python -m benchmarks cpu` measures it on a CPU; the first that is
#: installed and fits the file and the device is the default. All are within 48 dB of float64 planes on real pairs.
#: On a GPU fp16 goes before bf16, which is as large and has three bits less.
PREFERENCE = (
    ("openvino", "bf16"),
    ("openvino", "fp32"),
    ("onnxruntime", "fp32"),
    ("torch", "fp16"),
    ("torch", "bf16"),
    ("torch", "fp32"),
    ("native", "fp32"),
)


def installed(name: str) -> bool:
    """Whether the package of the engine ``name`` can be found; it is not imported."""
    return importlib.util.find_spec(RUNTIMES[name].package) is not None


def open_engine(
    artefact: Artefact,
    device: str | None = None,
    engine: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
) -> Engine:
    """Load a model file into a runtime.

    Args:
        artefact: see :func:`pyldfusion.artefact.open_artefact`.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; None takes a usable GPU if there is one, else the CPU.
        engine: ``"openvino"``, ``"onnxruntime"``, ``"torch"`` or ``"native"``, with the precision if wanted
            (``"openvino:fp32"``); None takes the fastest installed.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``; None takes the fastest that the device has natively.
        threads: CPU threads; None takes the physical cores that this process may use.

    Raises:
        InputError: unknown names, or a combination that does not exist.
        ArtefactError: no engine opens such a file, or the file is damaged.
        DependencyError: the runtime is not installed.
        DeviceError: the device or the precision is not there on this machine.
    """
    if artefact.io == "planes":
        raise ArtefactError(
            f"{artefact.path.name} takes float planes ('io' is planes); frames need a model exported with --io frames"
        )
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InputError(f"threads is {threads!r}; expected a whole number from 1 up, or None")
    name, precision, device = choose(artefact, device, engine, precision)
    module = importlib.import_module(f".{RUNTIMES[name].module}", __package__)
    loaded: Engine = module.load(artefact, device, precision, threads or hardware.cores())
    return loaded


def rebuilt(artefact: Artefact, device: str | None) -> Artefact:
    """``artefact``, or where it was built for another machine one built for this one, beside it, from its ONNX file.

    Raises:
        InputError: a kind of file that runs anywhere.
        PyldfusionError: see :func:`pyldfusion.engines.tensorrt.rebuilt`.
    """
    names = [name for name, row in RUNTIMES.items() if artefact.kind in row.kinds and row.as_built]
    if not names:
        raise InputError(f"rebuild is for engines that were built for one machine; {artefact.path.name} needs none")
    _, _, device = _as_built(artefact, names[0], device, None)
    module = importlib.import_module(f".{RUNTIMES[names[0]].module}", __package__)
    made: Artefact = module.rebuilt(artefact, device)
    return made


def choose(artefact: Artefact, device: str | None, engine: str | None, precision: str | None) -> tuple[str, str, str]:
    """Engine, precision and device that :func:`open_engine` would use, by its rules and with its errors."""
    if engine is not None:
        engine, precision = _parse_engine(engine, precision)
    if precision is not None and precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}; expected {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}")
    fitting = [name for name, row in RUNTIMES.items() if row.opens(artefact)]
    if not fitting:
        raise ArtefactError(
            f"{artefact.path.name}: this version has no engine for {artefact.kind} files; "
            "open the .onnx or .safetensors file it was made from"
        )
    if engine is not None and engine not in fitting:
        raise InputError(f"engine {engine!r} does not open {artefact.called}; {', '.join(fitting)} would")
    if all(RUNTIMES[name].as_built for name in fitting):
        return _as_built(artefact, fitting[0], device, precision)
    if engine is not None and not installed(engine):
        raise DependencyError(f"engine {engine!r} is not installed: {RUNTIMES[engine].install}")
    if device is None and all("cuda" not in RUNTIMES[name].devices for name in fitting):
        device = "cpu"
    device = _choose_device(device, engine)
    candidates = [
        (name, computed)
        for name, computed in PREFERENCE
        if name in fitting
        and (engine is None or name == engine)
        and (precision is None or computed == precision)
        and (computed == "fp32" or name == "torch" or not artefact.exact)
        and computed in RUNTIMES[name].devices.get(device.partition(":")[0], ())
    ]
    if not candidates:
        raise InputError(
            f"no engine runs {artefact.called} with engine={engine or 'any'}, "
            f"precision={precision or 'any'} on {device}; there are: {_combinations(fitting)}"
        )
    if precision is not None and not native(precision, device):
        lacking = (
            "this CPU has no bfloat16 arithmetic (avx512_bf16 or amx_bf16)"
            if device == "cpu"
            else f"{device} has no tensor cores for {precision} (from compute capability {NATIVE[precision][0]}.0)"
        )
        raise DeviceError(f"{lacking}, where {precision} would only lose accuracy; use precision='fp32'")
    for name, computed in candidates:
        if not native(computed, device):
            continue
        if installed(name):
            return name, computed, device
    missing = dict.fromkeys(name for name, _ in candidates)
    raise DependencyError(
        f"no engine for {artefact.path.name} is installed; any of: "
        + "; ".join(RUNTIMES[name].install for name in missing)
        + "; or take the model 'pyramid', which needs none"
    )


def _as_built(artefact: Artefact, engine: str, device: str | None, precision: str | None) -> tuple[str, str, str]:
    """:func:`choose` for a file that was built for one GPU and in one precision."""
    name = artefact.path.name
    if precision not in (None, artefact.precision):
        raise InputError(f"{name} was built in {artefact.precision}; precision={precision!r} would be another file")
    if not installed(engine):
        raise DependencyError(f"{name} needs {engine}: {how_to_install()}")
    device = "cuda" if device is None else _checked_device(device)
    if device == "cpu":
        raise InputError(f"{name} runs on the GPU it was built for, not with device='cpu'")
    _check_gpu(device)
    return engine, artefact.precision, device


def computed(artefact: Artefact, precision: str) -> str:
    """What an engine of that precision computes a file in; for int8 files also the rest: ``"int8+fp32"``."""
    return f"int8+{precision}" if artefact.precision == "int8" != precision else precision


def native(precision: str, device: str) -> bool:
    """Whether a device computes in ``precision`` itself, and so faster than in fp32."""
    if precision == "fp32":
        return True
    if device == "cpu":
        return precision == "bf16" and hardware.native_bf16()
    return hardware.cuda_capability(int(device.partition(":")[2] or 0)) >= NATIVE[precision]


def available(kind: str | None = None, device: str | None = None) -> list[tuple[str, str, str]]:
    """What runs on this machine, as (engine, precision, device), the default of each device first.

    Args:
        kind: only what opens artefacts of this kind.
        device: only there: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; None takes both kinds of device.
    """
    devices = ["cuda", "cpu"] if device is None else [device]
    return [
        (name, precision, where)
        for where in devices
        if where == "cpu" or cuda_usable()
        for name, precision in PREFERENCE
        if precision in RUNTIMES[name].devices.get(where.partition(":")[0], ())
        and (kind is None or kind in RUNTIMES[name].kinds)
        and installed(name)
        and native(precision, where)
    ]


def _parse_engine(engine: str, precision: str | None) -> tuple[str, str | None]:
    """``"openvino:bf16"`` -> engine and precision."""
    name, colon, suffix = engine.partition(":") if isinstance(engine, str) else ("", "", "")
    if name not in RUNTIMES:
        raise InputError(
            f"unknown engine {engine!r}; known: {', '.join(RUNTIMES)}{did_you_mean(engine, RUNTIMES, 0.5)}"
        )
    if colon:
        if precision not in (None, suffix):
            raise InputError(f"engine={engine!r} and precision={precision!r} contradict each other")
        precision = suffix
    if precision is not None and precision not in RUNTIMES[name].precisions:
        raise InputError(
            f"engine {name!r} does not compute in {precision!r}; it has: {', '.join(RUNTIMES[name].precisions)}"
        )
    return name, precision


def _choose_device(device: str | None, engine: str | None) -> str:
    if device is None:
        return "cuda" if engine in (None, "torch") and cuda_usable() else "cpu"
    if _checked_device(device).startswith("cuda"):
        _check_gpu(device)
        if not installed("torch"):
            raise DependencyError(f"device {device!r} needs torch: {RUNTIMES['torch'].install}")
        if not cuda_usable():
            raise DeviceError(
                f"device {device!r} was asked for, but the installed torch is built without CUDA; install a CUDA "
                "build of torch or use device='cpu'"
            )
    return device


def _checked_device(device: str) -> str:
    if not isinstance(device, str) or not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        hint = did_you_mean({"gpu": "cuda", "nvidia": "cuda"}.get(str(device).lower(), device), ("cpu", "cuda"), 0.5)
        raise InputError(f"unknown device {device!r}; expected cpu, cuda or cuda:N{hint}")
    return device


def _check_gpu(device: str) -> None:
    """Raises DeviceError if the driver reports no such GPU."""
    index, found = int(device.partition(":")[2] or 0), hardware.cuda_devices()
    if index >= found:
        raise DeviceError(
            f"device {device!r} was asked for, but the NVIDIA driver reports "
            f"{found or 'no'} GPU{'s' if found > 1 else ''} here; use device='cpu'"
        )


def cuda_usable() -> bool:
    """Whether a GPU is here and torch can compute on it. torch is imported only where the driver reports a GPU."""
    if not hardware.cuda_devices() or not installed("torch"):
        return False
    usable: bool = importlib.import_module(".torch", __package__).has_cuda()
    return usable


def _combinations(names: list[str]) -> str:
    return ", ".join(
        f"{name}:{precision} on {device}"
        for name in names
        for device, precisions in RUNTIMES[name].devices.items()
        for precision in precisions
    )
