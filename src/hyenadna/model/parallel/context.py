"""Context parallelism: a model whose sequences lie over several ranks.

`share_context` exchanges the parts of a model that look across positions: the mixer of each block,
which trades positions for channels around its long convolutions, and the MLP, which takes its
positions in pieces. Parameters and their names stay, and so does all code around them: the loss,
checkpointing, FSDP, saving. The gradients of a rank are those of its positions; the sum over the
ranks is that of the whole sequence.
"""

from __future__ import annotations

from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hyenadna.conv import long_convolution, short_convolution
from hyenadna.errors import InputError
from hyenadna.model.backbone import MLP, Block, HyenaDNA
from hyenadna.model.filter import ImplicitFilter
from hyenadna.model.operator import HyenaOperator
from hyenadna.model.parallel.shards import SequenceShards

PIECE: Final = 1 << 16
"""Positions that an MLP or a filter network takes at once."""


def share_context(model: HyenaDNA, shards: SequenceShards) -> HyenaDNA:
    """The model, changed in place to read one stretch of each sequence on each rank.

    Its inputs and outputs are then (B, L / R, ...), as `shards.part` cuts them. Blocks compute
    their activations again in the backward pass, whatever `set_checkpointing` says of them later is
    up to the caller.

    Raises InputError for a model without Hyena mixers, for one that has been changed already, and
    where the channels do not divide among the ranks.
    """
    config = model.config
    if config.mixer != "hyena":
        raise InputError("context parallel: only hyena models; this one has attention")
    if config.d_model % shards.count:
        raise InputError(
            f"context parallel: {config.d_model} channels over {shards.count} ranks; the number of "
            "ranks must divide the width"
        )
    for block in model.backbone.layers:
        assert isinstance(block, Block)
        if not isinstance(block.mixer, HyenaOperator) or not isinstance(block.mlp, MLP):
            raise InputError("context parallel: the blocks have been changed already")
        block.mixer = SharedOperator(block.mixer, shards)
        block.mlp = cast(MLP, PiecewiseMLP(block.mlp))
    model.set_checkpointing(mixer=True, mlp=False)
    return model


class SharedOperator(nn.Module):
    """A Hyena operator over (B, L / R, D): positions of this rank, with the parameters of `inner`.

    Equal to `inner` over the whole sequence.
    """

    def __init__(self, inner: HyenaOperator, shards: SequenceShards) -> None:
        super().__init__()
        self.d_model, self.order, self.shards = inner.d_model, inner.order, shards
        self.in_proj, self.out_proj = inner.in_proj, inner.out_proj
        self.short_filter, self.filter_fn = inner.short_filter, inner.filter_fn
        self.dropout = inner.dropout

    def forward(self, x: Tensor) -> Tensor:
        """(B, L / R, D) -> (B, L / R, D). Raises InputError for too short a stretch."""
        projected = self.in_proj(x).transpose(1, 2)
        dtype = torch.promote_types(projected.dtype, torch.float32)
        filtered = self._short(projected.to(dtype, memory_format=torch.contiguous_format))
        *gates, value = filtered.split(self.d_model, dim=1)
        kernels = self._kernels(x.shape[1])
        skips = self.filter_fn.bias.split(self.d_model)
        for o, gate in enumerate(reversed(gates[1:])):
            gated = self.dropout(value * gate)
            mine = self.shards.to_channels(gated)
            kernel = self.shards.to_channels(kernels[o][None])[0]
            whole = long_convolution(mine, kernel)
            value = self.shards.to_positions(whole) + skips[o][:, None].to(dtype) * gated
        out: Tensor = self.out_proj((value * gates[0]).transpose(1, 2).to(x.dtype))
        return out

    def _short(self, p: Tensor) -> Tensor:
        """The short filter, with the last positions of the rank before in front."""
        weight, bias = self.short_filter.weight[:, 0], self.short_filter.bias
        reach = weight.shape[-1] - 1
        if p.shape[-1] < reach:
            raise InputError(
                f"context parallel: {p.shape[-1]} positions a rank, but the short filter reaches "
                f"{reach} back; give a longer sequence or fewer ranks"
            )
        joined = torch.cat([self.shards.from_before(p, reach), p], dim=-1)
        return short_convolution(joined, weight, bias)[..., reach:]

    def _kernels(self, length: int) -> tuple[Tensor, ...]:
        """Each filter (D, L / R) at the lags that are this rank's stretch.

        Lags are shared as positions are, so that no rank computes or holds all of them.
        """
        fn = self.filter_fn
        start = self.shards.rank * length
        # padding behind the longest sequence has no lags of its own, and needs none
        stop = min(start + length, fn.max_seq_len)
        pieces = [
            checkpoint(_filters, fn, at, min(at + PIECE, stop), use_reentrant=False)
            for at in range(start, stop, PIECE)
        ]
        missing = start + length - max(stop, start)
        if missing:
            pieces.append(torch.zeros(fn.channels, missing, dtype=fn.dtype, device=fn.bias.device))
        return torch.cat(pieces, dim=1).split(self.d_model)


def _filters(fn: ImplicitFilter, start: int, stop: int) -> Tensor:
    return fn.filters(fn.hidden(start, stop), start)


class PiecewiseMLP(nn.Module):
    """An MLP that takes its positions in pieces and computes each again in the backward pass."""

    def __init__(self, inner: MLP) -> None:
        super().__init__()
        self.fc1, self.fc2 = inner.fc1, inner.fc2

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        if not torch.is_grad_enabled():
            return torch.cat([self._piece(x) for x in x.split(PIECE, dim=1)], dim=1)
        pieces = [checkpoint(self._piece, p, use_reentrant=False) for p in x.split(PIECE, dim=1)]
        return torch.cat(pieces, dim=1)

    def _piece(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(nn.functional.gelu(self.fc1(x), approximate="tanh"))
        return out
