"""Pairing and ``pyldfusion sync`` against times that are known: two scene cameras with jitter, drops and a delay.

The clock is simulated (``live=no``), so that a busy machine changes nothing; what happens live at the moment of a
decision is in tests/test_camera_pair.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pyldfusion.camera import POLICIES, CameraPair, FramePair
from pyldfusion.camera.sync import find_delay, watch

__all__ = ["pairing", "synchronise"]

#: Hz of the two cameras, ms by which the infrared one is late, share of frames lost.
IR_RATE, VIS_RATE, LATE, DROPS = 9, 30, 40, 0.05
IR_JITTER, VIS_JITTER = 5, 3


def scenes(seconds: float, seed: int, size: str, ir_rate: float = IR_RATE, repeat: int = 0) -> tuple[str, str]:
    """Addresses of the two cameras."""
    common = f"live=no&size={size}&seed={seed}&drops={DROPS}&repeat={repeat}"
    ir = f"scene://ir?{common}&fps={ir_rate}&lag={LATE}&jitter={IR_JITTER}&frames={round(seconds * ir_rate)}"
    return ir, f"scene://vis?{common}&fps={VIS_RATE}&jitter={VIS_JITTER}&frames={round(seconds * VIS_RATE)}"


def pairing(seconds: float = 600.0) -> list[dict[str, Any]]:
    """For each policy, with ``--ir-delay`` and without: pairs, and how far apart their exposures are in ms, p50, p99.

    A frame's exposure is its number over the rate: that of the pairs, not what the pairer could see of it.
    """
    return [
        {"policy": policy, "ir_delay_ms": delay, **_errors(policy, delay, seconds)}
        for policy in POLICIES
        for delay in (LATE, 0)
    ]


def _errors(policy: str, delay: float, seconds: float) -> dict[str, Any]:
    with CameraPair(*scenes(seconds, 1, "16x16", repeat=1), policy=policy, ir_delay=delay / 1000) as pairs:
        found = list(_apart(iter(pairs)))
        counts = pairs.stats()
    fresh = np.abs([apart for apart, held in found if not held])
    return {
        "pairs": len(found),
        "held": counts["held"],
        "apart_ms": {f"p{p}": round(float(np.percentile(fresh, p)), 1) for p in (50, 99)},
        "skew_ms": counts["skew_ms"],
        "drift_ms": round(_drift(fresh), 2),
    }


def _apart(pairs: Iterator[FramePair]) -> Iterator[tuple[float, bool]]:
    """Milliseconds from the visible to the infrared exposure, and whether a frame is held."""
    for pair in pairs:
        assert pair.ir is not None and pair.vis is not None
        yield 1000 * (pair.ir.number / IR_RATE - pair.vis.number / VIS_RATE), pair.held


def _drift(apart: np.ndarray) -> float:
    """How much further apart the last tenth is than the first, in ms."""
    tenth = max(1, len(apart) // 10)
    return float(apart[-tenth:].mean() - apart[:tenth].mean())


def synchronise(seconds: float = 12.0, seeds: tuple[int, ...] = (1, 2)) -> list[dict[str, Any]]:
    """What ``pyldfusion sync`` finds of the delay, at 9 and 30 Hz."""
    rows = []
    for seed in seeds:
        for rate in (IR_RATE, VIS_RATE):
            delay = find_delay(*watch(*scenes(seconds, seed, "96x72", rate), seconds))
            rows.append({
                "seed": seed, "ir_hz": rate, "true_ms": LATE, "found_ms": round(1000 * delay.seconds, 1),
                "error_ms": round(1000 * delay.error, 1), "doubt": delay.doubt,
            })  # fmt: skip
    return rows
