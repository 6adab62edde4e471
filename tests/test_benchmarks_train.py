"""The benchmark of a training step: our side is what the trainer does."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from benchmarks import train  # noqa: E402
from pyldfusion.generator import Generator  # noqa: E402
from trainer.config import load_config  # noqa: E402
from trainer.objective import Batch, Losses  # noqa: E402
from trainer.run.precision import in_precision  # noqa: E402
from trainer.start.initialise import initialise  # noqa: E402


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "float32"), ("bf16", "float32"), ("fp64", "float64")])
def test_the_generator_runs_in_the_precision_that_training_has(precision, dtype, monkeypatch):
    inside, fused = [], []

    def objective(generator, batch):
        fused.append(generator(batch.ir, batch.vis))
        return Losses({"mean": fused[-1].mean()}, {"kept": torch.ones(())})

    class Watched(Generator):
        def __init__(self, variant):
            super().__init__(variant)
            self.decoder.out.register_forward_hook(lambda layer, given, result: inside.append(result.dtype))

    monkeypatch.setattr(train, "Generator", Watched)
    monkeypatch.setattr(train, "make_objective", lambda config, device: objective)
    cpu = torch.device("cpu")
    planes = torch.rand(2, 1, 1, 32, 48, generator=torch.Generator().manual_seed(0))
    batch = Batch(0, *planes, *planes)
    _, kept = train.our_step(load_config("paper", [f"run.precision={precision}"]), batch, cpu)(3)
    assert kept == 1
    assert inside == [torch.bfloat16 if precision == "bf16" else getattr(torch, dtype)]
    assert fused[0].dtype == getattr(torch, dtype)
    network = initialise(Generator("full")).to(dtype=getattr(torch, dtype), memory_format=torch.channels_last)
    given = batch.to(cpu, getattr(torch, dtype))
    expected = in_precision(network, precision, cpu)(given.ir, given.vis)
    torch.testing.assert_close(fused[0], expected, rtol=0, atol=1e-5)
