"""Sequences that are the same, on either strand, or nearly so.

Two sequences are near duplicates where the smaller set of different 16-mers, counted on both
strands, is at least half contained in the other: windows that overlap by half, or copies that
differ in less than about 4 % of their bases (0.96^16 = 0.5). Sets under 8 k-mers are left out: a
run of one letter says nothing.

Pairs are nominated by sketches (a random fraction of all k-mers, the same for all sequences: Broder
1997; Ondov et al. 2016, 10.1186/s13059-016-0997-x). A sequence of which that leaves too little adds
its first 32 k-mers in a random order, and these are looked for in all others. What is nominated is
counted exactly, until what was asked is known: whether a sequence has any near duplicate among
others, or which sequences hang together. So a family of a thousand copies costs a few counts a
sequence, not a million pairs: each is first held against a few of those that share a sketched
k-mer, and only one for which that was not enough against more, in the end against all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import Ids
from hyenadna.data.kmers import UInt64s, kmer_keys, kmer_order, kmer_sets, sample
from hyenadna.data.labelled_data import other_strand

NEAR_THRESHOLD: Final = 0.5
"""Share of the smaller set of k-mers that makes a near duplicate."""
FEWEST_KMERS: Final = 8
_SKETCH_SIZE: Final = 32  # k-mers of a short sequence that are in its sketch
_SHORT: Final = 0.1  # quantile of the lengths that counts as short
_FEWEST_SKETCHED: Final = 16  # of a set; where fewer are expected, the sketch is made larger
_MOST_SKETCHED: Final = 1 << 26  # of all sequences by the fraction, about: a GiB
_FILTER_BITS: Final = 22
_WIDTHS: Final = (4, 64, 1024, 1 << 31)  # owners of a k-mer that a sequence is held against
_MOST_HITS: Final = 1 << 26  # shared k-mers that are counted in one turn, at most
_HITS_AT_ONCE: Final = 1 << 21
_COMPARED_AT_ONCE: Final = 1 << 25  # k-mers, of the second sequences of some pairs
_KMERS_AT_ONCE: Final = 1 << 22
_MOST_KMERS: Final = 1 << 30  # that are sorted for one answer, about: a minute on one core
_COMPARED: Final = 8  # k-mers that are looked up in the time that one is sorted in, at least
_FEW: Final = (0, 1, 4, 16, 1 << 31)  # candidates of a sequence that are counted at once: the best
_DEVIATIONS: Final = 4.0  # that hits may lie below what is expected at the threshold

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Same:
    """Which sequences are one and the same."""

    number: Int64s
    """(n,): the same number where letters are the same; 0, 1, … in order of appearance."""
    strandless: Int64s
    """(n,): the same number where letters are the same on either strand: that of the first."""


@dataclass(frozen=True, eq=False)
class Between:
    """Which sequences have a near duplicate among others."""

    one: Bools
    """(n,): sequences of the first set with a near duplicate in the second."""
    other: Bools
    """(n,): sequences of the second set with a near duplicate in the first."""
    complete: bool
    """False where families are so large, or sequences so long, that not all pairs were met."""


@dataclass(frozen=True, eq=False)
class Families:
    """Sequences that hang together by near duplicates."""

    number: Int64s
    """(n,): the same number where they do: the smallest index in the family."""
    complete: bool
    """False where families are so large, or sequences so long, that not all pairs were met."""


def same_sequences(sequences: Sequence[Ids]) -> Same:
    """Which sequences have the same letters, and which have them on the other strand."""
    first: dict[bytes, int] = {}
    number = np.empty(len(sequences), dtype=np.int64)
    opposite: list[bytes] = []
    for i, ids in enumerate(sequences):
        number[i] = first.setdefault(ids.tobytes(), len(first))
        if number[i] == len(opposite):
            opposite.append(other_strand(ids).tobytes())
    of_distinct = np.array(
        [min(k, first.get(other, k)) for k, other in enumerate(opposite)], dtype=np.int64
    )
    return Same(number, of_distinct[number] if len(number) else number)


class NearDuplicates:
    """The near duplicates among sequences that should all be different.

    threshold: share of the smaller set of k-mers, in (0, 1].
    About 5 s for 100,000 sequences of 500 bases on one core, and 16 bytes for each sketched k-mer.
    """

    def __init__(self, sequences: Sequence[Ids], threshold: float = NEAR_THRESHOLD) -> None:
        self._sequences, self._threshold = sequences, threshold
        self._counted = 0  # k-mers that the counts of an answer cost
        owners, kmers, self._sizes, self._sketched = _sketches(sequences)
        # in the order of their least sketched k-mers near duplicates stand side by side
        least = np.full(len(sequences), np.iinfo(np.uint64).max, dtype=np.uint64)
        np.minimum.at(least, owners, kmer_order(kmers))
        self._rank = np.empty(len(sequences), dtype=np.int64)
        self._rank[np.argsort(least, kind="stable")] = np.arange(len(sequences))
        # what one sequence alone has tells nothing
        order = np.argsort(kmers, kind="stable")
        owners, kmers = owners[order], kmers[order]
        known = np.diff(kmers, prepend=~kmers[:1]) == 0
        shared = known | np.append(known[1:], False)
        bucket = np.cumsum(~known)[shared]
        owners = owners[shared]
        # entries: (number of the k-mer, its owner), by k-mer and rank
        order = np.argsort((bucket << 32) | self._rank[owners], kind="stable")
        self._bucket, self._owner = bucket[order], owners[order]

    def between(self, one: Bools, other: Bools, *, turns: int = len(_WIDTHS)) -> Between:
        """Which of the sequences `one` have a near duplicate among `other`, and the reverse.

        one, other: (n,) bool; a sequence that is in both is no duplicate of itself. turns: how
        often those without one are held against more of the others; fewer find less.
        """
        found = np.zeros((2, len(self._sequences)), dtype=bool)
        self._counted = 0
        sides = (np.asarray(one), np.asarray(other))
        complete, whole = self._flag(sides, found, turns)
        if not whole:
            complete &= self._flag(sides[::-1], found[::-1], turns)[0]
        return Between(found[0], found[1], complete)

    def families(self) -> Families:
        """Which sequences hang together by near duplicates."""
        family = np.arange(len(self._sequences), dtype=np.int64)
        complete, self._counted = True, 0
        for width in _WIDTHS:
            owner, low, high, targets = self._of_other_families(family)
            low, complete = _narrowed(low, high, width)
            for first, second, hits in _hits(owner, low, high, targets):
                for a, b in self._candidates(first, second, hits):
                    apart = family[a] != family[b]
                    if self._counted >= _MOST_KMERS:
                        return Families(family, complete=False)
                    a, b = self._near(a[apart], b[apart])
                    family = components(len(family), family[a], family[b])[family]
            if complete:
                break
        return Families(family, complete)

    def _flag(
        self, sides: tuple[Bools, Bools], found: npt.NDArray[np.bool_], turns: int
    ) -> tuple[bool, bool]:
        """(whether no near duplicate of the first side is missed, whether all pairs were met).

        found: (2, n), what is known of both sides; is added to.
        """
        mine, theirs = sides[0][self._owner], sides[1][self._owner]
        keys = (self._bucket[theirs] << 32) | self._rank[self._owner[theirs]]
        targets = self._owner[theirs]
        complete = True
        for turn, width in enumerate(_WIDTHS[:turns]):
            todo = mine & ~found[0][self._owner]
            bucket, owner = self._bucket[todo], self._owner[todo]
            low, high = np.searchsorted(keys, bucket << 32), np.searchsorted(keys, bucket + 1 << 32)
            at = np.searchsorted(keys, (bucket << 32) | self._rank[owner])
            low, high, complete = _around(low, at, high, width)
            whole = complete and turn == 0  # then both sides are known when all is done
            for first, second, hits in _hits(owner, low, high, targets):
                for a, b in self._candidates(first, second, hits):
                    open_ = ~found[0][a] | (whole & ~found[1][b])
                    if self._counted >= _MOST_KMERS:
                        return False, False
                    a, b = self._near(a[open_], b[open_])
                    found[0][a] = found[1][b] = True
            if complete:
                return True, whole
        return complete, False

    def _of_other_families(self, family: Int64s) -> tuple[Int64s, Int64s, Int64s, Int64s]:
        """(owner, low, high, targets): those of larger families behind each entry of a k-mer."""
        size = np.bincount(family, minlength=len(family))[family]
        order = np.lexsort((self._rank, family, size))
        starts = np.diff(family[order], prepend=-1) != 0
        place = np.empty(len(family), dtype=np.int64)
        place[order] = np.cumsum(starts)
        keys = (self._bucket << 32) | place[self._owner]
        order = np.argsort(keys, kind="stable")
        keys, owner = keys[order], self._owner[order]
        low = np.searchsorted(keys, keys, side="right")
        high = np.searchsorted(keys, (keys >> 32) + 1 << 32)
        return owner, low, high, owner

    def _candidates(
        self, first: Int64s, second: Int64s, hits: Int64s
    ) -> Iterator[tuple[Int64s, Int64s]]:
        """The pairs that may be near duplicates, the best of each `first` before the rest."""
        enough = np.minimum(self._sizes[first], self._sizes[second]) >= FEWEST_KMERS
        smaller = np.minimum(self._sketched[first], self._sketched[second])
        share = self._threshold
        chance = _DEVIATIONS * np.sqrt(share * (1 - share) * smaller)
        likely = np.flatnonzero(enough & (hits >= share * smaller - chance))
        order = likely[np.lexsort((-hits[likely] / smaller[likely], first[likely]))]
        starts = np.diff(first[order], prepend=-1) != 0
        nth = np.arange(len(order)) - np.flatnonzero(starts)[np.cumsum(starts) - 1]
        for low, high in pairwise(_FEW):
            chosen = order[(low <= nth) & (nth < high)]
            turns = np.cumsum(self._sizes[second[chosen]]) // _COMPARED_AT_ONCE
            for some in np.split(chosen, np.flatnonzero(np.diff(turns)) + 1):
                if len(some):
                    yield first[some], second[some]

    def _near(self, first: Int64s, second: Int64s) -> tuple[Int64s, Int64s]:
        """Those of some pairs that are near duplicates; pairs are sorted by `first`."""
        shared = self._shared(first, second)
        smaller = np.minimum(self._sizes[first], self._sizes[second])
        near = shared >= self._threshold * smaller
        return first[near], second[near]

    def _shared(self, first: Int64s, second: Int64s) -> Int64s:
        """How many different k-mers the sequences of each pair share; sorted by `first`."""
        if not len(first):
            return first
        needed = np.unique(np.concatenate([first, second]))
        if len(first) > 1 and self._sizes[needed].sum() > _KMERS_AT_ONCE:
            half = len(first) // 2
            parts = (
                self._shared(first[:half], second[:half]),
                self._shared(first[half:], second[half:]),
            )
            return np.concatenate(parts)
        compared = int(self._sizes[second].sum())
        self._counted += int(self._sizes[needed].sum()) + compared // _COMPARED
        keys = kmer_keys([self._sequences[i] for i in needed.tolist()])
        ends = np.searchsorted(keys, np.arange(len(needed) + 1, dtype=np.uint64) << np.uint64(32))
        # numbers without gaps, so that a set is a row of a table
        kmers, dense = np.unique(keys & np.uint64(0xFFFFFFFF), return_inverse=True)
        sets = [dense[ends[i] : ends[i + 1]] for i in range(len(needed))]
        at, other = np.searchsorted(needed, first), np.searchsorted(needed, second)
        return _count_shared(sets, len(kmers), at, other)


def components(count: int, first: Int64s, second: Int64s) -> Int64s:
    """Number of the connected component of each of `count` things: the smallest index in it.

    first, second: indices of things that are linked.
    """
    parent = np.arange(count, dtype=np.int64)
    while True:
        # every root that has a link to a smaller one joins it; then all paths are shortened
        low, high = np.minimum(parent[first], parent[second]), np.maximum(
            parent[first], parent[second]
        )  # fmt: skip
        if (low == high).all():
            return parent
        np.minimum.at(parent, high, low)
        while (parent[parent] != parent).any():
            parent = parent[parent]


def _sketches(sequences: Sequence[Ids]) -> tuple[Int64s, UInt64s, Int64s, Int64s]:
    """(owner, k-mer) of each sketched k-mer; how many k-mers each sequence has, and how many of
    them are a random part of its own.

    What two sequences share of the random part of the smaller one is always among the sketched.
    """
    sizes, sketched = np.zeros((2, len(sequences)), dtype=np.int64)
    fraction = _fraction(sequences)
    owners, kmers = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    wanted = [np.empty(0, np.uint64)]
    for start, keys in kmer_sets(sequences):
        owner = (keys >> np.uint64(32)).astype(np.int64)
        counts = np.bincount(owner)
        block = slice(start, start + len(counts))
        sizes[block] = counts
        chosen = sample(keys, fraction)
        owners.append((chosen >> np.uint64(32)).astype(np.int64) + start)
        kmers.append(chosen & np.uint64(0xFFFFFFFF))
        short = (counts * fraction < _FEWEST_SKETCHED) & (fraction < 1)
        sketched[block] = np.bincount(owners[-1] - start, minlength=len(counts))
        sketched[block][short] = np.minimum(counts[short], _SKETCH_SIZE)
        wanted.append(_first_kmers(keys[short[owner]]))
    for more, some in _holders(sequences, np.unique(np.concatenate(wanted)), fraction):
        owners.append(more)
        kmers.append(some)
    return np.concatenate(owners), np.concatenate(kmers), sizes, sketched


def _fraction(sequences: Sequence[Ids]) -> float:
    """Share of all k-mers that is sketched: _SKETCH_SIZE of a short sequence, and not too many."""
    lengths = np.array([len(ids) for ids in sequences] or [1])
    short = max(float(np.quantile(lengths, _SHORT)), 1.0)
    return min(1.0, _SKETCH_SIZE / short, _MOST_SKETCHED / max(int(lengths.sum()), 1))


def _first_kmers(keys: UInt64s) -> UInt64s:
    """The k-mers of each sequence's _SKETCH_SIZE first keys in random order (all of a few)."""
    owner, kmers = keys >> np.uint64(32), keys & np.uint64(0xFFFFFFFF)
    order = np.lexsort((kmer_order(kmers), owner))
    nth = np.arange(len(keys)) - np.searchsorted(owner, owner)  # owners are sorted
    return kmers[order[nth < _SKETCH_SIZE]]


