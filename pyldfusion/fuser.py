"""The door to fusion: opens a model, checks a pair of frames, runs an engine, gives the fused frame back."""

from __future__ import annotations

import functools
import itertools
import logging
import operator
import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from .artefact import NAMES, Artefact, open_artefact
from .engines.base import Engine, PipelinedEngine, check_frames
from .engines.choice import computed, cuda_usable, open_engine, rebuilt
from .errors import EngineError, InputError
from .image import (
    MIN_SIDE,
    Visible,
    check_color,
    check_frame,
    check_out,
    check_pair,
    infrared_to_8bit,
    is_on_gpu,
    is_palette,
)
from .thermal import check_range, to_counts

if TYPE_CHECKING:  # they import OpenCV, which importing a Fuser does not
    from .calibration import Calibration
    from .registration import Registration
    from .temporal import Past

__all__ = ["Fuser"]


class Pair(NamedTuple):
    """A pair on its way: infrared as the engine takes it, uint8 [H,W], with a homography where that lays it onto the
    visible frame, and that one with its way back."""

    ir: NDArray[np.uint8]
    visible: Visible
    vis: NDArray[Any]
    cover: NDArray[np.float32] | None
    homography: NDArray[np.float64] | None

    def restore(self, frame: NDArray[np.uint8]) -> NDArray[Any]:
        """The fused frame in the kind of ``vis``, and ``vis`` where there is no infrared."""
        fused = self.visible.restore(frame)
        if self.cover is None:
            return fused
        from .registration import visible_outside

        return visible_outside(fused, self.vis, self.cover)


_log = logging.getLogger("pyldfusion")


