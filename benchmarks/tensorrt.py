"""TensorRT engines of this machine: their pictures against ONNX Runtime in fp32, their speed beside trtexec's.

``tools/tensorrt_check.sh`` builds the engines and calls this; the result is a JSON file.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyldfusion import Fuser, cuda, hardware, sidecar
from pyldfusion.cli.machine import cpu_name
from pyldfusion.errors import ArtefactError
from pyldfusion.scene import Scene

__all__ = ["check", "trtexec_times"]

#: Least PSNR of frames to fp32, dB. Rounding to 8 bits alone leaves 58.9.
BOUNDS = {"fp32": 50.0, "fp16": 45.0, "int8": 38.0}
PAIRS = 4


def check(engine: Path, reference: Path, trtexec: str | None, rounds: int = 100) -> dict[str, Any]:
    """Facts, accuracy and speed of one engine at its usual size.

    Args:
        engine: with its sidecar.
        reference: the fp32 graph, of any size.
        trtexec: the program, or None to leave it out.
        rounds: frames to time.

    Raises:
        ArtefactError: an engine without a sidecar.
    """
    known = sidecar.read(engine)
    if known is None:
        raise ArtefactError(f"{engine} has no sidecar")
    _, height, width = known.profiles[0].usual
    frames = [Scene(seed=seed, size=(width, height)).render(0.0) for seed in range(PAIRS)]
    pairs = [(frame.ir, frame.vis) for frame in frames]
    with Fuser(reference, engine="onnxruntime") as fuser:
        expected = [fuser.fuse(*pair) for pair in pairs]
    with Fuser(engine) as fuser:
        fuser.warmup((width, height))
        errors = np.stack([fuser.fuse(*pair).astype(int) - e for pair, e in zip(pairs, expected, strict=True)])
        mse = float(np.mean(errors**2))
        psnr = float("inf") if mse == 0 else 10 * np.log10(255**2 / mse)
        single = _median_ms(lambda: fuser.fuse(*pairs[0]), rounds)
        on_device = [cuda.to_device(np.ascontiguousarray(array)) for array in pairs[0]]
        cuda.to_host(fuser.fuse(*on_device))
        device = _median_ms(lambda: cuda.to_host(fuser.fuse(*on_device)), rounds)
        begin = time.perf_counter()
        for _ in fuser.stream(pairs[i % PAIRS] for i in range(rounds)):
            pass
        stream = rounds / (time.perf_counter() - begin)
    least = BOUNDS.get(known.precision, 0.0)
    return {
        "engine": engine.name,
        "precision": known.precision,
        "size": f"{width}x{height}",
        "layers": known.layers,
        "psnr_db": psnr,
        "psnr_bound_db": least,
        "passed": psnr >= least,
        "max_error_levels": int(np.abs(errors).max()),
        "fuse_ms": single,
        "device_arrays_ms": device,
        "stream_fps": stream,
        "trtexec": trtexec_times(trtexec, engine) if trtexec else None,
    }


def trtexec_times(trtexec: str, engine: Path) -> dict[str, float]:
    """What NVIDIA's own program measures: median of the GPU's time and of all with copies, ms, and frames a second."""
    command = [trtexec, f"--loadEngine={engine}", "--useCudaGraph", "--useSpinWait", "--warmUp=500", "--duration=5"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {}
    for name, pattern in {
        "gpu_ms": r"GPU Compute Time:.*?median = ([\d.]+) ms",
        "latency_ms": r"Latency:.*?median = ([\d.]+) ms",
        "fps": r"Throughput: ([\d.]+) qps",
    }.items():
        if match := re.search(pattern, text):
            found[name] = float(match[1])
    return found


def _median_ms(call: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(times)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks tensorrt", description=__doc__.partition("\n")[0])
    parser.add_argument("engines", type=Path, nargs="+", metavar="ENGINE")
    parser.add_argument("--reference", type=Path, required=True, metavar="ONNX", help="the fp32 graph, of any size")
    parser.add_argument("--trtexec", metavar="PROGRAM", help="NVIDIA's trtexec, to measure beside")
    parser.add_argument("--rounds", type=int, default=100, metavar="N", help="frames to time (default: 100)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="JSON")
    args = parser.parse_args(argv)
    rows = []
    for engine in args.engines:
        rows.append(row := check(engine, args.reference, args.trtexec, args.rounds))
        beside = row["trtexec"] or {}
        print(
            f"{row['engine']}: PSNR {row['psnr_db']:.1f} dB (bound {row['psnr_bound_db']:g}), "
            f"{row['fuse_ms']:.2f} ms a frame, {row['stream_fps']:.1f} frames/s; trtexec "
            f"{beside.get('gpu_ms', 'not run')} ms{'' if row['passed'] else '  FAILED'}"
        )
    about = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "gpu": hardware.cuda_name(0),
        "capability": ".".join(map(str, hardware.cuda_capability(0))),
        "cuda": hardware.cuda_version(),
        "cpu": cpu_name(),
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps({**about, "engines": rows}, indent=2) + "\n")
    print(args.output)
    return 0 if all(row["passed"] for row in rows) else 1
