"""Sequences that are the same, on either strand, or nearly so.

Two sequences are near duplicates where the smaller set of different 16-mers, counted on both
strands, is at least half contained in the other: windows that overlap by half, or copies that
differ in less than about 4 % of their bases (0.96^16 = 0.5). Sets under 8 k-mers are left out: a
run of one letter says nothing. Pairs are nominated by sketches (a random fraction of all k-mers,
the same for all sequences: Broder 1997; Ondov et al. 2016, 10.1186/s13059-016-0997-x), and every
nominated pair is counted exactly. A k-mer of a repeat family links each sequence only with those
next to it in the order of their sketches, so that work grows with the number of sequences, not with
its square; large families keep together, but not each of their pairs is found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
_SHORT: Final = 0.1  # quantile of the set sizes that counts as short
_NEIGHBOURS: Final = 16
_PAIRS_AT_ONCE: Final = 1 << 14

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Same:
    """Which sequences are one and the same."""

    number: Int64s
    """(n,): the same number where letters are the same; 0, 1, … in order of appearance."""
    strandless: Int64s
    """(n,): the same number where letters are the same on either strand: that of the first."""


@dataclass(frozen=True, eq=False)
class NearPairs:
    """Pairs of near duplicates among some sequences: first < second."""

    first: Int64s
    second: Int64s
    containment: npt.NDArray[np.float64]
    """Shared k-mers over those of the smaller set, NEAR_THRESHOLD .. 1."""


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


def near_pairs(sequences: Sequence[Ids], threshold: float = NEAR_THRESHOLD) -> NearPairs:
    """The near duplicates among sequences that should all be different.

    About 10 s for 100,000 sequences of 500 bases on one core, and 16 bytes for each sketched k-mer.
    """
    owners, kmers, sizes = _sketches(sequences)
    first, second, hits = _nominated(owners, kmers)
    sketched = np.bincount(owners, minlength=len(sequences))
    smaller = np.minimum(sketched[first], sketched[second])
    enough = np.minimum(sizes[first], sizes[second]) >= FEWEST_KMERS
    # half the threshold leaves room for chance: 16 hits are expected at it, 8 nominate
    likely = enough & (hits >= 0.5 * threshold * smaller)
    first, second = first[likely], second[likely]
    shared = np.concatenate(
        [np.empty(0, np.int64), *_shared_counts(sequences, first, second)], dtype=np.int64
    )
    containment = shared / np.minimum(sizes[first], sizes[second])
    near = containment >= threshold
    return NearPairs(first[near], second[near], containment[near])


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


def _sketches(sequences: Sequence[Ids]) -> tuple[Int64s, UInt64s, Int64s]:
    """(owner, k-mer) of each sketched k-mer, and how many k-mers each sequence has."""
    sizes = np.zeros(len(sequences), dtype=np.int64)
    lengths = np.array([len(ids) for ids in sequences] or [1])
    short = max(float(np.quantile(lengths, _SHORT)), 1.0)
    fraction = min(1.0, _SKETCH_SIZE / short)
    owners, kmers = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    for start, keys in kmer_sets(sequences):
        counts = np.bincount((keys >> np.uint64(32)).astype(np.int64))
        sizes[start : start + len(counts)] = counts
        chosen = sample(keys, fraction)
        owners.append((chosen >> np.uint64(32)).astype(np.int64) + start)
        kmers.append(chosen & np.uint64(0xFFFFFFFF))
    return np.concatenate(owners), np.concatenate(kmers), sizes


def _nominated(owners: Int64s, kmers: UInt64s) -> tuple[Int64s, Int64s, Int64s]:
    """(first, second, sketched k-mers that they are seen to share) of each pair, first < second."""
    if not len(owners):
        empty = np.empty(0, dtype=np.int64)
        return empty, empty, empty
    # sequences in the order of their least sketched k-mer: near duplicates stand side by side
    least = np.full(int(owners.max()) + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(least, owners, kmer_order(kmers))
    rank = np.empty(len(least), dtype=np.int64)
    rank[np.argsort(least, kind="stable")] = np.arange(len(least))
    order = np.argsort((kmers << np.uint64(32)) | rank[owners].astype(np.uint64), kind="stable")
    owners, kmers = owners[order], kmers[order]
    pairs = [np.empty(0, np.uint64)]
    for step in range(1, min(_NEIGHBOURS, len(kmers) - 1) + 1):
        together = kmers[step:] == kmers[:-step]
        one, other = owners[:-step][together], owners[step:][together]
        low, high = np.minimum(one, other), np.maximum(one, other)
        pairs.append((low.astype(np.uint64) << np.uint64(32)) | high.astype(np.uint64))
    keys, hits = np.unique(np.concatenate(pairs), return_counts=True)
    first, second = keys >> np.uint64(32), keys & np.uint64(0xFFFFFFFF)
    return first.astype(np.int64), second.astype(np.int64), hits.astype(np.int64)


def _shared_counts(sequences: Sequence[Ids], first: Int64s, second: Int64s) -> Iterator[Int64s]:
    """How many different k-mers the sequences of each pair share; pairs are sorted by `first`."""
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        a, b = first[start : start + _PAIRS_AT_ONCE], second[start : start + _PAIRS_AT_ONCE]
        needed = np.unique(np.concatenate([a, b]))
        keys = kmer_keys([sequences[i] for i in needed.tolist()])
        bounds = np.searchsorted(keys, np.arange(len(needed) + 1, dtype=np.uint64) << np.uint64(32))
        kmers = keys & np.uint64(0xFFFFFFFF)
        sets = [kmers[bounds[i] : bounds[i + 1]] for i in range(len(needed))]
        yield _count_shared(sets, np.searchsorted(needed, a), np.searchsorted(needed, b))


def _count_shared(sets: Sequence[UInt64s], first: Int64s, second: Int64s) -> Int64s:
    counts = np.empty(len(first), dtype=np.int64)
    edges = np.flatnonzero(np.diff(first, prepend=-1, append=-1))
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        mine = sets[int(first[start])]
        others = [sets[j] for j in second[start:stop].tolist()]
        joined = np.concatenate(others)
        at = np.searchsorted(mine, joined)
        hit = mine[np.minimum(at, len(mine) - 1)] == joined
        ends = np.cumsum([len(other) for other in others])
        total = np.concatenate([[0], np.cumsum(hit)])
        counts[start:stop] = np.diff(total[ends], prepend=0)
    return counts
