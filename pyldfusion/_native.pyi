"""What csrc/bindings.cpp offers. Unchecked: call these through pyldfusion.kernels."""

from typing import Any

from numpy import float32, float64, int16, int32, int64, uint8, uint16
from numpy.typing import NDArray

def entropy(pixels: NDArray[Any], boxes: NDArray[int32] | None, threads: int) -> NDArray[float64]: ...
def entropy_affine(
    planes: NDArray[float32], boxes: NDArray[int32], maps: NDArray[float32], size: int, threads: int
) -> NDArray[float64]: ...
def adain(
    x: NDArray[float32], weight: NDArray[float32], bias: NDArray[float32], eps: float, threads: int
) -> NDArray[float32]: ...
def histogram16(frame: NDArray[uint16]) -> NDArray[int64]: ...
def scale16(frame: NDArray[uint16], low: float, high: float, threads: int) -> NDArray[uint8]: ...
def add_luma(vis: NDArray[Any], delta: NDArray[int16], out: NDArray[Any], threads: int) -> None: ...
def percentiles16(frame: NDArray[uint16], low: float, high: float) -> tuple[float, float]: ...
def frame_to_plane(
    format: str,
    pixels: NDArray[Any],
    chroma: NDArray[uint8] | None,
    matrix: NDArray[float64] | None,
    constant: bool,
    border_value: float,
    low: float,
    high: float,
    table: NDArray[float32] | None,
    plane: NDArray[Any],
    inside: NDArray[uint8] | None,
    threads: int,
) -> None: ...
def plane_to_frame(
    fused: NDArray[Any],
    vis_format: str,
    vis: NDArray[Any],
    vis_chroma: NDArray[uint8] | None,
    full_range: bool,
    cover: NDArray[uint8] | None,
    out_format: str,
    out: NDArray[Any],
    out_chroma: NDArray[uint8] | None,
    threads: int,
) -> None: ...
def pyramid_workspace(height: int, width: int) -> int: ...
def pyramid(
    ir: NDArray[Any],
    vis: NDArray[Any],
    fused: NDArray[Any],
    look: dict[str, Any],
    workspace: NDArray[float64],
    threads: int,
) -> None: ...
