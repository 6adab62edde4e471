"""Faults injected into a running stream: how long it takes to recover, what is lost, what is left behind."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pyldfusion import Fuser
from pyldfusion.camera import CameraPair, Stream
from pyldfusion.camera.sources import BadFrame, Taken
from pyldfusion.media import VideoReader
from tests.mjpeg_server import MjpegServer

__all__ = ["FAULTS", "Fault", "can_mount", "inject", "inject_all", "markdown", "nothing"]

SIZE, RATE = (96, 64), 25.0
SCENE = f"size={SIZE[0]}x{SIZE[1]}&fps={RATE:g}&repeat=4&seed=1"
#: Seconds after which a stream counts as hung.
PATIENCE = 120.0


class Hook:
    """A camera's device with a hand on what it gives."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self.change: Callable[[Taken], Taken] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def read(self) -> Taken | None:
        taken = self._device.read()
        return taken if taken is None or self.change is None else self.change(taken)


@dataclass
class Rig:
    """A running stream: two scene cameras or an MJPEG server as the visible one, and three outputs."""

    stream: Stream
    pairs: CameraPair
    server: MjpegServer
    hook: Hook
    disk: Path

    def output(self, start: str) -> Any:
        """The output whose name begins so."""
        return next(each for each in self.stream.outputs if each.name.startswith(start))


@dataclass(frozen=True)
class Fault:
    """What goes wrong: a context in which it does, and what must be so for it to be over (more than new pairs)."""

    name: str
    inject: Callable[[Rig], AbstractContextManager[None]]
    network: bool = False
    over: Callable[[Rig], bool] = lambda rig: True


@contextmanager
def _stalls(rig: Rig) -> Iterator[None]:
    rig.server.stalled.set()
    yield
    rig.server.stalled.clear()


@contextmanager
def _disappears(rig: Rig) -> Iterator[None]:
    rig.server.close()
    yield
    rig.server = MjpegServer(RATE, SIZE, rig.server.port)


@contextmanager
def _torn(rig: Rig) -> Iterator[None]:
    rig.server.torn.set()
    yield
    rig.server.torn.clear()


def _changed(change: Callable[[Taken], Taken]) -> Callable[[Rig], AbstractContextManager[None]]:
    @contextmanager
    def fault(rig: Rig) -> Iterator[None]:
        rig.hook.change = change
        yield
        rig.hook.change = None

    return fault


def _corrupt(taken: Taken) -> Taken:
    raise BadFrame("damaged, on purpose")


@contextmanager
def _jumps(rig: Rig) -> Iterator[None]:
    """A device with a clock of its own, which is set an hour forward, and back at the end."""

    def clock(ahead: float) -> Callable[[Taken], Taken]:
        return lambda taken: taken._replace(stamp=time.monotonic() + ahead)

    rig.hook.change = clock(0.0)
    stamped = rig.pairs.cameras["vis"].received + 3
    _wait(lambda: rig.pairs.cameras["vis"].received > stamped)
    rig.hook.change = clock(3600.0)
    yield
    rig.hook.change = clock(0.0)


@contextmanager
def _full_disk(rig: Rig) -> Iterator[None]:
    stat = os.statvfs(rig.disk)
    (rig.disk / "other").write_bytes(bytes(max(0, stat.f_bavail * stat.f_frsize - (2 << 20))))
    yield


def _finished(rig: Rig) -> bool:
    """The video ended, and whole; the others go on."""
    path = rig.disk / "out.avi"
    return bool(rig.output(str(path)).failed and path.exists() and VideoReader(path).count)


@contextmanager
def _client_leaves(rig: Rig) -> Iterator[None]:
    with urllib.request.urlopen(f"{rig.output('http').sink.url}/stream", timeout=PATIENCE) as answer:
        answer.read(2000)
        yield


@contextmanager
def nothing(rig: Rig) -> Iterator[None]:
    """No fault."""
    yield


FAULTS = (
    Fault("camera stalls", _stalls, network=True),
    Fault("camera disappears and returns", _disappears, network=True),
    Fault("torn frames from the network", _torn, network=True),
    Fault("corrupt frames", _changed(_corrupt)),
    Fault("frames of another size", _changed(lambda taken: taken._replace(image=cv2.resize(taken.image, (80, 60))))),
    Fault(
        "frames of another format",
        _changed(lambda taken: taken._replace(image=taken.image[..., 0].astype(np.uint16) * 257)),
    ),
    Fault("camera's clock jumps", _jumps),
    Fault("full disk", _full_disk, over=_finished),
    Fault("client leaves", _client_leaves, over=lambda rig: rig.output("http").sink.clients == 0),
)


