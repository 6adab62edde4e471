"""The custom operators: their shapes, gradients and compilation, and the network with them against plain torch.

On the CPU through their torch implementation, under emulation through the CUDA module's kernels, and on a GPU where
there is one.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyldfusion import cuda, kernels, torch_ops
from pyldfusion.errors import DtypeError, InputError
from pyldfusion.generator import NORM_EPS, Generator
from trainer.config import PatchConfig
from trainer.entropy import histogram_entropy, patch_entropy
from trainer.patches import draw_patches
from trainer.start.initialise import initialise

needs_gpu = pytest.mark.skipif(not (torch.cuda.is_available() and cuda.available()), reason="no GPU with kernels here")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_gpu)]
HALF = [torch.float16, torch.bfloat16]


@pytest.fixture
def everywhere(monkeypatch):
    """The network uses the operators on the CPU too."""
    monkeypatch.setattr(torch_ops, "_DEVICES", {"cpu", "cuda"})
    monkeypatch.setattr(torch_ops, "_kernels", lambda: True)


@pytest.fixture
def emulated(emulated_cuda):
    """The operators' CUDA implementation takes CPU tensors, and the emulated kernels run."""
    library = torch.library.Library("pyldfusion", "IMPL")
    for name in torch_ops._OPERATORS:
        library.impl(name, getattr(torch_ops, f"_{name}_cuda"), "CPU", allow_override=True)
    yield
    library._destroy()  # the CPU's own are back


def noise(*shape: int, dtype=torch.float64, device="cpu", seed=0, grad=False) -> Tensor:
    made = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return made.to(device, dtype).requires_grad_(grad)


def plain_adain(x, weight, bias, residual, relu):
    y = F.instance_norm(x, eps=NORM_EPS)
    if weight is not None:
        y = y * weight[:, :, None, None] + bias[:, :, None, None]
    y = F.relu(y) if relu else y
    return y if residual is None else residual + y


VARIANTS = [(style, relu, residual) for style in (True, False) for relu, residual in ((0, 0), (1, 0), (0, 1))]


def adain_arguments(style, relu, residual, shape=(2, 3, 5, 4), dtype=torch.float64, device="cpu", grad=True):
    x = noise(*shape, dtype=dtype, device=device, grad=grad)
    scales = [noise(*shape[:2], dtype=dtype, device=device, seed=s, grad=grad) if style else None for s in (1, 2)]
    added = noise(*shape, dtype=dtype, device=device, seed=3, grad=grad) if residual else None
    return x, *scales, added, bool(relu)


# the operators alone


@pytest.mark.parametrize(("style", "relu", "residual"), VARIANTS)
def test_adain_has_the_gradient_of_what_it_computes(style, relu, residual):
    x, weight, bias, added, relu = adain_arguments(style, relu, residual)

    def run(*tensors):
        x, weight, bias, added = tensors
        return torch_ops.adain(x, weight, bias, relu=relu, residual=added)

    torch.testing.assert_close(run(x, weight, bias, added), plain_adain(x, weight, bias, added, relu))
    assert torch.autograd.gradcheck(run, (x, weight, bias, added))


@pytest.mark.parametrize("relu", [False, True])
def test_sample_norm_has_the_gradient_of_what_it_computes(relu):
    x, gamma, beta = noise(2, 3, 4, 5, grad=True), noise(3, seed=1, grad=True), noise(3, seed=2, grad=True)
    centred = x - x.mean((1, 2, 3), keepdim=True)
    plain = centred / (x.std((1, 2, 3), keepdim=True) + 1e-5) * gamma[:, None, None] + beta[:, None, None]
    torch.testing.assert_close(torch_ops.sample_norm(x, gamma, beta, relu=relu), F.relu(plain) if relu else plain)
    assert torch.autograd.gradcheck(lambda *t: torch_ops.sample_norm(*t, relu=relu), (x, gamma, beta))


