"""The GPU engine on a GPU; its logic without one is in test_cuda_engine_on_cpu."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest

from pyldfusion import Fuser
from pyldfusion.artefact import open_artefact
from pyldfusion.engines.choice import available, open_engine
from pyldfusion.errors import DtypeError, EngineError, InputError
from pyldfusion.registration import Registration
from pyldfusion.scene import Scene

torch = pytest.importorskip("torch")

from .test_engines import pair  # noqa: E402
from .test_image import random_frame  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can compute on")

SIZES = [(1, 16, 16), (1, 17, 33), (2, 61, 40), (1, 480, 640)]


def psnr(a, b):
    return 10 * np.log10(255**2 / max(float(np.mean((a.astype(float) - b) ** 2)), 1e-9))


@pytest.fixture(autouse=True)
def no_warnings():
    """A recording that fails would only warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*without CUDA graphs")
        yield


def opened(models, precision, name="lite.safetensors"):
    if ("torch", precision, "cuda") not in available(device="cuda"):
        pytest.skip(f"this GPU does not compute in {precision}")
    return open_engine(open_artefact(models / name), "cuda", "torch", precision)


@pytest.fixture(params=["fp32", "fp16", "bf16"])
def engine(request, models):
    engine = opened(models, request.param)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def plain(models):
    return open_engine(open_artefact(models / "lite.safetensors"), "cpu", "torch")


@pytest.mark.parametrize("shape", SIZES)
def test_it_is_the_cpu_within_its_precision(engine, plain, shape):
    for seed in range(3):  # at once, recorded, again
        frames = pair(*shape, seed=seed)
        fused, expected = engine.run(*frames), plain.run(*frames)
        if engine.precision == "fp32":
            assert (np.abs(fused.astype(int) - expected) <= 1).mean() >= 0.999
        else:
            assert psnr(fused, expected) >= 45
    assert engine._recordings.shapes == [shape] and engine._can_record


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("model", ["lite", "full"])
def test_real_pairs(shared, model, precision):
    """PSNR of planes to float64, on real pairs and bundled weights."""
    import cv2

    from pyldfusion.generator import load_generator

    with Fuser(model, "cuda", precision=precision) as fuser:
        network = fuser._engine._network.generator
        double = load_generator(model).double()
        for picture in ("1.png", "2.png"):
            ir = cv2.imread(str(shared / "upstream/lite/ir" / picture), cv2.IMREAD_GRAYSCALE)[:240, :320]
            vis = cv2.imread(str(shared / "upstream/lite/vi" / picture), cv2.IMREAD_GRAYSCALE)[:240, :320]
            planes = [torch.from_numpy(np.ascontiguousarray(x))[None, None] / 255 for x in (ir, vis)]
            with torch.no_grad():
                expected = double(*(x.double() for x in planes)).numpy()
                fused = network(*(x.float().cuda() for x in planes)).cpu().numpy()
            assert -10 * np.log10(np.mean((fused - expected) ** 2)) >= 45


def test_a_replay_is_the_eager_run(engine):
    """But for the algorithms that cuDNN found to be faster."""
    first, second, third = (engine.run(*pair(1, 96, 128)) for _ in range(3))
    assert np.array_equal(second, third)
    assert np.abs(first.astype(int) - second).max() <= (1 if engine.precision == "fp32" else 4)


def test_shapes_that_change(engine):
    shapes = [SIZES[i % 4] for i in range(12)]
    first = {}
    for shape in shapes:
        fused = engine.run(*pair(*shape))
        if shape in engine._recordings.shapes:
            assert np.array_equal(fused, first.setdefault(shape, fused))


def test_order_under_load(engine):
    frames = [pair(1, 120 + 8 * (i % 3), 160, seed=i) for i in range(24)]
    for f in frames[:6]:
        engine.run(*f)  # all three shapes are recorded
    expected = [engine.run(*f) for f in frames]
    for _ in range(3):
        waiting = [engine.submit(*f) for f in frames]
        assert all(np.array_equal(w(), e) for w, e in zip(waiting, expected, strict=True))


def test_the_bound_on_memory_holds(models):
    engine = opened(models, "fp32")
    engine.run(*pair(1, 240, 320))
    engine.run(*pair(1, 240, 320))
    one = engine._recordings.size
    engine._recordings.limit = int(2.5 * one)
    torch.cuda.synchronize()
    held = []
    for i in range(6):
        for _ in range(2):
            engine.run(*pair(1, 240, 320 - 8 * i))
        assert engine._recordings.size <= engine._recordings.limit
        held.append(torch.cuda.memory_reserved())
    assert max(held[2:]) <= held[1] + one  # graphs that go give their memory back
    engine.close()


