"""What fine-tuning says while it runs and when it is done."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hyenadna.model.heads import TaskModel

Stopped = Literal["epochs", "patience", "interrupted"]


@dataclass(frozen=True)
class FinetuneStep:
    """What one optimiser step did."""

    step: int
    """Steps done so far, this one included."""
    steps: int
    """Steps of the whole run, if it does not stop early."""
    epoch: int
    """Epoch that the step belongs to, from 1."""
    loss: float
    """Mean over the targets of the step that count; NaN where none does."""
    lr: float
    """Learning rate of the head."""
    grad_norm: float
    """Before clipping."""
    sequences: int
    tokens: int
    """Padding included; 0 where the head alone read kept features."""
    seconds: float
    skipped: bool
    """Whether the update was left out: the gradient was not finite, or no target counted."""
    share: float
    """Share of the tokens of the whole run that a step of this length reads, about."""
    share_left: float
    """Share of them that the steps after this one read."""
    length: int | None = None
    """Tokens that longer sequences were cropped to, in a stage of length warm-up; else None."""

    @property
    def sequences_per_second(self) -> float:
        """Speed of this step."""
        return self.sequences / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class FinetuneEvaluation:
    """How good the model is on the valid part after some step."""

    step: int
    epoch: int
    """Epoch in which it was made, from 1."""
    train_loss: float
    """Mean loss of the steps since the evaluation before; weights and dropout as in training."""
    loss: float
    """Loss of the valid part, class weights as in training."""
    metrics: Mapping[str, float]
    """As `hyenadna.train.metrics` gives them."""
    metric: str
    """Name of the metric that chooses the model."""
    value: float
    """Its value."""
    best: bool
    """Whether this is the best so far; never in length warm-up."""
    seconds: float
    length: int | None = None
    """Tokens that longer sequences were cropped to, in a stage of length warm-up; else None."""


@dataclass(frozen=True)
class FinetuneResult:
    """The end of a run; `model` holds the weights that were best on the valid part."""

    model: TaskModel
    seed: int
    step: int
    epoch: int
    best: FinetuneEvaluation | None
    """The evaluation that the weights are of; None where a run stopped before the first at full
    length."""
    history: tuple[FinetuneEvaluation, ...]
    stopped: Stopped
    seconds: float
    """Of all steps and evaluations, also of those before an interruption."""
    precision: str


@dataclass(frozen=True)
class MeanSd:
    """Mean over runs, and the standard deviation between them."""

    mean: float
    sd: float
    """With n - 1 below; NaN for a single run."""
    count: int
    """Runs that have a number."""

    @classmethod
    def of(cls, values: Sequence[float]) -> MeanSd:
        """Of numbers, NaN left out."""
        known = np.array([value for value in values if not math.isnan(value)], dtype=np.float64)
        n = len(known)
        mean = float(known.mean()) if n else math.nan
        return cls(mean, float(known.std(ddof=1)) if n > 1 else math.nan, n)


def over_seeds(results: Sequence[Mapping[str, float]]) -> dict[str, MeanSd]:
    """Mean and standard deviation of each metric by name, in the order of the first run.

    results: the metrics of one run each; a name that some run lacks is left out.
    """
    if not results:
        return {}
    names = [name for name in results[0] if all(name in each for each in results)]
    return {name: MeanSd.of([each[name] for each in results]) for name in names}


def to_entry(report: FinetuneStep | FinetuneEvaluation) -> dict[str, Any]:
    """The report as a line of the log: plain values, with the step; the length in warm-up only."""
    length = {} if report.length is None else {"length": report.length}
    if isinstance(report, FinetuneStep):
        entry: dict[str, Any] = {
            "step": report.step,
            "epoch": report.epoch,
            "loss": report.loss,
            "lr": report.lr,
            "grad_norm": report.grad_norm,
            "sequences": report.sequences,
            "tokens": report.tokens,
            "seconds": round(report.seconds, 4),
        }
        return entry | length | ({"skipped": True} if report.skipped else {})
    return length | {
        "step": report.step,
        "epoch": report.epoch,
        "train_loss": report.train_loss,
        "valid_loss": report.loss,
        # JSON has no word for NaN
        "valid": {k: None if math.isnan(v) else v for k, v in report.metrics.items()},
        "metric": report.metric,
        "value": report.value,
        "best": report.best,
        "seconds": round(report.seconds, 4),
    }
