"""Adaptive compression: the sorted ranks against a coder that walks base by base."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna.alphabet import encode, reverse_complement_ids
from hyenadna.errors import InputError
from hyenadna.genome import compression
from hyenadna.genome.compression import adaptive_bits, default_alpha, mixture_bits

dna = st.text("ACGTN", max_size=80).map(encode)


def random_dna(size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(7, 11, size).astype(np.uint8)


def slow_adaptive_bits(
    ids: np.ndarray, order: int, inverted_repeats: bool, alpha: float
) -> list[float]:
    """A coder that really starts empty and counts as it goes."""
    counts: Counter[bytes] = Counter()
    bits = []
    for at in range(ids.size):
        word = ids[max(at - order, 0) : at + 1]
        if not 7 <= ids[at] <= 10:
            bits.append(math.nan)
            continue
        if word.size <= order or (word > 10).any():
            bits.append(2.0)
            continue
        context = word[:-1].tobytes()
        of_context = sum(counts[context + bytes([base])] for base in (7, 8, 9, 10))
        p = (counts[word.tobytes()] + alpha) / (of_context + 4 * alpha)
        bits.append(-math.log2(p))
        counts[word.tobytes()] += 1
        if inverted_repeats:
            counts[reverse_complement_ids(word).tobytes()] += 1
    return bits


def slow_mixture_bits(each: np.ndarray, decay: float) -> list[float]:
    log_weights = np.zeros(len(each))
    bits = []
    for column in each.T:
        weights = np.exp2(log_weights - log_weights.max())
        bits.append(-math.log2((weights * np.exp2(-column)).sum() / weights.sum()))
        log_weights = decay * log_weights - column
    return bits


@settings(max_examples=60, deadline=None)
@given(dna, st.integers(0, 5), st.booleans(), st.sampled_from([1.0, 0.1]))
def test_equals_the_coder_that_walks(
    ids: np.ndarray, order: int, inverted: bool, alpha: float
) -> None:
    fast = adaptive_bits(ids, order, inverted_repeats=inverted, alpha=alpha)
    slow = slow_adaptive_bits(ids, order, inverted, alpha)
    np.testing.assert_allclose(fast, np.array(slow, dtype=float), rtol=1e-12)


def test_equals_the_coder_that_walks_at_a_high_order() -> None:
    unit = random_dna(100, 1)
    ids = np.concatenate([unit, random_dna(50, 2), unit, reverse_complement_ids(unit)])
    for order in (12, 16, 30):
        slow = slow_adaptive_bits(ids, order, True, default_alpha(order))
        np.testing.assert_allclose(adaptive_bits(ids, order), slow, rtol=1e-12)


@given(dna, st.integers(0, 4), st.integers(0, 79))
@settings(max_examples=40, deadline=None)
def test_a_base_costs_the_same_whatever_follows(ids: np.ndarray, order: int, cut: int) -> None:
    whole = adaptive_bits(ids, order)[:cut]
    np.testing.assert_array_equal(adaptive_bits(ids[:cut], order), whole)


def test_the_code_is_a_probability() -> None:
    # Kraft: over all sequences of a length the chances sum to one, for an order and the mixture.
    words = [np.array([w // 4**i % 4 + 7 for i in range(5)], dtype=np.uint8) for w in range(4**5)]
    for bits_of in (
        lambda ids: adaptive_bits(ids, 2),
        lambda ids: mixture_bits(ids, (0, 1, 2), decay=0.9),
    ):
        assert sum(2 ** -bits_of(ids).sum() for ids in words) == pytest.approx(1, abs=1e-9)


def test_inverted_repeats_pay_only_when_they_are_counted() -> None:
    arm = random_dna(2000, 3)
    ids = np.concatenate([arm, reverse_complement_ids(arm)])
    assert adaptive_bits(ids, 12)[2100:].mean() < 0.8
    direct_only = adaptive_bits(ids, 12, inverted_repeats=False)
    assert direct_only[2100:].mean() == pytest.approx(2, abs=0.02)


def test_random_dna_costs_two_bits() -> None:
    assert adaptive_bits(random_dna(20_000, 4), 2).mean() == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.95, 1.0])
def test_mixture_equals_the_walk(decay: float) -> None:
    ids = np.concatenate([random_dna(400, 5), encode("NN"), np.tile(random_dna(40, 6), 9)])
    orders = (1, 4, 12)
    valid = ids <= 10
    each = np.stack([adaptive_bits(ids, order)[valid] for order in orders])
    mixed = mixture_bits(ids, orders, decay=decay)
    assert np.isnan(mixed[~valid]).all()
    np.testing.assert_allclose(mixed[valid], slow_mixture_bits(each, decay), rtol=1e-7, atol=1e-9)


def test_mixture_does_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = random_dna(700, 7)
    whole = mixture_bits(ids, (1, 3))
    monkeypatch.setattr(compression, "_BLOCK", 13)
    np.testing.assert_allclose(mixture_bits(ids, (1, 3)), whole, rtol=1e-9)


def test_mixture_is_near_the_best_order_of_each_part() -> None:
    # Skewed composition pays at order 2 alone, a copy of it far back at order 12 alone.
    skewed = np.random.default_rng(8).choice([7, 7, 7, 7, 8, 9, 10], 2000).astype(np.uint8)
    unit = random_dna(1000, 9)
    ids = np.concatenate([skewed, unit, unit])
    each = {order: adaptive_bits(ids, order) for order in (2, 12)}
    mixed = mixture_bits(ids, (2, 12))
    assert mixed.sum() < 0.95 * min(bits.sum() for bits in each.values())


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda ids: adaptive_bits(ids, 31), "order is 31; give 0 to 30"),
        (lambda ids: adaptive_bits(ids, 2, alpha=0), "alpha is 0; it must be positive"),
        (lambda ids: mixture_bits(ids, ()), "no orders given"),
        (lambda ids: mixture_bits(ids, (1,), decay=1.5), "decay is 1.5; give 0 to 1"),
    ],
)
def test_bad_input_says_what_is_wrong(call, text: str) -> None:
    with pytest.raises(InputError, match=text):
        call(encode("ACGT"))


def test_no_bases_no_bits() -> None:
    assert adaptive_bits(encode(""), 3).shape == (0,)
    assert np.isnan(adaptive_bits(encode("NNN"), 1)).all()
