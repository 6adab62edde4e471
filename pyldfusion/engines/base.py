"""What an engine is: the protocol that all of them follow, and what a graph of frames takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..artefact import Artefact
from ..errors import ArtefactError, InputError

if TYPE_CHECKING:
    from ..registration import Registration

__all__ = ["Engine", "PipelinedEngine", "Ports", "check_frames", "check_signature"]


class Engine(Protocol):
    """A model loaded into a runtime. Not safe to use from two threads at once: :class:`~pyldfusion.Fuser` locks.

    Attributes:
        name: the key of ``RUNTIMES``.
        version: the runtime's own version.
        precision: what it computes in, ``"fp32"``, ``"bf16"``, ``"fp16"`` or ``"int8"``; ``"unknown"`` for a bare plan.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        threads: CPU threads it computes with.
        batch: how many frames at once are worth while; 1 where more only takes more memory.
        depth: how many batches may be under way; where it is more than 1, the engine is a :class:`PipelinedEngine`.
        warps: whether its graph takes a homography and lays the infrared onto the visible itself.
        temporal: whether it smooths the network's statistics over time; its state is kept between calls of :meth:`run`.
    """

    name: str
    version: str
    precision: str
    device: str
    threads: int
    batch: int
    depth: int
    warps: bool
    temporal: bool

    def run(
        self,
        ir: NDArray[np.uint8],
        vis: NDArray[np.uint8],
        homography: NDArray[np.float32] | None = None,
        keep: float = 0.0,
    ) -> NDArray[np.uint8]:
        """Fuse a batch of frames.

        Args:
            ir: uint8 [N,H,W,1], C-contiguous; where the engine :attr:`warps`, of a height and width of its own.
            vis: uint8 [N,H,W,3] in BGR order, C-contiguous.
            homography: float32 [N,3,3], from pixels of the infrared to pixels of the visible; where the engine
                :attr:`warps`, and only there.
            keep: weight of the frames before, from 0 (this one alone) to below 1, where the engine is :attr:`temporal`.

        Returns:
            uint8 [N,H,W,3] in memory of its own, which the engine does not touch again.

        Raises:
            EngineError: the runtime failed.
        """

    def close(self) -> None:
        """Give the runtime's memory back. The engine cannot be used afterwards."""


class PipelinedEngine(Engine, Protocol):
    """An engine beside the host: while it computes a batch, the next goes up and the one before comes down."""

    def submit(
        self, ir: NDArray[np.uint8], vis: NDArray[np.uint8], homography: NDArray[np.float32] | None = None
    ) -> Callable[[], NDArray[np.uint8]]:
        """Begin to fuse a batch, as :meth:`run` does; the arrays may be written to as soon as this returns.

        Returns:
            What waits for the result and gives it, from any thread and without the lock that calls of the engine need.
            With :attr:`depth` batches under way, the next call of ``submit`` waits for the oldest.

        Raises:
            EngineError: the runtime failed; it may be raised by what is returned instead.
        """

    def fuse_arrays(
        self,
        ir: Any,
        vis: Any,
        out: Any,
        color: str,
        thermal: tuple[float, float] | None,
        stream: Any = None,
        registration: Registration | None = None,
    ) -> Any:
        """Fuse one pair that is on the engine's device, without waiting for it and without a copy to the host.

        Args:
            ir: as :class:`~pyldfusion.gpu_image.GpuPair` takes it.
            vis: the same.
            out: where the result goes, or None.
            color: ``"bgr"`` or ``"rgb"``.
            thermal: counts of a uint16 ``ir`` that become 0 and 255, or None.
            stream: the caller's, with which all is in order: a stream of torch or CuPy, or a CUDA stream's handle;
                None takes torch's current one where the engine is torch, else those of the arrays.
            registration: how ``ir`` lies on ``vis``; None takes a pair of one size and view.

        Returns:
            ``out``, else a new torch tensor, of vis's shape and dtype. As with any operation of torch, inputs and
            result belong to the stream that is current in the calling thread. An engine without torch takes fewer
            dtypes and gives a :class:`~pyldfusion.cuda.DeviceArray`, which belongs to the engine's stream.

        Raises:
            InputError, DtypeError: arrays that cannot be used.
            EngineError: the runtime failed.
        """


def check_frames(artefact: Artefact, shape: tuple[int, int, int]) -> None:
    """Raises InputError if frames of that shape (N, H, W) are not what the file is for."""
    n, h, w = (have if want is None else want for want, have in zip(artefact.fixed, shape, strict=True))
    if (n, h, w) != shape:
        raise InputError(
            f"{artefact.path.name} is for frames of {w}x{h}, {n} at once, and got {shape[2]}x{shape[1]}, {shape[0]} at "
            "once; resize the frames, or export again with this --imgsz or none"
        )


class Ports(NamedTuple):
    """What a graph takes beside frames.

    Attributes:
        warps: whether it takes a homography (``export --warp``).
        states: sizes by name of what it carries from frame to frame (``export --temporal``).
    """

    warps: bool
    states: dict[str, int]


def check_signature(
    artefact: Artefact,
    inputs: Mapping[str, tuple[bool, Sequence[int | str]]],
    outputs: Mapping[str, tuple[bool, Sequence[int | str]]],
) -> Ports:
    """Whether a graph takes and gives frames, whatever its metadata say.

    Args:
        artefact: the file, for the message.
        inputs: name -> (is it uint8, shape with anything but an int for what is dynamic).
        outputs: the same.

    Returns:
        What it takes beside them.

    Raises:
        ArtefactError: it does not.
    """
    states = {name: port for name, port in inputs.items() if name.startswith("state_")}
    others = {"homography", *(("keep", *states) if states else ())}
    frames = {name: port for name, port in inputs.items() if name not in others}
    given = {name: port for name, port in outputs.items() if name.removeprefix("new_") not in states}
    expected = ({"ir": 1, "vis": 3}, {"fused": 3})
    fits = all(
        ports.keys() == channels.keys()
        and all(
            is_uint8 and len(shape) == 4 and (not isinstance(shape[3], int) or shape[3] == channels[name])
            for name, (is_uint8, shape) in ports.items()
        )
        for ports, channels in zip((frames, given), expected, strict=True)
    )
    is_uint8, shape = inputs.get("homography", (False, ("N", 3, 3)))
    fits &= not states or "keep" in inputs
    for name, (narrow, dims) in states.items():
        fits &= not narrow and len(dims) == 2 and isinstance(dims[1], int) and f"new_{name}" in outputs
    if not fits or is_uint8 or list(shape[1:]) != [3, 3]:
        found = ", ".join(f"{name} {list(shape)}" for name, (_, shape) in {**inputs, **outputs}.items())
        raise ArtefactError(
            f"{artefact.path} is not a graph of frames; expected uint8 inputs ir [N,H,W,1] and vis [N,H,W,3], where it "
            f"warps a float input homography [N,3,3], and an output fused [N,H,W,3], found {found}"
        )
    return Ports("homography" in inputs, {name: int(dims[1]) for name, (_, dims) in states.items()})
