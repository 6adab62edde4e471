"""The configuration of a training run: typed, from a TOML preset and ``--set section.key=value`` on top.

A preset may begin with ``base = "other"`` and then holds only what differs. Unknown sections and keys are errors that
name the closest known one: a misspelt option that is silently ignored costs a training run.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyldfusion.errors import InputError
from pyldfusion.generator import VARIANTS
from pyldfusion.kernels import PyramidLook

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
class RunConfig:
    """What is trained, for how long, in which precision."""

    #: "language" (LDFusion's loss) or "supervised" (imitate the teacher).
    objective: str = "language"
    seed: int = 0
    #: passes over the pairs; counts only where ``steps`` is 0.
    epochs: int = 70
    #: steps of the whole run; 0: as many as ``epochs`` take.
    steps: int = 0
    #: of the generator: "fp32", "bf16" (autocast), "auto" (bf16 where the device has it), "fp64" (to test exactness).
    precision: str = "fp32"
    #: ``torch.compile`` the generator and the towers.
    compile: bool = False
    #: a checkpoint every this many steps.
    save_every: int = 250
    #: a line in the log every this many steps.
    log_every: int = 20
    #: consecutive steps without a finite loss after which the run stops.
    give_up: int = 20


@dataclass(frozen=True)
class NetworkConfig:
    variant: str = "full"
    #: weights to start from (.safetensors or .onnx), "" for none.
    start: str = ""
    #: first weights where ``start`` is "": "authors" (N(0, 0.02)) or "scaled" (He; a short run needs it).
    initial: str = "authors"


@dataclass(frozen=True)
class DataConfig:
    """How pictures are kept and fetched."""

    #: decoded planes are kept in "memory", on "disk" (a file that vanishes with the run), or "no": decoded every time.
    cache: str = "memory"
    #: at most this many GB of them; what does not fit is decoded every time.
    cache_gb: float = 8.0
    #: folder of the disk cache; "": the system's folder for temporary files.
    cache_dir: str = ""
    #: processes that prepare batches; 0: the training process itself.
    workers: int = 0


@dataclass(frozen=True)
class SampleConfig:
    """Crops of the language-driven recipe: every pair in turn, shuffled anew each epoch."""

    #: pairs in a step, over all processes.
    batch: int = 16
    #: side of the square crops in pixels.
    crop: int = 224
    #: how often every pair comes in an epoch.
    repeat: int = 1
    #: one random affine map a sample (rotation, vertical shift, scale, shear: those of ``[patches]``).
    affine: bool = False
    #: deviation of the noise on what the network sees; the losses see the clean crop.
    noise: float = 0.0
    #: a crop whose deviation is below this in both sources is drawn again; 0: never.
    least_deviation: float = 0.0
    #: at most this many times.
    redraws: int = 10


@dataclass(frozen=True)
class CropConfig:
    """Crops of the supervised recipe: scenes at random, in several sizes."""

    #: pixels of a batch, over all processes: the batch is as many crops as fit.
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
    """What is done to a supervised crop; probabilities unless said otherwise."""

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
class PromptConfig:
    """Sentences; of a list the raw embeddings are averaged."""

    objective: tuple[str, ...] = ("a clear image with detailed background and salient objects",)
    infrared: tuple[str, ...] = ("an infrared image",)
    visible: tuple[str, ...] = ("a visible gray image",)
    #: CSV (columns name, text) or JSON ({name: text}) with sentences for single pictures; the rest keep theirs.
    content: str = ""
    #: what these sentences stand in for: the "objective", or both "sources" (the paper's ablation, Sec. 4.2.4).
    content_for: str = "objective"


@dataclass(frozen=True)
class ClipConfig:
    """The frozen judge: any model of open_clip."""

    #: name of an open_clip model, or a .json file with the configuration of one.
    model: str = "ViT-B-32-quickgelu"
    #: open_clip's tag of the weights, a local file, or "none": seeded random weights, for tests and speed.
    pretrained: str = "openai"
    #: "fp32", "bf16" or "fp16" by autocast, or "auto": the fastest that the device computes in itself.
    precision: str = "auto"
    #: GB (10^9 bytes) of its activations; patches are judged in pieces that keep within it, which costs no time.
    memory_gb: float = 2.0
    #: recompute activations in the backward pass: less memory still, about a third more time.
    checkpoint: bool = False


@dataclass(frozen=True)
class VggConfig:
    """VGG-19 for the fidelity loss."""

    #: a local file, "" for torchvision's own download, or "none": seeded random weights.
    weights: str = ""
    #: as for CLIP.
    precision: str = "auto"


@dataclass(frozen=True)
class PatchConfig:
    """Crops of the fused picture that are shown to CLIP besides the whole, each bent a little."""

    count: int = 32
    #: side of a crop in pixels: least, largest.
    side: tuple[int, ...] = (112, 179)
    #: all crops of a step have one side, as in the authors' code.
    one_side: bool = True
    #: rotation and shear along x, +- degrees.
    degrees: float = 5.0
    shear: float = 5.0
    #: vertical shift, +- share of the side, in whole pixels.
    shift: float = 0.1
    #: enlargement: least, largest.
    scale: tuple[float, ...] = (1.0, 1.5)
    #: bits (sigma of Eq. 17): a patch counts only if both sources have more; a negative number keeps all.
    entropy: float = 6.0
    #: encode only the patches that count: "auto" (on the CPU), "yes" or "no". On CUDA it waits for the mask.
    compact: str = "auto"


@dataclass(frozen=True)
class LossConfig:
    """Weights of the parts of LDFusion's loss; a part of weight 0 is not computed."""

    #: direction loss (Eq. 3) of the whole picture and of its patches.
    whole: float = 2 / 12
    patches: float = 10 / 12
    #: Phi (Eq. 7, the sum over both sources).
    regulariser: float = 0.5
    #: L_v (Eq. 13).
    fidelity: float = 1.0


