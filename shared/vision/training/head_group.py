"""Processes that train one model together, as torchrun starts them: environment -> rank, device, sums over all.

Without torchrun the group is one process, and nothing is sent anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist


@dataclass(frozen=True)
class Group:
    """This process and the others."""

    rank: int  # 0: the one that writes files and talks
    world: int  # how many
    device: torch.device

    def share(self, things: list[int]) -> list[int]:
        """This process's part of a list; the parts are disjoint and make up the whole."""
        return things[self.rank :: self.world]

    def sum(self, vector: Tensor) -> Tensor:
        """The sum over all processes, in place, on every one of them."""
        if self.world > 1:
            dist.all_reduce(vector)
        return vector

    def agree(self, wish: bool) -> bool:
        """Whether any process wishes it; all get the same answer."""
        return wish if self.world == 1 else self.sum(torch.tensor([float(wish)], device=self.device)).item() > 0

    @contextmanager
    def first(self) -> Iterator[None]:
        """The body runs in rank 0 before it runs in the others."""
        if self.rank:
            self.wait()
        yield
        if not self.rank:
            self.wait()

    def wait(self) -> None:
        """Until every process is here."""
        self.sum(torch.zeros(1, device=self.device))


@contextmanager
def process_group(device: str) -> Iterator[Group]:
    """The group this process belongs to; "cuda" becomes each process's own GPU. gloo on the CPU, NCCL on GPUs."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    own = torch.device(device)
    if own.type == "cuda":
        own = torch.device("cuda", own.index if own.index is not None else int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(own)
    if world == 1:
        yield Group(0, 1, own)
        return
    dist.init_process_group("nccl" if own.type == "cuda" else "gloo")
    try:
        yield Group(dist.get_rank(), world, own)
    finally:
        dist.destroy_process_group()
