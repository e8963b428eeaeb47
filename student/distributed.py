"""Several processes that train as one: each takes its slice of every global batch, and sums go over all of them.

`student.launching` or `torchrun` starts them, and the environment says who is who. Losses are sums, divided by what all
ranks hold together, so that any number of ranks gives the losses of one.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Which of how many processes this is."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - a constant

    @property
    def leads(self) -> bool:
        """Whether this one writes files and speaks to the user."""
        return self.rank == 0

    def sum(self, values_n: Tensor) -> Tensor:
        """The sum of `values_n` over all ranks, in float64 on the CPU."""
        summed_n = values_n.detach().to(self.device, torch.float64)
        if self.world_size > 1:
            distributed.all_reduce(summed_n)
        return summed_n.cpu()

    def gather(self, names: Sequence[str]) -> list[str]:
        """The names of all ranks, one rank's after another's."""
        if self.world_size == 1:
            return list(names)
        found: list[list[str]] = [[] for _ in range(self.world_size)]
        distributed.all_gather_object(found, list(names))
        return [name for of_rank in found for name in of_rank]

    def wrap(self, module: nn.Module, *, partly: bool) -> nn.Module:
        """`module` with its gradients averaged over ranks; `partly` where a step leaves some of it out."""
        if self.world_size == 1:
            return module
        device_ids = [self.device.index or 0] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=device_ids, find_unused_parameters=partly)


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """The ranks that this process's environment tells of; itself alone where it tells of none."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Ranks(device=device)
        return
    rank = int(os.environ["RANK"])
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(rank=rank, world_size=world_size, device=device)
    finally:
        distributed.destroy_process_group()
