"""LDFusion's losses as pure functions (Wang et al., ACM MM 2025): embeddings or features in, a scalar out.

Computed in the precision of what comes in, but at least in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyldfusion.errors import DtypeError, InputError

__all__ = ["direction_loss", "direction_regularization", "fidelity_loss"]


def direction_loss(
    fused: Tensor,
    ir: Tensor,
    vis: Tensor,
    text_objective: Tensor,
    text_ir: Tensor,
    text_vis: Tensor,
    weight: Tensor | None = None,
) -> Tensor:
    """L_d (Eq. 3): fusing should move a picture's embedding the way the sentences say.

    ``1 - [cos(f - vis, objective - text_vis) + cos(f - ir, objective - text_ir)] / 2``, all embeddings first brought
    to unit length. Where two of them coincide there is no direction: that cosine is 0, and so is its gradient.

    Args:
        fused: [M,D] embeddings of fused pictures or patches, M = crops x B, crop-major: crop 0 of every picture, then
            crop 1 of every picture.
        ir, vis: the sources' embeddings: [B,D], row m of ``fused`` being of picture m % B, or [M,D], a row for each.
        text_objective, text_ir, text_vis: [1,D], or [B,D] in the same order: the sentences' embeddings.
        weight: [M], a factor for each row; 0 is a patch that does not count (Eq. 17).

    Returns:
        Scalar: the mean over all M rows, those of weight 0 included; in [0, 2] for weights in [0, 1].

    Raises:
        InputError, DtypeError: other shapes, not floating point.
    """
    m, dim = _matrix("fused", fused)
    rows, _ = _matrix("ir", ir, dim)
    if m % rows:
        raise InputError(f"ir has {rows} rows and fused has {m}; expected a multiple of {rows}, a block for each crop")
    _matrix("vis", vis, dim, (rows,))
    for name, text in (("text_objective", text_objective), ("text_ir", text_ir), ("text_vis", text_vis)):
        sentences, _ = _matrix(name, text, dim)
        if rows % sentences:
            raise InputError(
                f"{name} has {sentences} rows and ir has {rows}; expected 1, or one for each of the B pictures"
            )
    if weight is not None and weight.shape != (m,):
        raise InputError(f"weight has shape {list(weight.shape)}; expected [{m}], one number for each row of fused")

    def of_rows(x: Tensor) -> Tensor:
        """Unit rows, as many as ``fused`` has: crop-major, so that row m is of picture m % B."""
        return _unit(x).repeat(m // len(x), 1)

    image, objective = _unit(fused), of_rows(text_objective)
    towards_vis = _cosine(image - of_rows(vis), objective - of_rows(text_vis))
    towards_ir = _cosine(image - of_rows(ir), objective - of_rows(text_ir))
    loss = 1 - (towards_vis + towards_ir) / 2
    return (loss if weight is None else loss * weight).mean()


def direction_regularization(fused: Tensor, ir: Tensor, vis: Tensor) -> Tensor:
    """Phi (Eq. 7): ``|1 - cos(f, vis)| + |1 - cos(f, ir)|``, mean over the batch; it keeps f near its sources.

    The paper's words say that minimising Phi would widen the angles; its equation and its code say the opposite.

    Args:
        fused, ir, vis: [B,D] embeddings of the whole pictures, of any length.

    Returns:
        Scalar in [0, 4].

    Raises:
        InputError, DtypeError: other shapes, not floating point.
    """
    rows, dim = _matrix("fused", fused)
    _matrix("ir", ir, dim, (rows,))
    _matrix("vis", vis, dim, (rows,))
    image = _unit(fused)
    phi = (1 - (image * _unit(vis)).sum(-1)).abs() + (1 - (image * _unit(ir)).sum(-1)).abs()
    return phi.mean()


def fidelity_loss(
    features_fused: Sequence[Tensor], features_ir: Sequence[Tensor], features_vis: Sequence[Tensor]
) -> Tensor:
    """L_v (Eq. 13): the mean squared error of each layer's features to the larger one of the sources', summed.

    Args:
        features_fused, features_ir, features_vis: a [B,C,H,W] tensor for each layer.

    Returns:
        Scalar, 0 or more.

    Raises:
        InputError, DtypeError: no layers, not the same number of them, other shapes, not floating point.
    """
    counts = [len(features) for features in (features_fused, features_ir, features_vis)]
    if not counts[0] or len(set(counts)) > 1:
        raise InputError(f"features of {counts} layers for fused, ir and vis; expected the same number, 1 or more")
    loss = 0
    for layer, (fused, ir, vis) in enumerate(zip(features_fused, features_ir, features_vis, strict=True)):
        for name, features in (("fused", fused), ("ir", ir), ("vis", vis)):
            _floating(f"features_{name}[{layer}]", features)
            if features.shape != fused.shape or features.ndim != 4 or not features.numel():
                raise InputError(
                    f"features_{name}[{layer}] has shape {list(features.shape)}; expected [B,C,H,W], the same for "
                    f"fused, ir and vis (fused: {list(fused.shape)})"
                )
        error = _at_least_single(fused) - _at_least_single(torch.maximum(ir, vis))
        loss = loss + error.square().mean()
    return loss


def _unit(x: Tensor, least: float = 0.0) -> Tensor:
    """Rows at unit length; those not longer than ``least`` become 0 and pass no gradient."""
    x = _at_least_single(x)
    square = x.square().sum(-1, keepdim=True)
    short = square <= least * least
    return x * torch.where(short, 0.0, torch.where(short, 1.0, square).rsqrt())


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of differences of unit vectors along the last axis; a difference that is only rounding has none."""
    least = 4 * torch.finfo(a.dtype).eps
    return (_unit(a, least) * _unit(b, least)).sum(-1)


def _at_least_single(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _matrix(name: str, x: Tensor, dim: int | None = None, rows: tuple[int, ...] = ()) -> tuple[int, int]:
    """The shape of a matrix of embeddings, after a look at it."""
    _floating(name, x)
    if x.ndim != 2 or not x.numel() or (dim is not None and x.shape[1] != dim) or (rows and x.shape[0] not in rows):
        expected = " or ".join(f"[{count},{dim}]" for count in dict.fromkeys(rows)) or f"[rows,{dim or 'dimensions'}]"
        raise InputError(f"{name} has shape {list(x.shape)}; expected {expected}")
    return x.shape[0], x.shape[1]


def _floating(name: str, x: Tensor) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise DtypeError(f"{name} is {getattr(x, 'dtype', type(x).__name__)}; expected a floating-point tensor")
