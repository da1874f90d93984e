"""Sequences behind one prefix: the prefix passes through the model once, whatever the batch.

The model is causal, so no position of the prefix knows what follows it. A layer's convolutions are
linear in their input, so that what the prefix adds to later positions is one tensor (D, R) for all
sequences: the tail of the convolution of the prefix alone. B sequences of L tokens behind P vectors
cost P + B L positions instead of B (P + L). All of it is differentiable, in the prefix too; and
where the prefix stays, its effects do, for any number of batches.

    filters = FrozenFilters(backbone)
    effects = prefix_effects(backbone, prefix, room=L, filters=filters)
    states = states_behind(backbone, effects, tokens, filters=filters)   # (B, L, D), any batch

The slow twin puts the prefix in front of every sequence: `joint_states`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from hyenadna.conv import long_convolution, short_convolution
from hyenadna.model.backbone import Backbone, Block
from hyenadna.model.digest import versions
from hyenadna.model.operator import HyenaOperator


@dataclass(frozen=True, eq=False)
class LayerEffects:
    """What a prefix means to the positions after it, in one layer."""

    halo: Tensor
    """Its last projections (1, W, min(K - 1, P)), which the short filter reaches back to."""
    tails: tuple[Tensor, ...]
    """What each of the N - 1 long convolutions adds at the next R positions, (1, D, R)."""


@dataclass(frozen=True, eq=False)
class PrefixEffects:
    """What a prefix means to the positions after it: all that is left of it."""

    layers: tuple[LayerEffects, ...]
    room: int
    """Positions after the prefix that the effects are known for, R."""

    def tensors(self) -> list[Tensor]:
        """All of them, in a fixed order."""
        return [t for layer in self.layers for t in (layer.halo, *layer.tails)]

    def detached(self) -> Self:
        """The same as leaves of a graph of their own, which collect gradients."""
        layers = tuple(
            LayerEffects(_leaf(layer.halo), tuple(map(_leaf, layer.tails))) for layer in self.layers
        )
        return type(self)(layers, self.room)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_(tensor.requires_grad)


class FrozenFilters:
    """The long filters of a backbone that is not trained, computed once for the most lags asked."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._kept: list[Tensor] = []
        self._of: list[tuple[int, int]] = []

    def of(self, layer: int, count: int) -> Tensor:
        """The first `count` lags of all filters of a layer, ((N - 1) D, count)."""
        mixers = [_operator(block) for block in self.backbone.layers]
        of = versions(*(p for mixer in mixers for p in mixer.filter_fn.parameters()))
        if not self._kept or self._of != of or self._kept[0].shape[1] < count:
            with torch.inference_mode(False), torch.no_grad():  # they outlive both
                self._kept, self._of = [mixer.filter_fn(count) for mixer in mixers], of
        return self._kept[layer][:, :count]


def joint_states(backbone: Backbone, prefix: Tensor, tokens: Tensor) -> Tensor:
    """Final states (B, L, D) of embedded tokens (B, L, D), each row behind the prefix (P, D)."""
    rows = prefix.to(tokens.dtype).expand(len(tokens), -1, -1)
    states: Tensor = backbone(torch.cat([rows, tokens], dim=1))
    return states[:, prefix.shape[0] :]


def prefix_effects(
    backbone: Backbone,
    prefix: Tensor,
    *,
    room: int,
    filters: FrozenFilters,
    recompute: bool = False,
) -> PrefixEffects:
    """What a prefix (P, D) of embedded tokens means to the next `room` positions.

    P: at least 1. filters: of the backbone, kept from call to call. recompute: keep the input of
    each block for the backward pass and nothing else, for a third more time.
    """
    h, layers = prefix[None], []
    last = len(backbone.layers) - 1
    for i, block in enumerate(backbone.layers):
        assert isinstance(block, Block)
        h, halo, *tails = _maybe_again(
            recompute, _prefix_block, h, block, filters, i, room, i == last
        )
        layers.append(LayerEffects(halo, tuple(tails)))
    return PrefixEffects(tuple(layers), room)


