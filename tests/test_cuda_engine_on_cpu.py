"""The GPU engine's own logic, run on the CPU: slots, order, recordings, shortage of memory, arrays of a device."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest

from pyldfusion import Fuser, fuser, gpu_image, image, thermal, torch_ops
from pyldfusion.artefact import open_artefact
from pyldfusion.engines.choice import open_engine
from pyldfusion.errors import DtypeError, EngineError, InputError

torch = pytest.importorskip("torch")

from pyldfusion.engines import cuda, lane, pipeline  # noqa: E402
from pyldfusion.engines.cuda import CudaEngine  # noqa: E402

from .test_engines import pair  # noqa: E402
from .test_image import random_frame  # noqa: E402

SHAPE = (1, 24, 33)


@pytest.fixture
def engine(models):
    opened = CudaEngine(open_artefact(models / "lite.safetensors"), "cpu", "fp32", 1)
    yield opened
    opened.close()


@pytest.fixture
def calls(engine, monkeypatch):
    """The shapes (N, H, W) that the network was run on."""
    seen = []
    network = engine._network
    monkeypatch.setattr(engine, "_network", lambda ir, vis: seen.append(tuple(ir.shape[:3])) or network(ir, vis))
    return seen


@pytest.fixture(scope="module")
def plain(models):
    return open_engine(open_artefact(models / "lite.safetensors"), "cpu", "torch")


class TestFrames:
    """What comes out is what the plain engine gives."""

    @pytest.mark.parametrize("shape", [(1, 16, 16), (2, 17, 33), (5, 24, 40)])
    def test_run_is_the_plain_engine(self, engine, plain, shape):
        for seed in range(3):  # at once, recorded, again
            frames = pair(*shape, seed=seed)
            assert np.abs(engine.run(*frames).astype(int) - plain.run(*frames)).max() <= 1
        assert engine._recordings.shapes == [shape]

    def test_more_under_way_than_there_are_slots(self, engine):
        shapes = [(1, 16 + i % 4, 20 + 3 * i) for i in range(8)]
        frames = [pair(*shape, seed=i) for i, shape in enumerate(shapes)]
        expected = [engine.run(*f) for f in frames]
        waiting = [engine.submit(*f) for f in frames]
        for i in (7, 0, 3, 1, 2, 6, 5, 4, 4):  # in any order, and twice
            assert np.array_equal(waiting[i](), expected[i])

    def test_results_are_the_callers_own(self, engine):
        ir, vis = pair(*SHAPE)
        waiting = engine.submit(ir, vis)
        kept = vis.copy()
        ir[:], vis[:] = 0, 0  # the engine has its own copy
        first = waiting()
        assert np.array_equal(first, engine.run(*pair(*SHAPE))) and first.flags.writeable and first.flags.owndata
        assert not np.array_equal(first, kept)
        before = first.copy()
        for seed in range(4):
            engine.run(*pair(*SHAPE, seed=seed))
        assert np.array_equal(first, before)

    def test_slots_shrink_and_grow(self, engine, plain):
        for shape in ((1, 64, 48), (1, 16, 16), (3, 33, 20), (1, 64, 48), (1, 80, 80)) * 2:
            frames = pair(*shape)
            assert np.abs(engine.run(*frames).astype(int) - plain.run(*frames)).max() <= 1

    def test_a_failure_leaves_the_engine_usable(self, engine, monkeypatch):
        expected = engine.run(*pair(*SHAPE))
        with monkeypatch.context() as patch:
            patch.setattr(engine, "_network", lambda ir, vis: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                engine.run(*pair(1, 20, 20))
            patch.setattr(engine, "_network", failing("an illegal memory access"))
            with pytest.raises(EngineError, match="torch failed on cpu: an illegal memory access"):
                engine.run(*pair(1, 20, 20))
        with pytest.raises(EngineError, match="expected one N, H and W"):
            engine.submit(pair(*SHAPE)[0], pair(1, 24, 40)[1])
        for _ in range(4):
            assert np.array_equal(engine.run(*pair(*SHAPE)), expected)

    def test_what_fails_while_it_is_under_way_is_told_to_its_owner(self):
        class Event:
            def synchronize(self):
                raise RuntimeError("unspecified launch failure")

        pending = pipeline.Pending(Event(), np.zeros((1, 16, 16, 3), np.uint8))
        pending.collect()  # who needs the slot does not care
        for _ in range(2):
            with pytest.raises(EngineError, match="the GPU failed: unspecified launch failure"):
                pending()


class TestRecordings:
    """Shapes that come again are recorded, within bounds."""

    def test_the_second_time(self, engine, calls):
        engine.run(*pair(*SHAPE))
        assert engine._recordings.shapes == [] and calls == [SHAPE]
        engine.run(*pair(*SHAPE))
        assert engine._recordings.shapes == [SHAPE]

    def test_a_folder_of_sizes_records_nothing(self, engine):
        for i in range(10):
            engine.run(*pair(1, 16 + i, 20))
        assert engine._recordings.shapes == []

    def test_only_so_many_shapes_are_remembered(self, engine, monkeypatch):
        monkeypatch.setattr(pipeline, "SHAPES", 2)
        for h in (16, 17, 18, 16):
            engine.run(*pair(1, h, 16))
        assert engine._recordings.shapes == [] and len(engine._seen) == 2

    def test_the_least_recently_used_goes(self, engine):
        shapes = [(1, 16, 16 + i) for i in range(3)]
        for shape in (shapes[0], shapes[0]):
            engine.run(*pair(*shape))
        engine._recordings.limit = 2 * engine._recordings.size + 400  # two of them, not three
        for shape in (shapes[1], shapes[1], shapes[0], shapes[2], shapes[2]):
            engine.run(*pair(*shape))
        assert engine._recordings.shapes == [shapes[0], shapes[2]]
        assert engine._recordings.size <= engine._recordings.limit
        expected = engine.run(*pair(*shapes[1]))  # recorded anew
        assert np.array_equal(engine.run(*pair(*shapes[1])), expected)

    def test_what_is_larger_than_the_bound_is_never_kept(self, engine, calls):
        engine._recordings.limit = 100
        first = engine.run(*pair(*SHAPE))
        engine.run(*pair(*SHAPE))
        tried = len(calls)
        assert engine._recordings.shapes == [] and tried > 2
        assert np.array_equal(engine.run(*pair(*SHAPE)), first)
        assert len(calls) == tried + 1  # not tried again

    def test_where_recording_fails_there_is_one_warning(self, engine, monkeypatch):
        monkeypatch.setattr(cuda, "record", failing("operation not permitted when stream is capturing"))
        expected = engine.run(*pair(*SHAPE))
        with pytest.warns(UserWarning, match=r"without CUDA graphs.*operation not permitted"):
            assert np.array_equal(engine.run(*pair(*SHAPE)), expected)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for shape in (SHAPE, (1, 16, 16), (1, 16, 16)):
                engine.run(*pair(*shape))


def failing(words, error=RuntimeError):
    def fail(*_):
        raise error(words)

    return fail


class TestMemory:
    """A GPU with room for less than what is asked for."""

    @pytest.fixture
    def room(self, engine, monkeypatch):
        """The network has memory for so many pixels, less where something is recorded."""
        network = engine._network
        ran = []

        def run(ir, vis):
            taken = 1000 * len(engine._recordings.shapes)
            if ir[..., 0].numel() + taken > room["pixels"]:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
            ran.append(tuple(ir.shape[:3]))
            return network(ir, vis)

        room = {"pixels": 10**6, "ran": ran}
        monkeypatch.setattr(engine, "_network", run)
        return room

    def test_recordings_go_first(self, engine, room, plain):
        for _ in range(2):
            engine.run(*pair(1, 16, 16))
        assert engine._recordings.shapes
        room["pixels"] = 1500
        frames = pair(1, 32, 40)
        assert np.abs(engine.run(*frames).astype(int) - plain.run(*frames)).max() <= 1
        assert engine._recordings.shapes == []
        assert engine.batch == 4

    def test_then_batches_are_halved(self, engine, room, plain):
        room["pixels"] = 2 * 24 * 33
        frames = pair(5, 24, 33)
        assert np.abs(engine.run(*frames).astype(int) - plain.run(*frames)).max() <= 1
        assert room["ran"][:2] == [(2, 24, 33), (1, 24, 33)] and engine.batch == 2
        assert set(room["ran"][2:]) == {(2, 24, 33)}  # the second of its shape, so recorded
        assert np.array_equal(engine.run(*frames), engine.run(*frames))

    def test_a_frame_that_does_not_fit_is_an_error_that_says_what_to_do(self, engine, room):
        room["pixels"] = 500
        for _ in range(2):
            with pytest.raises(
                EngineError, match=r"not enough memory on cpu for a frame of 33x24; give smaller frames"
            ):
                engine.run(*pair(2, 24, 33))
        engine.run(*pair(1, 16, 16))
        room["pixels"] = 10**6
        engine.run(*pair(1, 24, 33))

    def test_no_memory_to_record_in(self, engine, room, monkeypatch):
        """The graph does not fit beside the warm-up: the shape is fused without one from then on."""
        monkeypatch.setattr(cuda, "record", failing("CUDA out of memory", torch.cuda.OutOfMemoryError))
        expected = engine.run(*pair(*SHAPE))
        for _ in range(2):
            assert np.array_equal(engine.run(*pair(*SHAPE)), expected)
        assert engine._never_recorded == {SHAPE} and engine._can_record

    def test_no_memory_for_the_slots(self, engine, monkeypatch):
        fit, failed = lane.Slot.fit, []

        def short(slot, *shapes):
            if not failed:
                failed.append(shapes)
                raise RuntimeError("CUDA error: out of memory")
            return fit(slot, *shapes)

        monkeypatch.setattr(lane.Slot, "fit", short)
        assert engine.run(*pair(*SHAPE)).shape == (*SHAPE, 3) and failed

    @pytest.mark.parametrize("words", ["cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "CUDA error: out of memory"])
    def test_libraries_that_allocate_by_themselves(self, words):
        assert not pipeline.fits(failing(words))
        with pytest.raises(RuntimeError, match="something else"):
            pipeline.fits(failing("something else"))


class TestModes:
    """The caller's thread may be in any mode, and finds its switches as they were."""

    @pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
    def test_gradient_modes(self, engine, mode):
        with torch.inference_mode(mode is not torch.inference_mode):
            expected = engine.run(*pair(*SHAPE))
        for _ in range(3):
            with mode():
                assert np.array_equal(engine.run(*pair(*SHAPE)), expected)
            assert np.array_equal(engine.run(*pair(*SHAPE)), expected)

    def test_autocast_does_not_choose_the_precision(self, engine):
        expected = engine.run(*pair(*SHAPE))
        with torch.autocast("cpu", torch.bfloat16):
            assert np.array_equal(engine.run(*pair(*SHAPE)), expected)

    @pytest.mark.parametrize("benchmark", [False, True])
    def test_switches_are_put_back(self, monkeypatch, benchmark):
        cudnn = torch.backends.cudnn
        monkeypatch.setattr(cudnn, "benchmark", benchmark)
        before = cudnn.allow_tf32
        with lane.settings(search=not benchmark):
            assert cudnn.benchmark is not benchmark
            if hasattr(cudnn, "conv"):
                assert cudnn.conv.fp32_precision == "ieee"
        assert cudnn.benchmark is benchmark and cudnn.allow_tf32 == before


