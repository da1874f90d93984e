"""What models and baselines say of the rows measured, and how good that is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from rich.console import Console

from hyenadna.cli.units import duration
from hyenadna.data.labelled_data import LabelledData

if TYPE_CHECKING:
    from hyenadna.model.heads import TaskModel
    from hyenadna.report.finetune_page import Predictor
    from hyenadna.train.baselines import Baseline
    from hyenadna.train.bootstrap import Difference, Interval

Floats = npt.NDArray[np.float32]


NAMES: Final = {
    "majority": "constant answer",
    "kmer": "k-mers, linear",
    "hmm": "hidden Markov model",
    "cnn": "dilated CNN",
}
"""Baselines that are fitted, for people."""


@dataclass(frozen=True, eq=False)
class Said:
    """What one predictor says of the rows measured."""

    key: str
    """Short and fixed, such as `kmer`."""
    name: str
    """For people."""
    runs: tuple[Floats, ...]
    """As `hyenadna.train.metrics.metrics` takes them, one for each seed."""
    note: str = ""
    seconds: float = 0.0
    """To train it, all seeds."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A baseline, fitted, that has not met the rows measured."""

    key: str
    baseline: Baseline
    seconds: float

    def said(self, rows: LabelledData) -> Said:
        """What it says of the rows measured."""
        outputs = self.baseline.predict(rows.sequences)
        return Said(self.key, NAMES[self.key], (outputs,), self.baseline.chosen, self.seconds)


def fit(
    name: str, learning: LabelledData, seed: int, console: Console, *, device: str = "cpu"
) -> Fitted:
    """The baseline of a name of `NAMES`, and how long it took, with a line on the console."""
    from hyenadna.train.baselines import fit_baseline

    start = time.monotonic()
    with console.status(f"baseline: {NAMES[name]} …"):
        fitted = fit_baseline(name, learning, seed, device=device)  # type: ignore[arg-type]
    seconds = time.monotonic() - start
    console.print(f"baseline {name}: {NAMES[name]} ({fitted.chosen}); {duration(seconds)}")
    return Fitted(name, fitted, seconds)


def predict_rows(
    model: TaskModel,
    rows: LabelledData,
    *,
    batch_tokens: int,
    progress: Callable[[int, int], None] | None = None,
) -> Floats:
    """Probabilities or values of all rows, float32 (n, T); for tokens of all bases, (N, T).

    In float32, whatever the precision of the training: as `hyenadna predict` gives them.
    """
    from hyenadna.infer.predict import predict

    said = list(predict(model, rows.sequences, batch_tokens=batch_tokens, progress=progress))
    return np.concatenate(said) if rows.task.kind == "tokens" else np.stack(said)


def flat_rows(rows: LabelledData) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64] | None]:
    """(targets as metrics take them; for tokens the sequence of each base, else None)."""
    targets = rows.targets
    if isinstance(targets, tuple):
        return np.concatenate(targets), np.repeat(np.arange(len(rows)), rows.lengths)
    return targets, None


def compare(
    rows: LabelledData,
    model: Said,
    baselines: Sequence[Said],
    *,
    label_groups: Sequence[str] | None = None,
) -> list[Predictor]:
    """The model and each baseline with metrics, intervals and paired differences.

    Over several seeds a value is the mean of theirs, and so are the ends of its interval: it is
    that of a usual seed. A seed is compared with the same seed of a baseline that has as many, else
    with its only one.
    """
    from hyenadna.report.finetune_page import Predictor
    from hyenadna.train.bootstrap import Resamples, differences_of, intervals_of, resample
    from hyenadna.train.finetune_reports import over_seeds

    kind = rows.task.kind
    targets, clusters = flat_rows(rows)
    options: dict[str, Any] = {"clusters": clusters, "label_groups": label_groups}
    found: list[Predictor] = []
    of_model: list[Resamples] = []
    for said in (model, *baselines):
        drawn = [resample(kind, targets, outputs, **options) for outputs in said.runs]
        of_model = of_model or drawn
        each = [intervals_of(run) for run in drawn]
        spread = over_seeds([{k: v.value for k, v in scores.items()} for scores in each])
        gaps = [
            differences_of(mine, drawn[i % len(drawn)])
            for i, mine in enumerate(of_model if said is not model else ())
        ]
        found.append(
            Predictor(
                name=said.name,
                scores=_mean_intervals(each),
                spread={name: value.sd for name, value in spread.items()},
                seeds=len(said.runs),
                note=said.note,
                differences=_mean_differences(gaps),
            )
        )
    return found


def _mean_intervals(each: Sequence[Mapping[str, Interval]]) -> dict[str, Interval]:
    from hyenadna.train.bootstrap import Interval

    return {name: Interval(*_means(each, name, ("value", "low", "high"))) for name in _common(each)}


def _mean_differences(each: Sequence[Mapping[str, Difference]]) -> dict[str, Difference]:
    from hyenadna.train.bootstrap import Difference

    fields = ("value", "low", "high", "better")
    return {name: Difference(*_means(each, name, fields)) for name in _common(each)}


def _common(each: Sequence[Mapping[str, Any]]) -> list[str]:
    return [name for name in each[0] if all(name in run for run in each)] if each else []


def _means(each: Sequence[Mapping[str, Any]], name: str, fields: Sequence[str]) -> list[float]:
    """The mean over runs of some fields of a metric; NaN where one run has none."""
    return [float(np.mean([getattr(run[name], f) for run in each])) for f in fields]
