"""Arrays of other libraries in and out of the CUDA module, under emulation: host memory stands for the GPU's.

NumPy and torch's CPU tensors are device arrays here; producers written below say what others cannot be made to say.
"""

from __future__ import annotations

import ctypes
import gc
import re
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pyldfusion import cuda, errors
from pyldfusion.errors import CudaError, DeviceError, DtypeError, InputError

from . import reference

CPU, CUDA, PINNED, METAL = 1, 2, 3, 8
LEGACY, STREAM, OTHER = 1, 0x5000, 0x7000

pytestmark = pytest.mark.usefixtures("emulated_cuda")


@pytest.fixture
def streams(emulated_cuda):
    """What streams were told since the last call."""
    tell = emulated_cuda.host.host_cuda_streams
    tell.restype = ctypes.c_char_p

    def told() -> list[str]:
        gc.collect()
        return tell().decode().splitlines()

    told()
    return told


def noise(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(sum(shape)).random(shape).astype(dtype)


class Producer:
    """An array that speaks DLPack or ``__cuda_array_interface__``, and whatever it is told to say."""

    def __init__(self, array: np.ndarray, *, device: int = CUDA, number: int = 0, version: int = 1) -> None:
        self.array, self.device, self.number, self.version = array, device, number, version
        self.asked: list[dict[str, object]] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, self.number

    def __dlpack__(self, *, stream=None, **options):
        self.asked.append({"stream": stream, **options})
        if self.version == 0 and "max_version" in options:
            raise TypeError("unexpected keyword argument 'max_version'")
        return self.array.__dlpack__(**({"max_version": (1, 0)} if self.version else {}))


def interface(array: np.ndarray, **changes):
    """An object with ``__cuda_array_interface__``; a change to None leaves the key out."""
    said = {
        "version": 3,
        "shape": array.shape,
        "typestr": array.dtype.str,
        "data": (array.ctypes.data, not array.flags.writeable),
        "strides": array.strides,
        "stream": None,
        **changes,
    }

    said = {key: value for key, value in said.items() if value is not None}
    return type("Interface", (), {"__cuda_array_interface__": said, "keep": array})()


def bits(patches) -> np.ndarray:
    return cuda.to_host(cuda.entropy(patches))


# in


@pytest.mark.parametrize(
    "wrap", [lambda a: a, Producer, interface, lambda a: cuda.asarray(a)], ids=["numpy", "dlpack", "cai", "own"]
)
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_arrays_are_taken_as_they_are(wrap, dtype):
    pixels = noise(5, 40, 60) * (255 if dtype == "uint8" else 1)
    pixels = pixels.astype(dtype)
    for name, view in {
        "dense": pixels,
        "cut": pixels[1:, 3:, 5:],
        "steps": pixels[::2, ::3, ::2],
        "backwards": pixels[:, ::-1, ::-1],
        "transposed": pixels.transpose(0, 2, 1),
        "one patch": pixels[:1],
        "broadcast": np.broadcast_to(pixels[0], (3, 40, 60)),
    }.items():
        expected = reference.entropy(np.ascontiguousarray(view))
        np.testing.assert_allclose(bits(wrap(view)), expected, rtol=0, atol=1e-12, err_msg=name)


def test_torch_tensors_are_taken_as_they_are():
    torch = pytest.importorskip("torch")
    patches = torch.rand(3, 17, 19)
    expected = reference.entropy(patches.numpy())
    np.testing.assert_allclose(bits(patches), expected, atol=1e-12)
    np.testing.assert_allclose(bits(patches.transpose(1, 2)), expected, atol=1e-12)
    half = patches.to(torch.bfloat16)
    np.testing.assert_allclose(bits(half), reference.entropy(half.float().numpy()), atol=1e-12)
    with pytest.raises(InputError, match=r"pixels cannot be shared: .*require gradient"):
        cuda.entropy(patches.requires_grad_())


def test_nothing_is_copied_on_the_way_in():
    array = noise(4, 5)
    for wrapped in (array, Producer(array), interface(array)):
        taken = cuda.asarray(wrapped)
        assert taken.pointer == array.ctypes.data
        assert (taken.shape, taken.strides, taken.dtype, taken.device) == ((4, 5), (5, 1), "float32", 0)
    array[2, 3] = 7
    assert cuda.to_host(taken)[2, 3] == 7


def test_an_old_producer_is_asked_again_without_a_version():
    array = noise(2, 3, 4)
    old = Producer(array, version=0)
    np.testing.assert_array_equal(cuda.to_host(cuda.asarray(old)), array)
    assert [sorted(options) for options in old.asked] == [["max_version", "stream"], ["stream"]]


def test_an_input_lives_until_the_call_is_over_and_no_longer():
    array = noise(2, 6, 6)
    gone = weakref.ref(array)
    taken = cuda.asarray(array)
    del array
    gc.collect()
    assert gone() is not None
    del taken
    gc.collect()
    assert gone() is None


# out


def test_results_are_shared_without_a_copy():
    torch = pytest.importorskip("torch")
    array = noise(3, 4, 5)
    result = cuda.to_device(array)
    by_numpy, by_torch = np.from_dlpack(result), torch.from_dlpack(result)
    assert by_numpy.ctypes.data == by_torch.data_ptr() == result.pointer
    np.testing.assert_array_equal(by_numpy, array)
    del result
    gc.collect()
    by_torch[1, 2, 3] = -1  # both still own the memory
    assert by_numpy[1, 2, 3] == -1
    said = cuda.to_device(array).__cuda_array_interface__
    assert (said["version"], said["shape"], said["typestr"], said["strides"]) == (3, (3, 4, 5), "<f4", (80, 20, 4))
    assert said["data"][1] is False and said["stream"] == LEGACY


def test_capsules_of_both_versions_and_unused_ones():
    result = cuda.to_device(noise(8))
    assert '"dltensor"' in repr(result.__dlpack__())
    assert '"dltensor"' in repr(result.__dlpack__(max_version=(0, 8)))
    assert '"dltensor_versioned"' in repr(result.__dlpack__(max_version=(1, 0)))
    assert '"dltensor_versioned"' in repr(result.__dlpack__(max_version=(2, 1)))
    assert result.__dlpack_device__() == (CPU, 0)
    for options in ({"copy": True}, {"dl_device": (METAL, 0)}, {"dl_device": (CPU, 1)}):
        with pytest.raises(BufferError):
            result.__dlpack__(**options)
    for stream in (0, -2):
        with pytest.raises(InputError, match="stream is"):
            result.__dlpack__(stream=stream)


def test_the_last_holder_frees_the_memory_from_any_thread(streams):
    torch = pytest.importorskip("torch")
    results = [torch.from_dlpack(cuda.to_device(noise(100 + i), stream=STREAM)) for i in range(20)]
    streams()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: results.__setitem__(i, None), range(20)))
    assert streams().count(f"free on {STREAM}") == 20


