"""Who may import what: the architecture's one-way dependencies, read from the sources and tried in a fresh process."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import ROOT

PACKAGE = ROOT / "pyldfusion"
#: Modules that are torch code: they import it at the top and are themselves imported only when needed.
TORCH = {
    "generator",
    "frame_graph",
    "smoothing",
    "rewrites",
    "author_weights",
    "torch_ops",
    "gpu_image",
    "gpu_registration",
    "engines.torch",
    "engines.cuda",
    "engines.lane",
}
#: Heavy packages, and who else may import them at the top.
RUNTIMES = {
    "torch",
    "torchvision",
    "open_clip",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "safetensors",
    "tensorrt",
}
OURS = {"trainer", "export"}


def modules(folder: Path) -> dict[str, Path]:
    names = {}
    for file in sorted(folder.rglob("*.py")):
        parts = file.relative_to(folder).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return names


MODULES = modules(PACKAGE)


def imports(file: Path) -> Iterator[tuple[str, bool]]:
    """Absolute names of what a file of the package imports, and whether at the top (run by importing the file)."""
    name = file.relative_to(ROOT).with_suffix("").parts
    package = list(name[:-1])

    def visit(node: ast.AST, top: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else []
                source = ".".join([*base, *([child.module] if child.module else [])])
                yield source, top
                yield from ((f"{source}.{alias.name}", top) for alias in child.names)
            elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                yield from visit(ast.Module(child.orelse, []), top)
            else:
                inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                yield from visit(child, top and not inside)

    yield from visit(ast.parse(file.read_text()), True)


def roots(file: Path, *, top_only: bool) -> set[str]:
    return {name.partition(".")[0] for name, top in imports(file) if top or not top_only}


@pytest.mark.parametrize("module", MODULES)
def test_only_torch_code_and_verbs_import_torch(module):
    file = MODULES[module]
    if module in TORCH:
        assert "torch" in roots(file, top_only=True)  # the list stays true
        return
    assert not roots(file, top_only=True) & RUNTIMES
    if not module.startswith("cli."):
        assert "torch" not in roots(file, top_only=False)


@pytest.mark.parametrize("module", MODULES)
def test_only_verbs_know_the_trainer_and_the_exporter(module):
    assert not roots(MODULES[module], top_only=True) & OURS
    if not module.startswith("cli.") and module != "engines.tensorrt":  # which builds an engine again
        assert not roots(MODULES[module], top_only=False) & OURS


def reached(module: str) -> set[str]:
    """Modules of the package that importing ``module`` imports."""
    seen, todo = set(), [module]
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        todo += [parent for parent in (module.rpartition(".")[0],) if parent not in seen]
        for name, top in imports(MODULES[module]):
            inside = name.removeprefix("pyldfusion").lstrip(".")
            if top and name.startswith("pyldfusion") and inside in MODULES:
                todo.append(inside)
    return seen


@pytest.mark.parametrize("module", sorted(set(MODULES) - TORCH))
def test_nothing_reaches_torch_code_by_being_imported(module):
    assert not reached(module) & TORCH


@pytest.mark.parametrize("package", sorted(OURS))
def test_trainer_and_exporter_do_not_know_each_other(package):
    for file in (ROOT / package).rglob("*.py"):
        assert not roots(file, top_only=False) & (OURS - {package} | {"tests", "benchmarks"}), file


def test_kernels_know_no_framework():
    for file in sorted((ROOT / "csrc").iterdir()):
        includes = [line for line in file.read_text().splitlines() if line.startswith("#include")]
        if "bindings" not in file.name and not file.name.startswith("device_"):
            assert not any(word in line for line in includes for word in ("torch", "Python", "pybind", "Nv")), file


def run(script: str) -> str:
    finished = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_importing_the_package_imports_nothing_heavy():
    script = "import sys, pyldfusion; pyldfusion.InputError; print(*{name.partition('.')[0] for name in sys.modules})"
    assert not set(run(script).split()) & (RUNTIMES | {"cv2", "numpy"})


def test_a_fuser_is_imported_without_a_runtime():
    script = "import sys; from pyldfusion import Fuser; print(*{name.partition('.')[0] for name in sys.modules})"
    assert not set(run(script).split()) & (RUNTIMES | {"cv2"})


def test_without_torch_everything_but_torch_code_is_imported_and_fuses(models):
    others = sorted(name for name in set(MODULES) - TORCH if not name.endswith("__main__"))
    script = (
        "import sys, importlib, numpy as np\n"
        "sys.modules['torch'] = None\n"
        f"for name in {others!r}: importlib.import_module('pyldfusion.' + name if name else 'pyldfusion')\n"
        "from pyldfusion import Fuser, DependencyError\n"
        f"with Fuser({str(models / 'lite.onnx')!r}) as fuser:\n"
        "    print(fuser.fuse(np.zeros((16, 16), np.uint8), np.zeros((16, 16, 3), np.uint8)).shape)\n"
        "try:\n"
        f"    Fuser({str(models / 'lite.safetensors')!r})\n"
        "except DependencyError as error:\n"
        "    print(error)\n"
    )
    shape, error = run(script).splitlines()
    assert shape == "(16, 16, 3)" and "pip install 'pyldfusion[export]'" in error
