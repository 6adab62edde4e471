"""VGG-19 as the fidelity loss looks through it: three layers, of which the last is conv4_2.

Source: Simonyan, Zisserman, "Very Deep Convolutional Networks" (configuration E); LDFusion Eq. 13 compares the 3rd,
5th and 10th convolution, each after its ReLU. Only these ten convolutions are built (5.9 M of 144 M parameters).
"""

from __future__ import annotations

import warnings
from urllib.error import URLError

import torch
from torch import Tensor, nn

from pyldfusion.errors import ArtefactError, InputError

from ..config import VggConfig
from .common import GreyConv, autocast, warn_if_slow
from .pretrained import network_timeout, read_weights
from .torchvision_import import import_torchvision

__all__ = ["FidelityTower", "load_vgg"]

FILE = "vgg19-dcbb9e9d.pth"
ADDRESS = f"https://download.pytorch.org/models/{FILE}"
#: Convolutions (from 1) whose ReLU is compared: conv2_1, conv3_1, conv4_2.
COMPARED = (3, 5, 10)


class FidelityTower(nn.Module):
    """VGG-19 up to conv4_2's ReLU, frozen; gradients flow to the planes alone.

    The first convolution takes the plane itself (:class:`~trainer.towers.common.GreyConv`), which is exact, as
    planes are not ImageNet-normalised: LDFusion's are not.
    """

    def __init__(self, layers: nn.Sequential, precision: str = "fp32") -> None:
        """``layers``: the convolutions, ReLUs and poolings of torchvision's ``features`` up to conv4_2's ReLU."""
        super().__init__()
        self.layers = nn.Sequential(GreyConv(layers[0]), *layers[1:])
        self.requires_grad_(False).eval().to(memory_format=torch.channels_last)
        self.precision = precision
        for layer in layers:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # a convolution's output must not be overwritten before its gradient is taken
        relus = [index for index, layer in enumerate(layers) if isinstance(layer, nn.ReLU)]
        self.compared = frozenset(relus[number - 1] for number in COMPARED)

    def forward(self, planes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ReLU of conv2_1, conv3_1 and conv4_2.

        Args:
            planes: [N,1,H,W] float in [0, 1], sides of at least 8.

        Returns:
            [N,128,H/2,W/2], [N,256,H/4,W/4] and [N,512,H/8,W/8], rounded down; float32, or float64 if the tower is.

        Raises:
            InputError: planes of another shape.
        """
        if planes.ndim != 4 or planes.shape[1] != 1 or min(planes.shape[2:]) < 8:
            raise InputError(f"planes have shape {list(planes.shape)}; expected [N,1,H,W] with sides of at least 8")
        dtype = self.layers[0].weight.dtype
        features = []
        x = planes.to(dtype).contiguous(memory_format=torch.channels_last)
        with autocast(x, self.precision):
            for index, layer in enumerate(self.layers):
                x = layer(x)
                if index in self.compared:
                    features.append(x.to(dtype))
        return tuple(features)


def load_vgg(config: VggConfig, device: torch.device | str, seed: int = 0) -> FidelityTower:
    """The tower with the weights that the configuration names, on a device.

    Args:
        seed: of the weights where ``config.weights`` is "none".

    Raises:
        ArtefactError: no weights, or those of another network; says which file to put where.
        DependencyError: torchvision is not there.
    """
    warn_if_slow("vgg.precision", config.precision, device)
    import_torchvision()
    from torchvision.models.vgg import cfgs, make_layers

    with torch.random.fork_rng(devices=[]):  # neither depends on the state of torch's generator nor disturbs it
        torch.default_generator.manual_seed(seed)
        layers = make_layers(cfgs["E"][: cfgs["E"].index(512) + 2])
        if config.weights == "none":
            warnings.warn(
                "VGG-19 HAS RANDOM WEIGHTS (vgg.weights=none): the fidelity loss means nothing; for tests and speed "
                "only",
                stacklevel=2,
            )
            for layer in layers:
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                    nn.init.zeros_(layer.bias)
    if config.weights != "none":
        fill(layers, *weights_of(config.weights))
    return FidelityTower(layers, config.precision).to(device)


def weights_of(given: str) -> tuple[dict[str, Tensor], str]:
    """The state dict of torchvision's vgg19 and where it came from."""
    if given:
        try:
            return read_weights(given)[0], given
        except ArtefactError as error:
            raise ArtefactError(f"vgg.weights: {error}. {advice()}") from error
    from torchvision.models import VGG19_Weights

    try:
        with network_timeout():
            return VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True), FILE
    except (URLError, OSError, RuntimeError) as error:  # RuntimeError: the hash differs
        raise ArtefactError(f"the weights of VGG-19 could not be downloaded ({error}). {advice()}") from error


def fill(layers: nn.Sequential, weights: dict[str, Tensor], source: str) -> None:
    """Put the weights of torchvision's vgg19 into its first layers."""
    if any("running_mean" in key for key in weights):
        raise ArtefactError(
            f"{source} holds a VGG with batch normalisation (vgg19_bn); expected plain VGG-19. {advice()}"
        )
    own = {key: weights.get(f"features.{key}", weights.get(key)) for key in layers.state_dict()}
    for key, expected in layers.state_dict().items():
        found = own[key]
        if found is None or found.shape != expected.shape:
            what = "is missing" if found is None else f"has shape {list(found.shape)}"
            raise ArtefactError(
                f"{source} does not hold VGG-19: features.{key} {what}, expected {list(expected.shape)}. {advice()}"
            )
    layers.load_state_dict(own)


def advice() -> str:
    folder = torch.hub.get_dir()
    return (
        f"Download {ADDRESS} and put it into {folder}/checkpoints, or anywhere with --set vgg.weights=/path/to/{FILE}"
    )
