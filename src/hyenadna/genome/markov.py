"""Interpolated Markov models of every order up to 12: the short-context yardstick.

A model of order k knows the base counts after each k-mer context. Sparse counts are mended by
interpolation with the next lower order (the form of Jelinek and Mercer, 1980, with the Dirichlet
weights of MacKay and Peto, 1995):

    p_k(x | c) = (n(c x) + a p_{k-1}(x | c')) / (n(c) + a),        p_{-1}(x) = 1/4

c' is the context c without its oldest base. The concentration a depends on the order, on how often
the context was seen (in octaves) and on how many different bases followed it (as in Witten and
Bell, 1991: a context with a single successor is mostly a repeat and to be trusted). Every a is
chosen on the training sequences alone, by leave-one-out likelihood: each training base is
predicted from the counts without itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import A, Ids, T
from hyenadna.errors import InputError

MAX_ORDER: Final = 12
# Bases handled at once: bounds the memory beside the tables themselves.
_CHUNK: Final = 1 << 21
# Contexts of the leave-one-out likelihood handled at once.
_CONTEXTS: Final = 1 << 18
# Buckets of contexts that share a concentration: octave of n(c) (0, 1, 2-3, 4-7, …) x number of
# different successors 0..4.
_OCTAVES: Final = 32
_BUCKETS: Final = _OCTAVES * 5
# Concentrations tried: 2^-8 … 2^16, in steps of half an octave.
_GRID: Final = 2.0 ** np.arange(-8, 16.5, 0.5)

Counts = npt.NDArray[np.integer]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
ContextLimit = int | npt.NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class MarkovModel:
    """Counts and concentrations of all orders 0 to `order`; made by `MarkovModel.fit`."""

    counts: tuple[Counts, ...]
    """counts[k][code] is how often the (k+1)-mer of that code was seen, shape (4**(k+1),). The code
    is the base-4 number of the k-mer, A C G T = 0..3, oldest base first."""
    concentrations: tuple[Float32, ...]
    """concentrations[k][bucket]: the weight a of the lower order, shape (160,)."""

    @property
    def order(self) -> int:
        """Highest order."""
        return len(self.counts) - 1

    @classmethod
    def fit(
        cls, sequences: Iterable[Ids], *, order: int = MAX_ORDER, both_strands: bool = True
    ) -> MarkovModel:
        """The model of all training sequences, each a uint8 token array of shape (L,).

        `order`: 0 to 12; the tables take 4^(order+1) * 16/3 bytes (357 MB at 12) and fitting about
        as much again. `both_strands` counts the reverse complement too. What is not A C G T breaks
        the context.

        Raises InputError for an order out of range or when there is no base to count.
        """
        if not 0 <= order <= MAX_ORDER:
            raise InputError(f"Markov model: order is {order}; give 0 to {MAX_ORDER}")
        counts = _count(sequences, order)
        if not counts[0].any():
            raise InputError("Markov model: the training sequences hold no base A C G T")
        if both_strands:
            for table in counts:
                table += _other_strand(table)
        return cls(tuple(counts), _choose_concentrations(counts))

    def all_orders(self, ids: Ids, *, context_limit: ContextLimit | None = None) -> Float32:
        """log2 probability of each base at every order: float32, shape (order + 1, L).

        Row k uses at most the k bases before: fewer at the start, after an N, and where
        `context_limit` allows fewer (one number, or one per base, shape (L,), such as the position
        in a window). nan where the base is not A C G T. ids: uint8 tokens, shape (L,).

        Raises InputError for a context limit below 0 or of another shape.
        """
        limit = _limits(context_limit, ids.size)
        out = np.full((self.order + 1, ids.size), np.nan, dtype=np.float32)
        for start, front, chunk in _chunks(ids, self.order):
            here = slice(start, start + chunk.size - front)
            out[:, here] = self._chunk(chunk, front, limit if limit is None else limit[here])
        return out

    def log2_probabilities(
        self, ids: Ids, order: int | None = None, *, context_limit: ContextLimit | None = None
    ) -> Float32:
        """log2 probability of each base given up to `order` bases before: float32, shape (L,).

        `order`: 0 to the order of the model, which it is when left out. The rest as `all_orders`.
        """
        order = self.order if order is None else order
        if not 0 <= order <= self.order:
            raise InputError(f"Markov model: order is {order}; it was fitted for 0 to {self.order}")
        lower = MarkovModel(self.counts[: order + 1], self.concentrations[: order + 1])
        return lower.all_orders(ids, context_limit=context_limit)[order]

    def bits_per_base(self, sequences: Iterable[Ids]) -> Float64:
        """Mean bits per base at each order over all bases A C G T of the sequences: (order + 1,).

        Raises InputError when there is no base.
        """
        total, bases = np.zeros(self.order + 1), 0
        for ids in sequences:
            # A chunk at a time: a chromosome of 250 Mb would take 13 GB at once.
            for _, front, chunk in _chunks(ids, self.order):
                log2 = self._chunk(chunk, front, None)
                total -= np.nansum(log2, axis=1, dtype=np.float64)
                bases += int(_is_base(chunk[front:]).sum())
        if not bases:
            raise InputError("Markov model: the sequences to evaluate hold no base A C G T")
        return total / bases

    def _chunk(self, chunk: Ids, front: int, limit: npt.NDArray[np.int64] | None) -> Float32:
        """`all_orders` of chunk[front:], the front being context."""
        base, depth = _bases_and_depth(chunk, self.order)
        kept = np.flatnonzero(_is_base(chunk[front:]))
        depth = depth[front:][kept]
        if limit is not None:
            depth = np.minimum(depth, limit[kept])
        p = np.full(kept.size, 0.25)
        code = np.zeros(kept.size, dtype=np.int64)
        out = np.full((self.order + 1, chunk.size - front), np.nan, dtype=np.float32)
        active = np.arange(kept.size)
        for k in range(self.order + 1):
            # Positions without k bases of context keep the probability of the order below.
            active = active[depth[active] >= k]
            code[active] += base[kept[active] + front - k] << (2 * k)
            p[active] = self._interpolate(k, code[active], p[active])
            out[k, kept] = np.log2(p)
        return out

    def _interpolate(self, k: int, code: npt.NDArray[np.int64], lower: Float64) -> Float64:
        """p_k of the (k+1)-mers `code`, from p_{k-1}."""
        after = self.counts[k].reshape(-1, 4)[code >> 2]
        seen = after.sum(axis=1)
        a = self.concentrations[k][_bucket(seen, (after > 0).sum(axis=1))]
        return (self.counts[k][code] + a * lower) / (seen + a)


# ---- counting -----------------------------------------------------------------------------------


def _is_base(ids: Ids) -> npt.NDArray[np.bool_]:
    return (ids >= A) & (ids <= T)


def _chunks(ids: Ids, order: int) -> Iterator[tuple[int, int, Ids]]:
    """Start, length of context in front, and ids of pieces that carry `order` bases of context."""
    for start in range(0, ids.size, _CHUNK):
        front = min(start, order)
        yield start, front, ids[start - front : start + _CHUNK]


def _bases_and_depth(ids: Ids, order: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Bases as 0..3 (0 at no base), and how many stand unbroken before each (-1 at no base).

    The second is counted up to `order`.
    """
    valid = _is_base(ids)
    at = np.arange(ids.size)
    last_break = np.maximum.accumulate(np.where(valid, -1, at))
    depth = np.minimum(at - 1 - np.concatenate([[-1], last_break[:-1]]), order)
    base = np.where(valid, ids.astype(np.int64) - A, 0)
    return base, np.where(valid, depth, -1)


