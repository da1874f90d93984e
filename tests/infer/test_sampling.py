"""Bases come with the probabilities that they should have, row by row."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyenadna.errors import InputError
from hyenadna.infer.sampling import Chooser, Sampling, Uniforms

BASES = (7, 8, 9, 10)


def naive_probabilities(scores, allowed, temperature, top_k, top_p):
    """Probabilities of one row by the definition, with lists and sorting."""
    weights = [
        math.exp(s / temperature) if a else 0.0 for s, a in zip(scores, allowed, strict=True)
    ]
    total = sum(weights)
    order = sorted(range(len(weights)), key=lambda i: (-weights[i], i))
    order = order[:top_k]
    if top_p is not None and top_p < 1:  # a rounded sum may reach 1 too early
        total = sum(weights[i] for i in order)
        kept, mass = [], 0.0
        for i in order:
            kept.append(i)
            mass += weights[i] / total
            if mass >= top_p:
                break
        order = kept
    total = sum(weights[i] for i in order)
    return [weights[i] / total if i in order else 0.0 for i in range(len(weights))]


def naive_choice(probabilities, uniform):
    mass = 0.0
    for i, p in enumerate(probabilities):
        mass += p
        if p > 0 and uniform < mass:
            return i
    return max(i for i, p in enumerate(probabilities) if p > 0)


rows = st.integers(1, 5).flatmap(
    lambda count: st.tuples(
        st.lists(
            st.tuples(*[st.sampled_from([-3.0, -1.0, 0.0, 0.4, 1.7])] * 5),
            min_size=count, max_size=count,
        ),
        st.lists(
            st.tuples(*[st.booleans()] * 5).filter(any), min_size=count, max_size=count
        ),
        st.lists(st.floats(0, 1, exclude_max=True), min_size=count, max_size=count),
    )
)  # fmt: skip


@given(
    rows,
    st.floats(0.1, 3),
    st.none() | st.integers(1, 6),
    st.none() | st.sampled_from([0.05, 0.313, 0.72, 0.99, 1.0]),
    st.sampled_from([(7, 8, 9, 10, 11), (11, 9, 8, 10, 7)]),
)
def test_choices_are_those_of_the_definition(drawn, temperature, top_k, top_p, letters):
    scores, allowed, uniform = (np.array(x) for x in drawn)
    logits = np.full((len(scores), 16), 50.0)
    logits[:, list(letters)] = scores
    chooser = Chooser(Sampling(temperature, top_k, top_p), letters)
    found = chooser.choose(logits, uniform, allowed)
    for row in range(len(scores)):
        p = naive_probabilities(scores[row], allowed[row], temperature, top_k, top_p)
        assert allowed[row, found[row]] and p[found[row]] > 0
        edges = np.cumsum(p)
        if np.abs(edges - uniform[row]).min() > 1e-9:  # else rounding may decide
            assert found[row] == naive_choice(p, uniform[row])
    alone = [chooser.choose(logits[[i]], uniform[[i]], allowed[[i]])[0] for i in range(len(logits))]
    assert found.tolist() == alone


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.5),
        Sampling(temperature=2.0, top_k=3),
        Sampling(top_p=0.7),
        Sampling(top_k=3, top_p=0.9),
    ],
)
def test_frequencies_fit_the_probabilities(sampling):
    many = 20000
    logits = np.random.default_rng(1).normal(size=16).astype(np.float32)
    allowed = [True, True, False, True]
    uniform = Uniforms(5, [(0, 0)])
    draws = np.array([uniform.draw()[0] for _ in range(many)])
    found = Chooser(sampling, BASES).choose(
        np.repeat(logits[None], many, 0), draws, np.repeat([allowed], many, 0)
    )
    p = naive_probabilities(
        logits[7:11].tolist(), allowed, sampling.temperature, sampling.top_k, sampling.top_p
    )
    expected = many * np.array(p)
    counts = np.bincount(found, minlength=4)
    assert (counts[expected == 0] == 0).all()
    some = expected > 0
    chi_square = ((counts - expected)[some] ** 2 / expected[some]).sum()
    assert chi_square < 13.8  # 1 in 1,000 of two degrees of freedom


def test_temperature_0_is_the_likeliest_allowed_letter():
    logits = np.zeros((3, 16))
    logits[0, 9], logits[1, 8], logits[:, 12] = 2, 1, 9  # 12 is no letter
    allowed = np.array([[True] * 4, [True, False, True, True], [False, False, True, True]])
    chooser = Chooser(Sampling(temperature=0), BASES)
    assert chooser.choose(logits, np.zeros(3)).tolist() == [2, 1, 0]
    assert chooser.choose(logits, np.zeros(3), allowed).tolist() == [2, 0, 2]
    one = Chooser(Sampling(top_k=1), BASES)
    assert one.choose(logits, np.full(3, 0.99), allowed).tolist() == [2, 0, 2]
    cold = Chooser(Sampling(temperature=1e-6), BASES)
    assert cold.choose(logits, np.full(3, 0.3), allowed).tolist() == [2, 0, 2]


def test_wide_filters_change_nothing():
    rng = np.random.default_rng(0)
    logits, uniform = rng.normal(size=(500, 16)), rng.random(500)
    plain = Chooser(Sampling(), BASES).choose(logits, uniform)
    for sampling in (Sampling(top_k=4), Sampling(top_k=99), Sampling(top_p=1.0)):
        assert (Chooser(sampling, BASES).choose(logits, uniform) == plain).all()
    assert set(plain) == {0, 1, 2, 3}


def test_the_ends_of_the_unit_interval_take_letters_that_may_come():
    allowed = np.array([[False, True, True, False]])
    rng = np.random.default_rng(0)
    for _ in range(300):
        logits = rng.normal(size=(1, 16)) * 3
        for uniform, index in ((0.0, 1), (1 - 2**-53, 2)):
            found = Chooser(Sampling(), BASES).choose(logits, np.array([uniform]), allowed)
            assert found.tolist() == [index]


def test_random_numbers_belong_to_the_sample():
    together = Uniforms(7, [(0, 0), (0, 1), (3, 1)])
    drawn = np.array([together.draw() for _ in range(2500)])  # more than two blocks
    for column, row in enumerate([(0, 0), (0, 1), (3, 1)]):
        alone = Uniforms(7, [row])
        assert [alone.draw()[0] for _ in range(2500)] == drawn[:, column].tolist()
    assert drawn.min() >= 0 and drawn.max() < 1
    assert len(np.unique(drawn)) == drawn.size
    correlations = np.corrcoef(drawn.T)[np.triu_indices(3, 1)]
    assert np.abs(correlations).max() < 0.08
    assert Uniforms(8, [(0, 0)]).draw()[0] != drawn[0, 0]


def test_predictions_that_are_no_numbers_are_told():
    chooser = Chooser(Sampling(), BASES)
    for bad in (np.nan, np.inf):
        logits = np.zeros((2, 16))
        logits[1, 8] = bad
        with pytest.raises(InputError, match="not finite numbers"):
            chooser.choose(logits, np.zeros(2))
    with pytest.raises(ValueError, match="no letter that is allowed"):
        chooser.choose(np.zeros((2, 16)), np.zeros(2), np.array([[True] * 4, [False] * 4]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, "temperature is -1; it must be 0"),
        ({"temperature": 1e-9}, "at least 1e-06"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"top_k": 0}, "top_k is 0; it must be a whole number, at least 1"),
        ({"top_k": 1.5}, "top_k is 1.5"),
        ({"top_p": 0}, "top_p is 0; it must be above 0 and at most 1"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"seed": -1}, "seed is -1; it must be a whole number from 0 up"),
    ],
)
def test_bad_values_are_one_line(options, message):
    with pytest.raises(InputError) as error:
        Sampling(**options)
    assert message in str(error.value) and "\n" not in str(error.value)
