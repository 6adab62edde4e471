"""TensorRT engines (``.engine``, ``.plan``, ``.trt``) on the NVIDIA GPU they were built for, without torch.

:mod:`~pyldfusion.engines.pipeline` says how batches pass through the device. An engine holds code for its GPU and,
where it is version compatible, for the host: load only your own. What its sidecar says is checked before TensorRT sees
it.
"""

from __future__ import annotations

import gc
import shlex
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import cuda, hardware, sidecar
from ..artefact import Artefact, open_artefact
from ..errors import ArtefactError, DependencyError, DeviceError, EngineError, InputError, PyldfusionError
from ..sidecar import Profile, Sidecar
from ..tensorrt_api import import_tensorrt, make_logger, make_output_memory, make_recorder, take_errors
from .base import check_signature
from .device import DevicePair, Frames, GraphRecording, Homographies, Lane, Slot, free_memory
from .pipeline import Pipeline, Shape, shape_of

if TYPE_CHECKING:
    import tensorrt

    from ..registration import Registration

__all__ = ["TensorRtEngine", "load", "rebuild_command", "rebuilt"]

OUTPUT = "fused"


class TensorRtEngine(Pipeline):
    """See :class:`~pyldfusion.engines.base.PipelinedEngine`.

    Args:
        artefact: the engine file.
        device: ``"cuda"`` or ``"cuda:N"``.
        precision: what the file says it is in; only reported.
        threads: only reported.
    """

    name = "tensorrt"

    def __init__(self, artefact: Artefact, device: str, precision: str, threads: int) -> None:
        trt = import_tensorrt()
        self.version: str = str(trt.__version__)
        self.precision = precision
        self.device = device
        self.threads = threads
        self._index = int(device.partition(":")[2] or 0)
        self._name = artefact.path.name
        if why_not := cuda.why_not():
            raise DependencyError(f"TensorRT engines need pyldfusion's own CUDA module: {why_not}")
        known = sidecar.read(artefact.path)
        _check_sidecar(artefact, known, self.version, self._index)
        self._logger = make_logger(trt)
        self._recorder = make_recorder(trt)
        self._output: Any = make_output_memory(trt)
        with self._errors():
            self._load(trt, artefact, known is not None and known.version_compatible)
            compute, upload, download = (Lane(self._index) for _ in range(3))
            super().__init__(
                (compute, upload, download), [Slot(compute) for _ in range(self.depth)], free_memory(self._index)
            )
        self._stream: int = compute.stream.cuda_stream
        self._homographies = Homographies(compute)
        self._prepared: tuple[int, Shape | None] = (0, None)
        most = max(profile.most[0] for profile in self._profiles)
        usual = self._profiles[0].usual[0]
        self.batch = usual if usual > 1 else min(4, most)

    def _load(self, trt: ModuleType, artefact: Artefact, host_code: bool) -> None:
        self._runtime: tensorrt.Runtime = trt.Runtime(self._logger)
        self._runtime.error_recorder = self._recorder
        if host_code:
            self._runtime.engine_host_code_allowed = True
        self._engine: tensorrt.ICudaEngine = self._runtime.deserialize_cuda_engine(artefact.path.read_bytes())
        if self._engine is None:
            raise ArtefactError(
                f"TensorRT {self.version} does not load {artefact.path}: {self._said()}. It is damaged, or was built "
                "with another version or for another GPU: build it again here (python -m export.tensorrt)"
            )
        self._engine.error_recorder = self._recorder
        ports: dict[str, dict[str, tuple[bool, list[int | str]]]] = {"INPUT": {}, "OUTPUT": {}}
        for number in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(number)
            shape: list[int | str] = [side if side >= 0 else "?" for side in self._engine.get_tensor_shape(name)]
            is_uint8 = self._engine.get_tensor_dtype(name).name == "UINT8"
            ports[self._engine.get_tensor_mode(name).name][name] = is_uint8, shape
        self.warps, states = check_signature(artefact, ports["INPUT"], ports["OUTPUT"])
        if states:
            raise ArtefactError(
                f"{artefact.path} smooths over time, which this engine does not yet; open its ONNX file"
            )
        self._profiles = [
            Profile(*((int(n), int(h), int(w)) for n, h, w, _ in self._engine.get_tensor_profile_shape("vis", index)))
            for index in range(self._engine.num_optimization_profiles)
        ]
        self._context: tensorrt.IExecutionContext = self._engine.create_execution_context()
        if self._context is None:
            raise EngineError(
                f"there is no memory on {self.device} for the activations of {artefact.path.name}: {self._said()}; "
                "free what other programs hold, or build an engine for smaller frames"
            )
        self._context.error_recorder = self._recorder

    def submit(
        self, ir: NDArray[np.uint8], vis: NDArray[np.uint8], homography: NDArray[np.float32] | None = None
    ) -> Callable[[], NDArray[np.uint8]]:
        """See :class:`~pyldfusion.engines.base.PipelinedEngine`. A batch smaller than the engine's is filled up."""
        count = len(vis)
        size = max(count, self._least_batch(vis.shape[1], vis.shape[2]))
        last = np.minimum(np.arange(size), count - 1)
        if homography is not None:
            with self._errors():
                self._homographies.lay(homography[last])
        if size == count:
            return super().submit(ir, vis)
        pending = super().submit(ir[last], vis[last])
        return lambda: pending()[:count]

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
        """See :class:`~pyldfusion.engines.base.PipelinedEngine`.

        ``ir`` is uint8 or uint16, ``vis`` uint8 [H,W,3]; a new result is a :class:`~pyldfusion.cuda.DeviceArray`.
        """
        with self._errors():
            pair = DevicePair(ir, vis, out, self._compute, color, thermal, stream, registration)
            try:
                self._fuse(pair.ir, pair.vis, pair.fused)
                return pair.restore()
            except BaseException:
                pair.release()
                raise

    def _least_batch(self, h: int, w: int) -> int:
        fitting = [
            p.least[0]
            for p in self._profiles
            if Profile(*((1, *s[1:]) for s in (p.least, p.usual, p.most))).holds((1, h, w))
        ]
        return min(fitting, default=1)

    def _profile(self, shape: tuple[int, int, int]) -> int:
        """Index of the profile for N, H and W: the one made for it, else the first that holds it."""
        holding = [index for index, profile in enumerate(self._profiles) if profile.holds(shape)]
        if not holding:
            n, h, w = shape
            sizes = " or ".join(map(str, self._profiles))
            raise InputError(
                f"{self._name} was built for batches of NxHxW {sizes}, and got {n}x{h}x{w}; build one for that size "
                "(--imgsz, --batch), or one for a range of sizes"
            )
        return next((index for index in holding if self._profiles[index].usual == shape), holding[0])

    def _eager(self, ir: Frames, vis: Frames, fused: Frames) -> None:
        _, h, w, _ = vis.shape
        self._prepare(ir, vis)
        for name, frames in (("ir", ir), ("vis", vis), (OUTPUT, fused)):
            self._context.set_tensor_address(name, frames.address)
        if self.warps:
            self._context.set_tensor_address("homography", self._homographies.address)
        self._output.address, self._output.room, self._output.shape = fused.address, fused.nbytes, ()
        if not self._context.execute_async_v3(self._stream):
            raise EngineError(f"TensorRT failed on frames of {w}x{h}: {self._said()}")
        if self._output.shape not in ((), fused.shape):  # () where it was known before
            raise EngineError(f"{self._name} gave {OUTPUT} of shape {self._output.shape}; expected {fused.shape}")

    def _prepare(self, ir: Frames, vis: Frames) -> None:
        """Tell the context what comes, if that is not what it knows."""
        shape = shape_of(ir, vis)
        n, h, w, _ = vis.shape
        profile = self._profile((n, h, w))
        if self._prepared == (profile, shape):
            return
        before, self._prepared = self._prepared[0], (profile, None)
        if profile != before and not self._context.set_optimization_profile_async(profile, self._stream):
            raise EngineError(f"TensorRT refuses profile {profile} of {self._name}: {self._said()}")
        given = {"ir": ir.shape, "vis": vis.shape} | ({"homography": (n, 3, 3)} if self.warps else {})
        for name, size in given.items():
            if not self._context.set_input_shape(name, size):
                raise EngineError(f"TensorRT refuses {name} of shape {size}: {self._said()}")
        made = tuple(self._context.get_tensor_shape(OUTPUT))
        if min(made) < 0:  # known only when it has run
            if not self._context.set_output_allocator(OUTPUT, self._output):
                raise EngineError(f"TensorRT refuses to ask for the memory of {OUTPUT}: {self._said()}")
        elif made != vis.shape:
            raise EngineError(f"{self._name} gives {OUTPUT} of shape {made}; expected {vis.shape}")
        self._prepared = profile, shape

    def _record(self, shape: Shape) -> GraphRecording:
        return GraphRecording(self._compute, shape, self._eager)

    def _with_less(self, ir: Frames, vis: Frames, fused: Frames) -> None:
        n, h, w, _ = vis.shape
        free, total = hardware.cuda_memory(self._index)
        raise EngineError(
            f"not enough memory on {self.device} for {n} frames of {w}x{h} ({free / 2**30:.1f} of {total / 2**30:.1f} "
            "GiB are free); free what other programs hold, or build an engine for smaller frames"
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Send work to this engine's GPU, with what fails as errors of ours."""
        try:
            with hardware.cuda_context(self._index):
                yield
        except RuntimeError as error:
            if isinstance(error, PyldfusionError):
                raise
            raise EngineError(f"TensorRT failed on {self.device}: {error}; {self._said()}") from error

    def _said(self) -> str:
        return take_errors(self._recorder, self._logger) or "it does not say why"

    def _give_back(self) -> None:
        gc.collect()

    def _unload(self) -> None:
        # in this order: each needs the one after it to the end
        del self._context, self._engine, self._runtime


def _check_sidecar(artefact: Artefact, known: Sidecar | None, version: str, index: int) -> None:
    """Refuse what cannot run here or is not what was built.

    Raises:
        ArtefactError: the engine's bytes are not those of its sidecar.
        EngineError: another TensorRT.
        DeviceError: another GPU.
    """
    if known is None:
        warnings.warn(
            f"{artefact.path.name} has no {sidecar.sidecar_path(artefact.path).name} beside it: where it was built and "
            "for what is not verified. Loading an engine runs code from it: load only your own",
            stacklevel=2,
        )
        return
    if artefact.sha256 != known.plan_sha256:
        raise ArtefactError(
            f"{artefact.path} is not the engine that {sidecar.sidecar_path(artefact.path).name} describes (sha256 "
            f"{artefact.sha256[:12]}..., expected {known.plan_sha256[:12]}...): damaged or replaced. Build it again: "
            + rebuild_command(artefact.path, known)
        )
    problem = mismatch(known, version, index)
    if problem is not None:
        raise type(problem)(
            f"{artefact.path.name} {problem}. Build it again here: {rebuild_command(artefact.path, known)}, or open it "
            "with rebuild=True"
        )


def mismatch(known: Sidecar, version: str, index: int) -> EngineError | DeviceError | None:
    """Why an engine cannot run with TensorRT ``version`` on GPU ``index``, as an error to raise; None if it can."""
    built, here = _numbers(known.tensorrt), _numbers(version)
    runs = built <= here if known.version_compatible else built == here
    if not runs:
        needs = f"TensorRT {known.tensorrt}" + (" or newer" if known.version_compatible else "")
        return EngineError(f"was built with TensorRT {known.tensorrt} and needs {needs}; here is TensorRT {version}")
    capability = hardware.cuda_capability(index)
    theirs = _numbers(known.capability)[:2]
    same = capability == theirs
    newer = known.hardware_compatibility == "ampere+" and capability >= (8, 0)
    if not (same or newer):
        return DeviceError(
            f"was built for {known.gpu} (compute capability {known.capability}); here is {hardware.cuda_name(index)} "
            f"(compute capability {capability[0]}.{capability[1]})"
        )
    return None


def rebuild_command(path: Path, known: Sidecar) -> str:
    """The command that builds an engine again from the ONNX file beside it."""
    profile = known.profiles[0]
    ranges = [
        str(low) if low == high else f"{low}/{usual}/{high}"
        for low, usual, high in zip(profile.least, profile.usual, profile.most, strict=True)
    ]
    words = ["python", "-m", "export.tensorrt", str(path.with_name(known.onnx)), "-o", str(path), "--force"]
    words += ["--batch", ranges[0], "--imgsz", ranges[1], ranges[2]]
    for name, value in known.options.items():
        if value is True:
            words.append(f"--{name.replace('_', '-')}")
        elif isinstance(value, (int, float, str)) and value not in (False, 0, "none"):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def rebuilt(artefact: Artefact, device: str) -> Artefact:
    """``artefact`` if it can run here, else one that is built from its ONNX file, beside it, for this machine.

    One that was built so before is taken again.

    Raises:
        ArtefactError: there is no sidecar, or no such ONNX file.
        DependencyError: the package export is not installed with this one.
        PyldfusionError: as :func:`export.tensorrt.build_engine`.
    """
    known = sidecar.read(artefact.path)
    if known is None:
        raise ArtefactError(
            f"{artefact.path} has no sidecar that says what to build it from; give the ONNX file's engine"
        )
    version, index = str(import_tensorrt().__version__), int(device.partition(":")[2] or 0)
    if mismatch(known, version, index) is None and artefact.sha256 == known.plan_sha256:
        return artefact
    onnx = artefact.path.with_name(known.onnx)
    if not onnx.is_file():
        raise ArtefactError(f"{artefact.path} cannot be built again: {onnx}, which it was built from, does not exist")
    try:
        from export.shape import Shape as Sizes
        from export.tensorrt import BuildOptions, build_engine, engine_name
    except ModuleNotFoundError as error:
        raise DependencyError(f"building an engine needs {error.name}: pip install 'pyldfusion[export]'") from error
    profile = known.profiles[0]
    sizes = Sizes(
        *(
            low if low == high else (low, usual, high)
            for low, usual, high in zip(profile.least, profile.usual, profile.most, strict=True)
        )
    )
    path = artefact.path.with_name(engine_name(onnx.stem, known.precision, sizes, index))
    if path.is_file() and (earlier := sidecar.read(path)) and earlier.graph_sha256 == known.graph_sha256:
        before = open_artefact(path)
        if mismatch(earlier, version, index) is None and before.sha256 == earlier.plan_sha256:
            return before
    # the other machine's are left out, and what a later version may have written
    names = BuildOptions.__dataclass_fields__.keys() - {"device", "workspace", "timing_cache"}
    options = {name: value for name, value in known.options.items() if name in names}
    build_engine(onnx, path, sizes, BuildOptions(**options, device=index, force=True))
    return open_artefact(path)


def _numbers(version: str) -> tuple[int, ...]:
    """The first three numbers of a version."""
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def load(artefact: Artefact, device: str, precision: str, threads: int) -> TensorRtEngine:
    """See :func:`~pyldfusion.engines.choice.open_engine`."""
    return TensorRtEngine(artefact, device, precision, threads)
