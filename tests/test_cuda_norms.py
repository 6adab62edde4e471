"""The norms' CUDA kernels against float64 (gradients: torch's own in float64), under emulation and on a GPU.

Outputs and workspaces start as NaN, so what is not written shows, and lie between guards, so what is written beside
them shows.
"""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_double, c_int32, c_int64, c_void_p

import numpy as np
import pytest

from .host_cuda import build

torch = pytest.importorskip("torch")

SOURCES = [
    *(build.CSRC / name for name in ("adain.cu", "adain_backward.cu", "sample_norm.cu", "sample_norm_backward.cu")),
    build.HERE / "norms.cu",
]
TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
ROUNDING = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}  # relative, of one store
LAYOUTS = ("nchw", "nhwc")
EPS = 1e-5
GUARD = 256  # bytes

# Planes of one pixel, of less than a vector, of a vector and a bit; rows of channels that are no whole vectors, one
# slab, a slab and a bit; planes that are split over several blocks (more than 16 KiB each).
SHAPES = [(1, 1, 1, 1), (3, 2, 1, 3), (2, 5, 1, 1), (2, 3, 5, 7), (2, 16, 9, 11), (1, 19, 13, 6), (1, 2, 91, 93)]


class Struct(ctypes.Structure):
    """A parameter struct of csrc; ``entry`` is the function that takes it."""

    entry = ""


SIZES = [("type", c_int32), ("layout", c_int32), *((name, c_int64) for name in "nchw")]


def pointers(*names):
    return [(name, c_void_p) for name in names]


class Adain(Struct):
    entry = "adain"
    _fields_ = [*pointers("x"), *SIZES, *pointers("weight", "bias"), ("relu", c_bool), *pointers("residual")]
    _fields_ += [("eps", c_double), *pointers("y", "offset", "rstd", "workspace")]


class AdainBackward(Struct):
    entry = "adain_backward"
    _fields_ = [*pointers("grad_y", "x"), *SIZES, *pointers("weight", "bias"), ("relu", c_bool)]
    _fields_ += pointers("offset", "rstd", "grad_x", "grad_weight", "grad_bias", "workspace")


class SampleNorm(Struct):
    entry = "sample_norm"
    _fields_ = [*pointers("x"), *SIZES, *pointers("gamma", "beta"), ("relu", c_bool), ("eps", c_double)]
    _fields_ += pointers("y", "offset", "std", "workspace")


class SampleNormBackward(Struct):
    entry = "sample_norm_backward"
    _fields_ = [*pointers("grad_y", "x"), *SIZES, *pointers("gamma", "beta"), ("relu", c_bool), ("eps", c_double)]
    _fields_ += pointers("offset", "std", "grad_x", "grad_gamma", "grad_beta", "workspace")


class Memory:
    """A tensor in guarded memory; ``shift`` moves it that many elements past an aligned address."""

    def __init__(self, device, shape, dtype, layout="nchw", shift=0, values=None):
        count = int(np.prod(shape))
        size = torch.empty((), dtype=dtype).element_size()
        self.first = GUARD + shift * size
        self.end = self.first + count * size
        self.bytes = torch.full((self.end + GUARD,), 0xFF, dtype=torch.uint8, device=device)  # NaN in all types
        tensor = self.bytes[self.first : self.end].view(dtype)
        if layout == "nhwc":
            n, c, h, w = shape
            self.tensor = tensor.view(n, h, w, c).permute(0, 3, 1, 2)
        else:
            self.tensor = tensor.view(shape)
        if values is not None:
            self.tensor.copy_(torch.as_tensor(values).to(dtype))
        self.pointer = self.bytes.data_ptr() + self.first

    def read(self):
        """The values as float64 [N,C,H,W] on the CPU; the guards are found whole."""
        assert bool((self.bytes[: self.first] == 0xFF).all()), "written before the tensor"
        assert bool((self.bytes[self.end :] == 0xFF).all()), "written behind the tensor"
        return self.tensor.double().cpu().contiguous()


