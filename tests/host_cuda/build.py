"""Compiles kernels for the emulation beside this file (cuda_runtime.h says what it is and what it finds).

    library = build.load(ROOT / "csrc" / "adain.cu", HERE / "adain_entry.cu")   # C functions, through ctypes
    module = build.module()                                                     # pyldfusion's own module _cuda

What was built stays in build/host_cuda until a source changes.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CSRC = ROOT / "csrc"
CACHE = ROOT / "build" / "host_cuda"
NAME = "libhost_cuda.so"

FLAGS = ("-std=c++17", "-fPIC", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror", "-U_FORTIFY_SOURCE")
#: Hooks into every memory access, and faults for what C++ leaves undefined; host_cuda.cpp answers both. Local
#: variables start as garbage, the same on every run.
CHECKS = (
    "-fsanitize=thread",
    "-fsanitize=alignment,bounds,shift,signed-integer-overflow,integer-divide-by-zero",
    "-ftrivial-auto-var-init=pattern",
)
ADDRESS = ("-fsanitize=address", "-fno-omit-frame-pointer", "-g1")


def missing() -> str:
    """Why kernels cannot be emulated here; empty when they can."""
    if os.environ.get("PYLDFUSION_EMULATION") == "0":
        return "the emulation is turned off (PYLDFUSION_EMULATION=0)"
    if not sys.platform.startswith("linux"):
        return "host CUDA needs Linux"
    if not shutil.which("g++"):
        return "host CUDA needs g++"
    if toolkit() is None:
        return "host CUDA needs the CUDA toolkit's headers (cuda_runtime_api.h)"
    return ""


def toolkit() -> Path | None:
    """The folder of the CUDA toolkit's headers, where the types come from; None where there is none."""
    nvcc = os.environ.get("CUDACXX") or shutil.which("nvcc")
    roots = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    if nvcc:
        roots.insert(0, str(Path(nvcc).resolve().parent.parent))
    for root in filter(None, roots):
        if Path(root, "include", "cuda_runtime_api.h").is_file():
            return Path(root, "include")
    return None


def load(*sources: Path, address: bool = False) -> ctypes.CDLL:
    """A library of these .cu files, with their ``extern "C"`` functions and the emulation's own."""
    library = ctypes.CDLL(str(build(*sources, address=address)))
    library.cudaGetErrorString.restype = ctypes.c_char_p
    return library


def load_for_gpu(*sources: Path, folder: Path) -> ctypes.CDLL | None:
    """The same library compiled by nvcc for the GPU at hand, into ``folder``; None on a machine without one."""
    if not all(map(shutil.which, ("nvcc", "nvidia-smi"))) or subprocess.run(["nvidia-smi", "-L"]).returncode:
        return None
    nvcc = ["nvcc", "-std=c++17", "-arch=native", "-O3", "-lineinfo", "-Xcompiler", "-fPIC", f"-I{CSRC}"]
    objects = [folder / f"{source.stem}.o" for source in sources]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(
            lambda pair: subprocess.run([*nvcc, "-c", pair[0], "-o", pair[1]], check=True),
            zip(sources, objects, strict=True),
        ):
            pass
    subprocess.run([*nvcc, "-shared", *objects, "-o", folder / "gpu.so"], check=True)
    return ctypes.CDLL(str(folder / "gpu.so"))


def module(*, address: bool = False) -> ModuleType:
    """pyldfusion's module ``_cuda``, all of csrc's .cu files behind csrc/cuda_bindings.cpp, under emulation.

    ``module.host`` is the library behind it, for :func:`orders`.
    """
    library = build(*sorted(CSRC.glob("*.cu")), bindings=CSRC / "cuda_bindings.cpp", address=address)
    spec = importlib.util.spec_from_file_location("_cuda", library.with_name("_cuda.so"))
    assert spec is not None and spec.loader is not None
    # Its own library before what the whole process has: a torch with CUDA brings the real runtime's functions.
    before = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | (0 if address else os.RTLD_DEEPBIND))  # AddressSanitizer refuses the latter
    try:
        made = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made)
    finally:
        sys.setdlopenflags(before)
    made.host = ctypes.CDLL(str(library))  # type: ignore[attr-defined]
    return made


def stand_in() -> None:
    """From now on :mod:`pyldfusion.cuda` runs emulated kernels on host arrays, in this process."""
    import pyldfusion
    from pyldfusion import cuda

    pyldfusion._cuda = sys.modules["pyldfusion._cuda"] = module()  # type: ignore[attr-defined]
    cuda.why_not = lambda: ""  # type: ignore[assignment]


