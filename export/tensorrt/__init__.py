"""TensorRT engines from ONNX files. The package ``tensorrt`` is imported when one is built.

:mod:`~export.tensorrt.builder` reads top to bottom how an engine comes about, :mod:`~export.tensorrt.versions` holds
everything that differs between 8.6, 10.x and 11.x, :mod:`~export.tensorrt.readback` says what was really built.
"""

from .builder import HARDWARE, BuildOptions, build_engine, engine_name

__all__ = ["HARDWARE", "BuildOptions", "build_engine", "engine_name"]
