"""The frame kernels of csrc/frame_*.cu, on a GPU or under emulation: equal to the CPU's to the bit.

Both sides run the same arithmetic, every product and sum rounded by itself (csrc/frame_math.h), so nothing may differ;
what the CPU's numbers are worth is test_frames_kernels.py's matter.
"""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_float, c_int32, c_int64, c_void_p

import numpy as np
import pytest

from pyldfusion import kernels
from pyldfusion.frame_kernels import _frame, _gain
from tests.host_cuda import build

from .test_frames_kernels import KINDS, TARGETS, TILT, frame, size_of

SOURCES = (
    build.CSRC / "frame_input.cu",
    build.CSRC / "frame_output.cu",
    build.CSRC / "frame_stats.cu",
    build.HERE / "frames_entry.cu",
)
FORMATS = ("grey8", "grey16", "bgr8", "rgb8", "bgr16", "rgb16", "nv12", "yuyv")
PLANES = {np.dtype(np.uint8): 0, np.dtype(np.float16): 1, np.dtype(np.int16): 2, np.dtype(np.float32): 3}
BFLOAT16 = np.int16  # its bits, in a type that stands for nothing else here
INVALID_VALUE = 1
kinds = pytest.mark.parametrize("format, dtype", KINDS)


class Frame(ctypes.Structure):
    _fields_ = [
        ("format", c_int32),
        ("height", c_int64),
        ("width", c_int64),
        ("pixels", c_void_p),
        ("stride_y", c_int64),
        ("stride_x", c_int64),
        ("chroma", c_void_p),
        ("chroma_stride_y", c_int64),
    ]


class Plane(ctypes.Structure):
    _fields_ = [
        ("type", c_int32),
        ("height", c_int64),
        ("width", c_int64),
        ("values", c_void_p),
        ("stride_y", c_int64),
        ("stride_x", c_int64),
    ]


class Geometry(ctypes.Structure):
    _fields_ = [("matrix", c_double * 9), ("border", c_int32), ("border_value", c_float)]


class Gain(ctypes.Structure):
    _fields_ = [("low", c_float), ("high", c_float), ("range", c_void_p), ("table", c_void_p)]


class FrameToPlane(ctypes.Structure):
    _fields_ = [
        ("frame", Frame),
        ("geometry", Geometry),
        ("gain", Gain),
        ("plane", Plane),
        ("inside", c_void_p),
        ("inside_stride_y", c_int64),
    ]


class PlaneToFrame(ctypes.Structure):
    _fields_ = [
        ("fused", Plane),
        ("vis", Frame),
        ("range", c_int32),
        ("cover", c_void_p),
        ("cover_stride_y", c_int64),
        ("out", Frame),
    ]


class Frame16(ctypes.Structure):
    _fields_ = [
        ("pixels", c_void_p),
        ("height", c_int64),
        ("width", c_int64),
        ("stride_y", c_int64),
        ("stride_x", c_int64),
    ]


class Percentiles16(ctypes.Structure):
    _fields_ = [
        ("frame", Frame16),
        ("low", c_double),
        ("high", c_double),
        ("counts", c_void_p),
        ("range", c_void_p),
        ("exact", c_void_p),
    ]


class Histogram16(ctypes.Structure):
    _fields_ = [("frame", Frame16), ("counts", c_void_p)]


class Buffer(ctypes.Structure):
    _fields_ = [("host", c_void_p), ("bytes", c_int64), ("field", c_int64), ("first", c_int64)]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    made = build.load_for_gpu(*SOURCES, folder=tmp_path_factory.mktemp("frames"))
    if made is None:
        if build.missing():
            pytest.skip(build.missing())
        made = build.load(*SOURCES)
    for name, struct in (
        ("frame_to_plane", FrameToPlane),
        ("plane_to_frame", PlaneToFrame),
        ("percentiles16", Percentiles16),
        ("histogram16", Histogram16),
    ):
        size = getattr(made, f"t_{name}_size")
        size.restype = c_int64
        assert size() == ctypes.sizeof(struct), name
    return made