class Kernels:
    """The kernels on one device; methods take and return float64 tensors."""

    def __init__(self, library, device):
        self.library, self.device = library, device
        for struct in (Adain, AdainBackward, SampleNorm, SampleNormBackward):
            for name in ("workspace", "size"):
                getattr(library, f"t_{struct.entry}_{name}").restype = c_int64
            assert getattr(library, f"t_{struct.entry}_size")() == ctypes.sizeof(struct)

    def call(self, struct, kind, layout, shape, memories, **numbers):
        fields = {name: None if memory is None else memory.pointer for name, memory in memories.items()}
        n, c, h, w = shape
        p = struct(type=list(TYPES).index(kind), layout=LAYOUTS.index(layout), n=n, c=c, h=h, w=w, **fields, **numbers)
        bytes_needed = getattr(self.library, f"t_{struct.entry}_workspace")(ctypes.byref(p))
        workspace = Memory(self.device, (bytes_needed,), torch.uint8)
        p.workspace = workspace.pointer if bytes_needed else None
        code = getattr(self.library, f"t_{struct.entry}")(ctypes.byref(p))
        if self.device == "cuda":
            torch.cuda.synchronize()
        elif code:
            raise AssertionError(self.library.cudaGetErrorString(code).decode())
        assert code == 0
        workspace.read()
        return [memory.read() if memory is not None else None for memory in memories.values()]

    def place(self, kind, layout, shift, values):
        return Memory(self.device, values.shape, TYPES[kind], layout, shift, values)

    def floats(self, values):
        return None if values is None else Memory(self.device, values.shape, torch.float32, values=values)

    def result(self, *shape):
        return Memory(self.device, shape, torch.float32)

    def adain(self, x, weight=None, bias=None, residual=None, *, relu=False, eps=EPS, kind="f32", layout="nchw",
              shifts=(0, 0, 0), onto_residual=False, save=True):  # fmt: skip
        """y, offset, rstd; ``shifts`` are of x, residual and y."""
        n, c = x.shape[:2]
        given = self.place(kind, layout, shifts[0], x)
        before = given.read()
        added = None if residual is None else self.place(kind, layout, shifts[1], residual)
        y = added if onto_residual else Memory(self.device, x.shape, TYPES[kind], layout, shifts[2])
        memories = {"x": given, "weight": self.floats(weight), "bias": self.floats(bias), "residual": added, "y": y}
        memories |= {"offset": self.result(n, c), "rstd": self.result(n, c)} if save else {}
        same, *_, y, offset, rstd = self.call(Adain, kind, layout, x.shape, memories, relu=relu, eps=eps) + (
            [] if save else [None, None]
        )
        assert torch.equal(same.nan_to_num(), before.nan_to_num())
        return y, offset, rstd

    def adain_backward(self, grad_y, x, offset, rstd, weight=None, bias=None, *, relu=False, kind="f32", layout="nchw",
                       shifts=(0, 0, 0)):  # fmt: skip
        """grad_x, grad_weight, grad_bias; ``shifts`` are of grad_y, x and grad_x."""
        n, c = x.shape[:2]
        memories = {
            "grad_y": self.place(kind, layout, shifts[0], grad_y),
            "x": self.place(kind, layout, shifts[1], x),
            "weight": self.floats(weight),
            "bias": self.floats(bias),
            "offset": self.floats(offset),
            "rstd": self.floats(rstd),
            "grad_x": Memory(self.device, x.shape, TYPES[kind], layout, shifts[2]),
            "grad_weight": self.result(n, c),
            "grad_bias": self.result(n, c),
        }
        return self.call(AdainBackward, kind, layout, x.shape, memories, relu=relu)[-3:]

    def sample_norm(self, x, gamma, beta, *, relu=False, eps=EPS, kind="f32", layout="nchw", shifts=(0, 0)):
        """y, offset, std; ``shifts`` are of x and y."""
        n = x.shape[0]
        memories = {
            "x": self.place(kind, layout, shifts[0], x),
            "gamma": self.floats(gamma),
            "beta": self.floats(beta),
            "y": Memory(self.device, x.shape, TYPES[kind], layout, shifts[1]),
            "offset": self.result(n),
            "std": self.result(n),
        }
        return self.call(SampleNorm, kind, layout, x.shape, memories, relu=relu, eps=eps)[-3:]

    def sample_norm_backward(self, grad_y, x, offset, std, gamma, beta, *, relu=False, eps=EPS, kind="f32",
                             layout="nchw", shifts=(0, 0, 0)):  # fmt: skip
        """grad_x, grad_gamma, grad_beta; ``shifts`` are of grad_y, x and grad_x."""
        c = x.shape[1]
        memories = {
            "grad_y": self.place(kind, layout, shifts[0], grad_y),
            "x": self.place(kind, layout, shifts[1], x),
            "gamma": self.floats(gamma),
            "beta": self.floats(beta),
            "offset": self.floats(offset),
            "std": self.floats(std),
            "grad_x": Memory(self.device, x.shape, TYPES[kind], layout, shifts[2]),
            "grad_gamma": self.result(c),
            "grad_beta": self.result(c),
        }
        return self.call(SampleNormBackward, kind, layout, x.shape, memories, relu=relu, eps=eps)[-3:]