class Fuser:
    """Fuses infrared and visible frames.

    Args:
        path: a model file (``.onnx``, ``.safetensors``, OpenVINO's ``.xml``, TensorRT's ``.engine``), ``"full"`` or
            ``"lite"`` for the bundled ones, or ``"pyramid"``, which fuses without a network, in native code on the CPU.
            None takes ``full`` where a usable GPU is and ``lite`` on a CPU; which one is logged, and in :attr:`info`.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"``; None takes a usable GPU, else the CPU.
        engine: ``"openvino"``, ``"onnxruntime"``, ``"torch"``, ``"native"``, or with a precision as
            ``"openvino:fp32"``; None takes the fastest that is installed.
        precision: ``"fp32"``, ``"bf16"``, or on a GPU ``"fp16"``; None takes the fastest that the device has natively.
        threads: CPU threads; None takes the physical cores that this process may use.
        color: ``"bgr"`` as OpenCV reads pictures, or ``"rgb"``: the order of channels in frames, in and out.
        thermal: ``(low, high)``: what becomes black and white of a uint16 infrared camera, in its counts, or of
            temperatures (float or signed integers), in their unit. None scales every uint16 frame by its own 0.5 and
            99.5 percentiles, and floats are grey levels in [0, 1].
        registration: how infrared lies on visible frames: a :class:`~pyldfusion.registration.Registration`, a
            calibration or the path of one. Pairs may then be as the cameras gave them, of two sizes and views: infrared
            is laid onto the visible frame first. None takes pairs that show the same view; infrared of fewer or more
            pixels is resized.
        temporal: for videos: seconds over which the network's statistics are averaged, so that what stands still is
            drawn the same from frame to frame (docs/video.md). Frames are then fused in order, in one thread. The first
            one, and what follows a cut, is as without. None fuses every frame alone.
        rebuild: a TensorRT engine that was built with another TensorRT or for another GPU is built again from the
            ONNX file beside it, and kept there under a name of its own; without it that is an error that says so.

    Raises:
        ArtefactError: the file is missing, damaged or not a fusion model.
        InputError: an unknown name or an impossible combination.
        DependencyError: the engine that was asked for is not installed.
        DeviceError: the device or precision that was asked for is not on this machine.

    One Fuser may be used from several threads: calls into the engine take turns, and on a GPU the frames of several
    threads overlap as those of :meth:`stream` do. After ``os.fork`` it must not be used in the child, whose copy
    of the engine has lost its threads: make a new one there (an error says so).

    Example:
        >>> with Fuser() as fuser:
        ...     fused = fuser.fuse(ir, vis)
    """

    def __init__(
        self,
        path: str | Path | None = None,
        device: str | None = None,
        engine: str | None = None,
        *,
        precision: str | None = None,
        threads: int | None = None,
        color: str = "bgr",
        thermal: Sequence[float] | None = None,
        registration: Registration | Calibration | str | Path | None = None,
        temporal: float | None = None,
        rebuild: bool = False,
    ) -> None:
        self._registration = _open_registration(registration)
        self._color = check_color(color)
        self._thermal = check_range(thermal)
        self._lock = threading.Lock()
        self._warned_palette = False
        self._called: tuple[NDArray[np.float64], Registration] | None = None  # of the latest homography
        self._process = os.getpid()
        self._reason = "asked for"
        if path is None:
            path, self._reason = _default_model(device, engine)
        elif not isinstance(path, (str, Path)):
            raise InputError(f"path is a {type(path).__name__}; expected a model file, {', '.join(NAMES)}, or None")
        self._artefact: Artefact = open_artefact(path)
        self._past: Past | None = None
        if temporal is not None:
            from .temporal import Past, temporal_artefact

            self._past = Past(temporal)
            self._artefact = temporal_artefact(self._artefact, engine)
        if rebuild:
            self._artefact = rebuilt(self._artefact, device)
        self._engine: Engine | None = open_engine(self._artefact, device, engine, precision, threads)
        if self._past is not None and not self._engine.temporal:
            name, where = self._engine.name, self._engine.device
            self._engine.close()
            raise InputError(f"temporal is for networks on a CPU so far; {name} on {where} fuses every frame alone")
        _log.info(
            "model %s (%s), engine %s %s on %s, %d threads",
            path, self._reason, self._engine.name, self._engine.precision, self._engine.device, self._engine.threads,
        )  # fmt: skip
        self._info = {
            "model": str(path),
            "model_chosen": self._reason,
            "variant": self._artefact.variant,
            "weights": self._artefact.precision,
            "engine": self._engine.name,
            "engine_version": self._engine.version,
            "precision": computed(self._artefact, self._engine.precision),
            "device": self._engine.device,
            "threads": self._engine.threads,
            "temporal": temporal,
        }

    @property
    def info(self) -> dict[str, Any]:
        """What computes here, as a new dict.

        ``model`` (as given), ``model_chosen`` (why), ``variant``, ``weights`` (how they are stored), ``engine``,
        ``engine_version``, ``precision`` (computed in), ``device``, ``threads``, ``temporal`` (seconds, or None),
        ``sha256`` (of the file, "" without one), ``clip_trained`` (as the file says, or "unknown") and ``metadata``
        (all the file says of itself).
        """
        metadata = dict(self._artefact.metadata)
        return {
            **self._info,
            "sha256": self._artefact.sha256,
            "clip_trained": metadata.get("clip_trained", "unknown"),
            "metadata": metadata,
        }

    def forget(self) -> None:
        """Where the Fuser is temporal, the next frame is the first of a video; cuts are found without."""
        with self._lock:
            if self._past is not None:
                self._past.forget()

    @property
    def warps(self) -> bool:
        """Whether the graph lays the infrared onto the visible itself, by a homography that it is given."""
        return self._open().warps

    def fuse(
        self,
        ir: NDArray[Any],
        vis: NDArray[Any],
        out: NDArray[Any] | None = None,
        *,
        color: str | None = None,
        thermal: Sequence[float] | None = None,
        homography: Any = None,
        stream: Any = None,
        time: float | None = None,
    ) -> NDArray[Any]:
        """Fuse one pair of frames, registered ones or those that the Fuser's registration is for.

        Args:
            ir: infrared, HxW, HxWx1 or HxWx3; uint8, uint16 or float in [0, 1], or with ``thermal`` temperatures: float
                (NaN is cold) or signed integers in any unit, HxW or HxWx1. Three channels that differ (a
                palette) are turned to luma, with one warning.
            vis: visible, HxW, HxWx1 or HxWx3, of the same aspect where there is no registration (2 % is allowed: the
                infrared is resized); uint8, uint16 or float in [0, 1]. Any size from 16x16, any strides. The network
                sees 8 bits of it; uint16 and float keep theirs, because what fusion changes in the luma is added to the
                original.
            out: where to write the result: of vis's shape and dtype, any strides. It may be ``vis`` itself.
            color: the order of channels for this call, instead of the Fuser's.
            thermal: the range of ``ir`` for this call, instead of the Fuser's.
            homography: 3x3, from pixels of ``ir`` to pixels of ``vis``, for this call and instead of the Fuser's
                registration; ``ir`` may then have a size of its own, and its border is repeated outside. It, as that of
                a registration without lenses, goes into the graph where that was exported with ``--warp``
                (:attr:`warps`); else OpenCV lays the infrared on before.
            stream: for arrays of a GPU, the CUDA stream that all is in order with: torch's or CuPy's, or its handle.
            time: of a video's frame, in seconds by any clock, where the Fuser is temporal; None takes that of the call.

        Returns:
            The fused frame, of vis's shape and dtype (of the common view where a registration crops): ``out`` if it was
            given, else a new array that is the caller's own; the Fuser keeps no reference and writes to it no more.
            ``ir`` and ``vis`` are only read.

        Raises:
            InputError, DtypeError: an argument that cannot be used, by name, with what came and what is expected.
            EngineError: the runtime failed, or the Fuser was closed.

        On a GPU, ``ir`` and ``vis`` (and ``out``) may be arrays of that GPU: torch tensors, CuPy arrays, whatever has
        ``__dlpack__`` or ``__cuda_array_interface__``. The result is then a torch tensor there (a
        :class:`~pyldfusion.cuda.DeviceArray` from a TensorRT engine), which has both too; nothing is
        copied to the host and nothing waited for: work is ordered with ``stream``, or with torch's current one, as any
        operation of torch. Values are not looked at, so floats are clipped to [0, 1] instead of checked (NaN is 0),
        and a palette is not warned of. A registration lays the infrared on there, too, bilinearly (OpenCV rounds to
        32nds of a pixel), from a TensorRT engine without lenses and masks.
        """
        if is_on_gpu(ir) or is_on_gpu(vis):
            return self._fuse_on_gpu(ir, vis, out, color, thermal, homography, stream)
        if stream is not None:
            raise InputError("stream is for arrays of a GPU; NumPy arrays are fused when the call returns")
        pair = self._prepare(ir, vis, color, thermal, homography)
        if out is not None:
            check_out(out, pair.vis)
        fused = pair.restore(self._submit([pair], time)()[0])
        if out is None:
            return fused.astype(vis.dtype, copy=False)  # vis may have the other byte order
        np.copyto(out, fused)
        return out

    def fuse_batch(
        self,
        irs: Iterable[NDArray[Any]],
        viss: Iterable[NDArray[Any]],
        *,
        color: str | None = None,
        thermal: Sequence[float] | None = None,
        homography: Any = None,
    ) -> NDArray[Any]:
        """Fuse several pairs of one size.

        Args:
            irs: N infrared frames, a list or an array [N,...]; each as in :meth:`fuse`, all of one size.
            viss: as many visible frames, of one shape and dtype.
            color: as in :meth:`fuse`.
            thermal: as in :meth:`fuse`; without it each frame has its own percentiles.
            homography: as in :meth:`fuse`, one for all.

        Returns:
            A new array [N, *shape of a visible frame], of their dtype. Frame by frame what :meth:`fuse` gives: the
            engine takes as many at once as are worth while on its device, which on a CPU is one.

        Raises:
            InputError: no frames, or numbers, shapes or dtypes that differ; and as in :meth:`fuse`.
        """
        if self._past is not None:
            raise InputError("fuse_batch is for pairs that do not follow each other; give a video's to stream")
        irs, viss = _frames("irs", irs), _frames("viss", viss)
        if not irs or len(irs) != len(viss):
            raise InputError(f"irs has {len(irs)} frames and viss has {len(viss)}; expected equally many, at least one")

        def pairs() -> Iterator[Pair]:
            for index, (ir, vis) in enumerate(zip(irs, viss, strict=True)):
                pair = self._prepare(ir, vis, color, thermal, homography)
                if self.warps and ir.shape[:2] != irs[0].shape[:2]:
                    raise InputError(f"irs[{index}] has shape {ir.shape}; expected the size of irs[0], {irs[0].shape}")
                if (vis.shape, vis.dtype) != (viss[0].shape, viss[0].dtype):
                    raise InputError(
                        f"viss[{index}] is {vis.dtype} {vis.shape}; expected {viss[0].dtype} {viss[0].shape}, as "
                        "viss[0] is"
                    )
                yield pair

        fused = list(self._pipeline(pairs(), self._open().batch))
        return np.stack(fused).astype(viss[0].dtype, copy=False)

    def stream(
        self,
        pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]],
        *,
        color: str | None = None,
        thermal: Sequence[float] | None = None,
        homography: Any = None,
        times: Iterable[float] | None = None,
    ) -> Iterator[NDArray[Any]]:
        """Fuse pair after pair of a video or a camera.

        What :meth:`fuse` gives for each, in order. On a GPU up to three pairs are under way at once: while one is
        computed, the next goes up and the one before comes down. So a frame comes out when the second pair after it
        has gone in, or ``pairs`` has ended; for the least delay instead of the most frames a second take :meth:`fuse`.
        On a CPU every frame comes out before the next pair is asked for.

        Args:
            pairs: (ir, vis), each as :meth:`fuse` takes them, sizes and dtypes may change. Arrays must not be written
                to before their fused frame is out.
            color: as in :meth:`fuse`.
            thermal: as in :meth:`fuse`.
            homography: as in :meth:`fuse`, one for all.
            times: ``time`` of each pair, as in :meth:`fuse`; at least as many as pairs.

        Yields:
            The fused frames; each is the caller's own.

        Raises:
            InputError, DtypeError, EngineError: as :meth:`fuse`, when the pair is reached; ``times`` that end before
                the pairs do.
        """
        prepared = (self._prepare(*_both(pair), color, thermal, homography) for pair in pairs)
        return self._pipeline(prepared, 1, None if times is None else _each(times))

    def warmup(self, size: tuple[int, int] = (640, 480), batch: int = 1) -> None:
        """Get ready for frames of ``size``: engines compile and allocate at the first frame of a size.

        Args:
            size: (width, height) of the fused frames to come, from 16 up.
            batch: how many :meth:`fuse_batch` will be given.

        Raises:
            InputError: sizes that cannot be.
        """
        try:
            width, height = (operator.index(side) for side in size)
            possible = min(width, height) >= MIN_SIDE and operator.index(batch) >= 1
        except (TypeError, ValueError):
            possible = False
        if not possible:
            raise InputError(
                f"size is {size!r} and batch is {batch!r}; expected (width, height) of at least {MIN_SIDE} each, and "
                "a batch of at least 1"
            )
        ir = np.zeros((height, width), np.uint8)
        vis = np.zeros((height, width, 3), np.uint8)
        pair = Pair(ir, Visible(vis), vis, None, None)
        for _ in range(2 if self._open().depth > 1 else 1):  # a GPU's graphs are recorded the second time
            for _ in self._pipeline([pair] * batch, self._open().batch):
                pass
        self.forget()

    def close(self) -> None:
        """Give the model's memory back. Frames that are being fused in other threads are finished first."""
        with self._lock:
            if self._engine is not None:
                self._engine.close()
                self._engine = None

    def __enter__(self) -> Fuser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._engine is None else f"{self._engine.name}:{self._engine.precision}"
        return f"<Fuser {self._info['model']} {state}>"

    def _prepare(
        self, ir: Any, vis: Any, color: str | None, thermal: Sequence[float] | None, homography: Any = None
    ) -> Pair:
        """Both frames as the engine takes them."""
        color = self._color if color is None else check_color(color)
        counts = self._thermal if thermal is None else check_range(thermal)
        cover = matrix = None
        if counts is not None and isinstance(ir, np.ndarray) and ir.dtype.kind in "fi" and _is_plane(ir):
            ir, counts = to_counts(ir, counts), (0.0, 65535.0)
        registration = self._registration_for(ir, vis, homography)
        if registration is not None:
            ir, vis = check_frame("ir", ir), check_frame("vis", vis)
            sizes = (ir.shape[1], ir.shape[0]), (vis.shape[1], vis.shape[0])
            matrix = registration.only_homography(*sizes) if self.warps else None
            if matrix is None:
                ir, vis, cover = registration.join(ir, vis)
            else:
                field = registration.field(*sizes)
                vis, cover = field.crop(vis), field.cover
        ir, vis = check_pair(ir, vis, one_size=matrix is None)
        if counts is not None and ir.dtype != np.uint16:
            raise InputError(
                f"thermal is given, but ir has dtype {ir.dtype}; a range is for uint16 infrared and for temperatures, "
                "float or signed integers of one channel"
            )
        if not self._warned_palette and is_palette(ir):
            self._warned_palette = True
            warnings.warn(
                "ir has three channels that differ: it looks like a false-colour picture and is fused by its luma, "
                "which is not its temperature; give the camera's grey (white-hot) or 16-bit output instead",
                stacklevel=3,
            )
        return Pair(infrared_to_8bit(ir, color, counts), Visible(vis, color), vis, cover, matrix)

    def _registration_for(self, ir: Any, vis: Any, homography: Any) -> Registration | None:
        """The call's, the Fuser's, or for frames of two sizes what only resizes; None where pixels lie on pixels."""
        if homography is not None:
            return self._registration_of(homography)
        if self._registration is None and _sizes_differ(ir, vis):
            return _resizing()
        return self._registration

    def _registration_of(self, homography: Any) -> Registration:
        """That of one call; most calls give the one before again."""
        from .registration import Registration

        try:
            matrix = np.asarray(homography, np.float64)
        except (TypeError, ValueError):
            raise InputError(f"homography is {homography!r}; expected 3x3, infrared to visible pixels") from None
        called = self._called  # read once: other threads may have calls of their own
        if called is None or not np.array_equal(called[0], matrix):
            self._called = called = matrix.copy(), Registration(matrix, outside="repeat")
        return called[1]

    def _open(self) -> Engine:
        if self._engine is None:
            raise EngineError("this Fuser is closed; make a new one")
        if self._process != os.getpid():
            raise EngineError("this Fuser was made before a fork, which its engine does not survive; make a new one")
        return self._engine

    def _pipeline(
        self, pairs: Iterable[Pair], batch: int, times: Iterator[float] | None = None
    ) -> Iterator[NDArray[Any]]:
        """The fused frames of pairs, ``batch`` of them at a time; as many batches under way as the engine takes."""
        under_way: deque[tuple[list[Pair], Callable[[], NDArray[np.uint8]]]] = deque()
        depth = self._open().depth
        pairs = iter(pairs)
        while (taken := list(itertools.islice(pairs, batch))) or under_way:
            if taken:
                under_way.append((taken, self._submit(taken, None if times is None else next(times))))
                if len(under_way) < depth:
                    continue
            done, fused = under_way.popleft()
            for pair, frame in zip(done, fused(), strict=True):
                yield pair.restore(frame)

    def _submit(self, pairs: Sequence[Pair], time: float | None = None) -> Callable[[], NDArray[np.uint8]]:
        """Begin to fuse pairs of one size; what is returned waits for the frames [N,H,W,3]."""
        self._open()
        if len(pairs) == 1:
            ir, vis = pairs[0].ir[None, ..., None], pairs[0].visible.frame[None]
        else:
            ir = np.stack([pair.ir for pair in pairs])[..., None]
            vis = np.stack([pair.visible.frame for pair in pairs])
        check_frames(self._artefact, vis.shape[:3])
        matrices = None
        if self.warps:
            given = [np.eye(3) if pair.homography is None else pair.homography for pair in pairs]
            matrices = np.stack(given).astype(np.float32)
        with self._lock:
            engine = self._open()
            if engine.depth > 1:
                return cast(PipelinedEngine, engine).submit(ir, vis, matrices)
            keep = 0.0
            if self._past is not None:
                keep = self._past.weight(ir[0, ..., 0], vis[0], monotonic() if time is None else time)
            fused = engine.run(ir, vis, matrices, keep)
        return lambda: fused

    def _fuse_on_gpu(
        self,
        ir: Any,
        vis: Any,
        out: Any,
        color: str | None,
        thermal: Sequence[float] | None,
        homography: Any,
        stream: Any,
    ) -> Any:
        color = self._color if color is None else check_color(color)
        counts = self._thermal if thermal is None else check_range(thermal)
        if self._open().depth == 1:
            name, frame = ("ir", ir) if is_on_gpu(ir) else ("vis", vis)
            raise InputError(
                f"{name} is a {type(frame).__name__} on a GPU, and this Fuser computes on the CPU; copy it to a NumPy "
                "array, or open the Fuser with device='cuda'"
            )
        if self.warps:
            raise InputError(
                f"{self._artefact.path.name} was exported with --warp and takes NumPy arrays; for arrays of a GPU "
                "export it without: infrared is laid on before the graph"
            )
        registration = self._registration_for(ir, vis, homography)
        with self._lock:
            fused = cast(PipelinedEngine, self._open()).fuse_arrays(ir, vis, out, color, counts, stream, registration)
        return fused if out is None else out


