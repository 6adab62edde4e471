"""Inference runtimes behind one small protocol; see :mod:`pyldfusion.engines.base`."""

from __future__ import annotations

from .base import Engine
from .choice import RUNTIMES, open_engine

__all__ = ["RUNTIMES", "Engine", "open_engine"]
