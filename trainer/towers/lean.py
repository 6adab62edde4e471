"""The blocks of open_clip's vision transformers, made cheaper for a frozen tower that passes gradients through.

The same function of the same weights, which stay as they are. Two things cost more than they need to:

- ``nn.MultiheadAttention`` turns its input to [L,N,D] before the projection to queries, keys and values; what is then
  not contiguous goes through a batched product that reads the weights once for every picture. Here it is one product.
- QuickGELU, ``x sigmoid(1.702 x)``, keeps two tensors of the block's widest layer for the backward pass. As
  ``silu(1.702 x) / 1.702`` it is one kernel that keeps one, the factors being part of the products around it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["lighten"]

#: of QuickGELU
STEEPNESS = 1.702


def lighten(visual: nn.Module) -> int:
    """Replace attention and QuickGELU in every block that is known to allow it; returns how many parts were.

    Blocks are recognised by their parts, as open_clip names them: ``attn``, and ``mlp`` of ``c_fc``, ``gelu``,
    ``c_proj``. Everything else (convolutional towers, timm's, attention between different inputs) is left alone.
    """
    replaced = 0
    for block in list(visual.modules()):
        attention, mlp = getattr(block, "attn", None), getattr(block, "mlp", None)
        if not isinstance(mlp, nn.Sequential) or hasattr(block, "ln_1_kv"):
            continue
        if SelfAttention.replaces(attention):
            block.attn = SelfAttention(attention)
            replaced += 1
        if QuickMlp.replaces(mlp):
            block.mlp = QuickMlp(mlp)
            replaced += 1
    return replaced


class SelfAttention(nn.Module):
    """``nn.MultiheadAttention`` where queries, keys and values come from one input [N,L,D] and nothing is dropped."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj, self.heads = attention.out_proj, attention.num_heads

    @staticmethod
    def replaces(attention: object) -> bool:
        """Whether a module is an attention of this kind."""
        return (
            isinstance(attention, nn.MultiheadAttention)
            and attention.batch_first
            and attention.in_proj_weight is not None
            and attention.bias_k is None
            and not attention.add_zero_attn
            and not attention.dropout
        )

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """As the block calls it; ``key`` and ``value`` are ``query``."""
        n, length, dim = query.shape
        projected = F.linear(query, self.in_proj_weight, self.in_proj_bias).view(n, length, 3, self.heads, -1)
        q, k, v = projected.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask)
        return self.out_proj(seen.transpose(1, 2).reshape(n, length, dim)), None


class QuickMlp(nn.Module):
    """``c_proj(QuickGELU(c_fc(x)))``."""

    def __init__(self, mlp: nn.Sequential) -> None:
        super().__init__()
        self.c_fc, self.c_proj = mlp.c_fc, mlp.c_proj

    @staticmethod
    def replaces(mlp: nn.Sequential) -> bool:
        """Whether these are the three layers, without an activation of another kind."""
        names = [name for name, _ in mlp.named_children()]
        return names == ["c_fc", "gelu", "c_proj"] and type(mlp.gelu).__name__ == "QuickGELU"

    def forward(self, x: Tensor) -> Tensor:
        """[N,L,D] -> [N,L,D]."""
        up, down = self.c_fc, self.c_proj
        rows = x.reshape(-1, x.shape[-1])
        if torch.compiler.is_compiling():
            # inductor drops the factors of addmm and of add (pytorch#167313); those written out it fuses by itself
            hidden = F.silu(STEEPNESS * F.linear(rows, up.weight, up.bias))
            result = F.linear(hidden, down.weight) / STEEPNESS
            return (result + down.bias.to(result.dtype)).view(x.shape)
        hidden = torch.addmm(up.bias, rows, up.weight.t(), beta=STEEPNESS, alpha=STEEPNESS)
        result = F.linear(F.silu(hidden), down.weight)
        return torch.add(down.bias.to(result.dtype), result, alpha=1 / STEEPNESS).view(x.shape)
