"""The entropy kernels of csrc/entropy.cu, on a GPU or under emulation, against NumPy and against the CPU's."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from pyldfusion import kernels
from tests import reference
from tests.host_cuda import build
from tests.test_entropy_affine import some_boxes, some_maps

SOURCES = (build.CSRC / "entropy.cu", build.HERE / "entropy_entry.cu")
TYPES = {"u8": 0, "f32": 1, "f64": 2, "f16": 3, "bf16": 4}
PARTS = 16384  # pixels from which a patch may be shared among blocks
INVALID_VALUE = 1


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    gpu = build.load_for_gpu(*SOURCES, folder=tmp_path_factory.mktemp("entropy"))
    if gpu is not None:
        return gpu
    if build.missing():
        pytest.skip(build.missing())
    return build.load(*SOURCES)


def as_bits(values, kind):
    """Values in the memory of an element type: bfloat16 is the upper half of a float32."""
    if kind == "bf16":
        return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return np.asarray(values, {"u8": np.uint8, "f16": np.float16, "f32": np.float32, "f64": np.float64}[kind])


def as_values(array, kind):
    """What the memory of an element type means, in a type that NumPy's histogram keeps exact."""
    if kind == "bf16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array if kind in ("u8", "f64") else array.astype(np.float32)


def pixels(shape, kind, seed=0):
    rng = np.random.default_rng(seed)
    return as_bits(rng.integers(0, 256, shape) if kind == "u8" else rng.random(shape), kind)


def memory_of(view):
    """The array that owns a view's memory, and the bytes from its start to the view's first element."""
    owner = view
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return owner, view.ctypes.data - owner.ctypes.data


def at(array):
    return None if array is None else ctypes.c_void_p(array.ctypes.data)


def int64(*values):
    return np.array(values, np.int64)


def said(library, code):
    library.t_error.restype = ctypes.c_char_p
    return library.t_error(code).decode()


def entropy(library, view, kind, boxes=None):
    """The kernel's bits of patches [N,H,W], or of boxes of an image [H,W], in any layout."""
    owner, first = memory_of(view)
    count = len(view) if boxes is None else len(boxes)
    shape, strides = int64(*view.shape[-2:]), int64(*(0,) * (3 - view.ndim), *view.strides)
    bits = np.full(count, -1.0)
    where = (at(owner), ctypes.c_int64(owner.nbytes), ctypes.c_int64(first), TYPES[kind])
    code = library.t_entropy(*where, at(shape), at(strides), at(boxes), ctypes.c_int64(count), at(bits))
    assert code == 0, said(library, code)
    return bits


def entropy_affine(library, planes, kind, boxes, maps, size):
    owner, first = memory_of(planes)
    maps = np.ascontiguousarray(maps, np.float32)
    bits = np.full((len(boxes), len(planes)), -1.0)
    where = (at(owner), ctypes.c_int64(owner.nbytes), ctypes.c_int64(first), TYPES[kind], ctypes.c_int64(len(planes)))
    patches = (at(boxes), at(maps), ctypes.c_int64(len(boxes)), size)
    code = library.t_entropy_affine(*where, at(int64(*planes.strides)), *patches, at(bits))
    assert code == 0, said(library, code)
    return bits


def views(array):
    """Layouts that a caller may have: gaps, reversed, transposed, broadcast, rows of every alignment."""
    yield "contiguous", array
    yield "gaps", np.repeat(array, 3, axis=-1)[..., ::3]
    yield "rows apart", np.repeat(array, 2, axis=-2)[..., ::2, :]
    yield "reversed", array[..., ::-1, ::-1]
    yield "first axis reversed", array[::-1]
    yield "columns", np.ascontiguousarray(np.swapaxes(array, -1, -2)).swapaxes(-1, -2)
    yield "fortran", np.asfortranarray(array)
    yield "broadcast", np.broadcast_to(array[:1], array.shape)
    for left in range(4):
        wide = np.zeros((*array.shape[:-1], array.shape[-1] + 5), array.dtype)
        wide[..., left : left + array.shape[-1]] = array
        yield f"{left} from the left", wide[..., left : left + array.shape[-1]]
        shifted = np.zeros(array.size + left, array.dtype)
        shifted[left:] = array.ravel()
        yield f"dense, {left} from an aligned address", shifted[left:].reshape(array.shape)


def check(library, view, kind, boxes=None, message=""):
    bits, values = entropy(library, view, kind, boxes), as_values(view, kind)
    np.testing.assert_allclose(bits, reference.entropy(values, boxes), rtol=0, atol=1e-12, err_msg=message)
    np.testing.assert_allclose(bits, kernels.entropy(values, boxes), rtol=0, atol=1e-12, err_msg=message)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (3, 5), (16, 16), (31, 33), (2, 1300), (150, 113)])
def test_every_size(library, kind, size):
    check(library, pixels((3, *size), kind), kind)


@pytest.mark.parametrize("kind", TYPES)
def test_any_layout(library, kind):
    for name, patches in views(pixels((2, 19, 37), kind)):
        check(library, patches, kind, message=name)


