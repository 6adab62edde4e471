"""Registration on the device, against SciPy's sampling and the host's own; tensors of the CPU stand for the GPU's."""

from __future__ import annotations

import gc

import cv2
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from pyldfusion import Fuser, fuser, gpu_image
from pyldfusion.calibration.file import Calibration, Lens, Plane
from pyldfusion.errors import CalibrationError, InputError
from pyldfusion.registration import Registration, visible_outside
from pyldfusion.scene import Scene

torch = pytest.importorskip("torch")

from pyldfusion import gpu_registration  # noqa: E402
from pyldfusion.engines.cuda import CudaEngine  # noqa: E402
from pyldfusion.gpu_registration import on_device  # noqa: E402

from .test_image import random_frame  # noqa: E402

CPU = torch.device("cpu")
IR, VIS = (61, 47), (96, 72)
#: Turned, with perspective, and off to one side.
TILTED = np.array([[1.3, 0.12, 6.0], [-0.08, 1.25, 9.0], [2e-4, -1e-4, 1.0]])


def lens(size, bend):
    width, height = size
    camera = np.array([[width * 0.9, 0, width / 2], [0, width * 0.9, height / 2], [0, 0, 1.0]])
    return Lens(camera, np.array([bend, 0.05, 0.001, -0.001, 0.0]))


def bent():
    return Calibration(IR, VIS, (Plane(TILTED),), ir_lens=lens(IR, -0.2), vis_lens=lens(VIS, 0.1))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_a_homography_is_bilinear_sampling(dtype):
    ir = random_frame(1, IR[::-1], dtype)
    field = on_device(Registration(TILTED, outside="repeat"), IR, VIS, CPU)
    down, right = np.mgrid[: VIS[1], : VIS[0]].astype(float)
    x, y, unit = np.einsum("ij,jhw->ihw", np.linalg.inv(TILTED), np.stack([right, down, np.ones_like(down)]))
    expected = map_coordinates(ir.astype(float), [y / unit, x / unit], order=1, mode="nearest")
    got = field.warp(torch.from_numpy(ir))
    assert str(got.dtype) == f"torch.{dtype}" and got.shape == VIS[::-1]
    top = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    assert np.abs(got.double().numpy() - expected).max() < (0.5 if top > 1 else 0) + 2e-5 * top
    assert field.visible_outside(got, got) is got  # nothing to show alone


@pytest.mark.parametrize(
    "sizes", [((48, 36), (96, 72)), ((96, 72), (48, 36)), ((97, 73), (60, 45)), ((50, 37), (96, 72))]
)
def test_where_only_sizes_are_known_it_is_opencvs_resize(sizes):
    registration, ir = Registration(resize=True), random_frame(2, sizes[0][::-1], "float32")
    got = on_device(registration, *sizes, CPU).warp(torch.from_numpy(ir)).numpy()
    assert np.abs(got - registration.place(ir, sizes[1])[0]).max() < 2e-5
    assert on_device(registration, sizes[0], sizes[0], CPU) is None


def test_lenses_are_those_of_the_host():
    registration = Registration(calibration=bent(), outside="repeat")
    x, y = registration.field(IR, VIS).maps
    ir = random_frame(3, IR[::-1], "float64")
    expected = map_coordinates(ir, [y, x], order=1, mode="nearest")
    assert np.abs(on_device(registration, IR, VIS, CPU).warp(torch.from_numpy(ir)).numpy() - expected).max() < 1e-4


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_the_visible_frame_is_shown_alone_outside(dtype, channels):
    fused, vis = (random_frame(seed, (*VIS[::-1], *channels), dtype) for seed in (4, 5))
    registration = Registration(TILTED)
    expected = visible_outside(fused, vis, registration.field(IR, VIS).cover)
    got = on_device(registration, IR, VIS, CPU).visible_outside(torch.from_numpy(fused), torch.from_numpy(vis))
    assert got.shape == expected.shape
    assert np.allclose(got.double().numpy(), expected.astype(float), rtol=0, atol=0 if dtype[0] == "u" else 1e-6)
    cover = registration.field(IR, VIS).cover
    for whole, source in ((cover >= 1, fused), (cover <= 0, vis)):
        assert whole.any() and np.array_equal(got.numpy()[whole], source[whole])


