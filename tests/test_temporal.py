"""The network's statistics over time: the same as frame by frame where they should be, calmer where they may."""

from __future__ import annotations

import itertools
import math
from functools import cache

import cv2
import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")

from benchmarks.flicker import trail  # noqa: E402
from export.onnx import build_model, describe, write_model  # noqa: E402
from export.options import plan  # noqa: E402
from pyldfusion import Fuser  # noqa: E402
from pyldfusion.artefact import WEIGHTS, open_artefact  # noqa: E402
from pyldfusion.cli import main  # noqa: E402
from pyldfusion.errors import ArtefactError, InputError  # noqa: E402
from pyldfusion.frame_graph import FrameGraph, TemporalFrameGraph  # noqa: E402
from pyldfusion.generator import load_generator  # noqa: E402
from pyldfusion.smoothing import state_sizes  # noqa: E402
from pyldfusion.temporal import CUT, Past  # noqa: E402

from .graphs import RUNTIMES, frames, network  # noqa: E402

ENGINES = ("onnxruntime", "openvino", "torch")


def video(count=4, h=40, w=56, seed=5):
    """A view whose brightness drifts by less than a cut's."""
    given = frames(seed, 1, h, w)
    ir, vis = given["ir"][0, ..., 0].astype(int), given["vis"][0].astype(int)
    return [tuple(np.clip(x + s * i, 0, 255).astype(np.uint8) for x, s in ((ir, 2), (vis, -2))) for i in range(count)]


