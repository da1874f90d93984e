"""Adaptive compression of one sequence: the yardstick that sees everything before, and learns.

The coder starts empty and predicts each base from the counts of what came before it, so the code
length is exact and nothing is fitted: an order-k context model with the estimator

    p(x | c) = (n(c x) + alpha) / (n(c) + 4 alpha)

n counts occurrences before this base and, with inverted repeats, also the reverse complements of
the words before (as in XM, Cao et al., 2007, and GeCo, Pratas et al., 2016). High orders find
repeats at any distance, which a model with a window cannot see. `mixture_bits` joins several orders
by weights that follow their recent success (GeCo's rule).

Exact and fast at once: a count before position i is the rank of i among equal words, which one
stable sort gives for all positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import A, Ids, T
from hyenadna.errors import InputError

# A word of order + 1 bases is an int64 of two bits a base.
MAX_ORDER: Final = 30
_BLOCK: Final = 256

Bits = npt.NDArray[np.float64]
Words = npt.NDArray[np.int64]


def default_alpha(order: int) -> float:
    """Pseudo-count of an order: 1 up to 11, then 1/16 (one sighting is most likely a repeat)."""
    return 1.0 if order < 12 else 1 / 16


def adaptive_bits(
    ids: Ids, order: int, *, inverted_repeats: bool = True, alpha: float | None = None
) -> Bits:
    """Exact code length of each base in bits under an adaptive order-k model: float64, shape (L,).

    ids: uint8 tokens, shape (L,). `order`: 0 to 30. `alpha`: pseudo-count of each base, positive;
    `default_alpha(order)` when left out. A base without `order` bases right before it (the start,
    after an N) costs 2 bits; nan where there is no base A C G T. About 100 bytes of memory a base.

    Raises InputError when `order` or `alpha` is out of range.
    """
    if not 0 <= order <= MAX_ORDER:
        raise InputError(f"adaptive_bits: order is {order}; give 0 to {MAX_ORDER}")
    alpha = default_alpha(order) if alpha is None else alpha
    if not 0 < alpha < float("inf"):
        raise InputError(f"adaptive_bits: alpha is {alpha}; it must be positive")
    valid = (ids >= A) & (ids <= T)
    out = np.where(valid, 2.0, np.nan)
    full, words, mirrored = _words(ids, valid, order)
    if full.size:
        of_word, of_context = _counts_before(words, mirrored if inverted_repeats else None)
        out[full] = np.log2(of_context + 4 * alpha) - np.log2(of_word + alpha)
    return out


def mixture_bits(
    ids: Ids,
    orders: Sequence[int] = (1, 2, 3, 4, 6, 8, 10, 11, 12, 14, 16, 18, 20, 24),
    *,
    inverted_repeats: bool = True,
    decay: float = 0.99,
) -> Bits:
    """Exact code length of each base in bits under a mixture of orders: float64, shape (L,).

    The weight of an order is its probability of the bases so far, each discounted by `decay` (in
    [0, 1]) per base that has passed since; at first all orders weigh the same. Bases that are not
    A C G T are nan and pass over the weights.

    Raises InputError for an order or decay out of range, or no order.
    """
    if not orders:
        raise InputError("mixture_bits: no orders given; give one or more of 0 to 30")
    if not 0 <= decay <= 1:
        raise InputError(f"mixture_bits: decay is {decay}; give 0 to 1")
    out = np.full(ids.size, np.nan)
    valid = (ids >= A) & (ids <= T)
    each = np.empty((len(orders), int(valid.sum())))
    for row, order in zip(each, orders, strict=True):
        row[:] = adaptive_bits(ids, order, inverted_repeats=inverted_repeats)[valid]
    out[valid] = _mix(each, decay)
    return out


def _words(
    ids: Ids, valid: npt.NDArray[np.bool_], order: int
) -> tuple[npt.NDArray[np.int64], Words, Words]:
    """Ends of all unbroken words of order + 1 bases, the words, and their reverse complements.

    In both the last base is the lowest digit, so that word >> 2 is the context.
    """
    size = max(ids.size - order, 0)
    base = np.where(valid, ids.astype(np.int64) - A, 0)
    words, mirrored = np.zeros((2, size), dtype=np.int64)
    for i in range(order + 1):  # i-th base of the word, oldest first
        words += base[i : i + size] << (2 * (order - i))
        mirrored += (3 - base[i : i + size]) << (2 * i)
    broken = np.concatenate([[0], np.cumsum(~valid)])
    whole = (broken[order + 1 :] == broken[:size]) if size else np.zeros(0, dtype=bool)
    return np.flatnonzero(whole) + order, words[whole], mirrored[whole]


def _counts_before(words: Words, mirrored: Words | None) -> tuple[Words, Words]:
    """For each word: how often it, and its context, occurred before (in `mirrored` as well)."""
    if mirrored is None:
        return _rank_among_equals(words), _rank_among_equals(words >> 2)
    # Time runs word 0, its mirror, word 1, its mirror, …: a base is coded before its own word and
    # mirror are counted.
    events = np.stack([words, mirrored], axis=1).reshape(-1)
    return _rank_among_equals(events)[::2], _rank_among_equals(events >> 2)[::2]


def _rank_among_equals(values: Words) -> Words:
    """How many earlier entries are equal to each entry."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    at = np.arange(values.size)
    first = np.maximum.accumulate(
        np.where(np.concatenate([[True], ordered[1:] != ordered[:-1]]), at, 0)
    )
    rank = np.empty_like(values)
    rank[order] = at - first
    return rank


def _mix(each: Bits, decay: float) -> Bits:
    """Bits of the mixture, shape (L,), from the bits of each order, shape (orders, L)."""
    # past[t] = sum over s < t of decay^(t-1-s) * bits[s], a block at a time as a product with a
    # triangular matrix; only the carry from block to block runs in sequence.
    age = np.arange(_BLOCK)[None, :] - 1 - np.arange(_BLOCK)[:, None]
    within = np.where(age >= 0, float(decay) ** np.maximum(age, 0), 0.0)
    fade = float(decay) ** np.arange(_BLOCK + 1)
    carry = np.zeros((len(each), 1))
    out = np.empty(each.shape[1])
    for start in range(0, each.shape[1], _BLOCK):
        bits = each[:, start : start + _BLOCK]
        size = bits.shape[1]
        past = bits @ within[:size, :size] + carry * fade[:size]
        carry = decay * past[:, -1:] + bits[:, -1:]
        past -= past.min(axis=0)
        weights = np.exp2(-past)
        out[start : start + size] = np.log2(weights.sum(axis=0)) - np.log2(
            (weights * np.exp2(-bits)).sum(axis=0)
        )
    return out
