"""Transforms of the filters, kept from pass to pass while the filters stay as they are."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hyenadna.conv.cuda_graphs import capturing
from hyenadna.model.engine.filter_passes import FilterNetwork
from hyenadna.model.engine.kernels import Kernels
from hyenadna.model.engine.weights import BlockWeights, FilterWindow
from hyenadna.model.filter import no_tf32

Key = tuple[int, *tuple[Hashable, ...]]
"""Layer, length, ... of a spectrum."""


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
    Without values the state is equal to nothing but itself.
    """

    def __init__(self, tables: FilterTables, values: Sequence[Tensor] | None) -> None:
        self.tables = tables  # held, so that no other table can take the place of these in memory
        self.values = values

    def holds(self, tables: FilterTables, trained: Sequence[Tensor]) -> bool:
        """Whether the filters are still those that this state was taken from."""
        if self.values is None or self.tables.identity != tables.identity:
            return False
        return len(self.values) == len(trained) and all(
            a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
            for a, b in zip(self.values, trained, strict=True)
        )


@dataclass(frozen=True)
class _Kept:
    """A spectrum; of one on a GPU also the stream that makes it, and when it will be there."""

    spectrum: Tensor
    stream: torch.cuda.Stream | None = None
    made: torch.cuda.Event | None = None

    @classmethod
    def of(cls, spectrum: Tensor) -> _Kept:
        if not spectrum.is_cuda:
            return cls(spectrum)
        stream = torch.cuda.current_stream(spectrum.device)
        return cls(spectrum, stream, stream.record_event())

    def here(self) -> Tensor:
        """The spectrum for the present stream, which waits until it is there, and then holds it."""
        if self.stream is not None and self.made is not None:
            here = torch.cuda.current_stream(self.spectrum.device)
            if here != self.stream:
                here.wait_event(self.made)
                self.spectrum.record_stream(here)
        return self.spectrum

    @property
    def bytes(self) -> int:
        return self.spectrum.numel() * self.spectrum.element_size()


class SpectrumCache:
    """Spectra by layer, length, block and provider; the least used go first when room is short.

    A copied or pickled cache is empty. Several threads may use one, and several streams of a GPU.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._states: dict[int, FilterState] = {}
        self._spectra: OrderedDict[Key, _Kept] = OrderedDict()
        self._in_graphs: list[Tensor] = []

    def __deepcopy__(self, memo: object) -> SpectrumCache:
        return SpectrumCache()

    def __reduce__(self) -> tuple[type[SpectrumCache], tuple[()]]:
        return SpectrumCache, ()

    @property
    def bytes(self) -> int:
        """Memory of the spectra held."""
        with self._lock:
            return sum(kept.bytes for kept in self._spectra.values())

    def confirm(
        self, tables: FilterTables, trained: Sequence[Tensor], checked: dict[int, FilterState]
    ) -> None:
        """Drop the spectra of a layer whose filters may have changed since this pass checked them.

        checked: states by layer that the pass has found to hold; filled. Filters on a GPU are not
        looked at, which would wait for all its work: what this pass did not make or check is
        dropped.
        """
        with self._lock:
            state = self._states.get(tables.layer)
            if state is None or checked.get(tables.layer) is not state:
                on_gpu = trained[0].is_cuda
                if state is None or on_gpu or not state.holds(tables, trained):
                    values = None if on_gpu else [t.detach().clone() for t in trained]
                    state = self._replace(FilterState(tables, values))
                checked[tables.layer] = state

    def check_together(
        self, layers: Sequence[tuple[FilterTables, Sequence[Tensor]]]
    ) -> dict[int, FilterState]:
        """The states by layer of these tables and tensors, compared by one look at the device.

        Drops the spectra of all these layers if the filters of one have changed. While a CUDA graph
        is captured nothing can be looked at, and spectra that are there are taken to hold: capture
        it again when the filters have changed.
        """
        now = [torch.cat([t.detach().flatten() for t in trained]) for _, trained in layers]
        with self._lock:
            states = [self._states.get(tables.layer) for tables, _ in layers]
            known = [
                state
                for (tables, _), state in zip(layers, states, strict=True)
                if state is not None
                and state.values is not None
                and state.tables.identity == tables.identity
            ]
            if len(known) == len(layers):
                before = torch.cat([v for state in known for v in state.values or ()])
                after = torch.cat(now)
                if capturing(after.device):
                    same = True
                else:
                    same = _alike(before, after) and torch.equal(before, after)
                if same:
                    return {state.tables.layer: state for state in known}
            return {
                # a graph writes its values anew at every replay: they say nothing of later passes
                tables.layer: self._replace(
                    FilterState(tables, None if capturing(values.device) else [values])
                )
                for (tables, _), values in zip(layers, now, strict=True)
            }

    def _replace(self, state: FilterState) -> FilterState:
        """The new state of its layer, without spectra."""
        for key in [k for k in self._spectra if k[0] == state.tables.layer]:
            del self._spectra[key]
        self._states[state.tables.layer] = state
        return state

    def get(self, key: Key) -> Tensor | None:
        """The spectrum of a key that starts with the layer, if it is there.

        One that a CUDA graph is captured with stays in memory as long as this cache: the graph will
        read it there, whatever is dropped.
        """
        with self._lock:
            found = self._spectra.get(key)
            if found is None:
                return None
            self._spectra.move_to_end(key)
            if self._in_inference_graph(key, found.spectrum):
                self._in_graphs.append(found.spectrum)
                return found.spectrum
            return found.here()

    def put(self, key: Key, spectrum: Tensor, limit: int) -> None:
        """Keep a spectrum within `limit` bytes in all.

        Not one of inference that is captured in a CUDA graph: there is nothing in it before the
        graph is replayed.
        """
        with self._lock:
            if not self._in_inference_graph(key, spectrum):
                self._spectra[key] = _Kept.of(spectrum)
                self.shrink(limit)

    def _in_inference_graph(self, key: Key, spectrum: Tensor) -> bool:
        """Spectra of training, whose states have no values, serve their own pass alone."""
        state = self._states.get(key[0])
        return state is not None and state.values is not None and capturing(spectrum.device)

    def shrink(self, limit: int) -> None:
        """Drop the least used spectra until `limit` bytes are left at most."""
        with self._lock:
            held = self.bytes
            while held > limit:
                held -= self._spectra.popitem(last=False)[1].bytes


class LayerSpectra:
    """The spectra of one layer in one pass, block by block. What is cached has been checked."""

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

    @property
    def hidden(self) -> Tensor:
        """Output of the filter network's last sine, (L, F), computed when first asked for."""
        if self._hidden is None:
            length = len(self.tables.window.t)
            with no_tf32(self.tables.z.device):
                self._hidden = self.kernels.hidden(self.network, self.tables.z[0], length)
        return self._hidden

    def __call__(self, channels: slice) -> Tensor:
        """The spectrum of a block of channels."""
        if not self.limit:
            return self._compute(channels, kept=False)
        length = len(self.tables.window.t)
        dtype = self.weights.last_weight.dtype
        key: Key = (
            self.tables.layer, length, channels.start, channels.stop, self.kernels.layout, dtype,
        )  # fmt: skip
        spectrum = self.cache.get(key)
        if spectrum is None:
            spectrum = self._compute(channels, kept=True)
            self.cache.put(key, spectrum, self.limit)
        return spectrum

    def _compute(self, channels: slice, *, kept: bool) -> Tensor:
        window = self.tables.window
        with no_tf32(window.t.device):
            return self.kernels.spectrum(self.hidden, self.weights, window, channels, kept=kept)


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
