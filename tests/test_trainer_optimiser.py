"""Muon, Adam beside it, and how the rate goes over a run."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from trainer.config import load_config  # noqa: E402
from trainer.learner import Learner  # noqa: E402
from trainer.run.optimiser import Muon, orthogonalise  # noqa: E402
from trainer.run.schedule import rate_factor  # noqa: E402


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (20, 20)])
def test_orthogonalise_brings_singular_values_near_one(shape):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(x))
    assert float(values.min()) > 0.5 and float(values.max()) < 1.3
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    assert float((orthogonalise(x) * (u @ v)).sum()) > 0.95 * min(shape) * 0.8  # the same directions


def test_adam_for_what_is_no_matrix():
    network = torch.nn.Linear(4, 3)
    start = {name: p.detach().clone() for name, p in network.named_parameters()}
    other = torch.nn.Parameter(start["bias"].clone())
    muon, adam = Muon(network, 0.02, 0.01, (0.9, 0.99)), torch.optim.Adam([other], 0.01, (0.9, 0.99))
    for k in range(5):
        grad = torch.linspace(-1, 1, 3) * (k + 1)
        network.bias.grad, other.grad = grad.clone(), grad.clone()
        network.weight.grad = torch.ones(3, 4)
        muon.step()
        adam.step()
    torch.testing.assert_close(network.bias, other, atol=1e-6, rtol=0)
    assert float((network.weight.detach() - start["weight"]).abs().max()) > 0.02


@pytest.mark.parametrize("objective", ["language", "supervised"])
def test_gradients_are_clipped_to_the_norm_that_is_asked_for(objective):
    """All of them by one factor; the norm that is told is that from before; 0 is no limit."""

    def gradients(clip: float, scale: float) -> tuple[torch.Tensor, float]:
        config = load_config("paper", [f"optimiser.clip={clip}", "network.variant=lite", f"run.objective={objective}"])
        learner = Learner(config, torch.device("cpu"))
        learnt = [p for p in learner.generator.parameters() if p.requires_grad]
        told = learner.backward(scale * sum(p.square().sum() for p in learnt), 1.0)
        return torch.cat([p.grad.flatten() for p in learnt]), float(told)

    free, norm = gradients(0.0, 1.0)
    assert float(free.norm()) == pytest.approx(norm, rel=1e-5) and norm > 1
    clipped, told = gradients(norm / 4, 1.0)
    assert told == pytest.approx(norm, rel=1e-6)
    assert float(clipped.norm()) == pytest.approx(norm / 4, rel=1e-4)
    torch.testing.assert_close(clipped, free / 4, rtol=1e-4, atol=1e-8)
    below, _ = gradients(norm / 4, 0.2)
    torch.testing.assert_close(below, 0.2 * free, rtol=1e-5, atol=1e-8)


def test_milestones_are_those_of_the_paper():
    """Warm-up over the first epoch, epochs 1-50 in full, 51-60 at a half, 61-70 at a quarter."""
    config = load_config("paper").schedule
    rates = [rate_factor(step, 700, 10, config) for step in range(700)]
    assert rates[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert rates[10:500] == [1.0] * 490 and rates[500:600] == [0.5] * 100 and rates[600:] == [0.25] * 100


def test_the_cosine_warms_up_stays_and_falls():
    config = replace(load_config("supervised-lite").schedule, warmup=10, decay_from=0.5, final=0.1)
    rates = [rate_factor(step, 100, 7, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[10:51] == [1.0] * 41
    assert all(a > b for a, b in itertools.pairwise(rates[50:]))
    assert rates[100] == pytest.approx(0.1)