def opcheck_arguments(device: str):
    for variant, dtype in (
        ((True, 1, 0), torch.float32),
        ((True, 0, 1), torch.bfloat16),
        ((False, 0, 1), torch.float32),
    ):
        x, weight, bias, added, relu = adain_arguments(*variant, dtype=dtype, device=device)
        wide = [s if s is None else s.detach().float().requires_grad_() for s in (weight, bias)]
        yield "adain", (x, *wide, added, 1e-5, relu)
    x = noise(2, 3, 5, 4, dtype=torch.float32, device=device, grad=True).to(memory_format=torch.channels_last)
    scales = [noise(3, dtype=torch.float32, device=device, seed=s, grad=True) for s in (1, 2)]
    yield "sample_norm", (x, *scales, 1e-5, True)
    with torch.no_grad():
        x, scales = x.detach(), [s.detach() for s in scales]
        y, offset, std = torch.ops.pyldfusion.sample_norm(x, *scales, 1e-5, True)
        yield "sample_norm_backward", (torch.ones_like(y), x, *scales, offset, std, 1e-5, True)
        y, offset, rstd = torch.ops.pyldfusion.adain(x, None, None, None, 1e-5, False)
        yield "adain_backward", (torch.ones_like(y), x, None, None, offset, rstd, False)
    yield "patch_entropy", (torch.rand(3, 6, 7, device=device),)
    yield "patch_entropy_affine", (torch.rand(3, 16, 17, device=device), *affine_boxes(device), 9)


def affine_boxes(device: str) -> tuple[Tensor, Tensor]:
    """Boxes within 16x17 and maps: a turn with a shift, and the identity."""
    boxes = torch.tensor([[0, 1, 15], [4, 2, 8]], dtype=torch.int32)
    maps = torch.tensor([[[0.9, -0.4, 1.0], [0.4, 0.9, -2.0]], [[1.0, 0, 0], [0, 1, 0]]])
    return boxes.to(device), maps.to(device)


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device):
    for name, arguments in opcheck_arguments(device):
        torch.library.opcheck(getattr(torch.ops.pyldfusion, name).default, arguments)


@pytest.mark.parametrize("dtype", HALF)
def test_16_bits_are_computed_in_32(dtype):
    x = (noise(2, 4, 9, 7) * 100 + 300).to(dtype)  # squares overflow float16
    for result, wide in (
        (torch_ops.adain(x, relu=True), F.relu(F.instance_norm(x.double(), eps=1e-5))),
        (torch_ops.sample_norm(x, torch.ones(4), torch.zeros(4)), SampleNorm_of_ones(x.double())),
    ):
        assert result.dtype == dtype
        torch.testing.assert_close(result.double(), wide, rtol=2**-8 if dtype == torch.bfloat16 else 2**-10, atol=1e-3)


def SampleNorm_of_ones(x: Tensor) -> Tensor:  # noqa: N802
    return (x - x.mean((1, 2, 3), keepdim=True)) / (x.std((1, 2, 3), keepdim=True) + 1e-5)


def test_memory_formats_are_kept():
    x = noise(2, 3, 5, 7)
    for given, last in ((x, False), (x.to(memory_format=torch.channels_last), True), (x.transpose(2, 3), False)):
        for result in (torch_ops.adain(given), torch_ops.sample_norm(given, torch.ones(3), torch.zeros(3))):
            assert result.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def test_second_gradients_are_refused():
    x = noise(1, 2, 4, 4, grad=True)
    gamma = noise(2, grad=True)
    for y in (torch_ops.adain(x), torch_ops.sample_norm(x, gamma, gamma)):
        (grad,) = torch.autograd.grad((y * y * y).sum(), x, create_graph=True)
        with pytest.raises(InputError, match=r"no second derivative.*use\(False\)"):
            grad.sum().backward()