@pytest.fixture
def gpu(models, monkeypatch):
    """A Fuser on a GPU engine that is on the CPU."""
    monkeypatch.setattr(fuser, "open_engine", lambda artefact, *_: CudaEngine(artefact, "cpu", "fp32", 1))
    with Fuser(models / "lite.safetensors") as opened:
        yield opened


class TestFuser:
    """Streams and batches through Fuser."""

    def test_a_stream_is_its_pairs_and_three_are_under_way(self, gpu):
        sizes = [(20 + i % 3, 24) for i in range(7)]
        frames = [(random_frame(i, s, "uint16"), random_frame(9 + i, (*s, 3), "uint8")) for i, s in enumerate(sizes)]
        expected = [gpu.fuse(*f) for f in frames]
        taken = []
        stream = gpu.stream(taken.append(i) or f for i, f in enumerate(frames))
        assert taken == []
        for i, fused in enumerate(stream):
            assert np.array_equal(fused, expected[i])
            assert len(taken) == min(i + 3, 7)
        assert i == 6

    def test_a_stream_left_early(self, gpu):
        frames = [(random_frame(i, (20, 24), "uint8"), random_frame(i, (20, 24, 3), "uint8")) for i in range(6)]
        expected = gpu.fuse(*frames[0])
        stream = gpu.stream(frames)
        assert np.array_equal(next(stream), expected)
        stream.close()
        assert np.array_equal(gpu.fuse(*frames[0]), expected)

    def test_an_error_in_a_stream_comes_when_it_is_reached(self, gpu):
        good = random_frame(0, (20, 24), "uint8")
        stream = gpu.stream([(good, good), (good, good), (good, good), (good, good[:10])])
        next(stream)
        with pytest.raises(InputError, match="vis has shape"):
            next(stream)

    def test_a_batch_is_its_pairs(self, gpu, monkeypatch):
        sizes = []
        submit = gpu._engine.submit
        monkeypatch.setattr(gpu._engine, "submit", lambda *given: sizes.append(len(given[0])) or submit(*given))
        irs, viss = random_frame(1, (11, 20, 20), "uint8"), random_frame(2, (11, 20, 20, 3), "uint8")
        fused = gpu.fuse_batch(irs, viss)
        assert sizes == [4, 4, 3]
        for i in range(11):
            assert np.abs(fused[i].astype(int) - gpu.fuse(irs[i], viss[i])).max() <= 1

    def test_warmup_records(self, gpu):
        gpu.warmup((24, 20), batch=6)
        assert gpu._engine._recordings.shapes == [(4, 20, 24), (2, 20, 24)]

    def test_threads_and_two_fusers(self, gpu, models):
        frames = [(random_frame(i, (20 + i, 24), "uint8"), random_frame(i, (20 + i, 24, 3), "uint8")) for i in range(4)]
        expected = [gpu.fuse(*f) for f in frames]
        wrong = []
        with Fuser(models / "lite.safetensors") as other:

            def work(i):
                for opened in (gpu, other) * 5:
                    if not np.array_equal(opened.fuse(*frames[i]), expected[i]):
                        wrong.append(i)

            workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        assert not wrong

    def test_what_is_under_way_survives_closing(self, models, gpu):
        frames = random_frame(1, (20, 24), "uint8"), random_frame(2, (20, 24, 3), "uint8")
        expected = gpu.fuse(*frames)
        waiting = gpu._submit([gpu._prepare(*frames, None, None, None)])
        gpu.close()
        assert np.array_equal(waiting()[0], expected)
        with pytest.raises(EngineError, match="closed"):
            next(gpu.stream([frames]))


