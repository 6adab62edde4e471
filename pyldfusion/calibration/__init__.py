"""How an infrared camera's picture lies on a visible camera's: measured, kept in a file, followed."""

from .automatic import Alignment, align
from .file import Calibration, Lens, Plane, load_calibration, save_calibration

__all__ = ["Alignment", "Calibration", "Lens", "Plane", "align", "load_calibration", "save_calibration"]
