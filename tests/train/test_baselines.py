"""Baselines: they find what is there, choose on valid only, and are functions of data and seed."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from hyenadna.alphabet import IGNORED, decode, encode, reverse_complement_ids
from hyenadna.data.labelled_data import LabelledData, Task
from hyenadna.errors import InputError
from hyenadna.train.baseline_cnn import CnnConfig, DilatedCnn, fit_cnn
from hyenadna.train.baseline_context import context_features
from hyenadna.train.baseline_kmers import (
    canonical_columns,
    count_words,
    fit_kmers,
    fit_path,
    word_frequencies,
)
from hyenadna.train.baselines import fit_baseline

SMALL = CnnConfig(width=16, dilations=(1, 2, 4), epochs=8, batch_size=32)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_ids(rng, length, gc=0.5):
    p = [(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2]
    return (7 + rng.choice(4, size=length, p=p)).astype(np.uint8)


def data_of(sequences, targets, task, parts=(0.6, 0.2)):
    n = len(sequences)
    a, b = int(parts[0] * n), int((parts[0] + parts[1]) * n)
    splits = np.array(["train"] * a + ["valid"] * (b - a) + ["test"] * (n - b))
    return LabelledData(
        "toy", tuple(sequences), targets, task, splits, tuple(f"s{i}" for i in range(n))
    )


@pytest.fixture(scope="module")
def motif():
    """Two classes: a motif stands somewhere, or not."""
    rng = np.random.default_rng(0)
    word = encode("TTGACAGT")
    sequences, targets = [], rng.integers(0, 2, 240)
    for target in targets:
        ids = random_ids(rng, int(rng.integers(40, 61)))
        if target:
            at = int(rng.integers(0, len(ids) - len(word)))
            ids[at : at + len(word)] = word
        sequences.append(ids)
    return data_of(sequences, targets.astype(np.int64), Task("classes", ("no", "yes")))


@pytest.fixture(scope="module")
def composition():
    """Labels and values that follow the share of G and C, with holes."""
    rng = np.random.default_rng(1)
    gc = rng.uniform(0.2, 0.8, 200)
    sequences = [random_ids(rng, 120, g) for g in gc]
    share = np.array([np.isin(ids, (8, 9)).mean() for ids in sequences])
    labels = np.stack([share > 0.5, share < 0.4], axis=1).astype(np.float32)
    values = np.stack([10 * share - 3, -share], axis=1).astype(np.float32)
    for targets in (labels, values):
        targets[rng.random(targets.shape) < 0.1] = np.nan
    return (
        data_of(sequences, labels, Task("labels", ("rich", "poor"))),
        data_of(sequences, values, Task("values", ("a", "b"))),
    )


@pytest.fixture(scope="module")
def per_base():
    """One class per base: stretches rich in G and C, and the rest."""
    rng = np.random.default_rng(2)
    sequences, targets = [], []
    for _ in range(20):
        rich = np.repeat(rng.integers(0, 2, 6), 50)
        where = rng.random(300) < np.where(rich, 0.9, 0.1)
        ids = np.where(where, 8 + rng.integers(0, 2, 300), 7 + 3 * rng.integers(0, 2, 300))
        sequences.append(ids.astype(np.uint8))
        target = rich.astype(np.int64)
        target[:5] = IGNORED
        targets.append(target)
    return data_of(sequences, tuple(targets), Task("tokens", ("-", "+")))


def test_words_are_counted_as_a_slow_count_does():
    rng = np.random.default_rng(3)
    texts = ["ACGTACGGT", "NNACGTNACG", "AC", "N", decode(random_ids(rng, 70))]
    for k in (1, 2, 3, 5):
        words = ["".join("ACGT"[i // 4**j % 4] for j in reversed(range(k))) for i in range(4**k)]
        plain = count_words([encode(t) for t in texts], k, canonical=False).toarray()
        folded = count_words([encode(t) for t in texts], k, canonical=True).toarray()
        twin = canonical_columns(k)
        for row, text in enumerate(texts):
            slow = Counter(text[i : i + k] for i in range(len(text) - k + 1))
            assert plain[row].tolist() == [slow[word] for word in words]
            assert folded[row].tolist() == np.bincount(twin, plain[row]).tolist()
    with pytest.raises(InputError, match="k is 7"):
        count_words([encode("ACGT")], 7, canonical=False)


def test_canonical_features_do_not_know_the_strand():
    ids = random_ids(np.random.default_rng(4), 200, 0.3)
    pair = [ids, reverse_complement_ids(ids)]
    both = word_frequencies(pair, 5, canonical=True).toarray()
    kept = word_frequencies(pair, 5, canonical=False).toarray()
    assert np.array_equal(both[0], both[1]) and not np.array_equal(kept[0], kept[1])
    assert both[0].sum() == pytest.approx(5 + np.log(200), rel=1e-5)  # shares of 1 .. 5, length


def accuracy(model, data):
    test = data.part("test")
    return (model.predict(test.sequences).argmax(axis=1) == test.targets).mean()


def test_kmers_find_a_motif_and_majority_does_not(motif):
    kmer = fit_baseline("kmer", motif, 0)
    assert accuracy(kmer, motif) > 0.8
    majority = fit_baseline("majority", motif, 0)
    train = motif.part("train")
    share = train.targets.mean()
    assert majority.predict(motif.sequences[:3]) == pytest.approx(
        np.tile([1 - share, share], (3, 1)), abs=1e-6
    )
    outputs = kmer.predict(motif.sequences)
    assert outputs.dtype == np.float32 and outputs.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_logistic_equals_scikit_learn_and_labels_equal_logistic(motif):
    from sklearn.linear_model import LogisticRegression

    train = motif.part("train")
    x = word_frequencies(train.sequences, 2, canonical=False) * 10
    ((_, ours),) = fit_path(x, train, (0.1,), 0)
    theirs = LogisticRegression(C=0.1, max_iter=300).fit(x, train.targets).predict_proba(x)
    assert ours.outputs(x) == pytest.approx(theirs, abs=1e-6)
    task, target = Task("labels", ("yes",)), train.targets[:, None].astype(np.float32)
    as_label = dataclasses.replace(train, task=task, targets=target)
    ((_, label),) = fit_path(x, as_label, (0.1,), 0)
    assert label.outputs(x)[:, 0] == pytest.approx(theirs[:, 1], abs=2e-3)


def test_kmers_fit_labels_and_values_with_holes(composition):
    labels, values = composition
    test = labels.part("test")
    out = fit_baseline("kmer", labels, 0).predict(test.sequences)
    known = ~np.isnan(test.targets)
    assert ((out > 0.5) == test.targets)[known].mean() > 0.85
    test = values.part("test")
    out = fit_baseline("kmer", values, 0).predict(test.sequences)
    for j in range(2):
        rows = ~np.isnan(test.targets[:, j])
        assert np.corrcoef(out[rows, j], test.targets[rows, j])[0, 1] > 0.95


@pytest.mark.parametrize("name", ["majority", "kmer", "cnn"])
def test_every_kind_is_predicted_in_its_shape(name, motif, composition, per_base, monkeypatch):
    if name == "cnn":
        monkeypatch.setattr("hyenadna.train.baseline_cnn.CnnConfig", lambda: dataclasses.replace(
            SMALL, epochs=1
        ))  # fmt: skip
    for data in (motif, *composition, per_base):
        model = fit_baseline(name, data, 0)
        some = data.sequences[:5]
        rows = sum(map(len, some)) if data.task.kind == "tokens" else 5
        out = model.predict(some)
        assert out.shape == (rows, data.task.outputs) and out.dtype == np.float32
        assert np.isfinite(out).all() and model.name == name and model.chosen
        if data.task.kind in ("classes", "tokens"):
            assert out.sum(axis=1) == pytest.approx(1, abs=1e-4)
        if data.task.kind == "labels":
            assert out.min() >= 0 and out.max() <= 1


def test_cnn_learns_and_its_outputs_do_not_depend_on_the_batch(motif):
    train, valid = motif.part("train"), motif.part("valid")
    model = fit_cnn(train, valid, 0, config=dataclasses.replace(SMALL, epochs=20, patience=20))
    assert accuracy(model, motif) > 0.8
    together = model.predict(motif.sequences[:20])
    alone = np.concatenate([model.predict([ids]) for ids in motif.sequences[:20]])
    assert together == pytest.approx(alone, abs=1e-5)


def test_cnn_tells_where_in_an_aligned_window_a_motif_stands():
    rng = np.random.default_rng(6)
    targets = rng.integers(0, 2, 300)
    sequences = []
    for target in targets:  # the same two words in both classes, in another order
        ids = random_ids(rng, 61)
        at = rng.permutation([10, 30]) if not target else np.array([30, 10])
        ids[at[0] : at[0] + 6], ids[at[1] : at[1] + 6] = encode("GGTAAG"), encode("TTTCAG")
        if not target:
            ids[30:36] = encode("TTTCAG") if at[0] == 10 else random_ids(rng, 6)
        sequences.append(ids)
    data = data_of(sequences, targets.astype(np.int64), Task("classes", ("no", "yes")))
    config = dataclasses.replace(SMALL, epochs=12)
    model = fit_cnn(data.part("train"), data.part("valid"), 0, config=config)
    assert accuracy(model, data) > 0.9


def test_cnn_padding_changes_nothing():
    torch.manual_seed(0)
    network = DilatedCnn("classes", 3, SMALL).eval()
    network.norms[0].bias.data.fill_(1.0)  # a bias that would leak in from the padding
    tokens = torch.randint(7, 11, (2, 30))
    longer = torch.nn.functional.pad(tokens, (0, 50), value=4)
    lengths = torch.tensor([30, 30])
    with torch.inference_mode():
        short, long = network(tokens, lengths), network(longer, lengths)
    assert torch.allclose(short, long, atol=1e-5)


@pytest.mark.parametrize("name", ["kmer", "cnn"])
def test_a_fit_is_a_function_of_data_and_seed_and_never_sees_test(name, motif, monkeypatch):
    if name == "cnn":
        monkeypatch.setattr("hyenadna.train.baseline_cnn.CnnConfig", lambda: dataclasses.replace(
            SMALL, epochs=2
        ))  # fmt: skip
    state = torch.random.get_rng_state()
    first = fit_baseline(name, motif, 3).predict(motif.sequences)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - the state of the caller must not matter
    spoiled = motif.targets.copy()
    spoiled[motif.splits == "test"] = 1 - spoiled[motif.splits == "test"]
    again = fit_baseline(name, dataclasses.replace(motif, targets=spoiled), 3)
    assert np.array_equal(first, again.predict(motif.sequences))
    if name == "cnn":
        other = fit_baseline(name, motif, 4).predict(motif.sequences)
        assert not np.array_equal(first, other)


def test_per_base_baselines_beat_the_majority(per_base):
    test = per_base.part("test")
    truth = np.concatenate(test.targets)
    known = truth != IGNORED
    kmer = fit_baseline("kmer", per_base, 0).predict(test.sequences)
    assert (kmer.argmax(axis=1) == truth)[known].mean() > 0.85


def test_context_features_are_counts_by_phase():
    ids = encode("ACGTACGGTTACGATTACGANCGTTAGGATCC" * 8)
    bases = decode(ids)
    at = np.array([0, 100, len(ids) - 1])
    words = 4 * 13
    features = context_features(ids, at)
    for row, i in enumerate(at):
        letters = features[row, :words].reshape(13, 4)
        for j, offset in enumerate(range(-6, 7)):
            inside = 0 <= i + offset < len(ids)
            letter = bases[i + offset] if inside else "N"
            assert letters[j].tolist() == [float(letter == b) for b in "ACGT"]
        slow = np.zeros((3, 64))
        for p in range(max(i - 60, 0), min(i + 60, len(ids) - 3) + 1):
            word = bases[p : p + 3]
            if "N" not in word:
                slow[(p - i) % 3, sum("ACGT".index(b) * 4**j for b, j in zip(word, (2, 1, 0)))] += 1  # noqa: B905
        assert features[row, words:] == pytest.approx(slow.reshape(-1) / 20)


def test_a_long_sequence_is_predicted_in_pieces_that_agree(per_base, monkeypatch):
    model = fit_baseline("kmer", per_base, 0)
    whole = np.concatenate(per_base.sequences[:6])
    at_once = model.predict([whole])
    monkeypatch.setattr("hyenadna.train.baseline_context._PIECE", 137)
    assert model.predict([whole]) == pytest.approx(at_once, abs=1e-6)


def test_rows_without_a_class_are_left_out(motif):
    targets = motif.targets.copy()
    targets[::7] = IGNORED
    kept = np.flatnonzero(targets != IGNORED)
    masked = fit_baseline("kmer", dataclasses.replace(motif, targets=targets), 0)
    without = fit_baseline("kmer", motif.select(kept), 0)
    assert masked.predict(motif.sequences) == pytest.approx(without.predict(motif.sequences))


def test_a_class_that_train_lacks_gets_no_chance():
    rng = np.random.default_rng(5)
    targets = np.tile([0, 2], 40).astype(np.int64)
    sequences = [random_ids(rng, 50, 0.2 + 0.3 * t) for t in targets]
    data = data_of(sequences, targets, Task("classes", ("a", "b", "c")))
    out = fit_baseline("kmer", data, 0).predict(sequences)
    assert out.shape == (80, 3) and not out[:, 1].any()
    assert (out.argmax(axis=1) == targets).mean() > 0.9


def test_bad_data_is_told(motif):
    with pytest.raises(InputError, match="no baseline 'svm'; there are majority, kmer, hmm, cnn"):
        fit_baseline("svm", motif, 0)
    with pytest.raises(InputError, match="no rows are valid"):
        fit_baseline("kmer", motif.part("train"), 0)
    one = dataclasses.replace(motif, targets=np.zeros_like(motif.targets))
    with pytest.raises(InputError, match="all train rows are of one class"):
        fit_kmers(one.part("train"), one.part("valid"), 0)
    none = dataclasses.replace(motif, targets=np.full_like(motif.targets, IGNORED))
    with pytest.raises(InputError, match="all targets of the train part are missing"):
        fit_baseline("majority", none, 0)
