"""The configuration of a training run: typed, from a TOML preset and ``--set section.key=value`` on top.

Unknown sections and keys are errors that name the closest known one: a misspelt option that is silently ignored costs
a training run.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyldfusion.errors import InputError

from .teacher import TeacherConfig

if typing.TYPE_CHECKING:
    import tomli as tomllib
else:
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib

__all__ = ["PRESETS", "Config", "ConfigError", "load_config"]

#: The folder of preset files; ``--preset NAME`` is ``NAME.toml`` in it.
PRESETS = Path(__file__).parent / "presets"


class ConfigError(InputError):
    """An option that does not exist or a value that it cannot have."""


@dataclass(frozen=True)
class NetworkConfig:
    variant: str = "lite"
    #: weights to start from (.safetensors), "" for none.
    start: str = ""


@dataclass(frozen=True)
class DataConfig:
    """Which crops are cut from the pairs."""

    #: pixels of a batch: the batch is as many crops as fit.
    batch_pixels: int = 98_304
    #: sides of the crops, WIDTHxHEIGHT; one is drawn a step.
    crops: tuple[str, ...] = ("128x128",)
    #: the same for the last part of the run.
    late_crops: tuple[str, ...] = ("192x192",)
    #: share of the run after which ``late_crops`` are taken.
    late_from: float = 0.7
    #: a crop is cut from a region this many times its own size at least (under 1: it is enlarged).
    least_zoom: float = 0.5
    #: share of crops that show the whole picture.
    whole: float = 0.15
    #: pixels at the border of every picture that are never used.
    margin: int = 4


@dataclass(frozen=True)
class AugmentConfig:
    """What is done to a crop; probabilities unless said otherwise."""

    flip: float = 0.5
    #: the infrared comes from another scene: few cameras and scenes must stand for many.
    mix: float = 0.2
    #: both the target and the network see these.
    gamma: float = 0.6
    gamma_range: float = 0.5
    equalise: float = 0.1
    negative: float = 0.06
    shade: float = 0.2
    soft: float = 0.3
    shape: float = 0.4
    shift: float = 0.3
    shift_pixels: float = 1.5
    #: only the network sees these: the target is made from the clean crop.
    contrast: float = 0.5
    least_contrast: float = 0.3
    noise: float = 0.5
    noise_range: float = 0.025
    blur: float = 0.1
    jpeg: float = 0.25
    useless: float = 0.04


@dataclass(frozen=True)
class LossConfig:
    """Weights of the parts of the distance to the teacher's picture."""

    pixel: float = 1.0
    gradient: float = 1.0
    structure: float = 0.3
    grid: float = 12.0


@dataclass(frozen=True)
class OptimiserConfig:
    #: "muon" (matrices by Muon, the rest by Adam) or "adam".
    name: str = "muon"
    #: Adam's rate.
    rate: float = 1e-3
    #: Muon's rate.
    matrix_rate: float = 0.02
    #: rate at the end, relative to the full one.
    final: float = 0.02
    #: share of the run after which the rate falls.
    decay_from: float = 0.4
    warmup: int = 200
    betas: tuple[float, ...] = (0.9, 0.99)
    #: largest norm of the gradient; 0 is no limit.
    clip: float = 1.0
    #: decay of the averaged weights, which are the result; 0 turns averaging off.
    average: float = 0.998


@dataclass(frozen=True)
class RunConfig:
    seed: int = 0
    steps: int = 8000
    #: "fp32" or "bf16" (autocast; worth it only on a CPU or GPU that has it natively).
    precision: str = "fp32"
    #: a checkpoint every this many steps.
    save_every: int = 250
    #: a line in the log every this many steps.
    log_every: int = 20
    #: consecutive steps without a finite loss after which the run stops.
    give_up: int = 20


@dataclass(frozen=True)
class Config:
    """Everything that defines a run but its data."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def as_json(self) -> str:
        return json.dumps(self.as_dict(), sort_keys=True)

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "configuration") -> Config:
        """Raises :class:`ConfigError` for unknown keys and for values of the wrong type."""
        return _build(cls, values, where, "")


def load_config(preset: str, overrides: list[str] | None = None) -> Config:
    """Read a preset (a name in ``presets/`` or a path) and lay ``section.key=value`` strings over it.

    Raises:
        ConfigError: unknown preset, section or key, or a value of the wrong type.
    """
    path = Path(preset) if preset.endswith(".toml") else PRESETS / f"{preset}.toml"
    if not path.is_file():
        raise ConfigError(f"no preset {preset!r}{_closest(preset, [p.stem for p in PRESETS.glob('*.toml')])}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from None
    for override in overrides or []:
        _override(values, override)
    return Config.from_dict(values, path.name)


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    section, dot, name = key.strip().partition(".")
    if not (equals and dot and name):
        raise ConfigError(f"--set {override!r}: expected section.key=value, such as optimiser.rate=0.001")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a string without quotes
    table = values.setdefault(section, {})
    table[name] = value


def _build(kind: type, values: Any, where: str, prefix: str) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: {prefix[:-1] or 'the file'} is {values!r}; expected a table of options")
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in hints:
            raise ConfigError(f"{where}: {prefix}{key} is not an option{_closest(key, list(hints))}")
    made = {}
    for key, value in values.items():
        hint = hints[key]
        nested = dataclasses.is_dataclass(hint)
        made[key] = _build(hint, value, where, f"{key}.") if nested else _value(hint, value, where, prefix + key)
    return kind(**made)


def _value(hint: Any, value: Any, where: str, name: str) -> Any:
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        if isinstance(value, (list, tuple)):
            return tuple(_value(inner, item, where, name) for item in value)
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif type(value) is hint:
        return value
    expected = hint.__name__ if isinstance(hint, type) else str(hint)
    raise ConfigError(f"{where}: {name} is {value!r} ({type(value).__name__}); expected {expected}")


def _closest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}"
