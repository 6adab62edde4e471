"""From the configuration to the parts of a run: network, optimiser, batches, objective."""

from __future__ import annotations

import torch

from pyldfusion.artefact import open_artefact
from pyldfusion.errors import ArtefactError
from pyldfusion.generator import Generator, load_generator

from .config import Config, NetworkConfig, OptimiserConfig
from .data.crops import SceneCrops
from .data.pairs import PairSet
from .data.samples import EpochSamples
from .objective import Batches, Objective
from .run.distributed import Ranks
from .run.optimiser import Muon
from .run.precision import resolve
from .start.initialise import initialise, initialise_scaled
from .start.prune import prune
from .start.widen import widen
from .supervised.objective import Supervised

__all__ = ["make_batches", "make_generator", "make_objective", "make_optimiser", "needs_clip", "total_steps"]


def make_generator(config: NetworkConfig, seed: int) -> Generator:
    """What training starts from: seeded first weights, or those of ``config.start``.

    A ``lite`` is grown for a ``full`` network (:mod:`trainer.start.widen`), a ``full`` pruned
    for a ``lite`` one (:mod:`trainer.start.prune`).

    Raises:
        ArtefactError: ``config.start`` is not a file of this network.
    """
    if not config.start:
        first = initialise if config.initial == "authors" else initialise_scaled
        return first(Generator(config.variant), seed)
    artefact = open_artefact(config.start)
    start = load_generator(artefact).train()
    if start.variant == config.variant:
        return start
    if (start.variant, config.variant) == ("lite", "full"):
        return widen(start.state_dict(), seed=seed)
    if (start.variant, config.variant) == ("full", "lite"):
        return prune(start.state_dict())
    raise ArtefactError(f"{artefact.path} holds a {start.variant!r} network; {config.variant!r} cannot start from it")


def make_optimiser(generator: Generator, config: OptimiserConfig) -> torch.optim.Optimizer:
    """Adam or Muon; each group remembers its full rate as ``initial_lr``."""
    betas = (config.betas[0], config.betas[1])
    optimiser: torch.optim.Optimizer
    if config.name == "muon":
        optimiser = Muon(generator, config.matrix_rate, config.rate, betas)
    else:
        optimiser = torch.optim.Adam(generator.parameters(), config.rate, betas)
    for group in optimiser.param_groups:
        group["initial_lr"] = group["lr"]
    return optimiser


def make_batches(pairs: PairSet, config: Config, ranks: Ranks) -> Batches:
    """This process's share of the batches that ``config.run.objective`` asks for."""
    if config.run.objective == "supervised":
        return SceneCrops(pairs, config, config.run.steps, ranks.rank, ranks.world)
    return EpochSamples(pairs, config, ranks.rank, ranks.world)


def total_steps(config: Config, batches: Batches) -> int:
    """Steps of the whole run."""
    return config.run.steps or config.run.epochs * batches.steps_per_epoch


def make_objective(config: Config, device: torch.device) -> Objective:
    """The loss that ``config.run.objective`` names, with the frozen networks that it needs.

    Raises:
        ArtefactError, ConfigError: weights of CLIP or VGG that are missing or wrong; says which file to put where.
    """
    if config.run.objective == "supervised":
        return Supervised(config)
    config = resolve(config, device)
    from .language import LanguageDriven
    from .towers.clip import load_clip  # these import open_clip and torchvision, which a supervised run does not need
    from .towers.vgg import load_vgg

    loss = config.loss
    clip = load_clip(config.clip, config.prompts, device, config.run.seed) if needs_clip(config) else None
    vgg = load_vgg(config.vgg, device, config.run.seed) if loss.fidelity else None
    for tower in (clip.tower if clip else None, vgg):
        if tower is not None and config.run.precision == "fp64":
            tower.double()
        if tower is not None and config.run.compile:
            tower.compile()
    return LanguageDriven(config, clip, vgg)


def needs_clip(config: Config) -> bool:
    """Whether a part of the loss asks CLIP."""
    loss = config.loss
    return config.run.objective == "language" and bool(loss.whole or loss.patches or loss.regulariser)
