"""The stages that say whether the CUDA half is right: build, test, sanitize; and the compile check without a GPU."""

from __future__ import annotations

import argparse
import codecs
import importlib.util
import io
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .deadline import Deadline
from .results import Results

ROOT = Path(__file__).resolve().parent.parent.parent
WORK = ROOT / "build" / "gpu"
#: What CI compiles for.
ARCHITECTURES = ("75", "87", "90")
#: Kernels on the device against float64; the sanitizers run the smaller part of them.
KERNEL_TESTS = "tests/test_gpu_kernels.py"
#: All that compute on a GPU where there is one, the most telling first, should the time not be enough.
DEVICE_TESTS = (
    KERNEL_TESTS,
    "tests/test_cuda_norms.py",
    "tests/test_cuda_frames.py",
    "tests/test_cuda_entropy.py",
    "tests/test_cuda_engine.py",
    "tests/test_rewrites.py",
    "tests/test_trainer_loader.py",
    "tests/test_torch_ops.py",
)
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
#: Seconds that a program which is told to stop has for saving.
GRACE = 20


def build(results: Results, deadline: Deadline) -> bool:
    """Both native modules into the checkout, the CUDA one for this GPU alone, with line numbers for the sanitizer."""
    start = time.monotonic()
    if results.environment["driver"] == "none":  # a dry run
        from tests.host_cuda import build as host_cuda

        library = host_cuda.build(*sorted(host_cuda.CSRC.glob("*.cu")), bindings=host_cuda.CSRC / "cuda_bindings.cpp")
        results.record(
            "build", "emulated module", {"seconds": time.monotonic() - start, "bytes": library.stat().st_size}
        )
        return True
    environment = {
        "PYLDFUSION_CUDA": "1",
        "PYLDFUSION_CUDA_ARCHITECTURES": results.environment["compute_capability"].replace(".", ""),
        "CMAKE_ARGS": "-DPYLDFUSION_WERROR=ON -DCMAKE_CUDA_FLAGS=-lineinfo",
    }
    command = (sys.executable, "setup.py", "build_ext", "--inplace", "--build-temp", WORK / "temp")
    code, _ = run(command, environment, limit=deadline.left)
    if code and deadline.left > 60:  # a compiler with warnings of its own is no reason to measure nothing
        print("once more, with warnings that are no errors")
        environment["CMAKE_ARGS"] = "-DCMAKE_CUDA_FLAGS=-lineinfo"
        code, _ = run(command, environment, limit=deadline.left)
    made = sorted((ROOT / "pyldfusion").glob("_cuda*.so"))
    if code or not made:
        return False
    figures = {"seconds": time.monotonic() - start, "bytes": made[-1].stat().st_size}
    results.record("build", f"_cuda for sm_{environment['PYLDFUSION_CUDA_ARCHITECTURES']}", figures)
    return True


def test(results: Results, deadline: Deadline, options: argparse.Namespace) -> bool:
    """Every test that runs on a GPU where there is one."""
    report = WORK / "tests.xml"
    environment = {}
    if options.device == "cuda":
        select = ["-k", "not [host", *DEVICE_TESTS]
        environment["PYLDFUSION_EMULATION"] = "0"  # tested elsewhere; here is the GPU
        if importlib.util.find_spec("xdist"):  # a test that ends its process ends no other then
            select = ["-n", "6", "--dist", "loadfile", *select]
    else:
        select = ["-k", "host and small", KERNEL_TESTS]
    passed = pytest(report, select, deadline.left, environment)
    found = outcome(report)
    results.record("test", "on the device" if options.device == "cuda" else "emulated", found)
    return passed and found["passed"] > 0


def sanitize(results: Results, deadline: Deadline, options: argparse.Namespace) -> bool:
    """The kernel tests under each of compute-sanitizer's tools. Only our own kernels count."""
    tool_path = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if not tool_path or options.device != "cuda":
        print("compute-sanitizer was not run: " + ("it is not installed" if options.device == "cuda" else "a dry run"))
        return options.device != "cuda"
    clean = True
    for index, tool in enumerate(TOOLS):
        limit = deadline.left / (len(TOOLS) - index)
        if limit < 30:
            deadline.skipped.append(tool)
            continue
        report, start = WORK / f"{tool}.xml", time.monotonic()
        # Initialised memory is known only if every kernel that writes is watched.
        watched = [] if tool == "initcheck" else only_ours(tool_path)
        command = [tool_path, "--tool", tool, "--target-processes", "all", "--report-api-errors", "no", *watched]
        select = ["-k", "device and small", KERNEL_TESTS]
        # Without torch's caching allocator every tensor is an allocation of its own, with its own end.
        environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        code, said = run([*command, *pytest_command(report, select)], environment, limit=limit)
        (WORK / f"{tool}.log").write_text(said)
        ended, errors = sanitizer_errors(said)
        found = outcome(report)
        figures = {"errors": errors, "tests": found["passed"], "seconds": time.monotonic() - start}
        if not ended or not found["passed"]:
            print(f"{tool} did not come to its end (code {code}):\n" + said[-2000:])
            clean = False
            continue
        results.record("sanitize", tool, figures)
        clean &= errors == 0 and found["failed"] == 0
    return clean


