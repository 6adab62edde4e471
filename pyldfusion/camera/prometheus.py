"""A stream's counters for Prometheus, at ``http://HOST:PORT/metrics``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import CameraError, DependencyError, InputError

__all__ = ["families", "serve"]

_CAMERA = {
    "received": "frames that came",
    "dropped": "frames that found no partner, or came when nothing could take them",
    "bad": "frames that could not be used",
    "lost": "frames that the device says it lost",
    "returns": "times that the device was lost and came back",
}


@contextmanager
def serve(address: str, stats: Callable[[], dict[str, Any]]) -> Iterator[str]:
    """Answer scrapes while the context lasts; gives the endpoint's URL.

    Args:
        address: ``http://@:9200`` (all interfaces), ``http://127.0.0.1:9200``, ``HOST:PORT`` or ``PORT``; port 0 takes
            a free one.
        stats: what is asked at each scrape, as of ``Stream.stats``.

    Raises:
        InputError: no address.
        DependencyError: prometheus_client is not installed.
        CameraError: the port cannot be listened on.
    """
    match = re.fullmatch(r"(?:http://)?@?(?:(\[[0-9a-fA-F:]+\]|[^:/@\s]*):)?(\d{1,5})(?:/|/metrics)?", address)
    if match is None or int(match[2]) > 65535:
        raise InputError(f"metrics address is {address!r}; expected for example http://@:9200 or 127.0.0.1:9200")
    host, port = (match[1] or "").strip("[]"), int(match[2])
    try:
        from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
    except ImportError as error:
        raise DependencyError(
            f"metrics need prometheus_client ({error}); pip install 'pyldfusion[prometheus]'"
        ) from None

    class Collector:
        def describe(self) -> list[Any]:
            return []

        def collect(self) -> Iterator[Any]:
            return families(stats())

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(Collector())
    try:
        server, thread = start_http_server(port, host or "0.0.0.0", registry)
    except OSError as error:
        raise CameraError(
            f"metrics: cannot listen at {address} ({error.strerror or error}); is the port in use?"
        ) from None
    try:
        yield f"http://{f'[{host}]' if ':' in host else host or '127.0.0.1'}:{server.server_address[1]}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def families(stats: dict[str, Any]) -> Iterator[Any]:
    """Statistics of ``Stream.stats`` as metric families of prometheus_client; seconds throughout."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    def labelled(family: Any, values: dict[str, Any]) -> Any:
        for label, value in values.items():
            family.add_metric([label], value)
        return family

    pictures = CounterMetricFamily("pyldfusion_pictures", "Pictures made, by what they are of.", labels=["of"])
    yield labelled(pictures, {"pair": stats["fused"], "one_camera": stats["alone"]})
    yield CounterMetricFamily("pyldfusion_pairs_skipped", "Pairs left out for newer ones.", value=stats["skipped"])
    yield GaugeMetricFamily("pyldfusion_rate", "Pictures a second, over the last seconds.", value=stats["rate"])
    latency = GaugeMetricFamily(
        "pyldfusion_latency_seconds", "Of each stage, over its last measurements.", labels=["stage", "quantile"]
    )
    for stage, percentiles in stats["latency_ms"].items():
        for name, value in percentiles.items():
            latency.add_metric([stage, str(int(name[1:]) / 100)], value / 1000)
    yield latency
    cameras = stats["cameras"]
    for word, meaning in _CAMERA.items():
        family = CounterMetricFamily(f"pyldfusion_camera_{word}", f"Of a camera: {meaning}.", labels=["camera"])
        yield labelled(family, {n: cameras[n][word] for n in ("ir", "vis") if word in cameras.get(n, {})})
    if "paired" in cameras:
        pairs = CounterMetricFamily("pyldfusion_pairs", "Pairs; held ones are paired too.", labels=["kind"])
        yield labelled(pairs, {kind: cameras[kind] for kind in ("paired", "held", "alone")})
        skew = GaugeMetricFamily("pyldfusion_skew_seconds", "Size of the skew of pairs.", labels=["quantile"])
        found = {name: value for name, value in cameras["skew_ms"].items() if value is not None}
        yield labelled(skew, {str(int(name[1:]) / 100): value / 1000 for name, value in found.items()})
    for word, meaning in (("written", "Pictures that went through."), ("dropped", "Pictures it was too slow for.")):
        family = CounterMetricFamily(f"pyldfusion_output_{word}", meaning, labels=["output"])
        yield labelled(family, {name: output[word] for name, output in stats["outputs"].items()})
    failed = GaugeMetricFamily("pyldfusion_output_failed", "1 where it has ended by an error.", labels=["output"])
    yield labelled(failed, {name: float(output["failed"]) for name, output in stats["outputs"].items()})
    events = CounterMetricFamily("pyldfusion_events", "What went wrong, and came right again.", labels=["event"])
    yield labelled(events, stats["events"])