@dataclass(frozen=True)
class ImitationConfig:
    """Weights of the parts of the distance to the teacher's picture."""

    pixel: float = 1.0
    gradient: float = 1.0
    structure: float = 0.3
    grid: float = 12.0
    shade: float = 30.0


@dataclass(frozen=True)
class OptimiserConfig:
    #: "adam", or "muon" (matrices by Muon, the rest by Adam).
    name: str = "adam"
    #: Adam's rate.
    rate: float = 1e-3
    #: Muon's rate.
    matrix_rate: float = 0.02
    betas: tuple[float, ...] = (0.9, 0.999)
    #: largest norm of the gradient; 0 is no limit.
    clip: float = 0.0
    #: decay of the averaged weights, which are the result; 0 turns averaging off.
    average: float = 0.0


@dataclass(frozen=True)
class ScheduleConfig:
    """How the rate changes: up over the warm-up, then down in steps ("milestones") or along a cosine."""

    kind: str = "milestones"
    #: steps of linear warm-up; -1: the first epoch.
    warmup: int = -1
    #: epochs after which the rate is multiplied by ``factor``.
    milestones: tuple[int, ...] = (50, 60)
    factor: float = 0.5
    #: cosine: share of the run after which the rate falls, and what is left of it at the end.
    decay_from: float = 0.4
    final: float = 0.02


@dataclass(frozen=True)
class ValidationConfig:
    """Pairs that are not trained on, fused now and then."""

    #: folder of pairs; "" for none.
    data: str = ""
    #: steps between two evaluations (EN CC SD EI VIFF).
    every: int = 500
    #: at most this many pairs are evaluated.
    pairs: int = 16
    #: how many are shown in the strip.
    shown: int = 4