def inject(fault: Fault, seconds: float = 2.0) -> dict[str, Any]:
    """One stream in which a fault lasts for so many seconds.

    Returns:
        ``recovery_s`` from the end of the fault to the next fused pair with a new visible frame (and what else the
        fault asks for), ``frames_lost`` of the visible camera, ``longest_gap_ms`` without any picture, threads and
        open files before and after, events, and ``hung``.
    """
    before = _left()
    with tempfile.TemporaryDirectory() as folder, _disk(Path(folder)) as disk, MjpegServer(RATE, SIZE) as server:
        vis = f"{server.url}#timeout=1" if fault.network else f"scene://vis?{SCENE}"
        with (
            Fuser("pyramid") as fuser,
            CameraPair(f"scene://ir?{SCENE}&bits=8", vis, alone=True, lost_after=0.4) as pairs,
            Stream(fuser, pairs, ["null://", f"file://{disk}/out.avi", "http://@127.0.0.1:0"]) as stream,
        ):
            camera = pairs.cameras["vis"]
            camera.device = hook = Hook(camera.device)
            rig = Rig(stream, pairs, server, hook, disk)
            runner = threading.Thread(target=stream.run, name="stream")
            runner.start()
            watch = _Gaps(stream)
            try:
                _wait(lambda: stream.fused >= 10)
                watch.begin()
                begun, received = time.monotonic(), camera.received
                with fault.inject(rig):
                    time.sleep(seconds)
                end = time.monotonic()
                fused, last = stream.fused, camera.received
                _wait(lambda: stream.fused > fused + 1 and camera.received > last + 1 and fault.over(rig))
                recovery, came = time.monotonic() - end, camera.received - received
                expected = (time.monotonic() - begun) * RATE
            finally:
                gap = watch.end()
                stream.stop()
                runner.join(PATIENCE)
                if rig.server is not server:
                    rig.server.close()
            hung = runner.is_alive()
        events = pairs.events.counts()
    after, until = _left(), time.monotonic() + 30
    while any(now > then for now, then in zip(after, before, strict=True)) and time.monotonic() < until:
        time.sleep(0.02)  # what ends, ends in its own time
        after = _left()
    return {
        "fault": fault.name, "lasted_s": seconds, "recovery_s": round(recovery, 2),
        "frames_lost": max(0, round(expected) - came), "longest_gap_ms": round(1000 * gap),
        "threads": [before[0], after[0]], "files": [before[1], after[1]], "hung": hung, "events": events,
    }  # fmt: skip


def inject_all() -> list[dict[str, Any]]:
    """Every fault in turn, after a run without one, in which threads and files begin that stay."""
    inject(Fault("none", nothing), 0.2)
    return [inject(fault) for fault in FAULTS if fault.inject is not _full_disk or can_mount()]


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table."""
    lines = [
        "| fault | lasted | recovered after | visible frames lost | longest time without a picture | threads | files |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        counts = " | ".join(f"{a} -> {b}" for a, b in (row["threads"], row["files"]))
        lines.append(
            f"| {row['fault']} | {row['lasted_s']:g} s | {row['recovery_s']:.2f} s | {row['frames_lost']} | "
            f"{row['longest_gap_ms']} ms | {counts} |"
        )
    return "\n".join(lines)


class _Gaps:
    """The longest time between two pictures."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gaps")
        self._longest = 0.0

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> float:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        return self._longest

    def _run(self) -> None:
        shown, since = self._stream.shown, time.monotonic()
        while not self._stop.wait(0.002):
            now = time.monotonic()
            self._longest = max(self._longest, now - since)
            if self._stream.shown != shown:
                shown, since = self._stream.shown, now


@contextmanager
def _disk(folder: Path) -> Iterator[Path]:
    """A small disk of its own where mounting is permitted; else a folder on the machine's."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", folder], capture_output=True).returncode
    try:
        yield folder
    finally:
        if mounted == 0:
            subprocess.run(["umount", folder], check=True)


def can_mount() -> bool:
    """Whether a full disk can be had."""
    with tempfile.TemporaryDirectory() as folder, _disk(Path(folder)) as disk:
        return os.path.ismount(disk)


def _left() -> tuple[int, int]:
    """Threads and open files of this process."""
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


def _wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("the stream hangs")
        time.sleep(0.005)