class Call:
    """Parameters, and the arrays behind their pointers."""

    def __init__(self, params):
        self.params, self.arrays = params, []

    def point(self, array, *fields):
        """Sets the pointer at this path of fields, where there is an array."""
        if array is None:
            return
        offset, struct = 0, type(self.params)
        for name in fields:
            offset += getattr(struct, name).offset
            struct = dict(struct._fields_)[name]
        owner = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        first = array.ctypes.data - owner.ctypes.data
        self.arrays.append((owner, Buffer(owner.ctypes.data, owner.nbytes, offset, first)))

    def frame(self, name, given, format):
        view = _frame(name, given, format, written=True)  # refuses what it would have to copy
        struct = getattr(self.params, name)
        struct.format = FORMATS.index(view.native)
        struct.height, struct.width = view.height, view.width
        struct.stride_y, struct.stride_x = view.pixels.strides[:2]
        self.point(view.pixels, name, "pixels")
        if view.chroma is not None:
            struct.chroma_stride_y = view.chroma.strides[0]
            self.point(view.chroma, name, "chroma")
        return view

    def plane(self, name, values):
        struct = getattr(self.params, name)
        struct.type = PLANES[values.dtype]
        struct.height, struct.width = values.shape
        struct.stride_y, struct.stride_x = values.strides
        self.point(values, name, "values")

    def run(self, kernel):
        buffers = (Buffer * len(self.arrays))(*(buffer for _, buffer in self.arrays))
        return kernel(ctypes.byref(self.params), buffers, len(buffers))


def frame_to_plane(
    library, given, format, out, *, matrix=None, border="replicate", gain=None, window=None, inside=None
):
    """The launch's code; the plane is in ``out``. ``window`` is (low, high) as float32, in device memory."""
    call = Call(FrameToPlane())
    view, p = call.frame("frame", given, format), call.params
    call.plane("plane", out)
    if matrix is None:
        sx, sy = view.width / out.shape[1], view.height / out.shape[0]
        matrix = np.array([[sx, 0, sx / 2 - 0.5], [0, sy, sy / 2 - 0.5], [0, 0, 1]])
    p.geometry.matrix[:] = np.asarray(matrix, np.float64).ravel().tolist()
    p.geometry.border = int(border != "replicate")
    p.geometry.border_value = 0 if border == "replicate" else border
    (p.gain.low, p.gain.high), table = _gain(gain, view, False)
    call.point(table, "gain", "table")
    call.point(window, "gain", "range")
    if inside is not None:
        p.inside_stride_y = inside.strides[0]
        call.point(inside, "inside")
    return call.run(library.t_frame_to_plane)


def plane_to_frame(library, fused, vis, format, out, to, *, full_range=False, cover=None):
    call = Call(PlaneToFrame())
    call.plane("fused", fused)
    call.frame("vis", vis, format)
    call.frame("out", out, to)
    call.params.range = int(full_range)
    if cover is not None:
        call.params.cover_stride_y = cover.strides[0]
        call.point(cover, "cover")
    return call.run(library.t_plane_to_frame)


def frame16(call, ir):
    call.params.frame.height, call.params.frame.width = ir.shape
    call.params.frame.stride_y, call.params.frame.stride_x = ir.strides
    call.point(ir, "frame", "pixels")


def percentiles16(library, ir, low=0.5, high=99.5, dtype=np.float32):
    call = Call(Percentiles16(low=low, high=high))
    counts, window = np.full(65536, 0xCDCDCDCD, np.uint32), np.full(2, np.nan, dtype)
    frame16(call, ir)
    call.point(counts, "counts")
    call.point(window, "range" if dtype == np.float32 else "exact")
    assert call.run(library.t_percentiles16) == 0
    return window, counts


def poisoned(shape, dtype):
    out = np.empty(shape, dtype)
    out.view(np.uint8)[...] = 0xCD
    return out


def spread(array):
    """The same pixels in layouts that take other paths: words, single samples, unlike alignments."""
    yield "packed", array
    for name, gap in (("odd pitch", 1), ("pitch of 4", 4)):
        yield name, np.pad(array, [(0, 0), (0, gap)] + [(0, 0)] * (array.ndim - 2))[:, : array.shape[1]]
    yield "upside down", array[::-1].copy()[::-1]
    pool = np.zeros(array.size + 1, array.dtype)
    shifted = pool[1:].reshape(array.shape)
    shifted[...] = array
    yield "one sample on", shifted


# frame_to_plane


@kinds
@pytest.mark.parametrize("plane_type", [np.float32, np.float16, np.uint8])
def test_planes_are_the_cpus(library, format, dtype, plane_type):
    for size in ((1, 1), (2, 7), (9, 132), (14, 259)):
        given = frame(format, dtype, size)
        expected = kernels.frame_to_plane(given, format, dtype=plane_type)
        out, inside = poisoned(expected.shape, plane_type), poisoned(expected.shape, np.uint8)
        assert frame_to_plane(library, given, format, out, inside=inside) == 0
        np.testing.assert_array_equal(out, expected)
        assert (inside == 255).all()


