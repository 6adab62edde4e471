"""frame_to_plane, plane_to_frame and percentiles16 on the CPU: against NumPy in float64, OpenCV and the graph.

Tolerances. A plane without resampling is a short sum in single precision: 3e-7. With it, coordinates are single
precision too, off by up to 2e-4 pixels at these sizes, and noise changes by up to 1 from pixel to pixel: 5e-4. Levels
are the nearest of the exact value, but for ties within the sums' rounding: 1e-3 of 255, 0.05 of 65535.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyldfusion import kernels
from pyldfusion.errors import DtypeError, InputError
from tests import reference

STRAIGHT, RESAMPLED = 3e-7, 5e-4
TILT = np.array([[1.1, 0.05, -3.0], [-0.04, 0.93, 2.5], [2e-3, -1e-3, 1.0]])
KINDS = [
    ("grey", np.uint8),
    ("grey", np.uint16),
    ("bgr", np.uint8),
    ("rgb", np.uint8),
    ("bgr", np.uint16),
    ("rgb", np.uint16),
    ("nv12", np.uint8),
    ("yuyv", np.uint8),
]
kinds = pytest.mark.parametrize("format, dtype", KINDS)


def frame(format, dtype, size=(34, 47), seed=0):
    """Noise; nv12 and yuyv with the sides that they need."""
    height, width = size
    if format in ("nv12", "yuyv"):
        height, width = height + height % 2, width + width % 2
    shape = {
        "grey": (height, width),
        "nv12": (height // 2 * 3, width),
        "yuyv": (height, width, 2),
    }.get(format, (height, width, 3))
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def size_of(frame, format):
    """(height, width)."""
    return (len(frame) // 3 * 2, frame.shape[1]) if format == "nv12" else frame.shape[:2]


def assert_levels(levels, exact):
    assert levels.shape == exact.shape
    near = 1e-3 if levels.dtype == np.uint8 else 0.05
    assert np.abs(levels - exact).max() <= 0.5 + near


# frame_to_plane


@kinds
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (6, 1), (33, 35), (34, 48), (240, 322)])
@pytest.mark.parametrize("full_range", [False, True])
def test_a_plane_is_the_luma(format, dtype, size, full_range):
    given = frame(format, dtype, size)
    plane, inside = kernels.frame_to_plane(given, format, full_range=full_range, mask=True)
    assert plane.dtype == np.float32 and plane.shape == size_of(given, format)
    np.testing.assert_allclose(
        plane, reference.frame_to_plane(given, format, full_range=full_range)[0], rtol=0, atol=STRAIGHT
    )
    assert (inside == 255).all()


@kinds
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (47, 34), (94, 68), (100, 9), (3, 80)])
def test_resizing(format, dtype, size):
    given = frame(format, dtype)
    plane, inside = kernels.frame_to_plane(given, format, size=size, mask=True)
    np.testing.assert_allclose(plane, reference.frame_to_plane(given, format, size=size)[0], rtol=0, atol=RESAMPLED)
    assert (inside == 255).all()


@kinds
@pytest.mark.parametrize("border", ["replicate", 0, 77.5])
def test_warping(format, dtype, border):
    given = frame(format, dtype)
    options = {"size": (61, 43), "matrix": TILT, "border": border}
    plane, inside = kernels.frame_to_plane(given, format, mask=True, **options)
    expected, expected_inside = reference.frame_to_plane(given, format, **options)
    np.testing.assert_allclose(plane, expected, rtol=0, atol=RESAMPLED)
    assert np.array_equal(inside, expected_inside) and 0 < inside.mean() < 255


def test_resizing_is_opencvs():
    # Floats, because OpenCV's 8-bit resize has weights of 11 bits.
    grey = frame("grey", np.uint8, (60, 81))
    for size in ((81, 60), (162, 120), (40, 33), (100, 17), (1, 1), (500, 3)):
        theirs = cv2.resize(grey.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) / 255
        np.testing.assert_allclose(kernels.frame_to_plane(grey, "grey", size=size), theirs, rtol=0, atol=RESAMPLED)
    small = kernels.frame_to_plane(grey, "grey", size=(55, 47), dtype=np.uint8)
    assert np.abs(small.astype(int) - cv2.resize(grey, (55, 47))).max() <= 1


@pytest.mark.parametrize("ours, theirs", [("replicate", cv2.BORDER_REPLICATE), (40, cv2.BORDER_CONSTANT)])
def test_warping_is_opencvs(ours, theirs):
    # OpenCV's coordinates have 5 bits after the point: a smooth picture keeps that below a level.
    x, y = np.meshgrid(np.arange(120.0), np.arange(90.0))
    smooth = (127 + 60 * np.sin(x / 19) + 60 * np.cos(y / 23)).astype(np.float32)
    levels = np.rint(smooth).astype(np.uint8)
    matrix = np.array([[1.05, 0.03, -4], [-0.02, 0.97, 3], [2e-4, -1e-4, 1]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    other = cv2.warpPerspective(levels, matrix, (130, 95), flags=flags, borderMode=theirs, borderValue=40)
    plane, inside = kernels.frame_to_plane(levels, "grey", size=(130, 95), matrix=matrix, border=ours, mask=True)
    deep = cv2.erode(inside, np.ones((3, 3))) == 255  # a constant border meets the edge within 1/32 pixel
    assert np.abs(plane * 255 - other)[deep | (ours == "replicate")].max() < 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_planes_of_other_types_are_the_rounded_floats(dtype):
    given = frame("bgr", dtype)
    plane = kernels.frame_to_plane(given, matrix=TILT)
    assert np.array_equal(kernels.frame_to_plane(given, matrix=TILT, dtype=np.float16), plane.astype(np.float16))
    levels = kernels.frame_to_plane(given, matrix=TILT, dtype=np.uint8)
    assert np.array_equal(levels, np.rint(plane * np.float32(255)).astype(np.uint8))


@pytest.mark.parametrize("window", [(100, 200), (-50.5, 300.25), (12, 12), (12, 5), (255, 255)])
def test_a_gain_is_a_window_of_counts(window):
    for format, dtype in (("grey", np.uint8), ("grey", np.uint16), ("bgr", np.uint8)):
        given = frame(format, dtype)
        given.flat[:9] = [5, 11, 12, 13, 14, 100, 199, 200, 255]
        plane = kernels.frame_to_plane(given, format, gain=window)
        # A step function on unrounded luma may fall either way.
        atol = 2e-5 if format == "bgr" else STRAIGHT
        np.testing.assert_allclose(plane, reference.frame_to_plane(given, format, gain=window)[0], rtol=0, atol=atol)
        assert ((plane >= 0) & (plane <= 1)).all()


def test_a_gain_may_be_the_frames_percentiles():
    ir = np.random.default_rng(1).normal(30000, 400, (60, 71)).astype(np.uint16)
    window = kernels.percentiles16(ir)
    plane = kernels.frame_to_plane(ir, "grey", gain=window)
    np.testing.assert_allclose(plane, reference.frame_to_plane(ir, "grey", gain=window)[0], rtol=0, atol=2e-6)
    assert plane.min() == 0 and plane.max() == 1
    levels = kernels.frame_to_plane(ir, "grey", gain=window, dtype=np.uint8)
    assert np.abs(levels.astype(int) - kernels.scale16(ir, *window)).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_gain_may_be_a_table(dtype):
    given = frame("grey", dtype)
    table = np.random.default_rng(2).random(np.iinfo(dtype).max + 1, dtype=np.float32)
    table[:4] = [-0.5, 1.5, 1.0, 0.0]
    given.flat[:4] = [0, 1, 2, 3]
    straight = kernels.frame_to_plane(given, "grey", gain=table)
    np.testing.assert_array_equal(straight, table.clip(0, 1)[given])
    smooth = np.linspace(0, 1, len(table), dtype=np.float32) ** 2
    np.testing.assert_allclose(
        kernels.frame_to_plane(given, "grey", gain=smooth, matrix=TILT),
        reference.frame_to_plane(given, "grey", gain=smooth, matrix=TILT)[0],
        rtol=0,
        atol=0.01 if dtype == np.uint8 else 2e-3,  # an interpolated count near a half may go to either neighbour
    )
    outside = kernels.frame_to_plane(given, "grey", gain=smooth, matrix=TILT, border=1e9)
    assert outside.max() == 1  # a border beyond the table reads its end


def test_points_behind_the_camera_are_outside():
    grey = np.full((20, 30), 200, np.uint8)
    horizon = np.array([[1, 0, 0], [0, 1, 0], [-0.1, 0, 1.0]])  # W is 0 at x = 10 and negative beyond
    for border, count in (("replicate", 0), (51, 51)):
        plane, inside = kernels.frame_to_plane(grey, "grey", matrix=horizon, border=border, mask=True)
        expected, expected_inside = reference.frame_to_plane(grey, "grey", matrix=horizon, border=border)
        assert np.array_equal(inside, expected_inside)
        np.testing.assert_allclose(plane, expected, rtol=0, atol=RESAMPLED)
        np.testing.assert_array_equal(plane[:, 10:], np.float32(count) / np.float32(255))
        assert not inside[:, 10:].any()
    for matrix in (-np.eye(3), np.diag([1, 1, 0.0]), np.diag([1, 1, -1e-30])):  # all of it behind
        plane, inside = kernels.frame_to_plane(grey, "grey", matrix=matrix, mask=True)
        assert not inside.any() and not plane.any()


def test_a_matrix_may_be_scaled():
    grey = frame("grey", np.uint8)
    for scale in (1e-200, 1e-3, 1e150):
        np.testing.assert_allclose(
            kernels.frame_to_plane(grey, "grey", matrix=TILT * scale),
            kernels.frame_to_plane(grey, "grey", matrix=TILT),
            rtol=0,
            atol=RESAMPLED,
        )
    same = kernels.frame_to_plane(grey, "grey")
    np.testing.assert_array_equal(kernels.frame_to_plane(grey, "grey", matrix=np.eye(3) * 7), same)


@pytest.mark.parametrize("shift", [(1, 0), (0, 1), (-3, 2), (500, 0), (-(10**9), 10**9)])
def test_whole_shifts_are_exact(shift):
    grey = frame("grey", np.uint16)
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1.0]])
    plane = kernels.frame_to_plane(grey, "grey", matrix=matrix, border=7)
    y, x = np.mgrid[: grey.shape[0], : grey.shape[1]] + np.array(shift[::-1])[:, None, None]
    on = (x >= 0) & (y >= 0) & (x < grey.shape[1]) & (y < grey.shape[0])
    expected = np.full(grey.shape, 7, np.uint16)
    expected[on] = grey[y[on], x[on]]
    np.testing.assert_array_equal(plane, expected / np.float32(65535))


def laid_out(array):
    """The same pixels with a pitch, upside down, mirrored, spread, at an odd address; the last axis stays packed."""
    yield "contiguous", array
    yield "pitch", np.pad(array, [(0, 0), (0, 5)] + [(0, 0)] * (array.ndim - 2))[:, : array.shape[1]]
    yield "upside down", array[::-1].copy()[::-1]
    yield "mirrored", array[:, ::-1].copy()[:, ::-1]
    yield "every third row", array.repeat(3, 0)[::3]
    yield "every other pixel", array.repeat(2, 1)[:, ::2]
    raw = np.zeros(array.nbytes + 1, np.uint8)
    odd = raw[1:].view(array.dtype).reshape(array.shape)
    odd[...] = array
    yield "odd address", odd
    if array.ndim == 3:
        yield "channels reversed", array[..., ::-1].copy()[..., ::-1]
        yield "fourth channel", np.dstack([array, array[..., :1]])[..., : array.shape[2]]


@kinds
def test_any_layout(format, dtype):
    given = frame(format, dtype)
    fused = np.random.default_rng(3).random(size_of(given, format), dtype=np.float32)
    plane = kernels.frame_to_plane(given, format)
    warped = kernels.frame_to_plane(given, format, matrix=TILT)
    to = "nv12" if format == "yuyv" else None
    back = kernels.plane_to_frame(fused, given, format, to=to)
    for name, view in laid_out(given):
        np.testing.assert_array_equal(kernels.frame_to_plane(view, format), plane, err_msg=name)
        np.testing.assert_array_equal(kernels.frame_to_plane(view, format, matrix=TILT), warped, err_msg=name)
        np.testing.assert_array_equal(kernels.plane_to_frame(fused, view, format, to=to), back, err_msg=name)
    for name, view in laid_out(fused):
        np.testing.assert_array_equal(kernels.plane_to_frame(view, given, format, to=to), back, err_msg=name)


def test_nv12_in_two_parts():
    whole = frame("nv12", np.uint8)
    rows = len(whole) // 3 * 2
    upper, lower = whole[:rows], whole[rows:].reshape(rows // 2, -1, 2)
    padded = np.pad(lower, [(0, 0), (0, 7), (0, 0)])[:, :-7]
    for luma, pairs in ((upper, whole[rows:]), (upper, lower), (upper.repeat(2, 0)[::2], padded)):
        plane = kernels.frame_to_plane((luma, pairs), "nv12")
        np.testing.assert_array_equal(plane, kernels.frame_to_plane(whole, "nv12"))
        for to in ("nv12", "bgr"):
            expected = kernels.plane_to_frame(plane, whole, "nv12", to=to)
            np.testing.assert_array_equal(kernels.plane_to_frame(plane, (luma, pairs), "nv12", to=to), expected)
    apart = (
        np.full((rows, whole.shape[1]), 0xCD, np.uint8),
        np.full((rows // 2, whole.shape[1] // 2, 2), 0xCD, np.uint8),
    )
    kernels.plane_to_frame(plane, whole, "nv12", out=apart)
    together = kernels.plane_to_frame(plane, whole, "nv12")
    assert np.array_equal(apart[0], together[:rows])
    assert np.array_equal(apart[1].reshape(rows // 2, -1), together[rows:])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
def test_a_plane_is_written_where_it_is_told_and_nowhere_else(dtype):
    given = frame("bgr", np.uint8)
    height, width = given.shape[:2]
    for options in ({}, {"matrix": TILT}):
        expected = kernels.frame_to_plane(given, dtype=dtype, **options)
        pool = np.full((height + 2, width + 3, 2), 77, dtype)  # planes interleaved, as a channels-last network has them
        out = pool[1:-1, 2:-1, 1]
        assert kernels.frame_to_plane(given, out=out, **options) is out
        np.testing.assert_array_equal(out, expected)
        out[...] = 77
        assert (pool == 77).all()
        flipped = np.full((height, width), 77, dtype)[::-1, ::-1]
        np.testing.assert_array_equal(kernels.frame_to_plane(given, out=flipped, **options), expected)


def test_planes_of_no_size():
    for size in ((0, 4), (4, 0), (0, 0)):
        for options in ({}, {"matrix": TILT}):
            plane, inside = kernels.frame_to_plane(frame("bgr", np.uint8), size=size, mask=True, **options)
            assert plane.shape == inside.shape == size[::-1]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_matrix_stays_within_memory_and_range(data):
    number = st.one_of(st.floats(-2, 2), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0.0, 1.0]))
    matrix = np.array([data.draw(number) for _ in range(9)]).reshape(3, 3)
    grey = frame("grey", np.uint8, (data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))))
    border = data.draw(st.sampled_from(["replicate", 0, 300]))
    try:
        plane, inside = kernels.frame_to_plane(grey, "grey", size=(11, 7), matrix=matrix, border=border, mask=True)
    except InputError as error:  # all zero, or beyond single precision
        assert "matrix" in str(error)
        return
    assert ((plane >= 0) & (plane <= 1)).all() and set(np.unique(inside)) <= {0, 255}


# plane_to_frame


TARGETS = [
    (format, dtype, to)
    for format, dtype in KINDS
    for to in ("grey", "bgr", "rgb", "nv12")
    if not (dtype == np.uint16 and to == "nv12")
]


@pytest.mark.parametrize("format, dtype, to", TARGETS)
@pytest.mark.parametrize("size", [(2, 2), (4, 46), (34, 48)])
@pytest.mark.parametrize("full_range", [False, True])
def test_a_frame_gets_the_fused_luma(format, dtype, to, size, full_range):
    vis = frame(format, dtype, size)
    rng = np.random.default_rng(5)
    fused = rng.random(size, dtype=np.float32) * 1.2 - 0.1  # a network may leave [0, 1]
    for cover in (None, rng.integers(0, 256, size, dtype=np.uint8)):
        options = {"to": to, "full_range": full_range, "cover": cover}
        made = kernels.plane_to_frame(fused, vis, format, **options)
        assert made.dtype == vis.dtype
        assert_levels(made, reference.plane_to_frame(fused, vis, format, **options))


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 1), (33, 37)])
@pytest.mark.parametrize("to", ["grey", "bgr", "rgb"])
def test_odd_sizes(size, to):
    for format, dtype in KINDS[:6]:
        vis, fused = frame(format, dtype, size), np.random.default_rng(5).random(size, dtype=np.float32)
        made = kernels.plane_to_frame(fused, vis, format, to=to)
        assert_levels(made, reference.plane_to_frame(fused, vis, format, to=to))


def test_the_graphs_rule():
    """The same bytes as pyldfusion/frame_graph.py makes of the same plane, but for ties within rounding."""
    torch = pytest.importorskip("torch")
    from pyldfusion.frame_graph import FrameGraph

    class Plane(torch.nn.Module):
        def forward(self, ir, vis):
            self.vis = vis
            return ir

    network = Plane()
    ir, vis = frame("grey", np.uint8, (101, 103)), frame("bgr", np.uint8, (101, 103), 1)
    theirs = FrameGraph(network)(torch.from_numpy(ir[None, ..., None]), torch.from_numpy(vis[None]))[0].numpy()
    plane = kernels.frame_to_plane(vis)
    np.testing.assert_allclose(plane, network.vis[0, 0].numpy(), rtol=0, atol=STRAIGHT)
    ours = kernels.plane_to_frame(kernels.frame_to_plane(ir, "grey"), vis)
    change = ir.astype(np.float64) - vis @ (0.114, 0.587, 0.299)
    exact = vis + change[..., None]
    tie = np.abs(exact % 1 - 0.5) < 1e-3
    assert np.array_equal(ours[~tie], theirs[~tie]) and np.abs(ours.astype(int) - theirs).max() <= 1


@kinds
def test_an_unchanged_luma_leaves_the_frame(format, dtype):
    vis = frame(format, dtype)
    if format in ("nv12", "yuyv"):
        plane = kernels.frame_to_plane(vis, format, full_range=True)
        made = kernels.plane_to_frame(plane, vis, format, to="nv12", full_range=True)
        rows = size_of(vis, format)[0]
        assert np.array_equal(made[:rows], reference.yuv(vis, format)[0])
        assert format == "yuyv" or np.array_equal(made, vis)
    else:
        assert np.array_equal(kernels.plane_to_frame(kernels.frame_to_plane(vis, format), vis, format), vis)
        anything = np.random.default_rng(1).random(vis.shape[:2], dtype=np.float32)
        none = np.zeros(vis.shape[:2], np.uint8)
        assert np.array_equal(kernels.plane_to_frame(anything, vis, format, cover=none), vis)


def test_sixteen_bits_are_kept():
    """A ramp in sixteen bits has more than 256 levels, whatever the visible frame."""
    fused = np.linspace(0, 1, 5000, dtype=np.float32).reshape(50, 100)
    made = kernels.plane_to_frame(fused, np.full((50, 100), 9000, np.uint16), "grey")
    assert np.array_equal(made, np.rint(fused * np.float32(65535))) and len(np.unique(made)) == 5000


def test_video_range_is_opencvs():
    # Y within black and white: OpenCV clips what lies beyond after the conversion, here it is clipped in the plane.
    for format, code in (("nv12", cv2.COLOR_YUV2BGR_NV12), ("yuyv", cv2.COLOR_YUV2BGR_YUYV)):
        vis = frame(format, np.uint8)
        luma = vis[: size_of(vis, format)[0]] if format == "nv12" else vis[..., 0]
        luma[...] = 16 + luma.astype(int) * 219 // 255
        plane = kernels.frame_to_plane(vis, format)
        ours = kernels.plane_to_frame(plane, vis, format, to="bgr")
        theirs = cv2.cvtColor(vis, code)
        assert np.abs(ours.astype(int) - theirs).max() <= 2  # its constants have three digits: 1.164, 2.018, 1.596


def test_bgr_to_nv12_is_opencvs():
    # One colour in 2x2 pixels: OpenCV takes the chroma of one of them, here it is their mean.
    vis = frame("bgr", np.uint8, (18, 24)).repeat(2, 0).repeat(2, 1)
    ours = kernels.plane_to_frame(kernels.frame_to_plane(vis), vis, to="nv12")
    theirs = cv2.cvtColor(vis, cv2.COLOR_BGR2YUV_I420)
    rows, quarter = len(vis), len(vis) // 4
    assert np.abs(ours[:rows].astype(int) - theirs[:rows]).max() <= 1
    for plane, part in enumerate((theirs[rows : rows + quarter], theirs[rows + quarter :])):
        assert np.abs(ours[rows:, plane::2].astype(int) - part.reshape(rows // 2, -1)).max() <= 1


def test_hostile_planes():
    vis = frame("bgr", np.uint8, (4, 4))
    for value, level in ((np.nan, 0), (-np.inf, 0), (np.inf, 255), (1e30, 255), (-5, 0), (5, 255)):
        fused = np.full((4, 4), value, np.float32)
        assert (kernels.plane_to_frame(fused, vis, to="grey") == level).all()
        assert (kernels.plane_to_frame(fused, vis, to="nv12", full_range=True)[:4] == level).all()
        made = kernels.plane_to_frame(fused, vis)
        assert np.isnan(value) or (made == level).all()
    black = kernels.plane_to_frame(np.zeros((4, 4), np.float32), vis)
    assert np.array_equal(kernels.plane_to_frame(np.full((4, 4), np.nan, np.float32), vis), black)


@pytest.mark.parametrize("dtype", [np.float16, np.uint8])
def test_planes_of_other_types_come_back(dtype):
    vis = frame("bgr", np.uint8)
    fused = (np.random.default_rng(5).random(vis.shape[:2]) * (255 if dtype == np.uint8 else 1)).astype(dtype)
    assert_levels(kernels.plane_to_frame(fused, vis), reference.plane_to_frame(fused, vis))


@pytest.mark.parametrize("format", ["bgr", "rgb", "grey", "nv12"])
def test_a_frame_may_be_written_in_place(format):
    vis = frame(format, np.uint8)
    fused = np.random.default_rng(5).random(size_of(vis, format), dtype=np.float32)
    expected = kernels.plane_to_frame(fused, vis, format)
    assert kernels.plane_to_frame(fused, vis, format, out=vis) is vis
    np.testing.assert_array_equal(vis, expected)


@pytest.mark.parametrize("format, dtype, to", TARGETS)
def test_a_frame_is_written_where_it_is_told_and_nowhere_else(format, dtype, to):
    vis = frame(format, dtype)
    fused = np.random.default_rng(5).random(size_of(vis, format), dtype=np.float32)
    if to == "nv12":
        vis, fused = frame(format, dtype, (34, 48)), np.random.default_rng(5).random((34, 48), dtype=np.float32)
    expected = kernels.plane_to_frame(fused, vis, format, to=to)
    pool = np.full((expected.shape[0] + 2, expected.shape[1] + 5, *expected.shape[2:]), 0xCD, dtype)
    out = pool[1:-1, 2:-3]
    assert kernels.plane_to_frame(fused, vis, format, to=to, out=out) is out
    np.testing.assert_array_equal(out, expected)
    out[...] = 0xCD
    assert (pool == 0xCD).all()


# percentiles16


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 5), (120, 161)])
@pytest.mark.parametrize("low, high", [(0.5, 99.5), (0, 100), (50, 50), (99.5, 0.5), (33.3, 66.7)])
def test_percentiles_are_numpys(size, low, high):
    rng = np.random.default_rng(7)
    for ir in (
        rng.integers(0, 65536, size, dtype=np.uint16),
        rng.normal(8000, 30, size).astype(np.uint16),
        np.full(size, 65535, np.uint16),
        np.zeros(size, np.uint16),
    ):
        for name, view in laid_out(ir):
            ours = kernels.percentiles16(view, low, high)
            assert ours == pytest.approx(reference.percentiles16(ir, low, high), rel=1e-12), name


def test_percentiles_refuse_what_they_cannot_use():
    with pytest.raises(DtypeError, match="frame is uint8"):
        kernels.percentiles16(np.zeros((2, 2), np.uint8))
    with pytest.raises(InputError, match="empty"):
        kernels.percentiles16(np.zeros((0, 2), np.uint16))
    for pair in ((-1, 50), (1, 101), (np.nan, 5), (5, np.inf)):
        with pytest.raises(InputError, match="from 0 to 100"):
            kernels.percentiles16(np.zeros((2, 2), np.uint16), *pair)


# threads and errors


@pytest.mark.parametrize("threads", [2, 3, 17])
def test_the_number_of_threads_changes_nothing(threads):
    vis = frame("bgr", np.uint8, (480, 642))
    plane = kernels.frame_to_plane(vis, threads=1)
    assert np.array_equal(kernels.frame_to_plane(vis, threads=threads), plane)
    warped = kernels.frame_to_plane(vis, matrix=TILT, threads=1)
    assert np.array_equal(kernels.frame_to_plane(vis, matrix=TILT, threads=threads), warped)
    for to in ("bgr", "nv12"):
        made = kernels.plane_to_frame(warped, vis, to=to, threads=1)
        assert np.array_equal(kernels.plane_to_frame(warped, vis, to=to, threads=threads), made)


GREY = np.zeros((6, 8), np.uint8)
BGR = np.zeros((6, 8, 3), np.uint8)
PLANE = np.zeros((6, 8), np.float32)
NAN = np.eye(3)
NAN[1, 2] = np.nan


@pytest.mark.parametrize(
    "args, options, error, words",
    [
        ((BGR, "yuv"), {}, InputError, "format is 'yuv'; expected one of grey, bgr"),
        ((BGR.astype(np.float32),), {}, DtypeError, "frame is float32; expected uint8 or uint16"),
        ((BGR.astype(">u2"),), {}, DtypeError, "frame is >u2"),
        ((GREY,), {}, InputError, r"frame has shape \(6, 8\); expected \[H,W,3\]"),
        ((BGR, "grey"), {}, InputError, r"expected \[H,W\] or \[H,W,1\] for 'grey'"),
        ((np.zeros((6, 8, 4), np.uint8),), {}, InputError, r"\(6, 8, 4\)"),
        ((BGR[:0],), {}, InputError, "empty: 8x0"),
        ((np.zeros((7, 8), np.uint8), "nv12"), {}, InputError, r"\[H\*3/2,W\]"),
        ((np.zeros((9, 8), np.uint16), "nv12"), {}, DtypeError, "uint16; expected uint8"),
        ((np.zeros((9, 7), np.uint8), "nv12"), {}, InputError, "7x6 .*even width and height"),
        ((np.zeros((3, 8), np.uint8), "nv12"), {}, None, ""),
        (((GREY, np.zeros((3, 8), np.uint8)), "nv12"), {}, None, ""),
        (((GREY, np.zeros((2, 8), np.uint8)), "nv12"), {}, InputError, r"\(6, 8\) and \(2, 8\)"),
        (((GREY[:5], np.zeros((2, 4, 2), np.uint8)), "nv12"), {}, InputError, "8x5 .*even width and height"),
        ((np.zeros((6, 7, 2), np.uint8), "yuyv"), {}, InputError, "7x6 .*even width"),
        ((np.zeros((6, 8, 2), np.uint16), "yuyv"), {}, DtypeError, "uint16; expected uint8"),
        ((BGR,), {"matrix": NAN}, InputError, "matrix is .*nan.*expected 3x3 finite"),
        ((BGR,), {"matrix": np.eye(2)}, InputError, "expected 3x3"),
        ((BGR,), {"matrix": "H"}, InputError, "expected 3x3"),
        ((BGR,), {"matrix": np.zeros((3, 3))}, InputError, "matrix is zero"),
        ((BGR,), {"matrix": np.diag([1e40, 1, 1])}, InputError, "too large for single precision"),
        ((BGR,), {"size": (4,)}, InputError, "size is"),
        ((BGR,), {"size": (4, -1)}, InputError, "size is"),
        ((BGR,), {"size": (2**23, 1)}, InputError, "4194304"),
        ((BGR,), {"border": "reflect"}, InputError, "border is 'reflect'"),
        ((BGR,), {"border": np.nan}, InputError, "border value is not finite"),
        ((BGR,), {"gain": (0, np.inf)}, InputError, "gain has shape"),
        ((BGR,), {"gain": np.zeros(65536, np.float32)}, InputError, "a table of 256 values"),
        ((BGR,), {"gain": np.zeros(256)}, DtypeError, "table of float64"),
        ((BGR,), {"dtype": np.float64}, DtypeError, "dtype is float64"),
        ((BGR,), {"dtype": "flaot32"}, DtypeError, "dtype is 'flaot32'; expected one of uint8, float16, float32"),
        (((BGR[..., 0],) * 3, "nv12"), {}, InputError, r"a tuple of 3; expected \(Y, UV\)"),
        ((BGR,), {"out": np.zeros((6, 8))}, DtypeError, "out is float64"),
        ((BGR,), {"out": [1]}, DtypeError, "out is a list"),
        ((BGR,), {"out": np.zeros((8, 6), np.float32)}, InputError, r"out has shape \(8, 6\); expected \(6, 8\)"),
        ((BGR,), {"out": np.broadcast_to(np.float32(0), (6, 8))}, InputError, "read-only"),
        ((BGR,), {"out": BGR[..., 0]}, InputError, "overlaps"),
    ],
)
def test_frame_to_plane_refuses_what_it_cannot_use(args, options, error, words):
    if error is None:
        kernels.frame_to_plane(*args, **options)
        return
    with pytest.raises(error, match=words):
        kernels.frame_to_plane(*args, **options)


@pytest.mark.parametrize(
    "args, options, error, words",
    [
        ((PLANE.astype(np.float64), BGR), {}, DtypeError, "fused is float64"),
        ((PLANE[None], BGR), {}, InputError, r"fused is float32 of shape \(1, 6, 8\)"),
        ((PLANE[:5], BGR), {}, InputError, "fused is 8x5 and vis is 8x6"),
        ((PLANE, BGR), {"to": "yuyv"}, InputError, "cannot be written"),
        ((PLANE, BGR), {"to": "hsv"}, InputError, "to is 'hsv'"),
        ((PLANE, BGR.astype(np.uint16)), {"to": "nv12"}, InputError, "has 8 bits"),
        ((PLANE[:, :7], BGR[:, :7]), {"to": "nv12"}, InputError, "7x6 .*even sides"),
        ((PLANE, BGR), {"cover": PLANE}, DtypeError, "cover is float32"),
        ((PLANE, BGR), {"cover": GREY[:5]}, InputError, "cover has shape"),
        ((PLANE, BGR), {"out": BGR[:5].copy()}, InputError, "out is uint8 8x5; expected uint8 8x6"),
        ((PLANE, BGR), {"out": np.zeros((6, 8, 3), np.uint16)}, InputError, "out is uint16"),
        ((PLANE, BGR), {"out": np.zeros((6, 8, 6), np.uint8)[..., ::2]}, InputError, "out has strides"),
        ((PLANE, BGR), {"out": BGR, "to": "rgb"}, InputError, "overlaps"),
        ((PLANE, BGR), {"out": BGR[:, ::-1]}, InputError, "overlaps"),
    ],
)
def test_plane_to_frame_refuses_what_it_cannot_use(args, options, error, words):
    with pytest.raises(error, match=words):
        kernels.plane_to_frame(*args, **options)


@pytest.mark.parametrize(("format", "to"), [("bgr", "bgr"), ("rgb", "rgb"), ("bgr", "rgb")])
def test_rows_longer_than_a_run_are_as_pixels_one_by_one(format, to):
    random = np.random.default_rng(4)
    vis = random.integers(0, 256, (9, 700, 3), np.uint8)
    fused = random.uniform(-0.5, 1.5, (9, 700)).astype(np.float32)
    fused[1, 300], fused[2, 511] = np.nan, np.inf
    apart = np.repeat(fused, 2, axis=1)[:, ::2]  # not packed
    expected = kernels.plane_to_frame(apart, vis, format, to=to)
    assert np.array_equal(kernels.plane_to_frame(fused, vis, format, to=to), expected)
    if format == to:
        assert np.array_equal(kernels.plane_to_frame(fused, vis, format, out=vis), expected)