class Producer:
    """An array of another library: only the protocol, and nothing else of a tensor."""

    def __init__(self, tensor):
        self._tensor = tensor

    def __dlpack__(self, *, stream=None, **options):
        return self._tensor.__dlpack__(stream=stream, **options)

    def __dlpack_device__(self):
        return self._tensor.__dlpack_device__()


@pytest.fixture
def on_gpu(monkeypatch):
    """Tensors of the CPU, taken for arrays of a GPU."""

    def taken(frame):
        return isinstance(frame, (torch.Tensor, Producer))

    monkeypatch.setattr(fuser, "is_on_gpu", taken)
    monkeypatch.setattr(gpu_image, "is_on_gpu", taken)


@pytest.mark.usefixtures("on_gpu")
class TestArrays:
    """Arrays of the device in and out."""

    @pytest.mark.parametrize("color", ["bgr", "rgb"])
    @pytest.mark.parametrize("channels", [(), (1,), (3,)])
    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
    def test_what_numpy_gives(self, gpu, dtype, channels, color):
        ir, vis = random_frame(1, (21, 34), dtype), random_frame(2, (21, 34, *channels), dtype)
        expected = gpu.fuse(ir, vis, color=color)
        fused = gpu.fuse(torch.from_numpy(ir), torch.from_numpy(vis), color=color)
        assert isinstance(fused, torch.Tensor) and fused.is_contiguous() and not fused.is_inference()
        assert fused.dtype == torch.from_numpy(expected).dtype and tuple(fused.shape) == expected.shape
        assert np.array_equal(fused.numpy(), expected)

    @pytest.mark.parametrize("thermal", [None, (12000, 40000.5)])
    def test_counts(self, gpu, thermal):
        ir, vis = random_frame(1, (21, 34, 1), "uint16"), random_frame(2, (21, 34, 3), "uint8")
        for frame in (ir, np.full_like(ir, 300), np.where(np.arange(34)[:, None] == 0, ir, 7)):
            frame = frame.astype(np.uint16)
            fused = gpu.fuse(torch.from_numpy(frame), torch.from_numpy(vis), thermal=thermal)
            assert np.array_equal(fused.numpy(), gpu.fuse(frame, vis, thermal=thermal))

    @pytest.mark.parametrize("by_kernel", [True, False])
    def test_the_range_of_counts_is_the_hosts(self, by_kernel, emulated_cuda, monkeypatch):
        monkeypatch.setattr(torch_ops, "_DEVICES", {"cpu"} if by_kernel else set())
        for size in ((16, 16), (21, 34), (40, 300)):
            ir = random_frame(3, size, "uint16")
            for frame in (ir, np.full_like(ir, 65535), ir[::-1, ::2].copy(), ir // 257 + 9000):
                for plane in (torch.from_numpy(frame), torch.from_numpy(frame).T, torch.from_numpy(frame)[:, 1::3]):
                    low_high = gpu_image._percentiles(plane)
                    assert low_high.dtype == torch.float64
                    assert tuple(low_high.tolist()) == thermal.percentile_range(plane.numpy())

    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
    def test_infrared_of_three_channels(self, gpu, dtype):
        ir, vis = random_frame(1, (21, 34), dtype), random_frame(2, (21, 34, 3), "uint8")
        grey = np.repeat(ir[..., None], 3, 2)
        assert np.array_equal(gpu.fuse(torch.from_numpy(grey), torch.from_numpy(vis)).numpy(), gpu.fuse(ir, vis))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            palette = random_frame(3, (21, 34, 3), dtype)
            for color in ("bgr", "rgb"):
                expected = gpu.fuse(palette, vis, color=color)
                fused = gpu.fuse(torch.from_numpy(palette), torch.from_numpy(vis), color=color).numpy()
                # OpenCV's luma of integers is rounded otherwise, a grey level at most, which the network passes on
                assert np.abs(fused.astype(int) - expected).mean() < 0.5

    def test_other_libraries_and_strides(self, gpu):
        ir, vis = random_frame(1, (21, 34), "uint8"), random_frame(2, (21, 34, 3), "uint8")
        expected = gpu.fuse(ir, vis)
        wide = torch.zeros(42, 68, 4, dtype=torch.uint8)
        wide[::2, ::2, 0], wide[::2, ::2, 1:] = torch.from_numpy(ir), torch.from_numpy(vis)
        planar = torch.from_numpy(vis).permute(2, 0, 1).contiguous().permute(1, 2, 0)
        for visible in (wide[::2, ::2, 1:], planar, Producer(planar)):
            for infrared in (wide[::2, ::2, 0], Producer(torch.from_numpy(ir))):
                assert np.array_equal(gpu.fuse(infrared, visible).numpy(), expected)

    def test_inputs_are_only_read_and_results_their_own(self, gpu):
        ir, vis = (torch.from_numpy(random_frame(i, (20, 24, 3)[: 2 + i], "uint8")) for i in (0, 1))
        kept = ir.clone(), vis.clone()
        first = gpu.fuse(ir, vis)
        before = first.clone()
        for _ in range(3):
            gpu.fuse(255 - ir, vis.flip(0))
        assert torch.equal(ir, kept[0]) and torch.equal(vis, kept[1]) and torch.equal(first, before)

    def test_into_an_array(self, gpu):
        ir, vis = (torch.from_numpy(random_frame(i, (20, 24, 3)[: 2 + i], "uint8")) for i in (0, 1))
        expected = gpu.fuse(ir, vis)
        out = torch.zeros(20, 30, 3, dtype=torch.uint8)[:, 3:27]
        assert gpu.fuse(ir, vis, out) is out and torch.equal(out, expected)
        mine = Producer(torch.zeros_like(vis))
        assert gpu.fuse(ir, vis, out=mine) is mine and torch.equal(mine._tensor, expected)
        assert gpu.fuse(ir, vis, out=vis) is vis and torch.equal(vis, expected)
        for wrong in (torch.zeros(20, 24, 3), torch.zeros(24, 20, 3, dtype=torch.uint8)):
            with pytest.raises(InputError, match=r"out is torch.*expected torch.uint8 \(20, 24, 3\)"):
                gpu.fuse(ir, vis, wrong)

    def test_under_inference_mode(self, gpu):
        ir, vis = (torch.from_numpy(random_frame(i, (20, 24, 3)[: 2 + i], "uint8")) for i in (0, 1))
        expected = gpu.fuse(ir, vis)
        for _ in range(3):
            with torch.inference_mode():
                assert torch.equal(gpu.fuse(ir.clone(), vis.clone()), expected)
            assert torch.equal(gpu.fuse(ir, vis), expected)

    def test_floats_are_clipped(self, gpu):
        vis = torch.from_numpy(random_frame(1, (20, 24, 3), "float32"))
        ir = torch.rand(20, 24)
        ir[0, :3] = torch.tensor([-1.0, 2.0, float("nan")])
        clipped = ir.nan_to_num(0).clamp(0, 1)
        assert torch.equal(gpu.fuse(ir, vis), gpu.fuse(clipped, vis))

    @pytest.mark.parametrize(
        "ir, vis, error, words",
        [
            ((20, 24), (20, 25, 3), InputError, "infrared of 24x20 and visible of 25x20 differ"),
            ((20, 24, 4), (20, 24, 3), InputError, r"ir has shape \(20, 24, 4\); expected HxW"),
            ((20, 24), (1, 20, 24, 3), InputError, "vis has shape"),
            ((15, 24), (15, 24), InputError, "at least 16 pixels"),
            ((0, 24), (0, 24), InputError, "at least 16 pixels"),
        ],
    )
    def test_shapes(self, gpu, ir, vis, error, words):
        with pytest.raises(error, match=words):
            gpu.fuse(torch.zeros(ir, dtype=torch.uint8), torch.zeros(vis, dtype=torch.uint8))

    @pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.bool, torch.bfloat16, torch.complex64])
    def test_dtypes(self, gpu, dtype):
        grey = torch.zeros(20, 24, dtype=torch.uint8)
        with pytest.raises(DtypeError, match=f"vis has dtype {dtype}; expected uint8"):
            gpu.fuse(grey, grey.to(dtype))
        with pytest.raises(InputError, match=r"thermal is given, but ir has dtype torch\.uint8"):
            gpu.fuse(grey, grey, thermal=(0, 9))

    def test_one_here_and_one_there(self, gpu):
        here, there = np.zeros((20, 24), np.uint8), torch.zeros(20, 24, dtype=torch.uint8)
        with pytest.raises(DtypeError, match="vis is a ndarray that is not on a GPU, and the other frames are"):
            gpu.fuse(there, here)
        with pytest.raises(DtypeError, match="ir is a ndarray that is not on a GPU"):
            gpu.fuse(here, there)
        with pytest.raises(DtypeError, match="out is a ndarray that is not on a GPU"):
            gpu.fuse(there, there, here)

    def test_another_device(self, gpu):
        there = torch.zeros(20, 24, dtype=torch.uint8)
        with pytest.raises(InputError, match="ir is on meta, and this Fuser computes on cpu"):
            gpu.fuse(there.to("meta"), there)

    def test_producers_that_fail(self, gpu):
        class Freed(Producer):
            def __dlpack__(self, **_):
                raise BufferError("it was freed")

        there = torch.zeros(20, 24, dtype=torch.uint8)
        with pytest.raises(DtypeError, match="ir is a Freed that torch cannot read: it was freed"):
            gpu.fuse(Freed(there), there)

    def test_a_fuser_on_the_cpu(self, models):
        there = torch.zeros(20, 24, dtype=torch.uint8)
        with (
            Fuser(models / "lite.onnx", engine="onnxruntime") as opened,
            pytest.raises(InputError, match="ir is a Tensor on a GPU, and this Fuser computes on the CPU"),
        ):
            opened.fuse(there, there)