def test_out_is_written_and_returned():
    patches = noise(4, 9, 9)
    out = np.full(4, np.nan)
    assert cuda.entropy(patches, out=out) is out
    np.testing.assert_allclose(out, reference.entropy(patches), atol=1e-12)
    again = cuda.to_device(np.full(4, np.nan))
    assert cuda.entropy(patches, out=again) is again
    np.testing.assert_array_equal(cuda.to_host(again), out)


@pytest.mark.parametrize(
    ("out", "error", "says"),
    [
        (lambda: np.zeros(4, np.float32), DtypeError, "out is float32; expected float64"),
        (lambda: np.zeros(5), InputError, r"out has shape \[5\]; expected \[4\]"),
        (lambda: np.zeros((4, 1)), InputError, r"out has shape \[4,1\]"),
        (lambda: np.zeros(8)[::2], InputError, r"strides \[2\]"),
        (lambda: np.zeros(4)[::-1], InputError, r"strides \[-1\]"),
        (lambda: np.broadcast_to(np.zeros(1), (4,)), InputError, "read-only|strides"),
        (lambda: interface(np.zeros(4), data=(np.zeros(4).ctypes.data, True)), InputError, "out is read-only"),
        (lambda: [0.0] * 4, InputError, "out is a list"),
    ],
)
def test_an_out_that_does_not_fit(out, error, says):
    with pytest.raises(error, match=says):
        cuda.entropy(noise(4, 6, 6), out=out())