def _count(sequences: Iterable[Ids], order: int) -> list[Counts]:
    """Counts of (k+1)-mers for k = 0..order on the given strand."""
    # Long tables in 32 bits: no single 11-mer of a genome comes near 2^31.
    counts: list[Counts] = [
        np.zeros(4 ** (k + 1), dtype=np.int64 if k < 10 else np.int32) for k in range(order + 1)
    ]
    for ids in sequences:
        for _, front, chunk in _chunks(ids, order):
            base, depth = _bases_and_depth(chunk, order)
            code = np.zeros(chunk.size, dtype=np.int64)
            for k in range(order + 1):
                code[k:] += base[: code.size - k] << (2 * k)
                # Short of the top, only what no longer k-mer covers; the rest is summed below.
                here = (depth == order) if k == order else (depth == k)
                here[:front] = False
                _add(counts[k], code[here])
    for k in range(order, 0, -1):
        counts[k - 1] += counts[k].reshape(4, -1).sum(axis=0, dtype=counts[k - 1].dtype)
    return counts


def _add(table: Counts, codes: npt.NDArray[np.int64]) -> None:
    """Add one for each code. Long tables get sorted codes: a bincount would be as long as they."""
    if table.size <= 1 << 18:
        table += np.bincount(codes, minlength=table.size)
    elif codes.size:
        codes = np.sort(codes)
        first = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))
        table[codes[first]] += np.diff(np.append(first, codes.size)).astype(table.dtype)


