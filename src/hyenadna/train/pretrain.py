"""Pretraining: next-nucleotide prediction on genomes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from hyenadna.alphabet import IGNORED
from hyenadna.model.likelihood import mean_nats
from hyenadna.train.loop import StepReport, Trainer
from hyenadna.train.run_folder import RunFolder

ValidBatches = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Makes the batches (inputs, targets) of one genome's valid split anew."""


@dataclass(frozen=True)
class EvaluationReport:
    """Loss on the valid split during training."""

    step: int
    bits_per_base: float
    """Over all genomes, each counted base once."""
    by_genome: dict[str, float]
    """Bits per base of each genome."""
    best: bool
    """Whether this is the lowest so far."""


def pretrain(
    trainer: Trainer,
    validation: Mapping[str, ValidBatches],
    run: RunFolder | None = None,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[StepReport | EvaluationReport]:
    """Train to the configured number of steps, yielding a report per step and per evaluation.

    `validation` gives each genome's batches; without any, the best model is the moving average at
    the end if there is one, else there is none. A `run` gets checkpoints and the log; bring the
    trainer to its newest checkpoint before (`RunFolder.restore`). When `should_stop` turns true
    the newest state is saved after the step in progress and the iteration ends.
    """
    config = trainer.config
    evaluate_every = config.evaluate_every or max(1, math.ceil(config.steps / 10))
    save_every = config.save_every or evaluate_every
    while trainer.steps_done < config.steps:
        report = trainer.step()
        if run:
            run.log(_step_entry(report))
        yield report
        done = trainer.steps_done == config.steps
        if validation and (done or trainer.steps_done % evaluate_every == 0):
            yield _evaluate(trainer, validation, run)
        stop = trainer.ranks.any(should_stop(), trainer.device)
        if run and (done or stop or trainer.steps_done % save_every == 0):
            run.save_last(trainer)
        if stop:
            return
    if run and trainer.average and not validation:
        with trainer.average.in_place():
            run.save_best(trainer)


def _evaluate(
    trainer: Trainer, validation: Mapping[str, ValidBatches], run: RunFolder | None
) -> EvaluationReport:
    average = trainer.average
    with average.in_place() if average else nullcontext():
        losses = {name: _mean_nats(trainer, batches()) for name, batches in validation.items()}
        nats = sum(loss * count for loss, count in losses.values())
        bits = nats / sum(count for _, count in losses.values()) / math.log(2)
        best = trainer.best_bits is None or bits < trainer.best_bits
        by_genome = {name: loss / math.log(2) for name, (loss, _) in losses.items()}
        report = EvaluationReport(trainer.steps_done, bits, by_genome, best)
        if best:
            trainer.best_bits = bits
        if run:
            run.log({"step": report.step, "valid": bits, "by_genome": by_genome})
            if best:
                run.save_best(trainer)
    return report


def _mean_nats(trainer: Trainer, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, int]:
    """As `mean_nats`; each rank has its part of the batches."""
    ranks = trainer.ranks
    shared = (
        trainer.parallel.part(inputs, targets if counts else torch.full_like(targets, IGNORED))
        for (inputs, targets), counts in ranks.share(batches)
    )
    mean, count = mean_nats(trainer.model, shared, precision=trainer.precision)
    if not ranks.together:
        return mean, count
    nats, number = ranks.total([mean * count if count else 0.0, count], trainer.device)
    return nats / number, int(number)


def _step_entry(report: StepReport) -> dict[str, float | int | bool]:
    return {
        "step": report.step,
        "loss": report.loss,
        "bits_per_base": report.bits_per_base,
        "lr": report.lr,
        "grad_norm": report.grad_norm,
        "length": report.length,
        "batch_size": report.batch_size,
        "tokens": report.tokens,
        "seconds": round(report.seconds, 4),
    } | ({"skipped": True} if report.skipped else {})
