"""The past of a layer in the terms of the engine, and what the engine's samples become."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hyenadna.config import ModelConfig
from hyenadna.conv.online import settle
from hyenadna.model.backbone import Block
from hyenadna.model.decoding.filter_lags import FilterLags
from hyenadna.model.decoding.state import HyenaState
from hyenadna.model.engine.block import Layer, Pass
from hyenadna.model.engine.kernels import Past
from hyenadna.model.engine.native_kernels import NativeKernels
from hyenadna.model.engine.run import layer_of
from hyenadna.model.operator import HyenaOperator


def past_of(layer: HyenaState) -> Past:
    """What has come so far; nothing of what comes is kept."""
    settled = layer.convolutions[0].settled
    return Past(layer.halo, settled, torch.empty_like(layer.halo), _forget)


def no_past(like: Tensor, config: ModelConfig, batch: int) -> Past:
    """Nothing has come yet, nor is anything kept."""
    halo = like.new_zeros(batch, config.short_filter_order - 1, 3 * config.d_model)
    return Past(halo, None, torch.empty_like(halo), _forget)


def keep_effects(
    run: Pass, blocks: Sequence[Block], pasts: Sequence[Past], batch: int, count: int, room: int
) -> list[Tensor]:
    """The effect (B, room, D) of `count` samples to come, by layer; it is filled as they come."""
    effects = []
    for index, (block, past) in enumerate(zip(blocks, pasts, strict=True)):
        mixer = block.mixer
        assert isinstance(mixer, HyenaOperator)
        effect = past.halo.new_empty(batch, room, mixer.d_model)
        lags = min(count + room, mixer.filter_fn.max_seq_len)
        if isinstance(run.kernels, NativeKernels):
            past.keep = _NativeKeeper(run.kernels, layer_of(index, block, lags), effect)
        else:
            past.keep = _Keeper(FilterLags(mixer.filter_fn, slice(0, mixer.d_model)), lags, effect)
        effects.append(effect)
    return effects


def _forget(channels: slice, samples: Tensor) -> None:
    """Keeps nothing."""


class _Keeper:
    """Turns the samples of a layer into their effect on what is to come, as blocks of them come.

    effect: (B, room, D), filled. count: lags from the first sample to the last output.
    """

    def __init__(self, lags: FilterLags, count: int, effect: Tensor) -> None:
        self.lags, self.count, self.effect = lags, count, effect
        self.held: FilterLags | None = None

    def __call__(self, channels: slice, samples: Tensor) -> None:
        if self.held is None:
            self.held = self.lags.holding(self.count)
        lags, room = self.held.part(channels), self.effect.shape[1]
        self.effect[..., channels] = settle(samples.flatten(2), lags, room)
        if channels.stop == self.lags.channels:
            self.held = None


class _NativeKeeper:
    """The same in native code. layer: of as many lags as there are from first to last."""

    def __init__(self, kernels: NativeKernels, layer: Layer, effect: Tensor) -> None:
        self.kernels, self.layer, self.effect = kernels, layer, effect
        self.hidden: Tensor | None = None

    def __call__(self, channels: slice, samples: Tensor) -> None:
        if not self.effect.shape[1]:
            return
        tables, weights = self.layer.tables, self.layer.weights
        if self.hidden is None:
            count = len(tables.window.t)
            self.hidden = self.kernels.kept_hidden(self.layer.network, tables.z[0], count)
        window = tables.window
        self.kernels.settle(samples, self.hidden, weights, window, channels, self.effect)
        if channels.stop == self.effect.shape[2]:
            self.hidden = None
