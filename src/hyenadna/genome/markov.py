"""Interpolated Markov models of every order up to 12: the short-context yardstick.

A model of order k knows the base counts after each k-mer context. Sparse counts are mended by
interpolation with the next lower order (the form of Jelinek and Mercer, 1980, with the Dirichlet
weights of MacKay and Peto, 1995):

    p_k(x | c) = (n(c x) + a p_{k-1}(x | c')) / (n(c) + a),        p_{-1}(x) = 1/4

c' is the context c without its oldest base. The concentration a depends on the order, on how often
the context was seen (in octaves) and on how many different bases followed it (as in Witten and
Bell, 1991: a context with a single successor is mostly a repeat and to be trusted). Every a is
chosen on the training sequences alone: each tenth block of them is held out, predicted from the
counts of the rest with a row of concentrations, and counted as well once they are chosen. The
blocks are long (64 kb) because leaving out single bases lets a tandem repeat vouch for itself: on
a genome of such repeats that made order 12 far worse than order 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import A, Ids, T
from hyenadna.errors import InputError

MAX_ORDER: Final = 12
# Bases handled at once: bounds the memory beside the tables themselves.
_CHUNK: Final = 1 << 21
# Of the training sequences, every tenth block of up to 64 kb is held out to choose the
# concentrations, and of these as many as make 2 Mb.
_BLOCK: Final = 1 << 16
_EVERY: Final = 10
_HELD_OUT: Final = 1 << 21
# Buckets of contexts that share a concentration: octave of n(c) (0, 1, 2-3, 4-7, …) x number of
# different successors 0..4.
_OCTAVES: Final = 32
_BUCKETS: Final = _OCTAVES * 5
# Concentrations tried, in octaves.
_GRID: Final = 2.0 ** np.arange(-6, 17)
# A bucket's own likelihood is joined by that of this many bases of the mean bucket of its order.
_PRIOR_BASES: Final = 20

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

        `order`: 0 to 12; the tables take 4^(order+1) * 16/3 bytes (357 MB at 12), and fitting takes
        200 MB and a byte for every tenth base more. The sequences are gone through once.
        `both_strands` counts the reverse complement too. What is not A C G T breaks the context.

        Raises InputError for an order out of range or when there is no base to count.
        """
        if not 0 <= order <= MAX_ORDER:
            raise InputError(f"Markov model: order is {order}; give 0 to {MAX_ORDER}")
        # Long tables in 32 bits: no single 11-mer of a genome comes near 2^31.
        counts: list[Counts] = [
            np.zeros(4 ** (k + 1), dtype=np.int64 if k < 10 else np.int32) for k in range(order + 1)
        ]
        held_out: list[_Piece] = []
        for ids in sequences:
            for piece, held in _runs(ids, order):
                if held:  # a copy: a view would keep the whole sequence in memory
                    held_out.append(replace(piece, ids=piece.ids.copy()))
                else:
                    _count(counts, piece, both_strands=both_strands)
        concentrations = _choose_concentrations(counts, _thin(held_out))
        for piece in held_out:
            _count(counts, piece, both_strands=both_strands)
        if not counts[0].any():
            raise InputError("Markov model: the training sequences hold no base A C G T")
        return cls(tuple(counts), concentrations)

    def all_orders(self, ids: Ids, *, context_limit: ContextLimit | None = None) -> Float32:
        """log2 probability of each base at every order: float32, shape (order + 1, L).

        Row k uses at most the k bases before: fewer at the start, after an N, and where
        `context_limit` allows fewer (one number, or one per base, shape (L,), such as the position
        in a window). nan where the base is not A C G T. ids: uint8 tokens, shape (L,).

        Raises InputError for a context limit below 0 or of another shape.
        """
        limit = None if context_limit is None else context_limits(context_limit, ids.size)
        out = np.full((self.order + 1, ids.size), np.nan, dtype=np.float32)
        for piece in _pieces(ids, self.order, _CHUNK):
            here = slice(piece.start, piece.start + piece.size)
            out[:, here] = self._predict(piece, None if limit is None else limit[here])
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
            for piece in _pieces(ids, self.order, _CHUNK):
                log2 = self._predict(piece, None)
                total -= np.nansum(log2, axis=1, dtype=np.float64)
                bases += int(np.isfinite(log2[0]).sum())
        if not bases:
            raise InputError("Markov model: the sequences to evaluate hold no base A C G T")
        return total / bases

    def _predict(self, piece: _Piece, limit: npt.NDArray[np.int64] | None) -> Float32:
        """`all_orders` of one piece."""
        words = _Words(piece, self.order, limit)
        p = np.full(words.at.size, 0.25)
        out = np.full((self.order + 1, piece.size), np.nan, dtype=np.float32)
        for k, active in words:
            p[active] = _Seen.of(self.counts[k], words.code[active]).probability(
                self.concentrations[k], p[active]
            )
            # Bases without k bases of context keep the probability of the order below.
            out[k, words.at] = np.log2(p)
        return out


