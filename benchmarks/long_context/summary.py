"""Numbers from the records: medians, ratios, growth exponents, crossover."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, TypedDict

import numpy as np
from benchmarks.long_context.jobs import Job
from benchmarks.measurements import Record

from hyenadna.config import preset


class Family(TypedDict):
    """Models of one width and depth; they differ in `max_seq_len` only."""

    width: int
    layers: int


# The three longest models are one shape: eight layers of width 256.
LONG_FAMILY: Final[Family] = {"width": 256, "layers": 8}
MILLION: Final = 999_999


@dataclass
class Row:
    """All that was measured of one case: the same task, input and process settings."""

    job: Job
    """The case: the first of its jobs; its competitors are those of that job only."""
    raced: dict[str, list[float]] = field(default_factory=dict)
    """Seconds of calls that alternated with those of others in one process."""
    alone: dict[str, list[float]] = field(default_factory=dict)
    """Seconds of the one call of a process with this competitor alone."""
    first: dict[str, float] = field(default_factory=dict)
    """Seconds of the first call at this length."""
    peak: dict[str, int] = field(default_factory=dict)
    """Largest resident memory, bytes, of a process with this competitor alone."""
    imports: dict[str, int] = field(default_factory=dict)
    """Resident memory after the imports, of the same process."""
    difference: dict[str, float] = field(default_factory=dict)
    """Largest deviation from the original, over its largest value."""
    rms: dict[str, float] = field(default_factory=dict)
    """Root mean square of the deviations from the original, over that of its values."""
    sample: dict[str, list[float]] = field(default_factory=dict)

    def time(self, name: str) -> float | None:
        """Median seconds of a call, in alternation with others where that was measured."""
        values = self.raced.get(name) or self.alone.get(name)
        return statistics.median(values) if values else None

    def paired(self, name: str, base: str = "original") -> bool:
        """Whether the two ran in alternation in one process."""
        return name in self.raced and base in self.raced

    def deviation(self, name: str) -> float | None:
        """Largest deviation from the original's output, or that of the samples of two processes."""
        if name in self.difference or not {name, "original"} <= self.sample.keys():
            return self.difference.get(name)
        theirs, ours = self.sample["original"], self.sample[name]
        largest = max(abs(x) for x in theirs)
        return max(abs(x - y) for x, y in zip(ours, theirs, strict=True)) / largest

    def ratio(self, name: str, base: str = "original") -> float | None:
        """How many times faster than the base; both in one process, or both in one of their own."""
        for times in (self.raced, self.alone):
            if name in times and base in times:
                return statistics.median(times[base]) / statistics.median(times[name])
        ours, theirs = self.time(name), self.time(base)
        return theirs / ours if ours and theirs else None


def rows(records: Iterable[Record[Job]]) -> list[Row]:
    """The races of the records, merged by case, in the order of the records."""
    merged: dict[tuple[Any, ...], Row] = {}
    for record in records:
        job = record.job
        if record.failed or job.task in ("limits", "parts"):
            continue
        row = merged.setdefault(case(job), Row(job))
        _add(row, record)
    return list(merged.values())


def case(job: Job) -> tuple[Any, ...]:
    """What two jobs must share to be compared; races with multimolecule stay apart."""
    apart = job.part == "multimolecule" and len(job.competitors) > 1
    return (
        apart, job.task, job.shape, job.length, job.batch, job.memory, job.waiting, job.neighbour,
    )  # fmt: skip


def _add(row: Row, record: Record[Job]) -> None:
    names = record.job.competitors
    for name, values in record.result["competitors"].items():
        times = row.raced if len(names) > 1 else row.alone
        times.setdefault(name, []).extend(values["seconds"])
        row.first.setdefault(name, values["first"])
        row.sample.setdefault(name, values["sample"])
        if "peak" in values:
            row.peak[name], row.imports[name] = values["peak"], record.result["imports"]
        if "difference" in values and names[0] == "original":
            row.difference[name], row.rms[name] = values["difference"], values["rms"]


def exponent(points: Sequence[tuple[int, float]]) -> float:
    """Slope of log time against log length, by least squares."""
    lengths, seconds = zip(*points, strict=True)
    return float(np.polyfit(np.log(lengths), np.log(seconds), 1)[0])


def extrapolate(points: Sequence[tuple[int, float]], length: int) -> float:
    """Time at a length beyond the last point, by the exponent of the points."""
    last_length, last_seconds = points[-1]
    return last_seconds * math.exp(exponent(points) * math.log(length / last_length))


def crossover(slow: Sequence[tuple[int, float]], fast: Sequence[tuple[int, float]]) -> float | None:
    """Length from which `fast` stays faster, between measured ones by the logarithms.

    None where `fast` wins at every shared length or loses at the last.
    """
    other = dict(fast)
    gains = [(n, math.log(t / other[n])) for n, t in sorted(slow) if n in other]
    for (short, before), (long, after) in reversed(list(pairwise(gains))):
        if after <= 0:
            return None
        if before <= 0:
            share = -before / (after - before)
            return math.exp(math.log(short) + share * math.log(long / short))
    return None


def series(table: Iterable[Row], name: str, *, width: int, layers: int) -> list[tuple[int, float]]:
    """(length, seconds) of forward passes of that width and depth, one sequence, bare process."""
    points = {}
    for row in curve_rows(table, "forward", width=width, layers=layers):
        seconds = row.time(name)
        if seconds is not None:
            points[row.job.length] = seconds
    return sorted(points.items())


def curve_rows(table: Iterable[Row], task: str, *, width: int, layers: int) -> list[Row]:
    """Rows of one task for models of that width and depth, one sequence, as Python starts."""
    chosen = []
    for row in table:
        job, config = row.job, preset(row.job.shape)
        shape = (config.d_model, config.n_layer)
        bare = (job.memory, job.waiting, job.neighbour) == ("given back", "default", False)
        if job.task == task and job.batch == 1 and bare and shape == (width, layers):
            chosen.append(row)
    return sorted(chosen, key=lambda row: row.job.length)
