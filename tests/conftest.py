"""Fixtures that every test module may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data (fixtures of the original code, public test pairs).

    Found beside the checkout or through ``PYLDFUSION_SHARED``. Users do not have it: tests that need it skip.
    """
    folder = Path(os.environ.get("PYLDFUSION_SHARED", ROOT.parent / "shared"))
    if not (folder / "upstream" / "parity.npz").is_file():
        pytest.skip(f"reference data not found at {folder}; set PYLDFUSION_SHARED to its folder")
    return folder
