"""The benchmark of precisions, on small pairs."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

from benchmarks import precision
from pyldfusion.scene import Scene


def small_pairs(count):
    frames = [Scene(seed=seed, size=(96, 64)).render() for seed in range(count)]
    return f"{count} small pairs", [(f.ir / np.float32(255), f.vis[..., 1] / np.float32(255)) for f in frames]


def test_16_bits_cost_what_they_have_fewer_digits(monkeypatch, capsys):
    monkeypatch.setattr(precision, "pairs", small_pairs)
    source, worst = precision.lowest_psnr("lite", 2, precision.torch.device("cpu"))
    assert source == "2 small pairs"
    assert worst["fp32"] > 110 > worst["fp16"] > worst["bf16"] + 10 > 50
    assert precision.main(["--model", "lite", "--pairs", "1", "--device", "cpu"]) == 0
    assert "lite: fp32 1" in capsys.readouterr().out
