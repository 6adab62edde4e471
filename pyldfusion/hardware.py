"""What this machine offers to an inference engine, found without importing one: cores, bfloat16, GPUs."""

from __future__ import annotations

import ctypes
import os
import re
from functools import cache
from pathlib import Path

__all__ = ["cores", "cuda_capability", "cuda_devices", "native_bf16"]

_CPUINFO = Path("/proc/cpuinfo")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
#: x86 instructions that multiply bfloat16 numbers; without them engines emulate it, more slowly than float32.
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})

#: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of the driver's API.
_CAPABILITY = (75, 76)


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
    driver = _driver()
    device, value = ctypes.c_int(0), ctypes.c_int(0)
    if driver is None or driver.cuDeviceGet(ctypes.byref(device), index) != 0:
        return 0, 0
    found = []
    for attribute in _CAPABILITY:
        if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device) != 0:
            return 0, 0
        found.append(value.value)
    return found[0], found[1]


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
