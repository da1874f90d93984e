"""Interpolated Markov models: counts and probabilities against slow twins, the yeast figures."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna.alphabet import encode, reverse_complement_ids
from hyenadna.errors import InputError
from hyenadna.genome import markov
from hyenadna.genome.markov import MarkovModel

dna = st.text("ACGTN", min_size=1, max_size=60).map(encode)


def random_dna(size: int, seed: int, letters: str = "ACGT") -> np.ndarray:
    rng = np.random.default_rng(seed)
    return encode("".join(rng.choice(list(letters), size)))


def slow_count(sequences: list[np.ndarray], word: tuple[int, ...]) -> int:
    width = len(word)
    return sum(
        tuple(ids[i : i + width] - 7) == word
        for ids in sequences
        for i in range(ids.size - width + 1)
    )


def slow_probability(model: MarkovModel, ids: np.ndarray, at: int, depth: int) -> float:
    """The recursion of the module's formula, one base at a time, from the model's own tables."""
    p = 0.25
    for k in range(depth + 1):
        context = 0
        for base in ids[at - k : at]:
            context = 4 * context + int(base) - 7
        after = model.counts[k][4 * context : 4 * context + 4]
        seen, different = int(after.sum()), int((after > 0).sum())
        bucket = (seen.bit_length()) * 5 + different
        a = float(model.concentrations[k][bucket])
        p = (int(after[int(ids[at]) - 7]) + a * p) / (seen + a)
    return p


def depth_at(ids: np.ndarray, at: int, order: int) -> int:
    depth = 0
    while depth < min(order, at) and 7 <= ids[at - depth - 1] <= 10:
        depth += 1
    return depth


@settings(max_examples=30, deadline=None)
@given(st.lists(dna, min_size=1, max_size=3), st.booleans())
def test_counts_equal_a_plain_count(sequences: list[np.ndarray], both: bool) -> None:
    if not any(((s >= 7) & (s <= 10)).any() for s in sequences):
        return
    model = MarkovModel.fit(sequences, order=3, both_strands=both)
    counted = sequences + ([reverse_complement_ids(s) for s in sequences] if both else [])
    for k in range(4):
        for code in {0, 1, 4**k, 4 ** (k + 1) - 1, 27 % 4 ** (k + 1), 141 % 4 ** (k + 1)}:
            word = tuple(code // 4 ** (k - i) % 4 for i in range(k + 1))
            assert model.counts[k][code] == slow_count(counted, word)


def test_counts_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = random_dna(3000, 1, "ACGTACGTACGTN")
    whole = MarkovModel.fit([ids], order=5)
    other = random_dna(500, 2, "ACGTN")
    expected = whole.all_orders(other)
    monkeypatch.setattr(markov, "_CHUNK", 37)
    np.testing.assert_array_equal(whole.all_orders(other), expected)
    monkeypatch.setattr(markov, "_BLOCK", 41)
    pieces = MarkovModel.fit([ids], order=5)
    for a, b in zip(whole.counts, pieces.counts, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("limited", [False, True])
def test_probabilities_equal_the_recursion_written_out(limited: bool) -> None:
    model = MarkovModel.fit([random_dna(2000, 3, "AACGTN")], order=4)
    ids = random_dna(120, 4, "ACGTACGTN")
    limit = np.arange(ids.size) % 7 if limited else None
    rows = model.all_orders(ids, context_limit=limit)
    for at in range(ids.size):
        for order in range(5):
            if not 7 <= ids[at] <= 10:
                assert math.isnan(rows[order, at])
                continue
            depth = depth_at(ids, at, order)
            depth = depth if limit is None else min(depth, int(limit[at]))
            assert rows[order, at] == pytest.approx(
                math.log2(slow_probability(model, ids, at, depth)), abs=1e-5
            )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99))
def test_the_four_bases_sum_to_one(seed: int) -> None:
    model = MarkovModel.fit([random_dna(300, seed)], order=6)
    context = random_dna(9, seed + 1)
    last = [
        model.all_orders(np.append(context, base).astype(np.uint8))[:, -1] for base in (7, 8, 9, 10)
    ]
    np.testing.assert_allclose(np.exp2(last).sum(axis=0), 1, atol=1e-5)


def test_one_order_is_the_row_of_all_orders() -> None:
    model = MarkovModel.fit([random_dna(500, 5)], order=5)
    ids = random_dna(80, 6, "ACGTN")
    rows = model.all_orders(ids)
    for order in range(6):
        np.testing.assert_array_equal(model.log2_probabilities(ids, order), rows[order])
    assert rows.dtype == np.float32


def test_a_limit_of_k_is_the_model_of_order_k() -> None:
    model = MarkovModel.fit([random_dna(500, 5)], order=5)
    ids = random_dna(80, 6)
    rows = model.all_orders(ids)
    for k in range(6):
        np.testing.assert_array_equal(model.all_orders(ids, context_limit=k)[5], rows[k])


def test_chosen_concentrations_are_the_best_on_what_was_held_out() -> None:
    ids = np.concatenate([random_dna(4000, 8, "AACGT"), np.tile(random_dna(300, 9), 4)])
    counts = [np.zeros(4 ** (k + 1), dtype=np.int64) for k in range(4)]
    pieces = list(markov._pieces(ids, 3, 400))
    held_out = pieces[2::5]
    for piece in pieces:
        if piece not in held_out:
            markov._count(counts, piece, both_strands=False)
    chosen = markov._choose_concentrations(counts, held_out)

    def log2_likelihood(concentrations: tuple[np.ndarray, ...], k: int) -> float:
        model = MarkovModel(tuple(counts), concentrations)
        return sum(float(model._predict(piece, None)[k].sum()) for piece in held_out)

    for k in range(4):
        best = log2_likelihood(chosen, k)
        for factor in (1 / 64, 1 / 4, 4, 64):
            others = (*chosen[:k], chosen[k] * np.float32(factor), *chosen[k + 1 :])
            assert log2_likelihood(others, k) < best + 0.1


def test_tandem_repeats_do_not_vouch_for_themselves() -> None:
    # Each unit is copied next to itself and never seen again: high orders know nothing of the
    # next array, and the choice of concentrations has to find that out.
    rng = np.random.default_rng(16)
    arrays = [np.tile(rng.integers(7, 11, 40).astype(np.uint8), 8) for _ in range(400)]
    model = MarkovModel.fit([np.concatenate(arrays[:300])], order=9, both_strands=False)
    bits = model.bits_per_base([np.concatenate(arrays[300:])])
    assert bits == pytest.approx(np.full(10, 2.0), abs=0.03)


def test_a_sequence_too_short_to_hold_anything_out_is_still_a_model() -> None:
    model = MarkovModel.fit([encode("ACGT")], order=2)
    assert np.isfinite(model.all_orders(encode("GGTCA"))).all()


def test_random_dna_costs_two_bits_and_a_repeat_costs_few() -> None:
    # The concentrations must keep a model of 4^9 contexts from trusting 20 000 random bases.
    model = MarkovModel.fit([random_dna(20_000, 9)], order=8)
    assert model.bits_per_base([random_dna(20_000, 10)]) == pytest.approx(np.full(9, 2.0), abs=0.01)
    unit = random_dna(60, 11)
    bits = MarkovModel.fit([np.tile(unit, 30)], order=8).bits_per_base([np.tile(unit, 20)])
    assert bits[8] < 0.1
    assert bits[0] > 1.8


def test_bits_per_base_is_the_mean_over_bases(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MarkovModel.fit([random_dna(500, 12, "AACGT")], order=4)
    sequences = [random_dna(90, 13, "ACGTN"), random_dna(70, 14)]
    expected = -np.nanmean(np.concatenate([model.all_orders(s) for s in sequences], 1), axis=1)
    monkeypatch.setattr(markov, "_CHUNK", 32)
    assert model.bits_per_base(sequences) == pytest.approx(expected, abs=1e-5)


def test_concentrations_come_from_training_data_only() -> None:
    model = MarkovModel.fit([random_dna(500, 12)], order=3)
    before = [a.copy() for a in model.concentrations]
    model.bits_per_base([random_dna(500, 15, "AAAC")])
    for a, b in zip(before, model.concentrations, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda m: MarkovModel.fit([encode("ACGT")], order=13), "order is 13; give 0 to 12"),
        (lambda m: MarkovModel.fit([encode("NNN")], order=2), "hold no base"),
        (lambda m: m.bits_per_base([encode("NN")]), "hold no base"),
        (lambda m: m.log2_probabilities(encode("ACGT"), 3), "order is 3; it was fitted for 0 to 2"),
        (lambda m: m.all_orders(encode("ACGT"), context_limit=-1), "context_limit is -1"),
        (lambda m: m.all_orders(encode("ACGT"), context_limit=np.zeros(3, int)), r"shape \(3,\)"),
    ],
)
def test_bad_input_says_what_is_wrong(call, text: str) -> None:
    model = MarkovModel.fit([encode("ACGTACGT")], order=2)
    with pytest.raises(InputError, match=text):
        call(model)


@pytest.mark.slow
def test_yeast_figures(shared: Path) -> None:
    sequences: dict[str, list[str]] = {}
    path = shared / "data/yeast_R64/Saccharomyces_cerevisiae.R64-1-1.fa.gz"
    with gzip.open(path, "rt") as lines:
        for line in lines:
            if line.startswith(">"):
                parts = sequences.setdefault(line[1:].split()[0], [])
            else:
                parts.append(line.strip())
    genome = {name: encode("".join(parts)) for name, parts in sequences.items()}
    held_out = ("IV", "XV")
    train = [ids for name, ids in genome.items() if name not in (*held_out, "Mito")]
    bits = MarkovModel.fit(train, order=12).bits_per_base([genome[name] for name in held_out])
    # A plain interpolation (one constant for all orders), measured apart from this code.
    plain = {0: 1.958, 5: 1.938, 8: 1.933, 10: 1.925, 12: 1.9145}
    for order, reference in plain.items():
        assert bits[order] < reference + 0.0005
    # Ours, as measured when the test was written.
    assert bits[12] == pytest.approx(1.8929, abs=0.002)
