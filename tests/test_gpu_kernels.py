"""pyldfusion.cuda on torch tensors against float64: on the GPU where there is one, and on the CPU under emulation.

``small`` cases are what the sanitizers run as well.
"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pyldfusion import cuda  # noqa: E402

EPS = 1e-5
#: Relative to the largest value.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}

#: [N,C,H,W]; `small` names what is run under the sanitizers.
SHAPES = {
    "small-odd": (2, 3, 5, 7),
    "small-one-pixel": (1, 5, 1, 1),
    "small-vector": (2, 8, 16, 16),
    "wide": (1, 33, 31, 65),
    "large": (1, 16, 120, 160),
}


def tensor(shape, dtype, layout, gpu, seed, spread=1.0, mean=0.0):
    made = np.random.default_rng(seed).normal(mean, spread, shape).astype(np.float32)
    return torch.from_numpy(made).to(dtype).to(memory_format=LAYOUTS[layout]).to(gpu)


def numbers(shape, gpu, seed):
    made = np.random.default_rng(seed).uniform(0.5, 1.5, shape).astype(np.float32)
    return torch.from_numpy(made).to(gpu)


def poisoned(*likes):
    """Memory that shows what was not written."""
    return tuple(torch.full_like(like, float("nan")) for like in likes)


def exact(*tensors):
    return tuple(x.double().cpu().requires_grad_() for x in tensors)


def close(found, expected, dtype):
    found = found.double().cpu()
    assert torch.isfinite(found).all()
    assert float((found - expected).abs().max()) <= TOLERANCE[dtype] * max(float(expected.abs().max()), 1.0)


def planes_normed(x, weight, bias):
    centred = x - x.mean((2, 3), keepdim=True)
    rstd = ((centred**2).mean((2, 3), keepdim=True) + EPS).rsqrt()
    return centred * rstd * weight[:, :, None, None] + bias[:, :, None, None]


def samples_normed(x, gamma, beta):
    centred = x - x.mean((1, 2, 3), keepdim=True)
    std = ((centred**2).sum((1, 2, 3), keepdim=True) / (x[0].numel() - 1)).sqrt()
    return centred / (std + EPS) * gamma[:, None, None] + beta[:, None, None]


every_case = pytest.mark.parametrize(
    ("name", "layout", "dtype"),
    [(name, layout, dtype) for name in SHAPES for layout in LAYOUTS for dtype in TOLERANCE],
    ids=lambda value: str(value).removeprefix("torch."),
)


@every_case
@pytest.mark.parametrize("extra", ["relu", "residual"])
def test_adain_and_its_gradients(gpu, name, layout, dtype, extra):
    shape = SHAPES[name]
    x = tensor(shape, dtype, layout, gpu, 1, spread=0.5, mean=3.0)
    weight, bias = numbers(shape[:2], gpu, 2), numbers(shape[:2], gpu, 3)
    residual = tensor(shape, dtype, layout, gpu, 4) if extra == "residual" else None
    relu = extra == "relu"
    y, offset, rstd = out = poisoned(x, weight, weight)
    cuda.adain(x, weight, bias, EPS, relu=relu, residual=residual, save=True, out=out)

    leaves = exact(x, weight, bias)
    normed = planes_normed(*leaves)
    expected = normed.relu() if relu else normed + residual.double().cpu()
    close(y, expected.detach(), dtype)

    grad_y = clear_of_zero(tensor(shape, dtype, layout, gpu, 5), normed, relu)
    grads = poisoned(x, weight, weight)
    cuda.adain_backward(grad_y, x, weight, bias, offset, rstd, relu=relu, out=grads)
    wanted = torch.autograd.grad(expected, leaves, grad_y.double().cpu())
    if shape[2] * shape[3] == 1:  # nothing varies, so nothing can be gained by x
        assert float(grads[0].abs().max()) < 1e-2
    else:
        close(grads[0], wanted[0], dtype)
    for found, right in zip(grads[1:], wanted[1:], strict=True):
        close(found, right, torch.float32)


@every_case
def test_sample_norm_and_its_gradients(gpu, name, layout, dtype):
    shape = SHAPES[name]
    x = tensor(shape, dtype, layout, gpu, 6, spread=2.0, mean=1.0)
    gamma, beta = numbers(shape[1:2], gpu, 7), numbers(shape[1:2], gpu, 8)
    per_sample = torch.empty(shape[0], device=gpu)
    y, offset, std = out = poisoned(x, per_sample, per_sample)
    cuda.sample_norm(x, gamma, beta, EPS, relu=True, save=True, out=out)

    leaves = exact(x, gamma, beta)
    normed = samples_normed(*leaves)
    expected = normed.relu()
    close(y, expected.detach(), dtype)

    grad_y = clear_of_zero(tensor(shape, dtype, layout, gpu, 9), normed, True)
    grads = poisoned(x, gamma, beta)
    cuda.sample_norm_backward(grad_y, x, gamma, beta, offset, std, EPS, relu=True, out=grads)
    wanted = torch.autograd.grad(expected, leaves, grad_y.double().cpu())
    close(grads[0], wanted[0], dtype)
    for found, right in zip(grads[1:], wanted[1:], strict=True):
        close(found, right, torch.float32)


def clear_of_zero(grad_y, normed, relu):
    """No gradient where the ReLU's side is a matter of rounding."""
    sure = (normed.detach().abs() > 1e-3).to(grad_y.device)
    return (grad_y * sure).contiguous(memory_format=_layout(grad_y)) if relu else grad_y