@kinds
def test_resized_and_warped_planes_are_the_cpus(library, format, dtype):
    given = frame(format, dtype, (20, 31))
    for options in (
        {},
        {"matrix": TILT},
        {"matrix": TILT, "border": 300.5},
        {"matrix": [[1, 0, 0], [0, 1, 0], [-0.1, 0, 1]]},
        {"matrix": [[1, 0, -3], [0, 1, 5], [0, 0, 1]], "border": 9, "gain": (40, 200)},
    ):
        for size in ((35, 22), (13, 9)):
            expected, expected_inside = kernels.frame_to_plane(given, format, size=size, mask=True, **options)
            out, inside = poisoned(expected.shape, np.float32), poisoned(expected.shape, np.uint8)
            assert frame_to_plane(library, given, format, out, inside=inside, **options) == 0
            np.testing.assert_array_equal(out, expected)
            np.testing.assert_array_equal(inside, expected_inside)


@kinds
def test_frames_of_any_layout(library, format, dtype):
    given = frame(format, dtype, (6, 34))
    for matrix in (np.eye(3), TILT):
        expected = kernels.frame_to_plane(given, format, matrix=matrix)
        for name, view in spread(given):
            out = poisoned(expected.shape, np.float32)
            assert frame_to_plane(library, view, format, out, matrix=matrix) == 0, name
            np.testing.assert_array_equal(out, expected, err_msg=name)


def test_a_fourth_channel_is_skipped(library):
    given = frame("bgr", np.uint8, (6, 34))
    bgra = np.dstack([given, np.full((6, 34), 99, np.uint8)])
    out = poisoned((6, 34), np.float32)
    assert frame_to_plane(library, bgra[..., :3], "bgr", out) == 0
    np.testing.assert_array_equal(out, kernels.frame_to_plane(given))


@pytest.mark.parametrize("plane_type", [np.float32, np.float16, np.uint8])
def test_planes_of_any_layout(library, plane_type):
    given = frame("bgr", np.uint8, (7, 38))
    for matrix in (np.eye(3), TILT):
        expected = kernels.frame_to_plane(given, matrix=matrix, dtype=plane_type)
        for name, out in spread(np.zeros((7, 38), plane_type)):
            assert frame_to_plane(library, given, "bgr", out, matrix=matrix) == 0, name
            np.testing.assert_array_equal(out, expected, err_msg=name)
        pool = poisoned((9, 41, 2), plane_type)  # interleaved, with other memory all round
        before = pool.copy()
        assert frame_to_plane(library, given, "bgr", pool[1:-1, 2:-1, 1], matrix=matrix) == 0
        np.testing.assert_array_equal(pool[1:-1, 2:-1, 1], expected)
        pool[1:-1, 2:-1, 1] = before[1:-1, 2:-1, 1]
        np.testing.assert_array_equal(pool.view(np.uint8), before.view(np.uint8))


def test_bfloat16_planes(library):
    given = frame("bgr", np.uint8, (7, 38))
    exact = kernels.frame_to_plane(given).view(np.uint32).astype(np.uint64)
    expected = ((exact + 0x7FFF + (exact >> 16 & 1)) >> 16).astype(np.uint16)
    out = poisoned((7, 38), BFLOAT16)
    assert frame_to_plane(library, given, "bgr", out) == 0
    np.testing.assert_array_equal(out.view(np.uint16), expected)
    back = (expected.astype(np.uint32) << 16).view(np.float32)
    made = poisoned(given.shape, np.uint8)
    assert plane_to_frame(library, out, given, "bgr", made, "bgr") == 0
    np.testing.assert_array_equal(made, kernels.plane_to_frame(back, given))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gains(library, dtype):
    given = frame("grey", dtype, (9, 37))
    table = np.random.default_rng(2).random(np.iinfo(dtype).max + 1, dtype=np.float32) * 2 - 0.5
    for gain in (None, (10, 200), (300, 300), (50, 40), (-7.25, 1e6), table):
        for matrix in (np.eye(3), TILT):
            out = poisoned(given.shape, np.float32)
            assert frame_to_plane(library, given, "grey", out, matrix=matrix, gain=gain) == 0
            np.testing.assert_array_equal(out, kernels.frame_to_plane(given, "grey", matrix=matrix, gain=gain))


