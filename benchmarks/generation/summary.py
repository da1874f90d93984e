"""Numbers from the records: time of a base, sums of them, what a step is made of."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from benchmarks.generation.jobs import Job, Way
from benchmarks.long_context.summary import crossover, exponent
from benchmarks.measurements import Record

Points = Sequence[tuple[int, float]]
"""(context, seconds a base), sorted."""


@dataclass(frozen=True)
class Cost:
    """What one more base costs in one way."""

    job: Job
    result: Mapping[str, Any]

    @property
    def seconds(self) -> float:
        """Seconds a base: of a step, over the rows."""
        return statistics.median(self.result["seconds"]) / self.job.batch

    @property
    def memory(self) -> int:
        """Bytes at the peak beyond the imports: model, decoder, states, work spaces."""
        return int(self.result["peak"] - self.result["imports"])


def costs(records: Iterable[Record[Job]], part: str) -> list[Cost]:
    """Of all jobs of a part that measure one way."""
    return [
        Cost(r.job, r.result)
        for r in records
        if r.job.part == part and r.job.task in ("ours", "recompute", "direct") and not r.failed
    ]


def points(found: Iterable[Cost], way: Way, shape: str, batch: int = 1) -> Points:
    """(context, seconds a base) of one way and shape."""
    wanted = (way, shape, batch)
    return sorted(
        (cost.job.context, cost.seconds)
        for cost in found
        if (cost.job.task, cost.job.shape, cost.job.batch) == wanted
    )


def summed(measured: Points, context: int, marks: Sequence[int]) -> list[float] | None:
    """Seconds of so many new bases after a context, as the sum of the times of each.

    Between the measured contexts the time of a base is a power of the context. None where they do
    not cover all of the sum.
    """
    if len(measured) < 2 or measured[0][0] > context or measured[-1][0] < context + max(marks):
        return None
    at, seconds = np.log(np.array(measured)).T
    each = np.exp(np.interp(np.log(context + np.arange(max(marks))), at, seconds))
    total = np.cumsum(each)
    return [float(total[mark - 1]) for mark in marks]


def growth(marks: Sequence[int], seconds: Sequence[float]) -> float:
    """Exponent of the seconds in the number of bases."""
    return exponent(list(zip(marks, seconds, strict=True)))


def crossing(slow: Points, fast: Points) -> tuple[str, float]:
    """Where `fast` begins to win: ("from", context), ("always", 0) or ("never", 0).

    Of the contexts that both have.
    """
    other = dict(fast)
    if all(seconds > other[n] for n, seconds in slow if n in other):
        return "always", 0.0
    found = crossover(slow, fast)
    return ("never", 0.0) if found is None else ("from", found)


@dataclass(frozen=True)
class Split:
    """Seconds of one step and of its parts, see `benchmarks.generation.split.measure_split`."""

    job: Job
    result: Mapping[str, Any]

    @property
    def step(self) -> float:
        """The mean step, without sampling."""
        return float(self.result["step"])

    @property
    def weights(self) -> float:
        """Reading the weights once."""
        return float(self.result["weights"] / self.result["read"])

    @property
    def direct(self) -> float:
        """The sum over the samples of the block."""
        return float(self.result["sample"] * self.result["samples"])

    @property
    def folds(self) -> float:
        """Folds, over the steps between them."""
        return float(self.result["folds"])

    @property
    def python(self) -> float:
        """Python and calls."""
        return float(self.result["python"])

    @property
    def rest(self) -> float:
        """What remains: arithmetic beyond the reading of weights, norms, gates."""
        return self.step - self.weights - self.direct - self.folds - self.python

    @property
    def sampling(self) -> float:
        """Choosing and counting a base."""
        return float(self.result["sampling"])

    @property
    def worth(self) -> float:
        """Samples of context up to which adding them all costs less than a block and its folds."""
        slope = self.result["sample"]
        return math.inf if slope <= 0 else self.result["samples"] + self.folds / slope

    @property
    def sample_rate(self) -> float:
        """Bytes a second at which samples and filter go through the sum."""
        slope = self.result["sample"]
        return math.inf if slope <= 0 else float(self.result["sample_bytes"] / slope)


def splits(records: Iterable[Record[Job]]) -> list[Split]:
    """Of all models and batches, in the order of the records."""
    return [Split(r.job, r.result) for r in records if r.job.part == "split" and not r.failed]


def block_rows(records: Iterable[Record[Job]]) -> list[tuple[Job, dict[int, float], int]]:
    """Job, seconds a base by block, and the package's block."""
    rows = []
    for record in records:
        if record.job.part == "blocks" and not record.failed:
            seconds = {
                int(block): statistics.median(found) / record.job.batch
                for block, found in record.result["seconds"].items()
            }
            rows.append((record.job, seconds, int(record.result["default"])))
    return rows


def above_best(rows: Sequence[Mapping[int, float]], block: int) -> tuple[float, float]:
    """How much more than the best of each row a block costs: mean (geometric), and largest."""
    ratios = [seconds[block] / min(seconds.values()) for seconds in rows]
    return statistics.geometric_mean(ratios) - 1, max(ratios) - 1


def longest_whole(records: Iterable[Record[Job]]) -> Record[Job] | None:
    """The run of most new bases."""
    found = [r for r in records if r.job.task == "whole" and not r.failed]
    return max(found, key=lambda record: record.job.new, default=None)