def test_read_only_arrays_are_inputs_and_stay_read_only():
    array = noise(3, 5, 5)
    array.flags.writeable = False
    for wrapped in (array, interface(array)):
        taken = cuda.asarray(wrapped)
        assert taken.read_only and "read-only" in repr(taken)
        np.testing.assert_allclose(bits(taken), reference.entropy(array), atol=1e-12)
        with pytest.raises(BufferError, match="read-only"):
            taken.__dlpack__()
        assert not np.from_dlpack(taken).flags.writeable


def test_out_must_not_overlap():
    memory = np.zeros(64)
    with pytest.raises(InputError, match="out overlaps the pixels"):
        cuda.entropy(memory.reshape(4, 4, 4), out=memory[3:7])


# what is refused


@pytest.mark.parametrize(
    ("array", "error", "says"),
    [
        (lambda: [1, 2], InputError, "array is a list; expected an array in GPU memory"),
        (lambda: Producer(noise(3), device=PINNED), DeviceError, "pinned"),
        (lambda: Producer(noise(3), device=METAL), DeviceError, "type 8"),
        (lambda: Producer(noise(3).astype(complex)), DtypeError, "128 bits"),
        (lambda: interface(noise(3), typestr=">f4"), DtypeError, ">f4"),
        (lambda: interface(noise(3), typestr="<c8"), DtypeError, "<c8"),
        (lambda: interface(noise(3), strides=(3,)), InputError, "stride of 3 bytes"),
        (lambda: interface(noise(3, 3), strides=(4,)), InputError, "1 strides"),
        (lambda: interface(noise(3), data=None), InputError, 'no "data"'),
        (lambda: interface(noise(3), mask=1), InputError, "mask"),
        (lambda: interface(noise(3), data=(0, False)), InputError, "null pointer"),
        (lambda: interface(noise(3), data=(noise(3).ctypes.data + 1, False)), InputError, "not aligned for float32"),
    ],
)
def test_arrays_that_are_refused(array, error, says):
    with pytest.raises(error, match=says):
        cuda.asarray(array())


def test_a_freed_pointer_is_refused():
    result = cuda.to_device(noise(64))
    stale = interface(noise(64), data=(result.pointer, False))
    assert cuda.asarray(stale).pointer == result.pointer
    pointer = result.pointer
    del result
    gc.collect()
    for array in (stale, interface(noise(64), data=(pointer + 8, False))):
        with pytest.raises(InputError, match="no memory of a GPU: freed"):
            cuda.asarray(array)
    with pytest.raises(InputError, match="freed"):
        cuda.DeviceArray(pointer, "float32", (64,))


def test_arrays_on_different_gpus_are_refused():
    x, weight = noise(1, 2, 4, 4), noise(1, 2)
    for name, arguments in (
        ("weight", (x, Producer(weight, number=1), weight)),
        ("bias", (x, weight, Producer(weight, number=1))),
    ):
        with pytest.raises(DeviceError, match=f"{name} is on GPU 1, others on GPU 0"):
            cuda.adain(*arguments)
    with pytest.raises(CudaError, match="cudaSetDevice failed: invalid device"):
        cuda.entropy(Producer(noise(1, 3, 3), number=1))


def test_a_producers_own_errors_come_through():
    class Broken(Producer):
        def __dlpack__(self, **options):
            raise ZeroDivisionError("mine")

    class Refuses(Producer):
        def __dlpack__(self, **options):
            raise BufferError("not this one")

    class Lies(Producer):
        def __dlpack__(self, **options):
            return 5

    with pytest.raises(ZeroDivisionError, match="mine"):
        cuda.asarray(Broken(noise(3)))
    with pytest.raises(InputError, match="array cannot be shared: not this one"):
        cuda.asarray(Refuses(noise(3)))
    with pytest.raises(InputError, match="no DLPack capsule"):
        cuda.asarray(Lies(noise(3)))
    used = noise(3).__dlpack__()
    np.from_dlpack(type("Once", (), {"__dlpack__": lambda s, **o: used, "__dlpack_device__": lambda s: (CPU, 0)})())
    with pytest.raises(InputError, match="no DLPack capsule"):
        cuda.asarray(type("Again", (), {"__dlpack__": lambda s, **o: used, "__dlpack_device__": lambda s: (CPU, 0)})())