def _holders(
    sequences: Sequence[Ids], wanted: UInt64s, fraction: float
) -> Iterator[tuple[Int64s, UInt64s]]:
    """(owner, k-mer) of all k-mers that are wanted and not in the fraction; some at a time.

    wanted: sorted.
    """
    wanted = wanted[~np.isin(wanted, sample(wanted, fraction), assume_unique=True)]
    if not len(wanted):
        return
    low_bits = np.uint64((1 << _FILTER_BITS) - 1)
    may = np.zeros(1 << _FILTER_BITS, dtype=bool)  # spares most k-mers the search
    may[wanted & low_bits] = True
    for start, keys in kmer_sets(sequences):
        some = keys[may[keys & low_bits]]
        kmers = some & np.uint64(0xFFFFFFFF)
        at = np.minimum(np.searchsorted(wanted, kmers), len(wanted) - 1)
        held = wanted[at] == kmers
        yield (some[held] >> np.uint64(32)).astype(np.int64) + start, kmers[held]


def _narrowed(low: Int64s, high: Int64s, width: int) -> tuple[Int64s, bool]:
    """(new `low`: at most `width` from the end, fewer where all together are too many; whether
    nothing is left out)."""
    width = _affordable(high - low, width)
    return np.maximum(low, high - width), bool((high - low <= width).all())


