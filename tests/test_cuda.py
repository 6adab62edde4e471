"""pyldfusion.cuda's functions against the CPU's, under emulation: what the bindings hand to the kernels.

The kernels themselves are tested beside their sources (tests/test_cuda_*.py).
"""

from __future__ import annotations

import numpy as np
import pytest

from pyldfusion import cuda, kernels
from pyldfusion.errors import CudaError, DeviceError, DtypeError, InputError

from . import reference

pytestmark = pytest.mark.usefixtures("emulated_cuda")
RNG = np.random.default_rng


def host(result):
    return tuple(map(host, result)) if isinstance(result, tuple) else cuda.to_host(result)


def x_and_style(shape=(2, 3, 7, 9)):
    x = RNG(0).normal(3, 2, shape).astype(np.float32)
    return x, RNG(1).normal(1, 0.5, shape[:2]).astype(np.float32), RNG(2).normal(size=shape[:2]).astype(np.float32)


def channels_last(x):
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


# norms


@pytest.mark.parametrize("layout", [np.ascontiguousarray, channels_last])
def test_adain_and_what_may_follow(layout):
    x, weight, bias = x_and_style()
    given, plain = layout(x), reference.adain(x, weight, bias)
    residual = layout(RNG(4).normal(size=x.shape).astype(np.float32))
    for expected, result in (
        (plain, cuda.adain(given, weight, bias)),
        (plain.clip(0), cuda.adain(given, weight, bias, relu=True)),
        (plain + residual, cuda.adain(given, weight, bias, residual=residual)),
        (reference.adain(x, 0 * weight + 1, 0 * bias), cuda.instance_norm(given)),
        (reference.adain(x, weight, bias, 3.0), cuda.adain(given, weight, bias, 3.0)),
    ):
        by_numpy = np.from_dlpack(result)
        assert by_numpy.strides == given.strides
        np.testing.assert_allclose(by_numpy, expected, rtol=1e-5, atol=1e-5)
    out = residual.copy("K")
    assert cuda.adain(given, weight, bias, residual=out, out=out) is out
    np.testing.assert_allclose(out, plain + residual, rtol=1e-5, atol=1e-5)