def test_percentiles_drive_the_gain_without_the_host(library):
    ir = np.random.default_rng(1).normal(30000, 400, (24, 71)).astype(np.uint16)
    window, _ = percentiles16(library, ir)
    out = poisoned(ir.shape, np.float32)
    assert frame_to_plane(library, ir, "grey", out, window=window) == 0
    np.testing.assert_array_equal(out, kernels.frame_to_plane(ir, "grey", gain=window))
    for pair in ((5, 5), (9, 3), (np.nan, 7), (3, np.nan), (-np.inf, np.inf)):  # nothing checks what a GPU computed
        assert frame_to_plane(library, ir, "grey", out, window=np.array(pair, np.float32)) == 0
        assert ((out >= 0) & (out <= 1)).all()


def test_an_empty_plane_is_no_work(library):
    for shape in ((0, 5), (5, 0)):
        given, out = frame("bgr", np.uint8), np.zeros(shape, np.float32)
        assert frame_to_plane(library, given, "bgr", out, matrix=np.eye(3)) == 0


# plane_to_frame


@pytest.mark.parametrize("format, dtype, to", TARGETS)
def test_frames_are_the_cpus(library, format, dtype, to):
    for size in ((2, 2), (6, 134), (10, 38)):
        rng = np.random.default_rng(5)
        vis = frame(format, dtype, size)
        fused = rng.random(size, dtype=np.float32) * 1.2 - 0.1
        fused.flat[:3] = np.nan, np.inf, -np.inf
        for cover in (None, rng.integers(0, 256, size, dtype=np.uint8)):
            for full_range in (False, True):
                options = {"full_range": full_range, "cover": cover}
                expected = kernels.plane_to_frame(fused, vis, format, to=to, **options)
                out = poisoned(expected.shape, dtype)
                assert plane_to_frame(library, fused, vis, format, out, to, **options) == 0
                np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("to", ["grey", "bgr", "rgb"])
def test_frames_of_odd_sizes(library, to):
    for format, dtype in KINDS[:6]:
        for size in ((1, 1), (1, 3), (3, 5), (9, 131)):
            vis, fused = frame(format, dtype, size), np.random.default_rng(5).random(size, dtype=np.float32)
            expected = kernels.plane_to_frame(fused, vis, format, to=to)
            out = poisoned(expected.shape, dtype)
            assert plane_to_frame(library, fused, vis, format, out, to) == 0
            np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("fused_type", [np.float32, np.float16, np.uint8])
def test_fused_planes_of_any_layout(library, fused_type):
    vis = frame("bgr", np.uint8, (6, 38))
    values = (np.random.default_rng(5).random((6, 38)) * (255 if fused_type == np.uint8 else 1)).astype(fused_type)
    for to in ("bgr", "nv12"):
        expected = kernels.plane_to_frame(values, vis, to=to)
        for name, fused in (*spread(values), ("interleaved", np.dstack([values, values])[..., 1])):
            out = poisoned(expected.shape, np.uint8)
            assert plane_to_frame(library, fused, vis, "bgr", out, to) == 0, name
            np.testing.assert_array_equal(out, expected, err_msg=name)


@pytest.mark.parametrize(
    "format, dtype, to", [target for target in TARGETS if target[0] in ("bgr", "nv12", "yuyv") and target[2] != "rgb"]
)
def test_frames_in_and_out_of_any_layout(library, format, dtype, to):
    vis = frame(format, dtype, (6, 38))
    fused = np.random.default_rng(5).random((6, 38), dtype=np.float32)
    expected = kernels.plane_to_frame(fused, vis, format, to=to)
    for name, view in spread(vis):
        out = poisoned(expected.shape, dtype)
        assert plane_to_frame(library, fused, view, format, out, to) == 0, name
        np.testing.assert_array_equal(out, expected, err_msg=name)
    for name, out in spread(np.zeros_like(expected)):
        if to == "nv12" and name == "upside down":
            continue  # Y and UV of one array cannot be
        assert plane_to_frame(library, fused, vis, format, out, to) == 0, name
        np.testing.assert_array_equal(out, expected, err_msg=name)
    pool = np.full((len(expected) + 2, expected.shape[1] + 5, *expected.shape[2:]), 0xCD, dtype)
    assert plane_to_frame(library, fused, vis, format, pool[1:-1, 2:-3], to) == 0
    np.testing.assert_array_equal(pool[1:-1, 2:-3], expected)
    pool[1:-1, 2:-3] = 0xCD
    assert (pool == 0xCD).all()


