"""CLIP models small enough for tests, and how their results are compared."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import ModuleType

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
import torch.nn.functional as F  # noqa: E402

from pyldfusion.errors import DependencyError  # noqa: E402
from trainer.config import ClipConfig, PromptConfig  # noqa: E402
from trainer.towers.open_clip_model import load_open_clip  # noqa: E402
from trainer.towers.torchvision_import import import_torchvision  # noqa: E402

#: warnings that are meant in these tests: a module's ``pytestmark``
EXPECTED_WARNINGS = [
    pytest.mark.filterwarnings("ignore:(CLIP|VGG-19) HAS RANDOM WEIGHTS"),
    pytest.mark.filterwarnings("ignore:.* is emulated by this CPU"),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),  # OpenAI's files are TorchScript
]
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
SENTENCES = PromptConfig(objective=("a clear image", "salient objects"), infrared=("an infrared image",))


def need_open_clip() -> ModuleType:
    """open_clip beside a torchvision that imports; the test or module that calls this is skipped where they do not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import_torchvision()
        except DependencyError as error:
            pytest.skip(str(error), allow_module_level=True)
    return pytest.importorskip("open_clip")


def configuration(path: Path, vision: dict, **more) -> str:
    path.write_text(json.dumps({"embed_dim": 48, "vision_cfg": vision, "text_cfg": TEXT} | more))
    return str(path)


def vit(**changes) -> dict:
    return {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16, **changes}


RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}


def planes(*shape, seed=0, dtype=torch.float64, grad=True):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.to(dtype).requires_grad_(grad)


def random_model(model: str, seed=0):
    return load_open_clip(ClipConfig(model, "none", "fp32"), seed)


def plainly(model, x, mean, std, size):
    """Repeated, resized and normalised one after the other, through the model's own ``encode_image``."""
    x = F.interpolate(x.repeat(1, 3, 1, 1), size, mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(values, dtype=x.dtype).view(3, 1, 1) for values in (mean, std))
    return model.encode_image((x - mean) / std, normalize=False)


def trace(model, x, file):
    """A TorchScript archive."""
    calls = {"encode_image": x.repeat(1, 3, 1, 1), "encode_text": torch.zeros(1, 77, dtype=torch.int64)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace_module(model, calls, check_trace=False), file)


def gradient(output, x, seed=1):
    weight = torch.rand(output.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.autograd.grad((output * weight.to(output.dtype)).sum(), x, retain_graph=True)[0]


def close(a, b, relative):
    return (a.double() - b.double()).norm() <= relative * b.double().norm()


def near(a, b):
    return F.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.97
