"""The hidden Markov model: against all paths written out, and on sequences that it must learn."""

from __future__ import annotations

import dataclasses
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna.alphabet import IGNORED, N, encode
from hyenadna.data.labelled_data import LabelledData, Task, other_strand, turned_classes
from hyenadna.errors import InputError
from hyenadna.train import baseline_hmm
from hyenadna.train.baseline_hmm import ORDERS, HiddenMarkovModel, count_hmm, fit_hmm
from hyenadna.train.baselines import fit_baseline
from hyenadna.train.metrics import metrics

Floats = npt.NDArray[np.float64]


def random_model(seed: int, states: int, order: int) -> HiddenMarkovModel:
    rng = np.random.default_rng(seed)

    def some(*shape: int) -> Floats:
        return rng.dirichlet(np.ones(shape[-1]), size=shape[:-1])

    # (context, state, base) -> (context and base, state)
    tables = [
        some(4**j, states, 4).transpose(0, 2, 1).reshape(-1, states) for j in range(order + 1)
    ]
    return HiddenMarkovModel(some(states), some(states, states), tuple(tables))


def posterior_of_all_paths(model: HiddenMarkovModel, ids: npt.NDArray[np.uint8]) -> Floats:
    """The definition: each path's probability, added to the states that it passes."""
    states, order = len(model.begin), len(model.emissions) - 1
    bases = [int(i) - 7 for i in ids]
    out = np.zeros((len(ids), states))
    for path in product(range(states), repeat=len(ids)):
        chance = 1.0
        for t, state in enumerate(path):
            chance *= model.begin[state] if t == 0 else model.transitions[path[t - 1], state]
            if not 0 <= bases[t] < 4:
                continue
            before = 0
            while before < min(order, t) and 0 <= bases[t - before - 1] < 4:
                before += 1
            word = 0
            for base in bases[t - before : t + 1]:
                word = 4 * word + base
            chance *= model.emissions[before][word, state]
        for t, state in enumerate(path):
            out[t, state] += chance
    return out / out.sum(1, keepdims=True)


@given(
    st.lists(st.lists(st.integers(7, 11), min_size=1, max_size=6), min_size=1, max_size=4),
    st.integers(0, 100), st.integers(2, 3), st.integers(0, 2),
)  # fmt: skip
@settings(max_examples=40)
def test_posteriors_are_those_of_all_paths(rows, seed, states, order):
    model = random_model(seed, states, order)
    sequences = [np.array(row, dtype=np.uint8) for row in rows]
    wanted = np.concatenate([posterior_of_all_paths(model, ids) for ids in sequences])
    np.testing.assert_allclose(model.predict(sequences), wanted, atol=2e-7)


def test_a_sequence_is_the_same_alone_and_in_any_batch():
    model = random_model(0, 7, 3)
    rng = np.random.default_rng(1)
    lengths = (60_000, 3, 40, 1, 700, 40)
    sequences = [rng.integers(7, 12, n).astype(np.uint8) for n in lengths]
    together = np.split(model.predict(sequences), np.cumsum(lengths)[:-1])
    for ids, said in zip(sequences[1:], together[1:], strict=True):
        np.testing.assert_allclose(model.predict([ids]), said, atol=1e-7)
    assert np.isfinite(together[0]).all()
    np.testing.assert_allclose(together[0].sum(1), 1, atol=1e-5)


def test_tables_are_the_counts():
    ids, classes = encode("ACGACGNAC"), np.array([0, 0, 1, 1, 1, 1, 0, IGNORED, 0])
    model = count_hmm([ids, ids], [classes, classes], 2, 1)
    # class 0: A, C, C twice each (the N and the masked A are left out); class 1: G, A, C, G
    for state, counts in enumerate([[2, 4, 0, 0], [2, 2, 4, 0]]):
        expected = (np.array(counts) + 16 * 0.25) / (sum(counts) + 16)
        np.testing.assert_allclose(model.emissions[0][:, state], expected)
    # after an A: C in class 0 (twice in each), C in class 1 once
    after_a = model.emissions[1].reshape(4, 4, 2)[0]
    base = model.emissions[0]
    np.testing.assert_allclose(after_a[1], (np.array([4, 2]) + 16 * base[1]) / [20, 18])
    np.testing.assert_allclose(after_a[2], 16 * base[2] / [20, 18])
    steps = np.array([[2, 2], [2, 6]]) + 0.1
    np.testing.assert_allclose(model.transitions, steps / steps.sum(1, keepdims=True))
    np.testing.assert_allclose(model.begin, np.array([8.1, 8.1]) / 16.2)
    for table in model.emissions:
        np.testing.assert_allclose(table.reshape(-1, 4, 2).sum(1), 1)
    with pytest.raises(InputError, match="no base has a class"):
        count_hmm([ids], [np.full(9, IGNORED)], 2, 1)


CODONS = ("GCA", "GCC", "AAG", "GAT")
TASK = Task("tokens", ("+1", "+2", "+3", "-1", "-2", "-3", "none"))