@dataclass(frozen=True)
class Config:
    """Everything that defines a run but its data."""

    run: RunConfig = field(default_factory=RunConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    samples: SampleConfig = field(default_factory=SampleConfig)
    prompts: PromptConfig = field(default_factory=PromptConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    vgg: VggConfig = field(default_factory=VggConfig)
    patches: PatchConfig = field(default_factory=PatchConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    crops: CropConfig = field(default_factory=CropConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    teacher: PyramidLook = field(default_factory=PyramidLook)
    imitation: ImitationConfig = field(default_factory=ImitationConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def __post_init__(self) -> None:
        for section, keys in dataclasses.asdict(self).items():
            for key, value in keys.items():
                numbers = value if isinstance(value, (list, tuple)) else [value]
                if not all(math.isfinite(number) for number in numbers if isinstance(number, float)):
                    raise ConfigError(f"{section}.{key} is {value}; expected a finite number")
        if not 0 <= self.patches.shear < 90:
            raise ConfigError(f"patches.shear is {self.patches.shear}; expected degrees from 0 to below 90")
        for name, value, allowed in (
            ("run.objective", self.run.objective, ("language", "supervised")),
            ("run.precision", self.run.precision, ("auto", "fp32", "bf16", "fp64")),
            ("network.variant", self.network.variant, tuple(VARIANTS)),
            ("network.initial", self.network.initial, ("authors", "scaled")),
            ("prompts.content_for", self.prompts.content_for, ("objective", "sources")),
            ("data.cache", self.data.cache, ("memory", "disk", "no")),
            ("clip.precision", self.clip.precision, ("auto", "fp32", "bf16", "fp16")),
            ("vgg.precision", self.vgg.precision, ("auto", "fp32", "bf16", "fp16")),
            ("patches.compact", self.patches.compact, ("auto", "yes", "no")),
            ("optimiser.name", self.optimiser.name, ("adam", "muon")),
            ("schedule.kind", self.schedule.kind, ("milestones", "cosine")),
        ):
            if value not in allowed:
                raise ConfigError(f"{name} is {value!r}{_closest(value, list(allowed))}")
        for name, number, least in (
            ("run.seed", self.run.seed, 0),
            ("run.steps", self.run.steps, 0),
            ("run.epochs", self.run.epochs, 0 if self.run.steps else 1),
            ("run.save_every", self.run.save_every, 1),
            ("run.log_every", self.run.log_every, 1),
            ("run.give_up", self.run.give_up, 1),
            ("samples.batch", self.samples.batch, 1),
            ("samples.crop", self.samples.crop, 32),
            ("samples.repeat", self.samples.repeat, 1),
            ("samples.redraws", self.samples.redraws, 0),
            ("patches.count", self.patches.count, 0),
            ("validation.every", self.validation.every, 1),
            ("validation.pairs", self.validation.pairs, 1),
            ("validation.shown", self.validation.shown, 1),
            ("data.workers", self.data.workers, 0),
            ("data.cache_gb", self.data.cache_gb, 0),
            ("clip.memory_gb", self.clip.memory_gb, 0),
            ("samples.noise", self.samples.noise, 0),
            *((f"loss.{name}", weight, 0) for name, weight in vars(self.loss).items()),
            ("crops.batch_pixels", self.crops.batch_pixels, 1),
            ("crops.margin", self.crops.margin, 0),
            ("optimiser.rate", self.optimiser.rate, 0),
            ("optimiser.matrix_rate", self.optimiser.matrix_rate, 0),
            ("optimiser.clip", self.optimiser.clip, 0),
            ("optimiser.average", self.optimiser.average, 0),
            ("schedule.warmup", self.schedule.warmup, -1),
            ("schedule.factor", self.schedule.factor, 0),
        ):
            if not number >= least:
                raise ConfigError(f"{name} is {number}; expected at least {least}")
        for name, pair in (("patches.side", self.patches.side), ("patches.scale", self.patches.scale)):
            if len(pair) != 2 or not 0 < pair[0] <= pair[1]:
                raise ConfigError(f"{name} is {list(pair)}; expected two numbers above 0, the smaller first")

        for name, sizes in (("crops.crops", self.crops.crops), ("crops.late_crops", self.crops.late_crops)):
            if not sizes:
                raise ConfigError(f"{name} is empty; expected at least one WIDTHxHEIGHT, such as 160x160")
        betas = self.optimiser.betas
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ConfigError(f"optimiser.betas is {list(betas)}; expected two numbers from 0 to below 1")
        if not self.optimiser.average < 1:
            raise ConfigError(f"optimiser.average is {self.optimiser.average}; expected a number from 0 to below 1")

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
    values = _read(preset)
    for override in overrides or []:
        _override(values, override)
    return Config.from_dict(values, preset)


def _read(preset: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """A preset's tables, laid over those of its base."""
    path = Path(preset) if preset.endswith(".toml") else PRESETS / f"{preset}.toml"
    if not path.is_file():
        raise ConfigError(f"no preset {preset!r}{_closest(preset, [p.stem for p in PRESETS.glob('*.toml')])}")
    if preset in seen:
        raise ConfigError(f"presets base on each other in a circle: {' -> '.join([*seen, preset])}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from None
    base = values.pop("base", "")
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base is {base!r}; expected the name of a preset, or a .toml file")
    if base.endswith(".toml"):  # beside the file that names it, wherever the command was given
        base = str(path.parent / base)
    merged = _read(base, (*seen, preset)) if base else {}
    for section, table in values.items():
        if isinstance(table, dict) and isinstance(merged.get(section), dict):
            merged[section] = {**merged[section], **table}
        else:
            merged[section] = table
    return merged


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    section, dot, name = key.strip().partition(".")
    if not (equals and dot and name):
        raise ConfigError(f"--set {override!r}: expected section.key=value, such as optimiser.rate=0.001")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a string without quotes
    if not isinstance(values.setdefault(section, {}), dict):
        raise ConfigError(f"--set {override!r}: the preset has {section} = {values[section]!r}; expected a table")
    values[section][name] = value


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
        items = [value] if isinstance(value, str) and inner is str else value  # one sentence is a list of one
        if isinstance(items, (list, tuple)):
            return tuple(_value(inner, item, where, name) for item in items)
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif type(value) is hint:
        return value
    expected = hint.__name__ if isinstance(hint, type) else str(hint)
    raise ConfigError(f"{where}: {name} is {value!r} ({type(value).__name__}); expected {expected}")


def _closest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}"
