"""Pretraining: next-nucleotide prediction on genomes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

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

    With a `run`, goes on from its newest checkpoint, writes checkpoints and the log. `validation`
    gives each genome's batches; without any, there is no best model. When `should_stop` turns true
    the newest state is saved after the step in progress and the iteration ends.
    """
    config = trainer.config
    evaluate_every = config.evaluate_every or max(1, math.ceil(config.steps / 10))
    save_every = config.save_every or evaluate_every
    best = math.inf
    if run:
        progress = run.load_last(trainer)
        if progress is None:
            run.rewind_log(0)
            run.save_last(trainer, {"best_bits_per_base": None})
        else:
            run.rewind_log(trainer.steps_done)
            saved = progress["best_bits_per_base"]
            best = math.inf if saved is None else saved

    def save() -> None:
        if run:
            run.save_last(trainer, {"best_bits_per_base": best if best < math.inf else None})

    while trainer.steps_done < config.steps:
        report = trainer.step()
        if run:
            run.log(_step_entry(report))
        yield report
        done = trainer.steps_done == config.steps
        if validation and (done or trainer.steps_done % evaluate_every == 0):
            evaluation = _evaluate(trainer, validation, best, run)
            best = min(best, evaluation.bits_per_base)
            yield evaluation
        stop = should_stop()
        if done or stop or trainer.steps_done % save_every == 0:
            save()
        if stop:
            return


def _evaluate(
    trainer: Trainer, validation: Mapping[str, ValidBatches], best: float, run: RunFolder | None
) -> EvaluationReport:
    if trainer.average:
        trainer.average.swap(trainer.model)
    try:
        by_genome: dict[str, float] = {}
        nats, bases = 0.0, 0
        for name, batches in validation.items():
            loss, count = mean_nats(trainer.model, batches(), precision=trainer.precision)
            by_genome[name] = loss / math.log(2)
            if count:
                nats += loss * count
                bases += count
        bits = nats / bases / math.log(2) if bases else math.nan
        report = EvaluationReport(trainer.steps_done, bits, by_genome, bits < best)
        if run:
            run.log({"step": report.step, "valid": bits, "by_genome": by_genome})
            if report.best:
                run.save_best(trainer.model)
    finally:
        if trainer.average:
            trainer.average.swap(trainer.model)
    return report


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