def test_closing_gives_memory_back(models):
    def cycle():
        engine = opened(models, "fp32")
        for _ in range(2):
            engine.run(*pair(1, 240, 320))
        engine.close()
        return torch.cuda.memory_reserved()

    cycle()
    before = cycle()
    assert cycle() <= before


def test_short_of_memory(models, plain):
    """Room for about one frame: a batch is fused all the same."""
    engine = opened(models, "fp32")
    total = torch.cuda.mem_get_info()[1]
    frames = pair(8, 480, 640)
    expected = plain.run(*(x[:1] for x in frames))
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + 450 * 2**20) / total))
    try:
        for _ in range(3):
            fused = engine.run(*frames)
            assert (np.abs(fused[:1].astype(int) - expected) <= 1).mean() >= 0.999
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**20) / total)
        with pytest.raises(EngineError, match="memory"):
            engine.run(*pair(1, 2160, 3840))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert (np.abs(engine.run(*frames)[:1].astype(int) - expected) <= 1).mean() >= 0.999
    engine.close()


def test_threads_and_two_fusers(models):
    frames = [(random_frame(i, (60 + i, 80), "uint8"), random_frame(i, (60 + i, 80, 3), "uint8")) for i in range(4)]
    with Fuser(models / "lite.safetensors", "cuda") as one, Fuser(models / "lite.safetensors", "cuda") as two:
        expected = []
        for f in frames:
            expected.append([fuser.fuse(*f) for _ in range(2) for fuser in (one, two)][-1])
        wrong = []

        def work(i):
            for fuser in (one, two) * 20:
                if np.abs(fuser.fuse(*frames[i]).astype(int) - expected[i]).max() > 4:
                    wrong.append(i)

        workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert not wrong


