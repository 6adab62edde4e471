"""Inference runtimes behind one small protocol; see :mod:`pyldfusion.engines.base`."""

from __future__ import annotations

from .base import RUNTIMES, Engine, open_engine

__all__ = ["RUNTIMES", "Engine", "open_engine"]
