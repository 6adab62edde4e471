"""How the rate changes over a run."""

from __future__ import annotations

import math

from ..config import ScheduleConfig

__all__ = ["rate_factor"]


def rate_factor(step: int, steps: int, steps_per_epoch: int, config: ScheduleConfig) -> float:
    """Share of the full rate at ``step`` (from 0) of ``steps``.

    Linear warm-up, ``(step + 1) / warmup``. Then "milestones": times ``factor`` after each of these epochs. Or
    "cosine": 1 until ``decay_from`` of the run, then a half cosine down to ``final``; the flat part makes the length
    of a run a decision that can be taken late (resume with another ``run.steps``).
    """
    warmup = steps_per_epoch if config.warmup < 0 else config.warmup
    if step < warmup:
        return (step + 1) / warmup
    if config.kind == "milestones":
        epoch = step // steps_per_epoch
        return config.factor ** sum(epoch >= milestone for milestone in config.milestones)
    start = config.decay_from * steps
    done = min(1.0, max(0.0, (step - start) / max(1.0, steps - start)))
    return config.final + (1 - config.final) * (1 + math.cos(math.pi * done)) / 2
