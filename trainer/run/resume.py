"""What may change between two parts of one run, and what makes it another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..config import Config, ConfigError

__all__ = ["check_same_run"]

# What learns, what is minimised, by which kind of step and from which draws: with another of these half-way the weights
# would be the result of no configuration that can be named, and of float64 only one half would be exact. How far, how
# fast, from which pictures and in how much memory a run goes on may change, and so may paths, as files move.
IDENTITY = {"run": {"objective", "seed"}, "network": {"variant", "initial"}, "optimiser": {"name"}}
#: Of each objective: the sections that define it, and what in them does not.
OBJECTIVE = {
    "language": {"prompts": {"content"}, "loss": set(), "patches": {"compact"}},
    "supervised": {"teacher": set(), "imitation": set()},
}


def check_same_run(state: dict[str, Any], config: Config, out: Path) -> str:
    """Refuse to go on with a run under the options of another.

    Args:
        state: of the run so far, as :func:`trainer.run.checkpoint.load_state` gives it.
        config: for the rest of it, every "auto" resolved.
        out: its folder, for the message.

    Returns:
        A line on what is other than before and may be, "" if nothing is.

    Raises:
        ConfigError: it would be another run; names every option that makes it one.
    """
    before, now = json.loads(state["config"]), json.loads(config.as_json())
    changed = [
        (section, key, was, now[section][key])
        for section, keys in before.items()
        for key, was in keys.items()
        if key in now.get(section, {}) and now[section][key] != was
    ]
    other = [
        f"{section}.{key} = {was!r}, not {new!r}"
        for section, key, was, new in changed
        if _defines(section, key, was, new, config)
    ]
    if other:
        raise ConfigError(
            f"{out} holds another run: {'; '.join(other)}. Go on with the options it was begun with, or "
            f"take another --out and begin from its weights: --set network.start={out / 'weights.safetensors'}"
        )
    listed = "; ".join(f"{section}.{key}: {was} -> {new}" for section, key, was, new in changed)
    return f"resuming with other options: {listed}" if changed else ""


def _defines(section: str, key: str, was: Any, new: Any, config: Config) -> bool:
    """Whether a run with this option changed is another one."""
    if (section, key) == ("run", "precision"):
        return "fp64" in (was, new)
    if (section, key) == ("clip", "model"):
        return config.run.objective == "language"
    sections = OBJECTIVE[config.run.objective]
    return key in IDENTITY.get(section, ()) or (section in sections and key not in sections[section])