def only_ours(tool_path: str) -> list[str]:
    """The option, which has had two names, that limits compute-sanitizer to kernels with "ldf" in their name."""
    listed = subprocess.run([tool_path, "--help"], capture_output=True, text=True).stdout
    return next(([name, "kns=ldf"] for name in ("--kernel-name", "--filter") if name in listed), [])


def sanitizer_errors(said: str) -> tuple[bool, int]:
    """From compute-sanitizer's output: whether it came to its summary, and its findings in kernels of ours."""
    ended = bool(re.search(r"^=+ (ERROR|RACECHECK) SUMMARY: ", said, re.MULTILINE))
    findings = re.split(r"^(?==+ \S)", said, flags=re.MULTILINE)  # each begins at a line that is not indented
    in_ours = re.compile(r"\bat (void )?ldf::")
    return ended, sum(1 for finding in findings if in_ours.search(finding))


def compile_kernels(
    deadline: Deadline, architectures: Sequence[str] = ARCHITECTURES, sources: Sequence[Path] = ()
) -> bool:
    """Every .cu file for the architectures that nvcc knows, warnings as errors; False if one fails or is left out."""
    known = subprocess.run(["nvcc", "--list-gpu-arch"], capture_output=True, text=True).stdout
    wanted = [arch for arch in architectures if re.search(rf"compute_{arch}\b", known)]
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in wanted]
    flags = ("-std=c++17", "-O3", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra")
    WORK.mkdir(parents=True, exist_ok=True)
    fine = True
    for source in sources or sorted((ROOT / "csrc").glob("*.cu")):
        if not deadline.allows(source.name):
            fine = False
            continue
        start = time.monotonic()
        made = WORK / f"{source.stem}.o"
        code, _ = run(("nvcc", *flags, *codes, "-c", source, "-o", made), limit=deadline.left)
        print(
            f"{source.name} for {' '.join(wanted)}: {'failed' if code else f'{time.monotonic() - start:.0f} s'}",
            flush=True,
        )
        fine &= code == 0
    return fine


def pytest_command(report: Path, select: Sequence[object]) -> list[object]:
    stuck = "faulthandler_timeout=60"  # says where a test is that takes longer
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", stuck, f"--junitxml={report}", *select]


def pytest(report: Path, select: Sequence[object], limit: float, environment: Mapping[str, str] | None = None) -> bool:
    report.unlink(missing_ok=True)
    report.parent.mkdir(parents=True, exist_ok=True)
    return run(pytest_command(report, select), environment, limit=limit)[0] == 0


def outcome(report: Path) -> dict[str, float | int]:
    """Counts of a JUnit report; all 0 where there is none, as when the run was cut."""
    if not report.is_file():
        return {"passed": 0, "failed": 0, "skipped": 0, "seconds": 0.0}
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    total = {key: sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "failures", "errors", "skipped")}
    failed = total["failures"] + total["errors"]
    seconds = sum(float(suite.get("time", 0)) for suite in suites)
    passed = total["tests"] - failed - total["skipped"]
    return {"passed": passed, "failed": failed, "skipped": total["skipped"], "seconds": seconds}


def run(command: Sequence[object], environment: Mapping[str, str] | None = None, *, limit: float) -> tuple[int, str]:
    """Runs a program in the checkout, its output shown as it comes and returned.

    It has ``limit`` seconds in all: some before their end it is interrupted as by Ctrl-C, and at the end it is killed,
    with whatever it started. Returns its exit code, 124 if it was stopped, and the output.
    """
    words = [str(part) for part in command]
    both = {**os.environ, **(environment or {}), "PYTHONUNBUFFERED": "1"}
    both["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), both.get("PYTHONPATH")]))
    end, stopped, said = time.monotonic() + limit, False, io.StringIO()
    process = subprocess.Popen(
        words, cwd=ROOT, env=both, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        for until, number in ((end - min(GRACE, limit / 2), signal.SIGINT), (end, signal.SIGKILL)):
            if _ends(process, until, said):
                break
            stopped = True
            process.send_signal(number)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it left behind
        code = process.wait()
    if stopped:
        print(f"stopped after {limit:.0f} s")
    return (124 if stopped else code), said.getvalue()


def _ends(process: subprocess.Popen[bytes], until: float, said: io.StringIO) -> bool:
    """Shows and keeps the output until the program ends; False if the time is over before."""
    assert process.stdout is not None
    stream = process.stdout.fileno()
    text = codecs.getincrementaldecoder("utf-8")("replace")
    while select.select([stream], [], [], max(until - time.monotonic(), 0))[0]:
        chunk = os.read(stream, 1 << 16)
        if not chunk:
            break
        said.write(shown := text.decode(chunk))
        print(shown, end="", flush=True)
    try:
        process.wait(max(until - time.monotonic(), 0.01))
    except subprocess.TimeoutExpired:
        return False
    return True
