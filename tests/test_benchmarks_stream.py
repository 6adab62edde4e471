"""The benchmark of the camera pipeline, on small frames."""

from __future__ import annotations

from benchmarks import stream


def test_a_short_run_has_all_figures():
    figures = stream.endure("64x48", 4.0, "lite", ["null://"])
    assert 0 < figures["share"] < 2 and figures["engine_alone_per_s"] > 0
    assert figures["latency_ms"]["total"]["p99"] > 0 and figures["events"] == {}
    assert figures["cameras"]["paired"] > 0
