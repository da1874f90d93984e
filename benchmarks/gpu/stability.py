"""Some thousand steps of training by the package's own trainer, and every loss on the way."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, cast

import numpy as np
import torch
from benchmarks.gpu.contestants import config_of, fresh, running
from benchmarks.gpu.jobs import Job, engine_of, precision_of
from benchmarks.gpu.race import Row, Tell, caught
from benchmarks.gpu.timing import Clock
from torch import Tensor

from hyenadna.alphabet import Ids
from hyenadna.genome.synthetic import SyntheticGenome
from hyenadna.model.engine.choose import Choice
from hyenadna.train.loop import StepReport, Trainer
from hyenadna.train.pretrain import pretrain
from hyenadna.training_config import Precision, PretrainConfig

BASES: Final = 4_000_000
POINTS: Final = 250
"""Points of a curve: means of as many steps as that takes."""
TOKENS: Final = 16_384
"""Bases of a step."""


class GeneratedStream:
    """Random windows of the generated genome; the protocol `hyenadna.train.loop.Stream`."""

    def __init__(self, ids: Ids) -> None:
        self.ids, self.count = ids, 0

    def batch(
        self, batch_size: int, length: int, *, rank: int = 0, ranks: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Inputs and targets, int64, each (B, L)."""
        rng = np.random.default_rng([7, self.count])
        self.count += 1
        starts = rng.integers(0, len(self.ids) - length - 1, batch_size)[rank::ranks]
        rows = self.ids[starts[:, None] + np.arange(length + 1)].astype(np.int64)
        return torch.from_numpy(rows[:, :-1]), torch.from_numpy(rows[:, 1:])

    def state(self) -> dict[str, Any]:
        """The position."""
        return {"count": self.count}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a position."""
        self.count = int(state["count"])


@lru_cache(maxsize=1)
def generated(bases: int) -> Ids:
    """The generated genome, of known entropy."""
    return np.concatenate([contig.ids for contig in SyntheticGenome().generate(bases, 0)])


def measure_stability(job: Job, clock: Clock, tell: Tell, seconds: float) -> dict[str, Any]:
    """A row: curve, losses that were not finite, steps that were skipped, bits at the end.

    Ends early where that many seconds are over, with the `steps` that were made.
    """
    (name,) = job.contestants
    tell(name)
    row: Row = {}
    with caught(row, clock):
        row |= train(job, name, clock, seconds)
    return {"contestants": {name: row}}


def train(job: Job, name: str, clock: Clock, seconds: float) -> Row:
    """The row of a run that goes to its end or to the end of the time."""
    trainer = make_trainer(job, name, clock)
    batch = trainer.batch_size(job.length)
    kernels = running(trainer.model, trainer.precision, batch, job.length)
    reports: list[StepReport] = []
    begin, failure = time.monotonic(), Row()
    with caught(failure, clock):
        for report in pretrain(trainer, {}, should_stop=lambda: time.monotonic() - begin > seconds):
            reports.append(cast(StepReport, report))
    losses = [r.loss for r in reports]
    return {
        "kernels": kernels,
        "steps": len(reports),
        "wanted": job.steps,
        "stopped": failure.get("error", ""),
        "tokens_per_step": batch * job.length,
        "parameters": trainer.model.config.num_parameters(),
        "not_finite": sum(not math.isfinite(x) for x in losses),
        "skipped": [r.step for r in reports if r.skipped][:100],
        "skipped_count": sum(r.skipped for r in reports),
        "scale": trainer.scaler.get_scale() if trainer.scaler.is_enabled() else None,
        "largest_norm": max(
            (r.grad_norm for r in reports if math.isfinite(r.grad_norm)), default=0
        ),
        "curve": curve(losses),
        "final_bits": mean_bits(losses[-100:]),
        "seconds": [statistics.median(r.seconds for r in reports)] if reports else [],
    }


def make_trainer(job: Job, name: str, clock: Clock) -> Trainer:
    """The package's trainer on the generated genome."""
    model = fresh(config_of(job.shape), clock.device)
    model.set_engine(cast(Choice, engine_of(name)))
    tokens = max(job.length, TOKENS if clock.gpu else 4 * job.length)
    options = PretrainConfig(
        steps=job.steps, length=job.length, tokens_per_step=tokens,
        precision=cast(Precision, precision_of(name)), stages="none", reverse_complement=False,
    )  # fmt: skip
    stream = GeneratedStream(generated(max(BASES if clock.gpu else 50_000, 4 * job.length)))
    return Trainer(model, stream, options, final_length=job.length)


def curve(losses: list[float]) -> list[list[float]]:
    """Points (last step, mean bits per base of the finite losses up to it), `POINTS` at most."""
    width = max(1, -(-len(losses) // POINTS))
    points: list[list[float]] = []
    for start in range(0, len(losses), width):
        bits = mean_bits(losses[start : start + width])
        if bits is not None:
            points.append([min(start + width, len(losses)), bits])
    return points


def mean_bits(losses: list[float]) -> float | None:
    """Mean of the finite losses, in bits; None where there is none."""
    finite = [x for x in losses if math.isfinite(x)]
    return statistics.fmean(finite) / math.log(2) if finite else None
