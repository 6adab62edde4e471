"""The emulation that other tests run kernels with: right kernels run, and wrong ones are found."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import numpy as np
import pytest

from .host_cuda import build

LAUNCH_FAILURE, INVALID_CONFIGURATION = 719, 9
KERNELS = build.HERE / "kernels.cu"

pytestmark = pytest.mark.skipif(bool(build.missing()), reason=build.missing())


@pytest.fixture(scope="module")
def library():
    return build.load(KERNELS)


def at(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def fault(library, code: int) -> str:
    assert code == LAUNCH_FAILURE
    return library.cudaGetErrorString(code).decode()


def test_a_block_reduction_in_every_order(library):
    x = np.random.default_rng(1).random(10_001, dtype=np.float32)
    results = []
    for _ in build.orders(library):
        out = np.full(3, np.nan, np.float32)
        assert library.t_sums(at(x), len(x), at(out), 3, 160) == 0
        results.append(out)
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])
    np.testing.assert_allclose(results[0].sum(), x.sum(dtype=np.float64), rtol=1e-6)


def test_lanes_see_each_other(library):
    out = np.full((64, 8), -7, np.int32)
    assert library.t_lanes(at(out)) == 0
    lane = np.arange(64) % 32
    assert np.array_equal(out[:, 0], np.full(64, 5))
    assert np.array_equal(out[:, 1], np.where(lane < 3, lane, lane - 3))
    assert np.array_equal(out[:, 2], np.where(lane > 28, lane, lane + 3))
    assert np.array_equal(out[:, 3], lane ^ 8)
    assert np.array_equal(out[:, 4].view(np.uint32), np.full(64, sum(1 << i for i in range(0, 32, 3)), np.uint32))
    assert np.array_equal(out[:, 5], np.where(lane % 8 > 4, lane, lane + 3))
    assert np.array_equal(out[:, 6], np.where(lane < 16, 15 - lane, -1))
    assert np.array_equal(out[:, 7], np.full(64, 8))


def test_atomics_count(library):
    x = np.random.default_rng(2).integers(0, 256, 5000, dtype=np.uint8)
    bins = np.full(256, 9, np.uint32)
    assert library.t_histogram(at(x), len(x), at(bins)) == 0
    assert np.array_equal(bins, np.bincount(x, minlength=256))


def test_a_missing_barrier_is_a_race_in_every_order(library):
    for order in build.orders(library):
        values = np.arange(96.0)
        assert library.t_rotate(at(values), 96, 1) == 0
        assert np.array_equal(values, np.roll(np.arange(96.0), -1))
        assert "race on shared memory: thread" in fault(library, library.t_rotate(at(values), 96, 0)), order


def test_a_shuffle_is_no_fence(library):
    values = np.arange(64, dtype=np.int32)
    assert library.t_rotate_in_warps(at(values), 1) == 0
    assert np.array_equal(values, np.roll(np.arange(64).reshape(2, 32), -1, axis=1).ravel())
    assert "race on shared memory" in fault(library, library.t_rotate_in_warps(at(values), 0))


def test_a_barrier_that_not_all_reach(library):
    out = np.zeros(64, np.int32)
    text = fault(library, library.t_diverge(at(out)))
    assert "barrier divergence in block (0,0,0): 32 threads (the first is thread (1,0,0)) returned" in text
    assert "32 threads (the first is thread (0,0,0)) wait for the block at" in text and "kernels.cu:" in text
    assert "barrier divergence" in fault(library, library.t_two_places(at(out)))
    assert library.t_lanes(at(np.zeros((64, 8), np.int32))) == 0, "the next launch starts afresh"


def test_shared_memory_starts_as_nan(library):
    out = np.zeros(64, np.float32)
    assert library.t_unwritten(at(out)) == 0
    assert np.isnan(out[63]) and np.all(out[:63] == 1)


def test_accesses_outside_shared_memory(library):
    out = np.zeros(32, np.int32)
    assert "past dynamic shared memory by thread (31,0,0)" in fault(library, library.t_past_shared(at(out)))
    assert library.t_past_array(at(out), 0) == 0
    assert "an index outside its array" in fault(library, library.t_past_array(at(out), 1))


def test_a_misaligned_vector(library):
    x, out = np.zeros(16, np.float32), np.zeros(8, np.float32)
    aligned = x[(-x.ctypes.data % 16) // 4 :]
    where = out[(-out.ctypes.data % 16) // 4 :]
    assert "a misaligned or null address" in fault(library, library.t_misaligned(at(aligned), at(where)))
    assert library.t_misaligned(at(aligned[3:]), at(where)) == 0


def test_a_write_past_device_memory(library):
    assert library.t_store(9) == 0
    assert "past the end of 40 bytes of device memory" in fault(library, library.t_store(10))


def test_launch_checks_its_configuration(library):
    out = np.zeros(1, np.float32)
    assert library.t_empty_grid(at(out)) == 0 and out[0] == 0
    assert library.t_block_of(at(out), 1025) == INVALID_CONFIGURATION
    assert library.cudaPeekAtLastError() == 0, "the error was taken from the thread"
    for kib in (40, 41, 47, 48, 227):  # static memory of the kernel counts towards the 48 that need no asking
        assert library.t_shared_bytes(at(out), ctypes.c_long(kib * 1024)) == 0, kib
    assert library.t_shared_bytes(at(out), ctypes.c_long(227 * 1024 + 1)) == INVALID_CONFIGURATION


@pytest.mark.slow
def test_address_sanitizer_sees_global_memory():
    build.build(KERNELS, address=True)
    program = (
        "import ctypes; from tests.host_cuda import build;"
        "library = build.load(build.HERE / 'kernels.cu', address=True);"
        "out = (ctypes.c_int * 512)(); assert library.t_lanes(out) == 0; print('fine', flush=True); library.t_store(10)"
    )
    environment = {**os.environ, "LD_PRELOAD": build.preload(), "ASAN_OPTIONS": "detect_leaks=0"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=build.ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr
    assert done.returncode != 0 and "heap-buffer-overflow" in done.stderr and "kernels.cu" in done.stderr
