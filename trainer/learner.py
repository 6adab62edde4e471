"""What training changes: the network, its optimiser, the average of its weights. Made, saved and read back as one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyldfusion.artefact import save_weights
from pyldfusion.errors import InputError
from pyldfusion.generator import Generator
from pyldfusion.rewrites import freeze_dead_biases

from .build import make_generator, make_optimiser
from .config import Config
from .data.history import History
from .run.checkpoint import CheckpointError, load_state, save_state
from .run.precision import weights_dtype
from .run.resume import check_same_run

__all__ = ["Learner"]


class Learner:
    """The network that learns, with everything that a resumed run needs to go on as if it had not stopped.

    Args:
        config: the run.
        device: where it computes.
        out: of an earlier part of this run, the folder to go on from; None begins anew.
        history: the data that it learns from; what an earlier part learnt from is put in front.

    Attributes:
        generator: the network.
        average: the averaged weights, which are the result.
        step: steps done.
        skipped: steps not taken because something was not finite.
        other_options, other_data: how it goes on otherwise than it began, each a line, "" where it does not.

    Raises:
        ArtefactError, CheckpointError, ConfigError: nothing to go on from, or a run of another kind.
    """

    def __init__(
        self, config: Config, device: torch.device, out: Path | None = None, history: History | None = None
    ) -> None:
        self._config, self._device = config, device
        self.history = history or History()
        self.other_options = self.other_data = ""
        self.dtype = weights_dtype(config.run.precision)
        self.step, self.skipped = 0, 0
        self.generator = Generator(config.network.variant) if out else make_generator(config.network, config.run.seed)
        freeze_dead_biases(self.generator)
        self.generator.to(device, self.dtype, memory_format=torch.channels_last)
        self._optimiser = make_optimiser(self.generator, config.optimiser)
        self.average = _Average(self.generator, config.optimiser.average)
        # fp16 has no room for small gradients; the scaler gives them some, and is idle otherwise
        half = config.run.objective == "language" and "fp16" in (config.clip.precision, config.vgg.precision)
        self._scaler = torch.amp.GradScaler(device.type, enabled=half)
        if out:
            self._restore(load_state(out / "state.pt"), out)

    @property
    def rate(self) -> float:
        """Of the last group of parameters."""
        rate: float = self._optimiser.param_groups[-1]["lr"]
        return rate

    def backward(self, loss: Tensor, factor: float) -> Tensor:
        """Find the gradients of ``loss`` for a step at ``factor`` of the full rate; their norm, before any clipping."""
        for group in self._optimiser.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimiser)
        return nn.utils.clip_grad_norm_(self.generator.parameters(), self._config.optimiser.clip or math.inf)

    def take(self, finite: bool) -> None:
        """Take the step, or skip it where loss or gradients were not finite."""
        if finite:
            self._scaler.step(self._optimiser)
            self.average.update(self.generator, self.step)
        else:
            self.skipped += 1
        self._scaler.update()
        self._optimiser.zero_grad(set_to_none=True)
        self.step += 1

    def save(self, out: Path, metadata: dict[str, str]) -> None:
        """Leave ``state.pt`` and ``weights.safetensors`` in a folder. Raises CheckpointError."""
        variant, config = self._config.network.variant, self._config.as_json()
        state = {
            "variant": variant,
            "step": self.step,
            "skipped": self.skipped,
            "generator": self.generator.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "average": self.average.weights,
            "scaler": self._scaler.state_dict(),
            "config": config,
            "data": self.history.state(),
        }
        save_state(out / "state.pt", state)
        weights = {name: tensor.cpu() for name, tensor in self.average.weights.items()}
        about = {"variant": variant, **metadata, **self.history.metadata(), "config": config, "step": str(self.step)}
        try:
            save_weights(weights, out / "weights.safetensors", about)
        except InputError as error:
            raise CheckpointError(str(error)) from None

    def _restore(self, state: dict[str, Any], out: Path) -> None:
        self.other_options = check_same_run(state, self._config, out)
        self.other_data = self.history.follow(state.get("data"), state["step"])
        self.generator.load_state_dict(state["generator"])
        asked = [{**group, "params": None} for group in self._optimiser.param_groups]
        self._optimiser.load_state_dict(state["optimiser"])
        for group, options in zip(self._optimiser.param_groups, asked, strict=True):
            # rates are this run's, as check_same_run says, and not those of the part before
            group.update({name: value for name, value in options.items() if name != "params"})
        self.average.weights = {name: tensor.to(self._device) for name, tensor in state["average"].items()}
        if state["scaler"]:  # empty of a run without one, on another device
            self._scaler.load_state_dict(state["scaler"])
        self.step, self.skipped = state["step"], state["skipped"]


class _Average:
    """Exponential moving average of a network's weights; follows closely at first, then over 1/(1-decay) steps."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, tensor in network.state_dict().items():
            self.weights[name].lerp_(tensor, 1 - decay)
