"""Builds `pyldfusion._native` and, with CUDA, `pyldfusion._cuda`; all else about the package is in pyproject.toml.

Environment:
    PYLDFUSION_CUDA                auto (default: with CUDA when nvcc is found), 1 (must), 0 (never)
    PYLDFUSION_CUDA_ARCHITECTURES  default (75, 87, 90), all, native (this machine's GPU), or numbers
    CXX, CUDACXX                   compilers other than the ones on PATH
    CMAKE_ARGS                     further arguments for CMake
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import SetupError

ROOT = Path(__file__).resolve().parent
NATIVE, CUDA = "pyldfusion._native", "pyldfusion._cuda"

HOW_TO_INSTALL = (
    "Debian, Ubuntu, JetPack: sudo apt install g++ cmake make python3-dev; Fedora: sudo dnf install gcc-c++ cmake make "
    "python3-devel; or set CXX to a C++17 compiler"
)


def need(what: str, *names: str) -> str:
    """Path of the first of these programs that exists, or an error that says what to install."""
    for name in names:
        if found := shutil.which(name):
            return found
    tried = ", ".join(names)
    raise SetupError(f"pyldfusion builds a native module and found no {what} (tried: {tried}). {HOW_TO_INSTALL}")


class CMakeBuild(build_ext):
    """Both modules, built by CMakeLists.txt and put where setuptools wants them."""

    def build_extensions(self) -> None:
        targets = {ext.name: Path(self.get_ext_fullpath(ext.name)).resolve() for ext in self.extensions}
        targets[CUDA].unlink(missing_ok=True)  # of an earlier build, should this one be without
        self.build(targets[NATIVE].parent)
        if not targets[CUDA].is_file():
            self.extensions = [ext for ext in self.extensions if ext.name != CUDA]

    def copy_extensions_to_source(self) -> None:
        """In place and in editable installs alone: a build for elsewhere leaves the checkout's modules as they are."""
        if all(ext.name != CUDA for ext in self.extensions):
            Path(ROOT, *CUDA.split(".")).with_name(Path(self.get_ext_filename(CUDA)).name).unlink(missing_ok=True)
        super().copy_extensions_to_source()

    def build(self, target: Path) -> None:
        import pybind11  # a build requirement, so not needed to read this file's metadata

        cuda = os.environ.get("PYLDFUSION_CUDA", "auto").lower()
        if cuda not in ("auto", "1", "0"):
            raise SetupError(f"PYLDFUSION_CUDA is {cuda!r}; expected auto, 1 or 0")
        architectures = os.environ.get("PYLDFUSION_CUDA_ARCHITECTURES", "").lower() or "default"
        if not re.fullmatch(r"default|all|native|[0-9]{2,3}([ ,;]+[0-9]{2,3})*", architectures):
            raise SetupError(
                f"PYLDFUSION_CUDA_ARCHITECTURES is {architectures!r}; expected default, all, native, or compute "
                "capabilities without the dot, such as 87 or 75,90"
            )
        cxx = os.environ.get("CXX", "")
        compiler = need("C++ compiler", shlex.split(cxx)[0]) if cxx else need("C++ compiler", "c++", "g++", "clang++")
        cmake = need("cmake", "cmake")
        if not Path(sysconfig.get_path("include"), "Python.h").is_file():
            raise SetupError(
                f"pyldfusion builds a native module and found no Python.h for {sys.executable}. {HOW_TO_INSTALL}"
            )
        if not shutil.which("ninja"):
            need("make", "make", "gmake")

        work = Path(self.build_temp).resolve() / "native"
        work.mkdir(parents=True, exist_ok=True)
        configure = [
            cmake,
            f"-S{ROOT}",
            f"-B{work}",
            "-DCMAKE_BUILD_TYPE=" + ("Debug" if self.debug else "Release"),
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DPYLDFUSION_OUTPUT_DIR={target}",
            f"-DPYLDFUSION_CUDA={cuda}",
            "-DPYLDFUSION_CUDA_ARCHITECTURES=" + ";".join(re.split(r"[ ,;]+", architectures)),
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]
        if not cxx:  # with CXX set, CMake reads it (and its flags) from the environment itself
            configure.append(f"-DCMAKE_CXX_COMPILER={compiler}")
        if shutil.which("ninja"):
            configure.append("-GNinja")
        # A build directory remembers its compiler and Python; those may have gone since (isolated builds).
        (work / "CMakeCache.txt").unlink(missing_ok=True)
        jobs = str(self.parallel or os.cpu_count() or 1)
        for command in (configure, [cmake, "--build", str(work), "--parallel", jobs]):
            try:
                subprocess.run(command, check=True)
            except subprocess.CalledProcessError as error:
                raise SetupError(
                    f"the native module did not build: `{shlex.join(command)}` ended with code {error.returncode}; its "
                    f"output above says why. Missing tools? {HOW_TO_INSTALL}. Trouble with CUDA? Set PYLDFUSION_CUDA=0."
                ) from None


setup(ext_modules=[Extension(name, sources=[]) for name in (NATIVE, CUDA)], cmdclass={"build_ext": CMakeBuild})