def _layout(x):
    return torch.contiguous_format if x.is_contiguous() else torch.channels_last


def test_planes_as_large_as_shared_memory_that_needs_no_asking(gpu):
    x = tensor((1, 96, 96, 128), torch.float32, "nchw", gpu, 12)  # 48 KiB a plane; from 96 planes on they are held
    (y,) = poisoned(x)
    cuda.instance_norm(x, EPS, out=y)
    one = torch.ones(1, 96, dtype=torch.float64)
    close(y, planes_normed(*exact(x), one, one * 0).detach(), torch.float32)


@pytest.mark.parametrize("mean", [1e3, 1e4])
def test_small_spread_on_a_large_mean(gpu, mean):
    x = tensor((1, 4, 24, 33), torch.float32, "nchw", gpu, 10, spread=1.0, mean=mean)
    (y,) = poisoned(x)
    cuda.instance_norm(x, EPS, out=y)
    (leaf,) = exact(x)
    one = torch.ones(1, 4, dtype=torch.float64)
    close(y, planes_normed(leaf, one, one * 0).detach(), torch.float32)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("shape", [(3, 7, 5), (2, 64, 64), (1, 150, 151)], ids=["small-odd", "small", "shared"])
def test_entropy(gpu, shape, dtype):
    pixels = np.random.default_rng(11).integers(0, 256, shape)
    pixels[0] = 17  # one patch of one value
    patches = torch.from_numpy(pixels.astype(np.uint8)) if dtype == "uint8" else torch.from_numpy(pixels / 256)
    patches = patches.to(getattr(torch, dtype)).to(gpu)  # 256ths are exact in every type
    (bits,) = poisoned(torch.empty(shape[0], dtype=torch.float64, device=gpu))
    cuda.entropy(patches, out=bits)
    counts = np.stack([np.bincount(patch.ravel(), minlength=256) for patch in pixels])
    share = counts / counts.sum(1, keepdims=True)
    expected = -(share * np.log2(np.where(share > 0, share, 1))).sum(1)
    np.testing.assert_allclose(bits.cpu().numpy(), expected, atol=1e-9)
    assert float(bits[0]) == 0.0


def test_small_entropy_of_boxes(gpu):
    image = np.random.default_rng(12).integers(0, 8, (41, 67)).astype(np.uint8)
    boxes = np.array([[0, 0, 67, 41], [3, 5, 1, 1], [60, 0, 7, 41], [11, 13, 30, 9]], np.int32)
    (bits,) = poisoned(torch.empty(len(boxes), dtype=torch.float64, device=gpu))
    cuda.entropy(torch.from_numpy(image).to(gpu), boxes, out=bits)
    for found, (x, y, width, height) in zip(bits.cpu().tolist(), boxes, strict=True):
        share = np.bincount(image[y : y + height, x : x + width].ravel()) / (width * height)
        share = share[share > 0]
        assert found == pytest.approx(-(share * np.log2(share)).sum(), abs=1e-9)
