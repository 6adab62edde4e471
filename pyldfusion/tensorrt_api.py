"""NVIDIA's package ``tensorrt``: found or its absence explained, its version, its messages and its errors.

Classes of it that we derive from are made when it is known, so nothing here imports it before it is asked for.
Whatever exists in some versions alone stands in a block guarded by :class:`Version`; tests/test_tensorrt_api.py reads
those guards and looks every name up in NVIDIA's published lists.
"""

from __future__ import annotations

import importlib
import logging
import platform
import re
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import DependencyError

if TYPE_CHECKING:
    import tensorrt

__all__ = ["Version", "import_tensorrt", "make_logger", "make_output_memory", "make_recorder", "take_errors"]

_log = logging.getLogger("pyldfusion.tensorrt")

#: Messages of one call that are kept for its error.
KEPT = 8


class Version(NamedTuple):
    """Major and minor version of TensorRT, and whether a block of code is for it."""

    major: int
    minor: int

    @classmethod
    def of(cls, package: ModuleType) -> Version:
        """Raises DependencyError for one older than 8.6, the first that is supported."""
        numbers = re.match(r"(\d+)\.(\d+)", str(package.__version__))
        version = cls(int(numbers[1]), int(numbers[2])) if numbers else cls(0, 0)
        if version.before(8, 6):
            raise DependencyError(
                f"TensorRT {package.__version__} is too old; expected 8.6 (JetPack 6) or newer. JetPack 5 and its "
                "Python 3.8 are not supported"
            )
        return version

    def before(self, major: int, minor: int = 0) -> bool:
        return self < (major, minor)

    def since(self, major: int, minor: int = 0) -> bool:
        return self >= (major, minor)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


def import_tensorrt() -> ModuleType:
    """The package ``tensorrt``.

    Raises:
        DependencyError: it is not installed, cannot be loaded, or is too old; what to do about it.
    """
    try:
        package = importlib.import_module("tensorrt")
    except ImportError as error:
        raise DependencyError(f"tensorrt cannot be imported ({error}): {how_to_install()}") from error
    Version.of(package)
    return package


def how_to_install() -> str:
    """The way to TensorRT on this kind of machine."""
    if platform.machine() == "aarch64":
        inside = sys.prefix != sys.base_prefix
        here = "this virtual environment does not see it: " if inside else ""
        return (
            f"on a Jetson it comes with JetPack (sudo apt install python3-libnvinfer), for the system's Python; {here}"
            "make the environment with python3 -m venv --system-site-packages. It needs JetPack 6 or newer"
        )
    return "pip install 'pyldfusion[tensorrt]'"


def make_logger(trt: ModuleType) -> tensorrt.ILogger:
    """A logger that hands on to Python's ``pyldfusion.tensorrt``, and keeps the last errors for :func:`take_errors`."""
    levels = {
        trt.ILogger.Severity.INTERNAL_ERROR: logging.CRITICAL,
        trt.ILogger.Severity.ERROR: logging.ERROR,
        trt.ILogger.Severity.WARNING: logging.WARNING,
        # what TensorRT says of its steps is for who looks for something
        trt.ILogger.Severity.INFO: logging.DEBUG,
        trt.ILogger.Severity.VERBOSE: logging.NOTSET,
    }

    class Log(trt.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity, logging.WARNING)
            if level >= logging.ERROR:
                self.errors = [*self.errors, message][-KEPT:]
            if level:
                _log.log(level, "%s", message)

    return Log()


def make_recorder(trt: ModuleType) -> tensorrt.IErrorRecorder:
    """What a runtime, an engine or a context reports errors to, from any thread; for :func:`take_errors`."""

    class Recorder(trt.IErrorRecorder):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.IErrorRecorder.__init__(self)
            self.errors: list[str] = []
            self._codes: list[Any] = []

        def report_error(self, code: Any, description: str) -> bool:
            self.errors.append(f"{description} ({getattr(code, 'name', code)})")
            self._codes.append(code)
            return False  # the caller goes on, and says itself that it failed

        def num_errors(self) -> int:
            return len(self.errors)

        def get_error_code(self, index: int) -> Any:
            return self._codes[index]

        def get_error_desc(self, index: int) -> str:
            return self.errors[index][: trt.IErrorRecorder.MAX_DESC_LENGTH]

        def has_overflowed(self) -> bool:
            return False

        def clear(self) -> None:
            self.errors, self._codes = [], []

    return Recorder()


def make_output_memory(trt: ModuleType) -> tensorrt.IOutputAllocator:
    """What gives an output the caller's memory where its shape is known only when the engine has run.

    Before each run the caller sets ``address`` and ``room`` (bytes); behind it ``shape`` is what came out. More than
    there is room for is refused, which fails the run.
    """

    class Memory(trt.IOutputAllocator):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.address = self.room = 0
            self.shape: tuple[int, ...] = ()

        def reallocate_output(self, tensor_name: str, memory: int, size: int, alignment: int) -> int:
            return self.address if size <= self.room and self.address % alignment == 0 else 0

        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            self.shape = tuple(shape)

    if Version.of(trt).before(10):
        return Memory()

    class StreamOrdered(Memory):
        def reallocate_output_async(self, tensor_name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            return self.reallocate_output(tensor_name, memory, size, alignment)

    return StreamOrdered()


def take_errors(*sources: Any) -> str:
    """What loggers and recorders have kept, once; "" if that is nothing."""
    errors: list[str] = []
    for source in sources:
        errors += (message for message in source.errors if message not in errors)
        source.errors = []
    return "; ".join(errors[-KEPT:])
