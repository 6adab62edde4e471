"""Every name of TensorRT that is used is in NVIDIA's lists of every version it is used for."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import tensorrt_stand_in
from .conftest import ROOT
from .tensorrt_lists import Lists, problems, read_lists, uses_tensorrt

VERSIONS = [(8, 6), (10, 3), (10, 7), (10, 13), (10, 16), (11, 4)]
SOURCES = [
    file
    for folder in ("pyldfusion", "export", "benchmarks", "tools")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if uses_tensorrt(file.read_text())
]


@pytest.fixture(scope="module")
def lists() -> Lists:
    import os

    folder = Path(os.environ.get("PYLDFUSION_SHARED", ROOT.parent / "shared")) / "tensorrt_api"
    if not folder.is_dir():
        pytest.skip(f"NVIDIA's lists of names were not found at {folder}; set PYLDFUSION_SHARED to its parent")
    found = read_lists(folder)
    assert sorted(found) == VERSIONS
    return found


def test_the_files_that_use_tensorrt_are_found():
    names = {file.relative_to(ROOT).as_posix() for file in SOURCES}
    assert {"export/tensorrt/builder.py", "export/tensorrt/versions.py", "pyldfusion/tensorrt_api.py"} <= names


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_names_are_in_every_version_they_are_for(file, lists):
    assert problems(file.read_text(), lists) == []


def test_the_branches_are_in_one_place():
    """But for one class that has another method since 10, versions are asked for in versions.py alone."""
    asking = {
        file.relative_to(ROOT).as_posix()
        for folder in ("pyldfusion", "export")
        for file in (ROOT / folder).rglob("*.py")
        if "version.before(" in file.read_text() or "version.since(" in file.read_text()
    }
    assert asking == {"export/tensorrt/versions.py", "pyldfusion/tensorrt_api.py"}


PLANTED = {
    "a flag that 11 has not": (
        """
        def f(trt, version, config: trt.IBuilderConfig):
            if version.since(11):
                config.set_flag(trt.BuilderFlag.FP16)
        """,
        ["4: trt.BuilderFlag.FP16 (11.4)"],
    ),
    "the same, after the branch before 11 has returned": (
        """
        def f(trt, version, config: trt.IBuilderConfig):
            if version.before(11):
                config.set_flag(trt.BuilderFlag.FP16)
                return
            config.set_flag(trt.BuilderFlag.FP16)
        """,
        ["6: trt.BuilderFlag.FP16 (11.4)"],
    ),
    "the same, in else": (
        """
        def f(trt, version, config: trt.IBuilderConfig):
            if version.before(11):
                pass
            else:
                config.set_flag(trt.BuilderFlag.INT8)
        """,
        ["6: trt.BuilderFlag.INT8 (11.4)"],
    ),
    "no branch at all": (
        "def f(trt):\n    return trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        ["2: trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED (8.6)"],
    ),
    "a misspelt attribute": (
        "def f(trt, config: trt.IBuilderConfig):\n    config.set_memory_pool_limits(trt.MemoryPoolType.WORKSPACE, 1)",
        ["2: trt.IBuilderConfig.set_memory_pool_limits (8.6, 10.3, 10.7, 10.13, 10.16, 11.4)"],
    ),
    "a removed method, of what a method gave": (
        "def f(trt, engine: trt.ICudaEngine):\n    engine.create_execution_context().execute_async_v2([], 0)",
        ["2: trt.IExecutionContext.execute_async_v2 (10.3, 10.7, 10.13, 10.16, 11.4)"],
    ),
    "a removed attribute that is set": (
        "def f(trt, layer: trt.ILayer):\n    layer.precision = trt.DataType.FLOAT",
        ["2: trt.ILayer.precision (11.4)"],
    ),
    "a variable that takes its class from a call": (
        "def f(trt, network):\n    parser = trt.OnnxParser(network)\n    parser.supports_model(b'')",
        ["3: trt.OnnxParser.supports_model (11.4)"],
    ),
    "an attribute of self": (
        """
        class A:
            def __init__(self, engine):
                self._engine: trt.ICudaEngine = engine

            def f(self):
                return self._engine.num_bindings
        """,
        ["7: trt.ICudaEngine.num_bindings (10.3, 10.7, 10.13, 10.16, 11.4)"],
    ),
    "a class that 8.6 has not": (
        "def f(trt):\n    class P(trt.IProgressMonitor):\n        pass",
        ["2: trt.IProgressMonitor (8.6)"],
    ),
    "a method that nobody calls": (
        "def f(trt):\n    class L(trt.ILogger):\n        def write(self, severity, text):\n            pass",
        ["3: trt.ILogger.write (8.6, 10.3, 10.7, 10.13, 10.16, 11.4)"],
    ),
    "a function of the package": (
        "def f(trt):\n    trt.shutdown_protobuf_library()",
        ["2: trt.shutdown_protobuf_library (10.3, 10.7, 10.13, 10.16, 11.4)"],
    ),
    "getattr with a name": (
        "def f(trt):\n    return getattr(trt.BuilderFlag, 'BF16')",
        ["2: trt.BuilderFlag.BF16 (8.6, 11.4)"],
    ),
    "getattr with anything": (
        "def f(trt, name):\n    return getattr(trt.BuilderFlag, name)",
        ["2: getattr of a name that is not written out cannot be checked (8.6, 10.3, 10.7, 10.13, 10.16, 11.4)"],
    ),
    "a number in place of a name": (
        "def f(trt, builder: trt.Builder):\n    builder.create_network(1)",
        ["2: create_network(1): a number in place of a name (8.6, 10.3, 10.7, 10.13, 10.16, 11.4)"],
    ),
    "an and with something else leaves the versions after it": (
        """
        def f(trt, version, weak, config: trt.IBuilderConfig):
            if version.before(11) and weak:
                config.set_flag(trt.BuilderFlag.FP16)
                return
            config.set_flag(trt.BuilderFlag.FP16)
        """,
        ["6: trt.BuilderFlag.FP16 (11.4)"],
    ),
    "the else of an and with something else": (
        """
        def f(trt, version, weak, config: trt.IBuilderConfig):
            if version.since(10) and weak:
                pass
            else:
                config.progress_monitor = None
        """,
        ["6: trt.IBuilderConfig.progress_monitor (8.6)"],
    ),
}


@pytest.mark.parametrize(("source", "expected"), PLANTED.values(), ids=PLANTED)
def test_planted_mistakes_are_found(source, expected, lists):
    import textwrap

    assert problems(textwrap.dedent(source), lists) == expected


def test_branches_that_are_right_are_left_alone(lists):
    source = """
def f(trt, version, config: trt.IBuilderConfig):
    if version.before(10):
        config.set_flag(trt.BuilderFlag.FP16)
    elif version.before(11):
        return trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    if not version.since(10, 13):
        return None
    return trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
"""
    assert problems(source, lists) == []


def test_the_stand_in_has_no_names_of_its_own(lists):
    """Each of its classes is one of TensorRT's, in the versions it stands in for, and has no other attributes."""
    for version, package in tensorrt_stand_in.packages(VERSIONS):
        for name, owner in tensorrt_stand_in.classes(package):
            assert tensorrt_stand_in.names(owner) <= lists[version][name], (version, name)
