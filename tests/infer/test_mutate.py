"""Scores of all substitutions: equal to one whole pass each, wherever and however they are read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna.alphabet import COMPLEMENT, N, encode, reverse_complement_ids
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.infer.mutate import (
    STRANDS,
    Reach,
    fit_reach,
    mutate,
    mutate_piece,
    mutate_whole,
    piece_tokens,
    pieces,
)
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.decoding import Decoder


def make_model(dtype=torch.float64, length=60, **options) -> HyenaDNA:
    torch.manual_seed(0)
    model = HyenaDNA(ModelConfig(d_model=8, n_layer=2, max_seq_len=length, filter_order=8)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)  # so that substitutions matter
    return model.to(dtype)


MODEL = make_model()


def random_ids(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(7, 12, length).astype(np.uint8)


def assert_same(got, want, tolerance: float) -> None:
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


@settings(max_examples=12)
@given(
    length=st.integers(1, 22),
    after=st.one_of(st.none(), st.integers(0, 25)),
    strands=st.sampled_from(STRANDS),
    seed=st.integers(0, 3),
)
def test_equals_a_whole_pass_for_each_mutant(length, after, strands, seed):
    ids = random_ids(length, seed)
    got = mutate(MODEL, ids, after=after, strands=strands)
    assert_same(got, mutate_whole(MODEL, ids, after=after, strands=strands), 1e-9)


@pytest.mark.parametrize("kernels", ["auto", "torch", "plain"])
def test_equals_it_in_float32(kernels):
    model = make_model(torch.float32)
    model.set_engine(kernels)
    ids = random_ids(22)
    for after in (0, 9, None):
        assert_same(mutate(model, ids, after=after), mutate_whole(model, ids, after=after), 1e-4)


def test_the_transformer_baseline_too():
    torch.manual_seed(0)
    model = HyenaDNA(ModelConfig(d_model=16, n_layer=2, max_seq_len=60, mixer="attention")).eval()
    ids = random_ids(40)
    assert_same(mutate(model, ids, after=7), mutate_whole(model, ids, after=7), 1e-4)


@settings(max_examples=6)
@given(
    block=st.sampled_from([1, 3, 16, 50]),
    row_tokens=st.sampled_from([50, 1 << 14]),
    piece=st.sampled_from([7, 20, 50]),
    start=st.integers(0, 40),
)
def test_neither_blocks_nor_batches_nor_pieces_change_a_score(block, row_tokens, piece, start):
    ids = random_ids(50)
    reach = Reach(after=6, context=50, piece=piece)
    want = mutate(MODEL, ids, after=6)
    decoder = Decoder(MODEL)
    parts = [
        mutate_piece(
            decoder, lambda a, b: ids[a:b], 50, each, reach, block=block, row_tokens=row_tokens
        )
        for each in pieces(start, 45, 50, reach)
    ]
    got = [np.concatenate(each) for each in zip(*parts, strict=True)]
    assert_same(got, [values[start:45] for values in want], 1e-9)


def test_the_work_is_known_before():
    ids = encode("ACGT" * 12)
    reach = Reach(after=6, context=50, piece=10)
    for strands in STRANDS:
        for piece in pieces(3, 48, 48, reach):
            told: list[int] = []
            mutate_piece(
                Decoder(MODEL), lambda a, b: ids[a:b], 48, piece, reach, strands,
                progress=told.append,
            )  # fmt: skip
            assert sum(told) == piece_tokens(piece, 48, reach, strands)


def test_strands():
    ids = random_ids(40)
    one, other = (mutate(MODEL, ids, strands=s) for s in ("forward", "reverse"))
    turned = mutate(MODEL, reverse_complement_ids(ids), strands="forward")
    assert_same(other[1:], [values[::-1, ::-1] for values in turned[1:]], 1e-12)
    both = mutate(MODEL, ids)
    inside = slice(1, -1)  # where both have a prediction
    for name in ("score", "allele"):
        mean = (getattr(one, name) + getattr(other, name)) / 2
        np.testing.assert_allclose(getattr(both, name)[inside], mean[inside], atol=1e-12)
    for name in ("score", "allele"):  # where one has none of the base, it does not count
        np.testing.assert_array_equal(getattr(both, name)[0], getattr(other, name)[0])
        np.testing.assert_array_equal(getattr(both, name)[-1], getattr(one, name)[-1])
    opposite = mutate(MODEL, reverse_complement_ids(ids))
    assert_same(both[1:], [values[::-1, ::-1] for values in opposite[1:]], 1e-9)
    np.testing.assert_array_equal(both.bases, COMPLEMENT[opposite.bases[::-1]])


def test_a_model_in_training_is_read_as_it_will_be():
    model, ids = make_model().train(), random_ids(20)
    assert_same(mutate(model, ids, after=3), mutate(MODEL, ids, after=3), 0)
    assert model.training and model.backbone.dropout.training


def test_what_is_missing():
    ids = encode("NACGNT")
    found = mutate(MODEL, ids, strands="forward")
    assert np.isnan(found.score[[0, 4]]).all() and np.isnan(found.allele[[0, 4]]).all()
    for position, base in ((1, 0), (2, 1), (3, 2), (5, 3)):
        assert np.isnan(found.score[position]).tolist() == [base == column for column in range(4)]
    first = mutate(MODEL, encode("ACG"), strands="forward")
    assert np.isnan(first.allele[0]).all() and not np.isnan(first.score[0, 1:]).any()
    assert np.isnan(mutate(MODEL, encode("ACG"), strands="forward", after=0).score[0]).all()
    assert np.isnan(mutate(MODEL, encode("A")).score).all()
    none = mutate(MODEL, np.full(9, N, dtype=np.uint8))
    assert np.isnan(none.score).all() and np.isnan(none.allele).all()


def test_n_among_what_follows_does_not_count():
    ids = encode("ACGTNNNN")
    some, none = (mutate(MODEL, ids, after=k, strands="forward") for k in (None, 0))
    np.testing.assert_allclose(some.score[3], none.score[3], equal_nan=True, atol=1e-12)


def test_longer_than_the_model():
    """On a grid, each position behind at least the context: as if it were cut out."""
    ids = random_ids(200)
    found = mutate(MODEL, ids, after=10)
    reach = fit_reach(MODEL, 200, after=10)
    assert reach.context + reach.piece + 10 == 60 and reach.context == 35
    for p in (0, 30, 77, 199):
        low = p // 15 * 15
        begin, end = max(0, low - 35), min(200, p + 11)
        forward = mutate_whole(MODEL, ids[begin:end], after=10, strands="forward")
        begin_, end_ = max(0, p - 10), min(200, low + 15 + 35)
        backward = mutate_whole(MODEL, ids[begin_:end_], after=10, strands="reverse")
        both = [forward.score[p - begin], backward.score[p - begin_]]
        # at an end only one strand has a prediction of the base
        want = {0: both[1], 199: both[0]}.get(p, sum(both) / 2)
        np.testing.assert_allclose(found.score[p], want, atol=1e-9)


@pytest.mark.parametrize(
    "length, options, said",
    [
        (0, {}, "is empty"),
        (100, {"after": None}, "61|--after 15"),
        (100, {"after": 50}, "--after 50 and --context 1 do not fit into the 60"),
        (100, {"after": 5, "context": 50}, "--context 50 do not fit"),
        (9, {"after": -1}, "--after is -1"),
        (9, {"context": -1}, "--context is -1"),
        (9, {"strands": "both"}, "strands is 'both'"),
    ],
)
def test_refuses(length, options, said):
    with pytest.raises(InputError, match=said):
        mutate(MODEL, random_ids(length), **options)
