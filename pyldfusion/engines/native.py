"""Methods without a network, in this package's own native code, on the CPU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import __version__, kernels
from ..artefact import Artefact

__all__ = ["PyramidEngine", "load"]


class PyramidEngine:
    """See :class:`~pyldfusion.engines.base.Engine`. Fuses as :func:`pyldfusion.kernels.pyramid` does."""

    name = "native"
    version = __version__
    precision = "fp32"
    device = "cpu"
    batch = 1
    depth = 1
    warps = False
    temporal = False

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._size: tuple[int, ...] = ()
        self._workspace = self._luma = self._plane = np.empty(0)

    def run(
        self,
        ir: NDArray[np.uint8],
        vis: NDArray[np.uint8],
        homography: NDArray[np.float32] | None = None,
        keep: float = 0.0,
    ) -> NDArray[np.uint8]:
        import cv2

        if ir.shape[1:3] != self._size:  # kept, because new memory for each frame would cost as much as half the work
            size = ir.shape[1:3]
            self._workspace = kernels.pyramid_workspace(*size)
            self._luma, self._plane = np.empty(size, np.uint8), np.empty(size, np.float32)
            self._size = size  # last: there may be no memory for them
        fused = np.empty(vis.shape, np.uint8)
        for thermal, visible, out in zip(ir[..., 0], vis, fused, strict=True):
            cv2.cvtColor(visible, cv2.COLOR_BGR2GRAY, dst=self._luma)
            kernels.pyramid(thermal, self._luma, out=self._plane, workspace=self._workspace, threads=self.threads)
            kernels.plane_to_frame(self._plane, visible, out=out, threads=self.threads)
        return fused

    def close(self) -> None:
        self._size = ()
        del self._workspace, self._luma, self._plane


def load(artefact: Artefact, device: str, precision: str, threads: int) -> PyramidEngine:
    """See :func:`~pyldfusion.engines.choice.open_engine`."""
    return PyramidEngine(threads)
