"""Context parallelism: a model whose sequences lie over several ranks.

`share_context` gives the blocks of a model another forward pass: positions of this rank alone, but
around the long convolutions, for which positions are traded for channels. Parameters and their
names stay, and so does all code around the blocks: the loss, FSDP, saving. The gradients of a rank
are those of its positions; the sum over the ranks is that of the whole sequence.

A block keeps three arrays of its positions for the backward pass, and computes the rest again, a
few channels or positions at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hyenadna.conv import long_convolution, short_convolution
from hyenadna.errors import InputError
from hyenadna.model.backbone import Block, HyenaDNA
from hyenadna.model.filter import ImplicitFilter
from hyenadna.model.operator import HyenaOperator
from hyenadna.model.parallel.shards import SequenceShards
from hyenadna.model.planning.context import PIECE, mixed_channels


def share_context(model: HyenaDNA, shards: SequenceShards) -> HyenaDNA:
    """The model, changed in place to read one stretch of each sequence on each rank.

    Its inputs and outputs are then (B, L / R, ...), as `shards.part` cuts them.

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
    layers = model.backbone.layers
    if any(type(block) is not Block for block in layers):
        raise InputError("context parallel: the blocks have been changed already")
    for i, block in enumerate(layers):
        assert isinstance(block, Block)
        layers[i] = SharedBlock(block, shards)
    return model


class SharedBlock(Block):
    """A block over the positions of one rank, with the modules of `inner`.

    Equal to `inner` over the whole sequence.
    """

    def __init__(self, inner: Block, shards: SequenceShards) -> None:
        nn.Module.__init__(self)  # the modules are those of `inner`, none is made
        self.norm1, self.mixer = inner.norm1, inner.mixer  # in the order of the published names
        self.norm2, self.mlp, self.dropout = inner.norm2, inner.mlp, inner.dropout
        self.checkpoint_mixer = self.checkpoint_mlp = False
        self.shards = shards

    def forward(self, h: Tensor) -> Tensor:
        """(B, L / R, D) -> (B, L / R, D). Raises InputError for too short a stretch."""
        mixed = self._mixed(self.norm1(h))
        h = h + self.dropout(mixed).to(h.dtype)
        pieces = [_again(self._feed, piece) for piece in h.split(PIECE, dim=1)]
        return h + self.dropout(torch.cat(pieces, dim=1)).to(h.dtype)

    def _mixed(self, x: Tensor) -> Tensor:
        """The operator's output (B, L / R, D), a few channels after the other."""
        mixer = self.mixer
        assert isinstance(mixer, HyenaOperator)
        reach = mixer.short_filter.weight.shape[-1] - 1
        if x.shape[1] < reach:
            raise InputError(
                f"context parallel: {x.shape[1]} positions a rank, but the short filter reaches "
                f"{reach} back; give a longer sequence or fewer ranks"
            )
        hidden, start = self._filter_network(mixer.filter_fn, x.shape[1])
        out = None
        for channels in self._groups(x, mixer.d_model):
            part = _again(self._mix_channels, x, hidden, start, channels)
            out = part if out is None else out + part
        assert out is not None
        return out if mixer.out_proj.bias is None else out + mixer.out_proj.bias.to(out.dtype)

    def _groups(self, x: Tensor, width: int) -> Iterator[slice]:
        """Channels that are mixed together: as many for each rank."""
        each = mixed_channels(x.shape[0], x.shape[1], self.shards.count, gpu=x.is_cuda)
        for first in range(0, width, each):
            yield slice(first, min(first + each, width))

    def _mix_channels(self, x: Tensor, hidden: Tensor, start: int, channels: slice) -> Tensor:
        """What some channels add to the operator's output, before its bias."""
        mixer = self.mixer
        assert isinstance(mixer, HyenaOperator)
        weight, bias = mixer.in_proj.weight, mixer.in_proj.bias
        width = mixer.d_model
        own = [
            slice(o * width + channels.start, o * width + channels.stop)
            for o in range(mixer.order + 1)
        ]
        chosen = torch.cat([weight[s] for s in own])
        shift = None if bias is None else torch.cat([bias[s] for s in own])
        projected = nn.functional.linear(x, chosen, shift).transpose(1, 2)
        dtype = torch.promote_types(projected.dtype, torch.float32)
        projected = projected.to(dtype, memory_format=torch.contiguous_format)
        taps = torch.cat([mixer.short_filter.weight[s, 0] for s in own])
        offset = torch.cat([mixer.short_filter.bias[s] for s in own])
        *gates, value = self._short(projected, taps, offset).chunk(len(own), dim=1)
        for o, gate in enumerate(reversed(gates[1:])):
            gated = mixer.dropout(value * gate)
            mine = self.shards.to_channels(gated)
            kernel = self.shards.to_channels(
                _padded(mixer.filter_fn.filters(hidden, start, own[o]), x.shape[1])[None]
            )[0]
            skip = mixer.filter_fn.bias[own[o], None].to(dtype)
            value = self.shards.to_positions(long_convolution(mine, kernel)) + skip * gated
        mixed = (value * gates[0]).transpose(1, 2).to(x.dtype)
        return nn.functional.linear(mixed, mixer.out_proj.weight[:, channels])

    def _short(self, p: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
        """The short filter, with the last positions of the rank before in front."""
        reach = taps.shape[-1] - 1
        joined = torch.cat([self.shards.from_before(p, reach), p], dim=-1)
        return short_convolution(joined, taps, bias)[..., reach:]

    def _filter_network(self, fn: ImplicitFilter, length: int) -> tuple[Tensor, int]:
        """The last hidden layer of the filter network at the lags of this rank, and the first.

        Lags are shared as positions are, so that no rank computes or holds all of them. Padding
        behind the longest sequence has no lags of its own, and needs none.
        """
        start = min(self.shards.rank * length, fn.max_seq_len)
        stop = min(start + length, fn.max_seq_len)
        edges = [*range(start, stop, PIECE), stop]
        pieces = [_again(fn.hidden, a, b) for a, b in pairwise(edges) if a < b]
        return torch.cat(pieces) if pieces else fn.hidden(start, start), start


def _padded(filters: Tensor, length: int) -> Tensor:
    """Filters (c, n) with zeros behind, up to a length."""
    return nn.functional.pad(filters, (0, length - filters.shape[1]))


def _again(function: Callable[..., Tensor], *arguments: object) -> Tensor:
    """The value of a function that is computed again in the backward pass."""
    if not torch.is_grad_enabled():
        return function(*arguments)
    out: Tensor = checkpoint(function, *arguments, use_reentrant=False)
    return out
