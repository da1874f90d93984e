"""Folds keep classes in proportion and groups whole; figures are those of scikit-learn by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from hyenadna.alphabet import encode
from hyenadna.errors import InputError
from hyenadna.train.probe import (
    composition,
    majority_score,
    make_folds,
    probe,
    scores_table,
)

LABELS = ["a"] * 30 + ["b"] * 20 + ["rare"] * 3 + [""] * 2


def test_folds_hold_each_row_once_and_leave_out_what_is_too_rare():
    folds = make_folds(LABELS, None, folds=5, seed=0)
    assert folds.names == ("a", "b") and len(folds.rows) == 50
    assert set(folds.rows) == set(range(50))
    for number in range(5):
        held = folds.classes[folds.fold == number]
        assert np.bincount(held).tolist() == [6, 4]
    notes = " ".join(folds.notes)
    assert "2 rows without a class" in notes and "rare (3)" in notes and "seed 0" in notes
    again, other = (make_folds(LABELS, None, folds=5, seed=seed) for seed in (0, 1))
    assert (folds.fold == again.fold).all() and (folds.fold != other.fold).any()


def test_groups_stay_whole():
    groups = [f"g{i // 2}" if i < 50 else "" for i in range(55)]
    folds = make_folds(LABELS, groups, folds=5, seed=0)
    for pair in range(25):
        assert folds.fold[2 * pair] == folds.fold[2 * pair + 1]
    assert "25 groups stay whole" in " ".join(folds.notes)


@pytest.mark.parametrize(
    ("labels", "folds", "message"),
    [
        (["a"] * 20, 5, "fewer than two classes have 5 rows or more"),
        (["", ""], 2, r"have 2 rows or more \(none\)"),
        (["a", "b"] * 3, 1, "--folds is 1; it must be at least 2"),
    ],
)
def test_what_cannot_be_folded(labels, folds, message):
    with pytest.raises(InputError, match=message):
        make_folds(labels, None, folds=folds, seed=0)


def test_scores_by_hand():
    folds = make_folds(LABELS, None, folds=5, seed=0)
    guess = majority_score(folds)
    want = [
        f1_score(folds.classes[folds.fold == k], [0] * 10, average="weighted") for k in range(5)
    ]
    np.testing.assert_allclose(guess.f1, want)
    assert guess.confusion.tolist() == [[30, 0], [20, 0]] and guess.accuracy == 0.6
    assert guess.f1_macro == pytest.approx(0.375)
    told = []
    telling = folds.classes[:, None].astype(np.float32)
    perfect = probe("x", telling, folds, seed=0, trees=30, progress=lambda *at: told.append(at))
    assert perfect.mean == 1 and perfect.spread == 0 and told[-1] == (5, 5)
    noise = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    assert probe("noise", noise, folds, seed=0, trees=5).mean < 0.8
    row = scores_table([perfect])[0]
    assert row["weighted F1"] == 1 and row["features"] == "x"


def test_composition_says_nothing_of_the_length():
    one, two = composition([encode("ACGT" * 50), encode("A")], 2), composition([encode("AA")], 2)
    assert one.shape == (2, 4 + 16)
    np.testing.assert_allclose(one[0, :4], 0.25)
    assert one[1].tolist() == [1, 0, 0, 0, *[0] * 16]
    assert two[0].tolist() == [1, 0, 0, 0, 1, *[0] * 15]
