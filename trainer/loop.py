"""The training loop: batches in, weights out. What is minimised is the objective's business.

It reads top to bottom: build, maybe resume, step, log, save. A run can be killed at any time and goes on from its
last checkpoint; on a CPU the result is the same to the bit as that of a run that was never interrupted: batches and
draws of the loss are functions of (seed, step), so no random state has to be kept.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pyldfusion.artefact import save_weights
from pyldfusion.errors import InputError, PyldfusionError
from pyldfusion.generator import Generator

from .build import make_generator, make_optimiser, total_steps
from .config import Config, ConfigError
from .data.loader import stream
from .objective import Batches, Objective
from .run.checkpoint import CheckpointError, load_state, save_state
from .run.distributed import ALONE, Ranks
from .run.interrupt import interrupted
from .run.logs import Log, write_summary
from .run.schedule import rate_factor
from .run.validation import Validation

__all__ = ["DivergedError", "train"]


class DivergedError(PyldfusionError, ArithmeticError):
    """The loss was not finite for many steps in a row."""


def train(
    config: Config,
    batches: Batches,
    objective: Objective,
    out: Path,
    metadata: dict[str, str] | None = None,
    resume: bool = False,
    device: torch.device | str = "cpu",
    ranks: Ranks = ALONE,
    progress: bool = True,
) -> bool:
    """Train, and leave ``weights.safetensors``, ``state.pt``, logs and ``summary.json`` in ``out``.

    Args:
        config: the run.
        batches: step -> this process's share of the batch.
        objective: what to minimise.
        out: folder of the run; the first process alone writes.
        metadata: written into the weights, besides variant, step and configuration.
        resume: go on from ``out/state.pt``.
        device: of this process.
        ranks: which process this is, of how many.
        progress: show a bar.

    Returns:
        True when the run is complete, False when a signal ended it early (everything is saved).

    Raises:
        DivergedError: ``config.run.give_up`` losses in a row were not finite; the last good checkpoint is kept.
        CheckpointError: the last checkpoint could not be written. One before the last only warns.
        ArtefactError, ConfigError: nothing to resume, or a run of another kind.
    """
    device, run = torch.device(device), config.run
    steps = total_steps(config, batches)
    generator = Generator(config.network.variant) if resume else make_generator(config.network, run.seed)
    dtype = torch.float64 if run.precision == "fp64" else torch.float32
    generator.to(device, dtype, memory_format=torch.channels_last)
    optimiser = make_optimiser(generator, config.optimiser)
    average = Average(generator, config.optimiser.average)
    # fp16 has no room for small gradients; the scaler gives them some, and is idle otherwise
    half = run.objective == "language" and "fp16" in (config.clip.precision, config.vgg.precision)
    scaler = torch.amp.GradScaler(device.type, enabled=half)
    first, skipped = 0, 0
    if ranks.first:
        out.mkdir(parents=True, exist_ok=True)
    if resume:
        state = load_state(out / "state.pt")
        _check_same_run(state, config, out)
        generator.load_state_dict(state["generator"])
        asked = [{**group, "params": None} for group in optimiser.param_groups]
        optimiser.load_state_dict(state["optimiser"])
        for group, options in zip(optimiser.param_groups, asked, strict=True):
            # rates are this run's, as _check_same_run says, and not those of the part before
            group.update({name: value for name, value in options.items() if name != "params"})
        average.weights = {name: tensor.to(device) for name, tensor in state["average"].items()}
        if state["scaler"]:  # empty of a run without one, on another device
            scaler.load_state_dict(state["scaler"])
        first, skipped = state["step"], state["skipped"]

    autocast = torch.autocast(device.type, torch.bfloat16, enabled=run.precision == "bf16")
    if run.compile:
        generator.compile()
    network = ranks.wrap(generator, device)

    def fuse(ir: Tensor, vis: Tensor) -> Tensor:
        with autocast:
            return network(ir, vis).to(dtype)

    described = {"variant": config.network.variant, **(metadata or {}), "config": config.as_json()}

    def save(step: int) -> None:
        state = {
            "variant": config.network.variant,
            "step": step,
            "skipped": skipped,
            "generator": generator.state_dict(),
            "optimiser": optimiser.state_dict(),
            "average": average.weights,
            "scaler": scaler.state_dict(),
            "config": config.as_json(),
        }
        save_state(out / "state.pt", state)
        weights = {name: tensor.cpu() for name, tensor in average.weights.items()}
        try:
            save_weights(weights, out / "weights.safetensors", {**described, "step": str(step)})
        except InputError as error:
            raise CheckpointError(str(error)) from None

    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(interrupted())
        log = stack.enter_context(Log(out, first)) if ranks.first else None
        validation = Validation(config, device) if ranks.first and config.validation.data else None
        bar = stack.enter_context(
            tqdm(initial=first, total=steps, disable=not (progress and ranks.first), mininterval=1, unit="step")
        )
        coming = stream(batches, first, steps, config.data.workers, pin=device.type == "cuda")
        stack.callback(coming.close)  # worker processes end before anything else
        done, bad, seen, begun = first, 0, 0, time.monotonic()
        values: dict[str, float] = {}
        means: dict[str, float] = {}
        for step, batch in enumerate(coming, first):
            factor = rate_factor(step, steps, batches.steps_per_epoch, config.schedule)
            for group in optimiser.param_groups:
                group["lr"] = group["initial_lr"] * factor
            optimiser.zero_grad(set_to_none=True)
            batch = batch.to(device, dtype)
            losses = objective(fuse, batch)
            loss = torch.stack(list(losses.parts.values())).sum()
            scaler.scale(loss).backward()
            scaler.unscale_(optimiser)
            norm = nn.utils.clip_grad_norm_(generator.parameters(), config.optimiser.clip or math.inf)

            # One exchange a step, so that all processes agree on whether to take the step and whether to stop.
            numbers = {"loss": loss, **losses.parts, **losses.shown, "gradient norm": norm}
            stopping = torch.tensor(float(stop()), device=device)
            told = torch.stack([value.detach().to(device, torch.float64) for value in (*numbers.values(), stopping)])
            *numbers_mean, stopping_mean = ranks.mean(told).tolist()
            values = dict(zip(numbers, numbers_mean, strict=True))
            if math.isfinite(values["loss"] + values["gradient norm"]):
                bad = 0
                scaler.step(optimiser)
                average.update(generator, step)
            else:
                bad, skipped = bad + 1, skipped + 1
                if bad >= run.give_up:
                    raise DivergedError(f"{bad} losses in a row were not finite; the last good weights are in {out}")
            scaler.update()

            done = step + 1
            seen += len(batch.ir) * ranks.world
            speed = seen / (time.monotonic() - begun)
            last = done == steps or stopping_mean > 0
            if log and (step % run.log_every == 0 or last):
                rate = optimiser.param_groups[-1]["lr"]
                log.step(step, {**values, "rate": rate, "skipped": skipped, "samples a second": speed})
            bar.set_postfix({k: f"{v:.4g}" for k, v in values.items()} | {"samples/s": f"{speed:.3g}"}, refresh=False)
            bar.update()
            if ranks.first and (done % run.save_every == 0 or last):
                try:
                    save(done)
                except CheckpointError as error:
                    if last:
                        raise
                    warnings.warn(f"{error}; the run goes on", stacklevel=2)
            if log and validation and (done % config.validation.every == 0 or done == steps):
                means, strip = validation(average.weights)
                log.validated(done, means, strip)
            if last:
                break
    complete = done >= steps
    if ranks.first and (done > first or not (out / "summary.json").is_file()):  # a run with nothing to do has no news
        write_summary(
            out / "summary.json",
            {
                "complete": complete,
                "step": done,
                "steps": steps,
                "skipped steps": skipped,
                "losses": values,
                "validation": means,
                "seconds": time.monotonic() - begun,
                "samples a second": seen / (time.monotonic() - begun),
                "processes": ranks.world,
                "device": str(device) if device.type == "cpu" else torch.cuda.get_device_name(device),
                "torch": torch.__version__,
                "metadata": metadata or {},
                "config": config.as_dict(),
            },
        )
    return complete


def _check_same_run(state: dict[str, Any], config: Config, out: Path) -> None:
    """What cannot change between two parts of one run."""
    before = json.loads(state["config"])
    for section, key in (("network", "variant"), ("optimiser", "name")):
        was, now = before[section][key], getattr(getattr(config, section), key)
        if was != now:
            raise ConfigError(f"{out} holds a run with {section}.{key} = {was!r}, not {now!r}; take another --out")
    changed = [
        f"{section}.{key}: {was} -> {now[key]}"
        for section, now in config.as_dict().items()
        for key, was in before.get(section, {}).items()
        if key in now and json.dumps(was) != json.dumps(now[key])
    ]
    if changed:
        print("resuming with other options: " + "; ".join(changed), flush=True)


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