@cache
def weights(variant):
    """The bundled lite, and a full network that is traced in the test run."""
    return load_generator("lite") if variant == "lite" else network("full")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Their temporal graphs, by variant."""
    full = tmp_path_factory.mktemp("temporal") / "full-temporal.onnx"
    about = describe(network("full"), io="frames", precision="fp32", temporal=True)
    write_model(build_model(network("full"), temporal=True), full, about)
    return {"lite": WEIGHTS / "lite-temporal.onnx", "full": full}


def run(graph, keep, states, ir, vis):
    with torch.inference_mode():
        given = torch.from_numpy(ir)[None, ..., None], torch.from_numpy(vis)[None]
        fused, *states = graph(*given, torch.tensor([keep]), *states)
    return fused[0].numpy(), states


@pytest.mark.parametrize("variant", ["lite", "full"])
def test_without_a_past_it_is_the_frame_alone(variant):
    sizes = state_sizes(weights(variant))
    assert list(sizes) == ["norms", "style"][: 2 if variant == "full" else 1]
    temporal, plain = TemporalFrameGraph(weights(variant)), FrameGraph(weights(variant))
    states = [torch.full((1, size), 1e3) for size in sizes.values()]
    for ir, vis in video(2):
        fused, states = run(temporal, 0.0, states, ir, vis)
        with torch.inference_mode():
            expected = plain(torch.from_numpy(ir)[None, ..., None], torch.from_numpy(vis)[None])[0].numpy()
        assert np.abs(fused.astype(int) - expected).max() <= 1
        assert [tuple(state.shape) for state in states] == [(1, size) for size in sizes.values()]


@pytest.mark.parametrize("variant", ["lite", "full"])
def test_a_state_is_the_mean_of_what_was_measured(variant):
    """With the network's first norms, whose input knows no past: exponential weights of the frames' own."""
    graph, sizes = TemporalFrameGraph(weights(variant)), state_sizes(weights(variant))
    zeros = [torch.zeros(1, size) for size in sizes.values()]
    own = [run(graph, 0.0, zeros, *pair)[1] for pair in video(3)]
    states = own[0]
    for pair in video(3)[1:]:
        states = run(graph, 0.75, states, *pair)[1]
    shares = (0.75**2, 0.25 * 0.75, 0.25)
    for index, name in enumerate(sizes):
        first = 1 if name == "norms" else None  # the visible plane's mean; all style codes
        expected = sum(w * state[index][:, :first] for w, state in zip(shares, own, strict=True))
        assert torch.allclose(states[index][:, :first], expected, atol=1e-5)


#: Not full's by torch: these weights have equal biases, which are one constant in the file and one name.
@pytest.mark.parametrize(
    ("engine", "variant"),
    [(engine, v) for engine in ENGINES for v in ("lite", "full") if (engine, v) != ("torch", "full")],
)
def test_engines_agree_over_time(files, engine, variant):
    pytest.importorskip(engine)
    graph, states = (
        TemporalFrameGraph(weights(variant)),
        [torch.zeros(1, size) for size in state_sizes(weights(variant)).values()],
    )
    pairs = video(4)
    with Fuser(files[variant], "cpu", engine, temporal=0.5) as fuser:
        assert fuser.info["temporal"] == 0.5 and fuser.info["precision"] == "fp32"
        fused = list(fuser.stream(pairs, times=itertools.count(0, 0.1)))
    keep = 0.0
    for (ir, vis), frame in zip(pairs, fused, strict=True):
        expected, states = run(graph, keep, states, ir, vis)
        keep = math.exp(-0.1 / 0.5)
        assert np.abs(frame.astype(int) - expected).max() <= 1


def test_times_are_for_every_pair(files):
    with Fuser(files["lite"], engine="onnxruntime", temporal=1.0) as fuser:
        frames = fuser.stream(video(3), times=[0.0, 0.1])
        assert next(frames).shape == next(frames).shape
        with pytest.raises(InputError, match="times has 2 of them and there are more pairs"):
            next(frames)


def test_off_first_after_a_cut_and_forgotten(files):
    """In all four the frame alone, to the bit, because the graph is one."""
    pairs = video(3)
    dark = [(np.zeros_like(ir), np.zeros_like(vis)) for ir, vis in pairs]
    with Fuser(files["lite"], engine="onnxruntime") as off:
        alone = [off.fuse(*pair) for pair in (*pairs, *dark)]
        assert np.array_equal(alone[0], off.fuse(*pairs[0]))
    with Fuser(files["lite"], engine="onnxruntime", temporal=1.0) as fuser:
        assert np.array_equal(fuser.fuse(*pairs[0], time=0), alone[0])
        assert not np.array_equal(fuser.fuse(*pairs[1], time=0.01), alone[1])
        assert np.array_equal(fuser.fuse(*dark[0], time=0.02), alone[3])  # a cut
        assert np.array_equal(fuser.fuse(*pairs[0], time=0.03), alone[0])  # another
        fuser.forget()
        assert np.array_equal(fuser.fuse(*pairs[1], time=0.04), alone[1])
        assert np.array_equal(fuser.fuse(*pairs[2], time=0.01), alone[2])  # a clock that runs back
        fuser.warmup((56, 40))
        assert np.array_equal(fuser.fuse(*pairs[1], time=0.02), alone[1])
        small = [frame[:24, :32] for frame in pairs[2]]
        with Fuser(files["lite"], engine="onnxruntime") as off:
            assert np.array_equal(fuser.fuse(*small, time=0.03), off.fuse(*small))  # another size


def test_weights_of_the_past():
    past, grey = Past(0.5), np.full((48, 64), 100, np.uint8)
    colour = np.repeat(grey[..., None], 3, 2)
    assert past.weight(grey, colour, 10.0) == 0
    assert past.weight(grey, colour, 10.5) == pytest.approx(math.exp(-1))
    assert past.weight(grey, colour, 10.5) < 1  # twice the same time
    assert past.weight(grey + np.uint8(CUT - 1), colour, 10.6) == pytest.approx(math.exp(-0.2))
    assert past.weight(grey + np.uint8(2 * CUT), colour, 10.7) == 0
    assert past.weight(grey, colour, math.nan) == 0
    with pytest.raises(InputError, match=r"time is '0\.1'; expected a number of seconds"):
        past.weight(grey, colour, "0.1")
    for seconds in (0, -1, math.inf, math.nan, "1", True):
        with pytest.raises(InputError, match=r"temporal is .*expected seconds"):
            Past(seconds)


def test_which_file_it_is():
    assert (
        open_artefact(WEIGHTS / "lite-temporal.onnx").metadata["weights_sha256"]
        == open_artefact("lite").metadata["weights_sha256"]
    )
    with Fuser("lite", "cpu", "onnxruntime", temporal=0.5) as fuser:
        assert fuser.info["metadata"]["temporal"] == "yes" and fuser.info["model"] == "lite"
        pairs = video(2)
        with pytest.raises(InputError, match="fuse_batch is for pairs that do not follow each other"):
            fuser.fuse_batch(*zip(*pairs, strict=True))
    with pytest.raises(InputError, match=r"full.onnx has no form .*pyldfusion export full --temporal"):
        Fuser("full", "cpu", "onnxruntime", temporal=0.5)
    with pytest.raises(InputError, match="temporal is for networks on a CPU"):
        Fuser("pyramid", temporal=0.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"warp": True}, "--temporal and --warp exclude each other"),
        ({"io": "planes"}, "--temporal and --io planes exclude each other"),
        ({"int8": True}, "--temporal and int8 exclude each other"),
        ({"format": "engine"}, "--temporal is for onnx and openvino"),
    ],
)
def test_what_does_not_go_with_it(options, words, tmp_path):
    with pytest.raises(InputError, match=words):
        plan("lite", None, temporal=True, **options)


def test_the_file_has_a_name_of_its_own(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    job = plan("lite", temporal=True, precision="fp16-stored")
    assert job.output.name == "lite-temporal-fp16-stored.onnx" and job.temporal
    assert plan("lite", temporal=True).output.name == "lite-temporal.onnx"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_state_without_its_output_is_refused(files, runtime, tmp_path):
    pytest.importorskip(runtime)
    model = onnx.load(files["lite"])
    del model.graph.output[1]
    for entry in list(model.metadata_props):
        if entry.key == "graph_sha256":
            model.metadata_props.remove(entry)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ArtefactError, match="is not a graph of frames"):
        Fuser(tmp_path / "m.onnx", engine=runtime)


def test_the_command(files, tmp_path, monkeypatch):
    given = []
    weight = Past.weight
    monkeypatch.setattr(Past, "weight", lambda self, *args: given.append(args[2]) or weight(self, *args))
    for name in ("ir", "vis"):
        writer = cv2.VideoWriter(str(tmp_path / f"{name}.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
        for level in (100, 101, 102):
            writer.write(np.full((48, 64, 3), level, np.uint8))
        writer.release()
    words = [str(tmp_path / name) for name in ("ir.avi", "vis.avi", "live.mp4")]
    asked = ["--model", str(files["lite"]), "--engine", "onnxruntime", "--temporal", "0.5"]
    assert main(["stream", *words, *asked]) == 0
    assert np.allclose(np.diff(given), 0.1) and len(given) == 3


def test_a_hot_thing_that_moves_leaves_no_trail(monkeypatch):
    monkeypatch.setattr("benchmarks.flicker.SIZE", (160, 120))
    assert trail("lite", 1.0, "onnxruntime", 12) < 0.5
