"""What a user meets before the package runs: a build without tools, an sdist, a wheel, a clean environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from pyldfusion import __version__, kernels

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("benchmarks", "cmake", "csrc", "export", "pyldfusion", "tests", "trainer")
SOURCES = {".h", ".cpp", ".cu", ".cuh", ".cmake", ".py", ".pyi", ".toml", ".onnx"}

#: For modules that are opened but not measured.
QUICKLY = {"CMAKE_ARGS": "-DCMAKE_CXX_FLAGS_RELEASE=-O0"}


def run(*command: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a program and collects what it says, both streams together."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PYLDFUSION_CUDA": "0", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def build_native(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "setup.py", "build_ext", "--build-temp", folder / "temp", "--build-lib", folder / "lib")
    return run(*command, cwd=ROOT, **environment)


def sources() -> set[str]:
    """Every source file of the checkout, relative to it; what a build left behind is not one."""
    files = {path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*")}
    return {path.as_posix() for path in files if path.suffix in SOURCES or path.name == "py.typed"}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, made from a copy of the checkout's sources."""
    folder = tmp_path_factory.mktemp("sdist")
    copy = folder / "checkout"
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    for name in FOLDERS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, copy)
    made = run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", folder, copy)
    assert made.returncode == 0, made.stdout
    return folder / f"pyldfusion-{__version__}.tar.gz"


@pytest.fixture(scope="module")
def clean_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh virtual environment with NumPy in it; skips where no package index can be reached."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    installed = run(python, "-m", "pip", "install", "--quiet", "numpy")
    if installed.returncode:
        pytest.skip("no package index reachable: " + installed.stdout.strip().rpartition("\n")[2])
    return python


@pytest.fixture(scope="module")
def wheel(sdist: Path, clean_python: Path) -> Path:
    """A wheel built from the sdist as pip does it for a user: alone, with only what pyproject.toml asks for."""
    folder = sdist.parent / "wheel"
    command = (clean_python, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, sdist)
    made = run(*command, cwd=sdist.parent, **QUICKLY)
    assert made.returncode == 0, made.stdout
    (path,) = folder.glob("*.whl")
    return path


def test_a_missing_compiler_is_named_with_what_to_install(tmp_path):
    done = build_native(tmp_path, CXX="/nonexistent/g++")
    assert done.returncode != 0
    assert "found no C++ compiler (tried: /nonexistent/g++)" in done.stdout
    assert "sudo apt install g++ cmake make" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_missing_cmake_is_named_with_what_to_install(tmp_path):
    (tmp_path / "c++").symlink_to(shutil.which("c++") or "/usr/bin/c++")
    done = build_native(tmp_path, PATH=str(tmp_path), CXX="")
    assert done.returncode != 0
    assert "found no cmake" in done.stdout
    assert "sudo apt install g++ cmake make" in done.stdout


def test_a_compiler_that_fails_is_reported(tmp_path):
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\necho out of order >&2\nexit 1\n")
    compiler.chmod(0o755)
    done = build_native(tmp_path, CXX=str(compiler))
    assert done.returncode != 0
    assert "out of order" in done.stdout
    assert "the native module did not build" in done.stdout


def test_cuda_must_be_a_known_word_and_an_nvcc_that_works(tmp_path):
    done = build_native(tmp_path, PYLDFUSION_CUDA="yes")
    assert done.returncode != 0
    assert "expected auto, 1 or 0" in done.stdout
    done = build_native(tmp_path, PYLDFUSION_CUDA="1", CUDACXX="/bin/false")
    assert done.returncode != 0
    assert "Install the CUDA toolkit" in done.stdout