@pytest.mark.parametrize("format", ["bgr", "rgb", "grey", "nv12"])
def test_frames_written_in_place(library, format):
    vis = frame(format, np.uint8, (6, 38))
    fused = np.random.default_rng(5).random(size_of(vis, format), dtype=np.float32)
    expected = kernels.plane_to_frame(fused, vis, format)
    assert plane_to_frame(library, fused, vis, format, vis, format) == 0
    np.testing.assert_array_equal(vis, expected)


# percentiles16


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 5), (7, 300), (20, 515)])
def test_percentiles_are_the_cpus(library, size):
    rng = np.random.default_rng(7)
    for ir in (
        rng.integers(0, 65536, size, dtype=np.uint16),
        rng.normal(8000, 3, size).astype(np.uint16),
        rng.choice(np.array([0, 65535], np.uint16), size),
        np.full(size, 65535, np.uint16),
        np.zeros(size, np.uint16),
    ):
        for low, high in ((0.5, 99.5), (0, 100), (33.3, 66.7)):
            expected = kernels.percentiles16(ir, low, high)
            for dtype in (np.float32, np.float64):
                window, counts = percentiles16(library, ir, low, high, dtype)
                np.testing.assert_array_equal(counts, kernels.histogram16(ir))
                assert window.tolist() == dtype(expected).tolist()


def test_percentiles_of_any_layout(library):
    ir = np.random.default_rng(7).normal(8000, 30, (9, 264)).astype(np.uint16)
    expected = np.float32(kernels.percentiles16(ir)).tolist()
    views = (*spread(ir), ("pixels apart", ir.repeat(2, 1)[:, ::2]), ("mirrored", ir[:, ::-1].copy()[:, ::-1]))
    for name, view in (*views, ("pitch of 16", np.pad(ir, [(0, 0), (0, 8)])[:, :264])):
        window, counts = percentiles16(library, view)
        assert window.tolist() == expected and counts.sum() == ir.size, name


def test_more_rows_than_the_grid_has_warps(library):
    ir = np.random.default_rng(7).integers(0, 65536, (8250, 1), dtype=np.uint16)
    call, counts = Call(Histogram16()), np.full(65536, 0xCDCDCDCD, np.uint32)
    frame16(call, ir)
    call.point(counts, "counts")
    assert call.run(library.t_histogram16) == 0
    np.testing.assert_array_equal(counts, kernels.histogram16(ir))


# what is refused, and orders of threads


def test_what_a_gpu_cannot_read_is_refused(library):
    raw = np.zeros(6 * 8 * 2 + 2, np.uint8)
    odd = raw[1:-1].view(np.uint16).reshape(6, 8)
    out = poisoned((6, 8), np.float32)
    assert frame_to_plane(library, odd, "grey", out) == INVALID_VALUE
    even = np.zeros((6, 8), np.uint16)
    assert frame_to_plane(library, even, "grey", out, matrix=np.diag([1, np.nan, 1])) == INVALID_VALUE
    assert frame_to_plane(library, even, "grey", out, matrix=np.zeros((3, 3))) == INVALID_VALUE
    assert frame_to_plane(library, even, "grey", out, gain=None, border=np.inf) == INVALID_VALUE
    assert plane_to_frame(library, out, odd, "grey", even, "grey") == INVALID_VALUE
    assert plane_to_frame(library, out[:5], even, "grey", even, "grey") == INVALID_VALUE
    assert plane_to_frame(library, out, even, "grey", np.zeros((6, 8), np.uint8), "grey") == INVALID_VALUE
    assert (out.view(np.uint8) == 0xCD).all()
    call = Call(Percentiles16(low=0, high=101))
    frame16(call, even)
    assert call.run(library.t_percentiles16) == INVALID_VALUE


def test_the_order_of_threads_changes_nothing(library):
    if not hasattr(library, "host_cuda_order"):
        pytest.skip("a GPU has an order of its own")
    ir = np.random.default_rng(7).normal(8000, 3, (9, 515)).astype(np.uint16)
    vis, fused = frame("bgr", np.uint8, (10, 134)), np.random.default_rng(5).random((10, 134), dtype=np.float32)
    results = []
    for _ in build.orders(library):
        plane, made = poisoned((10, 134), np.float32), poisoned((15, 134), np.uint8)
        assert frame_to_plane(library, vis, "bgr", plane, matrix=TILT) == 0
        assert plane_to_frame(library, fused, vis, "bgr", made, "nv12") == 0
        results.append((*percentiles16(library, ir), plane, made))
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))
