"""The past of a layer in the terms of the engine, and what the engine's samples become."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hyenadna.config import ModelConfig
from hyenadna.conv.online import OnlineFilter, settle
from hyenadna.model.decoding.filter_lags import FilterLags
from hyenadna.model.decoding.state import HyenaState
from hyenadna.model.engine.kernels import Past


def past_of(layer: HyenaState) -> Past:
    """What has come so far; nothing of what comes is kept."""
    settled = layer.convolutions[0].settled
    return Past(layer.halo, settled, torch.empty_like(layer.halo), _forget)


def no_past(like: Tensor, config: ModelConfig, batch: int) -> Past:
    """Nothing has come yet, nor is anything kept."""
    halo = like.new_zeros(batch, config.short_filter_order - 1, 3 * config.d_model)
    return Past(halo, None, torch.empty_like(halo), _forget)


def keep_effects(
    pasts: Sequence[Past], filters: Sequence[OnlineFilter], batch: int, count: int, room: int
) -> list[Tensor]:
    """The effect (B, room, D) of `count` samples to come, by layer; it is filled as they come."""
    effects = []
    for past, filter_ in zip(pasts, filters, strict=True):
        assert isinstance(filter_.lags, FilterLags)
        effects.append(filter_.taps.new_empty(batch, room, filter_.lags.channels))
        past.keep = _Keeper(filter_.lags, effects[-1], count)
    return effects


def _forget(channels: slice, samples: Tensor) -> None:
    """Keeps nothing."""


class _Keeper:
    """Turns the samples of a layer into their effect on what is to come, as blocks of them come.

    effect: (B, room, D), filled. count: samples of each channel.
    """

    def __init__(self, lags: FilterLags, effect: Tensor, count: int) -> None:
        self.lags, self.effect, self.count = lags, effect, count
        self.holding: FilterLags | None = None

    def __call__(self, channels: slice, samples: Tensor) -> None:
        room = self.effect.shape[1]
        if self.holding is None:
            longest = self.lags.filter_fn.max_seq_len
            self.holding = self.lags.holding(min(self.count + room, longest))
        effect = settle(samples.flatten(2), self.holding.part(channels), room)
        self.effect[..., channels] = effect
        if channels.stop == self.lags.channels:
            self.holding = None
