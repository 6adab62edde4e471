"""What inference rewrites: the same numbers as torch's, tensors that stay channels last, no pass for what is zero."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from pyldfusion import torch_ops  # noqa: E402
from pyldfusion.generator import load_generator  # noqa: E402
from pyldfusion.rewrites import InPrecision, ReflectChannelsLast, drop_dead_biases, for_inference  # noqa: E402

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("padding", [(1, 1, 1, 1), (3, 0, 3, 0), (2, 1, 0, 3), (0, 0, 0, 0)])
def test_reflects_as_torch_does(device, dtype, padding):
    for shape in ((1, 1, 4, 5), (2, 3, 7, 4), (3, 16, 9, 31), (1, 8, 5, 5)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
        expected = F.pad(x, padding, mode="reflect")
        for given in (x, x.to(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().transpose(2, 3)):
            padded = ReflectChannelsLast(padding)(given)
            assert torch.equal(padded, expected)
            assert padded.is_contiguous(memory_format=torch.channels_last)


class Watch(TorchDispatchMode):
    """Counts torch's own reflections of planes, and convolutions of many channels whose input is not channels last."""

    def __init__(self):
        super().__init__()
        self.of_planes = self.turned = self.convolutions = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = function.name()
        self.of_planes += "reflection_pad2d" in name
        if "convolution" in name:
            self.convolutions += 1
            self.turned += not arguments[0].is_contiguous(memory_format=torch.channels_last)
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize("variant", ["lite", "full"])
def test_the_16_bit_network_stays_channels_last(variant, monkeypatch):
    monkeypatch.setattr(torch_ops, "_DEVICES", {"cpu"})  # the norms too, as on a GPU with kernels
    monkeypatch.setattr(torch_ops, "_kernels", lambda: True)
    ir, vis = torch.rand(2, 1, 1, 40, 56, generator=torch.Generator().manual_seed(1))
    plain = for_inference(load_generator(variant))
    network = InPrecision(for_inference(load_generator(variant)), torch.bfloat16)
    with torch.no_grad():
        with Watch() as watch:
            fused = network(ir, vis)
        assert watch.of_planes == watch.turned == 0 and watch.convolutions > 10
        expected = plain.bfloat16()(ir.bfloat16(), vis.bfloat16()).float()
    assert fused.dtype == torch.float32
    assert float((fused - expected).abs().max()) < 0.05  # bfloat16 has three digits, and kernels sum in their own order


def test_the_network_in_32_bits_keeps_torchs_reflection():
    network = InPrecision(for_inference(load_generator("lite")), torch.float32)
    assert not any(isinstance(module, ReflectChannelsLast) for module in network.modules())


@pytest.mark.parametrize("variant", ["lite", "full"])
def test_biases_that_norms_remove_go_and_nothing_changes(variant):
    ir, vis = torch.rand(2, 1, 1, 40, 56, generator=torch.Generator().manual_seed(1))
    zeros, none = (for_inference(load_generator(variant)) for _ in range(2))
    drop_dead_biases(none)
    with torch.no_grad():
        assert torch.equal(none(ir, vis), zeros(ir, vis))
    assert len(list(none.parameters())) < len(list(zeros.parameters())) - 10
