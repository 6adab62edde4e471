"""What csrc/cuda_bindings.cpp offers, in builds with CUDA. pyldfusion.cuda calls it and says what it means."""

from typing import Any

version: str

class DeviceArray:
    def __init__(
        self,
        pointer: int,
        dtype: str,
        shape: tuple[int, ...],
        strides: tuple[int, ...] | None = None,
        device: int = 0,
        *,
        read_only: bool = False,
        stream: Any = None,
        owner: object = None,
        trusted: bool = False,
    ) -> None: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def strides(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def ndim(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def device(self) -> int: ...
    @property
    def pointer(self) -> int: ...
    @property
    def read_only(self) -> bool: ...
    @property
    def stream(self) -> int | None: ...
    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...

def device_count() -> int: ...
def __getattr__(name: str) -> Any: ...  # the kernels
