"""What can go wrong because of what a user gave, as types one can catch.

Every message says what was given, what was expected and what to do about it.
All of them derive from :class:`PyldfusionError` and from the built-in exception a caller would expect.
"""

from __future__ import annotations

__all__ = [
    "ArtefactError",
    "CudaError",
    "DependencyError",
    "DeviceError",
    "DtypeError",
    "EngineError",
    "InputError",
    "PyldfusionError",
]


class PyldfusionError(Exception):
    """Base of all errors that pyldfusion raises on purpose."""


class InputError(PyldfusionError, ValueError):
    """A frame, size, option or file content that cannot be used."""


class DtypeError(InputError, TypeError):
    """An array of an element type that is not accepted."""


class ArtefactError(PyldfusionError, ValueError):
    """A model or weight file that is missing, foreign, damaged or of the wrong kind."""


class DependencyError(PyldfusionError, ImportError):
    """An optional package is needed and absent; the message names the extra to install."""


class DeviceError(PyldfusionError, RuntimeError):
    """A device was asked for that this machine or build does not have."""


class EngineError(PyldfusionError, RuntimeError):
    """An inference runtime refused a model or failed while running it."""


class CudaError(EngineError):
    """A CUDA call or kernel failed; the message has its name and CUDA's own words.

    After an error inside a kernel ("an illegal memory access") CUDA refuses everything else in this process.
    """
