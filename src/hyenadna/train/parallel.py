"""How the ranks of a run compute one gradient: alone, by DDP, by FSDP2, with sequences shared.

Whatever the way, `Parallel` gives the sum of the gradients of all ranks, so that a step does not
depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hyenadna.alphabet import IGNORED, PAD
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.likelihood import target_nats
from hyenadna.model.parallel.context import share_context
from hyenadna.model.parallel.ranks import Ranks
from hyenadna.model.parallel.sharded import shard
from hyenadna.model.parallel.shards import SequenceShards


@dataclass(frozen=True)
class Sharded:
    """How a model comes to lie in parts on the ranks."""

    device: torch.device
    fill: Callable[[HyenaDNA], None]
    """Gives it its weights: each rank its own rows."""


class Parallel:
    """A model that all ranks train together; it is changed in place.

    sharded: FSDP2 keeps parameters, gradients and moments in parts, one on each rank, in place of a
    copy on each. Its arguments: the device, and what gives the model its weights once it has been
    dealt out; it must be an `empty_model`.

    Raises InputError for a model whose channels do not divide among the ranks that share a
    sequence, and for `sharded` without other ranks.
    """

    def __init__(self, model: HyenaDNA, ranks: Ranks, sharded: Sharded | None = None) -> None:
        if not ranks.together and (sharded or ranks.context > 1):
            raise InputError(
                "--fsdp and --context-ranks need several ranks; start them by "
                "torchrun --nproc-per-node N -m hyenadna …"
            )
        self.model, self.ranks, self.sharded = model, ranks, sharded is not None
        self.changed = self.sharded or ranks.context > 1
        """Whether the modules are no longer those of one process."""
        self.shards: SequenceShards | None = None
        if ranks.context > 1:
            self.shards = SequenceShards(ranks.context_group())
            share_context(model, self.shards)
        if sharded:
            shard(model, sharded.device)
            sharded.fill(model)
        self._loss: nn.Module = _TargetNats(model)
        if ranks.together and not self.sharded:
            self._loss = DistributedDataParallel(self._loss)

    def part(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """This rank's stretch of sequences (B, L) that it shares with others; else all of them."""
        if self.shards is None:
            return inputs, targets
        return self.shards.part(inputs, PAD), self.shards.part(targets, IGNORED)

    def backward(
        self,
        inputs: Tensor,
        targets: Tensor,
        scale: Callable[[Tensor], Tensor],
        *,
        precision: torch.dtype | None,
        last: bool,
    ) -> float:
        """Adds the gradients of the summed loss; returns that sum of this rank.

        inputs, targets: (B, L), of `part`. scale: turns the sum into what is differentiated.
        precision: type of the matrix products. last: whether ranks add up their gradients now, once
        for all pieces of a batch.
        """
        with self._in_step(last):
            with torch.autocast(inputs.device.type, dtype=precision, enabled=precision is not None):
                nats = self._loss(inputs, targets).sum()
            # both ways average over ranks, and a sum is wanted
            scale(nats * self.ranks.count).backward()
        return float(nats.detach())

    @contextmanager
    def _in_step(self, last: bool) -> Iterator[None]:
        if isinstance(self._loss, DistributedDataParallel):
            with nullcontext() if last else self._loss.no_sync():
                yield
            return
        if self.sharded:
            from torch.distributed.fsdp import FSDPModule

            assert isinstance(self.model, FSDPModule)
            self.model.set_requires_gradient_sync(last)
        yield


class _TargetNats(nn.Module):
    """The loss as a module, as DDP wants it."""

    def __init__(self, model: HyenaDNA) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return target_nats(self.model, inputs, targets)


def add_gradients(parameters: Iterable[Tensor], ranks: Ranks, device: torch.device) -> None:
    """Give all ranks the sum of their gradients, in one exchange. All must ask.

    A rank may have none, where it had no rows; a parameter without a gradient on any rank keeps
    none.
    """
    if not ranks.together:
        return
    parameters = list(parameters)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    has = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32, device=device)
    flat = ranks.sum_of(torch.cat([has, *(g.flatten() for g in gradients)]), device)
    found, *sums = flat.split([len(parameters), *(g.numel() for g in gradients)])
    for parameter, gradient, total, anywhere in zip(
        parameters, gradients, sums, found.tolist(), strict=True
    ):
        parameter.grad = gradient.copy_(total.view_as(gradient)) if anywhere else None
