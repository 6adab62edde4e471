"""The weight files that the authors of LDFusion and LD-Lite publish, turned into ours.

LDFusion comes as two files, ``Enc_final.pt`` (encoders) and ``Dec_final.pt`` (fusion and decoder); LD-Lite as one,
``final.pt``. All are pickles of ``name -> tensor``. They are read with torch's ``weights_only`` loader, which
executes nothing, and every tensor must be one the network has: nothing is guessed, filled in or left over.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .errors import ArtefactError
from .generator import VARIANTS, Generator

__all__ = ["author_names", "import_weights", "load_author_files", "to_state_dict"]


def author_names(variant: str) -> dict[str, str]:
    """The authors' name of every tensor in :class:`~pyldfusion.generator.Generator`, ours -> theirs.

    The authors number the layers of nested ``nn.Sequential``: padding, norm and ReLU modules count too.
    """
    lite = not VARIANTS[variant].style
    encoder, decoder = ("encoder.", "decoder.") if lite else ("", "")
    return {ours: _author_name(ours, encoder, decoder) for ours in Generator(variant).state_dict()}


def _author_name(ours: str, encoder: str, decoder: str) -> str:
    module, parameter = ours.rsplit(".", 1)
    branch = {"vis": "1", "ir": "2"}.get(module.split(".")[0].partition("_")[2], "")
    rules = (
        (r"content_\w+\.stem", f"{encoder}content_encoder{branch}.model.1", 0, 0),
        (r"content_\w+\.down\.(\d)", f"{encoder}content_encoder{branch}.model.{{}}", 3, 4),
        (r"content_\w+\.blocks\.(\d)\.conv1", f"{encoder}content_encoder{branch}.model.{{}}.block.1", 1, 13),
        (r"content_\w+\.blocks\.(\d)\.conv2", f"{encoder}content_encoder{branch}.model.{{}}.block.5", 1, 13),
        (r"style_\w+\.stem", f"style_encoder{branch}.model.1", 0, 0),
        (r"style_\w+\.down\.(\d)", f"style_encoder{branch}.model.{{}}", 2, 3),
        (r"style_\w+\.head", f"style_encoder{branch}.model.10", 0, 0),
        (r"fusion\.mlp\.(\d)", "mlp.model.{}", 2, 0),
        (r"fusion\.blocks\.(\d)\.conv1", "model_local.{}.block.1", 1, 0),
        (r"fusion\.blocks\.(\d)\.conv2", "model_local.{}.block.5", 1, 0),
        (r"decoder\.up\.(\d)", f"{decoder}model_up.{{}}", 3, 0),
        (r"decoder\.norm\.(\d)", f"{decoder}model_up.{{}}", 3, 1),
        (r"decoder\.out", f"{decoder}model_up.10", 0, 0),
    )
    for pattern, theirs, step, start in rules:
        match = re.fullmatch(pattern, module)
        if match:
            index = step * int(match[1]) + start if match.groups() else 0
            return f"{theirs.format(index)}.{parameter}"
    raise KeyError(ours)


def _is_unused(name: str) -> bool:
    # AdaIN is written as a batch norm there; its running statistics are never used.
    return name.endswith((".running_mean", ".running_var", ".num_batches_tracked"))


def load_author_files(paths: Sequence[str | Path]) -> dict[str, Tensor]:
    """Read one or more of the authors' files into one dict, by their names.

    Raises:
        ArtefactError: a file that is missing, not a torch file, holds anything but named tensors, or repeats a name.
    """
    merged: dict[str, Tensor] = {}
    for path in map(Path, paths):
        if not path.is_file():
            raise ArtefactError(f"no such weight file: {path}")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except (
            pickle.UnpicklingError,
            RuntimeError,
            EOFError,
            ValueError,
            KeyError,
            TypeError,
            OSError,
            AttributeError,
            IndexError,
            zipfile.BadZipFile,
        ) as error:
            words = [] if isinstance(error, pickle.UnpicklingError) else str(error).strip().splitlines()[:1]
            # what torch says of pickles is how to load them unsafely
            reason = ": ".join([type(error).__name__, *words])
            raise ArtefactError(
                f"{path} is not a weight file that can be read safely ({reason}); expected the authors' "
                "Enc_final.pt and Dec_final.pt (LDFusion) or final.pt (LD-Lite)"
            ) from error
        if not isinstance(content, Mapping) or not all(
            isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()
        ):
            raise ArtefactError(f"{path} holds {type(content).__name__}, expected a dict of name -> tensor")
        for name, tensor in content.items():
            if name in merged:
                raise ArtefactError(f"{path} repeats {name!r}: was one file given twice?")
            merged[name] = tensor
    return merged


def to_state_dict(tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """Recognise the variant and rename.

    Args:
        tensors: the authors' tensors by their names, of all files together.

    Returns:
        ``("full" or "lite", state dict of Generator in float32)``.

    Raises:
        ArtefactError: names what is missing, unknown, of a wrong shape or not finite.
    """
    tensors = {name: tensor for name, tensor in tensors.items() if not _is_unused(name)}
    variant = max(VARIANTS, key=lambda v: len(tensors.keys() & set(author_names(v).values())))
    names = author_names(variant)
    expected = set(names.values())
    known = expected & tensors.keys()
    if not known:
        raise ArtefactError(
            f"none of the {len(tensors)} tensors has a name of LDFusion's or LD-Lite's network "
            f"(first ones: {', '.join(sorted(tensors)[:3]) or 'none'}); expected the authors' "
            "Enc_final.pt and Dec_final.pt, or final.pt"
        )
    missing, unknown = sorted(expected - tensors.keys()), sorted(tensors.keys() - expected)
    if missing or unknown:
        hint = ""
        if variant == "full" and missing:
            part = "Dec_final.pt" if any(name.startswith("model_up") for name in missing) else "Enc_final.pt"
            hint = f"; was {part} given too?"
        raise ArtefactError(
            f"not the whole of the {variant} network: {len(missing)} tensors missing ({_some(missing)}), "
            f"{len(unknown)} unknown ({_some(unknown)}){hint}"
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in Generator(variant).state_dict().items()}
    state = {}
    for ours, theirs in names.items():
        tensor = tensors[theirs]
        if tuple(tensor.shape) != shapes[ours]:
            raise ArtefactError(f"{theirs} has shape {tuple(tensor.shape)}, expected {shapes[ours]}")
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise ArtefactError(f"{theirs} is not a tensor of finite floats ({tensor.dtype})")
        state[ours] = tensor.detach().float().contiguous()
    return variant, state


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") if names else "none"


def import_weights(paths: Sequence[str | Path], out: str | Path) -> dict[str, str]:
    """Turn the authors' files into one ``.safetensors`` file of ours.

    Args:
        paths: ``Enc_final.pt`` and ``Dec_final.pt`` in any order, or ``final.pt``.
        out: the file to write.

    Returns:
        The metadata written: variant, name, source files with their SHA-256.

    Raises:
        ArtefactError: see :func:`load_author_files` and :func:`to_state_dict`.
    """
    from .artefact import save_weights

    variant, state = to_state_dict(load_author_files(paths))
    sources = ", ".join(f"{Path(p).name} sha256:{hashlib.sha256(Path(p).read_bytes()).hexdigest()}" for p in paths)
    metadata = {
        "name": {"full": "LDFusion", "lite": "LD-Lite"}[variant],
        "variant": variant,
        "recipe": "imported from the authors' files",
        "clip_trained": "yes",
        "source": sources,
    }
    return save_weights(state, out, metadata)