def test_what_was_made_is_kept_as_long_as_its_registration():
    registration = Registration(TILTED)
    first = on_device(registration, IR, VIS, CPU)
    assert on_device(registration, IR, VIS, CPU) is first and on_device(registration, VIS, VIS, CPU) is not first
    before = len(gpu_registration._made)
    del first, registration
    gc.collect()
    assert len(gpu_registration._made) == before - 2


class TestFuser:
    """Arrays that lie on each other only by a registration, through a whole Fuser."""

    @pytest.fixture
    def opened(self, models, monkeypatch):
        monkeypatch.setattr(fuser, "open_engine", lambda artefact, *_: CudaEngine(artefact, "cpu", "fp32", 1))
        for module in (fuser, gpu_image):
            monkeypatch.setattr(module, "is_on_gpu", lambda frame: isinstance(frame, torch.Tensor))
        return lambda registration=None: Fuser(models / "lite.safetensors", registration=registration)

    @pytest.fixture
    def frames(self):
        ir, vis = Scene(3, (160, 120), "day").render(1.0)
        return cv2.resize(ir, (120, 90)), vis

    @pytest.mark.parametrize("outside", ["mask", "crop", "repeat"])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_what_numpy_gives(self, opened, frames, outside, dtype):
        ir, vis = (frame.astype(dtype) * (1 if dtype == np.uint8 else 257) for frame in frames)
        matrix = np.array([[1.2, 0.03, 9.0], [-0.02, 1.22, 5.0], [1e-5, 0, 1]])
        with opened(Registration(matrix, outside=outside)) as model:
            expected = model.fuse(ir, vis)
            out = torch.empty(expected.shape, dtype=torch.from_numpy(expected[:1]).dtype)
            got = model.fuse(torch.from_numpy(ir), torch.from_numpy(vis), out)
            assert got is out and np.array_equal(model.fuse(*map(torch.from_numpy, (ir, vis))).numpy(), got.numpy())
        assert got.numpy().shape == expected.shape and (outside != "crop" or expected.shape < vis.shape)
        # OpenCV samples at 32nds of a pixel
        difference = np.abs(got.numpy().astype(float) - expected) / (1 if dtype == np.uint8 else 257)
        assert difference.mean() < 0.5 and np.quantile(difference, 0.99) <= 3

    def test_a_homography_of_one_call(self, opened, frames):
        ir, vis = frames
        matrix = np.array([[4 / 3, 0, 0], [0, 4 / 3, 0], [0, 0, 1.0]])
        with opened() as model:
            got = model.fuse(torch.from_numpy(ir), torch.from_numpy(vis), homography=matrix).numpy()
            assert np.abs(got.astype(float) - model.fuse(ir, vis, homography=matrix)).mean() < 0.5
            got = model.fuse(torch.from_numpy(ir), torch.from_numpy(vis)).numpy()  # of one aspect: resized
            assert np.abs(got.astype(float) - model.fuse(ir, vis)).mean() < 0.5
            with pytest.raises(InputError, match="infrared of 120x60 and visible of 160x120 differ by more than 2 %"):
                model.fuse(torch.from_numpy(ir[:60]), torch.from_numpy(vis))

    def test_what_cannot_be(self, opened, frames):
        ir, vis = map(torch.from_numpy, frames)
        away = np.array([[1, 0, 900.0], [0, 1, 0], [0, 0, 1]])
        with opened() as model, pytest.raises(InputError, match="puts nothing of the 120x90 infrared"):
            model.fuse(ir, vis, homography=away)
        too_large = pytest.raises(InputError, match=r"out is torch.uint8 \(120, 160, 3\); expected .*\(90, 120, 3\)")
        with opened(Registration(np.eye(3), outside="crop")) as model, too_large:
            model.fuse(ir, vis, torch.empty_like(vis))
        with opened(bent()) as model, pytest.raises(CalibrationError, match="is 70x90 and was calibrated at 61x47"):
            model.fuse(ir[:, :70], vis)
