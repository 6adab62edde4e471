"""Pairs as inputs of a graph, to calibrate INT8 with and to find out what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pyldfusion.errors import InputError
from pyldfusion.image import LUMA_BGR, MIN_SIDE

from .pairs import Pair, load_pairs

if TYPE_CHECKING:
    import onnx

__all__ = ["COUNT", "SIZE", "Feed", "calibration_pairs", "feeds", "neutral_inputs"]

#: How many pairs; their (height, width).
COUNT = 16
SIZE = (256, 320)

#: One set of a graph's inputs, by name.
Feed: TypeAlias = Mapping[str, NDArray[Any]]


def calibration_pairs(
    data: Path | None = None, *, count: int = COUNT, size: tuple[int, int] = SIZE, seed: int = 0
) -> tuple[list[Pair], str]:
    """Pairs of one size, the same for the same arguments, and in words what they are.

    Args:
        data: a folder of pairs, of which those for verifying are left out (:func:`~export.pairs.load_pairs`); None
            for generated streets by night, dusk and day.
        count: how many at most, from 1 up.
        size: (height, width), from 16 up. Larger pictures are cropped at a place that is drawn, smaller ones enlarged.
        seed: of what is drawn.

    Raises:
        InputError: a count or size that cannot be, a folder without pairs, or a file that cannot be read.
    """
    if count < 1:
        raise InputError(f"{count} pairs to calibrate with; expected at least 1, better some tens")
    if min(size) < MIN_SIDE:
        raise InputError(f"pairs of {size[1]}x{size[0]} pixels; expected at least {MIN_SIDE} a side")
    random = np.random.default_rng(seed)
    pairs, about = load_pairs(data, count, "calibrate")
    return [_cropped(pair, size, random) for pair in pairs], f"{about}, {size[1]}x{size[0]}, seed {seed}"


def feeds(model: onnx.ModelProto, pairs: Sequence[Pair]) -> list[Feed]:
    """Pairs as a graph's inputs: uint8 frames or planes in [0, 1], as many at once as it takes.

    A pair is resized where the graph is for one size; what it takes beside frames is that of :func:`neutral_inputs`.

    Args:
        model: a graph of :func:`~export.onnx.build_model`, of either io.
        pairs: at least one.

    Raises:
        InputError: no pairs.
    """
    from onnx import TensorProto

    if not pairs:
        raise InputError("no pairs to run the graph on; expected at least one")
    inputs = {value.name: value.type.tensor_type for value in model.graph.input}
    frames = inputs["ir"].elem_type == TensorProto.UINT8
    batch, *sides = (dim.dim_value for dim in inputs["ir"].shape.dim)  # 0 stands for any
    height, width = sides[:2] if frames else sides[1:]
    result = []
    for pair in pairs:
        pair = pair.resized(height or pair.ir.shape[0], width or pair.ir.shape[1])
        feed: dict[str, NDArray[Any]] = {"ir": pair.ir[..., None], "vis": pair.vis}
        if not frames:
            planes = {"ir": pair.ir, "vis": pair.vis @ np.array(LUMA_BGR)}
            feed = {name: (plane / 255)[None].astype(np.float32) for name, plane in planes.items()}
        feed = {name: np.repeat(array[None], batch or 1, 0) for name, array in feed.items()}
        result.append(feed | neutral_inputs(model, batch or 1))
    return result


def neutral_inputs(model: onnx.ModelProto, batch: int) -> dict[str, NDArray[np.float32]]:
    """What a graph takes beside frames, for pairs that are registered and follow nothing.

    Args:
        model: a graph of :func:`~export.onnx.build_model`.
        batch: frames at once.

    Returns:
        A homography that moves nothing; states that count for nothing, because the frame is the first. float32.
    """
    given: dict[str, NDArray[np.float32]] = {}
    for value in model.graph.input:
        if value.name == "homography":
            given[value.name] = np.repeat(np.eye(3, dtype=np.float32)[None], batch, 0)
        elif value.name == "keep":
            given[value.name] = np.zeros(1, np.float32)
        elif value.name.startswith("state_"):
            given[value.name] = np.zeros((batch, value.type.tensor_type.shape.dim[1].dim_value), np.float32)
    return given


def _cropped(pair: Pair, size: tuple[int, int], random: np.random.Generator) -> Pair:
    enlarge = max(1.0, *(want / have for want, have in zip(size, pair.ir.shape, strict=True)))
    if enlarge > 1:
        pair = pair.resized(*(max(w, round(h * enlarge)) for w, h in zip(size, pair.ir.shape, strict=True)))
    top, left = (int(random.integers(have - want + 1)) for have, want in zip(pair.ir.shape, size, strict=True))
    cut = np.s_[top : top + size[0], left : left + size[1]]
    return Pair(np.ascontiguousarray(pair.ir[cut]), np.ascontiguousarray(pair.vis[cut]))
