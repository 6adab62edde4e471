"""What this machine offers to an inference engine, found without importing one: cores, bfloat16, GPUs."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from .errors import DeviceError

__all__ = [
    "cores",
    "cuda_capability",
    "cuda_context",
    "cuda_devices",
    "cuda_memory",
    "cuda_name",
    "cuda_version",
    "native_bf16",
]

_CPUINFO = Path("/proc/cpuinfo")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
#: x86 instructions that multiply bfloat16 numbers; without them engines emulate it, more slowly than float32.
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})

_MEMINFO = Path("/proc/meminfo")
#: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR, and _INTEGRATED, of the driver's API.
_CAPABILITY = (75, 76)
_INTEGRATED = 18


def cores() -> int:
    """Physical cores that this process may use, at least 1: its CPU affinity and its container's quota are honoured.

    Two hardware threads of one core count as one: convolutions keep a core's vector units busy alone.
    """
    # not everywhere: macOS has no affinity
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    count = len({_siblings(cpu) for cpu in allowed})
    quota = _read(_QUOTA).split()
    if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit():
        count = min(count, -(-int(quota[0]) // int(quota[1])))
    return max(count, 1)


def _siblings(cpu: int) -> str:
    return _read(Path(_TOPOLOGY.format(cpu))) or str(cpu)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


@cache
def native_bf16() -> bool:
    """Whether the CPU computes in bfloat16 itself (x86: AVX512-BF16 or AMX-BF16). False where that is not known."""
    flags = re.search(r"^flags\s*:(.*)$", _read(_CPUINFO), re.MULTILINE)
    return flags is not None and not _BF16_FLAGS.isdisjoint(flags[1].split())


@cache
def cuda_devices() -> int:
    """Number of NVIDIA GPUs that the driver reports (``CUDA_VISIBLE_DEVICES`` applies); 0 without a driver."""
    driver = _driver()
    count = ctypes.c_int(0)
    return count.value if driver is not None and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


@cache
def cuda_capability(index: int) -> tuple[int, int]:
    """Compute capability of a GPU, such as (9, 0); (0, 0) where the driver does not tell."""
    major, minor = (_attribute(attribute, index) for attribute in _CAPABILITY)
    return (0, 0) if major is None or minor is None else (major, minor)


@cache
def cuda_name(index: int) -> str:
    """A GPU's name as the driver has it, such as "Orin"; "" where it does not tell."""
    driver, device, name = _driver(), ctypes.c_int(0), ctypes.create_string_buffer(256)
    if driver is None or driver.cuDeviceGet(ctypes.byref(device), index) != 0:
        return ""
    return name.value.decode(errors="replace") if driver.cuDeviceGetName(name, len(name), device) == 0 else ""


@cache
def cuda_version() -> str:
    """The newest CUDA that the driver serves, such as "12.6"; "" without a driver."""
    driver, version = _driver(), ctypes.c_int(0)
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return ""
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


@contextmanager
def cuda_context(index: int) -> Iterator[None]:
    """Make a GPU the current one of this thread, as ``cudaSetDevice`` does, and put the one before back.

    Raises:
        DeviceError: there is no such GPU, or it has no memory for a context.
    """
    driver, device, context = _driver(), ctypes.c_int(0), ctypes.c_void_p()
    if driver is None or index >= cuda_devices() or driver.cuDeviceGet(ctypes.byref(device), index) != 0:
        raise DeviceError(f"there is no NVIDIA GPU number {index} here; the driver reports {cuda_devices()}")
    code = driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
    if code == 0:
        code = driver.cuCtxPushCurrent_v2(context)
    if code != 0:
        raise DeviceError(f"GPU number {index} ({cuda_name(index)}) cannot be used: the driver answers error {code}")
    try:
        yield
    finally:
        driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
        driver.cuDevicePrimaryCtxRelease(device)


def cuda_memory(index: int) -> tuple[int, int]:
    """Free bytes and all bytes of a GPU's memory; (0, 0) where the driver does not tell.

    A Jetson's GPU shares the machine's memory, of which the system gives back what it holds for files; the driver
    does not count that.
    """
    driver, free, total = _driver(), ctypes.c_size_t(0), ctypes.c_size_t(0)
    if driver is None:
        return 0, 0
    with cuda_context(index):
        if driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) != 0:
            return 0, 0
    available = re.search(r"^MemAvailable:\s*(\d+) kB", _read(_MEMINFO), re.MULTILINE)
    if _attribute(_INTEGRATED, index) and available:
        return int(available[1]) * 1024, total.value
    return free.value, total.value


def _attribute(attribute: int, index: int) -> int | None:
    driver, device, value = _driver(), ctypes.c_int(0), ctypes.c_int(0)
    if driver is None or driver.cuDeviceGet(ctypes.byref(device), index) != 0:
        return None
    return value.value if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device) == 0 else None


def _driver() -> ctypes.CDLL | None:
    """NVIDIA's driver library, initialised, if it is here and has a GPU."""
    for library in ("libcuda.so.1", "libcuda.so", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(library)
        except OSError:
            continue
        if driver.cuInit(0) == 0:
            return driver
    return None
