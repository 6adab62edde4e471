"""`make gpu` as far as it goes without a GPU: its bookkeeping, its parsing, and its bench on the CPU."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks import gpu  # noqa: E402
from benchmarks.gpu import checks, fuse, parts, training  # noqa: E402
from benchmarks.gpu.clock import Clock  # noqa: E402
from benchmarks.gpu.deadline import Deadline  # noqa: E402
from benchmarks.gpu.measurement import Bench  # noqa: E402
from benchmarks.gpu.results import RESULTS, Results  # noqa: E402
from pyldfusion import Fuser  # noqa: E402
from pyldfusion.artefact import open_artefact  # noqa: E402
from pyldfusion.errors import ArtefactError  # noqa: E402
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


def test_every_file_with_tests_for_a_gpu_is_run_there():
    asks = re.compile(r"torch\.cuda\.is_available\(\)|load_for_gpu\(|def test_\w+\(gpu\b")
    found = {f"tests/{file.name}" for file in (ROOT / "tests").glob("test_*.py") if asks.search(file.read_text())}
    emulated_alone = {"tests/test_benchmarks_gpu.py", "tests/test_cuda_engine_on_cpu.py"}
    assert found - emulated_alone == set(checks.DEVICE_TESTS)


def test_outcome_of_a_test_run(tmp_path):
    report = tmp_path / "tests.xml"
    report.write_text('<testsuites><testsuite tests="7" failures="1" errors="1" skipped="2" time="3.5"/></testsuites>')
    assert checks.outcome(report) == {"passed": 3, "failed": 2, "skipped": 2, "seconds": 3.5}
    assert checks.outcome(tmp_path / "none.xml")["passed"] == 0


def test_without_a_gpu_it_compiles_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "no_gpu", lambda: "there is none")
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    compiled = []
    monkeypatch.setattr(checks, "compile_kernels", lambda deadline: compiled.append(True) or True)
    assert gpu.main([]) == 0
    assert compiled and "No GPU to measure on: there is none." in capsys.readouterr().out
    monkeypatch.setattr(checks, "compile_kernels", lambda deadline: False)
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
    assert checks.compile_kernels(Deadline(500), ["90", "12"], [right])
    assert not checks.compile_kernels(Deadline(500), ["90"], [wrong])
    late = Deadline(0)
    assert not checks.compile_kernels(late, ["90"], [right]) and late.skipped == ["right.cu"]


def test_a_deadline_leaves_out_what_would_not_fit():
    deadline = Deadline(50)
    assert deadline.allows("short", 1) and not deadline.allows("long", 60)
    assert deadline.skipped == ["long"]


STUBBORN = """
import signal, subprocess, sys, time
print("begun", flush=True)
signal.signal(signal.SIGINT, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])  # holds the output open
time.sleep(60)
"""
STRAY = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("done")
sys.exit(3)
"""
SAVING = """
import time
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("saved")
"""


@pytest.mark.parametrize(("program", "code", "says"), [(STUBBORN, 124, "begun"), (SAVING, 124, "saved")])
def test_a_program_ends_in_time_with_all_it_started(program, code, says):
    start = time.monotonic()
    assert checks.run([sys.executable, "-c", program], limit=14) == (code, f"{says}\n")
    assert time.monotonic() - start < 40  # the programs would take 60 s


def test_a_program_s_own_end_counts():
    assert checks.run([sys.executable, "-c", "print('ä'); raise SystemExit(3)"], limit=60) == (3, "ä\n")
    start = time.monotonic()
    checks.run([sys.executable, "-c", STRAY], limit=14)  # a child that it leaves behind is not waited for
    assert time.monotonic() - start < 40


def test_tests_that_hang_are_stopped_and_counted(tmp_path):
    hanging = tmp_path / "test_hanging.py"
    hanging.write_text("import time\ndef test_first(): pass\ndef test_second(): time.sleep(60)\n")
    start = time.monotonic()
    assert not checks.pytest(tmp_path / "tests.xml", [hanging, "-c", os.devnull], 30)
    assert time.monotonic() - start < 50
    assert checks.outcome(tmp_path / "tests.xml")["passed"] == 1


def test_the_sanitizer_s_tools_share_the_time(tmp_path, monkeypatch):
    limits = []

    def run(command, environment=None, *, limit):
        limits.append(limit)
        return 0, "========= ERROR SUMMARY: 0 errors\n"

    monkeypatch.setattr(checks, "run", run)
    monkeypatch.setattr(checks, "WORK", tmp_path)
    monkeypatch.setattr(checks, "outcome", lambda report: {"passed": 1, "failed": 0, "skipped": 0, "seconds": 0.0})
    monkeypatch.setattr(shutil, "which", lambda name, path=None: "/bin/true")
    options = argparse.Namespace(device="cuda")
    assert checks.sanitize(Results.open(tmp_path, "cpu"), Deadline(400), options)
    assert limits == pytest.approx([100, 133, 200, 400], abs=2)  # what earlier ones leave is the others'
    late = Deadline(20)
    assert checks.sanitize(Results.open(tmp_path, "cpu"), late, options)
    assert late.skipped == list(checks.TOOLS) and len(limits) == 4


