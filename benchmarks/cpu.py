"""The network as its authors wrote it against every engine here, on the CPU: ``python -m benchmarks cpu``.

Frames in to frames out, the authors' side with OpenCV's colour conversion. Every contender lives in a process of its
own, so that thread pools do not spin into each other's time and memory is its own; they take turns, one frame each a
round, and the ratio to the authors' network is the median of the rounds' ratios: a machine that slows down slows all.
PSNR is that of the float planes to float64, on real pairs where there are some, else on generated ones. The files in
INT8 are exported in the run, calibrated on real training pairs where there are some.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from pyldfusion import hardware
from pyldfusion.engines.choice import available

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("PYLDFUSION_SHARED", ROOT.parent / "shared"))
AUTHORS = "authors' eager torch"
#: (width, height) each variant is timed at.
SIZES = dict.fromkeys(("full", "lite"), ((320, 256), (640, 480), (1024, 768)))
#: Ends the name of an engine that is given the file in INT8; what is not in 8 bits there is in the engine's precision.
INT8 = " int8"
#: dB that the files in INT8 are made for.
INT8_PSNR = 40.0
Fuse = Callable[[np.ndarray, np.ndarray], np.ndarray]


def engines() -> list[str]:
    """What can run here, as the engine strings of ``Fuser``; with :data:`INT8` behind it where it gets that file."""
    names = [f"{name}:{precision}" for name, precision, _ in available("onnx", "cpu")]
    return names + [f"{name}{INT8}" for name in names if not name.startswith("torch")]


def export_int8(model: str, io: str, path: Path) -> str:
    """Write the weights of ``model`` in INT8; which layers are in float, and on what it was calibrated."""
    from export.int8 import to_int8
    from export.onnx import build_model, describe, write_model
    from pyldfusion.generator import load_generator

    generator = load_generator(model)
    data = SHARED / "data" / "train"
    int8 = to_int8(build_model(generator, io=io), data if data.is_dir() else None, bound=INT8_PSNR)
    write_model(int8.model, path, {**describe(generator, io=io, precision="int8"), **int8.metadata})
    return f"{int8.metadata['int8_calibrated_on']}; in float: {int8.metadata['int8_float_layers']}"


def authors_network(model: str) -> Any:
    """The authors' modules (reflection padding as modules, AdaIN as batch norm in training mode) with our weights."""
    import torch

    from pyldfusion.artefact import open_artefact
    from pyldfusion.author_weights import author_names
    from tests.author_networks import LDFusion, LDLite

    artefact = open_artefact(model)
    network = LDFusion() if artefact.variant == "full" else LDLite()
    theirs = author_names(artefact.variant)
    state = {theirs[name]: torch.from_numpy(weights) for name, weights in artefact.state_dict().items()}
    unused = network.load_state_dict(state, strict=False)
    if unused.unexpected_keys or any("running" not in name for name in unused.missing_keys):
        raise RuntimeError(f"{model} is not the authors' network: {unused}")
    return network.eval()


def authors_fuse(model: str, threads: int) -> Fuse:
    """Frames to frames as the authors' test script does it: YCrCb in float, the network, and back, rounded."""
    import cv2
    import torch

    torch.set_num_threads(threads)
    network = authors_network(model)

    def fuse(ir: np.ndarray, vis: np.ndarray) -> np.ndarray:
        ycrcb = cv2.cvtColor(vis.astype(np.float32) / 255, cv2.COLOR_BGR2YCrCb)
        planes = (torch.from_numpy(p)[None, None] for p in (ir.astype(np.float32) / 255, ycrcb[..., 0].copy()))
        with torch.no_grad():
            ycrcb[..., 0] = network(*planes)[0, 0].numpy()
        return (cv2.cvtColor(ycrcb, cv2.COLOR_YCrCb2BGR) * 255).round().clip(0, 255).astype(np.uint8)

    return fuse


def contender(name: str, model: str, threads: int) -> Fuse:
    if name == AUTHORS:
        return authors_fuse(model, threads)
    from pyldfusion import Fuser

    return Fuser(model, "cpu", name.removesuffix(INT8), threads=threads).fuse


def peak_memory() -> float:
    """Most resident memory this process ever had, in MB; getrusage would count its parent's too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000


def work(connection: Any, name: str, model: str, threads: int, size: tuple[int, int]) -> None:
    """A contender's process: a frame at every message, answered with its seconds; the last answer is its memory."""
    from pyldfusion.scene import Scene

    frame = Scene(seed=0, size=size).render()
    fuse = contender(name, model, threads)
    for _ in range(2):
        fuse(frame.ir, frame.vis)
    connection.send("ready")
    while connection.recv():
        start = time.perf_counter()
        fuse(frame.ir, frame.vis)
        connection.send(time.perf_counter() - start)
    connection.send(peak_memory())