def test_what_is_refused():
    x = noise(2, 3, 4, 4)
    style = noise(2, 3)
    boxes, maps = affine_boxes("cpu")
    for call, error, says in (
        (lambda: torch_ops.adain(x.long()), DtypeError, "x is torch.int64"),
        (lambda: torch_ops.adain(x[0]), InputError, r"x has shape \[3, 4, 4\]"),
        (lambda: torch_ops.adain(x, style), InputError, "only one of weight and bias"),
        (lambda: torch_ops.adain(x, style, style[:1]), InputError, r"bias has shape \[1, 3\]; expected \[2, 3\]"),
        (lambda: torch_ops.adain(x, residual=x[:1]), InputError, "residual has shape"),
        (lambda: torch_ops.adain(x, residual=x, relu=True), InputError, "no relu"),
        (lambda: torch_ops.sample_norm(x, style, style), InputError, r"gamma has shape \[2, 3\]; expected \[3\]"),
        (lambda: torch_ops.patch_entropy(x), InputError, "patches have shape"),
        (lambda: torch_ops.patch_entropy(x[0, 0].long()), DtypeError, "int64"),
        (lambda: torch_ops.patch_entropy(x[0, :, :0]), InputError, "patches have shape"),
        (lambda: torch_ops.patch_entropy(x[0].int()), DtypeError, "int32"),
        (lambda: torch_ops.patch_entropy_affine(x, boxes, maps, 4), InputError, r"planes have .*\[P,H,W\]"),
        (lambda: torch_ops.patch_entropy_affine(x[0].int(), boxes, maps, 4), DtypeError, "planes are torch.int32"),
        (lambda: torch_ops.patch_entropy_affine(x[0], boxes.long(), maps, 4), DtypeError, "boxes are torch.int64"),
        (lambda: torch_ops.patch_entropy_affine(x[0], boxes, maps[:1], 4), InputError, r"expected \[2, 2, 3\] on cpu"),
        (lambda: torch_ops.patch_entropy_affine(x[0], boxes[:, :2], maps, 4), InputError, r"expected \[2, 3\] on cpu"),
        (lambda: torch_ops.patch_entropy_affine(x[0], boxes, maps, 4), InputError, r"boxes\[0\] .*inside the 4x4"),
    ):
        with pytest.raises(error, match=says):
            call()


def test_a_residual_of_another_type_is_promoted():
    x, added = noise(1, 2, 4, 4, dtype=torch.bfloat16), noise(1, 2, 4, 4, dtype=torch.float32)
    y = torch_ops.adain(x, residual=added)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, added + torch_ops.adain(x))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_patch_entropy_counts_as_torch_does(device, dtype):
    patches = torch.rand(5, 33, 31, generator=torch.Generator().manual_seed(1)).to(device)
    patches = (patches * 255).to(torch.uint8) if dtype == torch.uint8 else patches.to(dtype)
    values = patches / 255 if dtype == torch.uint8 else patches
    expected = histogram_entropy(values.double())
    torch.testing.assert_close(torch_ops.patch_entropy(patches), expected, rtol=0, atol=1e-9)
    strided = torch_ops.patch_entropy(patches.transpose(1, 2)[:, ::2])
    torch.testing.assert_close(strided, histogram_entropy(values.double()[..., ::2]), rtol=0, atol=1e-9)


# the network with them


def network(variant: str, dtype=torch.float32, device="cpu") -> Generator:
    return initialise(Generator(variant), 1).to(device, dtype)


def pair(dtype=torch.float32, device="cpu", size=(2, 1, 24, 40)):
    return (torch.rand(size, generator=torch.Generator().manual_seed(s)).to(device, dtype) for s in (1, 2))


def both_ways(generator: Generator, *pair: Tensor):
    """What the network gives and its gradients, with the operators and without."""
    for on in (True, False):
        generator.zero_grad()
        with torch_ops.use(on):
            fused = generator(*pair)
            (fused * torch.linspace(-1, 1, fused.shape[-1], device=fused.device)).sum().backward()
        yield fused.detach(), [p.grad.clone() for p in generator.parameters()]


@pytest.mark.parametrize("variant", ["full", "lite"])
def test_the_network_is_the_same_with_them(everywhere, monkeypatch, variant):
    monkeypatch.setitem(torch_ops._DTYPES, torch.float64, "float64")
    (fused, grads), (plain, plain_grads) = both_ways(network(variant, torch.float64), *pair(torch.float64))
    assert fused.std() > 0.001
    torch.testing.assert_close(fused, plain, rtol=0, atol=1e-10)
    torch.testing.assert_close(grads, plain_grads, rtol=1e-6, atol=1e-9)


