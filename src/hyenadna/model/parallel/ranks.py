"""The processes that train one model together, as torchrun starts them."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Self, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from hyenadna.errors import InputError
from hyenadna.model.parallel.meeting import common_token

_TIMEOUT: Final = datetime.timedelta(minutes=30)
"""How long a rank waits for the others: reading a large genome takes some longer than others."""
T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among all. Ranks next to each other share sequences where `context` > 1."""

    rank: int = 0
    count: int = 1
    context: int = 1
    """Ranks that one sequence lies over."""

    def __post_init__(self) -> None:
        if self.context < 1 or self.count % self.context:
            raise InputError(
                f"--context-ranks is {self.context} of {self.count} ranks; it must divide them"
            )

    @classmethod
    def join(
        cls, device: torch.device, context: int = 1, environment: Mapping[str, str] = os.environ
    ) -> Self:
        """This process of those that torchrun started, joined with the others; alone without it.

        Raises InputError where `context` does not divide the number of ranks, and where the others
        cannot be reached.
        """
        if not started_by_torchrun(environment):
            return cls(context=context)
        ranks = cls(int(environment["RANK"]), int(environment["WORLD_SIZE"]), context)
        if not dist.is_initialized():
            try:
                _meet("nccl" if device.type == "cuda" else "gloo")
            except (RuntimeError, ValueError, TimeoutError) as error:
                reason = str(error).splitlines()[0]
                raise InputError(f"torchrun: the ranks cannot meet ({reason})") from error
        return ranks

    def leave(self) -> None:
        """Part from the others; at the end of the work."""
        if self.together and dist.is_initialized():
            dist.destroy_process_group()

    @property
    def together(self) -> bool:
        """Whether there are several, or one that torchrun started."""
        return self.count > 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    @property
    def data_rank(self) -> int:
        """Which rows of a batch are for this process and those that share them."""
        return self.rank // self.context

    @property
    def data_count(self) -> int:
        """Into how many parts the rows of a batch fall."""
        return self.count // self.context

    def context_group(self) -> dist.ProcessGroup | None:
        """The ranks that share sequences with this one. All ranks must ask at the same time."""
        if self.context == self.count:
            return None  # all
        own = None
        for first in range(0, self.count, self.context):
            members = list(range(first, first + self.context))
            group = dist.new_group(members)
            if self.rank in members:
                own = group
        return own

    def total(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Sums over all ranks, in float64 where the device has it."""
        if not self.together:
            return list(values)
        kind = torch.float64 if device.type in ("cpu", "cuda") else torch.float32
        sums = torch.tensor(values, dtype=kind, device=device)
        dist.all_reduce(sums)
        return [float(value) for value in sums]

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether it is so on any rank."""
        return self.total([float(flag)], device)[0] > 0

    def gather(self, own: T) -> list[T]:
        """What each rank has, in their order, on the first; nothing on the others. All must ask.

        For plain values and small arrays: they go through pickle.
        """
        if not self.together:
            return [own]
        found: list[T] | None = [own] * self.count if self.first else None
        dist.gather_object(own, found)
        return found or []

    def from_first(self, value: T) -> T:
        """What the first rank has. All must ask; for plain values."""
        if not self.together:
            return value
        held = [value]
        dist.broadcast_object_list(held)
        return held[0]

    def least(self, value: int) -> int:
        """The least that any rank has. All must ask."""
        return self.from_first(min(self.gather(value), default=value))

    def most(self, value: int) -> int:
        """The most that any rank has. All must ask."""
        return -self.least(-value)

    def require_one_folder(self, folder: Path, seen: object) -> None:
        """Nothing, where all ranks see the same in a folder that they share. All must ask.

        Raises InputError on all of them otherwise, naming a rank that sees something else.
        """
        found = self.gather(repr(seen))
        other = next((rank for rank, each in enumerate(found) if each != found[0]), None)
        if (other := self.from_first(other)) is not None:
            raise InputError(
                f"{folder}: is not the same folder for rank 0 and rank {other}; put it on a disk "
                "that all machines share"
            )

    def sum_of(self, tensor: Tensor, device: torch.device) -> Tensor:
        """The sum of a tensor over all ranks, where it lies. All must ask, with one shape."""
        if not self.together:
            return tensor
        there = tensor.to(device)
        dist.all_reduce(there)
        return there.to(tensor.device)

    def begin_alike(self, tensors: Iterable[Tensor]) -> None:
        """Give all ranks the first one's values, in place."""
        if self.together:
            for tensor in tensors:
                dist.broadcast(tensor.data, 0)

    def seed(self, *numbers: int) -> int:
        """A seed that no other rank and no other numbers give."""
        return int(np.random.SeedSequence([*numbers, self.rank]).generate_state(1)[0])

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.together:
            dist.barrier()

    def share(self, items: Iterable[T]) -> Iterator[tuple[T, bool]]:
        """This rank's part of the items, with whether it counts: all ranks get as many.

        The items go around by `data_rank`; where they run out, a rank gets one of the others once
        more, which must not count. So collective work on each item is in step.
        """
        iterator = iter(items)
        while group := list(islice(iterator, self.data_count)):
            mine = self.data_rank < len(group)
            yield group[self.data_rank if mine else 0], mine


ALONE: Final = Ranks()


def _meet(backend: str) -> None:
    """Join the ranks of this start, under a name of its own in the store of torchrun."""
    store, rank, count = next(dist.rendezvous("env://", timeout=_TIMEOUT))
    meeting = dist.PrefixStore("hyenadna", store)
    token = common_token(meeting, rank, count, timeout=_TIMEOUT.total_seconds())
    dist.init_process_group(
        backend,
        store=dist.PrefixStore(token, meeting),
        rank=rank,
        world_size=count,
        timeout=_TIMEOUT,
    )


def started_by_torchrun(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one of several ranks, or the only one, of torchrun."""
    return all(key in environment for key in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE"))
