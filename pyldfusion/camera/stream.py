"""The pipeline: capture, pairing and preparing, the engine, views, outputs; each in its own thread, bounded between.

From cameras the newest pair is taken at every hand-over, so that a slow part costs frames and no delay; from files
every frame goes through.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import CameraError, InputError
from ..fuser import Fuser
from ..registration import visible_outside
from ..views import view_picture
from .cameras import CameraPair
from .handover import Ended, Handover
from .latency import Latencies, Rate
from .overlay import overlay, overlay_text
from .prepare import Prepared, Preparer
from .recording import Recorder, Recording, check_is_new
from .sinks import Output, Shown, open_sink
from .uri import Address, as_address

__all__ = ["Stream"]


@dataclass(frozen=True, eq=False)
class _Fused:
    """A prepared pair with its fused picture."""

    prepared: Prepared
    picture: NDArray[Any]
    done: float


class Stream:
    """Fuses what two cameras give and hands it to outputs; a context manager.

    Args:
        fuser: what fuses; it is not closed here.
        pairs: the cameras, made with ``alone=True`` if the stream is to go on with one of them.
        outputs: addresses as in ``pyldfusion stream --help``, or paths.
        preparer: gain, registration and corrections; without one, the registration is that of ``pairs``.
        view, palette: as of ``views.view_picture``.
        words: whether to write rate, latency and skew on the picture.
        record: a folder for the pairs as they come, see :class:`Recorder`.

    Raises:
        InputError, CameraError: an output that cannot be opened; a folder to record in that holds a recording.

    Example:
        >>> with Fuser() as fuser, CameraPair("0", "rtsp://cam/1", alone=True) as pairs:
        ...     with Stream(fuser, pairs, ["http://@:8080"]) as stream:
        ...         stream.run()
    """

    def __init__(
        self,
        fuser: Fuser,
        pairs: CameraPair | Recording,
        outputs: Sequence[str | Path | Address],
        preparer: Preparer | None = None,
        *,
        view: str = "fused",
        palette: str = "inferno",
        words: bool = False,
        record: str | Path | None = None,
    ) -> None:
        if record is not None:
            check_is_new(record)  # before an output is opened
        self._fuser, self._pairs = fuser, pairs
        self._preparer = preparer or Preparer(pairs.registration, events=pairs.events)
        if self._preparer.drift is not None:
            self._preparer.drift.wait = not pairs.live
        self._view, self._palette, self._words = view, palette, words
        self._latencies, self._rate = Latencies(), Rate()
        self._limit: int | None = None
        self._error: BaseException | None = None
        self.fused = self.alone = self.shown = 0
        ahead, wait = (1, False) if pairs.live else (2, True)
        self._ready = Handover[Prepared](ahead, wait)
        self._done = Handover[_Fused](2, wait=True)
        self.outputs: list[Output] = []
        self.recorder: Recorder | None = None
        with ExitStack() as stack:
            addresses = [as_address(given, "sink") for given in outputs]
            rate = max((rate for rate in pairs.rates if rate), default=None)
            for address in addresses:
                sink = stack.enter_context(open_sink(address, rate, pairs.live))
                wait = {"wait": True, "drop": False, "auto": not pairs.live}[address.options["full"]]
                self.outputs.append(
                    Output(
                        str(address), sink, address.options["queue"], wait, pairs.events, self.stop,
                        lambda seconds: self._latencies.add("total", seconds),
                    )
                )  # fmt: skip
                stack.callback(self.outputs[-1].close)
            if record is not None:
                self.recorder = stack.enter_context(Recorder(record, pairs.events, pairs.live, pairs.rates))
            self._stack = stack.pop_all()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, frames: int | None = None, duration: float | None = None) -> None:
        """Run until the cameras end, :meth:`stop` is called, every output has failed, ``frames`` pictures are made or
        ``duration`` seconds have passed. Outputs are finished by :meth:`close`.

        Raises:
            InputError: the first pair cannot be fused.
            EngineError: the engine failed.
            CameraError: every output has failed.
        """
        self._limit = frames
        threads = [
            threading.Thread(target=self._guard, args=(work, following), name=f"pyldfusion{work.__name__}", daemon=True)
            for work, following in ((self._prepare, self._ready), (self._show, self._done))
        ]
        timer = threading.Timer(duration, self.stop) if duration else None
        for thread in threads if timer is None else [*threads, timer]:
            thread.start()
        try:
            self._guard(self._fuse, self._done)
        finally:
            self.stop()
            self._done.close()
            if timer is not None:
                timer.cancel()
            for thread in threads:
                thread.join(30)
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End :meth:`run` soon; from any thread or a signal handler."""
        self._pairs.stop()
        self._ready.close(discard=True)

    def close(self) -> None:
        """Stop, and finish the outputs."""
        self.stop()
        self._stack.close()

    def stats(self) -> dict[str, Any]:
        """What has happened so far, as a new dict that JSON can hold."""
        return {
            "fused": self.fused,
            "alone": self.alone,
            "shown": self.shown,
            "skipped": self._ready.dropped + self._pairs.skipped,
            "rate": round(self._rate.value(), 2),
            "latency_ms": self._latencies.milliseconds(),
            "cameras": self._pairs.stats(),
            "outputs": {
                output.name: {"written": output.written, "dropped": output.dropped, "failed": output.failed}
                for output in self.outputs
            },
            "recorded": None
            if self.recorder is None
            else {"pairs": self.recorder.written, "dropped": self.recorder.dropped, "failed": self.recorder.failed},
            "events": self._pairs.events.counts(),
        }

    def _guard(self, work: Any, following: Handover[Any]) -> None:
        """One part of the pipeline: its error ends the stream and is raised by :meth:`run`; its end goes on."""
        try:
            work()
        except BaseException as error:
            self._error = self._error or error
            self.stop()
        finally:
            following.close()

    def _prepare(self) -> None:
        try:
            self._prepare_all()
        finally:
            self._preparer.close()

    def _prepare_all(self) -> None:
        for pair in self._pairs:
            paired = time.monotonic()
            if self.recorder is not None:
                self.recorder.put(pair)
            prepared = self._preparer(pair)
            self._latencies.add("pair", paired - pair.arrived)
            self._latencies.add("prepare", time.monotonic() - paired)
            if not self._ready.put(prepared):
                return

    def _fuse(self) -> None:
        made = 0
        while self._limit is None or made < self._limit:
            try:
                prepared = self._ready.get()
            except Ended:
                return
            assert prepared is not None
            start = time.monotonic()
            try:
                picture = self._picture(prepared)
            except InputError as error:
                if not self.fused:
                    raise
                self._pairs.events.tell("pair unusable", str(error))
                continue
            done = time.monotonic()
            self._latencies.add("engine", done - start)
            made += 1
            if not self._done.put(_Fused(prepared, picture, done)):
                return

    def _picture(self, prepared: Prepared) -> NDArray[Any]:
        """The fused picture, or of a pair that lacks a half the other half."""
        if prepared.ir is not None and prepared.vis is not None:
            taken = None if prepared.pair.vis is None else prepared.pair.vis.time
            if self._fuser.warps and prepared.grey is not None and prepared.homography is not None:
                picture = self._fuser.fuse(prepared.grey, prepared.vis, homography=prepared.homography, time=taken)
            else:
                picture = self._fuser.fuse(prepared.ir, prepared.vis, time=taken)
            self.fused += 1
            return picture
        self.alone += 1
        if prepared.vis is not None:
            return prepared.vis
        return np.asarray(cv2.cvtColor(np.asarray(prepared.ir), cv2.COLOR_GRAY2BGR))

    def _show(self) -> None:
        while True:
            try:
                fused = self._done.get()
            except Ended:
                return
            assert fused is not None
            prepared, picture, pair = fused.prepared, fused.picture, fused.prepared.pair
            if prepared.cover is not None and prepared.vis is not None:
                picture = visible_outside(picture, prepared.vis, prepared.cover)
            if self._view != "fused":
                black = np.zeros(picture.shape[:2], np.uint8)
                ir = black if prepared.ir is None else prepared.ir
                vis = picture if prepared.vis is None else prepared.vis
                picture = view_picture(self._view, ir, vis, picture, self._palette)
            self._rate.tick()
            if self._words:
                text = overlay_text(self._rate.value(), self._latencies.last("total"), pair.skew, prepared.flags)
                picture = overlay(picture, text)
            self._latencies.add("show", time.monotonic() - fused.done)
            frame = pair.vis or pair.ir
            assert frame is not None
            for output in self.outputs:
                output.put(Shown(picture, frame.time, pair.arrived))
            self.shown += 1
            if self.outputs and all(output.failed for output in self.outputs):
                raise CameraError("every output has failed")
