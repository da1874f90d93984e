"""Demonstrations: who is shown, what is said of them, and how it is laid out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyenadna.alphabet import IGNORED, PAD, SEP, decode, encode
from hyenadna.data.demonstrations import (
    Demonstrations,
    Layout,
    draw,
    others,
    reordered,
    require_rows,
    right_when_shuffled,
    some_of_each,
    tuning_queries,
    tuning_row,
    with_shuffled_labels,
)
from hyenadna.errors import InputError
from hyenadna.label_words import LabelWords, label_words

TARGETS = np.array([0, 1, 2] * 12 + [IGNORED, 0])
TWO = label_words(["a", "b"])


# -- who is shown ----------------------------------------------------------------------------------


def test_a_draw_has_so_many_of_each_class_with_their_labels():
    shown = draw(TARGETS, 4, 3, seed=0, number=0)
    assert np.bincount(shown.said).tolist() == [4, 4, 4]
    assert (TARGETS[shown.rows] == shown.said).all()
    assert len(set(shown.rows.tolist())) == 12
    assert shown.said.tolist() != sorted(shown.said.tolist())


def test_draws_are_a_function_of_seed_and_number():
    rows = [
        draw(TARGETS, 4, 3, seed=s, number=n).rows.tolist() for s, n in [(0, 0), (0, 1), (1, 0)]
    ]
    assert rows[0] == draw(TARGETS, 4, 3, seed=0, number=0).rows.tolist()
    assert rows[0] != rows[1] != rows[2] != rows[0]


def test_a_row_can_be_left_out():
    first = draw(TARGETS, 4, 3, seed=0, number=0)
    row = int(first.rows[0])
    other = draw(TARGETS, 4, 3, seed=0, number=0, without=row)
    assert row not in other.rows
    assert len(set(other.rows) & set(first.rows)) == 11  # nobody else is moved


def test_no_shots_are_no_rows():
    assert len(draw(TARGETS, 0, 3, seed=0, number=0)) == 0


def test_too_few_rows_say_how_many_there_are():
    with pytest.raises(InputError, match="13 rows of class 'x'; give at most 13"):
        require_rows(TARGETS, 14, 3, names=["x", "y", "z"])
    with pytest.raises(InputError, match="class 'y' beside the query; give at most 11"):
        require_rows(TARGETS, 12, 3, names=["x", "y", "z"], spare=True)
    with pytest.raises(InputError, match="must not be negative"):
        require_rows(TARGETS, -1, 3)


@given(st.integers(2, 5), st.integers(1, 9), st.integers(0, 99))
def test_shuffled_labels_are_right_no_more_than_by_chance(classes, shots, seed):
    targets = np.repeat(np.arange(classes), shots)
    shown = draw(targets, shots, classes, seed=seed, number=0)
    control = with_shuffled_labels(shown, classes, seed=seed, number=0)
    assert (control.rows == shown.rows).all()
    assert np.bincount(control.said).tolist() == [shots] * classes
    right = (control.said == shown.said).mean()
    assert right <= 1 / classes
    assert right == pytest.approx(right_when_shuffled(shots, classes))
    if shots % classes == 0:  # then the labels say nothing at all
        for each in range(classes):
            told = np.bincount(control.said[shown.said == each], minlength=classes)
            assert told.tolist() == [shots // classes] * classes


def test_another_order_keeps_who_is_what():
    shown = draw(TARGETS, 2, 3, seed=0, number=0)
    turned = reordered(shown, seed=0, number=0)
    assert turned.rows.tolist() != shown.rows.tolist()
    pairs = [sorted(zip(each.rows, each.said, strict=True)) for each in (turned, shown)]
    assert pairs[0] == pairs[1]
    pair = Demonstrations(np.array([3, 4]), np.array([0, 1]))
    assert all(reordered(pair, seed=s, number=0).rows.tolist() == [4, 3] for s in range(5))


def test_a_limit_takes_of_each_class_its_share():
    targets = np.array([0] * 60 + [1] * 30 + [2] * 10 + [IGNORED] * 5)
    chosen = some_of_each(targets, 20, seed=0)
    assert np.bincount(targets[chosen]).tolist() == [12, 6, 2]
    assert (np.diff(chosen) > 0).all()
    assert some_of_each(targets, None, seed=0).tolist() == list(range(100))
    assert len(some_of_each(targets, 7, seed=0)) == 7
    with pytest.raises(InputError, match="--limit is 0"):
        some_of_each(targets, 0, seed=0)


def test_calibration_rows_are_others():
    used = np.array([0, 1, 2])
    found = others(TARGETS, 100, without=used, seed=0)
    assert sorted(found.tolist()) == list(range(3, len(TARGETS)))
    assert len(others(TARGETS, 4, without=used, seed=0)) == 4


def test_tuning_takes_the_classes_in_turn():
    queries = tuning_queries(TARGETS, 7, 3, seed=0)
    assert sorted(np.bincount(TARGETS[queries]).tolist()) == [2, 2, 3]
    assert len(set(TARGETS[queries[:3]].tolist())) == 3
    everything = tuning_queries(TARGETS, 37, 3, seed=0)
    assert len(set(everything.tolist())) == 37 and 36 not in everything
    with pytest.raises(InputError, match="has 37 rows"):
        tuning_queries(TARGETS, 38, 3, seed=0)


# -- how it is laid out ----------------------------------------------------------------------------


def test_the_plain_layout():
    layout = Layout(TWO)
    shown = Demonstrations(np.array([1, 0]), np.array([1, 0]))
    prefix = layout.prefix([encode("ACG"), encode("TT")], shown)
    assert decode(prefix, specials=True) == "TT[SEP]N[SEP]ACG[SEP]A[SEP]"
    assert decode(layout.query(encode("GA")), specials=True) == "GA[SEP]"
    assert layout.tokens_of(3) == len(layout.demonstration(encode("ACG"), 0)) == 6


def test_the_layout_of_the_paper_and_the_places_of_its_labels():
    sequences = [encode(text) for text in ("ACG", "T", "GGGG", "CC")]
    layout, width = Layout(TWO, 5), 5
    shown = Demonstrations(np.array([0, 1, 2]), np.array([0, 1, 1]))
    prefix = layout.prefix(sequences, shown)
    assert len(prefix) == 3 * (width + 3)
    assert prefix[:8].tolist() == [PAD, PAD, *encode("ACG"), SEP, TWO.ids[0, 0], SEP]
    ids, targets = tuning_row(layout, sequences, shown, 3, 1, every_label=True)
    whole = np.append(ids, targets[-1])
    # in x + [answer]: width + 1, then 2 width + 4 stepping width + 3
    places = [width + 1, *range(2 * width + 4, len(whole), width + 3)]
    assert len(places) == 4 and places[-1] == len(whole) - 1
    wanted = np.flatnonzero(targets != IGNORED) + 1
    assert wanted.tolist() == places
    assert whole[places].tolist() == [*TWO.ids[[0, 1, 1], 0], TWO.ids[1, 0]]
    with pytest.raises(InputError, match="over the width of 5"):
        layout.query(encode("ACGTAC"))


@pytest.mark.parametrize("every", [False, True])
def test_targets_are_letters_of_words(every):
    words = LabelWords(("a", "b", "c"), ("AC", "GT", "GA"))
    sequences = [encode(text) for text in ("ACG", "T", "GGGG", "CC")]
    shown = Demonstrations(np.array([0, 2]), np.array([2, 1]))
    ids, targets = tuning_row(Layout(words), sequences, shown, 3, 0, every_label=every)
    assert decode(ids, specials=True) == "ACG[SEP]GA[SEP]GGGG[SEP]GT[SEP]CC[SEP]A"
    assert decode(targets[targets != IGNORED]) == ("GAGTAC" if every else "AC")
    assert decode(targets[-2:]) == "AC"
