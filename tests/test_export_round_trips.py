"""Weights -> every format that can be written here -> Fuser -> the picture that torch makes of the weights."""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
import pytest

from export.calibration import calibration_pairs
from export.formats import FORMATS
from export.options import plan
from export.pipeline import export
from export.verify import Case, load_double
from pyldfusion import Fuser
from pyldfusion.errors import InputError

onnx = pytest.importorskip("onnx")

#: Every format in every precision, and what of its frames may differ: in levels, largest and mean.
WRITTEN = [
    (row.name, precision) for row in FORMATS.values() for precision in row.precisions if not (row.missing or row.built)
]
MAY_DIFFER = {"fp32": (1, 0.01), "fp16-stored": (3, 0.2), "fp16": (6, 0.5), "int8": (40, 2.0)}


@pytest.fixture(scope="module")
def written(tiny_network, tiny_frames, tmp_path_factory):
    """Files of the tiny network by format and precision."""
    folder, files = tmp_path_factory.mktemp("written"), {}

    def copied(*args, **options):
        model = onnx.ModelProto()
        model.CopyFrom(tiny_frames)
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.pipeline.build_model", copied)  # tracing is slow, and the same for all
        patch.setattr("export.int8.calibration_pairs", partial(calibration_pairs, count=2, size=(96, 128)))
        for name, precision in WRITTEN:
            path = folder / f"m-{precision}{FORMATS[name].suffix}"
            job = plan("lite", path, format=name, precision=precision, no_verify=True)
            files[name, precision] = export(job, tiny_network).path
    return files


@pytest.mark.parametrize("size", [(16, 16), (93, 41), (48, 64)])
@pytest.mark.parametrize("name, precision", WRITTEN)
def test_the_same_picture(written, tiny_network, name, precision, size):
    from export.pairs import generated

    (pair,) = generated(1, "verify", size)
    expected = np.clip(np.rint(Case.of(pair, load_double(tiny_network), 1, {}).expected("frames")), 0, 255)
    largest, mean = MAY_DIFFER[precision]
    for engine in FORMATS[name].runtimes:
        if engine == "torch":  # opens networks of known shapes alone
            continue
        with Fuser(written[name, precision], engine=engine, device="cpu", precision="fp32") as fuser:
            difference = np.abs(fuser.fuse(pair.ir, pair.vis).astype(int) - expected)
        assert difference.max() <= largest and difference.mean() <= mean, engine


@pytest.mark.parametrize("name, precision", WRITTEN)
def test_batches_are_their_frames(written, name, precision):
    rng = np.random.default_rng(1)
    irs, viss = rng.integers(0, 256, (3, 33, 21), np.uint8), rng.integers(0, 256, (3, 33, 21, 3), np.uint8)
    with Fuser(written[name, precision]) as fuser:
        together = fuser.fuse_batch(list(irs), list(viss))
        alone = [fuser.fuse(ir, vis) for ir, vis in zip(irs, viss, strict=True)]
    assert np.abs(np.array(together).astype(int) - alone).max() <= 1


def test_frames_of_another_size_than_the_file_is_for(models, tmp_path):
    path = tmp_path / "m.onnx"
    export(plan(models / "lite.safetensors", path, imgsz=[32, 48], no_verify=True))
    for engine in ("onnxruntime", "openvino"):
        pytest.importorskip(engine)
        with Fuser(path, engine=engine) as fuser:
            assert fuser.fuse(np.zeros((32, 48), np.uint8), np.zeros((32, 48, 3), np.uint8)).shape == (32, 48, 3)
            with pytest.raises(InputError, match="is for frames of 48x32"):
                fuser.fuse(np.zeros((33, 48), np.uint8), np.zeros((33, 48, 3), np.uint8))


def test_twelve_megapixels(tmp_path):
    """Sums over that many pixels lose digits in 32 bits; runtimes must not lose more than a level."""
    import torch

    from export.onnx import export_onnx
    from pyldfusion.generator import Generator, Variant
    from trainer.start.initialise import initialise

    network = initialise(Generator(Variant((2, 2, 4, 4), True, "tanh")), seed=5).eval()
    export_onnx(network, tmp_path / "large.onnx")
    rng = np.random.default_rng(6)
    grey = [cv2.resize(rng.random((60, 80), np.float32), (4000, 3000), interpolation=cv2.INTER_CUBIC) for _ in range(2)]
    ir, vis = (np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8) for x in grey)
    with torch.inference_mode():
        planes = (torch.from_numpy(x)[None, None] / 255 for x in (ir, vis))
        expected = np.rint(network(*planes)[0, 0].numpy() * 255).astype(int)
    for engine in FORMATS["onnx"].runtimes:
        if engine == "torch":
            continue
        with Fuser(tmp_path / "large.onnx", engine=engine, device="cpu", precision="fp32") as fuser:
            difference = np.abs(fuser.fuse(ir, np.repeat(vis[..., None], 3, 2))[..., 1] - expected)
        assert difference.max() <= 1 and difference.mean() <= 0.01, engine
