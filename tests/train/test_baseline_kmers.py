"""Linear models on k-mers where there are hundreds of labels: the same minimum, in less time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import sparse
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from hyenadna.data.labelled_data import LabelledData, Task
from hyenadna.train import baseline_kmers
from hyenadna.train.baseline_kmers import fit_kmers, fit_path
from hyenadna.train.baselines import Majority, known_targets
from hyenadna.train.metrics import metrics


def labels_of(rows: int, labels: int, *, seed: int = 0) -> LabelledData:
    """Sequences whose labels say which share of A they have, with noise."""
    random = np.random.default_rng(seed)
    shares = random.uniform(0.1, 0.6, rows)
    bases = np.array([7, 8, 9, 10], np.uint8)
    sequences = tuple(
        random.choice(bases, 80, p=[share, *[(1 - share) / 3] * 3]) for share in shares
    )
    noisy = shares[:, None] + random.normal(0, 0.05, (rows, labels))
    targets = noisy > np.linspace(0.2, 0.5, labels)
    return LabelledData(
        "made", sequences, targets.astype(np.float32),
        Task("labels", tuple(f"y_{i}" for i in range(labels))),
        np.array(["train"] * rows), tuple(map(str, range(rows))),
    )  # fmt: skip


@pytest.fixture
def many(monkeypatch):
    """Three labels count as many."""
    monkeypatch.setattr(baseline_kmers, "_MANY_LABELS", 2)


@pytest.mark.parametrize("at_once", [7, 1 << 20])
def test_many_labels_have_the_minimum_of_scikit_learn(many, monkeypatch, at_once):
    monkeypatch.setattr(baseline_kmers, "_CELLS_AT_ONCE", at_once)
    data = labels_of(120, 3)
    random = np.random.default_rng(1)
    x = sparse.csr_matrix(random.normal(size=(120, 6)).astype(np.float32))
    for (strength, model), same in zip(fit_path(x, data, (0.01, 1.0), 0), (0.01, 1.0), strict=True):
        assert strength == same
        for label in range(3):
            theirs = LogisticRegression(C=strength, tol=1e-8, max_iter=1000)
            theirs.fit(x, data.targets[:, label])
            want = theirs.predict_proba(x)[:, 1]
            assert model.outputs(x)[:, label] == pytest.approx(want, abs=2e-3)


def test_many_labels_and_few_find_the_same_weights(monkeypatch):
    """With holes in the targets, a label without a positive, and rows a few at a time."""
    data = labels_of(150, 4)
    targets = data.targets.copy()
    targets[::7, 1] = np.nan
    targets[:, 2] = 0
    data = dataclasses.replace(data, targets=targets)
    x = sparse.csr_matrix(np.random.default_rng(2).normal(size=(150, 5)).astype(np.float32))
    ((_, few),) = fit_path(x, data, (0.1,), 0)
    monkeypatch.setattr(baseline_kmers, "_MANY_LABELS", 2)
    ((_, many),) = fit_path(x, data, (0.1,), 0)
    assert many.weights == pytest.approx(few.weights, abs=1e-2)
    assert expit(x @ few.weights + few.intercept) == pytest.approx(few.outputs(x), abs=1e-12)


def test_many_labels_have_short_words_and_so_many_rows(many, monkeypatch):
    data = labels_of(300, 3)
    train, valid = data.select(np.arange(200)), data.select(np.arange(200, 300))
    whole = fit_kmers(train, valid, 0)
    assert whole.features.k == 4 and "rows" not in whole.chosen
    monkeypatch.setattr(baseline_kmers, "_ROWS_OF_MANY", 90)
    cut = fit_kmers(train, valid, 0)
    assert cut.chosen.endswith(", 90 of 200 rows")
    found = metrics("labels", valid.targets, cut.predict(valid.sequences))
    assert found["auroc"] > 0.85


def test_labels_held_as_bool_are_the_same(many):
    data = labels_of(120, 3)
    small = dataclasses.replace(data, targets=data.targets == 1)
    assert known_targets(small) == known_targets(data) == 360
    assert np.array_equal(Majority.fit(small).answer, Majority.fit(data).answer)
    both = [fit_kmers(each, each, 0).predict(each.sequences) for each in (data, small)]
    assert np.array_equal(*both)


def test_majority_is_the_mean_of_what_is_known_in_any_blocks(monkeypatch):
    data = labels_of(50, 3)
    targets = data.targets.copy()
    targets[3:20, 0] = np.nan
    targets[:, 1] = np.nan
    data = dataclasses.replace(data, targets=targets)
    monkeypatch.setattr("hyenadna.train.baselines._ROWS_AT_ONCE", 8)
    want = [np.nanmean(targets[:, 0]), 0.5, targets[:, 2].mean()]
    assert Majority.fit(data).answer == pytest.approx(want, rel=1e-6)
    assert known_targets(data) == 33 + 50