@contextmanager
def contestants(models: Mapping[str, str], threads: int, size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    connections, processes = {}, []
    try:
        for name, model in models.items():
            connections[name], theirs = context.Pipe()
            processes.append(context.Process(target=work, args=(theirs, name, model, threads, size), daemon=True))
            processes[-1].start()
            theirs.close()  # so that a contender that dies is an end of file here
            connections[name].recv()
        yield connections
    finally:
        for process in processes:
            process.join(5)
            process.kill()


def race(models: Mapping[str, str], threads: int, size: tuple[int, int], limit: float) -> list[dict[str, Any]]:
    """Rounds until the medians stand still or ``limit`` seconds are over, at least 5; ``models``: each one's file."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with contestants(models, threads, size) as connections:
        end = time.perf_counter() + limit
        while len(seconds[AUTHORS]) < 5 or (time.perf_counter() < end and not all(map(settled, seconds.values()))):
            for name, connection in connections.items():
                connection.send(True)
                seconds[name].append(connection.recv())
        for connection in connections.values():
            connection.send(False)
        memory = {name: connection.recv() for name, connection in connections.items()}
    rows = []
    for name in models:
        ratios = [a / b for a, b in zip(seconds[AUTHORS], seconds[name], strict=True)]
        median = statistics.median(seconds[name])
        rows.append(
            {
                "engine": name,
                "ms": 1e3 * median,
                "best_ms": 1e3 * min(seconds[name]),
                "fps": 1 / median,
                "times_authors": statistics.median(ratios),
                "peak_mb": memory[name],
                "rounds": len(ratios),
            }
        )
    return rows


def settled(seconds: Sequence[float]) -> bool:
    """Whether the median is known to about 1 %: its standard error, from the spread of the middle half."""
    if len(seconds) < 9:
        return False
    low, median, high = statistics.quantiles(seconds, n=4)
    return 0.93 * (high - low) / len(seconds) ** 0.5 < 0.01 * median


def pairs(count: int) -> tuple[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Planes (ir, luma of vis), float32 [H,W] in [0, 1], at most 640x480: ``count`` of each test set, or generated."""
    import cv2

    from pyldfusion.scene import Scene

    frames = []
    for folder in sorted((SHARED / "data" / "test").glob("*/ir")):
        files = sorted(folder.iterdir())
        for file in files[:: max(len(files) // count, 1)][:count]:
            ir = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
            frames.append((ir, cv2.imread(str(folder.parent / "vi" / file.name))))
    source = f"{len(frames)} real pairs (TNO, RoadScene, M3FD)"
    if not frames:
        rendered = [Scene(seed=seed, size=(640, 480)).render() for seed in range(count)]
        frames = [(frame.ir, frame.vis) for frame in rendered]
        source = f"{count} generated pairs"
    planes = []
    for ir, vis in frames:
        ir, vis = ir[:480, :640], vis[:480, :640]
        luma = cv2.cvtColor(vis.astype(np.float32) / 255, cv2.COLOR_BGR2YCrCb)[..., 0]
        planes.append((ir.astype(np.float32) / 255, np.ascontiguousarray(luma)))
    return source, planes


def accuracy(model: str, names: Sequence[str], planes: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Lowest PSNR in dB over the pairs, of each contender's float planes to the authors' network in float64."""
    import torch

    from export.onnx import export_onnx
    from pyldfusion.generator import load_generator

    exact, eager = authors_network(model).double(), authors_network(model)
    worst = dict.fromkeys(names, float("inf"))
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        path, int8 = Path(folder) / "planes.onnx", Path(folder) / "int8.onnx"
        export_onnx(load_generator(model), path, io="planes")
        if any(name.endswith(INT8) for name in names):
            export_int8(model, "planes", int8)
        run = {
            name: eager
            if name == AUTHORS
            else planes_engine(name.removesuffix(INT8), int8 if name.endswith(INT8) else path, model)
            for name in names
        }
        for pair in planes:
            ir, vis = (torch.from_numpy(plane)[None, None] for plane in pair)
            expected = exact(ir.double(), vis.double()).numpy()
            for name in names:
                error = float(np.mean((np.asarray(run[name](ir, vis), np.float64) - expected) ** 2))
                worst[name] = min(worst[name], -10 * np.log10(error) if error else float("inf"))
    return worst


def planes_engine(name: str, path: Path, model: str) -> Callable[..., Any]:
    """The network on float planes in the runtime of an engine string."""
    engine, _, precision = name.partition(":")
    if engine == "torch":
        from pyldfusion.generator import load_generator
        from pyldfusion.rewrites import for_inference

        return for_inference(load_generator(model))
    if engine == "onnxruntime":
        from pyldfusion.engines.onnx import import_onnxruntime

        session = import_onnxruntime().InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda ir, vis: session.run(None, {"ir": ir.numpy(), "vis": vis.numpy()})[0]
    from pyldfusion.engines.openvino import openvino_core

    hint = {"bf16": "bf16", "fp32": "f32"}[precision]
    compiled = openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": hint})
    return lambda ir, vis: compiled({"ir": ir.numpy(), "vis": vis.numpy()})[0]


_FIRST_FUSE = """
import time
start = time.perf_counter()
import numpy
frames = numpy.zeros((480, 640), numpy.uint8), numpy.zeros((480, 640, 3), numpy.uint8)
from pyldfusion import Fuser
fuser = Fuser({model!r}, engine={engine!r})
fuser.fuse(*frames)
print(time.perf_counter() - start)
"""
_IMPORT = "import time; start = time.perf_counter(); import pyldfusion; print(time.perf_counter() - start)"


def startup(models: dict[str, str], repeats: int) -> dict[str, float]:
    """Seconds, medians of fresh processes: importing the package; from there to the first fused 640x480 frame."""

    def median(script: str) -> float:
        command = [sys.executable, "-c", script]
        runs = (subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True) for _ in range(repeats))
        return statistics.median(float(run.stdout) for run in runs)

    times = {"import pyldfusion": median(_IMPORT)}
    for variant, model in models.items():
        times[f"first fuse, {variant}, default engine"] = median(_FIRST_FUSE.format(model=model, engine=None))
    return times


def environment(threads: int) -> dict[str, Any]:
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    packages = ("numpy", "opencv-python-headless", "onnxruntime", "openvino", "torch")
    versions = {name: metadata.version(name) for name in packages if _has(name)}
    return {
        "cpu": cpu.partition(":")[2].strip() or platform.machine(),
        "bf16": hardware.native_bf16(),
        "threads": threads,
        "load_before": round(os.getloadavg()[0], 2),
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        **versions,
    }


def _has(package: str) -> bool:
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False


def table(title: str, rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        f"\n{title}\n",
        "| engine | ms | frames/s | x authors' | PSNR, dB | peak MB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        psnr = f"{row['psnr_db']:.1f}" if "psnr_db" in row else "not measured"
        lines.append(
            f"| {row['engine']} | {row['ms']:.1f} | {row['fps']:.1f} | {row['times_authors']:.2f} | {psnr} "
            f"| {row['peak_mb']:.0f} |"
        )
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks cpu", description=__doc__)
    parser.add_argument("--full", default="full", metavar="FILE", help="weights of the full network (default: bundled)")
    parser.add_argument("--lite", default="lite", metavar="FILE", help="weights of the lite network (default: bundled)")
    parser.add_argument("--variant", choices=SIZES, help="only this one")
    parser.add_argument("--seconds", type=float, default=60, help="at most this long for each table (default 60)")
    parser.add_argument("--threads", type=int, default=hardware.cores(), help="default: the physical cores")
    parser.add_argument("--quick", action="store_true", help="smallest sizes, no PSNR, a few rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    options = parser.parse_args(argv)

    models = {"full": options.full, "lite": options.lite}
    if options.variant:
        models = {options.variant: models[options.variant]}
    names = [AUTHORS, *engines()]
    report: dict[str, Any] = {"environment": environment(options.threads), "speed": []}
    print(", ".join(f"{key} {value}" for key, value in report["environment"].items()))
    if report["environment"]["load_before"] > 0.5:
        print("The machine is busy with something else: the times are too long, and the ratios less sure.")

    report["startup_s"] = startup(models, 3 if options.quick else 7)
    print("\n| startup | s |\n|---|---:|")
    print("\n".join(f"| {what} | {seconds:.2f} |" for what, seconds in report["startup_s"].items()))

    source, planes = ("", []) if options.quick else pairs(2)
    for variant, model in models.items():
        psnr = accuracy(model, names, planes) if planes else {}
        with tempfile.TemporaryDirectory() as folder:
            int8 = str(Path(folder) / f"{variant}-int8.onnx")
            about = export_int8(model, "frames", Path(int8))
            report.setdefault("int8", {})[variant] = about
            print(f"\n{variant} in INT8: {about}")
            files = {name: int8 if name.endswith(INT8) else model for name in names}
            for size in SIZES[variant][:1] if options.quick else SIZES[variant]:
                rows = race(files, options.threads, size, 5 if options.quick else options.seconds)
                for row in rows:
                    row |= {"psnr_db": psnr[row["engine"]]} if psnr else {}
                print(table(f"{variant}, {size[0]}x{size[1]}, {rows[0]['rounds']} rounds", rows), flush=True)
                report["speed"].append({"variant": variant, "size": list(size), "rows": rows})
    if planes:
        report["psnr_on"] = source
        print(f"\nPSNR: lowest over {source}, float planes to the authors' network in float64.")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0