@pytest.mark.parametrize("kind", TYPES)
def test_a_patch_shared_among_blocks(library, kind):
    large = pixels((1, 211, 309), kind)
    assert large[0].size > 3 * PARTS
    check(library, large, kind)
    check(library, large[:, 3:, 5:], kind)
    check(library, large[:, ::-1, ::2], kind)


def test_many_patches(library):
    check(library, pixels((70, 2, 3), "u8"), "u8")


def test_boxes(library):
    boxes = np.array(
        [[0, 0, 173, 197], [0, 0, 1, 1], [172, 196, 1, 1], [10, 20, 7, 9], [3, 0, 170, 1], [1, 5, 1, 142]], np.int32
    )  # the first is shared among blocks, which leave the others alone
    for kind in TYPES:
        image = pixels((197, 173), kind)
        check(library, image, kind, boxes)
        check(library, image[::-1, ::-1], kind, boxes)
        check(library, np.asfortranarray(image), kind, boxes)


@pytest.mark.parametrize("kind", TYPES)
def test_constants_have_exactly_no_entropy(library, kind):
    for value in (0, 1, 255) if kind == "u8" else (0.0, 0.3, 1.0):
        for shape in ((2, 33, 40), (1, 150, 151)):
            bits = entropy(library, np.full(shape, as_bits([value], kind)), kind)
            assert not bits.any() and not np.signbit(bits).any()


@pytest.mark.parametrize("kind", ["f16", "bf16", "f32", "f64"])
def test_what_is_outside_is_not_counted(library, kind):
    outside = [np.nan, np.inf, -np.inf, -1e-7, 1.01, 1e30, -5.0]
    with np.errstate(over="ignore"):
        patch = pixels((1, 40, 50), kind)
        patch[0, :7, ::3] = as_bits(np.array(outside), kind)[:, None]
        patch[0, 8, :3] = as_bits([0.0, -0.0, 1.0], kind)
        nothing = np.full((1, 9, 9), as_bits([np.nan], kind))
    values = as_values(patch, kind)
    inside = values[(values >= 0) & (values <= 1)][None, None]
    np.testing.assert_allclose(entropy(library, patch, kind), reference.entropy(inside), rtol=0, atol=1e-12)
    assert entropy(library, nothing, kind).tolist() == [0.0]


@pytest.mark.parametrize("kind", ["f16", "bf16", "f32", "f64"])
def test_bins_follow_the_edges(library, kind):
    every = np.arange(0x3F81, dtype=np.uint16) if kind == "bf16" else np.arange(0x3C01, dtype=np.uint16)
    if kind in ("f32", "f64"):
        dtype = np.dtype(f"f{kind[1:]}"[0] + str(int(kind[1:]) // 8))
        edges = np.arange(257).astype(dtype) / dtype.type(256)
        every = np.concatenate([edges, np.nextafter(edges[1:], -1), np.nextafter(edges[:-1], 2)])
        assert every.dtype == dtype
    elif kind == "f16":
        every = every.view(np.float16)  # all numbers from 0 to 1
    check(library, every[None, None], kind)


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("size", [1, 9, 47, 150])
def test_affine_boxes_count_the_same_pixels_as_the_cpu(library, kind, size):
    # 150: shared among blocks
    for name, planes in views(pixels((2, 45, 61), kind)) if size == 9 else [("", pixels((2, 45, 61), kind))]:
        boxes = some_boxes(4, 45, 61)
        maps = some_maps(boxes)
        expected = kernels.entropy_affine(as_values(planes, kind), boxes, maps, size)
        bits = entropy_affine(library, planes, kind, boxes, maps, size)
        np.testing.assert_allclose(bits, expected, rtol=0, atol=1e-12, err_msg=name)


def test_nothing(library):
    assert entropy(library, np.zeros((0, 8, 8), np.uint8), "u8").shape == (0,)
    assert entropy(library, np.zeros((8, 8), np.float32), "f32", np.zeros((0, 4), np.int32)).shape == (0,)
    none = (np.zeros((0, 3), np.int32), np.zeros((0, 2, 3)))
    assert entropy_affine(library, pixels((2, 8, 8), "f32"), "f32", *none, 8).shape == (0, 2)


def test_the_order_of_threads_changes_nothing(library):
    if not hasattr(library, "host_cuda_order"):
        pytest.skip("a GPU orders its threads itself")
    patches = pixels((1, 150, 131), "f32")
    results = [entropy(library, patches, "f32") for _ in build.orders(library)]
    assert results[0] == results[1] == results[2]


def test_types_that_a_kernel_does_not_have(library):
    one = np.zeros(8, np.uint8)
    sizes = (ctypes.c_int64(8), ctypes.c_int64(0))
    assert (
        library.t_entropy(at(one), *sizes, 9, at(int64(1, 1)), at(int64(1, 1, 1)), None, ctypes.c_int64(1), at(one))
        == INVALID_VALUE
    )
