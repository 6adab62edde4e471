"""The Prometheus endpoint: read by prometheus_client's own parser, as a server would."""

from __future__ import annotations

import sys
import threading
import urllib.request

import pytest

from pyldfusion import Fuser, cli
from pyldfusion.camera import CameraPair, Stream
from pyldfusion.camera.prometheus import serve
from pyldfusion.errors import CameraError, DependencyError, InputError

SCENE = "size=64x48&fps=25&repeat=2&frames=8&live=no"


def scrape(url):
    """Samples by name and labels."""
    parser = pytest.importorskip("prometheus_client.parser")
    text = urllib.request.urlopen(url, timeout=60).read().decode()
    families = list(parser.text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families) and all(
        family.documentation for family in families
    )
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_a_streams_numbers_are_there():
    pytest.importorskip("prometheus_client")
    with (
        Fuser("pyramid") as fuser,
        CameraPair(f"scene://ir?{SCENE}&bits=8", f"scene://vis?{SCENE}") as pairs,
        Stream(fuser, pairs, ["null://"]) as stream,
        serve("http://127.0.0.1:0", stream.stats) as url,
    ):
        before = scrape(url)
        assert before["pyldfusion_pictures_total", "pair"] == 0
        pairs.events.tell("ir lost", "ir: gone")
        stream.run()
        stream.close()  # what waits for the output is written
        found = scrape(url)
    assert found["pyldfusion_pictures_total", "pair"] == found["pyldfusion_pairs_total", "paired"] == 8
    assert found["pyldfusion_camera_received_total", "ir"] == found["pyldfusion_output_written_total", "null://"] == 8
    assert found["pyldfusion_output_failed", "null://"] == 0 and found["pyldfusion_events_total", "ir lost"] == 1
    median, late = (found["pyldfusion_latency_seconds", quantile, "total"] for quantile in ("0.5", "0.99"))
    assert 0 < median <= late < 100
    assert found["pyldfusion_skew_seconds", "0.99"] == 0 and found["process_open_fds",] > 0


def test_nothing_is_left_of_it():
    pytest.importorskip("prometheus_client")
    before = threading.active_count()
    for _ in range(2):
        with serve("127.0.0.1:0", dict):
            pass
    assert threading.active_count() <= before  # one of an earlier test may have ended


@pytest.mark.parametrize("address", ["", "9200x", "http://@", "ftp://@:92", "http://@:92000", "a b:92"])
def test_refused_addresses(address):
    with pytest.raises(InputError, match="expected for example http://@:9200"), serve(address, dict):
        pass


def test_a_port_in_use_is_said():
    pytest.importorskip("prometheus_client")
    with (
        serve("127.0.0.1:0", dict) as url,
        pytest.raises(CameraError, match="is the port in use"),
        serve(url, dict),
    ):
        pass


def test_without_the_library_the_advice_is_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(DependencyError, match=r"pip install 'pyldfusion\[prometheus\]'"), serve("9200", dict):
        pass
    scenes = [f"scene://{view}?{SCENE}" for view in ("ir", "vis")]
    assert cli.main(["stream", *scenes, "null://", "--model", "pyramid", "--metrics", "http://@:0"]) == 2
    assert "prometheus_client" in capsys.readouterr().err
