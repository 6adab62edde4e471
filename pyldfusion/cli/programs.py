"""The verbs that hand over to the programs beside the package, `trainer` and `export`, and need torch."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

from ..errors import DependencyError

__all__ = ["need", "program"]


def need(package: str, what: str, extra: str) -> None:
    """Raises DependencyError, naming the extra to install, if `package` is not installed."""
    if importlib.util.find_spec(package) is None:
        raise DependencyError(f"{what} needs {package}, which is not installed: pip install 'pyldfusion[{extra}]'")


def program(name: str, module: str = "__main__") -> ModuleType:
    """A module of the package `name`, the one that was installed with this package.

    Raises DependencyError if it is not there, or if another folder of that name hides it.
    """
    ours = Path(__file__).resolve().parents[2] / name
    found = importlib.util.find_spec(name)
    if found is None:
        raise DependencyError(f"the package {name} is missing beside pyldfusion; install pyldfusion again")
    places = [Path(place).resolve() for place in found.submodule_search_locations or []]
    if ours not in places:
        raise DependencyError(
            f"the folder {places[0] if places else found.origin} hides pyldfusion's own {name}; "
            "run the command from another directory"
        )
    return importlib.import_module(f"{name}.{module}")
