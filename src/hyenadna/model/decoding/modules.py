"""One or more further tokens through the modules of a model: the slow twin, and for any device.

Calls the linear layers and norms themselves, so adapters in them have their effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hyenadna.conv import short_convolution
from hyenadna.conv.online import OnlineConvolution, OnlineFilter
from hyenadna.model.decoding.state import LayerState
from hyenadna.model.operator import HyenaOperator

if TYPE_CHECKING:
    from hyenadna.model.backbone import Block


class Continuation:
    """How new positions of one layer are convolved, given its state."""

    def __init__(self, state: LayerState, *, keep: bool) -> None:
        self.state, self.keep = state, keep

    def halo(self, width: int, like: Tensor) -> Tensor:
        """Projections (B, K-1, W) at the positions before."""
        return self.state.halo

    def convolve(self, order: int, u: Tensor) -> Tensor:
        """Outputs (B, n, D) of one of the layer's long convolutions at its next samples u."""
        convolution = self.state.convolutions[order]
        if not self.keep:
            return convolution.outputs(u)
        if u.shape[1] == 1:
            return convolution.step(u[:, 0])[:, None]
        return convolution.extend(u)

    def came(self, halo: Tensor) -> None:
        """What the next positions will need."""
        if self.keep:
            self.state.halo = halo


class Beginning(Continuation):
    """The same where nothing has come yet; the state is made."""

    def __init__(self, filters: Sequence[OnlineFilter], room: int) -> None:
        super().__init__(LayerState(torch.empty(0), []), keep=True)
        self.filters, self.room = filters, room

    def halo(self, width: int, like: Tensor) -> Tensor:
        """Zeros."""
        return like.new_zeros(like.shape[0], width, like.shape[2])

    def convolve(self, order: int, u: Tensor) -> Tensor:
        """See `Continuation.convolve`."""
        y, convolution = OnlineConvolution.begin(self.filters[order], u, self.room)
        self.state.convolutions.append(convolution)
        return y


def advance_block(block: Block, h: Tensor, now: Continuation) -> Tensor:
    """The residual stream (B, n, D) after a block at new positions, given that before it."""
    assert isinstance(block.mixer, HyenaOperator)
    h = h + _mix(block.mixer, block.norm1(h), now).to(h.dtype)
    inner: Tensor = block.mlp(block.norm2(h))
    return h + inner.to(h.dtype)


def _mix(mixer: HyenaOperator, x: Tensor, now: Continuation) -> Tensor:
    """As `HyenaOperator.forward`, channel-last."""
    projected: Tensor = mixer.in_proj(x)
    projected = projected.to(torch.promote_types(projected.dtype, torch.float32))
    short = mixer.short_filter
    width = short.weight.shape[-1] - 1
    p = torch.cat([now.halo(width, projected), projected], dim=1)
    now.came(p[:, p.shape[1] - width :].clone())
    filtered = short_convolution(p.transpose(1, 2), short.weight[:, 0], short.bias)
    *gates, value = filtered[..., width:].transpose(1, 2).split(mixer.d_model, dim=2)
    for order, gate in enumerate(reversed(gates[1:])):
        value = now.convolve(order, value * gate)
    out: Tensor = mixer.out_proj((value * gates[0]).to(x.dtype))
    return out
