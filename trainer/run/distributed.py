"""One process or many: what ``torchrun`` says in the environment, and the few things that processes tell each other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pyldfusion.errors import DeviceError

__all__ = ["ALONE", "Ranks", "join"]


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many, ``local`` of them on this machine."""

    rank: int = 0
    world: int = 1
    local: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    @property
    def launcher(self) -> str:
        """The command that starts so many processes; ``-m trainer`` and its options follow it."""
        if self.world == 1:
            return "python"
        if self.world == self.local:
            return f"torchrun --standalone --nproc-per-node {self.local}"
        machines = f"--nnodes {self.world // self.local} --nproc-per-node {self.local}"
        return f"torchrun {machines} --rdzv-backend c10d --rdzv-id NAME --rdzv-endpoint HOST:PORT"

    def mean(self, values: Tensor) -> Tensor:
        """Mean of ``values`` over all processes, in place; every process must call it."""
        if self.world > 1:
            dist.all_reduce(values)
            values /= self.world
        return values

    def wrap(self, network: nn.Module, device: torch.device) -> nn.Module:
        """``network``, its gradients averaged over all processes."""
        if self.world == 1:
            return network
        return nn.parallel.DistributedDataParallel(
            network,
            device_ids=[device] if device.type == "cuda" else None,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )


#: A run of one process.
ALONE = Ranks()


@contextlib.contextmanager
def join(device: str) -> Iterator[tuple[Ranks, torch.device]]:
    """The group that ``torchrun`` started this process in, and the device of this member.

    Outside ``torchrun`` a group of one. Each process of a machine takes the GPU of its local rank; CPUs speak gloo.

    Raises:
        DeviceError: an unknown device, or one this machine does not have.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = torch.device("meta")
    if chosen.type not in ("cpu", "cuda"):
        raise DeviceError(f"{device!r} is no device to train on; expected cpu, cuda or cuda:N")
    if chosen.type == "cuda":
        if world > 1 and chosen.index is None:
            chosen = torch.device("cuda", local)
        if (chosen.index or 0) >= torch.cuda.device_count():
            raise DeviceError(f"{chosen} was asked for; this machine has {torch.cuda.device_count()} CUDA devices")
        torch.cuda.set_device(chosen)
    if world == 1:
        yield ALONE, chosen
        return
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), world, int(os.environ.get("LOCAL_WORLD_SIZE", world))), chosen
    finally:
        dist.destroy_process_group()
