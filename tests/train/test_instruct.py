"""Instruction tuning in brief, and intervals over rows and draws."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from hyenadna.alphabet import IGNORED, SEP, A, N, encode
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.digest import weights_digest
from hyenadna.train.bootstrap_draws import draws_difference, draws_interval
from hyenadna.train.instruct import instruct
from hyenadna.training_config import InstructConfig


def fresh() -> HyenaDNA:
    torch.manual_seed(0)
    return HyenaDNA(ModelConfig(d_model=16, n_layer=1, max_seq_len=66, filter_order=16)).eval()


def sample(text: str, answer: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.append(encode(text), SEP).astype(np.uint8)
    targets = np.full(len(ids), IGNORED)
    targets[-1] = answer
    return ids, targets


SAMPLES = [sample("AAAA" if i % 2 else "CCC", A if i % 2 else N) for i in range(9)]


def test_it_learns_and_says_each_step():
    model = fresh()
    reports = list(instruct(model, SAMPLES, InstructConfig(lr=0.01, epochs=30), seed=0))
    assert [r.step for r in reports] == list(range(1, 151)) and reports[0].steps == 150
    assert reports[0].loss > 2 and reports[-1].loss < 0.3
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def test_a_copy_leaves_the_model_and_is_the_same_each_time():
    model = fresh()
    before = weights_digest(model)
    found = []
    for seed in (0, 0, 1):
        tuned = copy.deepcopy(model)
        list(instruct(tuned, SAMPLES, InstructConfig(epochs=2), seed=seed))
        found.append(weights_digest(tuned))
    assert weights_digest(model) == before
    assert found[0] == found[1] != found[2] and before not in found


def test_padding_counts_for_nothing():
    """A batch of unequal rows has the mean loss of its letters."""
    pair = [sample("ACGTACGT", A), sample("CC", N)]
    alone = [next(instruct(fresh(), [one], InstructConfig(), seed=0)).loss for one in pair]
    both = next(instruct(fresh(), pair, InstructConfig(), seed=0)).loss
    assert both == pytest.approx(np.mean(alone), abs=1e-5)


def test_errors():
    with pytest.raises(InputError, match="no samples"):
        next(instruct(fresh(), [], InstructConfig(), seed=0))
    bare = (encode("ACG"), np.full(3, IGNORED))
    with pytest.raises(InputError, match="without a target"):
        next(instruct(fresh(), [bare], InstructConfig(), seed=0))
    model = fresh()
    with torch.no_grad():
        model.head_weight.fill_(float("nan"))
    with pytest.raises(InputError, match="smaller --lr"):
        next(instruct(model, SAMPLES, InstructConfig(), seed=0))
    for field, value in [("lr", 0), ("weight_decay", -1), ("batch_size", 0), ("epochs", 0),
                         ("clip", 0), ("tune_on", "some")]:  # fmt: skip
        with pytest.raises(InputError, match=f"--{field.replace('_', '-')} is {value}"):
            InstructConfig(**{field: value})


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(60):
        rows = rng.random((1, 100)) < 0.7
        found = draws_interval(rows)
        assert found.value == pytest.approx(rows.mean())
        inside += found.low <= 0.7 <= found.high
    assert inside >= 51  # 57 on average


def test_draws_that_differ_widen_an_interval():
    same = draws_interval(np.repeat(np.arange(100)[None] % 2, 5, axis=0))
    apart = draws_interval(np.repeat(np.arange(5)[:, None] % 2, 100, axis=1))
    assert apart.high - apart.low > 3 * (same.high - same.low)


def test_pairs_are_compared_row_by_row():
    rng = np.random.default_rng(0)
    first = rng.random((3, 200)) < 0.6
    gap = draws_difference(first, first)
    assert (gap.value, gap.low, gap.high, gap.better) == (0, 0, 0, 0.5)
    worse = first & (rng.random((3, 200)) < 0.9)
    gap = draws_difference(first, worse)
    assert gap.low > 0 and gap.better == 1
    assert draws_difference(first, worse[:1]).value == pytest.approx(
        first.mean() - worse[:1].mean()
    )
    for bad in (np.zeros((0, 3)), np.zeros(3)):
        with pytest.raises(InputError, match="draws"):
            draws_interval(bad)
    with pytest.raises(InputError, match="same rows"):
        draws_difference(first, first[:, :5])
