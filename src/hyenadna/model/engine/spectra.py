"""Transforms of the filters, kept from pass to pass while the filters stay as they are."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hyenadna.model.engine.filter_passes import FilterNetwork
from hyenadna.model.engine.kernels import Kernels
from hyenadna.model.engine.weights import BlockWeights, FilterWindow


@dataclass(frozen=True)
class FilterTables:
    """What the filter of one layer depends on and does not train."""

    layer: int
    z: Tensor  # (1, M, E) features of the lags
    t: Tensor  # (1, M, 1) normalised lags
    window: FilterWindow
    identity: tuple[Hashable, ...]
    """Equal for equal tables: object and version of the tables of M rows."""


class FilterState:
    """A copy of everything trained that a layer's filters depend on.

    Compared by value and not by version: a change through `.data` leaves the version as it is.
    """

    def __init__(self, tables: FilterTables, trained: Sequence[Tensor]) -> None:
        self.tables = tables  # held, so that no other table can take the place of these in memory
        self.values = [t.detach().clone() for t in trained]

    def holds(self, tables: FilterTables, trained: Sequence[Tensor]) -> bool:
        """Whether the filters are still those that this state was taken from."""
        return self.tables.identity == tables.identity and all(
            a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
            for a, b in zip(self.values, trained, strict=True)
        )


class SpectrumCache:
    """Spectra by layer, length, block and provider; the least used go first when room is short.

    A copied or pickled cache is empty. Several threads may use one.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._states: dict[int, FilterState] = {}
        self._spectra: OrderedDict[tuple[Hashable, ...], Tensor] = OrderedDict()

    def __deepcopy__(self, memo: object) -> SpectrumCache:
        return SpectrumCache()

    def __reduce__(self) -> tuple[type[SpectrumCache], tuple[()]]:
        return SpectrumCache, ()

    @property
    def bytes(self) -> int:
        """Memory of the spectra held."""
        with self._lock:
            return sum(_bytes(t) for t in self._spectra.values())

    def check(self, tables: FilterTables, trained: Sequence[Tensor]) -> None:
        """Drop the spectra of a layer whose filters have changed."""
        with self._lock:
            state = self._states.get(tables.layer)
            if state is None or not state.holds(tables, trained):
                for key in [k for k in self._spectra if k[0] == tables.layer]:
                    del self._spectra[key]
                self._states[tables.layer] = FilterState(tables, trained)

    def get(self, key: tuple[Hashable, ...]) -> Tensor | None:
        """The spectrum of a key that starts with the layer, if it is there."""
        with self._lock:
            found = self._spectra.get(key)
            if found is not None:
                self._spectra.move_to_end(key)
            return found

    def put(self, key: tuple[Hashable, ...], spectrum: Tensor, limit: int) -> None:
        """Keep a spectrum within `limit` bytes in all."""
        with self._lock:
            self._spectra[key] = spectrum
            self.shrink(limit)

    def shrink(self, limit: int) -> None:
        """Drop the least used spectra until `limit` bytes are left at most."""
        with self._lock:
            held = self.bytes
            while held > limit:
                held -= _bytes(self._spectra.popitem(last=False)[1])


class LayerSpectra:
    """The spectra of one layer in one pass, block by block."""

    def __init__(
        self,
        kernels: Kernels,
        cache: SpectrumCache,
        limit: int,
        tables: FilterTables,
        weights: BlockWeights,
        network: FilterNetwork,
    ) -> None:
        self.kernels, self.cache, self.limit = kernels, cache, limit
        self.tables, self.weights, self.network = tables, weights, network
        self._hidden: Tensor | None = None
        if limit:
            trained = (*network.tensors(), weights.last_weight, weights.skip, tables.window.rates)
            cache.check(tables, trained)

    @property
    def hidden(self) -> Tensor:
        """Output of the filter network's last sine, (L, F), computed when first asked for."""
        if self._hidden is None:
            length = len(self.tables.window.t)
            self._hidden = self.kernels.hidden(self.network, self.tables.z[0], length)
        return self._hidden

    def __call__(self, channels: slice) -> Tensor:
        """The spectrum of a block of channels."""
        if not self.limit:
            return self._compute(channels, kept=False)
        length = len(self.tables.window.t)
        dtype = self.weights.last_weight.dtype
        key = (
            self.tables.layer, length, channels.start, channels.stop, self.kernels.name, dtype,
        )  # fmt: skip
        spectrum = self.cache.get(key)
        if spectrum is None:
            spectrum = self._compute(channels, kept=True)
            self.cache.put(key, spectrum, self.limit)
        return spectrum

    def _compute(self, channels: slice, *, kept: bool) -> Tensor:
        window = self.tables.window
        return self.kernels.spectrum(self.hidden, self.weights, window, channels, kept=kept)


def _bytes(t: Tensor) -> int:
    return t.numel() * t.element_size()