def test_a_stage_that_hangs_is_cut_off():
    program = (
        "import time; from benchmarks import gpu; from benchmarks.gpu import checks; gpu.MARGIN = 1\n"
        "checks.build = lambda results, deadline: time.sleep(60)\n"
        "gpu.main(['build', '--device', 'cpu', '--seconds', '1'])"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "Timeout" in done.stderr and time.monotonic() - start < 50


def small_run(folder, steps=3):
    """A run of the trainer's on one small scene."""
    from trainer.__main__ import main as train
    from trainer.prepare import main as prepare

    if not (folder / "pairs").is_dir():
        assert prepare(["--out", str(folder / "pairs"), "--scenes", "1"]) == 0
    options = [f"--set={change}" for change in (*training.DRY[2:], f"run.steps={steps}", "network.variant=lite")]
    where = ["--data", str(folder / "pairs"), "--out", str(folder / "run"), "--device", "cpu"]
    again = ["--resume"] if (folder / "run").is_dir() else []
    assert train(["--preset", "supervised-lite", *where, *options, *again]) == 0
    return folder / "run"


def test_a_run_goes_on_from_its_parts(tmp_path):
    run = small_run(tmp_path)
    made = parts.split(run, tmp_path / "parts", most=500_000)
    assert len(made) > 2 and all(part.stat().st_size <= 500_000 for part in made)
    before = {name: (run / name).read_bytes() for name in ("state.pt", "weights.safetensors")}
    shutil.rmtree(run)
    assert parts.join(tmp_path / "parts", run) == 3
    assert sum(part.stat().st_size for part in made) < 0.55 * len(before["state.pt"])
    whole = torch.load(io.BytesIO(before["state.pt"]), weights_only=True)
    joined = torch.load(run / "state.pt", weights_only=True)
    for key in ("generator", "average"):
        torch.testing.assert_close(joined[key], whole[key], rtol=2**-11, atol=2**-24)
    torch.testing.assert_close(joined["optimiser"], whole["optimiser"], rtol=2**-8, atol=1e-36)  # denormals
    artefact = open_artefact(run / "weights.safetensors")
    assert artefact.metadata["recipe"] == "supervised-lite" and artefact.metadata["step"] == "3"
    assert load_generator(artefact).variant == "lite"
    small_run(tmp_path, steps=4)
    assert torch.load(run / "state.pt", weights_only=True)["step"] == 4


def test_parts_that_do_not_fit_together_are_refused(tmp_path):
    (tmp_path / "parts").mkdir()
    with pytest.raises(ArtefactError, match="does not hold the parts"):
        parts.join(tmp_path / "parts", tmp_path / "run")
    (tmp_path / "parts" / "state.0").write_bytes(b"x")
    (tmp_path / "parts" / "parts.json").write_text('{"step": 1, "parts": ["state.0"], "sha256": ""}')
    with pytest.raises(ArtefactError, match="do not fit together"):
        parts.join(tmp_path / "parts", tmp_path / "run")


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
    measured = Bench(results, Deadline(1), Clock("cpu", quick=True), True)
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
        ("compiled", "fuse: 48x32 authors' fp16 channels-last, torch.compile"),
    ):
        command = [sys.executable, "-m", "benchmarks", "gpu", "bench", "--device", "cpu", "--quick", "--only", only]
        done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert expected in done.stdout
    assert sorted(RESULTS.iterdir()) == before


@pytest.mark.slow
def test_training_and_endurance_run_dry(tmp_path):
    from trainer.prepare import main as prepare

    assert prepare(["--out", str(tmp_path / "pairs"), "--scenes", "1"]) == 0
    program = [sys.executable, "-m", "benchmarks", "gpu", "--device", "cpu", "--quick"]
    done = subprocess.run([*program, "train", "--data", tmp_path / "pairs"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trained: supervised-full: steps 2, complete yes" in done.stdout and "state.0" in done.stdout
    folder = Path(re.search(r"go to (\S+)", done.stdout)[1])
    assert max(part.stat().st_size for part in (folder / "train").iterdir()) <= parts.PART_BYTES
    further = ["train", "endure", "--data", tmp_path / "pairs", "--parts", folder / "train", "--set", "run.steps=3"]
    done = subprocess.run([*program, *further], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "holds a run at step 2" in done.stdout and "steps 3, complete yes" in done.stdout
    assert "endure: batch 1, 2 crops: steps 2" in done.stdout and "non_finite 0" in done.stdout