def test_what_is_on_a_gpu_says_so_itself():
    class Says:
        def __init__(self, kind):
            self.kind = kind

        def __dlpack_device__(self):
            return self.kind, 0

    class Interface:
        __cuda_array_interface__ = {"shape": (1,)}  # noqa: RUF012

    class Broken:
        def __dlpack_device__(self):
            raise OSError("no")

    assert image.is_on_gpu(Says(2)) and image.is_on_gpu(Says(13)) and image.is_on_gpu(Interface())
    for other in (Says(1), Broken(), np.zeros(3), torch.zeros(3), None, "cuda", [[1]], Says):
        assert not image.is_on_gpu(other)


@pytest.mark.parametrize("precision, floor", [("fp16", 60), ("bf16", 45)])
def test_sixteen_bits_are_near(models, plain, precision, floor):
    """As the CPU computes them; the luma's difference, from the frames of 8 bits (58.9 dB at best)."""
    engine = CudaEngine(open_artefact(models / "lite.safetensors"), "cpu", precision, 1)
    frames = pair(1, 64, 80)
    half, single = engine.run(*frames).astype(float), plain.run(*frames).astype(float)
    error = np.abs(half - single)
    assert 10 * np.log10(255**2 / max(np.mean(error**2), 1e-9)) > floor
    assert next(engine._network.generator.parameters()).dtype == cuda.DTYPES[precision]
    layouts = [x.is_contiguous(memory_format=torch.channels_last) for x in engine._network.parameters() if x.ndim == 4]
    assert layouts and all(layouts)
