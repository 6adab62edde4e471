"""The checks of `pyldfusion doctor`: each looks at one thing and says what to install if it is missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import PyldfusionError
from . import machine
from .trial import Trial, run_trial

__all__ = ["TOPICS", "Check"]


@dataclass(frozen=True)
class Check:
    """One line of the report. `state` is "ok", "missing" (optional, not here) or "broken"; `advice` says what to do."""

    topic: str
    name: str
    state: str
    detail: str
    advice: str = ""


#: Package to import, distributions that bring it, what it is for, how to get it.
PACKAGES = (
    ("numpy", ("numpy",), "needed", "pip install numpy"),
    ("cv2", ("opencv-python-headless", "opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
     "needed", "pip install opencv-python-headless"),
    ("onnxruntime", ("onnxruntime", "onnxruntime-gpu"), "needed unless there is another engine",
     "pip install onnxruntime"),
    ("openvino", ("openvino",), "the fastest engine on most x86 CPUs", "pip install 'pyldfusion[openvino]'"),
    ("torch", ("torch",), "for .safetensors files, import-weights, export and train",
     "pip install 'pyldfusion[export]'"),
    ("safetensors", ("safetensors",), "for .safetensors files", "pip install 'pyldfusion[export]'"),
    ("onnx", ("onnx",), "for export", "pip install 'pyldfusion[export]'"),
    ("open_clip", ("open_clip_torch",), "for train", "pip install 'pyldfusion[train]'"),
    ("gi", ("PyGObject",), "for csi://, rtp://, shm:// and gst:// cameras, and rtsp:// outputs",
     "pip install 'pyldfusion[gstreamer]'"),
    ("tensorrt", ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"), "for engines on NVIDIA GPUs",
     "pip install 'pyldfusion[tensorrt]', or on a Jetson the system's package"),
)  # fmt: skip


def system() -> Iterator[Check]:
    """The program itself, Python and the processor."""
    from .. import __version__, hardware

    yield Check("system", "pyldfusion", "ok", f"{__version__} in {Path(__file__).parents[1]}")
    yield Check("system", "Python", "ok", f"{platform.python_version()} ({sys.executable})")
    yield Check("system", "platform", "ok", f"{platform.platform()}, {platform.machine()}")
    memory = machine.memory_gb()
    size = f", {memory:.1f} GiB memory" if memory else ""
    yield Check("system", "CPU", "ok", f"{machine.cpu_name()}, {hardware.cores()} cores for this process{size}")
    features = ", ".join(machine.cpu_features()) or "none known"
    bf16 = "bf16 is native" if hardware.native_bf16() else "bf16 is not native, so fp32 is the default"
    yield Check("system", "CPU features", "ok", f"{features}; {bf16}")


def native() -> Iterator[Check]:
    """The native module and the bundled models."""
    try:
        from .. import kernels
    except ImportError as error:
        yield Check("package", "native module", "broken", str(error), "pip install . with gcc and cmake installed")
    else:
        cuda = f"with CUDA {kernels.cuda_version()}" if kernels.cuda_compiled else "without CUDA"
        yield Check("package", "native module", "ok", f"compiled {cuda}, {kernels.thread_count()} threads")
    from ..artefact import BUNDLED, open_artefact

    for name in BUNDLED:
        try:
            artefact = open_artefact(name)
        except PyldfusionError as error:
            yield Check("package", f"model {name}", "broken", str(error), "install pyldfusion again")
        else:
            yield Check("package", f"model {name}", "ok", f"{artefact.precision}, {artefact.size / 1e6:.1f} MB")


def packages() -> Iterator[Check]:
    """Python packages, needed and optional, by what importing would find."""
    for module, distributions, purpose, command in PACKAGES:
        if importlib.util.find_spec(module) is None:
            state = "broken" if purpose == "needed" else "missing"
            yield Check("packages", module, state, f"not installed ({purpose})", command)
            continue
        found = [f"{name} {version}" for name in distributions if (version := _version(name))]
        advice = "keep one of them: they overwrite each other's files" if module == "cv2" and len(found) > 1 else ""
        yield Check("packages", module, "ok", ", ".join(found) or "installed by other means than pip", advice)


def engines() -> Iterator[Check]:
    """Every engine in every precision, tried on a small pair in a process of its own."""
    from .. import hardware
    from ..engines.choice import RUNTIMES, installed

    for name, row in RUNTIMES.items():
        if not installed(name):
            yield Check("engines", name, "missing", "not installed", row.install)
            continue
        if row.as_built:  # its files are the user's own, and there is none to try
            yield Check("engines", name, "ok", "installed; runs engines that were built on this machine")
            continue
        for device, precisions in row.devices.items():
            if device == "cuda" and not hardware.cuda_devices():
                continue
            for precision in precisions:
                yield _try_engine(name, precision, device)


def _try_engine(name: str, precision: str, device: str) -> Check:
    from ..engines.choice import RUNTIMES, native

    label = f"{name} {precision} on {device}"
    if not native(precision, device):
        return Check("engines", label, "missing", f"this {'CPU' if device == 'cpu' else 'GPU'} has no {precision}")
    try:
        model = "lite" if "onnx" in RUNTIMES[name].kinds else "pyramid"
        result = run_trial(Trial(model, (64, 48), name, precision, device))
    except PyldfusionError as error:
        return Check("engines", label, "broken", str(error), f"install it again: {RUNTIMES[name].install}")
    return Check("engines", label, "ok", f"works, first frame after {result['load_ms'] + result['first_ms']:.0f} ms")


def formats() -> Iterator[Check]:
    """What `pyldfusion export` writes, whether it can here, and what runs it here."""
    from ..engines.choice import installed
    from .programs import program

    for row in program("export", "formats").FORMATS.values():
        runs = [name for name in row.runtimes if installed(name)]
        detail = f"{row.suffix}, {', '.join(row.precisions)}; run by {', '.join(runs) or 'nothing installed here'}"
        if row.missing:
            detail += f"; writing needs {', '.join(row.missing)}"
        state = "ok" if runs and not row.missing else "missing"
        yield Check("formats", row.name, state, detail, row.install if row.missing else "")


def cuda() -> Iterator[Check]:
    """NVIDIA driver, GPUs and toolkit."""
    driver, gpus, toolkit = machine.driver_version(), machine.gpu_names(), machine.toolkit_version()
    if driver is None:
        yield Check("CUDA", "driver", "missing", "no NVIDIA driver, so the CPU is used", "install it if a GPU is here")
    else:
        detail = f"serves CUDA up to {driver}; {', '.join(gpus) or 'no GPU visible'}"
        yield Check("CUDA", "driver", "ok" if gpus else "broken", detail, "" if gpus else "see CUDA_VISIBLE_DEVICES")
    if toolkit is None:
        advice = "needed only to compile the CUDA kernels: install the CUDA toolkit, then pyldfusion again"
        yield Check("CUDA", "toolkit", "missing", "no nvcc", advice)
    else:
        yield Check("CUDA", "toolkit", "ok", f"nvcc {toolkit}")


def video() -> Iterator[Check]:
    """OpenCV's ways to read and write video, and GStreamer."""
    try:
        import cv2
    except ImportError as error:
        yield Check("video", "OpenCV", "broken", str(error), "pip install opencv-python-headless")
        return
    build = cv2.getBuildInformation()
    yield Check("video", "OpenCV", "ok", cv2.__version__)
    advice = {
        "FFMPEG": "needed for video files: pip install opencv-python-headless",
        "v4l/v4l2": "needed for USB cameras",
    }
    for name, command in advice.items():
        match = re.search(rf"^\s*{name}:\s*(\S.*)$", build, re.MULTILINE)
        has = match is not None and match[1].startswith("YES")
        yield Check("video", f"OpenCV with {name}", "ok" if has else "missing", match[1] if match else "NO",
                    "" if has else command)  # fmt: skip
    yield _try_video()
    gstreamer = machine.first_line(["gst-launch-1.0", "--version"])
    yield Check("video", "GStreamer", "ok" if gstreamer else "missing", gstreamer or "gst-launch-1.0 is not installed",
                "" if gstreamer else "to try pipelines by hand: apt install gstreamer1.0-tools")  # fmt: skip
    gi = importlib.util.find_spec("gi") is not None
    yield Check("video", "PyGObject", "ok" if gi else "missing", "installed" if gi else "not installed",
                "" if gi else "needed for csi://, gst:// and H.264: pip install 'pyldfusion[gstreamer]'")  # fmt: skip


def _try_video() -> Check:
    import numpy as np

    from ..media import VideoReader, VideoWriter

    works, fails = [], []
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".mp4", ".avi", ".mkv"):
            path = Path(folder) / f"try{suffix}"
            try:
                with VideoWriter(path) as writer:
                    for _ in range(3):
                        writer.write(np.zeros((48, 64, 3), np.uint8))
                VideoReader(path)
                works.append(suffix)
            except PyldfusionError:
                fails.append(suffix)
    detail = f"works: {' '.join(works) or 'none'}" + (f"; fails: {' '.join(fails)}" if fails else "")
    return Check("video", "writing and reading", "ok" if works else "broken", detail,
                 "" if works else "pip install --force-reinstall opencv-python-headless")  # fmt: skip


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


TOPICS = (system, native, packages, engines, formats, cuda, video)