@pytest.fixture(scope="module", params=["host", "gpu"])
def k(request, tmp_path_factory):
    if request.param == "host":
        if build.missing():
            pytest.skip(build.missing())
        return Kernels(build.load(*SOURCES), "cpu")
    if not torch.cuda.is_available():
        pytest.skip("no GPU that torch can use")
    library = build.load_for_gpu(*SOURCES, folder=tmp_path_factory.mktemp("norms"))
    if library is None:
        pytest.skip("no nvcc or nvidia-smi to compile the kernels for the GPU")
    return Kernels(library, "cuda")


# what is expected


def some(shape, kind="f32", mean=1.0, spread=2.0, seed=0):
    """Random values that the element type can hold."""
    values = np.random.default_rng([seed, *shape]).normal(mean, spread, shape)
    return torch.as_tensor(values).to(TYPES[kind]).double()


def style(*shape, seed=1):
    rng = np.random.default_rng([seed, *shape])
    return some(shape, mean=rng.choice([-1.0, 1.0]), spread=0.5, seed=seed), some(shape, mean=0.2, seed=seed + 1)


def spread_out(numbers):
    """[N,C] beside planes [N,C,H,W]."""
    return numbers[:, :, None, None]


def adain_expected(x, weight=None, bias=None, residual=None, relu=False, eps=EPS):
    y = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), unbiased=False, keepdim=True) + eps).sqrt()
    if weight is not None:
        y = y * spread_out(weight) + spread_out(bias)
    return y.relu() if relu else y if residual is None else y + residual


def sample_norm_expected(x, gamma, beta, relu=False, eps=EPS):
    axes = (1, 2, 3)
    y = (x - x.mean(axes, keepdim=True)) / (x.std(axes, unbiased=True, keepdim=True) + eps)
    y = y * gamma[:, None, None] + beta[:, None, None]
    return y.relu() if relu else y


def gradients(function, grad_y, *inputs, **options):
    """Torch's, in float64."""
    inputs = [t.clone().requires_grad_() for t in inputs]
    return torch.autograd.grad((function(*inputs, **options) * grad_y).sum(), inputs)


def assert_near(actual, expected, kind="f32", tolerance=4e-6):
    """Within one rounding of the element type, and `tolerance` of the largest value for float arithmetic."""
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(actual, expected, rtol=1.01 * ROUNDING[kind], atol=tolerance * max(largest, 1.0))