def test_adain_saves_what_its_gradient_needs():
    x, weight, bias = x_and_style()
    y, offset, rstd = host(cuda.adain(x, weight, bias, save=True))
    np.testing.assert_allclose(offset, x.mean((2, 3), np.float64) - x[:, :, 0, 0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(rstd, 1 / np.sqrt(x.var((2, 3), np.float64) + 1e-5), rtol=1e-5)
    out = np.empty_like(y), np.empty_like(offset), np.empty_like(rstd)
    assert all(a is b for a, b in zip(cuda.adain(x, weight, bias, save=True, out=out), out, strict=True))
    np.testing.assert_array_equal(out[1], offset)
    grad = RNG(5).normal(size=x.shape).astype(np.float32)
    grad_x, grad_weight, grad_bias = host(cuda.adain_backward(grad, x, weight, bias, offset, rstd))
    normed = reference.adain(x, 0 * weight + 1, 0 * bias)
    np.testing.assert_allclose(grad_bias, grad.sum((2, 3)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(grad_weight, (grad * normed).sum((2, 3)), rtol=1e-4, atol=1e-4)
    assert grad_x.shape == x.shape and np.abs(grad_x.sum((2, 3))).max() < 1e-4  # a constant changes nothing
    alone = host(cuda.adain_backward(grad, x, None, None, offset, rstd))
    np.testing.assert_allclose(alone * weight[:, :, None, None], grad_x, rtol=1e-4, atol=1e-5)


def test_sample_norm():
    x = x_and_style()[0]
    gamma, beta = np.array([1, -2, 0.5], np.float32), np.array([0, 1, -1], np.float32)
    y, offset, std = host(cuda.sample_norm(x, gamma, beta, save=True))
    wide = x.astype(np.float64)
    deviation = wide.std((1, 2, 3), ddof=1, keepdims=True)
    normed = (wide - wide.mean((1, 2, 3), keepdims=True)) / (deviation + 1e-5)
    expected = normed * gamma[:, None, None] + beta[:, None, None]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(std, deviation.ravel(), rtol=1e-5)
    np.testing.assert_allclose(offset, wide.mean((1, 2, 3)) - wide[:, 0, 0, 0], rtol=1e-4, atol=1e-5)
    relu = host(cuda.sample_norm(x, gamma, beta, relu=True))
    np.testing.assert_allclose(relu, expected.clip(0), rtol=1e-5, atol=1e-5)
    grad = RNG(5).normal(size=x.shape).astype(np.float32)
    grad_x, grad_gamma, grad_beta = host(cuda.sample_norm_backward(grad, x, gamma, beta, offset, std))
    np.testing.assert_allclose(grad_beta, grad.sum((0, 2, 3)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(grad_gamma, (grad * normed).sum((0, 2, 3)), rtol=1e-4, atol=1e-4)
    assert grad_x.shape == x.shape and np.abs(grad_x.sum((1, 2, 3))).max() < 1e-4


def test_what_norms_refuse():
    x, weight, bias = x_and_style()
    for call, error, says in (
        (lambda: cuda.adain(x.astype(np.float64), weight, bias), DtypeError, "x is float64; expected float32, float16"),
        (lambda: cuda.adain(x[0], weight, bias), InputError, r"x has shape \[3,7,9\]; expected \[N,C,H,W\]"),
        (lambda: cuda.adain(x[..., ::2], weight, bias), InputError, "x of shape .* expected a dense array"),
        (lambda: cuda.adain(x[:, :, ::-1], weight, bias), InputError, r"strides \[189,63,-9,1\]"),
        (lambda: cuda.adain(x, weight.astype(np.float16), bias), DtypeError, "weight is float16; expected float32"),
        (lambda: cuda.adain(x, weight.T, bias), InputError, r"weight has shape \[3,2\]; expected \[2,3\]"),
        (lambda: cuda.adain(x, weight, bias[:, ::-1]), InputError, r"bias of shape .* C order"),
        (lambda: cuda.adain(x, weight, bias, 0.0), InputError, "eps is 0"),
        (lambda: cuda.adain(x, weight, bias, float("nan")), InputError, "eps is nan"),
        (lambda: cuda.adain(x, weight, bias, relu=True, residual=x), InputError, "cannot both"),
        (lambda: cuda.adain(x, weight, bias, residual=channels_last(x)), InputError, "residual .* layout of x"),
        (lambda: cuda.adain(x, weight, bias, residual=x[:1]), InputError, "residual has shape"),
        (lambda: cuda.adain(x, weight, bias, out=x), InputError, "out overlaps x"),
        (lambda: cuda.adain(x, weight, bias, out=channels_last(x)), InputError, "out .* layout of x"),
        (lambda: cuda.adain(x[:, :, :0], weight, bias), InputError, "without pixels"),
        (lambda: cuda.adain([[1]], weight, bias), InputError, "x is a list"),
        (lambda: cuda.sample_norm(x, weight[0], weight), InputError, r"beta has shape \[2,3\]; expected \[3\]"),
        (lambda: cuda.adain_backward(x[:1], x, weight, bias, weight, weight), InputError, "grad_y has shape"),
    ):
        with pytest.raises(error, match=says):
            call()
    assert host(cuda.adain(x[:0], weight[:0], bias[:0])).shape == (0, 3, 7, 9)


def test_a_failing_kernel_says_its_name(emulated_cuda):
    x, weight, bias = x_and_style()
    emulated_cuda.host.host_cuda_fail_next(b"launch of the test failed")
    with pytest.raises(CudaError, match=r'kernel "adain.*": cudaLaunchKernelEx failed: launch of the test failed'):
        cuda.adain(x, weight, bias)
    assert np.isfinite(host(cuda.adain(x, weight, bias))).all()  # the error was not left behind


def test_host_arrays_are_not_recorded(emulated_cuda):
    image, boxes = np.zeros((8, 9), np.uint8), np.array([[0, 0, 4, 4]], np.int32)
    on_device = cuda.to_device(boxes)
    emulated_cuda.host.host_cuda_capture(1)
    try:
        for call in (
            lambda: cuda.entropy(image, boxes),
            lambda: cuda.frame_to_plane(image, "grey", gain=np.zeros(256, np.float32)),
            lambda: cuda.to_device(boxes),
        ):
            with pytest.raises(InputError, match="cannot be recorded into a CUDA graph"):
                call()
        assert host(cuda.entropy(image, on_device, trust_boxes=True)).tolist() == [0]
    finally:
        emulated_cuda.host.host_cuda_capture(0)


# entropy of affine boxes


def test_entropy_affine_takes_host_and_device_boxes():
    planes = RNG(0).random((2, 30, 40)).astype(np.float32)
    boxes = np.array([(0, 0, 30), (5, 3, 20), (39, 29, 1)], np.int32)
    maps = np.array([[[1, 0.1, 0], [0, 1, 2]], [[0.9, 0, 0], [0.1, 1, 0]], [[1, 0, 0], [0, 1, 0]]], np.float32)
    expected = kernels.entropy_affine(planes, boxes, maps, 16)
    np.testing.assert_allclose(host(cuda.entropy_affine(planes, boxes, maps, 16)), expected, atol=1e-9)
    on_device = cuda.to_device(boxes), cuda.to_device(maps)
    trusted = cuda.entropy_affine(planes, *on_device, 16, trust_boxes=True)
    np.testing.assert_allclose(host(trusted), expected, atol=1e-9)
    for arguments, says in (
        ((planes, boxes + 1, maps, 16), r"boxes\[0\]"),
        ((planes, boxes, maps[:2], 16), "maps have shape"),
        ((planes, boxes, maps * np.nan, 16), "NaN"),
        ((planes, boxes, maps, 0), "size is 0"),
        ((planes[0], boxes, maps, 16), r"planes have shape \(30, 40\)"),
    ):
        with pytest.raises(InputError, match=says):
            cuda.entropy_affine(*arguments)


# frames


def frame(format: str, dtype=np.uint8, height=12, width=20):
    shapes = {"grey": (height, width), "nv12": (height * 3 // 2, width), "yuyv": (height, width, 2)}
    return RNG(3).integers(0, np.iinfo(dtype).max + 1, shapes.get(format, (height, width, 3))).astype(dtype)


FORMATS = [(f, np.uint8) for f in ("grey", "bgr", "rgb", "nv12", "yuyv")]
FORMATS += [(f, np.uint16) for f in ("grey", "bgr", "rgb")]


@pytest.mark.parametrize(("format", "dtype"), FORMATS)
def test_frame_to_plane_is_the_cpus(format, dtype):
    pixels = frame(format, dtype)
    turn = [[0.9, -0.1, 1.5], [0.1, 0.9, 0.5], [0.001, 0, 1]]
    for options in (
        {},
        {"size": (31, 9)},
        {"matrix": turn, "border": 7.0, "size": (20, 12)},
        {"matrix": turn, "gain": (20, 200), "dtype": "uint8"},
        {"full_range": True, "dtype": "float16"},
    ):
        on_gpu = host(cuda.frame_to_plane(pixels, format, mask=True, **options))
        for result, expected in zip(on_gpu, kernels.frame_to_plane(pixels, format, mask=True, **options), strict=True):
            np.testing.assert_array_equal(result, expected, err_msg=str(options))
    out = np.full((2, 12, 20), np.nan, np.float32)[1]
    assert cuda.frame_to_plane(pixels, format, out=out) is out
    np.testing.assert_array_equal(out, kernels.frame_to_plane(pixels, format))
    interleaved = np.full((12, 20, 2), np.nan, np.float32)  # a channels-last tensor of two planes
    cuda.frame_to_plane(pixels, format, out=interleaved[..., 1])
    np.testing.assert_array_equal(interleaved[..., 1], out)
    assert np.isnan(interleaved[..., 0]).all()


@pytest.mark.parametrize(("format", "dtype"), FORMATS)
def test_plane_to_frame_is_the_cpus(format, dtype):
    vis, fused = frame(format, dtype), RNG(5).random((12, 20)).astype(np.float32)
    cover = RNG(6).integers(0, 256, (12, 20)).astype(np.uint8)
    targets = ["grey", "bgr", "rgb"] + (["nv12"] if dtype == np.uint8 else [])
    for to in targets:
        for options in ({}, {"cover": cover}, {"full_range": True}):
            expected = kernels.plane_to_frame(fused, vis, format, to=to, **options)
            np.testing.assert_array_equal(host(cuda.plane_to_frame(fused, vis, format, to=to, **options)), expected)
            out = np.zeros_like(expected)
            assert cuda.plane_to_frame(fused, vis, format, to=to, out=out, **options) is out
            np.testing.assert_array_equal(out, expected)
    if format != "yuyv":
        expected, own = kernels.plane_to_frame(fused, vis, format), vis.copy()
        cuda.plane_to_frame(fused, own, format, out=own)
        np.testing.assert_array_equal(own, expected)


def test_nv12_in_two_parts():
    whole = frame("nv12")
    parts = whole[:12].copy(), whole[12:].reshape(6, 10, 2).copy()
    expected = host(cuda.frame_to_plane(whole, "nv12"))
    np.testing.assert_array_equal(host(cuda.frame_to_plane(parts, "nv12")), expected)
    fused = RNG(5).random((12, 20)).astype(np.float32)
    out = np.zeros_like(parts[0]), np.zeros_like(parts[1])
    assert cuda.plane_to_frame(fused, parts, "nv12", out=out) is out
    np.testing.assert_array_equal(
        np.concatenate([out[0], out[1].reshape(6, 20)]), kernels.plane_to_frame(fused, whole, "nv12")
    )


def test_gain_stays_on_the_device():
    infrared = RNG(7).integers(20_000, 31_000, (24, 36)).astype(np.uint16)[:, ::2]
    counts = host(cuda.histogram16(infrared))
    np.testing.assert_array_equal(counts, np.bincount(infrared.ravel(), minlength=65536))
    limits = cuda.percentiles16(infrared, 1, 99)
    np.testing.assert_allclose(host(limits), np.percentile(infrared, (1, 99)), rtol=1e-6)
    exact = np.zeros(2)
    assert cuda.percentiles16(infrared, 1, 99, out=exact) is exact
    assert tuple(exact) == kernels.percentiles16(infrared, 1, 99)
    result = host(cuda.frame_to_plane(infrared, "grey", gain=limits))
    expected = kernels.frame_to_plane(infrared, "grey", gain=tuple(host(limits).tolist()))
    np.testing.assert_array_equal(result, expected)
    table = RNG(8).random(65536).astype(np.float32)
    for given in (table, cuda.to_device(table)):
        by_table = host(cuda.frame_to_plane(infrared, "grey", gain=given))
        np.testing.assert_array_equal(by_table, kernels.frame_to_plane(infrared, "grey", gain=table))


def test_what_frames_refuse():
    bgr, fused = frame("bgr"), np.zeros((12, 20), np.float32)
    for call, error, says in (
        (lambda: cuda.frame_to_plane(bgr, "bgra"), InputError, 'format is "bgra"'),
        (lambda: cuda.frame_to_plane(bgr, "grey"), InputError, r"frame has shape .*\[H,W\] or \[H,W,1\]"),
        (lambda: cuda.frame_to_plane(bgr[..., ::-1], "bgr"), InputError, "side by side"),
        (lambda: cuda.frame_to_plane(bgr.astype(np.float32)), DtypeError, "frame is float32; expected uint8, uint16"),
        (lambda: cuda.frame_to_plane(frame("bgr", np.uint16), "nv12"), DtypeError, "uint16; expected uint8"),
        (lambda: cuda.frame_to_plane(frame("nv12")[1:], "nv12"), InputError, r"\[H\*3/2,W\]"),
        (lambda: cuda.frame_to_plane(frame("nv12")[:, 1:], "nv12"), InputError, "even"),
        (lambda: cuda.frame_to_plane(bgr, size=(3, -1)), InputError, "size is"),
        (lambda: cuda.frame_to_plane(bgr, matrix=[[1, 2], [3, 4]]), InputError, "matrix is"),
        (lambda: cuda.frame_to_plane(bgr, border="mirror"), InputError, "border is 'mirror'"),
        (lambda: cuda.frame_to_plane(bgr, gain=(1, np.nan)), InputError, "gain is"),
        (lambda: cuda.frame_to_plane(bgr, gain=np.zeros(255, np.float32)), InputError, "gain has a wrong shape"),
        (lambda: cuda.frame_to_plane(bgr, dtype="float64"), DtypeError, "out is float64"),
        (lambda: cuda.frame_to_plane(bgr, out=bgr[..., 0]), InputError, "out overlaps the frame"),
        (lambda: cuda.frame_to_plane(bgr, out=fused[1:], size=(20, 12)), InputError, "out has shape"),
        (lambda: cuda.frame_to_plane(bgr[:0]), InputError, "empty"),
        (lambda: cuda.plane_to_frame(fused[1:], bgr), InputError, "sizes differ"),
        (lambda: cuda.plane_to_frame(fused, bgr, to="yuyv"), InputError, "yuyv"),
        (lambda: cuda.plane_to_frame(fused, frame("bgr", np.uint16), to="nv12"), InputError, "nv12"),
        (lambda: cuda.plane_to_frame(fused, bgr, out=bgr[:, ::-1]), InputError, "out overlaps vis"),
        (lambda: cuda.plane_to_frame(fused, bgr, cover=fused), DtypeError, "cover is float32"),
        (lambda: cuda.percentiles16(bgr, 1, 99), DtypeError, "frame is uint8; expected uint16"),
        (lambda: cuda.percentiles16(frame("grey", np.uint16), 1, 101), InputError, "percentage"),
        (lambda: cuda.percentiles16(frame("grey", np.uint16), 1, 99, out=np.zeros(2, int)), DtypeError, "out is int64"),
        (lambda: cuda.percentiles16(frame("grey", np.uint16), 1, 99, out=np.zeros(3)), InputError, "out has shape"),
        (lambda: cuda.frame_to_plane("frame.png"), InputError, "frame is a str"),
    ):
        with pytest.raises(error, match=says):
            call()
    with pytest.raises(DeviceError):
        cuda.frame_to_plane(Pinned())


class Pinned:
    def __dlpack_device__(self):
        return 3, 0
