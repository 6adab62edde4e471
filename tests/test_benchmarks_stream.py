"""The benchmarks of the camera pipeline, on small frames and for short; and that a stream survives its faults."""

from __future__ import annotations

import pytest

from benchmarks import stream
from benchmarks.stream import faults, pairing

#: What is told of each fault.
EVENTS = {
    "camera stalls": (),
    "camera disappears and returns": ("vis lost", "vis back"),
    "torn frames from the network": (),
    "corrupt frames": ("vis bad frame",),
    "frames of another size": ("vis changes size", "ir unusable"),
    "frames of another format": ("vis changes size",),
    "camera's clock jumps": ("vis time jumps",),
    "full disk": ("output failed",),
    "client leaves": (),
}


@pytest.fixture(scope="module")
def settled():
    """Threads and files that stay for the life of the process have begun."""
    for network in (False, True):
        faults.inject(faults.Fault("none", faults.nothing, network), 0.1)


@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: fault.name)
def test_a_stream_survives(fault, settled):
    if fault.name == "full disk" and not faults.can_mount():
        pytest.skip("mounting a small file system is not permitted here")
    row = faults.inject(fault, 0.5 if fault.network else 0.2)  # which fails when new pairs do not come again
    assert not row["hung"] and row["threads"][1] <= row["threads"][0] and row["files"][1] <= row["files"][0]
    assert set(EVENTS[fault.name]) <= row["events"].keys()
    assert fault.name in faults.markdown([row])


def test_a_short_run_has_all_figures(monkeypatch):
    monkeypatch.setattr("benchmarks.stream.endurance.LOOK", 0.1)
    monkeypatch.setattr("benchmarks.stream.endurance.DRAWN", 2)
    figures = stream.endure("64x48", 1.2, "lite", ["null://"])
    assert 0 < figures["share_of_all_turns"] < 2 and figures["engine_alone_per_s"] > 0
    assert figures["latency_ms"]["total"]["p99"] > 0 and figures["events"] == {}
    assert figures["paired"] > 0 and figures["turns"] == 1


def test_a_stream_without_an_engine_costs_little():
    assert 0 < stream.pipeline(0.5, "64x48") < 100


def test_pairs_are_of_one_moment():
    """Against the exposures: what the delay is for, and that pairs do not drift apart."""
    rows = {(row["policy"], row["ir_delay_ms"]): row for row in pairing.pairing(60.0)}
    assert len(rows) == 6
    for policy in ("hold", "repeat", "drop"):
        right, wrong = rows[policy, 40], rows[policy, 0]
        assert right["apart_ms"]["p50"] < 12 < 30 < wrong["apart_ms"]["p50"] < 60  # 9 and 30 Hz: steps of 11.1 ms
        assert right["apart_ms"]["p99"] < 1000 / 60 + 3 * 6 and abs(right["drift_ms"]) < 5
    assert rows["repeat", 40]["held"] < 1400 < 1600 < rows["hold", 40]["pairs"] and rows["drop", 40]["held"] == 0