def orders(library: ctypes.CDLL) -> Iterator[str]:
    """Sets one order of threads and blocks after the other; a kernel must give the same bits in all of them."""
    for mode, name in enumerate(("ascending", "descending", "shuffled")):
        library.host_cuda_order(mode, 1)
        yield name


def build(*sources: Path, bindings: Path | None = None, address: bool = False) -> Path:
    """Path of the shared library, built unless it is there. With ``bindings`` a Python module lies beside it.

    ``address=True`` builds it for AddressSanitizer in place of the race detector: accesses outside global memory are
    then found, in a process that was started with libasan preloaded (:func:`preload`).

    Libraries share their objects, and processes that want some at the same time wait for the first.
    """
    digest = hashlib.sha256(repr((FLAGS, CHECKS, ADDRESS, address, sys.version)).encode())
    for path in sorted({*CSRC.iterdir(), *HERE.glob("*.h"), *HERE.glob("*.cpp"), Path(__file__)}):
        digest.update(path.read_bytes())
    folder = CACHE / digest.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(b"".join(path.read_bytes() for path in (*sources, *filter(None, [bindings])))).hexdigest()
    final = folder / name[:16] / NAME
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not final.is_file():
            _link(_compile(sources, bindings, folder, address), bool(bindings), final, address)
    return final


def preload() -> str:
    """Path of libasan, to be LD_PRELOADed by a process that loads an ``address=True`` library."""
    return subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()


def as_cpp(source: str, path: Path) -> str:
    """A .cu or .cuh file as C++: dynamic shared memory, an array that only nvcc knows to place, becomes a pointer."""

    def pointer(match: re.Match[str]) -> str:
        kind = re.sub(r"__align__\s*\([^)]*\)|alignas\s*\([^)]*\)", "", match[1]).strip()
        return f"{kind}* const {match[2]} = static_cast<{kind}*>(host_cuda::dynamic_shared());"

    text = re.sub(r"extern\s+__shared__\s+([^;\[\]]*?)(\w+)\s*\[\s*\]\s*;", pointer, source)
    return f'#line 1 "{path}"\n{text}'


def _compile(sources: Sequence[Path], bindings: Path | None, folder: Path, address: bool) -> list[Path]:
    """The objects, those of ``bindings`` last, each compiled unless it is there."""
    code = folder / "code"
    code.mkdir(exist_ok=True)
    for path in (*CSRC.glob("*.cuh"), *sources):
        (code / path.name).write_text(as_cpp(path.read_text(), path))
    sanitize = ADDRESS if address else ()
    # The stand-in hides the toolkit's cuda_runtime.h, and comes first in every file, as nvcc has it.
    include = ("-DLDF_HOST_CUDA=1", f"-I{code}", f"-I{HERE}", f"-I{CSRC}", "-isystem", toolkit())
    kernel = ("g++", "-x", "c++", *FLAGS, "-O1", *(sanitize or CHECKS), "-include", "cuda_runtime.h", *include)
    plain = ("g++", *FLAGS, "-O1", *sanitize, *include)
    python = ("-fvisibility=hidden", "-isystem", sysconfig.get_path("include"), "-isystem", _pybind11())
    commands = [(*kernel, "-c", code / path.name) for path in sources]
    commands.append((*plain, "-c", HERE / "host_cuda.cpp"))
    if bindings:
        commands.append((*plain, *python, "-c", bindings))
    objects = [folder / f"{command[-1].stem}-{_digest(command[-1])}.o" for command in commands]

    def compile_one(command: Sequence[object], target: Path) -> None:
        if not target.is_file():
            _run((*command, "-o", target.with_suffix(".part")))
            target.with_suffix(".part").rename(target)

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        list(pool.map(compile_one, reversed(commands), reversed(objects)))  # the bindings take longest
    return objects


def _link(objects: list[Path], bindings: bool, final: Path, address: bool) -> None:
    sanitize = ADDRESS if address else ()
    with tempfile.TemporaryDirectory(dir=final.parent.parent) as folder:
        made = Path(folder) / "made"
        made.mkdir()
        own = "-Wl,-Bsymbolic"  # for the same reason as in module()
        _run(("g++", "-shared", own, *sanitize, *objects[: len(objects) - bindings], "-o", made / NAME))
        if bindings:
            runtime = (f"-L{made}", f"-l:{NAME}", "-Wl,-rpath,$ORIGIN")
            _run(("g++", "-shared", *sanitize, objects[-1], *runtime, "-o", made / "_cuda.so"))
        made.rename(final.parent)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]


def _pybind11() -> str:
    import pybind11

    return pybind11.get_include()


def _run(command: Sequence[object]) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
