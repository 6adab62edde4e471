"""The network's statistics over time: what makes a video calm where nothing moves. Imports torch.

Every norm divides by what it measures over the whole picture, and the style codes are averages of it; so a hot thing
that enters, or noise, changes how everything else is drawn. Here these numbers are averaged over the frames before,
exponentially: none of them has a place in the picture, so what moves leaves no trail.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

__all__ = [
    "NORMS",
    "STYLE",
    "Smoother",
    "smoothed_codes",
    "smoothed_mean",
    "smoothed_moments",
    "smoothed_norm",
    "smoothing",
    "state_sizes",
]

#: The states of a graph are inputs called so with ``state_`` before it, and outputs with ``new_state_``.
NORMS, STYLE = "norms", "style"

_smoother: ContextVar[Smoother | None] = ContextVar("smoother", default=None)


class Smoother:
    """Averages what a frame's norms measure with what frames before left.

    Args:
        keep: weight of the frames before, [1], from 0 (this frame alone) to below 1.
        states: [N,S] by name, as :attr:`made` of the frame before; values of any finite kind where ``keep`` is 0.
    """

    def __init__(self, keep: Tensor, states: dict[str, Tensor]) -> None:
        self._keep, self._states = keep, states
        self._at = dict.fromkeys(states, 0)
        self._made: dict[str, list[Tensor]] = {name: [] for name in states}

    def __call__(self, state: str, values: Tensor) -> Tensor:
        """``values``, [N,K] or [N,K,1,1], averaged; the next K of that state."""
        if state not in self._states:
            return values
        flat = values if values.ndim == 2 else values.squeeze((2, 3))  # sizes that a graph need not know
        start = self._at[state]
        self._at[state] += flat.shape[1]
        before = self._states[state][:, start : self._at[state]]
        made = flat + self._keep * (before - flat)
        self._made[state].append(made)
        return made if values.ndim == 2 else made[:, :, None, None]

    @property
    def made(self) -> dict[str, Tensor]:
        """The states for the next frame."""
        return {name: torch.cat(parts, 1) for name, parts in self._made.items()}

    @contextmanager
    def active(self) -> Iterator[None]:
        """The norms of whatever is computed inside, in this thread, go through this one."""
        token = _smoother.set(self)
        try:
            yield
        finally:
            _smoother.reset(token)


def _current() -> Smoother | None:
    """Who smooths here and now. Nobody in what torch.compile compiles, which cannot read a context's variables."""
    return None if torch.compiler.is_dynamo_compiling() else _smoother.get()


def smoothing() -> bool:
    """Whether statistics are smoothed here and now."""
    return _current() is not None


def smoothed_norm(x: Tensor, eps: float) -> Tensor | None:
    """The instance norm of ``x`` [N,C,H,W] written out, with smoothed statistics; None where nothing is smoothed."""
    if not smoothing():
        return None
    mean = x.mean((2, 3), keepdim=True)
    centred = x - mean
    variance = (centred * centred).mean((2, 3), keepdim=True)
    centred, variance = smoothed_moments(x, mean, centred, variance)
    return centred / (variance + eps).sqrt()


def smoothed_moments(x: Tensor, mean: Tensor, centred: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """``centred``, ``x`` less its ``mean``, and ``variance``; both by smoothed statistics, where there are any."""
    smoother = _current()
    if smoother is None:
        return centred, variance
    return x - smoother(NORMS, mean), smoother(NORMS, variance)


def smoothed_mean(mean: Tensor) -> Tensor:
    """A mean [N,1,1,1] that is taken off before a norm."""
    smoother = _current()
    return mean if smoother is None else smoother(NORMS, mean)


def smoothed_codes(codes: Tensor) -> Tensor:
    """Style codes [N,16]."""
    smoother = _current()
    return codes if smoother is None else smoother(STYLE, codes)


def state_sizes(generator: nn.Module) -> dict[str, int]:
    """How many numbers each state of a network has, by name: what it takes to run it once on 16x16 pixels."""
    parameter = next(generator.parameters())
    smoother = Smoother(parameter.new_zeros(1), {NORMS: _Any(), STYLE: _Any()})  # type: ignore[dict-item]
    plane = parameter.new_zeros(1, 1, 16, 16)
    with torch.no_grad(), smoother.active():
        generator(plane, plane)
    return {name: sum(part.shape[1] for part in parts) for name, parts in smoother._made.items() if parts}


class _Any:
    """Stands for a state of any size: nothing was there before."""

    def __getitem__(self, index: object) -> float:
        return 0.0
