"""Files of pretrained weights: read without running code that is in them, fetched without waiting for ever."""

from __future__ import annotations

import pickle
import re
import socket
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor

from pyldfusion.errors import ArtefactError

__all__ = ["network_timeout", "reach", "read_weights"]

#: Entries of OpenAI's files that are numbers, not weights.
NUMBERS = ("input_resolution", "context_length", "vocab_size")


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], bool]:
    """The tensors of a file by name, on the CPU, and whether it is a TorchScript archive (as OpenAI's CLIP files are).

    Safetensors, TorchScript and what ``torch.save`` writes (a state dict, or a training checkpoint that holds one
    under ``state_dict``; the prefix ``module.`` of a DistributedDataParallel is dropped). Pickled code is refused.

    Raises:
        ArtefactError: the file is missing, damaged, or not one of these.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ArtefactError(f"no such file of weights: {path}")
    try:
        content, script = _read(path)
    except pickle.UnpicklingError as error:
        if asked := re.search(r"unsupported (?:global: )?(?:global|class) (\S+)", str(error), re.IGNORECASE):
            raise ArtefactError(
                f"{path} asks for {asked[1]} when it is unpickled, which could run code; expected tensors alone: "
                ".safetensors, or a state dict written by torch.save"
            ) from error
        raise ArtefactError(f"{path} {_damaged(path)}") from error
    except Exception as error:  # torch, zipfile and safetensors raise many kinds for a damaged file
        raise ArtefactError(f"{path} {_damaged(path)} ({(str(error) or repr(error)).splitlines()[0]})") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise ArtefactError(f"{path} holds a {type(content).__name__}; expected a state dict: names and tensors")
    weights = {str(key).removeprefix("module."): value for key, value in content.items() if key not in NUMBERS}
    foreign = [key for key, value in weights.items() if not isinstance(value, Tensor)]
    if foreign or not weights:
        what = f"{foreign[0]!r} is no tensor" if foreign else "it is empty"
        raise ArtefactError(f"{path} is no state dict ({what}); expected names and tensors")
    return weights, script


def _damaged(path: Path) -> str:
    return f"({path.stat().st_size:,} bytes) is damaged or no file of weights; download it again and compare its size"


def _read(path: Path) -> tuple[object, bool]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path), False
    if zipfile.is_zipfile(path) and _is_script(path):
        return dict(torch.jit.load(path, map_location="cpu").state_dict()), True
    return torch.load(path, map_location="cpu", weights_only=True), False


def _is_script(path: Path) -> bool:
    """Whether a zip file is a TorchScript archive: those hold constants.pkl besides data.pkl."""
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


@contextmanager
def network_timeout(seconds: float = 20) -> Iterator[None]:
    """Sockets opened inside give up after this long without an answer; urllib by itself would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def reach(address: str, seconds: float = 5) -> None:
    """Raises ``OSError`` at once if no server answers at an address (through the system's proxies, as downloads do)."""
    with suppress(urllib.error.HTTPError):  # it answered
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=seconds).close()
