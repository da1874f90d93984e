"""The section of the page on the whole cost of many new bases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.generation.jobs import NAMES, Job, Way
from benchmarks.generation.summary import costs, growth, longest_whole, points, summed
from benchmarks.generation.tables import brief, size
from benchmarks.long_context.cells import cells, figure, table_head
from benchmarks.measurements import Record

OTHERS: Final[tuple[Way, ...]] = ("recompute", "direct")


@dataclass(frozen=True)
class Whole:
    """Seconds at marks: measured for ours, sums of measured times for the others."""

    record: Record[Job]
    marks: list[int]
    ours: list[float]
    others: dict[Way, list[float]]

    @property
    def steps(self) -> list[float]:
        """Ours without the decoder and the prompt."""
        return [seconds - self.record.result["ready"] for seconds in self.ours]


def whole_cost(records: Sequence[Record[Job]]) -> Whole | None:
    """Of the longest run; None without one."""
    record = longest_whole(records)
    if record is None or not record.result["seconds"]:
        return None
    job, seconds = record.job, record.result["seconds"]
    marks = [int(mark) for mark in seconds]
    found = costs(records, "whole")
    others: dict[Way, list[float]] = {}
    for way in OTHERS:
        total = summed(points(found, way, job.shape), job.context, marks)
        if total:
            others[way] = total
    return Whole(record, marks, [float(s) for s in seconds.values()], others)


def section(records: Sequence[Record[Job]]) -> list[str]:
    """Table, exponents and rate of the longest run."""
    whole = whole_cost(records)
    if whole is None:
        return []
    job, result = whole.record.job, whole.record.result
    longest = job.config().max_seq_len
    lines = [
        f"## {job.new:,} bases", "",
        f"{job.shape} (max_seq_len {longest:,}), a prompt of {job.context:,} bases, drawn at "
        "temperature 1 through `hyenadna.infer.generate`: all in one run, from the call on. "
        f"{brief(result['total'])} in all, {figure(job.new / result['total'])} bases a second; "
        f"{brief(result['ready'])} of it until the first base, with the decoder made and the "
        f"prompt read. Peak {size(result['peak'] - result['imports'])} beyond the imports. Mean "
        f"nats a base are within {result['difference']:.0e} of one pass over the result.", "",
        *table_head(["new bases", "ours, measured",
                     *(f"{NAMES[way]}, extrapolated" for way in whole.others)]),
    ]  # fmt: skip
    for i, mark in enumerate(whole.marks):
        sums = [seconds[i] for seconds in whole.others.values()]
        times = [f"{_long(s)} ({figure(s / whole.ours[i])}×)" for s in sums]
        lines.append(cells([f"{mark:,}", brief(whole.ours[i]), *times]))
    return [*lines, "", *_exponents(whole), *_measured(records, whole)]


def _exponents(whole: Whole) -> list[str]:
    if len(whole.marks) < 2:
        return []
    grown = [f"{NAMES[way]} {growth(whole.marks, s):.2f}" for way, s in whole.others.items()]
    text = (
        f"Seconds grow as the number of new bases to the power of {_power(whole.marks, whole.ours)}"
        f" (without what comes before the first base: {_power(whole.marks, whole.steps)})"
    )
    if len(whole.marks) > 3:
        tail = _power(whole.marks[-3:], whole.steps[-3:])
        text += f", {tail} over the last three rows"
        slow, fast = (whole.steps[i] / whole.marks[i] for i in (-3, -1))
        if fast < slow:  # below 1, which no method can be
            text += (
                f" (the machine drifts: {brief(slow)} a base over the first {whole.marks[-3]:,}, "
                f"{brief(fast)} over all)"
            )
    return ["; ".join([text, *grown]) + ". Slope of log time against log bases, least squares.", ""]


def _power(marks: Sequence[int], seconds: Sequence[float]) -> str:
    return f"{growth(marks, seconds):.2f}"


def _measured(records: Sequence[Record[Job]], whole: Whole) -> list[str]:
    """What the sums are made of."""
    if not whole.others:
        return []
    found, shape = costs(records, "whole"), whole.record.job.shape
    parts = [
        f"{NAMES[way]} "
        + ", ".join(f"{brief(s)} at {n:,}" for n, s in points(found, way, shape))
        for way in OTHERS
    ]  # fmt: skip
    return [
        "Extrapolated, not run: the sum over all new bases of the time of one, between measured "
        f"contexts as a power of the context. Measured for one base: {'; '.join(parts)}.",
    ]


def _long(seconds: float) -> str:
    return f"{figure(seconds / 3600)} h" if seconds >= 3600 else brief(seconds)
