"""What `doctor` and `bench` say of the machine: processor, memory, GPU driver, CUDA toolkit."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

__all__ = ["cpu_features", "cpu_name", "driver_version", "first_line", "gpu_names", "memory_gb", "toolkit_version"]

#: Instructions that matter to inference, by their name in /proc/cpuinfo (x86, then ARM).
FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX512-VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "amx_bf16": "AMX-BF16",
    "amx_int8": "AMX-INT8",
    "asimd": "NEON",
    "asimddp": "NEON dot product",
    "bf16": "NEON BF16",
    "sve": "SVE",
}


def cpu_name() -> str:
    """The processor's name, or its architecture where the system does not tell."""
    match = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()


def cpu_features() -> list[str]:
    """Those of `FEATURES` that the processor has."""
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", _cpuinfo(), re.MULTILINE)
    flags = set(match[1].split()) if match else set()
    return [name for flag, name in FEATURES.items() if flag in flags]


def memory_gb() -> float | None:
    """Memory of the machine in GiB."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return None


def driver_version() -> str | None:
    """The highest CUDA version that the NVIDIA driver serves, None without a driver."""
    driver = _driver()
    version = ctypes.c_int(0)
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def gpu_names() -> list[str]:
    """Names of the GPUs that the driver reports, with their compute capability."""
    driver, count = _driver(), ctypes.c_int(0)
    if driver is None or driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    names = []
    for index in range(count.value):
        name, major, minor = ctypes.create_string_buffer(128), ctypes.c_int(0), ctypes.c_int(0)
        driver.cuDeviceGetName(name, len(name), index)
        driver.cuDeviceGetAttribute(ctypes.byref(major), 75, index)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
        driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, index)  # ..._MINOR
        names.append(f"{name.value.decode(errors='replace')} (sm_{major.value}{minor.value})")
    return names


def toolkit_version() -> str | None:
    """The CUDA toolkit's version, as its compiler says, None without one."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    compiler = shutil.which("nvcc") or shutil.which("nvcc", path=str(Path(home) / "bin"))
    match = re.search(r"release ([\d.]+)", _output([compiler, "--version"])) if compiler else None
    return match[1] if match else None


def first_line(command: list[str]) -> str | None:
    """The first line that a command prints, None if it is not installed or fails."""
    return next(iter(_output(command).splitlines()), None) if shutil.which(command[0]) else None


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _driver() -> ctypes.CDLL | None:
    for library in ("libcuda.so.1", "nvcuda.dll"):
        try:
            return ctypes.CDLL(library)
        except OSError:
            continue
    return None


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
