"""A torchvision that was built for another torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")


from .conftest import ROOT  # noqa: E402
from .small_towers import need_open_clip  # noqa: E402

need_open_clip()


def run(script: str, *paths: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT]))}
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)


COUNT = """
import sys, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from trainer.towers.torchvision_import import import_torchvision
    module = import_torchvision()
    assert import_torchvision() is module
ours = [str(w.message) for w in caught if "was not built for this torch" in str(w.message)]
print(len(ours), module.__version__, "torchvision._meta_registrations" in sys.modules)
"""


def stub(folder: Path, first: str = "", operators: str = "") -> Path:
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(f'__version__ = "9.9"\n{first}\n')
    (package / "_meta_registrations.py").write_text(operators)
    return folder


def test_the_real_torchvision_is_importable_even_after_open_clip_failed_on_it():
    script = (
        "try:\n    import open_clip\nexcept RuntimeError as error:\n    print(error)\n"
        + COUNT
        + "import open_clip\nfrom torchvision.models.vgg import make_layers\nprint(len(make_layers([8, 'M'])))\n"
    )
    finished = run(script)
    assert finished.returncode == 0, finished.stderr
    *broken, counted, layers = finished.stdout.splitlines()
    assert counted.startswith("1 " if broken else "0 ") and layers == "3"


def test_a_torchvision_that_imports_is_left_alone(tmp_path):
    finished = run(COUNT, stub(tmp_path))
    assert finished.stdout.split() == ["0", "9.9", "False"], finished.stderr


def test_operators_that_do_not_fit_are_left_out_with_one_warning(tmp_path):
    fails = 'raise RuntimeError("operator torchvision::nms does not exist")'
    finished = run(COUNT, stub(tmp_path, "from . import _meta_registrations", fails))
    assert finished.stdout.split() == ["1", "9.9", "True"], finished.stderr


@pytest.mark.parametrize(
    "fails",
    [
        'raise ImportError("libjpeg.so.8: cannot open shared object file")',
        'raise RuntimeError("PyTorch and torchvision were compiled with different CUDA major versions")',
        'raise RuntimeError("operator torchvision::nms does not exist")',  # and without it, too
        "raise OSError(1)",
    ],
)
def test_other_failures_name_the_extra(tmp_path, fails):
    finished = run(COUNT, stub(tmp_path, fails))
    assert finished.returncode == 1
    last = finished.stderr.strip().splitlines()[-1]
    assert "DependencyError" in last and "pip install 'pyldfusion[train]'" in last


def test_no_torchvision_at_all_names_the_extra():
    finished = run("import sys; sys.modules['torchvision'] = None\n" + COUNT)
    assert "DependencyError" in finished.stderr and "pip install 'pyldfusion[train]'" in finished.stderr
