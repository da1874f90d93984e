"""One or more further tokens through the modules of a model: the slow twin, and for any device.

Calls the linear layers and norms themselves, so adapters in them have their effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from hyenadna.conv import short_convolution
from hyenadna.conv.online import OnlineConvolution, OnlineFilter
from hyenadna.model.attention import CausalAttention
from hyenadna.model.decoding.state import AttentionState, HyenaState, LayerState
from hyenadna.model.operator import HyenaOperator

if TYPE_CHECKING:
    from hyenadna.model.backbone import Block


class Mixing(Protocol):
    """How new positions of one layer see those before."""

    def mix(self, mixer: nn.Module, x: Tensor) -> Tensor:
        """Output (B, n, D) of the layer's mixer at n more positions x (B, n, D)."""
        ...


class Continuation(Mixing, Protocol):
    """How new positions of one layer follow those before."""

    @property
    def state(self) -> LayerState:
        """The layer's state, which `mix` makes or moves on."""
        ...


class HyenaContinuation:
    """Of a hyena layer with a past. keep: whether its state moves on."""

    def __init__(self, state: HyenaState, *, keep: bool) -> None:
        self.state, self.keep = state, keep

    def mix(self, mixer: nn.Module, x: Tensor) -> Tensor:
        """As `HyenaOperator.forward`, channel-last."""
        assert isinstance(mixer, HyenaOperator)
        projected: Tensor = mixer.in_proj(x)
        projected = projected.to(torch.promote_types(projected.dtype, torch.float32))
        short = mixer.short_filter
        width = short.weight.shape[-1] - 1
        p = torch.cat([self._halo(width, projected), projected], dim=1)
        if self.keep:
            self.state.halo = p[:, p.shape[1] - width :].clone()
        filtered = short_convolution(p.transpose(1, 2), short.weight[:, 0], short.bias)
        *gates, value = filtered[..., width:].transpose(1, 2).split(mixer.d_model, dim=2)
        for order, gate in enumerate(reversed(gates[1:])):
            value = self._convolve(order, value * gate)
        out: Tensor = mixer.out_proj((value * gates[0]).to(x.dtype))
        return out

    def _halo(self, width: int, like: Tensor) -> Tensor:
        return self.state.halo

    def _convolve(self, order: int, u: Tensor) -> Tensor:
        convolution = self.state.convolutions[order]
        if not self.keep:
            return convolution.outputs(u)
        if u.shape[1] == 1:
            return convolution.step(u[:, 0])[:, None]
        return convolution.extend(u)


class HyenaBeginning(HyenaContinuation):
    """Of a hyena layer where nothing has come yet; its state is made."""

    def __init__(self, filters: Sequence[OnlineFilter], room: int) -> None:
        super().__init__(HyenaState(torch.empty(0), []), keep=True)
        self.filters, self.room = filters, room

    def _halo(self, width: int, like: Tensor) -> Tensor:
        return like.new_zeros(like.shape[0], width, like.shape[2])

    def _convolve(self, order: int, u: Tensor) -> Tensor:
        y, convolution = OnlineConvolution.begin(self.filters[order], u, self.room)
        self.state.convolutions.append(convolution)
        return y


class AttentionContinuation:
    """Of a layer of the baseline; capacity: tokens in all where nothing has come yet."""

    def __init__(self, state: AttentionState | None, capacity: int = 0) -> None:
        self._state, self.capacity = state, capacity

    @property
    def state(self) -> LayerState:
        """See `Continuation.state`."""
        assert self._state is not None
        return self._state

    def mix(self, mixer: nn.Module, x: Tensor) -> Tensor:
        """See `Continuation.mix`."""
        assert isinstance(mixer, CausalAttention)
        if self._state is None:
            self._state = AttentionState.empty(mixer, x, self.capacity)
        return self._state.mix(mixer, x)


def advance_block(block: Block, h: Tensor, now: Mixing) -> Tensor:
    """The residual stream (B, n, D) after a block at new positions, given that before it."""
    mixed = now.mix(block.mixer, block.norm1(h))
    h = h + mixed.to(h.dtype)
    inner: Tensor = block.mlp(block.norm2(h))
    return h + inner.to(h.dtype)
