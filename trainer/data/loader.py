"""Batches in the order of the steps, made here or ahead of time by worker processes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from pyldfusion.errors import PyldfusionError

from ..objective import Batch, Batches

__all__ = ["stream"]


def stream(batches: Batches, first: int, last: int, workers: int = 0, pin: bool = False) -> Iterator[Batch]:
    """The batches of steps ``first`` to ``last`` - 1, the same ones whatever the number of workers.

    Args:
        batches: step -> batch.
        workers: processes that make batches ahead; 0: this process makes each when it is asked for. They share the
            cached planes of this process and end with the iterator.
        pin: into pinned memory, from where a CUDA device copies without waiting; nothing where there is no CUDA.

    Raises:
        PyldfusionError: what ``batches`` raised, at its step, with its type and message, from a worker too.
    """
    pin = pin and torch.cuda.is_available()
    if workers == 0:
        return (_pinned(batches(step)) if pin else batches(step) for step in range(first, last))
    return _from_workers(batches, range(first, last), workers, pin)


def _from_workers(batches: Batches, steps: range, workers: int, pin: bool) -> Iterator[Batch]:
    loader: DataLoader[Any] = DataLoader(
        _Steps(batches),
        sampler=steps,
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=_begin,
        multiprocessing_context="fork",  # cached planes are shared, not copied
        generator=torch.Generator(),  # else it would draw from the global one, and workers would change the run
    )
    with _held_back(signal.SIGINT, signal.SIGTERM):
        made = iter(loader)  # starts the workers
    try:
        for item in made:
            if isinstance(item, PyldfusionError):
                raise item
            yield Batch(**{**item, "names": tuple(item["names"])})  # pinning makes a list of a tuple
    finally:
        del made  # ends the workers now, though a traceback may keep this frame


class _Steps(Dataset[Any]):
    """What a worker is asked for: the fields of a batch by name, as the pinning thread takes them, or an error.

    A raised error would arrive with the worker's traceback for a message.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __getitem__(self, step: int) -> dict[str, Any] | PyldfusionError:
        try:
            return vars(self.batches(step))
        except PyldfusionError as error:
            return error


def _as_it_is(item: Any) -> Any:
    return item


def _begin(worker: int) -> None:
    # 0 and not 1: OpenCV would stop its threads, which did not come along in the fork, and wait for ever
    cv2.setNumThreads(0)
    sys.excepthook = _but_for_a_lost_line
    threading.Thread(target=_leave_when_told, daemon=True).start()


def _but_for_a_lost_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Python's own, but silent of a main process that was interrupted just as it took a batch from this worker."""
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


def _leave_when_told() -> None:
    """End this worker when the main process, and nobody else, sends SIGTERM: at its own end, if it could not say so."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


@contextlib.contextmanager
def _held_back(*signals: signal.Signals) -> Iterator[None]:
    """Keep signals from processes that are started meanwhile, for as long as they live.

    Ctrl-C and many schedulers signal all processes at once. When the run ends is for the main process to say; workers
    that died first would take its last checkpoint with them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _pinned(batch: Batch) -> Batch:
    fields = {name: value.pin_memory() if torch.is_tensor(value) else value for name, value in vars(batch).items()}
    return Batch(**fields)
