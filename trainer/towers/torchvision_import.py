"""Importing torchvision where its compiled part does not fit torch.

The trainer needs torchvision for the plain Python of VGG-19 and because open_clip imports it. A torchvision that was
built for another torch (a CUDA wheel beside a CPU torch, the usual PyPI wheel on a Jetson, whose torch is NVIDIA's
own build, a torch upgraded alone) fails on import with ``operator torchvision::nms does not exist``: its compiled
operators could not be loaded, and ``torchvision._meta_registrations`` describes them all the same. Nothing here uses
those operators, so with that one module left out the rest is sound. The same error comes up under whichever package
imports torchvision first, open_clip or timm: hence :func:`import_torchvision` comes before either.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from types import ModuleType

from pyldfusion.errors import DependencyError

__all__ = ["import_torchvision"]

#: The module of torchvision that only describes compiled operators to torch.compile.
OPERATORS = "torchvision._meta_registrations"


def import_torchvision() -> ModuleType:
    """torchvision, without its compiled operators if those do not fit this torch (a warning says so).

    Raises:
        DependencyError: it is not installed, or fails to import for another reason.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error) or "does not exist" not in str(error):
            raise failure(error) from error
        reason = str(error)
    except (ImportError, OSError) as error:
        raise failure(error) from error

    forget()
    sys.modules[OPERATORS] = ModuleType(OPERATORS)
    try:
        torchvision = importlib.import_module("torchvision")
    except Exception as error:
        forget()
        raise failure(error) from error
    warnings.warn(
        f"this torchvision ({torchvision.__version__}) was not built for this torch ({reason}); it is used without its "
        "compiled operators, which training does not need. To be rid of this warning, install torch and torchvision "
        "from one source",
        stacklevel=2,
    )
    return torchvision


def forget() -> None:
    """Drop what an import that failed half-way has left behind."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]


def failure(error: Exception) -> DependencyError:
    return DependencyError(
        f"torchvision cannot be imported ({error}); training needs it: pip install 'pyldfusion[train]', with torch and "
        "torchvision from one source"
    )