def _other_strand(table: Counts) -> Counts:
    """Counts of the reverse complements: all digits 3 - x (the table backwards), then mirrored."""
    k = (table.size.bit_length() - 1) // 2
    return table[::-1].reshape((4,) * k).transpose().reshape(-1)


# ---- choosing the concentrations ----------------------------------------------------------------


def _bucket(seen: Counts, different: Counts) -> npt.NDArray[np.int64]:
    """Which concentration a context uses, from n(c) and the number of different successors."""
    octave = np.frexp(seen.astype(np.float64))[1]
    return octave.astype(np.int64) * 5 + different


def _choose_concentrations(counts: list[Counts]) -> tuple[Float32, ...]:
    """The concentrations of greatest leave-one-out likelihood, order by order from the lowest."""
    chosen: list[Float32] = []
    # Leave-one-out p_{k-1}(x | c') of each k-mer c'x. One occurrence is left out: the same base
    # on the other strand is another word, but for the few that are their own reverse complement.
    lower = np.full(1, 0.25, dtype=np.float32)
    for k, table in enumerate(counts):
        gains = np.zeros((_BUCKETS, _GRID.size))
        for entries in _entries(table):
            _add_likelihood(gains, table, entries, lower)
        a = _GRID[gains.argmax(axis=1)]
        # A bucket that training never visits takes the value that is best for all.
        a[(gains == 0).all(axis=1)] = _GRID[gains.sum(axis=0).argmax()]
        chosen.append(a.astype(np.float32))
        if k + 1 < len(counts):
            lower = _leave_one_out(table, lower, chosen[-1])
    return tuple(chosen)


def _entries(table: Counts) -> Iterator[npt.NDArray[np.int64]]:
    """Codes of the k-mers that were seen, in pieces."""
    for start in range(0, table.size, 4 * _CONTEXTS):
        yield start + np.flatnonzero(table[start : start + 4 * _CONTEXTS])


def _without_one(
    table: Counts, codes: npt.NDArray[np.int64]
) -> tuple[Counts, Counts, npt.NDArray[np.int64]]:
    """n(cx) and n(c) after one occurrence of cx is taken out, and the bucket they fall in."""
    after = table.reshape(-1, 4)[codes >> 2]
    count = table[codes] - 1
    seen = after.sum(axis=1, dtype=np.int64) - 1
    return count, seen, _bucket(seen, (after > 0).sum(axis=1) - (count == 0))


def _add_likelihood(
    gains: Float64, table: Counts, codes: npt.NDArray[np.int64], lower: Float32
) -> None:
    """Add the log-likelihood of every concentration of the grid, by bucket, for these k-mers."""
    count, seen, bucket = _without_one(table, codes)
    p = lower[codes % lower.size].astype(np.float64)
    weight = table[codes]
    for i, a in enumerate(_GRID):
        gain = weight * np.log((count + a * p) / (seen + a))
        gains[:, i] += np.bincount(bucket, gain, minlength=_BUCKETS)


def _leave_one_out(table: Counts, lower: Float32, a: Float32) -> Float32:
    """p_k of each (k+1)-mer predicted without one occurrence of itself; 0 where never seen."""
    out = np.zeros(table.size, dtype=np.float32)
    for codes in _entries(table):
        count, seen, bucket = _without_one(table, codes)
        p = lower[codes % lower.size]  # the oldest base dropped
        out[codes] = (count + a[bucket] * p) / (seen + a[bucket])
    return out


def _limits(context_limit: ContextLimit | None, size: int) -> npt.NDArray[np.int64] | None:
    """One context limit for each of `size` bases, or None for no limit."""
    if context_limit is None:
        return None
    limit = np.asarray(context_limit, dtype=np.int64)
    if limit.shape not in ((), (size,)):
        raise InputError(
            f"context_limit has shape {limit.shape}; give one number or an array of shape ({size},)"
        )
    if limit.size and limit.min() < 0:
        raise InputError(f"context_limit is {int(limit.min())}; it must be at least 0")
    return np.broadcast_to(limit, (size,))
