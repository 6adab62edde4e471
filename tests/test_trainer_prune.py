"""A full network pruned to a lite one: what is kept, what is computed, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pyldfusion.errors import ArtefactError  # noqa: E402
from pyldfusion.generator import Generator, load_generator  # noqa: E402
from pyldfusion.scene import Scene  # noqa: E402
from trainer.start.initialise import initialise_scaled  # noqa: E402
from trainer.start.prune import prune  # noqa: E402
from trainer.start.widen import widen  # noqa: E402

#: Every layer of the network, and those that read what it writes; both branches have the same.
READERS = {
    "content_{}.stem": ["content_{}.down.0"],
    "content_{}.down.0": ["content_{}.down.1"],
    "content_{}.down.1": ["content_{}.down.2"],
    "content_{}.blocks.0.conv1": ["content_{}.blocks.0.conv2"],
    "content_{}.blocks.1.conv1": ["content_{}.blocks.1.conv2"],
}


def lite_network(seed: int = 5) -> Generator:
    """A lite network with nothing left at its first value: gains, offsets and biases differ too."""
    network = initialise_scaled(Generator("lite"), seed)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=random))
    return network.eval()


def doubled(lite: Generator, faint: float, seed: int = 0) -> tuple[Generator, dict[str, torch.Tensor]]:
    """``lite`` as a full network of twins, one of which (drawn) has all but ``faint`` of what reads them.

    Also returns layer -> the stronger twins of the channels it writes.
    """
    full = widen(lite.state_dict(), noise=0)
    random = torch.Generator().manual_seed(seed)
    strong: dict[str, torch.Tensor] = {}

    def tilt(writer: str, count: int, readers: list[tuple[str, int]]) -> None:
        side = torch.randint(2, (count // 2,), generator=random)
        strong[writer] = 2 * torch.arange(count // 2) + side
        factors = torch.full((count,), 2 * faint)
        factors[strong[writer]] = 2 * (1 - faint)
        for name, start in readers:
            weight = full.get_parameter(f"{name}.weight")
            rows = weight if name.startswith("decoder.up") else weight.transpose(0, 1)
            with torch.no_grad():
                rows[start : start + count] *= factors[:, None, None, None]

    for k, branch in enumerate(("vis", "ir")):
        for writer, readers in READERS.items():
            count = len(full.get_parameter(f"{writer.format(branch)}.bias"))
            tilt(writer.format(branch), count, [(r.format(branch), 0) for r in readers])
        stream = [(f"content_{branch}.blocks.{b}.conv1", 0) for b in (0, 1)]
        tilt(f"content_{branch}.down.2", 128, [*stream, ("decoder.up.0", 128 * k)])
    tilt("decoder.up.0", 128, [("decoder.up.1", 0)])
    tilt("decoder.up.1", 64, [("decoder.up.2", 0)])
    tilt("decoder.up.2", 32, [("decoder.out", 0)])
    return full, strong


def planes(seed: int = 0, size: tuple[int, int] = (75, 50)) -> tuple[torch.Tensor, torch.Tensor]:
    """An (infrared, visible) pair of odd size."""
    frame = Scene(seed=seed, size=size, kind="dusk").render(0)
    vis = frame.vis if frame.vis.ndim == 2 else frame.vis[..., 1]
    return tuple(torch.from_numpy(x.astype(np.float32) / 255)[None, None] for x in (frame.ir, vis))


@pytest.mark.parametrize("faint", [0.5, 0.3, 0.01, 0.0])
def test_what_was_doubled_comes_back(faint):
    """Twins of equal or unequal weight: one of each pair goes, the other inherits, all layers agree on which."""
    lite = lite_network()
    full, _ = doubled(lite, faint)
    back, expected = prune(full.state_dict()).state_dict(), lite.state_dict()
    assert back.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(back[name], tensor, atol=1e-5, rtol=1e-5, msg=name)


def test_the_pruned_network_computes_what_the_full_one_did():
    full, _ = doubled(lite_network(), 0.01)
    ir, vis = planes()
    with torch.no_grad():
        before, after = full(ir, vis), prune(full.state_dict())(ir, vis)
    # tanh for sigmoid: the same order everywhere, close around mid grey
    order = after.flatten().argsort()
    assert float(before.flatten()[order].diff().min()) > -1e-4
    middle = (after - 0.5).abs() < 0.3
    assert middle.any() and float((before - after)[middle].abs().max()) < 0.06


def test_channels_that_are_hardly_read_go_whatever_wrote_them():
    """What writes the faint channels is replaced by large random kernels: nobody listens to them."""
    lite = lite_network()
    full, strong = doubled(lite, 0.0)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer, kept in strong.items():
            if layer.startswith("decoder"):
                continue  # its norm is over all channels: other kernels there are another network
            faint = torch.ones(2 * len(kept), dtype=torch.bool)
            faint[kept] = False
            weight, bias = full.get_parameter(f"{layer}.weight"), full.get_parameter(f"{layer}.bias")
            weight[faint] = 5 * torch.randn(weight[faint].shape, generator=random)
            bias[faint] = 3.0
    back, expected = prune(full.state_dict()), lite
    ir, vis = planes(1)
    with torch.no_grad():
        torch.testing.assert_close(back(ir, vis), expected(ir, vis), atol=1e-4, rtol=0)


def test_the_choice_is_by_the_l1_norm_of_what_reads():
    full = initialise_scaled(Generator("full"), 3)
    chosen = torch.randperm(16, generator=torch.Generator().manual_seed(2))[:8].sort().values
    with torch.no_grad():
        reader = full.content_ir.down[0].weight
        # few large values: a large L2 norm, but a small L1 norm
        reader.copy_(reader.sign() * 0.02)
        reader[:, chosen] *= 1.5
        others = [k for k in range(16) if k not in chosen]
        reader[:, others] *= 1e-3
        reader[0, others, 0, 0] = 1.0
    state = full.state_dict()
    lite = prune(state)
    assert torch.equal(lite.content_ir.stem.weight, state["content_ir.stem.weight"][chosen])
    assert torch.equal(lite.content_ir.stem.bias, state["content_ir.stem.bias"][chosen])
    norms = state["content_vis.down.0.weight"].abs().sum((0, 2, 3))
    assert not torch.equal(norms.topk(8).indices.sort().values, chosen)  # the branches choose for themselves


def test_in_the_decoder_the_gain_counts():
    full = initialise_scaled(Generator("full"), 3)
    with torch.no_grad():
        full.decoder.norm[1].gamma.fill_(1e-4)
        full.decoder.norm[1].gamma[::2] = torch.linspace(1, 2, 32)
    lite = prune(full.state_dict())
    torch.testing.assert_close(lite.decoder.norm[1].gamma, torch.linspace(1, 2, 32))


@pytest.mark.parametrize("seed", [0, 1])
def test_shapes_and_a_network_that_knows_nothing(seed):
    full = initialise_scaled(Generator("full"), seed)
    before = {name: tensor.clone() for name, tensor in full.state_dict().items()}
    lite = prune(full.state_dict())
    assert lite.shape.widths == (8, 16, 32, 64) and not lite.shape.style
    assert all(torch.isfinite(tensor).all() for tensor in lite.state_dict().values())
    assert all(torch.equal(before[name], tensor) for name, tensor in full.state_dict().items())
    with torch.no_grad():
        fused = lite(*planes())
    assert fused.shape == (1, 1, 50, 75) and float(fused.std()) > 0


def test_dead_layers_are_no_obstacle():
    full = initialise_scaled(Generator("full"), 0)
    with torch.no_grad():
        full.content_vis.blocks[0].conv2.weight.zero_()
        full.decoder.up[2].weight.zero_()
    assert all(torch.isfinite(tensor).all() for tensor in prune(full.state_dict()).state_dict().values())


def test_the_bundled_network_stays_recognisable():
    """Without fine-tuning; measured 0.90 to 0.94 on real pairs; by the L1 norm alone 0.01 to 0.13, first weights 0."""
    full = load_generator("full")
    ir, vis = planes(4, (160, 120))
    with torch.no_grad():
        before, after = full(ir, vis), prune(full.state_dict())(ir, vis)
        fresh = initialise_scaled(Generator("lite"), 0)(ir, vis)
    likeness = [float(np.corrcoef(before.flatten(), x.flatten())[0, 1]) for x in (after, fresh)]
    assert likeness[0] > 0.75 and likeness[1] < 0.4, likeness


def test_what_cannot_be_pruned_is_refused():
    with pytest.raises(ArtefactError, match=r"only the weights of a 'full' network.*'lite' one"):
        prune(Generator("lite").state_dict())
    state = Generator("full").state_dict()
    with pytest.raises(ArtefactError, match="'full' network"):
        prune({name: tensor for name, tensor in state.items() if name != "decoder.out.bias"})
    with pytest.raises(ArtefactError, match="'full' network"):
        prune({**state, "decoder.out.bias": torch.zeros(2)})
    broken = {**state, "decoder.out.bias": torch.tensor([float("nan")])}
    with pytest.raises(ArtefactError, match=r"decoder\.out\.bias"):
        prune(broken)