def states_behind(
    backbone: Backbone,
    effects: PrefixEffects,
    tokens: Tensor,
    *,
    filters: FrozenFilters,
    recompute: bool = False,
) -> Tensor:
    """Final states (B, L, D) of embedded tokens (B, L, D) behind the prefix of some effects.

    L: at most the effects' room. Dropout as the modules have it. The other arguments: as for
    `prefix_effects`.
    """
    assert tokens.shape[1] <= effects.room
    h = backbone.dropout(tokens)
    for i, (block, layer) in enumerate(zip(backbone.layers, effects.layers, strict=True)):
        assert isinstance(block, Block)
        h = _maybe_again(recompute, _rows_block, h, block, filters, i, layer.halo, *layer.tails)
    out: Tensor = backbone.ln_f(h)
    return out


def _maybe_again(recompute: bool, function: object, *args: object) -> tuple[Tensor, ...] | Tensor:
    """The function's result; with `recompute` it is called again in the backward pass."""
    assert callable(function)
    if recompute and torch.is_grad_enabled():
        out: tuple[Tensor, ...] = torch.utils.checkpoint.checkpoint(
            function, *args, use_reentrant=False
        )
        return out
    result: tuple[Tensor, ...] = function(*args)
    return result


def _prefix_block(
    h: Tensor, block: Block, filters: FrozenFilters, layer: int, room: int, last: bool
) -> tuple[Tensor, ...]:
    """The prefix (1, P, D) after a block, its halo, and the tails of its convolutions.

    last: nobody asks for the prefix itself after the last block.
    """
    mixer = _operator(block)
    projected = _channels_first(mixer.in_proj, block.norm1(h))
    past = projected.shape[2]
    *gates, value = mixer.short_filter(projected).split(mixer.d_model, dim=1)
    kernels = filters.of(layer, past + room).split(mixer.d_model)
    skips = mixer.filter_fn.bias.split(mixer.d_model)
    tails = []
    for o, gate in enumerate(reversed(gates[1:])):
        gated = nn.functional.pad(mixer.dropout(value * gate), (0, room))
        whole = long_convolution(gated, kernels[o], skips[o], method=mixer.conv_method)
        value, tail = whole.split((past, room), dim=2)
        tails.append(tail)
    halo = projected[..., past - _reach(mixer, past) :]
    if last:
        return h, halo, *tails
    return _after_mixer(block, h, value * gates[0]), halo, *tails


def _rows_block(
    h: Tensor,
    block: Block,
    filters: FrozenFilters,
    layer: int,
    halo: Tensor,
    *tails: Tensor,
) -> Tensor:
    """Rows (B, L, D) after a block, as `Block.forward`, behind the prefix of these effects."""
    mixer = _operator(block)
    projected = _channels_first(mixer.in_proj, block.norm1(h))
    length = projected.shape[2]
    short, reach = mixer.short_filter, halo.shape[2]
    joined = torch.cat([halo.to(projected.dtype).expand(len(h), -1, -1), projected], dim=2)
    filtered = short_convolution(joined, short.weight[:, 0], short.bias)[..., reach:]
    *gates, value = filtered.split(mixer.d_model, dim=1)
    kernels = filters.of(layer, length).split(mixer.d_model)
    skips = mixer.filter_fn.bias.split(mixer.d_model)
    for o, (gate, tail) in enumerate(zip(reversed(gates[1:]), tails, strict=True)):
        gated = mixer.dropout(value * gate)
        own = long_convolution(gated, kernels[o], skips[o], method=mixer.conv_method)
        value = own + tail[..., :length]
    return _after_mixer(block, h, value * gates[0])


def _after_mixer(block: Block, h: Tensor, gated: Tensor) -> Tensor:
    """(B, L, D) at the end of a block; gated: the mixer's signal before its last product."""
    mixed = _operator(block).out_proj(gated.transpose(1, 2).to(h.dtype))
    h = h + block.dropout(mixed).to(h.dtype)
    return h + block.dropout(block.mlp(block.norm2(h))).to(h.dtype)


def _operator(block: nn.Module) -> HyenaOperator:
    assert isinstance(block, Block) and isinstance(block.mixer, HyenaOperator)
    return block.mixer


def _reach(mixer: HyenaOperator, past: int) -> int:
    """Positions of the prefix that the short filter reaches back to."""
    return min(mixer.short_filter.weight.shape[-1] - 1, past)


def _channels_first(in_proj: nn.Module, x: Tensor) -> Tensor:
    """Projections (B, W, L), at least float32, for the reasons given in `HyenaOperator`."""
    projected = in_proj(x).transpose(1, 2)
    dtype = torch.promote_types(projected.dtype, torch.float32)
    out: Tensor = projected.to(dtype, memory_format=torch.contiguous_format)
    return out
