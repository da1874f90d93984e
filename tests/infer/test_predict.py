"""Predictions come in order, and no sequence knows its neighbours."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.infer.predict import batches, predict
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.heads import TaskModel

SHAPE = ModelConfig(d_model=16, n_layer=1, max_seq_len=64)


def small_model(kind="classes", outputs=3, dtype=torch.float64, **options) -> TaskModel:
    torch.manual_seed(0)
    task = SimpleNamespace(kind=kind, outputs=outputs, names=tuple("abcdef"[:outputs]))
    return TaskModel(HyenaDNA(SHAPE), task, **options).to(dtype).eval()


def sequences(lengths, seed=0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(7, 12, n).astype(np.uint8) for n in lengths]


@settings(max_examples=15)
@given(
    lengths=st.lists(st.integers(1, 64), min_size=1, max_size=12),
    batch_tokens=st.integers(1, 300),
    kind=st.sampled_from(["classes", "labels", "values", "tokens"]),
)
def test_a_sequence_is_the_same_alone_and_in_any_batch(lengths, batch_tokens, kind):
    model, rows = small_model(kind), sequences(lengths)
    together = list(predict(model, rows, batch_tokens=batch_tokens))
    assert len(together) == len(rows)
    for ids, got in zip(rows, together, strict=True):
        (alone,) = predict(model, [ids])
        assert got.dtype == np.float32
        assert got.shape == ((len(ids), 3) if kind == "tokens" else (3,))
        assert np.allclose(got, alone, rtol=1e-6, atol=1e-7)
        raw = model(torch.from_numpy(ids.astype(np.int64)), torch.tensor([len(ids)]))[0]
        said = {"labels": raw.sigmoid(), "values": raw}.get(kind, raw.softmax(-1))
        assert np.allclose(got, said.detach().numpy(), rtol=1e-6, atol=1e-7)


@given(
    lengths=st.lists(st.integers(1, 100), max_size=30), batch_tokens=st.integers(1, 400)
)  # fmt: skip
def test_batches_hold_every_row_once_within_the_budget(lengths, batch_tokens):
    made = batches(lengths, batch_tokens)
    assert sorted(row for batch in made for row in batch) == list(range(len(lengths)))
    for batch in made:
        sizes = [lengths[row] for row in batch]
        assert len(batch) == 1 or len(batch) * max(sizes) <= batch_tokens
        assert 2 * min(sizes) >= max(sizes)


class Lazy:
    """Sequences that are made when asked for, and count how far they were read."""

    def __init__(self, n: int) -> None:
        self.n, self.read = n, 0

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> np.ndarray:
        self.read = max(self.read, index + 1)
        if index >= self.n:
            raise IndexError(index)
        return sequences([20], seed=index)[0]


def test_sequences_are_read_as_they_are_needed_and_results_come_in_order():
    model, lazy = small_model(), Lazy(100)
    progress = []
    results = predict(model, lazy, batch_tokens=40, progress=lambda *done: progress.append(done))
    first = next(results)
    assert lazy.read == 32  # 16 batches of two
    rest = list(results)
    assert len(rest) == 99 and progress[-1] == (100, 100)
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)
    for i, got in ((0, first), (99, rest[-1]), (33, rest[32])):
        (alone,) = predict(model, sequences([20], seed=i))
        assert np.allclose(got, alone, atol=1e-7)


def test_both_strands_and_training_mode():
    model = small_model(strands="average", dropout=0.5).train()
    ids = sequences([30])[0]
    complement = np.array([*range(7), 10, 9, 8, 7, 11], dtype=np.uint8)
    one, other = predict(model, [ids, complement[ids[::-1]]])
    assert np.allclose(one, other, atol=1e-6) and abs(one.sum() - 1) < 1e-6
    assert model.training and model.dropout.training


def test_bad_sequences_are_named():
    model = small_model()
    with pytest.raises(InputError, match=r"sequence 2: has 65 tokens; this model reads 1 to 64"):
        list(predict(model, sequences([10, 65])))
    with pytest.raises(InputError, match=r"sequence 1: has 0 tokens"):
        list(predict(model, sequences([0])))
    with pytest.raises(InputError, match=r"batch_tokens is 0"):
        list(predict(model, sequences([5]), batch_tokens=0))
    assert list(predict(model, [])) == []
