"""The training loop: batches in, weights out. What is minimised is the objective's business.

It reads top to bottom: build, maybe resume, step, log, save. A run can be killed at any time and goes on from its
last checkpoint; on a CPU the result is the same to the bit as that of a run that was never interrupted: batches and
draws of the loss are functions of (seed, step), so no random state has to be kept.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from pathlib import Path

import torch
from tqdm import tqdm

from pyldfusion.errors import PyldfusionError

from .build import total_steps
from .config import Config
from .data.history import History
from .data.loader import stream
from .learner import Learner
from .objective import Batches, Objective
from .run.checkpoint import CheckpointError
from .run.distributed import ALONE, Ranks
from .run.interrupt import interrupted
from .run.logs import Log, write_summary
from .run.precision import in_precision
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
    history: History | None = None,
    validation: Validation | None = None,
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
        metadata: written into the weights, besides variant, step, configuration and what ``history`` says.
        history: the data that ``batches`` are made of.
        validation: what looks at held-out pairs every ``config.validation.every`` steps; None for no look.
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
    if ranks.first:
        out.mkdir(parents=True, exist_ok=True)
    learner = Learner(config, device, out if resume else None, history)
    first = learner.step
    if ranks.first and learner.other_options:
        print(learner.other_options, flush=True)
    if ranks.first and learner.other_data:
        warnings.warn(learner.other_data, stacklevel=2)
    if run.compile:
        learner.generator.compile()
    fuse = in_precision(ranks.wrap(learner.generator, device), run.precision, device)

    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(interrupted())
        log = stack.enter_context(Log(out, first)) if ranks.first else None
        bar = stack.enter_context(
            tqdm(initial=first, total=steps, disable=not (progress and ranks.first), mininterval=1, unit="step")
        )
        coming = stream(batches, first, steps, config.data.workers, pin=device.type == "cuda")
        stack.callback(coming.close)  # worker processes end before anything else
        bad, samples, begun = 0, 0, time.monotonic()
        values: dict[str, float] = {}
        means: dict[str, float] = {}
        for step, batch in enumerate(coming, first):
            batch = batch.to(device, learner.dtype)
            losses = objective(fuse, batch)
            loss = torch.stack(list(losses.parts.values())).sum()
            norm = learner.backward(loss, rate_factor(step, steps, batches.steps_per_epoch, config.schedule))

            # One exchange a step, so that all processes agree on whether to take the step and whether to stop.
            numbers = {"loss": loss, **losses.parts, **losses.shown, "gradient norm": norm}
            stopping = torch.tensor(float(stop()), device=device)
            own = torch.stack([value.detach().to(device, torch.float64) for value in (*numbers.values(), stopping)])
            *numbers_mean, stopping_mean = ranks.mean(own).tolist()
            values = dict(zip(numbers, numbers_mean, strict=True))
            finite = math.isfinite(values["loss"] + values["gradient norm"])
            bad = 0 if finite else bad + 1
            if bad >= run.give_up:
                kept = out / "weights.safetensors"
                where = f"the last good weights are {kept}" if kept.is_file() else "nothing was saved before"
                raise DivergedError(f"{bad} losses in a row were not finite, the last at step {step}; {where}")
            learner.take(finite)

            done = learner.step
            samples += len(batch.ir) * ranks.world
            speed = samples / (time.monotonic() - begun)
            last = done == steps or stopping_mean > 0
            if log and (step % run.log_every == 0 or last):
                shown = {"rate": learner.rate, "skipped": learner.skipped, "samples a second": speed}
                log.step(step, {**values, **shown})
            bar.set_postfix({k: f"{v:.4g}" for k, v in values.items()} | {"samples/s": f"{speed:.3g}"}, refresh=False)
            bar.update()
            if ranks.first and (done % run.save_every == 0 or last):
                try:
                    learner.save(out, metadata or {})
                except CheckpointError as error:
                    if last:
                        raise
                    warnings.warn(f"{error}; the run goes on", stacklevel=2)
            if log and validation and (done % config.validation.every == 0 or done == steps):
                means, strip = validation(learner.average.weights)
                log.validated(done, means, strip)
            if last:
                break
    done = learner.step
    complete = done >= steps
    if ranks.first and (done > first or not (out / "summary.json").is_file()):  # a run with nothing to do has no news
        write_summary(
            out / "summary.json",
            {
                "complete": complete,
                "step": done,
                "steps": steps,
                "skipped steps": learner.skipped,
                "losses": values,
                "validation": means,
                "seconds": time.monotonic() - begun,
                "samples a second": samples / (time.monotonic() - begun),
                "processes": ranks.world,
                "device": str(device) if device.type == "cpu" else torch.cuda.get_device_name(device),
                "torch": torch.__version__,
                "metadata": {**(metadata or {}), **learner.history.metadata()},
                "config": config.as_dict(),
            },
        )
    return complete
