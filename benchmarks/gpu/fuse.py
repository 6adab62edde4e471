"""Frames to frames: ours on the GPU against the authors' network, host to host and device to device."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from benchmarks import load
from benchmarks.cpu import authors_network, pairs
from pyldfusion import Fuser
from pyldfusion.scene import Scene

from .measurement import Bench

SIZES = ((640, 480), (1024, 768), (1920, 1080))
QUICK = ((48, 32),)
DRY: dict[str, Any] = {"device": "cpu", "engine": "torch", "threads": 1}
BASE = "authors' eager fp32"
Frame = Any


def fuse(bench: Bench) -> None:
    """Every contender at every size, but for the one that torch.compile must build first."""
    for size in QUICK if bench.quick else SIZES:
        _size(bench, size)
    accuracy(bench)
    if bench.clock.cuda:
        profile(bench)


def compiled(bench: Bench) -> None:
    """The authors' network through torch.compile, which takes longer to build than all others to measure."""
    for size in QUICK if bench.quick else SIZES:
        race = Race(bench, size)
        if f"{race.label} {BASE}, device to device" not in bench.rates:
            race.run(f"{BASE}, device to device", authors(bench.device, "device"))
        make = authors(bench.device, "device", half=True, compile=bench.clock.cuda)
        race.run("authors' fp16 channels-last, torch.compile, device to device", make, expected=60)


def _size(bench: Bench, size: tuple[int, int]) -> None:
    race = Race(bench, size)
    for path in race.frames:
        race.run(f"{BASE}, {path} to {path}", authors(bench.device, path))
        race.run(f"authors' eager fp16 channels-last, {path} to {path}", authors(bench.device, path, half=True))
    for precision in ("fp16", "fp32") if bench.clock.cuda else ("fp32",):
        if not bench.deadline.allows(f"{race.label} ours {precision}", 15):
            continue
        options = {"device": "cuda", "precision": precision} if bench.clock.cuda else DRY | {"precision": precision}
        with Fuser("full", **options) as fuser:
            fuser.warmup(size)
            for path in race.frames if bench.clock.cuda else ("host",):
                race.run(f"ours {precision}, {path} to {path}", lambda fuser=fuser: fuser.fuse)
            fps, gaps = stream(fuser, race.frames["host"], 4 if bench.quick else 600)
            race.record(f"ours {precision}, stream of frames, host to host", gaps, fps)


class Race:
    """Contenders at one size, each against the authors' network in eager fp32 on the same path.

    Attributes:
        label: the size, as the results name it.
        frames: infrared and visible by path: ``host`` as NumPy arrays, ``device`` as tensors.
    """

    def __init__(self, bench: Bench, size: tuple[int, int]) -> None:
        frame = Scene(seed=0, size=size).render()
        host = (frame.ir, frame.vis)
        self.label = f"{size[0]}x{size[1]}"
        self.frames: dict[str, tuple[Frame, Frame]] = {
            "host": host,
            "device": tuple(torch.from_numpy(part).to(bench.device) for part in host),
        }
        self._bench = bench
        self._floor = floor_ms(bench, size)

    def run(self, name: str, make: Callable[[], Callable[[Frame, Frame], Frame]], expected: float = 10) -> None:
        """Times what ``make`` returns, if there is time for the seconds that are ``expected``."""
        if not self._bench.deadline.allows(f"{self.label} {name}", expected):
            return
        call, inputs = make(), self.frames[_path(name)]
        found = self._bench.clock.latencies(lambda: call(*inputs), 3 if self._bench.quick else 300)
        self.record(name, found, 1 / statistics.median(found))

    def record(self, name: str, times: list[float], fps: float) -> None:
        """``times``: sorted seconds a frame. What is compared is frames a second, within this run."""
        rates = self._bench.rates
        rates[f"{self.label} {name}"] = fps
        base = rates.get(f"{self.label} {BASE}, {_path(name)} to {_path(name)}")
        p50, p99 = (1e3 * times[int(share * (len(times) - 1))] for share in (0.5, 0.99))
        figures = {"fps": fps, "p50_ms": p50, "p99_ms": p99, "floor_ms": self._floor}
        if base:
            figures["times_authors"] = fps / base
        self._bench.results.record("fuse", f"{self.label} {name}", figures)


def _path(name: str) -> str:
    return "device" if name.endswith("device to device") else "host"


def stream(fuser: Fuser, frames: tuple[Frame, Frame], count: int) -> tuple[float, list[float]]:
    """Frames a second of a stream, and the sorted gaps between its frames."""
    for _ in fuser.stream(itertools.repeat(frames, 8)):
        pass
    marks = [time.perf_counter()]
    for _ in fuser.stream(itertools.repeat(frames, count)):
        marks.append(time.perf_counter())
    gaps = sorted(b - a for a, b in itertools.pairwise(marks))
    return count / (marks[-1] - marks[0]), gaps


def authors(device: torch.device, path: str, **how: Any) -> Callable[[], Callable[[Frame, Frame], Frame]]:
    """:func:`authors_fuse`, made when its turn comes."""
    return lambda: authors_fuse(device, on_device=path == "device", **how)


