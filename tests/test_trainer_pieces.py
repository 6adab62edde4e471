"""A loss taken piece by piece: the same value and gradient, with one piece's activations in memory at a time."""

from __future__ import annotations

import weakref

import pytest

torch = pytest.importorskip("torch")
from trainer.pieces import in_pieces, kept_bytes  # noqa: E402

WEIGHT = torch.linspace(-1, 1, 7, dtype=torch.float64)


class Judge:
    """A loss of rows with a weight each; it remembers sizes of pieces and how many hidden tensors live at once."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.hidden: list[weakref.ref] = []
        self.most = 0

    def __call__(self, rows: torch.Tensor, piece: slice) -> torch.Tensor:
        hidden = rows.sin()
        self.sizes.append(len(rows))
        self.hidden.append(weakref.ref(hidden))
        self.most = max(self.most, sum(ref() is not None for ref in self.hidden))
        return (WEIGHT[piece] * (hidden * hidden.exp()).sum(1)).sum() / 7


def rows() -> torch.Tensor:
    return torch.rand(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("at_once", "sizes"), [(1, [1] * 7), (3, [3, 3, 1]), (4, [4, 3]), (6, [4, 3]), (9, [7])])
def test_value_and_gradient_are_those_of_the_whole(late, at_once, sizes):
    whole, x, judge = rows(), rows(), Judge()
    expected = 5 * Judge()(whole, slice(None))
    found = 5 * in_pieces(judge, x, at_once, late)
    assert judge.sizes == sizes
    found.backward()
    expected.backward()
    assert judge.sizes == sizes * (2 if late else 1)  # no arithmetic twice but where it is asked for
    assert judge.most == 1
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(x.grad, whole.grad, rtol=1e-13, atol=1e-15)


def test_without_a_gradient_nothing_is_differentiated():
    judge = Judge()
    found = in_pieces(judge, rows().detach(), 2)
    assert not found.requires_grad and judge.sizes == [2, 2, 2, 1]


def test_kept_bytes_counts_every_storage_once_and_no_weights():
    network = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.ReLU()).requires_grad_(False)
    assert kept_bytes(network, torch.zeros(4, 8)) == 2 * 4 * 16 * 4  # Tanh and ReLU keep their results