def test_arrays_of_nothing():
    assert bits(np.zeros((0, 4, 4), np.float32)).shape == (0,)
    empty = interface(np.zeros((0, 4, 4), np.float32), data=(0, False))
    assert bits(empty).shape == (0,)
    assert cuda.to_host(cuda.to_device(np.zeros((0, 3)))).shape == (0, 3)
    with pytest.raises(InputError, match="patches are empty"):
        cuda.entropy(np.zeros((2, 0, 4), np.float32))


# streams


def test_the_producer_is_told_our_stream(streams):
    for stream, told in (
        (None, LEGACY),
        (0, LEGACY),
        (1, LEGACY),
        (2, 2),
        (STREAM, STREAM),
        (np.int64(STREAM), STREAM),
    ):
        producer = Producer(noise(2, 4, 4))
        result = cuda.entropy(producer, stream=stream)
        assert [options["stream"] for options in producer.asked] == [told]
        assert result.stream == told


def test_streams_of_libraries_are_understood():
    class Torch:
        cuda_stream = STREAM

    class CuPy:
        ptr = STREAM

    class Core:
        def __cuda_stream__(self):
            return 0, STREAM

    for stream in (Torch(), CuPy(), Core()):
        producer = Producer(noise(2, 4, 4))
        result = cuda.entropy(producer, stream=stream)
        assert producer.asked[0]["stream"] == result.stream == STREAM
    for stream in ("cuda", 1.5, True, object()):
        with pytest.raises(InputError, match="expected a stream of torch or CuPy"):
            cuda.entropy(noise(1, 2, 2), stream=stream)
    with pytest.raises(InputError, match="stream is -5"):
        cuda.entropy(noise(1, 2, 2), stream=-5)


def test_a_stream_object_lives_as_long_as_its_results():
    class Stream:
        ptr = STREAM

    stream = Stream()
    gone = weakref.ref(stream)
    view = np.from_dlpack(cuda.to_device(noise(9), stream=stream))
    del stream
    gc.collect()
    assert gone() is not None
    del view
    gc.collect()
    assert gone() is None


def test_work_of_an_interface_comes_first(streams):
    array = noise(2, 5, 5)
    cuda.entropy(interface(array, stream=STREAM))  # by itself on the producer's stream
    assert streams() == [f"free on {STREAM}"]
    cuda.entropy(interface(array, stream=STREAM), stream=OTHER)
    assert streams() == [f"{OTHER} waits for {STREAM}", f"free on {OTHER}"]
    cuda.entropy(interface(array), stream=OTHER)
    assert streams() == [f"free on {OTHER}"]


def test_own_arrays_on_another_stream_are_waited_for_both_ways(streams):
    patches = cuda.to_device(noise(2, 5, 5), stream=STREAM)
    out = cuda.to_device(np.zeros(2), stream=STREAM)
    streams()
    cuda.entropy(patches, out=out)
    assert streams() == []
    cuda.entropy(patches, out=out, stream=OTHER)
    there, back = f"{OTHER} waits for {STREAM}", f"{STREAM} waits for {OTHER}"
    assert streams() == [there, there, back, back]


@pytest.mark.parametrize(
    ("consumer", "before", "at_the_end"),
    [
        (None, [f"{LEGACY} waits for {STREAM}"], [f"{STREAM} waits for {LEGACY}"]),
        (LEGACY, [f"{LEGACY} waits for {STREAM}"], [f"{STREAM} waits for {LEGACY}"]),
        (STREAM, [], []),
        (OTHER, [f"{OTHER} waits for {STREAM}"], ["sync"]),
        (-1, [], ["sync"]),
    ],
)
def test_a_consumer_waits_for_the_result_and_the_memory_for_the_consumer(streams, consumer, before, at_the_end):
    result = cuda.to_device(noise(50), stream=STREAM)
    streams()
    capsule = result.__dlpack__(stream=consumer)
    assert streams() == before
    del result, capsule
    assert streams() == [*at_the_end, f"free on {STREAM}"]