def authors_fuse(
    device: torch.device, *, on_device: bool, half: bool = False, compile: bool = False
) -> Callable[[Frame, Frame], Frame]:
    """The authors' network with our weights, frames to frames as their script has it: YCrCb in float, and back."""
    network: Any = authors_network("full").to(device)
    layout = torch.channels_last if half else torch.contiguous_format
    dtype = torch.float16 if half else torch.float32
    network = network.to(dtype=dtype, memory_format=layout)
    if compile:
        network = torch.compile(network, dynamic=False)  # else the second size would be compiled for any size

    @torch.inference_mode()
    def luma(ir: Tensor, y: Tensor) -> Tensor:
        planes = (plane[None, None].to(dtype) for plane in (ir, y))
        return network(*planes)[0, 0].float()

    def from_host(ir: np.ndarray, vis: np.ndarray) -> np.ndarray:
        ycrcb = cv2.cvtColor(vis.astype(np.float32) / 255, cv2.COLOR_BGR2YCrCb)
        planes = (torch.from_numpy(plane).to(device) for plane in (ir.astype(np.float32) / 255, ycrcb[..., 0].copy()))
        ycrcb[..., 0] = luma(*planes).cpu().numpy()
        return (cv2.cvtColor(ycrcb, cv2.COLOR_YCrCb2BGR) * 255).round().clip(0, 255).astype(np.uint8)

    bgr_to_y = torch.tensor([0.114, 0.587, 0.299], device=device)

    @torch.inference_mode()
    def from_device(ir: Tensor, vis: Tensor) -> Tensor:
        colour = vis.float() / 255
        y = colour @ bgr_to_y
        # the inverse of YCrCb with another luma adds the difference to every channel
        fused = colour + (luma(ir.float() / 255, y) - y)[..., None]
        return (fused * 255).round().clamp(0, 255).to(torch.uint8)

    return from_device if on_device else from_host


def floor_ms(bench: Bench, size: tuple[int, int]) -> float:
    """What the network's convolutions must take: each its products at the fp16 rate, or its bytes in fp16 at the copy
    bandwidth, whichever is longer; and every norm one read and one write."""
    return load.floor_ms(load.passes("full", size), 1e12 * bench.peak("fp16 product"), 1e9 * bench.peak("copy"))


def accuracy(bench: Bench) -> None:
    """The fused frames against those of the CPU in fp32."""
    source, planes = pairs(1 if bench.quick else 4)
    frames = []
    for ir, luma in planes:
        ir, grey = ((255 * plane).round().astype(np.uint8) for plane in (ir, luma))
        ir, grey = (plane[:32, :48] if bench.quick else plane for plane in (ir, grey))
        frames.append((np.ascontiguousarray(ir), cv2.cvtColor(np.ascontiguousarray(grey), cv2.COLOR_GRAY2BGR)))
    with Fuser("full", engine="torch:fp32", device="cpu") as reference:
        expected = [reference.fuse(*pair).astype(int) for pair in frames]
    for precision in ("fp32", "fp16", "bf16") if bench.clock.cuda else ("fp32",):
        if not bench.deadline.allows(f"accuracy {precision}"):
            continue
        options = {"device": "cuda", "precision": precision} if bench.clock.cuda else DRY | {"precision": precision}
        with Fuser("full", **options) as fuser:
            apart = [fuser.fuse(*pair).astype(int) - right for pair, right in zip(frames, expected, strict=True)]
        worst = max(float(np.mean(difference**2)) for difference in apart)
        figures = {
            "within_one": min(float(np.mean(np.abs(difference) <= 1)) for difference in apart),
            "psnr_db": 10 * float(np.log10(255**2 / max(worst, 1e-5))),
        }
        bench.results.record("accuracy", f"{precision}, worst of {source}", figures)


def profile(bench: Bench) -> None:
    """Kernels of one frame on the device, by their time."""
    if not bench.deadline.allows("profile", 15):
        return
    frame = Scene(seed=0, size=(640, 480)).render()
    ir, vis = (torch.from_numpy(part).to(bench.device) for part in (frame.ir, frame.vis))
    count = 20
    with Fuser("full", device="cuda", precision="fp16") as fuser:
        for _ in range(5):
            fuser.fuse(ir, vis)
        bench.clock.synchronize()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
            for _ in range(count):
                fuser.fuse(ir, vis)
            bench.clock.synchronize()
    rows = sorted(_device_times(seen), key=lambda row: -row[1])
    whole = sum(us for _, us, _ in rows)
    short: dict[str, list[float]] = {}  # names that begin alike are one row
    for name, us, calls in rows:
        found = short.setdefault(name.replace("void ", "").replace("at::native::", "").replace("|", "/")[:90], [0, 0])
        found[0], found[1] = found[0] + us, found[1] + calls
    bench.results.sections.pop("profile", None)  # kernels of an earlier run
    for name, (us, calls) in sorted(short.items(), key=lambda row: -row[1][0])[:16]:
        bench.results.record("profile", name, {"us": us / count, "share": us / whole, "calls": round(calls / count)})


def _device_times(seen: Any) -> Iterator[tuple[str, float, int]]:
    for event in seen.key_averages():
        us = float(getattr(event, "self_device_time_total", 0.0))
        if us > 0:
            yield event.key, us, event.count
