"""What csrc/bindings.cpp offers. Unchecked: call these through pyldfusion.kernels."""

from typing import Any

from numpy import float32, float64, int16, int32, int64, uint8, uint16
from numpy.typing import NDArray

cuda_compiled: bool
cuda_version: str

def entropy(pixels: NDArray[Any], boxes: NDArray[int32] | None, threads: int) -> NDArray[float64]: ...
def adain(
    x: NDArray[float32], weight: NDArray[float32], bias: NDArray[float32], eps: float, threads: int
) -> NDArray[float32]: ...
def histogram16(frame: NDArray[uint16]) -> NDArray[int64]: ...
def scale16(frame: NDArray[uint16], low: float, high: float, threads: int) -> NDArray[uint8]: ...
def add_luma(vis: NDArray[Any], delta: NDArray[int16], out: NDArray[Any], threads: int) -> None: ...