def assert_sums_near(actual, expected, terms):
    """Within what float sums of such `terms` may be off."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=4e-7 * float(terms.abs().sum((2, 3)).max()) + 1e-6)


each_type = pytest.mark.parametrize("kind", TYPES)
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


# forward


@each_layout
@each_type
@pytest.mark.parametrize("shape", SHAPES)
def test_adain(k, shape, kind, layout):
    x, (weight, bias) = some(shape, kind), style(*shape[:2])
    y, offset, rstd = k.adain(x, weight, bias, kind=kind, layout=layout)
    assert_near(y, adain_expected(x, weight, bias), kind)
    assert_near(offset + x[:, :, 0, 0], x.mean((2, 3)))
    torch.testing.assert_close(rstd, (x.var((2, 3), unbiased=False) + EPS).rsqrt(), rtol=2e-6, atol=0)

    assert_near(k.adain(x, kind=kind, layout=layout, save=False)[0], adain_expected(x), kind)
    assert_near(
        k.adain(x, weight, bias, relu=True, kind=kind, layout=layout)[0],
        adain_expected(x, weight, bias, relu=True),
        kind,
    )
    residual = some(shape, kind, seed=5)
    y, *_ = k.adain(x, weight, bias, residual, kind=kind, layout=layout, onto_residual=True)
    assert_near(y, adain_expected(x, weight, bias, residual), kind)


@each_layout
@each_type
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if np.prod(shape[1:]) > 1])
def test_sample_norm(k, shape, kind, layout):
    x, (gamma, beta) = some(shape, kind), style(shape[1])
    for relu in (False, True):
        y, offset, std = k.sample_norm(x, gamma, beta, relu=relu, kind=kind, layout=layout)
        assert_near(y, sample_norm_expected(x, gamma, beta, relu), kind)
    assert_near(offset + x[:, 0, 0, 0], x.mean((1, 2, 3)))
    torch.testing.assert_close(std, x.std((1, 2, 3)), rtol=2e-6, atol=0)


@each_layout
@each_type
def test_forward_at_odd_addresses(k, kind, layout):
    shape = (2, 8, 9, 15)  # whole vectors, were it not for the addresses
    x, residual, (weight, bias) = some(shape, kind), some(shape, kind, seed=5), style(2, 8)
    expected = adain_expected(x, weight, bias, residual)
    for shifts in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (3, 3, 3), (1, 2, 3)):
        y, *_ = k.adain(x, weight, bias, residual, kind=kind, layout=layout, shifts=shifts)
        assert_near(y, expected, kind)
    gamma, beta = style(8)
    for shifts in ((1, 0), (0, 1), (3, 3)):
        y, *_ = k.sample_norm(x, gamma, beta, kind=kind, layout=layout, shifts=shifts)
        assert_near(y, sample_norm_expected(x, gamma, beta), kind)


def test_planes_held_in_all_of_shared_memory(k):
    x = some((1, 96, 110, 113))  # 50 kB each, and as many as SMs
    y, *_ = k.adain(x)
    assert_near(y, adain_expected(x))


def test_lots_that_fit_into_the_second_level_cache(k):
    if k.device == "cpu":
        pytest.skip("17 MB take too long under emulation; the gradients' lots do not")
    x, (weight, bias) = some((3, 1, 1200, 1201)), style(3, 1)  # 5.8 MB each, so more than 16 MiB
    y, offset, _ = k.adain(x, weight, bias)
    assert_near(y, adain_expected(x, weight, bias))
    assert_near(offset + x[:, :, 0, 0], x.mean((2, 3)))


@each_layout
@pytest.mark.parametrize("size", [(9, 11), (70, 71)])
def test_a_mean_far_above_the_spread(k, size, layout):
    for mean in (1e4, -3e5, 1e7) if size[0] < 50 else (-3e5,):
        x, (weight, bias) = some((1, 3, *size), mean=mean, spread=max(1.0, abs(mean) * 1e-6)), style(1, 3)
        y, offset, rstd = k.adain(x, weight, bias, layout=layout)
        assert_near(y, adain_expected(x, weight, bias), tolerance=1e-5)
        grad_y = some(x.shape, seed=7)
        actual = k.adain_backward(grad_y, x, offset, rstd, weight, bias, layout=layout)
        for ours, theirs in zip(actual, gradients(adain_expected, grad_y, x, weight, bias), strict=True):
            assert_near(ours, theirs, tolerance=2e-5)
        gamma, beta = style(3)
        y, *_ = k.sample_norm(x, gamma, beta, layout=layout)
        assert_near(y, sample_norm_expected(x, gamma, beta), tolerance=1e-5)


@each_layout
@pytest.mark.parametrize("size", [(9, 11), (70, 71)])
def test_an_outlier_where_sums_start(k, size, layout):
    x = some((1, 4, *size))
    x[:, :, 0, 0] = 1e4
    y, *_ = k.adain(x, layout=layout)
    assert_near(y, adain_expected(x), tolerance=1e-5)


@each_layout
@each_type
def test_a_constant_plane_is_the_bias(k, kind, layout):
    x, (weight, bias) = torch.full((2, 9, 8, 17), 3.1).to(TYPES[kind]).double(), style(2, 9)
    y, offset, rstd = k.adain(x, weight, bias, kind=kind, layout=layout)
    assert_near(y, spread_out(bias).expand_as(y), kind, tolerance=0)
    assert bool((offset == 0).all())
    grad_y = some(x.shape, kind, spread=1e-2, mean=0.0, seed=7)
    grad_x, grad_weight, grad_bias = k.adain_backward(grad_y, x, offset, rstd, weight, bias, kind=kind, layout=layout)
    assert_near(grad_x, gradients(adain_expected, grad_y, x, weight, bias)[0], kind)
    assert bool((grad_weight == 0).all())
    assert_near(grad_bias, grad_y.sum((2, 3)))

    gamma, beta = style(9)
    y, offset, std = k.sample_norm(x, gamma, beta, kind=kind, layout=layout)
    assert_near(y, beta[:, None, None].expand_as(y), kind, tolerance=0)
    assert bool((std == 0).all())
    grad_x, grad_gamma, _ = k.sample_norm_backward(grad_y, x, offset, std, gamma, beta, kind=kind, layout=layout)
    weighted = grad_y * gamma[:, None, None]  # the deviation's own gradient, undefined at 0, is left out
    assert_near(grad_x, (weighted - weighted.mean((1, 2, 3), keepdim=True)) / EPS, kind, tolerance=1e-5)
    assert bool((grad_gamma == 0).all())


@each_layout
@pytest.mark.parametrize(
    ("size", "bad"),
    [((9, 11), float("nan")), ((9, 11), float("inf")), ((9, 11), float("-inf")), ((70, 71), float("nan"))],
)
def test_a_bad_value_stays_in_its_plane(k, size, layout, bad):
    x, (weight, bias), grad_y = some((2, 4, *size)), style(2, 4), some((2, 4, *size), seed=7)

    def run(x):
        y, offset, rstd = k.adain(x, weight, bias, relu=True, layout=layout)
        return y, *k.adain_backward(grad_y, x, offset, rstd, weight, bias, relu=True, layout=layout)[:2]

    for at in ((1, 3, 0, 0), (1, 3, 5, 6)):
        spoiled = x.clone()
        spoiled[at] = bad
        for clean, dirty in zip(run(x), run(spoiled), strict=True):
            assert bool(dirty[1, 3].isnan().all())
            dirty[1, 3] = clean[1, 3]
            assert torch.equal(clean, dirty)
    gamma, beta = style(4)
    clean, dirty = (k.sample_norm(t, gamma, beta, relu=True, layout=layout)[0] for t in (x, spoiled))
    assert torch.equal(clean[0], dirty[0]) and bool(dirty[1].isnan().all())


@each_layout
def test_eps(k, layout):
    x, (gamma, beta) = some((1, 3, 8, 9), spread=1e-2), style(3)
    for eps in (1e-12, 1e-3, 10.0):
        assert_near(k.adain(x, eps=eps, layout=layout)[0], adain_expected(x, eps=eps))
        y, *_ = k.sample_norm(x, gamma, beta, eps=eps, layout=layout)
        assert_near(y, sample_norm_expected(x, gamma, beta, eps=eps))


def test_one_value_has_no_deviation(k):
    y, _, std = k.sample_norm(some((2, 1, 1, 1)), *style(1))
    assert bool(y.isnan().all() and std.isnan().all())


@each_layout
@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (0, 0, 4, 5)])
def test_nothing(k, shape, layout):
    x, planes, n, c = torch.zeros(shape).double(), torch.zeros(shape[:2]).double(), *shape[:2]
    assert k.adain(x, planes, planes, layout=layout)[0].shape == shape
    assert k.adain_backward(x, x, planes, planes, planes, planes, layout=layout)[0].shape == shape
    channels, samples = torch.ones(c).double(), torch.ones(n).double()
    assert k.sample_norm(x, channels, channels, layout=layout)[0].shape == shape
    _, grad_gamma, grad_beta = k.sample_norm_backward(x, x, samples, samples, channels, channels, layout=layout)
    assert torch.equal(grad_gamma, torch.zeros(c).double()) and torch.equal(grad_beta, grad_gamma)


# backward


@each_layout
@each_type
@pytest.mark.parametrize("shape", SHAPES)
def test_adain_backward(k, shape, kind, layout):
    x, (weight, bias), grad_y = some(shape, kind), style(*shape[:2]), some(shape, kind, mean=0.3, seed=7)
    for relu in (False, True):
        _, offset, rstd = k.adain(x, weight, bias, relu=relu, kind=kind, layout=layout)
        actual = k.adain_backward(grad_y, x, offset, rstd, weight, bias, relu=relu, kind=kind, layout=layout)
        grad_x, grad_weight, grad_bias = gradients(adain_expected, grad_y, x, weight, bias, relu=relu)
        # Where one pixel is its own mean, what is left of 1 / sqrt(eps) = 316 times the gradient is rounding.
        assert_near(actual[0], grad_x, kind, tolerance=1e-5 if shape[2] * shape[3] > 1 else 1e-2)
        assert_sums_near(actual[1], grad_weight, grad_y)
        assert_sums_near(actual[2], grad_bias, grad_y)
    grad_x, *_ = k.adain_backward(grad_y, x, offset, rstd, kind=kind, layout=layout)
    expected = gradients(adain_expected, grad_y, x)[0]
    assert_near(grad_x, expected, kind, tolerance=1e-5 if shape[2] * shape[3] > 1 else 1e-2)


@each_layout
@each_type
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if np.prod(shape[1:]) > 1])
def test_sample_norm_backward(k, shape, kind, layout):
    x, (gamma, beta), grad_y = some(shape, kind), style(shape[1]), some(shape, kind, mean=0.3, seed=7)
    for relu in (False, True):
        _, offset, std = k.sample_norm(x, gamma, beta, relu=relu, kind=kind, layout=layout)
        actual = k.sample_norm_backward(grad_y, x, offset, std, gamma, beta, relu=relu, kind=kind, layout=layout)
        expected = gradients(sample_norm_expected, grad_y, x, gamma, beta, relu=relu)
        assert_near(actual[0], expected[0], kind, tolerance=1e-5)
        assert_sums_near(actual[1], expected[1], len(x) * grad_y)
        assert_sums_near(actual[2], expected[2], len(x) * grad_y)


@each_layout
@each_type
def test_backward_at_odd_addresses(k, kind, layout):
    shape = (2, 8, 9, 15)
    x, (weight, bias), grad_y = some(shape, kind), style(2, 8), some(shape, kind, seed=7)
    _, offset, rstd = k.adain(x, weight, bias)
    gamma, beta = style(8)
    _, sample_offset, std = k.sample_norm(x, gamma, beta)
    expected = gradients(adain_expected, grad_y, x, weight, bias)
    sample_expected = gradients(sample_norm_expected, grad_y, x, gamma, beta)
    for shifts in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (3, 3, 3), (1, 2, 3)):
        options = {"kind": kind, "layout": layout, "shifts": shifts}
        actual = k.adain_backward(grad_y, x, offset, rstd, weight, bias, **options)
        for ours, theirs, rounded in zip(actual, expected, (kind, "f32", "f32"), strict=True):
            assert_near(ours, theirs, rounded, tolerance=1e-5)
        actual = k.sample_norm_backward(grad_y, x, sample_offset, std, gamma, beta, **options)
        for ours, theirs, rounded in zip(actual, sample_expected, (kind, "f32", "f32"), strict=True):
            assert_near(ours, theirs, rounded, tolerance=1e-5)


def test_gradients_of_lots_that_fit_into_the_second_level_cache(k):
    shape = (3, 1, 850, 851)  # 5.8 MB each with grad_y, so more than 16 MiB
    x, (weight, bias), grad_y = some(shape), style(3, 1), some(shape, seed=7)
    offset, rstd = x.mean((2, 3)) - x[:, :, 0, 0], (x.var((2, 3), unbiased=False) + EPS).rsqrt()
    actual = k.adain_backward(grad_y, x, offset, rstd, weight, bias)
    expected = gradients(adain_expected, grad_y, x, weight, bias)
    assert_near(actual[0], expected[0], tolerance=1e-5)
    assert_sums_near(actual[1], expected[1], grad_y)
    assert_sums_near(actual[2], expected[2], grad_y)


@each_layout
def test_the_slope_of_a_loss(k, layout):
    """The gradient is what a loss really gains from a small step, as far as a difference of floats can tell."""
    x, (weight, bias), grad_y = some((1, 2, 6, 7)), style(1, 2), some((1, 2, 6, 7), seed=7)
    step = some(x.shape, mean=0.0, spread=1e-2, seed=9)
    _, offset, rstd = k.adain(x, weight, bias, layout=layout)
    grad_x, *_ = k.adain_backward(grad_y, x, offset, rstd, weight, bias, layout=layout)
    ahead, behind = ((k.adain(at, weight, bias, layout=layout)[0] * grad_y).sum() for at in (x + step, x - step))
    torch.testing.assert_close((ahead - behind) / 2, (grad_x * step).sum(), rtol=2e-3, atol=2e-4)


# the same bits, whatever the order


@each_layout
@pytest.mark.parametrize("shape", [(1, 9, 8, 9), (1, 2, 71, 73)])
def test_every_order_of_threads_and_blocks_gives_the_same_bits(k, shape, layout):
    x, (weight, bias), (gamma, beta), grad_y = some(shape), style(*shape[:2]), style(shape[1]), some(shape, seed=7)

    def run():
        y, offset, rstd = k.adain(x, weight, bias, layout=layout)
        z, middle, std = k.sample_norm(x, gamma, beta, layout=layout)
        return [
            *(y, offset, rstd, z, middle, std),
            *k.adain_backward(grad_y, x, offset, rstd, weight, bias, relu=True, layout=layout),
            *k.sample_norm_backward(grad_y, x, middle, std, gamma, beta, relu=True, layout=layout),
        ]

    first = run()
    for _ in build.orders(k.library) if k.device == "cpu" else range(5):
        assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_more_than_two_to_the_31_elements(k, layout):
    if k.device != "cuda" or torch.cuda.mem_get_info()[0] < 16e9:
        pytest.skip("needs a GPU with 16 GB of free memory")
    c, h, w = 3, 26800, 26801
    x = torch.randn((1, c, h, w), dtype=torch.float16, device="cuda")
    if layout == "nhwc":
        x = x.contiguous(memory_format=torch.channels_last)
    y, offset, rstd = torch.full_like(x, float("nan")), torch.empty(1, c).cuda(), torch.empty(1, c).cuda()
    p = Adain(x=x.data_ptr(), type=1, layout=LAYOUTS.index(layout), n=1, c=c, h=h, w=w, eps=EPS, y=y.data_ptr())
    p.offset, p.rstd = offset.data_ptr(), rstd.data_ptr()
    workspace = torch.empty(k.library.t_adain_workspace(ctypes.byref(p)), dtype=torch.uint8, device="cuda")
    p.workspace = workspace.data_ptr()
    assert k.library.t_adain(ctypes.byref(p)) == 0
    torch.cuda.synchronize()
    for plane, out in zip(x[0], y[0], strict=True):
        mean = sum(rows.double().sum() for rows in plane.split(1000)) / plane.numel()
        variance = sum((rows.double() - mean).square().sum() for rows in plane.split(1000)) / plane.numel()
        for rows, ours in zip(plane.split(1000), out.split(1000), strict=True):
            expected = (rows.double() - mean) / (variance + EPS).sqrt()
            torch.testing.assert_close(ours.double(), expected, rtol=2.0**-10, atol=1e-4)