def test_architectures_must_be_numbers_that_nvcc_knows(tmp_path):
    done = build_native(tmp_path, PYLDFUSION_CUDA_ARCHITECTURES="hopper")
    assert done.returncode != 0
    assert "PYLDFUSION_CUDA_ARCHITECTURES is 'hopper'; expected default, all, native, or" in done.stdout
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho compute_75\necho compute_90\n")
    nvcc.chmod(0o755)
    done = build_native(tmp_path, PYLDFUSION_CUDA="1", PYLDFUSION_CUDA_ARCHITECTURES="75,91", CUDACXX=str(nvcc))
    assert done.returncode != 0
    assert "PYLDFUSION_CUDA_ARCHITECTURES asks for 91" in done.stdout


@pytest.mark.skipif(not kernels.cuda_compiled, reason="built without CUDA")
def test_the_cuda_module_needs_no_driver():
    (module,) = (ROOT / "pyldfusion").glob("_cuda*.so")
    program = "import sys; sys.path.insert(0, sys.argv[1]); import _cuda; print(_cuda.version)"
    assert run(sys.executable, "-c", program, module.parent).stdout.count(".") == 2
    if shutil.which("ldd"):
        assert "libcuda.so" not in run("ldd", module).stdout


@pytest.mark.slow
def test_a_build_without_cuda_leaves_no_module_of_an_earlier_one(tmp_path):
    here = sorted((ROOT / "pyldfusion").glob("*.so"))
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    earlier = tmp_path / "lib" / "pyldfusion" / f"_cuda{suffix}"
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b"")
    launcher = tmp_path / "launcher"  # empty sources instead: the module is not opened
    launcher.write_text("""#!/bin/sh\nexec "$1" -fPIC -x c++ -c /dev/null -o "$(expr "$*" : '.* -o \\([^ ]*\\)')"\n""")
    launcher.chmod(0o755)
    done = build_native(tmp_path, CMAKE_ARGS=f"-DCMAKE_CXX_COMPILER_LAUNCHER={launcher}")
    assert done.returncode == 0, done.stdout
    assert [path.name for path in earlier.parent.iterdir()] == [f"_native{suffix}"]
    assert sorted((ROOT / "pyldfusion").glob("*.so")) == here  # a build for elsewhere


def test_the_package_says_whether_it_has_cuda():
    assert kernels.cuda_compiled == (kernels.cuda_version() != "")


def test_the_sdist_holds_every_source(sdist):
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    expected = sources() | {"CMakeLists.txt", "pyproject.toml", "setup.py", "LICENSE", "README.md"}
    assert sorted(expected - held) == []


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        metadata = archive.read(f"pyldfusion-{__version__}.dist-info/METADATA").decode()
        scripts = archive.read(f"pyldfusion-{__version__}.dist-info/entry_points.txt").decode()
    expected = {name for name in sources() if name.partition("/")[0] in ("pyldfusion", "trainer", "export")}
    assert sorted(expected - held) == []
    assert "pyldfusion/py.typed" in held
    assert any(name.startswith("pyldfusion/_native.") and name.endswith(".so") for name in held)
    tops = {name.partition("/")[0] for name in held}
    assert tops <= {"pyldfusion", "trainer", "export", f"pyldfusion-{__version__}.dist-info"}
    assert f"Version: {__version__}" in metadata
    assert "Requires-Python: >=3.10" in metadata
    assert "pyldfusion = pyldfusion.cli:main" in scripts


@pytest.mark.slow
def test_the_wheel_works_in_a_clean_environment(wheel, clean_python, tmp_path):
    installed = run(clean_python, "-m", "pip", "install", "--quiet", "--no-deps", wheel)
    assert installed.returncode == 0, installed.stdout
    program = (
        "import numpy, pyldfusion; from pyldfusion import kernels;"
        "print(pyldfusion.__version__, kernels.cuda_compiled);"
        "print(kernels.entropy(numpy.arange(256, dtype='u1').reshape(1, 16, 16)))"
    )
    done = run(clean_python, "-I", "-c", program, cwd=tmp_path)
    assert done.stdout.split("\n")[:2] == [f"{__version__} False", "[8.]"], done.stdout
