"""What the camera pipeline costs beside the engine, in CPU time, which other programs on the machine do not change."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from pyldfusion.camera import CameraPair, Frame, FramePair, Preparer, Stream
from pyldfusion.camera.overlay import overlay
from pyldfusion.registration import Registration, visible_outside
from pyldfusion.thermal import GainControl
from pyldfusion.views import view_picture

__all__ = ["overhead", "pipeline"]


def overhead() -> dict[str, tuple[float, float]]:
    """CPU milliseconds of every step that is not the engine's: least and median."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    street = cv2.GaussianBlur(rng.normal(7000, 300, (512, 640)), (0, 0), 5)
    counts = [(street + rng.normal(0, 4, street.shape)).astype(np.uint16) for _ in range(8)]
    vis = rng.integers(0, 256, (480, 640, 3), np.uint8)

    def preparing(**options: Any) -> Callable[[int], Any]:
        prepare = Preparer(Registration(HOMOGRAPHY), **options)

        def step(k: int) -> Any:
            ir, visible = (Frame(image, k / 30, "arrival", 0.0, k, 0) for image in (counts[k % 8], vis))
            return prepare(FramePair(ir, visible, 0.0, False, k))

        return step

    cover = preparing()(0).cover
    assert cover is not None
    grey = np.ascontiguousarray(vis[..., 0])
    steps: dict[str, Callable[[int], Any]] = {
        "prepare: freeze, percentiles, warp of 640x512": preparing(),
        "prepare: the same, plateau equalisation": preparing(gain=GainControl("plateau")),
        "prepare: the same, dead pixels, column noise": preparing(dead_pixels=True, column_noise=True),
        "visible outside the infrared": lambda k: visible_outside(vis, vis, cover),
        "overlay": lambda k: overlay(vis, "25.0 fps  38 ms  skew +3 ms"),
        "view side": lambda k: view_picture("side", grey, vis, vis),
    }
    return {name: _cpu_milliseconds(step) for name, step in steps.items()}


#: Infrared to visible pixels, as of two cameras side by side: the infrared one does not cover all.
HOMOGRAPHY = np.array([[1.0, 0.01, 5], [-0.01, 0.93, 3], [0, 0, 1]])


class _Idle:
    """An engine that does nothing."""

    warps = False

    def fuse(self, ir: np.ndarray, vis: np.ndarray, **_: Any) -> np.ndarray:
        return vis


def pipeline(seconds: float = 8.0, size: str = "640x480") -> float:
    """CPU milliseconds a frame of the whole process: a stream at 30 Hz with registration and no engine."""
    scene = f"size={size}&rate=30&repeat=8&seed=1"
    with (
        CameraPair(f"scene://ir?{scene}", f"scene://vis?{scene}", alone=True) as pairs,
        Stream(_Idle(), pairs, ["null://"], Preparer(Registration(HOMOGRAPHY), events=pairs.events)) as stream,  # type: ignore[arg-type]
    ):
        start = time.process_time()
        stream.run(duration=seconds)
        return 1000 * (time.process_time() - start) / max(1, stream.shown)


def _cpu_milliseconds(step: Callable[[int], Any]) -> tuple[float, float]:
    taken = []
    for k in range(60):
        start = time.thread_time()
        step(k)
        taken.append(1000 * (time.thread_time() - start))
    return min(taken), float(np.median(taken))
