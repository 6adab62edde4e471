"""What can go wrong because of what a user gave, as types one can catch.

Every message says what was given, what was expected and what to do about it.
All of them derive from :class:`PyldfusionError` and from the built-in exception a caller would expect.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "ArtefactError",
    "CalibrationError",
    "CameraError",
    "CudaError",
    "DependencyError",
    "DeviceError",
    "DtypeError",
    "EngineError",
    "InputError",
    "PyldfusionError",
    "did_you_mean",
]


class PyldfusionError(Exception):
    """Base of all errors that pyldfusion raises on purpose."""


class InputError(PyldfusionError, ValueError):
    """A frame, size, option or file content that cannot be used."""


class DtypeError(InputError, TypeError):
    """An array of an element type that is not accepted."""


class CalibrationError(InputError):
    """A calibration file that cannot be used, or pictures from which no calibration can be had."""


class ArtefactError(PyldfusionError, ValueError):
    """A model or weight file that is missing, foreign, damaged or of the wrong kind."""


class DependencyError(PyldfusionError, ImportError):
    """An optional package is needed and absent; the message names the extra to install."""


class DeviceError(PyldfusionError, RuntimeError):
    """A device was asked for that this machine or build does not have."""


class CameraError(PyldfusionError, RuntimeError):
    """A camera, stream or sink that cannot be opened, or that failed while it ran."""


class EngineError(PyldfusionError, RuntimeError):
    """An inference runtime refused a model or failed while running it."""


class CudaError(EngineError):
    """A CUDA call or kernel failed; the message has its name and CUDA's own words.

    After an error inside a kernel ("an illegal memory access") CUDA refuses everything else in this process.
    """


def did_you_mean(word: object, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The end of a message about an unknown word: ``"; did you mean 'lite'?"``, or nothing if none is close.

    Args:
        word: what was given; its case does not count.
        known: what would have been right.
        cutoff: how much of it must agree, 0 to 1 (:func:`difflib.get_close_matches`).
    """
    import difflib  # here: an error can wait for it, `import pyldfusion` should not

    words = list(known)
    close = difflib.get_close_matches(str(word), words, 1, cutoff) or difflib.get_close_matches(
        str(word).lower(), words, 1, cutoff
    )
    return f"; did you mean {close[0]!r}?" if close else ""
