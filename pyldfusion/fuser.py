"""The door to fusion: opens a model, checks a pair of frames, runs an engine, gives the fused frame back."""

from __future__ import annotations

import logging
import operator
import os
import threading
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .artefact import BUNDLED, Artefact, open_artefact
from .engines.base import Engine, cuda_usable, open_engine
from .errors import EngineError, InputError
from .image import MIN_SIDE, Visible, check_color, check_out, check_pair, infrared_to_8bit, is_palette
from .thermal import check_range

__all__ = ["Fuser"]

_log = logging.getLogger("pyldfusion")


class Fuser:
    """Fuses infrared and visible frames.

    Args:
        path: a model file (``.onnx`` or ``.safetensors``), ``"full"`` or ``"lite"`` for the bundled ones. None takes
            ``full`` where a usable GPU is and ``lite`` on a CPU; which one is logged, and in :attr:`info`.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"``; None takes a usable GPU, else the CPU.
        engine: ``"openvino"``, ``"onnxruntime"``, ``"torch"``, or with a precision as ``"openvino:fp32"``; None takes
            the fastest that is installed.
        precision: ``"fp32"`` or ``"bf16"``; None takes the fastest that the machine has natively.
        threads: CPU threads; None takes the physical cores that this process may use.
        color: ``"bgr"`` as OpenCV reads pictures, or ``"rgb"``: the order of channels in frames, in and out.
        thermal: ``(low, high)``: the counts of a uint16 infrared camera that become black and white. None scales
            every frame by its own 0.5 and 99.5 percentiles.

    Raises:
        ArtefactError: the file is missing, damaged or not a fusion model.
        InputError: an unknown name or an impossible combination.
        DependencyError: the engine that was asked for is not installed.
        DeviceError: the device or precision that was asked for is not on this machine.

    One Fuser may be used from several threads: calls into the engine take turns. After ``os.fork`` it must not be
    used in the child, whose copy of the engine has lost its threads: make a new one there (an error says so).

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
    ) -> None:
        self._color = check_color(color)
        self._thermal = check_range(thermal)
        self._lock = threading.Lock()
        self._warned_palette = False
        self._process = os.getpid()
        self._reason = "asked for"
        if path is None:
            path, self._reason = _default_model(device, engine)
        elif not isinstance(path, (str, Path)):
            raise InputError(f"path is a {type(path).__name__}; expected a model file, {' or '.join(BUNDLED)}, or None")
        self._artefact: Artefact = open_artefact(path)
        self._engine: Engine | None = open_engine(self._artefact, device, engine, precision, threads)
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
            "precision": self._engine.precision,
            "device": self._engine.device,
            "threads": self._engine.threads,
        }

    @property
    def info(self) -> dict[str, Any]:
        """What computes here, as a new dict.

        ``model`` (as given), ``model_chosen`` (why), ``variant``, ``weights`` (how they are stored), ``engine``,
        ``engine_version``, ``precision`` (computed in), ``device``, ``threads``, ``sha256`` (of the file),
        ``clip_trained`` (as the file says, or "unknown") and ``metadata`` (all the file says of itself).
        """
        metadata = dict(self._artefact.metadata)
        return {
            **self._info,
            "sha256": self._artefact.sha256,
            "clip_trained": metadata.get("clip_trained", "unknown"),
            "metadata": metadata,
        }

    def fuse(
        self,
        ir: NDArray[Any],
        vis: NDArray[Any],
        out: NDArray[Any] | None = None,
        *,
        color: str | None = None,
        thermal: Sequence[float] | None = None,
    ) -> NDArray[Any]:
        """Fuse one pair of registered frames.

        Args:
            ir: infrared, HxW, HxWx1 or HxWx3; uint8, uint16 or float in [0, 1]. Three channels that differ (a
                palette) are turned to luma, with one warning.
            vis: visible, HxW, HxWx1 or HxWx3, of the same size; uint8, uint16 or float in [0, 1]. Any size from
                16x16, any strides. The network sees 8 bits of it; uint16 and float keep theirs, because what fusion
                changes in the luma is added to the original.
            out: where to write the result: of vis's shape and dtype, any strides. It may be ``vis`` itself.
            color: the order of channels for this call, instead of the Fuser's.
            thermal: the range of a uint16 ``ir`` for this call, instead of the Fuser's.

        Returns:
            The fused frame, of vis's shape and dtype: ``out`` if it was given, else a new array that is the caller's
            own; the Fuser keeps no reference and writes to it no more. ``ir`` and ``vis`` are only read.

        Raises:
            InputError, DtypeError: an argument that cannot be used, by name, with what came and what is expected.
            EngineError: the runtime failed, or the Fuser was closed.
        """
        pair = self._prepare(ir, vis, color, thermal)
        if out is not None:
            check_out(out, vis)
        fused = pair[1].restore(self._run(pair[0][None, ..., None], pair[1].frame[None])[0])
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
    ) -> NDArray[Any]:
        """Fuse several pairs of one size.

        Args:
            irs: N infrared frames, a list or an array [N,...]; each as in :meth:`fuse`, all of one size.
            viss: as many visible frames, of one shape and dtype.
            color: as in :meth:`fuse`.
            thermal: as in :meth:`fuse`; without it each frame has its own percentiles.

        Returns:
            A new array [N, *shape of a visible frame], of their dtype. Frame by frame what :meth:`fuse` gives: the
            engine takes as many at once as are worth while on its device, which on a CPU is one.

        Raises:
            InputError: no frames, or numbers, shapes or dtypes that differ; and as in :meth:`fuse`.
        """
        irs, viss = _frames("irs", irs), _frames("viss", viss)
        if not irs or len(irs) != len(viss):
            raise InputError(f"irs has {len(irs)} frames and viss has {len(viss)}; expected equally many, at least one")
        batch = self._open().batch
        results: list[NDArray[Any]] = []
        for start in range(0, len(irs), batch):
            pairs = []
            for index in range(start, min(start + batch, len(irs))):
                pairs.append(self._prepare(irs[index], viss[index], color, thermal))
                kind = viss[index].shape, viss[index].dtype
                if kind != (viss[0].shape, viss[0].dtype):
                    raise InputError(
                        f"viss[{index}] is {kind[1]} {kind[0]}; expected {viss[0].dtype} {viss[0].shape}, as viss[0] is"
                    )
            fused = self._run(
                np.stack([ir for ir, _ in pairs])[..., None], np.stack([visible.frame for _, visible in pairs])
            )
            results += [visible.restore(frame) for (_, visible), frame in zip(pairs, fused, strict=True)]
        return np.stack(results).astype(viss[0].dtype, copy=False)

    def warmup(self, size: tuple[int, int] = (640, 480), batch: int = 1) -> None:
        """Get ready for frames of ``size``: engines compile and allocate at the first frame of a size.

        Args:
            size: (width, height) of the frames to come, from 16 up.
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
        self.fuse_batch([ir] * batch, [vis] * batch)

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
        self, ir: Any, vis: Any, color: str | None, thermal: Sequence[float] | None
    ) -> tuple[NDArray[np.uint8], Visible]:
        """Both frames as the network sees them: uint8 [H,W], and the visible one with its way back."""
        color = self._color if color is None else check_color(color)
        counts = self._thermal if thermal is None else check_range(thermal)
        ir, vis = check_pair(ir, vis)
        if counts is not None and ir.dtype != np.uint16:
            raise InputError(f"thermal is given, but ir has dtype {ir.dtype}; a range is for uint16 infrared alone")
        if not self._warned_palette and is_palette(ir):
            self._warned_palette = True
            warnings.warn(
                "ir has three channels that differ: it looks like a false-colour picture and is fused by its luma, "
                "which is not its temperature; give the camera's grey (white-hot) or 16-bit output instead",
                stacklevel=3,
            )
        return infrared_to_8bit(ir, color, counts), Visible(vis, color)

    def _open(self) -> Engine:
        if self._engine is None:
            raise EngineError("this Fuser is closed; make a new one")
        if self._process != os.getpid():
            raise EngineError("this Fuser was made before a fork, which its engine does not survive; make a new one")
        return self._engine

    def _run(self, ir: NDArray[np.uint8], vis: NDArray[np.uint8]) -> NDArray[np.uint8]:
        self._open()
        with self._lock:
            return self._open().run(ir, vis)


def _frames(name: str, frames: Any) -> list[Any]:
    try:
        return list(frames)
    except TypeError as error:
        raise InputError(
            f"{name} is a {type(frames).__name__}; expected a list of frames or an array [N,...]"
        ) from error


def _default_model(device: str | None, engine: str | None) -> tuple[str, str]:
    """The bundled model for this machine, and why."""
    if device is not None:
        on_gpu = str(device).startswith("cuda")
        return ("full", "the default on a GPU") if on_gpu else ("lite", "the default on a CPU")
    if engine in (None, "torch") and cuda_usable():
        return "full", "the default on a GPU"
    return "lite", "the default on a CPU: no GPU that torch can use"
