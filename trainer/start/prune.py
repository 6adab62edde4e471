"""Cut a ``lite`` generator out of a trained ``full`` one, so that it starts with what the large one has learnt.

Source: Li et al., "Pruning Filters for Efficient ConvNets" (ICLR 2017): of every layer's channels those of the smallest
L1 norm go, here a half, as LD-Lite was made of LDFusion. Two things are adapted to this network. Norms make the size
of the kernels that *write* a channel meaningless, so a channel counts by the kernels that *read* it. And what read a
channel that goes reads its closest relative from then on, in proportion to their likeness, so that only the rest counts
(Srinivas & Babu, "Data-free Parameter Pruning", BMVC 2015): a network that was once widened, as the bundled one was,
holds most channels twice, and the L1 norm alone drops both of some pairs and none of others.

Layers that are coupled, by a skip or by the concatenation of both branches, keep the same channels. The style encoders
and AdaIN blocks go as a whole, and the output's squashing is matched around mid grey. Fine-tuning does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from pyldfusion.errors import ArtefactError
from pyldfusion.generator import Generator

from .widen import OFFSET, SCALE

__all__ = ["prune"]


def _branch(name: str) -> dict[str, tuple[tuple[str, ...], str]]:
    return {
        f"content_{name}.stem": ((f"{name} plane",), f"{name} full"),
        f"content_{name}.down.0": ((f"{name} full",), f"{name} half"),
        f"content_{name}.down.1": ((f"{name} half",), f"{name} quarter"),
        f"content_{name}.down.2": ((f"{name} quarter",), f"{name} stream"),
        f"content_{name}.blocks.0.conv1": ((f"{name} stream",), f"{name} block 0"),
        f"content_{name}.blocks.0.conv2": ((f"{name} block 0",), f"{name} stream"),
        f"content_{name}.blocks.1.conv1": ((f"{name} stream",), f"{name} block 1"),
        f"content_{name}.blocks.1.conv2": ((f"{name} block 1",), f"{name} stream"),
    }


#: layer -> (the groups of channels that it reads, in order; the group that it writes). What several layers write is
#: added up by the skips of the residual blocks.
LAYERS = {
    **_branch("vis"),
    **_branch("ir"),
    "decoder.up.0": (("vis stream", "ir stream"), "decoder 0"),
    "decoder.up.1": (("decoder 0",), "decoder 1"),
    "decoder.up.2": (("decoder 1",), "decoder 2"),
    "decoder.out": (("decoder 2",), "fused plane"),
}
#: keeps a division by zero at zero where a network is dead
TINY = 1e-300
Kernels = dict[tuple[str, str], Tensor]  # (layer, group that it reads) -> [out, in, k, k]


def prune(full: Mapping[str, Tensor]) -> Generator:
    """A ``lite`` generator of the half of ``full``'s channels that counts for more.

    Args:
        full: state dict of a ``full`` generator; it is not changed.

    Raises:
        ArtefactError: ``full`` is not such a state dict, or holds NaN or infinities.
    """
    _check(full)
    vectors = {name: tensor.double() for name, tensor in full.items() if tensor.ndim == 1}
    kernels: Kernels = {}
    for layer, (reads, _) in LAYERS.items():
        parts = _outputs_first(layer, full[f"{layer}.weight"].double()).chunk(len(reads), 1)
        kernels.update({(layer, group): part.clone() for group, part in zip(reads, parts, strict=True)})
    # from the output back: what a channel is read by that goes itself must not count
    for group in dict.fromkeys(writes for _, writes in reversed(LAYERS.values()) if writes != "fused plane"):
        _prune_group(group, kernels, vectors)
    # tanh(OFFSET + SCALE z) is close to sigmoid(z); see widen
    kernels["decoder.out", "decoder 2"] /= SCALE
    vectors["decoder.out.bias"] = (vectors["decoder.out.bias"] - OFFSET) / SCALE
    state = {f"{layer}.weight": _outputs_first(layer, _whole(layer, kernels)) for layer in LAYERS}
    lite = Generator("lite")
    lite.load_state_dict({name: {**state, **vectors}[name].float() for name in lite.state_dict()})
    return lite


def _prune_group(group: str, kernels: Kernels, vectors: dict[str, Tensor]) -> None:
    """Halve one group of channels in everything that writes or reads it."""
    writers = [layer for layer, (_, writes) in LAYERS.items() if writes == group]
    readers = [key for key in kernels if key[1] == group]
    written = [_whole(layer, kernels).flatten(1) for layer in writers]
    names = [f"{layer}.bias" for layer in writers]
    size = loudness = torch.ones(len(written[0]), dtype=torch.float64)  # behind an instance norm all are alike
    if group.startswith("decoder"):  # its norm has one deviation for all channels, then a gain for each
        names += [f"decoder.norm.{group[-1]}.{name}" for name in ("gamma", "beta")]
        gamma, beta = (vectors[name] for name in names[1:])
        norms = written[0].abs().sum(1)
        loudness = gamma.abs() * norms / norms.mean().clamp(min=TINY) + beta.abs()
        written = [written[0] * gamma[:, None]]
        size = written[0].norm(dim=1)
    likeness = torch.stack([F.normalize(w) @ F.normalize(w).T for w in written]).mean(0)
    reading = [kernels[key].transpose(0, 1).flatten(1) for key in readers]  # [in, ...]
    kept, reading = _halve(reading, loudness, likeness, size)
    for key, rows in zip(readers, reading, strict=True):
        outputs, _, *kernel = kernels[key].shape
        kernels[key] = rows.unflatten(1, (outputs, *kernel)).transpose(0, 1).contiguous()
    for layer in writers:
        for source in LAYERS[layer][0]:
            kernels[layer, source] = kernels[layer, source][kept]
    for name in names:
        vectors[name] = vectors[name][kept]


def _halve(reading: list[Tensor], loudness: Tensor, likeness: Tensor, size: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Which of C channels stay, and how they are read then.

    Args:
        reading: of each layer that reads the channels, its kernels [C,K].
        loudness: [C] size of what is read, for the importance.
        likeness: [C,C] cosines of what writes the channels.
        size: [C] size of what writes them.
    """
    totals = [(loudness @ rows.abs().sum(1)).clamp(min=TINY) for rows in reading]
    likeness = likeness.clamp(min=0).fill_diagonal_(0)
    gone = torch.zeros(len(size), dtype=torch.bool)
    for _ in range(len(size) // 2):
        # of every layer the same part counts: some end in a norm that makes their scale meaningless
        norms = loudness * sum(rows.abs().sum(1) / total for rows, total in zip(reading, totals, strict=True))
        closest, heirs = likeness.masked_fill(gone, -1).max(1)
        least = int((norms * (1 - closest)).masked_fill(gone, torch.inf).argmin())
        heir, gone[least] = heirs[least], True
        for rows in reading:
            rows[heir] += closest[least] * size[least] / size[heir].clamp(min=TINY) * rows[least]
    kept = torch.nonzero(~gone)[:, 0]
    # what had no close relative leaves a gap in the sums, which the others fill
    left = [(loudness[kept] @ rows[kept].abs().sum(1)).clamp(min=TINY) for rows in reading]
    return kept, [rows[kept] * (total / rest) for rows, total, rest in zip(reading, totals, left, strict=True)]


def _whole(layer: str, kernels: Kernels) -> Tensor:
    return torch.cat([kernels[layer, group] for group in LAYERS[layer][0]], 1)


def _outputs_first(layer: str, weight: Tensor) -> Tensor:
    """A transposed convolution keeps its inputs on the first axis; its own inverse."""
    return weight.transpose(0, 1).contiguous() if layer.startswith("decoder.up.") else weight


def _check(full: Mapping[str, Tensor]) -> None:
    def shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
        return {name: tensor.shape for name, tensor in state.items()}

    given = shapes(full)
    if given != shapes(Generator("full").state_dict()):
        what = "those of a 'lite' one" if given == shapes(Generator("lite").state_dict()) else "others"
        raise ArtefactError(f"only the weights of a 'full' network can be pruned to 'lite'; these are {what}")
    broken = [name for name, tensor in full.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ArtefactError(f"weights that hold NaN or infinities cannot be pruned: {', '.join(broken[:3])}")
