"""Muon: momentum whose matrices are orthogonalised before each step; Adam for everything that is no matrix.

Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024. A convolution's kernel is a
matrix of outputs by everything it sums over. All directions of a layer learn at the same speed, which counts in a run
of a few thousand steps.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["Muon", "orthogonalise"]


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix of ``matrix`` [M,N], roughly: its singular values are brought to 0.7..1.2.

    A quintic Newton-Schulz iteration with the coefficients of the source.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / (matrix.norm() + 1e-7)
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.T


class Muon(torch.optim.Optimizer):
    """Muon for kernels and matrices, Adam for biases, gains and the output layer.

    Args:
        network: its ``Conv2d``, ``ConvTranspose2d`` and ``Linear`` weights are matrices if they map many to many.
        matrix_rate: how far a matrix moves a step (its singular values).
        rate: Adam's.
        betas: Adam's.
        momentum: of the matrices.
    """

    def __init__(
        self, network: nn.Module, matrix_rate: float, rate: float, betas: tuple[float, ...], momentum: float = 0.95
    ) -> None:
        matrices, rest = [], []
        transposed = set()
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if name == "weight" and parameter.ndim > 1 and min(parameter.shape[:2]) > 1:
                    matrices.append(parameter)
                    if isinstance(module, nn.ConvTranspose2d):
                        transposed.add(len(matrices) - 1)
                else:
                    rest.append(parameter)
        self.transposed = transposed
        groups: Iterable[dict] = [
            {"params": matrices, "lr": matrix_rate, "momentum": momentum, "matrix": True},
            {"params": rest, "lr": rate, "betas": betas, "matrix": False},
        ]
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step."""
        for group in self.param_groups:
            size = group["lr"]
            for index, p in enumerate(group["params"]):
                if p.grad is None:
                    continue
                if group["matrix"]:
                    self._matrix(p, size, group["momentum"], index in self.transposed)
                else:
                    self._adam(p, size, group["betas"])

    def _matrix(self, p: Tensor, size: float, momentum: float, transposed: bool) -> None:
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        moving = state["momentum"].lerp_(p.grad, 1 - momentum)
        direction = p.grad.lerp(moving, momentum)  # Nesterov
        shaped = direction.transpose(0, 1) if transposed else direction
        flat = shaped.flatten(1)
        step = orthogonalise(flat) * max(1, flat.shape[0] / flat.shape[1]) ** 0.5
        step = step.view(shaped.shape)
        p.sub_(step.transpose(0, 1) if transposed else step, alpha=size)

    def _adam(self, p: Tensor, size: float, betas: tuple[float, ...]) -> None:
        state = self.state[p]
        if not state:
            state.update(step=0, first=torch.zeros_like(p), second=torch.zeros_like(p))
        state["step"] += 1
        state["first"].lerp_(p.grad, 1 - betas[0])
        state["second"].lerp_(p.grad.square(), 1 - betas[1])
        first = state["first"] / (1 - betas[0] ** state["step"])
        second = state["second"] / (1 - betas[1] ** state["step"])
        p.sub_(first / (second.sqrt() + 1e-8), alpha=size)
