"""`make gpu` as far as it goes without a GPU: its bookkeeping, its parsing, and its bench on the CPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks import gpu  # noqa: E402
from benchmarks.gpu import bench, checks, fuse  # noqa: E402
from benchmarks.gpu.clock import Clock  # noqa: E402
from benchmarks.gpu.results import RESULTS, Results  # noqa: E402
from pyldfusion import Fuser  # noqa: E402
from pyldfusion.generator import load_generator  # noqa: E402
from pyldfusion.scene import Scene  # noqa: E402

from .conftest import ROOT  # noqa: E402
from .host_cuda import build as host_cuda  # noqa: E402

MEMCHECK = """========= COMPUTE-SANITIZER
========= Invalid __global__ read of size 4 bytes
=========     at void ldf::<unnamed>::entropy_kernel<float>(ldf::EntropyParams)+0x90 in entropy.cu:20
=========     by thread (0,0,0) in block (0,0,0)
========= Invalid __global__ read of size 4 bytes
=========     at void at::native::vectorized_elementwise_kernel<4>(int)+0x40
=========         Host Frame: in /site-packages/pyldfusion/_cuda.so
========= ERROR SUMMARY: 2 errors
"""
RACECHECK = """========= COMPUTE-SANITIZER
========= Error: Race reported between Write access at ldf::<unnamed>::sums(const float *)+0x1 in a.cu:3
=========     and Read access at ldf::<unnamed>::sums(const float *)+0x2 in a.cu:4 [1984 hazards]
========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)
"""


def test_results_merge_and_the_table_says_what_is_missing(tmp_path):
    results = Results.open(tmp_path, "cpu")
    results.record("kernels", "AdaIN forward", {"us": 12.34, "gb_s": 100.0, "of_copy": 0.5})
    results.record("peaks", "copy", {"value": 1.0, "unit": "GB/s"})
    again = Results.open(tmp_path, "cpu")
    again.record("peaks", "copy", {"value": 2.0, "unit": "GB/s"})
    whole = json.loads(again.path.read_text())
    assert whole["sections"]["kernels"]["AdaIN forward"]["us"] == 12.34
    assert whole["sections"]["peaks"]["copy"]["value"] == 2.0
    assert {"commit", "date"} <= whole["sections"]["peaks"]["copy"].keys()
    assert {"device", "driver", "cuda", "torch", "commit", "date"} <= whole["environment"].keys()
    table = again.table()
    assert "| AdaIN forward | 12.3 | 100 | 50% | not measured | not measured |" in table
    assert "## Training step\n\nnot measured" in table
    with pytest.raises(ValueError, match="unknown section"):
        results.record("kernel", "x", {})


def test_findings_in_our_kernels_count_and_others_do_not():
    assert checks.sanitizer_errors(MEMCHECK) == (True, 1)
    assert checks.sanitizer_errors(RACECHECK) == (True, 1)
    assert checks.sanitizer_errors("========= ERROR SUMMARY: 0 errors\n") == (True, 0)
    assert checks.sanitizer_errors("========= COMPUTE-SANITIZER\nkilled\n") == (False, 0)


def test_outcome_of_a_test_run(tmp_path):
    report = tmp_path / "tests.xml"
    report.write_text('<testsuites><testsuite tests="7" failures="1" errors="1" skipped="2" time="3.5"/></testsuites>')
    assert checks.outcome(report) == {"passed": 3, "failed": 2, "skipped": 2, "seconds": 3.5}
    assert checks.outcome(tmp_path / "none.xml")["passed"] == 0


def test_without_a_gpu_it_compiles_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "no_gpu", lambda: "there is none")
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    compiled = []
    monkeypatch.setattr(checks, "compile_kernels", lambda: compiled.append(True) or True)
    assert gpu.main([]) == 0
    assert compiled and "No GPU to measure on: there is none." in capsys.readouterr().out
    monkeypatch.setattr(checks, "compile_kernels", lambda: False)
    assert gpu.main(["bench"]) == 1
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert gpu.main([]) == 0


def test_an_unknown_stage_is_named(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["benhc"])
    assert "unknown stage benhc; known: build test sanitize bench" in capsys.readouterr().err


@pytest.mark.skipif(not shutil.which("nvcc"), reason="needs nvcc")
def test_warnings_are_errors_in_the_compile_check(tmp_path):
    right, wrong = tmp_path / "right.cu", tmp_path / "wrong.cu"
    right.write_text("__global__ void kernel(int* p) { *p = 1; }\n")
    wrong.write_text("__global__ void kernel(int* p) { int unused = 2; *p = 1; }\n")
    assert checks.compile_kernels(["90", "12"], [right])
    assert not checks.compile_kernels(["90"], [wrong])


def test_a_deadline_leaves_out_what_would_not_fit():
    deadline = gpu.Deadline(50)
    assert deadline.allows("short", 1) and not deadline.allows("long", 60)
    assert deadline.skipped == ["long"]


def test_the_clock_counts_sets_and_times_one_call():
    clock = Clock("cpu", quick=True)
    assert clock.sets(1 << 40) == 2 and clock.sets(1) == 64
    calls = []
    assert clock.seconds([lambda: calls.append(1), lambda: calls.append(2)]) > 0
    assert len(calls) >= 8 and set(calls) == {1, 2}
    found = clock.latencies(lambda: None, 7)
    assert len(found) == 7 and found == sorted(found)


def test_the_floor_counts_every_product(tmp_path):
    from torch.utils.flop_counter import FlopCounterMode

    results = Results.open(tmp_path, "cpu")
    results.record("peaks", "fp16 product", {"value": 1e-9, "unit": "TFLOP/s"})  # so slow that bytes do not matter
    results.record("peaks", "copy", {"value": 1e9, "unit": "GB/s"})
    measured = bench.Bench(results, gpu.Deadline(1), Clock("cpu", quick=True), True)
    network, plane = load_generator("full"), torch.zeros(1, 1, 32, 48)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(plane, plane)
    seconds = counter.get_total_flops() / 1e3  # at 1e-9 TFLOP/s
    # reflection padding is outside the convolution, so no product is lost at the border
    assert fuse.floor_ms(measured, (48, 32)) == pytest.approx(1e3 * seconds, rel=1e-3)


def test_the_authors_side_computes_what_ours_does():
    frame = Scene(seed=3, size=(48, 32)).render()
    with Fuser("full", engine="torch:fp32") as fuser:
        ours = fuser.fuse(frame.ir, frame.vis).astype(int)
    device = torch.device("cpu")
    host = fuse.authors_fuse(device, on_device=False)(frame.ir, frame.vis)
    there = fuse.authors_fuse(device, on_device=True)(torch.from_numpy(frame.ir), torch.from_numpy(frame.vis))
    for found in (host, there.numpy()):
        assert found.dtype == np.uint8 and np.abs(found.astype(int) - ours).max() <= 1


@pytest.mark.slow
@pytest.mark.skipif(bool(host_cuda.missing()), reason=host_cuda.missing())
def test_the_bench_runs_on_the_cpu_and_keeps_its_figures_away():
    before = sorted(RESULTS.iterdir())
    for only, expected in (
        ("adain", "kernels: AdaIN backward"),
        ("frames", "frames: percentiles"),
        ("fuse", "fuse: 48x32 ours fp32, stream of frames"),
    ):
        command = [sys.executable, "-m", "benchmarks", "gpu", "bench", "--device", "cpu", "--quick", "--only", only]
        done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert expected in done.stdout
    assert sorted(RESULTS.iterdir()) == before