class TestArrays:
    """Arrays of the GPU in and out."""

    @pytest.fixture(scope="class")
    def fuser(self, models):
        with Fuser(models / "lite.safetensors", "cuda", precision="fp32") as opened:
            yield opened

    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
    @pytest.mark.parametrize("channels", [(), (3,)])
    def test_what_numpy_gives(self, fuser, dtype, channels):
        ir, vis = random_frame(1, (21, 34), dtype), random_frame(2, (21, 34, *channels), dtype)
        for _ in range(3):
            expected = fuser.fuse(ir, vis)
            fused = fuser.fuse(torch.from_numpy(ir).cuda(), torch.from_numpy(vis).cuda())
        assert fused.is_cuda and fused.dtype == torch.from_numpy(expected).dtype
        level = {"uint8": 1, "uint16": 257}.get(dtype, 1 / 255) * 1.01
        assert np.abs(fused.cpu().numpy().astype(float) - expected).max() <= level

    @pytest.mark.parametrize("outside", ["mask", "crop", "repeat"])
    def test_a_registration(self, models, outside):
        """Laid on there, from whatever stream, as the host lays it on; OpenCV samples at 32nds of a pixel."""
        ir, vis = Scene(3, (160, 120), "day").render(1.0)
        registration = Registration(np.array([[1.1, 0.03, 9.0], [-0.02, 1.12, 5.0], [1e-5, 0, 1]]), outside=outside)
        with Fuser(models / "lite.safetensors", device="cuda", precision="fp32", registration=registration) as fuser:
            expected = fuser.fuse(ir, vis)
            given = torch.from_numpy(ir).cuda(), torch.from_numpy(vis).cuda()
            streams = [torch.cuda.Stream() for _ in range(3)]
            for stream in streams:
                stream.wait_stream(torch.cuda.current_stream())
            fused = [fuser.fuse(*given, stream=stream) for stream in streams]
            torch.cuda.synchronize()
        difference = np.abs(fused[0].cpu().numpy().astype(int) - expected)
        assert difference.mean() < 0.5 and np.quantile(difference, 0.99) <= 3
        assert torch.equal(fused[0], fused[1]) and torch.equal(fused[0], fused[2])

    def test_nothing_is_copied_to_the_host(self, fuser, monkeypatch):
        ir, vis = (torch.from_numpy(random_frame(i, (48, 64, 3)[: 2 + i], "uint8")).cuda() for i in (0, 1))
        for _ in range(2):
            fuser.fuse(ir, vis)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            fuser.fuse(ir, vis)
            torch.cuda.synchronize()
        copies = [event.name for event in profile.events() if "Memcpy" in event.name]
        assert not [name for name in copies if "DtoH" in name or "HtoD" in name]

    def test_nothing_is_waited_for(self, fuser):
        ir = torch.from_numpy(random_frame(0, (48, 64), "uint16")).cuda()
        vis = torch.from_numpy(random_frame(1, (48, 64, 3), "float32")).cuda()
        for _ in range(2):
            fuser.fuse(ir, vis)
        torch.cuda.set_sync_debug_mode("error")
        try:
            fuser.fuse(ir, vis)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def test_a_stream_of_the_callers(self, fuser):
        """Inputs that are late, and a result that is read at once, on a stream of the caller's."""
        ir, vis = (torch.from_numpy(random_frame(i, (240, 320, 3)[: 2 + i], "uint8")).cuda() for i in (0, 1))
        for _ in range(2):
            expected = fuser.fuse(ir, vis).cpu()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(10):
                late_ir, late_vis = torch.zeros_like(ir), torch.zeros_like(vis)
                torch.cuda._sleep(20_000_000)
                late_ir.copy_(ir)
                late_vis.copy_(vis)
                fused = fuser.fuse(late_ir, late_vis)
                late_ir.zero_()
                late_vis.zero_()
                copy = fused.clone()
                fused.zero_()
                del late_ir, late_vis, fused
                torch.full((240, 320, 3), 7, dtype=torch.uint8, device="cuda")
                assert torch.equal(copy.cpu(), expected)

    def test_every_name_of_the_default_stream(self, fuser):
        """0 and 1 are the legacy default stream, on which the frames come late."""
        ir, vis = (torch.from_numpy(random_frame(i, (240, 320, 3)[: 2 + i], "uint8")).cuda() for i in (0, 1))
        for _ in range(2):
            expected = fuser.fuse(ir, vis)
        for stream in (0, 1, torch.cuda.default_stream(), torch.cuda.default_stream().cuda_stream):
            late = torch.zeros_like(vis)
            torch.cuda._sleep(20_000_000)
            late.copy_(vis)
            assert torch.equal(fuser.fuse(ir, late, stream=stream), expected)

    def test_arrays_and_streams_of_cupy(self, fuser):
        cupy = pytest.importorskip("cupy")
        ir, vis = random_frame(0, (48, 64), "uint8"), random_frame(1, (48, 64, 3), "uint8")
        expected = fuser.fuse(ir, vis)
        for stream in (cupy.cuda.Stream.null, cupy.cuda.Stream(non_blocking=True)):
            with stream:
                fused = fuser.fuse(cupy.asarray(ir), cupy.asarray(vis), stream=stream)
                assert np.array_equal(cupy.asnumpy(cupy.from_dlpack(fused)), expected)

    def test_host_and_device_frames_take_turns(self, fuser):
        ir, vis = random_frame(1, (120, 160), "uint8"), random_frame(2, (120, 160, 3), "uint8")
        there = torch.from_numpy(ir).cuda(), torch.from_numpy(vis).cuda()
        fuser.warmup((160, 120))
        expected = fuser.fuse(ir, vis)
        results = []
        for _ in range(20):
            results.append(fuser.fuse(*there))
            assert np.array_equal(fuser.fuse(ir, vis), expected)
        assert all(np.array_equal(x.cpu().numpy(), expected) for x in results)

    def test_the_array_interface_alone(self, fuser):
        class Array:
            def __init__(self, tensor, stream):
                self.tensor = tensor
                self.__cuda_array_interface__ = {**tensor.__cuda_array_interface__, "version": 3, "stream": stream}

        ir, vis = (torch.from_numpy(random_frame(i, (48, 64, 3)[: 2 + i], "uint8")).cuda() for i in (0, 1))
        expected = fuser.fuse(ir, vis)
        mine = torch.cuda.Stream()
        for stream in (None, 1, 2, mine.cuda_stream):
            assert torch.equal(fuser.fuse(Array(ir, stream), Array(vis, stream)), expected)

    def test_refusals(self, fuser):
        there = torch.zeros(20, 24, dtype=torch.uint8, device="cuda")
        with pytest.raises(DtypeError, match="vis is a ndarray that is not on a GPU"):
            fuser.fuse(there, np.zeros((20, 24), np.uint8))
        with pytest.raises(DtypeError, match=r"torch\.int32; expected uint8"):
            fuser.fuse(there, there.int())
        with pytest.raises(InputError, match="expected one size"):
            fuser.fuse(there, there[:18])
        if torch.cuda.device_count() > 1:
            with pytest.raises(InputError, match="is on cuda:1, and this Fuser computes on cuda:0"):
                fuser.fuse(there.to("cuda:1"), there)
