"""Sequences cut into one stretch of positions for each rank, and what ranks tell each other.

Rank r of R holds positions r L/R .. (r+1) L/R - 1 of every sequence. Work on single positions is
local. A long convolution needs all positions of a channel: `to_channels` trades positions for
channels, all L of every R-th part of them, and `to_positions` trades back. A short filter needs the
last positions of the rank before: `from_before`. All of it is differentiable.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hyenadna.errors import InputError


class SequenceShards:
    """The ranks that share sequences.

    group: of torch.distributed; all ranks when left out. Raises InputError where torch.distributed
    has not been initialised.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise InputError("sequence shards: no torch.distributed here; run it by torchrun")
        self.group = group
        self.rank, self.count = dist.get_rank(group), dist.get_world_size(group)

    def part(self, tokens: Tensor, fill: int) -> Tensor:
        """This rank's stretch (B, ceil(L / R)) of tokens (B, L); `fill` stands behind their end.

        The model is causal, so that padding at the end changes nothing before it.
        """
        length = -(-tokens.shape[1] // self.count)
        padded = torch.nn.functional.pad(
            tokens, (0, length * self.count - tokens.shape[1]), value=fill
        )
        return padded[:, self.rank * length : (self.rank + 1) * length].contiguous()

    def whole(self, part: Tensor, length: int) -> Tensor:
        """The first `length` positions (B, length, ...) of the stretches (B, L / R, ...) of all.

        Without gradients; for results that fit one process.
        """
        parts = [torch.empty_like(part) for _ in range(self.count)]
        dist.all_gather(parts, part.detach().contiguous(), group=self.group)
        return torch.cat(parts, dim=1)[:, :length]

    def to_channels(self, x: Tensor) -> Tensor:
        """(B, C, L / R) of all channels to (B, C / R, L) of this rank's."""
        batch, channels, length = x.shape
        sent = x.view(batch, self.count, channels // self.count, length).transpose(0, 1)
        got = self._exchange(sent)  # (R, B, C / R, L / R), stretch by stretch
        return got.permute(1, 2, 0, 3).reshape(batch, channels // self.count, -1)

    def to_positions(self, x: Tensor) -> Tensor:
        """(B, C / R, L) of this rank's channels to (B, C, L / R) of its positions."""
        batch, channels, length = x.shape
        sent = x.view(batch, channels, self.count, length // self.count).permute(2, 0, 1, 3)
        got = self._exchange(sent)  # (R, B, C / R, L / R), channels by channels
        return got.transpose(0, 1).reshape(batch, channels * self.count, -1)

    def from_before(self, x: Tensor, count: int) -> Tensor:
        """The last `count` positions (B, C, count) that the rank before holds of (B, C, L / R).

        Zeros on the first rank.
        """
        out: Tensor = _FromBefore.apply(x[..., x.shape[-1] - count :].contiguous(), self)
        return out

    def _exchange(self, blocks: Tensor) -> Tensor:
        """Block r of (R, ...) goes to rank r; block r of the result came from there."""
        out: Tensor = _Exchange.apply(blocks.contiguous(), self)
        return out


class _Exchange(torch.autograd.Function):
    """All to all, which is its own adjoint."""

    @staticmethod
    def forward(ctx: Any, blocks: Tensor, shards: SequenceShards) -> Tensor:
        ctx.shards = shards
        return _all_to_all(blocks, shards)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _all_to_all(grads[0].contiguous(), ctx.shards), None


def _all_to_all(blocks: Tensor, shards: SequenceShards) -> Tensor:
    out = torch.empty_like(blocks)
    dist.all_to_all_single(out, blocks, group=shards.group)
    return out


class _FromBefore(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tail: Tensor, shards: SequenceShards) -> Tensor:
        ctx.shards = shards
        return _neighbour(tail, shards, -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _neighbour(grads[0].contiguous(), ctx.shards, 1), None


def _neighbour(x: Tensor, shards: SequenceShards, step: int) -> Tensor:
    """What the rank `step` further holds; zeros where there is none. It is a few positions."""
    parts = [torch.empty_like(x) for _ in range(shards.count)]
    dist.all_gather(parts, x, group=shards.group)
    other = shards.rank + step
    return parts[other] if 0 <= other < shards.count else torch.zeros_like(x)
