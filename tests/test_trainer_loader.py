"""Batches from worker processes: the same ones, in order, and no worker left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tqdm")

from pyldfusion.errors import InputError  # noqa: E402
from trainer.config import CropConfig, DataConfig, load_config  # noqa: E402
from trainer.data.crops import SceneCrops  # noqa: E402
from trainer.data.loader import stream  # noqa: E402
from trainer.data.pairs import load_pairs  # noqa: E402
from trainer.data.samples import EpochSamples  # noqa: E402

from .conftest import ROOT  # noqa: E402
from .trainer_pairs import equal, language, seven_pairs  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return seven_pairs(tmp_path_factory.mktemp("pairs") / "mine")


class Failing:
    steps_per_epoch = 10

    def __init__(self, batches, at: int, error: Exception) -> None:
        self.batches, self.at, self.error = batches, at, error

    def __call__(self, step):
        if step == self.at:
            raise self.error
        return self.batches(step)


class TestStream:
    @pytest.mark.parametrize("kind", ["epoch", "scenes"])
    def test_workers_make_the_same_batches_in_the_same_order(self, folder, kind):
        if kind == "epoch":
            config = language(preset="authors")
            batches = EpochSamples(load_pairs([folder], DataConfig(cache="disk"), crop=64), config)
        else:
            config = replace(load_config("supervised-lite"), crops=CropConfig(crops=("64x64",), batch_pixels=8192))
            batches = SceneCrops(load_pairs([folder]), config, 30)
        torch.manual_seed(5)
        here = list(stream(batches, 13, 22))
        there = list(stream(batches, 13, 22, workers=2))
        assert [batch.step for batch in there] == list(range(13, 22))
        assert all(equal(a, b) for a, b in zip(here, there, strict=True))
        drawn = torch.rand(1)
        torch.manual_seed(5)
        assert torch.equal(torch.rand(1), drawn)  # the run's own generator is left alone
        assert list(stream(batches, 5, 5, workers=1)) == []

    @pytest.mark.parametrize("workers", [0, 2])
    def test_errors_arrive_at_their_step_as_they_were(self, folder, workers):
        batches = EpochSamples(load_pairs([folder], crop=64), language())
        coming = stream(Failing(batches, 2, InputError("x.png: no such file")), 0, 9, workers)
        assert [next(coming).step for _ in range(2)] == [0, 1]
        with pytest.raises(InputError, match=r"^x\.png: no such file$"):
            next(coming)

    def test_pinned_memory_where_there_is_cuda(self, folder):
        batches = EpochSamples(load_pairs([folder], crop=64), language())
        for workers in (0, 1):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                (batch,) = stream(batches, 0, 1, workers, pin=True)
            assert batch.ir.is_pinned() == torch.cuda.is_available() and equal(batch, batches(0))

    def test_signals_are_for_the_main_process(self, folder):
        """A signal to all processes: the stream goes on for as long as the run wants it, and ends without a word."""
        with subprocess.Popen(
            [sys.executable, "-c", SIGNALLED, str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
                assert process.stdout.readline().strip() == "ready", process.stderr.read()
                os.killpg(process.pid, number)
            try:
                out, errors = process.communicate(timeout=60)
            finally:
                process.kill()
        assert (process.returncode, out.split(), errors) == (0, ["interrupted", "0"], "")


#: Twice signals that are only noted, with 20 more batches after each; then one that interrupts the waiting itself. At
#: last it ends with a stream that nobody has closed.
SIGNALLED = """
import itertools, multiprocessing, signal, sys, time
import torch
from trainer.config import load_config
from trainer.run.interrupt import interrupted
from trainer.data.loader import stream
from trainer.data.pairs import load_pairs
from trainer.data.samples import EpochSamples

config = load_config("authors", ["samples.crop=64", "samples.batch=4"])
coming = stream(EpochSamples(load_pairs([sys.argv[1]], crop=64), config), 0, 10**6, workers=2)
for _ in range(2):
    with interrupted() as stop:
        next(coming)
        print("ready", flush=True)
        while not stop():
            next(coming)
        for batch in itertools.islice(coming, 20):
            pass
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    print("ready", flush=True)
    for batch in coming:
        pass
except KeyboardInterrupt:
    print("interrupted")
del coming
deadline = time.monotonic() + 20
while multiprocessing.active_children() and time.monotonic() < deadline:
    time.sleep(0.05)
print(len(multiprocessing.active_children()))
torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.5  # seconds that torch gives a worker at the end
open_stream = stream(EpochSamples(load_pairs([sys.argv[1]], crop=64), config), 0, 10**6, workers=2)
next(open_stream)
"""