def test_pinned_memory_is_read_before_the_call_returns(streams):
    pinned = sys.modules["pyldfusion._cuda"].pinned(64, 0)
    pinned[:] = 7
    streams()
    from_pinned = cuda.to_device(pinned, stream=STREAM)
    assert streams() == [f"wait for {STREAM}"]
    from_pageable = cuda.to_device(np.full(64, 7, np.uint8), stream=STREAM)  # which CUDA copies away itself
    assert streams() == []
    np.testing.assert_array_equal(cuda.to_host(from_pinned), cuda.to_host(from_pageable))


def test_an_interface_may_have_been_used_anywhere(streams):
    result = cuda.to_device(noise(50), stream=STREAM)
    assert result.__cuda_array_interface__["stream"] == STREAM
    del result
    assert streams() == ["sync", f"free on {STREAM}"]


def test_the_threads_own_stream_is_freed_after_the_device_is_done(streams):
    result = cuda.to_device(noise(50), stream=2)
    streams()
    del result
    assert streams() == ["sync", "free on 2"]


def test_many_threads_at_once():
    patches = noise(6, 12, 12)
    expected = bits(patches)

    def once(i: int) -> bool:
        return np.array_equal(bits(patches[: 1 + i % 6]), expected[: 1 + i % 6])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(once, range(64)))
    assert threading.active_count() < 20


# memory of one's own


def test_raw_pointers():
    array = noise(4, 6)
    wrapped = cuda.DeviceArray(array.ctypes.data, "float32", (6, 4), (1, 6), owner=array)
    assert re.fullmatch(r"DeviceArray\(float32 \[6,4\] on GPU 0\)", repr(wrapped))
    assert (wrapped.ndim, wrapped.size, wrapped.nbytes, wrapped.stream) == (2, 24, 96, None)
    np.testing.assert_array_equal(np.from_dlpack(wrapped), array.T)
    with pytest.raises(InputError, match="null pointer"):
        cuda.DeviceArray(0, "float32", (3,))
    with pytest.raises(InputError, match="negative"):
        cuda.DeviceArray(array.ctypes.data, "float32", (-3,))
    with pytest.raises(InputError, match="one for each axis"):
        cuda.DeviceArray(array.ctypes.data, "float32", (3,), (1, 1))
    with pytest.raises(DtypeError, match="element type int7"):
        cuda.DeviceArray(array.ctypes.data, "int7", (3,))


def test_bfloat16_has_no_interface_but_dlpack():
    torch = pytest.importorskip("torch")
    tensor = torch.rand(4, 5).to(torch.bfloat16)
    taken = cuda.asarray(tensor)
    assert not hasattr(taken, "__cuda_array_interface__")
    assert torch.equal(torch.from_dlpack(taken), tensor)
    with pytest.raises(DtypeError, match="NumPy has not"):
        cuda.to_host(taken)


def test_errors_of_cuda_say_what_failed():
    assert issubclass(errors.CudaError, errors.EngineError)
    with pytest.raises(CudaError, match="invalid device"):
        cuda.to_device(noise(3), device=7)


def test_a_build_without_cuda_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyldfusion._cuda", None)
    monkeypatch.delattr("pyldfusion._cuda")
    cuda.why_not.cache_clear()
    assert not cuda.available()
    with pytest.raises(DeviceError, match="no CUDA kernels: install it again"):
        cuda.entropy(noise(1, 2, 2))


def test_boxes_from_the_host_are_checked():
    image = noise(30, 40)
    boxes = np.array([(0, 0, 40, 30), (3, 5, 7, 9), (39, 29, 1, 1)], np.int32)
    np.testing.assert_allclose(
        cuda.to_host(cuda.entropy(image, boxes)),
        [reference.entropy(image[None, y : y + h, x : x + w])[0] for x, y, w, h in boxes],
        atol=1e-12,
    )
    trusted = cuda.entropy(image, cuda.to_device(boxes), trust_boxes=True)
    np.testing.assert_array_equal(cuda.to_host(trusted), cuda.to_host(cuda.entropy(image, boxes)))
    with pytest.raises(InputError, match=r"boxes\[1\] is x=3"):
        cuda.entropy(image, np.array([(0, 0, 1, 1), (3, 5, 38, 1)], np.int32))
    with pytest.raises(InputError, match="trust_boxes"):
        cuda.entropy(image, interface(boxes))
