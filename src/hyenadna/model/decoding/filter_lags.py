"""The implicit filters of a layer, looked up by lag."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hyenadna.model.filter import ImplicitFilter


class FilterLags:
    """Some channels of an implicit filter as `hyenadna.conv.online.Lags`, skip term included."""

    def __init__(self, filter_fn: ImplicitFilter, channels: slice) -> None:
        self.filter_fn, self.first = filter_fn, channels.start
        self.channels = channels.stop - channels.start
        self._held: Tensor | None = None

    def part(self, channels: slice) -> FilterLags:
        """A block of these channels; what is held now is shared."""
        start, stop = self.first + channels.start, self.first + channels.stop
        part = FilterLags(self.filter_fn, slice(start, stop))
        part._held = self._held
        return part

    def holding(self, stop: int) -> FilterLags:
        """The same with the filter network's output at lags 0..stop-1 in memory."""
        same = self.part(slice(0, self.channels))
        same._held = self.filter_fn.hidden(0, stop)
        return same

    def between(self, start: int, stop: int) -> Callable[[slice], Tensor]:
        """See `hyenadna.conv.online.Lags`."""
        known = self.filter_fn.max_seq_len if self._held is None else len(self._held)
        last = min(stop, known)
        hidden = self._hidden(start, last) if last > start else None

        def of(channels: slice) -> Tensor:
            count = channels.stop - channels.start
            k = self._like().new_zeros(count, stop - start)
            mine = slice(self.first + channels.start, self.first + channels.stop)
            if hidden is not None:
                k[:, : len(hidden)] = self.filter_fn.filters(hidden, start, mine)
            if start == 0:
                k[:, 0] += self.filter_fn.bias[mine]
            return k

        return of

    def _hidden(self, start: int, stop: int) -> Tensor:
        held = self._held
        if held is not None and stop <= len(held):
            return held[start:stop]
        return self.filter_fn.hidden(start, stop)

    def _like(self) -> Tensor:
        return torch.empty(0, dtype=self.filter_fn.dtype, device=self.filter_fn.bias.device)
