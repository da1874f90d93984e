"""Sequences that are cut from genomes only when they are asked for.

A million windows of a million bases are 10^12 bases; their places are a few arrays. `GenomeWindows`
is a sequence of token ids like any other (`windows[i]`, `len(windows)`), so batches, baselines and
predictions read it without knowing. `WindowedData` is labelled data over such windows, whose parts
are made without reading a base.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self, cast, overload

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import Ids, N, reverse_complement_ids
from hyenadna.data.labelled_data import Index, LabelledData, Targets, Task
from hyenadna.errors import InputError
from hyenadna.genome.fasta import GenomeReader

Int64s = npt.NDArray[np.int64]


class ContigSource(NamedTuple):
    """One contig to cut from."""

    genome: GenomeReader
    contig: str

    @property
    def length(self) -> int:
        """Bases of the contig."""
        return self.genome.contigs[self.contig]


class GenomeWindows(Sequence[Ids]):
    """Windows over contigs as a sequence of token ids, each uint8 (stop - start,), read on demand.

    sources: the contigs. source: index of the contig of each window, (n,). start, stop: its bases
    start .. stop - 1, 0-based; what lies outside of the contig is N, so that the window keeps its
    length. reverse: whether it is read from the other strand, (n,) bool; none when left out.

    Raises InputError for arrays of different lengths, a source that is not there, stop before
    start, and a window that has no base on its contig.
    """

    def __init__(
        self,
        sources: Sequence[ContigSource],
        source: npt.ArrayLike,
        start: npt.ArrayLike,
        stop: npt.ArrayLike,
        reverse: npt.ArrayLike | None = None,
    ) -> None:
        self.sources = tuple(sources)
        self.source = np.asarray(source, dtype=np.int64).reshape(-1)
        self.start = np.asarray(start, dtype=np.int64).reshape(-1)
        self.stop = np.asarray(stop, dtype=np.int64).reshape(-1)
        none = np.zeros(len(self.source), dtype=np.bool_)
        self.reverse = none if reverse is None else np.asarray(reverse, dtype=np.bool_).reshape(-1)
        self._check()

    def _check(self) -> None:
        sizes = {len(self.source), len(self.start), len(self.stop), len(self.reverse)}
        if len(sizes) > 1:
            raise InputError(
                f"windows: source, start, stop and reverse have {sorted(sizes)} entries; "
                "give one each for every window"
            )
        if not len(self):
            return
        if self.source.min() < 0 or self.source.max() >= len(self.sources):
            raise InputError(
                f"windows: a source is outside of 0 .. {len(self.sources) - 1}, the contigs given"
            )
        ends = np.array([source.length for source in self.sources], dtype=np.int64)[self.source]
        bad = (self.start >= self.stop) | (self.stop <= 0) | (self.start >= ends)
        if bad.any():
            at = int(bad.argmax())
            where = self.sources[self.source[at]]
            raise InputError(
                f"window {at + 1}: bases {self.start[at]}..{self.stop[at]} (from 0) of "
                f"{where.contig} in {where.genome.path}, which has {ends[at]} - is it on another "
                "assembly?"
            )

    def __len__(self) -> int:
        return len(self.source)

    @property
    def lengths(self) -> Int64s:
        """Bases of each window, (n,), known without reading any."""
        return self.stop - self.start

    @property
    def contigs(self) -> tuple[str, ...]:
        """Contig of each window."""
        return tuple(self.sources[i].contig for i in self.source.tolist())

    @overload
    def __getitem__(self, index: int) -> Ids: ...
    @overload
    def __getitem__(self, index: slice) -> GenomeWindows: ...
    def __getitem__(self, index: int | slice) -> Ids | GenomeWindows:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        genome, contig = self.sources[self.source[index]]
        start, stop = int(self.start[index]), int(self.stop[index])
        inside = max(start, 0), min(stop, genome.contigs[contig])
        ids = genome.tokens(contig, *inside)
        if inside != (start, stop):
            whole = np.full(stop - start, N, dtype=np.uint8)
            whole[inside[0] - start : inside[1] - start] = ids
            ids = whole
        return reverse_complement_ids(ids) if self.reverse[index] else ids

    def take(self, index: npt.ArrayLike) -> GenomeWindows:
        """The windows of an integer index or a mask, in its order; nothing is read."""
        index = np.asarray(index)
        arrays = (self.source, self.start, self.stop, self.reverse)
        return GenomeWindows(self.sources, *(array[index] for array in arrays))

    def resized(self, length: int | Int64s) -> GenomeWindows:
        """The same windows widened or narrowed about their middles to `length` bases (each).

        An odd difference puts the extra base behind (in front, where the strand is reversed).

        Raises InputError for a length below 1.
        """
        if np.min(length) < 1:
            raise InputError(f"windows: length is {np.min(length)}; it must be at least 1")
        extra = length - self.lengths
        half = np.sign(extra) * (np.abs(extra) // 2)
        front = np.where(self.reverse, extra - half, half)
        start = self.start - front
        return GenomeWindows(self.sources, self.source, start, start + length, self.reverse)


@dataclass(frozen=True, eq=False)
class WindowedData(LabelledData):
    """Labelled data whose sequences are `GenomeWindows`: parts are made without reading a base."""

    @classmethod
    def of(
        cls,
        name: str,
        windows: GenomeWindows,
        targets: Targets,
        task: Task,
        splits: Sequence[str] | npt.NDArray[np.str_],
        *,
        ids: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        notes: Sequence[str] = (),
    ) -> Self:
        """Labelled data over windows, `contig:first-last` (from 1) and a number as ids by default.

        Raises InputError where the fields are not all of one length.
        """
        return cls(
            name,
            cast(Any, windows),  # a Sequence[Ids] that reads on demand, where others hold a tuple
            targets,
            task,
            np.asarray(splits, dtype=np.str_),
            _window_names(windows) if ids is None else tuple(ids),
            windows.contigs if groups is None else tuple(groups),
            tuple(notes),
        )

    @property
    def windows(self) -> GenomeWindows:
        """The sequences, as what they are."""
        return cast(GenomeWindows, self.sequences)

    @property
    def lengths(self) -> Int64s:
        """Bases of each window, (n,), known without reading any."""
        return self.windows.lengths

    def middle(self, most: int) -> Self:
        """See `LabelledData.middle`; no base is read."""
        if isinstance(self.targets, tuple):
            return super().middle(most)
        narrow = self.windows.resized(np.minimum(self.lengths, most))
        return replace(self, sequences=cast(Any, narrow))

    def select(self, index: Index) -> Self:
        """The rows of an index (integers, or a bool for each row), in its order; none is read."""
        given: npt.NDArray[Any] = np.asarray(index)
        rows = np.flatnonzero(given) if given.dtype == np.bool_ else given.astype(np.int64)
        chosen, targets = rows.tolist(), self.targets
        return replace(
            self,
            sequences=cast(Any, self.windows.take(rows)),
            targets=tuple(targets[i] for i in chosen)
            if isinstance(targets, tuple)
            else targets[rows],
            splits=self.splits[rows],
            ids=tuple(self.ids[i] for i in chosen),
            groups=None if self.groups is None else tuple(self.groups[i] for i in chosen),
        )


def _window_names(windows: GenomeWindows) -> tuple[str, ...]:
    places = zip(windows.contigs, (windows.start + 1).tolist(), windows.stop.tolist(), strict=True)
    return tuple(f"{i}|{contig}:{a}-{b}" for i, (contig, a, b) in enumerate(places, start=1))
