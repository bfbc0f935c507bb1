"""Processes that work on one training: sums and gathers over torch.distributed, or nothing to do for one alone."""

from __future__ import annotations

import contextlib
import datetime
import heapq
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pdelab.errors import PdelabError, SettingsError

TIMEOUT_SECONDS = 300.0


class TeamError(PdelabError):
    """Another process of the team was lost or does not answer."""


@dataclass(frozen=True)
class Team:
    """One of `size` processes that do the same work on different experts."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether it is this process that writes and speaks."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in every one of them."""
        if self.size == 1:
            return tensor
        total = tensor.detach().clone()
        with _watched():
            torch.distributed.all_reduce(total)
        return total

    def gather(self, tensor: Tensor, places: Sequence[Sequence[int]], dim: int) -> Tensor:
        """Parts along an axis from all processes, put in order.

        Args:
            tensor: the part of this process.
            places: of each process: which places along `dim` its parts have in the whole.
            dim: the axis.
        """
        if self.size == 1:
            return tensor
        part = tensor.detach().movedim(dim, 0)
        most = max(len(p) for p in places)
        padded = part.new_zeros(most, *part.shape[1:])
        padded[: len(part)] = part
        found = [torch.empty_like(padded) for _ in range(self.size)]
        with _watched():
            torch.distributed.all_gather(found, padded)
        whole = part.new_empty(sum(len(p) for p in places), *part.shape[1:])
        for piece, place in zip(found, places, strict=True):
            whole[list(place)] = piece[: len(place)]
        return whole.movedim(0, dim)


ALONE = Team()


def shared_out(costs: Sequence[float], size: int) -> list[list[int]]:
    """Which items each of `size` processes takes: the dearest first, to whom has least.

    Raises:
        SettingsError: there are fewer items than processes.
    """
    if size > len(costs):
        raise SettingsError(
            f"processes: expected at most one for each of {len(costs)} experts, got {size}; start fewer"
        )
    loads = [(0.0, rank) for rank in range(size)]
    found: list[list[int]] = [[] for _ in range(size)]
    for item in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        load, rank = heapq.heappop(loads)
        found[rank].append(item)
        heapq.heappush(loads, (load + costs[item], rank))
    return [sorted(items) for items in found]


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Team]:
    """The team that torchrun has started, or one alone.

    Raises:
        TeamError: the others do not answer.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    timeout = datetime.timedelta(seconds=TIMEOUT_SECONDS)
    with _watched():
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timeout)
    try:
        yield Team(torch.distributed.get_rank(), torch.distributed.get_world_size())
        # Together to the end: a process that leaves while others still talk to it may be aborted.
        with _watched():
            torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()


class Gathered(torch.autograd.Function):
    """`Team.gather`, differentiable: the gradient of each part is the sum over all processes."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, team: Team, places: Sequence[Sequence[int]], dim: int) -> Tensor:
        """See `Team.gather`."""
        ctx.team, ctx.place, ctx.dim = team, list(places[team.rank]), dim
        return team.gather(tensor, places, dim)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """The own part of the sum."""
        total = ctx.team.sum(gradients[0].contiguous())
        return total.movedim(ctx.dim, 0)[ctx.place].movedim(0, ctx.dim), None, None, None


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise TeamError(
            f"a process of this training was lost or does not answer ({str(error).splitlines()[0]}); give the same "
            f"command again: it goes on from the last checkpoint"
        ) from error