def _around(low: Int64s, at: Int64s, high: Int64s, width: int) -> tuple[Int64s, Int64s, bool]:
    """(low, high, whether nothing is left out): at most `width` around `at`, as in `_narrowed`."""
    width = _affordable(high - low, width)
    begin = np.clip(at - width // 2, low, np.maximum(low, high - width))
    return begin, np.minimum(begin + width, high), bool((high - low <= width).all())


def _affordable(counts: Int64s, width: int) -> int:
    """`width`, or the largest half, quarter, … of it with which no more than _MOST_HITS are met."""
    width = min(width, int(counts.max(initial=1)))
    while width > 1 and np.minimum(counts, width).sum() > _MOST_HITS:
        width //= 2
    return max(width, 1)


def _hits(
    owner: Int64s, low: Int64s, high: Int64s, targets: Int64s
) -> Iterator[tuple[Int64s, Int64s, Int64s]]:
    """(first, second, k-mers in which they meet) of each pair, sorted by first; some at a time.

    owner: sequence of each entry, that meets targets[low:high].
    """
    order = np.argsort(owner, kind="stable")
    order = order[high[order] > low[order]]
    owner, low, counts = owner[order], low[order], (high - low)[order]
    ends = np.cumsum(counts)
    edges = np.append(np.flatnonzero(np.diff(owner)) + 1, len(owner))
    start = 0
    while start < len(owner):
        met = ends[edges - 1] - (ends[start - 1] if start else 0)
        whole = edges[(edges > start) & (met <= _HITS_AT_ONCE)]
        stop = int(whole[-1]) if len(whole) else int(edges[edges > start][0])
        n = counts[start:stop]
        within = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
        first = np.repeat(owner[start:stop], n)
        second = targets[within + np.repeat(low[start:stop], n)]
        apart = first != second
        keys, hits = np.unique((first[apart] << 32) | second[apart], return_counts=True)
        yield keys >> 32, keys & 0xFFFFFFFF, hits
        start = stop


def _count_shared(sets: Sequence[Int64s], kmers: int, first: Int64s, second: Int64s) -> Int64s:
    """Size of the intersection of each pair of sets of numbers below `kmers`."""
    counts = np.empty(len(first), dtype=np.int64)
    edges = np.flatnonzero(np.diff(first, prepend=-1, append=-1))
    mine = np.zeros(kmers, dtype=bool)
    for start, stop in pairwise(edges.tolist()):
        mine[sets[int(first[start])]] = True
        others = [sets[j] for j in second[start:stop].tolist()]
        total = np.concatenate([[0], np.cumsum(mine[np.concatenate(others)])])
        ends = np.cumsum([len(other) for other in others])
        counts[start:stop] = np.diff(total[ends], prepend=0)
        mine[sets[int(first[start])]] = False
    return counts