# ---- walking along a sequence -------------------------------------------------------------------


@dataclass(frozen=True)
class _Piece:
    """Part of a sequence with the context in front of it."""

    start: int
    """Position in the sequence of the first base that is not context."""
    front: int
    """Bases of context in front."""
    ids: Ids
    """Token ids, context included."""

    @property
    def size(self) -> int:
        """Bases that are not context."""
        return self.ids.size - self.front


def _pieces(ids: Ids, order: int, size: int) -> Iterator[_Piece]:
    """The sequence in pieces of `size` bases, each with up to `order` bases of context."""
    for start in range(0, ids.size, size):
        front = min(start, order)
        yield _Piece(start, front, ids[start - front : start + size])


def _runs(ids: Ids, order: int) -> Iterator[tuple[_Piece, bool]]:
    """The sequence in pieces, and whether each is held out: one block of every `_EVERY`.

    The blocks between are taken together, because counting has a cost per piece.
    """
    block = min(_BLOCK, max(ids.size // _EVERY, 1))
    held = range(_EVERY // 2 * block, ids.size, _EVERY * block)
    edges = sorted({0, ids.size, *held, *(min(start + block, ids.size) for start in held)})
    for start, stop in pairwise(edges):
        front = min(start, order)
        yield _Piece(start, front, ids[start - front : stop]), start in held


class _Words:
    """Walks through the words that end at each base of a piece, from order 0 upwards.

    `at`: positions of the bases A C G T in the piece. Each step yields the order k and the indices
    into `at` of those with k bases of context; `code` and `mirrored` then hold their (k+1)-mers and
    the reverse complements.
    """

    def __init__(
        self, piece: _Piece, order: int, limit: npt.NDArray[np.int64] | None = None
    ) -> None:
        valid = (piece.ids >= A) & (piece.ids <= T)
        index = np.arange(piece.ids.size)
        last_break = np.maximum.accumulate(np.where(valid, -1, index))
        before = index - 1 - np.concatenate([[-1], last_break[:-1]])
        self.order, self.front = order, piece.front
        self.base = piece.ids.astype(np.int64) - A
        self.at = np.flatnonzero(valid[piece.front :])
        self.depth = np.minimum(before[piece.front :][self.at], order)
        if limit is not None:
            self.depth = np.minimum(self.depth, limit[self.at])
        self.code = np.zeros(self.at.size, dtype=np.int64)
        self.mirrored = np.zeros(self.at.size, dtype=np.int64)

    def __iter__(self) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        active = np.arange(self.at.size)
        for k in range(self.order + 1):
            active = active[self.depth[active] >= k]
            oldest = self.base[self.at[active] + self.front - k]
            self.code[active] += oldest << (2 * k)
            self.mirrored[active] = 4 * self.mirrored[active] + 3 - oldest
            yield k, active


@dataclass(frozen=True)
class _Seen:
    """What the counts of one order say about some words cx: n(cx), n(c) and the bucket of c."""

    word: Counts
    context: Counts
    bucket: npt.NDArray[np.int64]

    @classmethod
    def of(cls, table: Counts, codes: npt.NDArray[np.int64]) -> _Seen:
        after = table.reshape(-1, 4)[codes >> 2]
        context = after.sum(axis=1, dtype=np.int64)
        octave = np.frexp(context.astype(np.float64))[1].astype(np.int64)
        return cls(table[codes], context, octave * 5 + (after > 0).sum(axis=1))

    def probability(self, concentrations: Float32, lower: Float64) -> Float64:
        """p_k from p_{k-1}."""
        a = concentrations[self.bucket].astype(np.float64)
        return (self.word + a * lower) / (self.context + a)


# ---- fitting ------------------------------------------------------------------------------------


def _count(counts: list[Counts], piece: _Piece, *, both_strands: bool) -> None:
    """Add the words of a piece to the tables of all orders."""
    words = _Words(piece, len(counts) - 1)
    for k, active in words:
        _add(counts[k], words.code[active])
        if both_strands:
            _add(counts[k], words.mirrored[active])


def _add(table: Counts, codes: npt.NDArray[np.int64]) -> None:
    """Add one for each code. Long tables get sorted codes: a bincount would be as long as they."""
    if table.size <= 4 * codes.size:
        table += np.bincount(codes, minlength=table.size).astype(table.dtype)
    elif codes.size:
        ordered = np.sort(codes.astype(np.uint32))
        first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        table[ordered[first]] += np.diff(np.append(first, codes.size)).astype(table.dtype)


def _thin(pieces: list[_Piece]) -> list[_Piece]:
    """As many of the pieces, evenly spaced, as hold about 2 Mb."""
    total = sum(piece.size for piece in pieces)
    return pieces[:: max(-(-total // _HELD_OUT), 1)]


def _choose_concentrations(counts: list[Counts], held_out: list[_Piece]) -> tuple[Float32, ...]:
    """The concentrations of greatest likelihood of the pieces held out, order by order."""
    walks = [_Words(piece, len(counts) - 1) for piece in held_out]
    steps = [iter(words) for words in walks]
    below = [np.full(words.at.size, 0.25) for words in walks]
    chosen: list[Float32] = []
    for table in counts:
        gains, bases = np.zeros((_BUCKETS, _GRID.size)), np.zeros(_BUCKETS)
        seen = []
        for words, step, p in zip(walks, steps, below, strict=True):
            _, active = next(step)
            seen.append((active, _Seen.of(table, words.code[active])))
            gains += _likelihood(seen[-1][1], p[active])
            bases += np.bincount(seen[-1][1].bucket, minlength=_BUCKETS)
        chosen.append(_best(gains, bases))
        for (active, these), p in zip(seen, below, strict=True):
            p[active] = these.probability(chosen[-1], p[active])
    return tuple(chosen)


def _best(gains: Float64, bases: Float64) -> Float32:
    """The concentration of each bucket, from its gains and its number of bases held out."""
    if not bases.any():  # too short to hold anything out
        return np.ones(_BUCKETS, dtype=np.float32)
    prior = _PRIOR_BASES * gains.sum(axis=0) / bases.sum()
    return _GRID[(gains + prior).argmax(axis=1)].astype(np.float32)


def _likelihood(seen: _Seen, lower: Float64) -> Float64:
    """Log-likelihood gained over p_{k-1}, by bucket and concentration: (buckets, grid)."""
    out = np.empty((_BUCKETS, _GRID.size))
    for i, a in enumerate(_GRID):
        gain = np.log((seen.word / lower + a) / (seen.context + a))
        out[:, i] = np.bincount(seen.bucket, gain, minlength=_BUCKETS)
    return out


def context_limits(context_limit: ContextLimit | None, size: int) -> npt.NDArray[np.int64]:
    """One context limit for each of `size` bases; the greatest integer where there is none.

    Raises InputError for a limit below 0 or of another shape.
    """
    limit = np.asarray(np.iinfo(np.int64).max if context_limit is None else context_limit, np.int64)
    if limit.shape not in ((), (size,)):
        raise InputError(
            f"context_limit has shape {limit.shape}; give one number or an array of shape ({size},)"
        )
    if limit.size and limit.min() < 0:
        raise InputError(f"context_limit is {int(limit.min())}; it must be at least 0")
    return np.broadcast_to(limit, (size,))
