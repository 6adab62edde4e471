"""G against the authors' networks written independently, and against outputs of the original code."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from pyldfusion.author_weights import author_names, to_state_dict
from pyldfusion.errors import ArtefactError, InputError
from pyldfusion.generator import VARIANTS, Generator, load_generator
from pyldfusion.rewrites import for_inference, freeze_dead_biases
from trainer.start.initialise import initialise, initialise_scaled

from .author_networks import LDFusion, LDLite, fill

REFERENCES = {"full": LDFusion, "lite": LDLite}


def ours(network: torch.nn.Module) -> Generator:
    variant, state = to_state_dict(network.state_dict())
    generator = Generator(variant)
    generator.load_state_dict(state)
    return generator.eval()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(16, 16), (17, 33), (40, 24), (31, 95)])
def test_equals_the_authors_network(variant, size):
    reference = fill(REFERENCES[variant](), seed=sum(size)).double()
    generator = ours(reference.float()).double()
    reference.double()
    ir, vis = torch.rand(2, 2, 1, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, result = reference(ir, vis), generator(ir, vis)
    assert result.shape == ir.shape
    assert expected.std() > 0.02  # else equality would say little
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-9)
    # the order of the sources matters, and is (ir, vis)
    assert (generator(vis, ir) - expected).abs().max() > 0.01


def test_parity_with_the_original_code(shared):
    fixture = np.load(shared / "upstream" / "parity.npz")
    generator = ours(fill(LDFusion(), seed=int(fixture["seed"])))
    with torch.inference_mode():
        fused = generator(torch.from_numpy(fixture["ir"]), torch.from_numpy(fixture["vis"]))
    assert np.abs(fused.numpy() - fixture["fused"]).max() <= 1e-4


@pytest.mark.parametrize(
    ("variant", "files"), [("full", "upstream/state_dict.json"), ("lite", "upstream/lite/state_dict.json")]
)
def test_names_and_shapes_of_the_authors(shared, variant, files):
    listed = json.loads((shared / files).read_text())
    if isinstance(listed, dict):
        listed = [entry for entries in listed.values() for entry in entries]
    published = {name: tuple(shape) for name, shape in listed if "running" not in name}
    state = Generator(variant).state_dict()
    assert {theirs: tuple(state[ours].shape) for ours, theirs in author_names(variant).items()} == published


@pytest.mark.parametrize(("variant", "millions"), [("full", 5.77), ("lite", 0.65)])
def test_size(variant, millions):
    assert sum(p.numel() for p in Generator(variant).parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


def test_samples_of_a_batch_do_not_touch_each_other():
    generator = ours(fill(LDFusion()))
    ir, vis = torch.rand(2, 3, 1, 24, 32, generator=torch.Generator().manual_seed(1))
    together = generator(ir, vis)
    for i in range(3):
        torch.testing.assert_close(generator(ir[i : i + 1], vis[i : i + 1]), together[i : i + 1], rtol=0, atol=1e-5)


def test_gradients_reach_every_parameter():
    generator = ours(fill(LDFusion())).train()
    generator(*torch.rand(2, 1, 1, 16, 24, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    # A convolution's bias before an instance norm has no effect, everything else has.
    dead = {n for n, p in generator.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-9}
    assert all(name.endswith("bias") and name.startswith(("content", "fusion.blocks")) for name in dead)


def test_constant_pictures_give_finite_values():
    generator = ours(fill(LDFusion()))
    for level in (0.0, 0.5, 1.0):
        plane = torch.full((1, 1, 16, 16), level)
        assert torch.isfinite(generator(plane, plane)).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_of_a_flat_plane_nothing_is_left(variant):
    network = for_inference(load_generator(variant))
    planes = torch.linspace(0, 1, 9)[:, None, None, None].expand(-1, 1, 50, 62)
    for encoder in (network.content_ir, network.content_vis):
        assert not encoder(planes).any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_beside_a_flat_plane_are_exact(variant):
    """32 bits against 64: rounding of a flat plane, or of biases that norms remove, would be raised to their size."""
    made = []
    for dtype in (torch.float32, torch.float64):
        random = torch.Generator().manual_seed(2)
        network = load_generator(variant).train()
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.data += 0.1 * torch.randn(parameter.shape, generator=random)
        freeze_dead_biases(network)
        network.to(dtype)
        ir, vis, weight = torch.rand(3, 2, 1, 48, 64, generator=random).to(dtype)
        ir[1] = 0.337
        (network(ir, vis) * weight).mean().backward()
        learns = [p.grad for name, p in network.named_parameters() if name.startswith("content_ir") and p.requires_grad]
        made.append(torch.cat([gradient.flatten().double() for gradient in learns]))
    assert float((made[0] - made[1]).norm()) < 1e-4 * float(made[1].norm())


@pytest.mark.parametrize(
    ("ir", "vis", "says"),
    [
        ((1, 1, 15, 32), (1, 1, 15, 32), "at least 16"),
        ((1, 3, 16, 16), (1, 3, 16, 16), "[N,1,H,W]"),
        ((1, 16, 16), (1, 16, 16), "[N,1,H,W]"),
        ((1, 1, 16, 16), (2, 1, 16, 16), "one shape"),
    ],
)
def test_shapes_that_are_refused(ir, vis, says):
    with pytest.raises(InputError, match=says.replace("[", r"\[").replace("]", r"\]")):
        Generator("lite")(torch.zeros(ir), torch.zeros(vis))


def test_unknown_variant():
    with pytest.raises(InputError, match=r"'huge'.*full, lite"):
        Generator("huge")


def test_initialise_is_seeded_and_follows_the_authors():
    first, again, other = (initialise(Generator("full"), seed) for seed in (3, 3, 4))
    weights = first.state_dict()
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in weights.items())
    assert not torch.equal(weights["decoder.up.0.weight"], other.state_dict()["decoder.up.0.weight"])
    assert weights["decoder.up.0.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    # what the authors leave to torch: U(+-1/sqrt(fan in)), whose deviation is the bound over sqrt(3)
    for name, inputs in (
        ("fusion.mlp.1.weight", 256),
        ("fusion.mlp.2.bias", 256),
        ("content_ir.blocks.0.conv1.bias", 128 * 9),
    ):
        assert weights[name].abs().max().item() <= inputs**-0.5
        assert weights[name].std().item() == pytest.approx((3 * inputs) ** -0.5, rel=0.15), name
    assert not weights["decoder.norm.0.beta"].any()
    assert weights["decoder.norm.0.gamma"].min() >= 0 and weights["decoder.norm.0.gamma"].max() <= 1


def test_load_generator_names_what_is_wrong(tmp_path):
    from pyldfusion.artefact import save_weights

    state = Generator("lite").state_dict()
    del state["decoder.out.bias"]
    state["decoder.out.weight"] = torch.zeros(1, 16, 5, 5)
    save_weights(state, tmp_path / "odd.safetensors", {"variant": "lite"})
    with pytest.raises(ArtefactError, match=r"out\.bias is missing.*out\.weight has shape \(1, 16, 5, 5\)"):
        load_generator(tmp_path / "odd.safetensors")
    save_weights(state, tmp_path / "unnamed.safetensors", {})
    with pytest.raises(ArtefactError, match="does not say which network"):
        load_generator(tmp_path / "unnamed.safetensors")


@pytest.mark.parametrize("variant", ["full", "lite"])
@pytest.mark.parametrize("count", [1, 2])
def test_gradients_do_not_depend_on_the_memory_format(variant, count):
    """Training has its weights channels last; torch's instance norm misreads such a gradient of one picture."""
    random = torch.Generator().manual_seed(0)
    ir, vis = (torch.rand(count, 1, 32, 40, generator=random, dtype=torch.float64) for _ in range(2))
    network = initialise_scaled(Generator(variant), 0).double()
    found = []
    for order in (torch.contiguous_format, torch.channels_last):
        network.to(memory_format=order).zero_grad()
        network(ir, vis).square().sum().backward()
        found.append({name: weight.grad.clone() for name, weight in network.named_parameters() if weight.ndim > 1})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-9, atol=1e-12, msg=name)
