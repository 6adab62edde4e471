"""The training loop: batches in, averaged weights out. What is minimised is the objective's business.

It reads top to bottom: build, maybe resume, step, log, save. A run can be killed at any time and goes on from its
last checkpoint; on a CPU the result is the same to the bit as that of a run that was never interrupted.
"""

from __future__ import annotations

import contextlib
import csv
import math
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pyldfusion.artefact import open_artefact, save_weights
from pyldfusion.errors import ArtefactError, PyldfusionError
from pyldfusion.generator import Generator

from .checkpoint import load_state, save_state
from .config import Config, ConfigError, NetworkConfig, OptimiserConfig
from .data import Batch
from .initialise import initialise_scaled
from .optimiser import Muon
from .widen import widen

__all__ = ["DivergedError", "Objective", "train"]

#: Parts of the loss, by name; their sum is minimised.
Objective = Callable[[Generator, Batch], dict[str, Tensor]]


class DivergedError(PyldfusionError, ArithmeticError):
    """The loss was not finite for many steps in a row."""


def train(
    config: Config,
    batches: Callable[[int], Batch],
    objective: Objective,
    out: Path,
    metadata: dict[str, str] | None = None,
    resume: bool = False,
    device: str = "cpu",
    progress: bool = True,
) -> bool:
    """Train, and leave ``weights.safetensors``, ``state.pt`` and ``log.csv`` in ``out``.

    Args:
        config: the run.
        batches: step -> batch.
        objective: what to minimise.
        metadata: written into the weights, besides variant, step and configuration.
        resume: go on from ``out/state.pt``.

    Returns:
        True when the run is complete, False when a signal ended it early (everything is saved).

    Raises:
        DivergedError: ``config.run.give_up`` losses in a row were not finite; the last good checkpoint is kept.
    """
    run = config.run
    generator = Generator(config.network.variant) if resume else first_generator(config.network, run.seed)
    generator.to(device, memory_format=torch.channels_last)
    optimiser = make_optimiser(generator, config.optimiser)
    average = Average(generator, config.optimiser.average)
    first = 0
    out.mkdir(parents=True, exist_ok=True)
    if resume:
        state = load_state(out / "state.pt")
        if state["variant"] != config.network.variant:
            raise ConfigError(f"{out} holds a run of variant {state['variant']!r}, not {config.network.variant!r}")
        generator.load_state_dict(state["generator"])
        optimiser.load_state_dict(state["optimiser"])
        average.weights = {name: tensor.to(device) for name, tensor in state["average"].items()}
        first = state["step"]
    described = {"variant": config.network.variant, **(metadata or {}), "config": config.as_json()}

    def save(step: int) -> None:
        state = {
            "variant": config.network.variant,
            "step": step,
            "generator": generator.state_dict(),
            "optimiser": optimiser.state_dict(),
            "average": average.weights,
            "config": config.as_json(),
        }
        save_state(out / "state.pt", state)
        weights = {name: tensor.cpu() for name, tensor in average.weights.items()}
        save_weights(weights, out / "weights.safetensors", {**described, "step": str(step)})

    autocast = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=run.precision == "bf16")
    bad = 0
    with Log(out / "log.csv", first) as log, interrupted() as stop:
        bar = tqdm(range(first, run.steps), initial=first, total=run.steps, disable=not progress, mininterval=2)
        for step in bar:
            for group in optimiser.param_groups:
                group["lr"] = group["initial_lr"] * schedule(step, run.steps, config.optimiser)
            batch = batches(step)
            batch = Batch(*(plane.to(device) for plane in vars(batch).values()))
            optimiser.zero_grad(set_to_none=True)
            with autocast:
                parts = objective(generator, batch)
            loss = sum(parts.values(), torch.zeros((), device=device))
            loss.backward()
            norm = nn.utils.clip_grad_norm_(generator.parameters(), config.optimiser.clip or math.inf)
            if torch.isfinite(loss + norm):
                bad = 0
                optimiser.step()
                average.update(generator, step)
            else:
                bad += 1
                if bad >= run.give_up:
                    raise DivergedError(f"{bad} losses in a row were not finite; the last good weights are in {out}")
            if step % run.log_every == 0 or step + 1 == run.steps:
                values = {name: float(part.detach()) for name, part in parts.items()}
                bar.set_postfix({name: f"{value:.4f}" for name, value in values.items()}, refresh=False)
                log.write({"step": step, **values, "rate": optimiser.param_groups[-1]["lr"], "skipped": bad})
            if (step + 1) % run.save_every == 0 or step + 1 == run.steps or stop():
                save(step + 1)
            if stop():
                return step + 1 == run.steps
    return True