def gene_data(rows: int = 60, seed: int = 0) -> LabelledData:
    """Random bases with a stretch of codons on one of the strands."""
    rng = np.random.default_rng(seed)
    sequences, targets = [], []
    for _ in range(rows):
        before, count, after = (int(n) for n in rng.integers(20, 60, 3))
        text = "".join(rng.choice(CODONS, count))
        ends = ["".join(rng.choice(list("ACGT"), n)) for n in (before, after)]
        ids = encode(ends[0] + text + ends[1])
        classes = np.array([6] * before + [0, 1, 2] * count + [6] * after)
        if rng.random() < 0.5:
            ids, classes = other_strand(ids), turned_classes(classes, TASK)
        sequences.append(ids)
        targets.append(classes)
    cuts = (0.6 * rows, 0.8 * rows)
    splits = ["train" if i < cuts[0] else "valid" if i < cuts[1] else "test" for i in range(rows)]
    return LabelledData(
        "genes", tuple(sequences), tuple(targets), TASK, np.array(splits),
        tuple(f"s{i}" for i in range(rows)),
    )  # fmt: skip


def test_frames_are_found():
    data = gene_data()
    model = fit_baseline("hmm", data, 0)
    assert model.name == "hmm" and model.chosen.startswith("7 states, order")
    assert "both strands" in model.chosen
    test = data.part("test")
    said = model.predict(test.sequences)
    assert said.dtype == np.float32 and said.shape == (test.lengths.sum(), 7)
    figures = metrics("tokens", np.concatenate(test.targets), said)
    assert figures["mcc"] > 0.9
    again = fit_baseline("hmm", data, 5).predict(test.sequences)
    np.testing.assert_array_equal(said, again)


def test_both_strands_are_treated_alike():
    """With classes that have strands, the other strand is said to be the same, turned."""
    data = gene_data()
    model = fit_hmm(data.part("train"), data.part("valid"))
    ids = data.part("test").sequences[0]
    twins = np.array(TASK.twins)
    one, other = model.predict([ids]).argmax(1), model.predict([other_strand(ids)]).argmax(1)
    assert np.mean(one == twins[other[::-1]]) > 0.9
    # the tables are of both: each class emits single bases as its twin does complements
    single = model.emissions[0]
    np.testing.assert_allclose(single[::-1][:, twins], single, atol=1e-12)


def test_the_order_is_chosen_on_valid_alone():
    data = gene_data()
    wild = [
        np.roll(row, 1) if s == "test" else row
        for row, s in zip(data.targets, data.splits, strict=True)
    ]
    other = dataclasses.replace(data, targets=tuple(wild))
    one, two = fit_baseline("hmm", data, 0), fit_baseline("hmm", other, 0)
    np.testing.assert_array_equal(one.predict(data.sequences), two.predict(data.sequences))
    valid = data.part("valid")
    scores = {}
    sequences = [*data.part("train").sequences]
    sequences += [other_strand(ids) for ids in sequences]
    classes = [*data.part("train").targets]
    classes += [turned_classes(row, TASK) for row in classes]
    for order in ORDERS:
        said = count_hmm(sequences, classes, 7, order).predict(valid.sequences)
        scores[order] = metrics("tokens", np.concatenate(valid.targets), said)["mcc"]
    assert f"order {max(scores, key=lambda k: scores[k])}" in one.chosen


def test_masked_rows_do_not_choose_the_order(monkeypatch):
    """Rows without a class lie where a few evenly spread ones are taken."""
    data = gene_data()
    monkeypatch.setattr(baseline_hmm, "_BASES_TO_CHOOSE", int(data.part("valid").lengths[0]))
    valid = np.flatnonzero(data.splits == "valid").tolist()
    targets = [
        np.full_like(row, IGNORED) if i in (valid[0], valid[-1]) else row
        for i, row in enumerate(data.targets)
    ]
    some = dataclasses.replace(data, targets=tuple(targets))
    assert fit_baseline("hmm", some, 0).chosen.startswith("7 states, order")
    targets = [
        np.full_like(row, IGNORED) if i in valid else row for i, row in enumerate(data.targets)
    ]
    with pytest.raises(InputError, match="all targets of the valid part are missing"):
        fit_baseline("hmm", dataclasses.replace(data, targets=tuple(targets)), 0)


def test_all_orders_come_of_one_count(monkeypatch):
    data, counted = gene_data(), []

    def count(sequences, classes, states, order):
        counted.append(order)
        return count_hmm(sequences, classes, states, order)

    monkeypatch.setattr(baseline_hmm, "count_hmm", count)
    model = fit_hmm(data.part("train"), data.part("valid"))
    assert counted == [max(ORDERS)]
    assert f"order {len(model.emissions) - 1}," in model.chosen


def test_what_is_no_task_for_it():
    data = gene_data(10)
    wrong = dataclasses.replace(
        data, targets=np.zeros(10, dtype=np.int64), task=Task("classes", ("a", "b"))
    )
    with pytest.raises(InputError, match="is for a class of each base, not for classes"):
        fit_baseline("hmm", wrong, 0)
    one = dataclasses.replace(data, targets=tuple(np.full_like(row, 6) for row in data.targets))
    with pytest.raises(InputError, match="all train rows are of one class"):
        fit_baseline("hmm", one, 0)
    assert np.isfinite(fit_baseline("hmm", data, 0).predict([np.full(5, N, dtype=np.uint8)])).all()
