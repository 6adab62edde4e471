"""Two cameras in, one stream out.

>>> from pyldfusion.camera import CameraPair
>>> with CameraPair("scene://ir?bits=8", "scene://vis") as pairs:
...     for ir, vis in pairs:
...         ...

The table of what a camera and an output can be (``camera.uri``) loads at once, the rest when it is first needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .uri import SCHEMES, Address, parse

if TYPE_CHECKING:
    from .cameras import CameraPair
    from .events import Events
    from .frame import Frame
    from .pair import POLICIES, FramePair, Pairer
    from .prepare import Preparer
    from .recording import Recorder, Recording
    from .sinks import Sink, open_sink
    from .stream import Stream

__all__ = [
    "POLICIES",
    "SCHEMES",
    "Address",
    "CameraPair",
    "Events",
    "Frame",
    "FramePair",
    "Pairer",
    "Preparer",
    "Recorder",
    "Recording",
    "Sink",
    "Stream",
    "open_sink",
    "parse",
]

_WHERE = {
    "POLICIES": "pair",
    "CameraPair": "cameras",
    "Events": "events",
    "Frame": "frame",
    "FramePair": "pair",
    "Pairer": "pair",
    "Preparer": "prepare",
    "Recorder": "recording",
    "Recording": "recording",
    "Sink": "sinks",
    "Stream": "stream",
    "open_sink": "sinks",
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