@needs_gpu
@pytest.mark.parametrize("variant", ["full", "lite"])
@pytest.mark.parametrize("last", [False, True])
def test_the_network_is_the_same_on_a_gpu(variant, last):
    layout = torch.channels_last if last else torch.contiguous_format
    generator = network(variant, device="cuda").to(memory_format=layout)
    with torch.backends.cudnn.flags(allow_tf32=False):
        (fused, grads), (plain, plain_grads) = both_ways(generator, *pair(device="cuda"))
    torch.testing.assert_close(fused, plain, rtol=0, atol=1e-4)
    scale = max(grad.abs().max() for grad in plain_grads)
    torch.testing.assert_close(grads, plain_grads, rtol=1e-2, atol=1e-3 * scale.item())


@pytest.mark.parametrize(
    ("device", "dtype"),
    [("cpu", torch.bfloat16), *(pytest.param("cuda", dtype, marks=needs_gpu) for dtype in HALF)],
)
@pytest.mark.parametrize("variant", ["full", "lite"])
def test_autocast_follows_the_type_of_x(everywhere, device, dtype, variant):
    generator = network(variant, device=device)
    ir, vis = pair(device=device, size=(1, 1, 16, 24))
    kinds = set()
    hooks = [m.register_forward_hook(lambda _, __, y: kinds.add(y.dtype)) for m in generator.decoder.norm]
    with torch.autocast(device, dtype):
        (fused, grads), (plain, _) = both_ways(generator, ir, vis)
    for hook in hooks:
        hook.remove()
    assert kinds == {dtype}
    assert all(grad.dtype == torch.float32 and grad.isfinite().all() for grad in grads)
    exact = generator(ir, vis).detach()
    with_ops, without = ((result.float() - exact).square().mean() for result in (fused, plain))
    assert with_ops <= 1.5 * without + 1e-7


@pytest.mark.parametrize("device", DEVICES)
def test_the_network_compiles_whole(everywhere, device):
    torch._dynamo.reset()
    generator = network("full", device=device)
    compiled = torch.compile(generator, fullgraph=True, backend="aot_eager" if device == "cpu" else "inductor")
    ir, vis = pair(device=device)
    with torch.backends.cudnn.flags(allow_tf32=False):  # which would make much of the last digits that differ
        expected, result = generator(ir, vis), compiled(ir, vis)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5 if device == "cpu" else 1e-4)
    for fused in (expected, result):
        generator.zero_grad()
        fused.square().mean().backward()
        gradients = [p.grad for p in generator.parameters()]
        assert all(g.isfinite().all() for g in gradients)


def test_exports_see_plain_torch(everywhere):
    generator = network("full").eval()
    ir, vis = pair()
    exported = torch.export.export(generator, (ir, vis))
    assert not any("pyldfusion" in str(node.target) for node in exported.graph.nodes)
    traced = torch.jit.trace(generator, (ir, vis))
    assert "pyldfusion::" not in str(traced.inlined_graph)
    assert any("pyldfusion" in str(node.target) for node in torch.fx.symbolic_trace(Norm()).graph.nodes)


class Norm(torch.nn.Module):
    def forward(self, x):
        return torch.ops.pyldfusion.adain(x, None, None, None, 1e-5, False)[0]


def test_the_switch(everywhere, monkeypatch):
    x = torch.rand(1, 2, 4, 4)
    assert torch_ops.wants(x)
    with torch_ops.use(False):
        assert not torch_ops.wants(x)
        with torch_ops.use(True):
            assert torch_ops.wants(x)
        assert not torch_ops.wants(x)
    assert torch_ops.wants(x)
    torch_ops.use(False)
    assert not torch_ops.wants(x)
    torch_ops.use(True)
    assert not torch_ops.wants(x.double()) and not torch_ops.wants(x.int())