def _frames(name: str, frames: Any) -> list[Any]:
    try:
        return list(frames)
    except TypeError as error:
        raise InputError(
            f"{name} is a {type(frames).__name__}; expected a list of frames or an array [N,...]"
        ) from error


def _both(pair: Any) -> tuple[Any, Any]:
    try:
        ir, vis = pair
    except (TypeError, ValueError):
        what = f"an array {list(pair.shape)}" if isinstance(pair, np.ndarray) else f"a {type(pair).__name__}"
        raise InputError(f"pairs has {what} in it; expected two frames each, as in stream([(ir, vis)])") from None
    return ir, vis


def _each(times: Iterable[float]) -> Iterator[float]:
    """Those times; asked for one more than there are, it raises."""
    count = 0
    for time in times:
        count += 1
        yield time
    raise InputError(f"times has {count} of them and there are more pairs; expected one for each")


def _open_registration(given: Registration | Calibration | str | Path | None) -> Registration | None:
    if given is None:
        return None
    from .registration import as_registration

    return as_registration(given)


def _is_plane(frame: NDArray[Any]) -> bool:
    return frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] == 1)


def _sizes_differ(ir: Any, vis: Any) -> bool:
    """False also where one is no array, which is found out later."""
    try:
        return tuple(ir.shape[:2]) != tuple(vis.shape[:2])
    except (AttributeError, TypeError):
        return False


@functools.cache
def _resizing() -> Registration:
    from .registration import Registration

    return Registration()


def _default_model(device: str | None, engine: str | None) -> tuple[str, str]:
    """The bundled model for this machine, and why."""
    if device is not None:
        on_gpu = str(device).startswith("cuda")
        return ("full", "the default on a GPU") if on_gpu else ("lite", "the default on a CPU")
    if engine in (None, "torch") and cuda_usable():
        return "full", "the default on a GPU"
    return "lite", "the default on a CPU: no GPU that torch can use"
