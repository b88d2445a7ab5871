"""The processes that share a training: one on a GPU each, or several on a CPU, started by `torchrun`.

Every process takes its share of each batch; gradients, losses and statistics are averaged, so that all hold the same
weights. Alone, a process needs none of this, and every function here returns at once.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from microsr.core.errors import UserError
from microsr.core.progress import logger

PATIENCE = datetime.timedelta(minutes=10)
"""How long a process waits for the others before it gives up."""

_groups: list[dist.ProcessGroup] = []
"""Groups that were joined, kept until Python ends: if a network's DistributedDataParallel holds the last reference to
one, it frees it with Python's lock held, joins a thread that may be waiting for that lock, and hangs after the last
step."""


@dataclass(frozen=True)
class Processes:
    """This process among those of a training."""

    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """This process's samples of a batch."""
        each = batch // self.count
        return slice(self.rank * each, (self.rank + 1) * each)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes."""
        return self.sum(values) / self.count

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes."""
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def gather(self, share: Tensor) -> Tensor:
        """The whole batch from every process's share."""
        if self.count == 1:
            return share
        whole = [torch.empty_like(share) for _ in range(self.count)]
        dist.all_gather(whole, share.contiguous())
        return torch.cat(whole)

    def tell(self, what: Any) -> Any:
        """What the first process has to say, in all of them."""
        said = [what]
        if self.count > 1:
            dist.broadcast_object_list(said, src=0, device=torch.device(self.device))
        return said[0]


class Agreement:
    """One decision of all processes after each step: the highest number that one of them wanted.

    With several processes it is the decision of the step before, so that a GPU need not wait for the answer.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes, self._asked = processes, None

    def __call__(self, wanted: int) -> int:
        """This process's wish in, the decision out."""
        if self._processes.count == 1:
            return wanted
        before, self._asked = self._asked, torch.tensor(wanted, device=self._processes.device)
        dist.all_reduce(self._asked, dist.ReduceOp.MAX)
        return int(before) if before is not None else 0


@contextlib.contextmanager
def join(device: str) -> Iterator[Processes]:
    """The processes that `torchrun` started, on "cpu" or "cuda"; without it, this one alone.

    Raises
    ------
    UserError
        There are more processes on this machine than GPUs.
    """
    if "WORLD_SIZE" not in os.environ:
        yield Processes(device=device)
        return
    rank, count, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise UserError(
                f"compute.devices asks for more GPUs than the {torch.cuda.device_count()} of this machine; lower it"
            )
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    if rank > 0:
        logger.setLevel(logging.ERROR)
    dist.init_process_group("nccl" if device != "cpu" else "gloo", timeout=PATIENCE)
    _groups.append(dist.group.WORLD)
    try:
        yield Processes(rank, count, device)
    finally:
        dist.destroy_process_group()
