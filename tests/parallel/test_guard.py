"""A rank whose numbers are no numbers stops the step of all; bf16 is that of one process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.parallel.ranks import on_ranks

from hyenadna.config import ModelConfig
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.parallel.ranks import ALONE, Ranks
from hyenadna.train.loop import StepReport, Trainer
from hyenadna.training_config import PretrainConfig


class Drawn:
    """Batches of drawn bases, dealt out to ranks."""

    def __init__(self) -> None:
        self.step = 0

    def batch(self, batch_size: int, length: int, *, rank: int = 0, ranks: int = 1):
        self.step += 1
        rows = np.random.default_rng(self.step).integers(7, 11, (batch_size, length + 1))
        own = torch.from_numpy(rows[rank::ranks])
        return own[:, :-1], own[:, 1:]

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state) -> None: ...


def trainer(ranks: Ranks, precision: str = "float32") -> Trainer:
    torch.manual_seed(0)
    shape = ModelConfig(d_model=8, n_layer=1, max_seq_len=34, filter_order=8, embed_dropout=0)
    config = PretrainConfig(
        steps=9, length=32, stages="none", tokens_per_step=96, precision=precision
    )
    return Trainer(HyenaDNA(shape), Drawn(), config, final_length=32, ranks=ranks)


def steps(rank: int, count: int) -> tuple[list[StepReport], list[bool]]:
    """Three steps; in the second the weights of rank 1 alone are infinite."""
    own = trainer(Ranks(rank, count))
    reports, same = [own.step()], []
    kept = [p.detach().clone() for p in own.model.parameters()]
    if rank == 1:
        own.model.head_weight.data[0, 0] = torch.inf
    reports.append(own.step())
    if rank == 1:
        own.model.head_weight.data.copy_(kept[0])
    now = [p.detach() for p in own.model.parameters()]
    same = [torch.equal(a, b) for a, b in zip(kept, now, strict=True)]
    reports.append(own.step())
    return reports, same


def test_no_rank_takes_a_step_that_is_not_finite_on_one(tmp_path):
    first, second = on_ranks(2, steps, tmp_path)
    for reports, same in (first, second):
        assert [report.skipped for report in reports] == [False, True, False]
        assert all(same)
    assert first[0][2].loss == pytest.approx(second[0][2].loss, rel=1e-7)


def bf16_losses(rank: int, count: int) -> list[float]:
    own = trainer(Ranks(rank, count) if count > 1 else ALONE, "bf16")
    return [own.step().loss for _ in range(4)]


def test_bf16_on_two_ranks(tmp_path):
    alone = bf16_losses(0, 1)
    for losses in on_ranks(2, bf16_losses, tmp_path):
        assert losses == pytest.approx(alone, rel=2e-3)
