"""What this machine offers to an inference engine, found without importing one: cores, bfloat16, GPUs."""

from __future__ import annotations

import ctypes
import os
import re
from functools import cache
from pathlib import Path

__all__ = ["cores", "cuda_devices", "native_bf16"]

_CPUINFO = Path("/proc/cpuinfo")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
#: x86 instructions that multiply bfloat16 numbers; without them engines emulate it, more slowly than float32.
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


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
    for library in ("libcuda.so.1", "libcuda.so", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(library)
        except OSError:
            continue
        count = ctypes.c_int(0)
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return count.value
    return 0