def first_generator(config: NetworkConfig, seed: int) -> Generator:
    """What training starts from: seeded first weights, those of ``config.start``, or a ``lite`` grown to ``full``."""
    if not config.start:
        return initialise_scaled(Generator(config.variant), seed)
    start = open_artefact(config.start)
    weights = {name: torch.from_numpy(array) for name, array in start.state_dict().items()}
    if (start.variant, config.variant) == ("lite", "full"):
        return widen(weights, seed=seed)
    if start.variant != config.variant:
        raise ArtefactError(f"{start.path} holds a {start.variant!r} network; {config.variant!r} cannot start from it")
    generator = Generator(config.variant)
    generator.load_state_dict(weights)
    return generator


def make_optimiser(generator: Generator, config: OptimiserConfig) -> torch.optim.Optimizer:
    """Muon or Adam; each group remembers its full rate as ``initial_lr``."""
    if config.name == "muon":
        optimiser: torch.optim.Optimizer = Muon(generator, config.matrix_rate, config.rate, tuple(config.betas))
    elif config.name == "adam":
        optimiser = torch.optim.Adam(generator.parameters(), config.rate, tuple(config.betas))
    else:
        raise ConfigError(f"optimiser.name is {config.name!r}; expected 'muon' or 'adam'")
    for group in optimiser.param_groups:
        group["initial_lr"] = group["lr"]
    return optimiser


def schedule(step: int, steps: int, config: OptimiserConfig) -> float:
    """Share of the full rate: linear warm-up, 1 until ``decay_from`` of the run, then a cosine down to ``final``.

    The flat part makes the length of a run a decision that can be taken late: resume with another ``run.steps``.
    """
    if step < config.warmup:
        return (step + 1) / config.warmup
    start = config.decay_from * steps
    done = min(1.0, max(0.0, (step - start) / max(1.0, steps - start)))
    return config.final + (1 - config.final) * (1 + math.cos(math.pi * done)) / 2


class Average:
    """Exponential moving average of a network's weights; follows closely at first, then over 1/(1-decay) steps."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, tensor in network.state_dict().items():
            self.weights[name].lerp_(tensor, 1 - decay)


class Log:
    """``log.csv`` of a run; rows at or after the first step are dropped, so a resumed run leaves no double lines."""

    def __init__(self, path: Path, first: int) -> None:
        self.path, self.rows = path, []
        if first and path.is_file():
            with path.open(newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) < first]
        self.start = time.monotonic()

    def __enter__(self) -> Log:
        self.file = self.path.open("w", newline="")
        self.writer: csv.DictWriter[str] | None = None
        for row in self.rows:
            self._row(row)
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, values: dict[str, float]) -> None:
        self._row({**values, "seconds": time.monotonic() - self.start})

    def _row(self, row: dict[str, Any]) -> None:
        if self.writer is None:
            self.writer = csv.DictWriter(self.file, list(row))
            self.writer.writeheader()
        self.writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
        self.file.flush()


@contextlib.contextmanager
def interrupted() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether SIGINT or SIGTERM came since; a second one interrupts at once."""
    came: list[int] = []

    def note(number: int, frame: Any) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever runs us handles signals
        before = {}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