def test_without_a_gpu_nothing_is_wanted():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert not torch_ops.wants(torch.rand(1, 2, 4, 4))


# the CUDA side of the operators, with emulated kernels


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_kernels_give_what_torch_gives(emulated, dtype, last):
    layout = torch.channels_last if last else torch.contiguous_format
    tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    for style, relu, residual in VARIANTS:
        x, weight, bias, added, relu = adain_arguments(style, relu, residual, (2, 8, 5, 7), dtype, grad=False)
        x = (x + 3).to(memory_format=layout)
        added = None if added is None else added.transpose(2, 3).contiguous().transpose(2, 3)
        wide = [s if s is None else s.float() for s in (weight, bias)]
        given = (x, *wide, added, 1e-5, relu)
        results = torch.ops.pyldfusion.adain(*given)
        for result, expected in zip(results, torch_ops._adain_cpu(*given), strict=True):
            torch.testing.assert_close(result, expected, rtol=tolerance, atol=tolerance)
        assert results[0].is_contiguous(memory_format=layout)
        grad_y = noise(*x.shape, dtype=dtype, seed=9)
        back = (grad_y, x, *wide, *results[1:], relu)
        grads = torch.ops.pyldfusion.adain_backward(*back)
        for result, expected in zip(grads, torch_ops._adain_backward_cpu(*back), strict=True):
            torch.testing.assert_close(result, expected, rtol=2 * tolerance, atol=4 * tolerance)
    x, gamma, beta = noise(2, 8, 5, 7, dtype=dtype).to(memory_format=layout), noise(8).float(), noise(8, seed=2).float()
    results = torch.ops.pyldfusion.sample_norm(x, gamma, beta, 1e-5, True)
    for result, expected in zip(results, torch_ops._sample_norm_cpu(x, gamma, beta, 1e-5, True), strict=True):
        torch.testing.assert_close(result, expected, rtol=tolerance, atol=tolerance)
    back = (noise(*x.shape, dtype=dtype, seed=9), x, gamma, beta, *results[1:], 1e-5, True)
    grads = torch.ops.pyldfusion.sample_norm_backward(*back)
    for result, expected in zip(grads, torch_ops._sample_norm_backward_cpu(*back), strict=True):
        torch.testing.assert_close(result, expected, rtol=2 * tolerance, atol=4 * tolerance)


def test_the_network_runs_on_the_kernels(emulated, everywhere):
    (fused, grads), (plain, plain_grads) = both_ways(network("lite"), *pair(size=(1, 1, 16, 16)))
    torch.testing.assert_close(fused, plain, rtol=0, atol=1e-5)
    scale = max(grad.abs().max() for grad in plain_grads)
    torch.testing.assert_close(grads, plain_grads, rtol=1e-3, atol=1e-4 * scale.item())


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_entropy_of_affine_boxes_runs_on_the_kernel(emulated, everywhere, dtype):
    planes = torch.rand(2, 16, 17, generator=torch.Generator().manual_seed(1)).to(dtype)
    boxes, maps = affine_boxes("cpu")
    expected = kernels.entropy_affine(planes.float().numpy(), boxes.numpy(), maps.numpy(), 20)
    strided = boxes.repeat_interleave(2, 0)[::2], maps.mT.contiguous().mT
    for given in ((boxes, maps), strided):
        bits = torch_ops.patch_entropy_affine(planes, *given, 20)
        torch.testing.assert_close(bits, torch.from_numpy(expected), rtol=0, atol=1e-9)


def test_the_trainer_s_filter_runs_on_the_kernel(emulated, everywhere):
    planes = torch.rand(2, 24, 26, generator=torch.Generator().manual_seed(1))
    drawn = draw_patches(PatchConfig(count=4, side=(9, 20)), 24, 26, seed=0, step=0)
    expected = kernels.entropy_affine(planes.numpy(), drawn.boxes.astype("int32"), drawn.maps, 12)
    found = patch_entropy(planes, drawn, 12)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-9)
