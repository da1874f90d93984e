"""K-mers of many sequences at once, the same on both strands, and sketches of them.

A k-mer of 16 bases is a 32-bit number, two bits a base; it and its reverse complement are one
(the smaller number). Windows with N or [SEP] in them have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import A, Ids, T
from hyenadna.data.strata import random_bits

K: Final = 16
"""Bases of a k-mer: a 500 bp sequence shares one with an unrelated one once in 10,000 pairs."""

_BASES_AT_ONCE: Final = 1 << 21
_SKETCH_SEED: Final = 16

UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]


def canonical_kmers(ids: Ids) -> tuple[UInt32s, npt.NDArray[np.bool_]]:
    """(number of the k-mer that begins at each base, whether there is one): (max(L - 15, 0),) each.

    ids: token ids, any shape (L,).
    """
    base = ids - np.uint8(A)  # specials wrap around: over 3, like N
    known = base <= T - A
    # four doublings: 2, 4, 8, 16 bases
    ahead, back = base.astype(np.uint32) & 3, ~base.astype(np.uint32) & 3
    for width in (1, 2, 4, 8):
        if len(known) <= width:
            return np.empty(0, np.uint32), np.empty(0, np.bool_)
        shift = np.uint32(2 * width)
        ahead = (ahead[:-width] << shift) | ahead[width:]
        back = (back[width:] << shift) | back[:-width]
        known = known[:-width] & known[width:]
    return np.minimum(ahead, back), known


def kmer_sets(sequences: Sequence[Ids]) -> Iterator[tuple[int, UInt64s]]:
    """The different k-mers of the sequences, some sequences at a time.

    Yields (index of the first sequence, sorted keys): a key is the sequence's number in the block,
    from 0, in the upper 32 bits, and the k-mer in the lower.
    """
    for first, stop in _blocks(sequences):
        yield first, kmer_keys(sequences[first:stop])


def kmer_keys(sequences: Sequence[Ids]) -> UInt64s:
    """Sorted keys of the different k-mers of a few sequences, as in `kmer_sets`."""
    if not sequences:
        return np.empty(0, dtype=np.uint64)
    # a separator that is no base stands behind each sequence
    apart = np.zeros(1, dtype=np.uint8)
    joined = np.concatenate([part for ids in sequences for part in (ids, apart)])
    kmers, known = canonical_kmers(joined)
    lengths = np.array([len(ids) + 1 for ids in sequences])
    owner = np.repeat(np.arange(len(sequences), dtype=np.uint64), lengths)[: len(kmers)]
    keys = (owner[known] << np.uint64(32)) | kmers[known]
    keys.sort()  # np.unique would hash them: 50 times slower
    return keys[np.flatnonzero(np.diff(keys, prepend=~keys[:1]))]


def sample(keys: UInt64s, fraction: float) -> UInt64s:
    """The keys whose k-mer is in a fixed random fraction of all k-mers, in the same order."""
    kmers = keys & np.uint64(0xFFFFFFFF)
    if fraction >= 1:
        return keys
    return keys[kmer_order(kmers) < np.uint64(fraction * 2.0**64)]


def kmer_order(kmers: UInt64s) -> UInt64s:
    """A random number for each k-mer, always the same."""
    return random_bits(_SKETCH_SEED, kmers)


def _blocks(sequences: Sequence[Ids]) -> Iterator[tuple[int, int]]:
    """Bounds of runs of sequences of about `_BASES_AT_ONCE` bases, at least one each."""
    first, bases = 0, 0
    for i, ids in enumerate(sequences):
        bases += len(ids) + 1
        if bases >= _BASES_AT_ONCE:
            yield first, i + 1
            first, bases = i + 1, 0
    if first < len(sequences):
        yield first, len(sequences)
