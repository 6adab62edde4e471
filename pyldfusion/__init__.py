"""pyldfusion: an infrared and a visible frame in, one picture out.

>>> from pyldfusion import Fuser
>>> with Fuser() as fuser:
...     fused = fuser.fuse(ir, vis)

Importing this package imports neither torch nor an inference runtime; those load when they are first needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import (
    ArtefactError,
    CalibrationError,
    CameraError,
    CudaError,
    DependencyError,
    DeviceError,
    DtypeError,
    EngineError,
    InputError,
    PyldfusionError,
)

if TYPE_CHECKING:
    from .fuser import Fuser

__version__ = "0.1.0"

__all__ = [
    "ArtefactError",
    "CalibrationError",
    "CameraError",
    "CudaError",
    "DependencyError",
    "DeviceError",
    "DtypeError",
    "EngineError",
    "Fuser",
    "InputError",
    "PyldfusionError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name == "Fuser":  # late, so that `import pyldfusion` stays cheap
        from .fuser import Fuser

        return Fuser
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
