"""Batches: every row once, padding is PAD, the order has no bias, strands turn whole rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hyenadna.alphabet import IGNORED, PAD, reverse_complement_ids
from hyenadna.data.labelled_batches import (
    LabelledBatch,
    labelled_batches,
    make_batch,
    plan_batches,
)
from hyenadna.data.labelled_data import LabelledData, Targets, Task
from hyenadna.errors import InputError

RNG = np.random.default_rng(3)


def labelled(lengths: list[int], kind: str = "classes") -> LabelledData:
    n = len(lengths)
    targets: Targets = RNG.integers(0, 2, n)
    if kind == "values":
        targets = RNG.random((n, 2)).astype(np.float32)
    elif kind == "tokens":
        targets = tuple(RNG.integers(0, 2, length) for length in lengths)
    return LabelledData(
        "toy", tuple(RNG.integers(7, 11, length).astype(np.uint8) for length in lengths), targets,
        Task(kind, ("a", "b")), np.array([""] * n), tuple(map(str, range(n))),  # type: ignore[arg-type]
    )  # fmt: skip


MIXED = labelled(RNG.integers(5, 300, 500).tolist(), "tokens")


def rows_of(batches: list[LabelledBatch]) -> list[int]:
    return torch.cat([batch.index for batch in batches]).tolist()


@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("length_bucketing", [True, False])
@pytest.mark.parametrize("rows", [None, 7])
def test_every_row_once_within_the_budget(
    seed: int | None, length_bucketing: bool, rows: int | None
) -> None:
    batches = list(
        labelled_batches(
            MIXED, tokens=2000, rows=rows, seed=seed, length_bucketing=length_bucketing
        )
    )
    assert sorted(rows_of(batches)) == list(range(500))
    for batch in batches:
        b, width = batch.tokens.shape
        assert b * width <= 2000 and b <= (rows or 500)
        assert width == batch.lengths.max()
        for i, row in enumerate(batch.index.tolist()):
            length = int(batch.lengths[i])
            assert batch.tokens[i, :length].tolist() == MIXED.sequences[row].tolist()
            assert (batch.tokens[i, length:] == PAD).all()
            assert batch.targets[i, :length].tolist() == MIXED.targets[row].tolist()
            assert (batch.targets[i, length:] == IGNORED).all()
    if not length_bucketing:
        assert (rows_of(batches) == list(range(500))) == (seed is None)


def test_types_of_targets() -> None:
    for kind, dtype, shape in (
        ("classes", torch.int64, (3,)),
        ("values", torch.float32, (3, 2)),
        ("tokens", torch.int64, (3, 9)),
    ):
        data = labelled([4, 9, 5], kind)
        (batch,) = labelled_batches(data)
        assert batch.tokens.dtype == batch.lengths.dtype == batch.index.dtype == torch.int64
        assert (batch.targets.dtype, tuple(batch.targets.shape)) == (dtype, shape)
        assert batch.index.tolist() == [1, 2, 0] and batch.lengths.tolist() == [9, 5, 4]
    (one,) = labelled_batches(labelled([50]), tokens=10)  # longer than the budget: alone
    assert one.tokens.shape == (1, 50)
    assert list(labelled_batches(labelled([5]).select(np.array([], dtype=np.int64)))) == []


def test_a_function_of_seed_and_epoch() -> None:
    def order(**options: int) -> list[int]:
        return rows_of(list(labelled_batches(MIXED, tokens=2000, **options)))

    assert order(seed=4, epoch=1) == order(seed=4, epoch=1)
    assert order(seed=4, epoch=1) != order(seed=4, epoch=2) != order(seed=5, epoch=2)
    plan = plan_batches(MIXED.lengths, tokens=2000, seed=4, epoch=1)
    assert np.concatenate(plan).tolist() == order(seed=4, epoch=1)


def test_bucketing_saves_padding_and_hides_no_order() -> None:
    lengths = RNG.integers(5, 300, 4000)
    plan = plan_batches(lengths, tokens=2000, seed=0)
    loose = plan_batches(lengths, tokens=2000, seed=0, length_bucketing=False)
    total = lengths.sum()

    def padding(batches: list[np.ndarray]) -> float:
        return float(sum(len(b) * lengths[b].max() for b in batches) / total - 1)

    assert padding(plan) < 0.05 < 0.3 < padding(loose)
    # neither the place of a batch nor the place of a row says how long it is
    means = np.array([lengths[b].mean() for b in plan])
    places = np.arange(len(plan))
    assert abs(np.corrcoef(places, means)[0, 1]) < 4 / np.sqrt(len(plan))
    early = np.zeros(4000)
    for epoch in range(20):
        for batch in plan_batches(lengths, tokens=2000, seed=0, epoch=epoch)[: len(plan) // 2]:
            early[batch] += 1
    # short ones come in large batches; all lengths are as often in the first half of the batches
    for low, high in ((5, 80), (80, 200), (200, 300)):
        assert abs(early[(lengths >= low) & (lengths < high)].mean() - 10) < 1
    # rows of one length are mixed anew in each epoch: few meet again
    same = np.full(600, 100)
    pairs = [
        {frozenset(p) for b in plan_batches(same, rows=2, seed=0, epoch=e) for p in [b.tolist()]}
        for e in (0, 1)
    ]
    assert len(pairs[0] & pairs[1]) < 10


def test_strands() -> None:
    both = list(labelled_batches(MIXED, tokens=2000, seed=0, reverse_complement=0.5))
    turned = 0
    for batch in both:
        for i, row in enumerate(batch.index.tolist()):
            length = int(batch.lengths[i])
            found, ids = batch.tokens[i, :length].numpy(), MIXED.sequences[row]
            flip = not np.array_equal(found, ids)
            assert np.array_equal(found, reverse_complement_ids(ids)) == flip
            expected = MIXED.targets[row][::-1] if flip else MIXED.targets[row]
            assert batch.targets[i, :length].tolist() == expected.tolist()
            turned += flip
    assert 200 < turned < 300
    (all_turned,) = labelled_batches(
        MIXED, tokens=10**6, reverse_complement=1, length_bucketing=False
    )
    again = make_batch(MIXED, np.arange(500), np.ones(500, dtype=bool))
    assert torch.equal(all_turned.tokens, again.tokens)
    other = list(labelled_batches(MIXED, tokens=2000, seed=0, epoch=1, reverse_complement=0.5))
    assert rows_of(other) != rows_of(both)


def test_refusals() -> None:
    for options, words in [
        ({"reverse_complement": 0.5}, "without a seed"),
        ({"reverse_complement": 2, "seed": 0}, "must be in 0 .. 1"),
        ({"tokens": 0}, "must be at least 1"),
        ({"rows": 0}, "must be at least 1"),
        ({"max_length": 100}, "over the limit of 100"),
    ]:
        with pytest.raises(InputError, match=words):
            labelled_batches(MIXED, **options)  # type: ignore[arg-type]
    cut = list(labelled_batches(MIXED, max_length=100, too_long="centre"))
    assert max(batch.tokens.shape[1] for batch in cut) == 100
