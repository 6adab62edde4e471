"""A whole CLIP model, both towers and the tokenizer, from the name and the weights that a configuration gives.

Through open_clip: its model configurations, its table of pretrained weights, its classes. Only the reading of files
is our own: open_clip before 2.27 unpickles what it is given, and later ones cannot read OpenAI's TorchScript files.
"""

from __future__ import annotations

import copy
import json
import os
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyldfusion.errors import ArtefactError, DependencyError

from ..config import ClipConfig, ConfigError, _closest
from .pretrained import network_timeout, reach, read_weights
from .torchvision_import import import_torchvision

__all__ = ["load_open_clip"]

INSTALL = "pip install 'pyldfusion[train]'"
WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt", ".npz")


def load_open_clip(clip: ClipConfig, seed: int) -> tuple[nn.Module, Callable[..., Tensor], dict[str, Any]]:
    """The model on the CPU in float32, its tokenizer, and ``mean`` and ``std`` of its input.

    Raises:
        ConfigError, ArtefactError, DependencyError: as :func:`trainer.towers.clip.load_clip`.
    """
    import_torchvision()
    try:
        import open_clip
    except ImportError as error:
        raise DependencyError(f"open_clip cannot be imported ({error}); training needs it: {INSTALL}") from error

    name, config, input_config = _model_config(open_clip, clip.model)
    tokenizer = _tokenizer(config, clip.model)
    if clip.pretrained == "none":
        warnings.warn(
            "CLIP HAS RANDOM WEIGHTS (clip.pretrained=none): the losses mean nothing; for tests and speed only",
            stacklevel=3,
        )
        return _build(open_clip, config, seed), tokenizer, _normalisation(open_clip, name, "", input_config)

    tag, path = _weight_file(open_clip, name, clip)
    weights, script = _read(path, _advice(open_clip, name, tag))
    quick = open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", tag == "openai") if tag else script
    if quick and not config.get("quick_gelu"):
        warnings.warn(
            f"{tag or path} was trained with QuickGELU, clip.model={clip.model} has another GELU: QuickGELU is used",
            stacklevel=3,
        )
        config["quick_gelu"] = True
    model = _build(open_clip, config, seed)
    try:
        if path.suffix == ".npz":
            open_clip.load_checkpoint(model, str(path))
        else:
            _fill(model, weights)
    except (RuntimeError, KeyError, AssertionError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ArtefactError(
            f"{path} holds weights of another model than clip.model={clip.model}: "
            f"{' '.join(lines[1:2] or lines)[:400]}. {_advice(open_clip, name, tag)}"
        ) from error
    return model, tokenizer, _normalisation(open_clip, name, tag, input_config)


def _read(path: Path, advice: str) -> tuple[dict[str, Tensor], bool]:
    if path.suffix == ".npz":  # SigLIP's own files, which open_clip reads itself
        return {}, False
    try:
        weights, script = read_weights(path)
    except ArtefactError as error:
        raise ArtefactError(f"clip.pretrained: {error}. {advice}") from error
    if any(key.startswith("vision_model.") for key in weights):
        raise ArtefactError(
            f"clip.pretrained: {path} is a file of the transformers package; expected one of open_clip. {advice}"
        )
    return weights, script


def _model_config(open_clip: Any, model: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Name in open_clip's tables, configuration of the architecture, and of its input where the file has one."""
    if not model.endswith(".json"):
        name = model.replace("/", "-")
        config = open_clip.get_model_config(name) if name in open_clip.list_models() else None
        if config is None:
            raise ConfigError(
                f"clip.model is {model!r}, not a model of open_clip{_closest(name, open_clip.list_models())}"
            )
        return name, config, {}
    path = Path(model).expanduser()
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"clip.model: {path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ConfigError(f"clip.model: {path} is no JSON file ({error})") from error
    # The file that comes with weights of a hub (open_clip_config.json) holds the configuration one level down.
    whole = config if isinstance(config, dict) else {}
    config = whole.get("model_cfg", whole)
    config = config if isinstance(config, dict) else {}
    for key, kind in (("embed_dim", int), ("vision_cfg", dict), ("text_cfg", dict)):
        if not isinstance(config.get(key), kind):
            raise ConfigError(f"clip.model: {path} has no {key}; expected a model configuration as open_clip has them")
    return path.stem, copy.deepcopy(config), whole.get("preprocess_cfg", {})


def _build(open_clip: Any, config: dict[str, Any], seed: int) -> nn.Module:
    """The architecture with seeded random weights; torch's own generator is neither asked nor disturbed."""
    config = copy.deepcopy(config)
    config["vision_cfg"]["timm_model_pretrained"] = False
    config["text_cfg"]["hf_model_pretrained"] = False
    custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    kind = open_clip.CLIP if not custom else open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return kind(**config).eval()
    except (TypeError, ValueError, KeyError) as error:
        raise ConfigError(f"open_clip does not accept this model configuration: {error}") from error
    except (OSError, RuntimeError) as error:
        raise DependencyError(f"open_clip cannot build this model: {error}") from error


def _fill(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load a state dict after the conversions that open_clip does for older and foreign files."""
    from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed

    try:
        from open_clip.convert import convert_state_dict
    except ImportError:  # before 2.26
        pass
    else:
        weights = convert_state_dict(model, weights)
    if "positional_embedding" in weights and not hasattr(model, "positional_embedding"):
        weights = convert_to_custom_text_state_dict(weights)
    for scalar in ("logit_scale", "logit_bias"):  # of no use here, but part of every file
        own = getattr(model, scalar, None)
        if own is not None:
            weights[scalar] = weights[scalar].reshape(own.shape) if scalar in weights else own.detach()
    # Buffers that are not stored: TorchScript has the attention mask in its state dict all the same, files of models
    # with a text tower of an older transformers package have its position_ids.
    for name in {name for name, _ in model.named_buffers()} - set(model.state_dict()):
        weights.pop(name, None)
    resize_pos_embed(weights, model)
    resize_text_pos_embed(weights, model)
    model.load_state_dict(weights)


def _weight_file(open_clip: Any, name: str, clip: ClipConfig) -> tuple[str, Path]:
    """Tag ("" for a local file) and path of the weights."""
    given = clip.pretrained
    if Path(given).expanduser().is_file():
        return "", Path(given).expanduser()
    if os.sep in given or given.lower().endswith(WEIGHT_SUFFIXES):
        raise ArtefactError(f"clip.pretrained: no such file: {given}. {_advice(open_clip, name, '')}")
    entry = open_clip.get_pretrained_cfg(name, given)
    if not entry:
        tags = open_clip.list_pretrained_tags_by_model(name)
        known = _closest(given, [*tags, "none"])
        raise ConfigError(f"clip.pretrained is {given!r}, neither a file nor a tag of {clip.model}{known}")
    if "file" in entry:
        return given, Path(entry["file"])
    return given, _fetch(open_clip, name, given, entry)


def _fetch(open_clip: Any, name: str, tag: str, entry: dict[str, Any]) -> Path:
    """The file of a tag, from the caches or the network.

    open_clip asks a hub first, which without a network tries again for most of a minute: the caches are looked into
    and the network is tried here before it does.
    """
    repository, files = _hub_files(entry)
    sources = []
    if repository:
        from huggingface_hub import constants, try_to_load_from_cache

        for file in files:
            if isinstance(cached := try_to_load_from_cache(repository, file), str):
                return Path(cached)
        sources.append((constants.ENDPOINT, {**entry, "url": ""}))
    if entry.get("url"):  # its cache is ~/.cache/clip, which OpenAI's own package fills too
        sources.append((None, {**entry, "hf_hub": ""}))
    failures = []
    for host, source in sources:
        try:
            with network_timeout():
                if host:
                    reach(host)
                return Path(open_clip.download_pretrained(source))
        except (OSError, RuntimeError) as error:  # RuntimeError: the checksum differs
            failures.append(str(error))
    raise ArtefactError(
        f"the weights {tag!r} of {name} could not be downloaded ({'; '.join(dict.fromkeys(failures))}). "
        f"{_advice(open_clip, name, tag)}"
    )


def _hub_files(entry: dict[str, Any]) -> tuple[str, list[str]]:
    """Repository of a table entry on the Hugging Face hub ("" for none) and the files looked for, best first."""
    repository, file = os.path.split(entry.get("hf_hub", ""))
    return repository, [file] if file else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]


def _advice(open_clip: Any, name: str, tag: str) -> str:
    """Which file to put where."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    tag = tag or ("openai" if "openai" in tags else tags[0] if tags else "")
    entry = open_clip.get_pretrained_cfg(name, tag)
    places = []
    repository, files = _hub_files(entry)
    if repository:
        places.append((files[0], f"https://huggingface.co/{repository}/resolve/main/{files[0]}"))
    if entry.get("url"):
        places.append((os.path.basename(entry["url"]), entry["url"]))
    if not places:
        return f"Give a file with weights of {name}: --set clip.pretrained=/path/to/FILE"
    addresses = " or ".join(address for _, address in places)
    return (
        f"On a machine with a network download {addresses} ({name}, {tag}), then "
        f"--set clip.pretrained=/path/to/{places[0][0]}"
    )


def _normalisation(open_clip: Any, name: str, tag: str, input_config: dict[str, Any]) -> dict[str, Any]:
    """``mean`` and ``std`` of the input: of the tag; else what all tags of the model have; else OpenAI's."""
    default = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    tags = [tag] if tag else open_clip.list_pretrained_tags_by_model(name)
    known = [
        {key: tuple(value) for key, value in entry.items() if key in default}
        for entry in (input_config, *(open_clip.get_pretrained_cfg(name, tag) for tag in tags))
    ]
    if known[0]:
        return default | known[0]
    same = known[1:] and all(entry == known[1] for entry in known[1:])
    return default | known[1] if same else default


def _tokenizer(config: dict[str, Any], model: str) -> Callable[..., Tensor]:
    """By the configuration of the text tower; the vocabulary of the usual one comes with open_clip."""
    text = config["text_cfg"]
    length = text.get("context_length", 77)
    options = dict(text.get("tokenizer_kwargs") or {})
    name = text.get("hf_tokenizer_name")
    if not name:
        return _usual_tokenizer(context_length=length, **options)
    from open_clip.tokenizer import HFTokenizer

    if text.get("tokenizer_mode"):
        options["tokenizer_mode"] = text["tokenizer_mode"]
    try:
        return HFTokenizer(name, context_length=length, **options)
    except ImportError as error:
        raise DependencyError(
            f"the tokenizer of clip.model={model} needs the package transformers ({error}): pip install transformers; "
            "models with the usual tokenizer (ViT-B-32-quickgelu, RN50, ...) do not"
        ) from error
    except Exception as error:  # transformers and its hub client raise many kinds
        raise ArtefactError(
            f"the tokenizer of clip.model={model} is {name} on the Hugging Face hub and could not be fetched "
            f"({str(error).splitlines()[0]}). On a machine with a network: huggingface-cli download {name}; or set "
            "text_cfg.hf_tokenizer_name to its folder in a model configuration (.json)"
        ) from error


@cache
def _usual_tokenizer(**options: Any) -> Callable[..., Tensor]:
    """Reading its vocabulary takes a while."""
    import open_clip

    return open_clip.SimpleTokenizer(**options)
