"""The measurements that a page shows: of one machine, the newest of each job."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.gpu.jobs import SAME, Job, engine_of
from benchmarks.gpu.roofline import Bound, Limits, Work, bound, measured_limits, sheet_limits
from benchmarks.measurements import Record, on_host

NAMES: Final[Mapping[str, str]] = {
    "auto": "ours, as it chooses",
    "triton": "ours, Triton",
    "torch": "ours, torch",
    "plain": "plain modules",
    "original": "original's algorithm",
    "attention2": "Transformer, 2 heads of 64",
    "attention8": "Transformer, 8 heads of 16",
    "matrix": "ours, matrix products",
    "fft": "ours, FFT",
    "compiled": "plain modules, torch.compile",
}
OURS: Final = ("auto", "triton", "torch", "plain")
TWINS: Final = ("attention2", "attention8")


@dataclass
class Measured:
    """A job and what came out of it."""

    job: Job
    result: Mapping[str, Any]
    host: Mapping[str, Any]

    @property
    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        """By contestant."""
        found: Mapping[str, Mapping[str, Any]] = self.result.get("contestants", {})
        return found

    def seconds(self, name: str) -> float | None:
        """The median of a contestant's samples, if it has a time that counts."""
        samples = self.rows.get(name, {}).get("seconds")
        return statistics.median(samples) if samples else None

    def best(self, engines: Sequence[str] = OURS) -> tuple[str, float] | None:
        """The fastest of these engines, by the name of the contestant, and its seconds."""
        found = [
            (name, seconds)
            for name in self.rows
            if engine_of(name) in engines and (seconds := self.seconds(name)) is not None
        ]
        return min(found, key=lambda item: item[1]) if found else None


def newest(records: Sequence[Record[Job]]) -> list[Measured]:
    """The last measurement of every job, on the machine of the last record.

    Contestants of a failed try do not hide those of one that worked before.
    """
    if not records:
        return []
    found: dict[str, Measured] = {}
    for record in on_host(records, records[-1].host, by=SAME):
        if not (record.failed and record.job.key() in found):
            found[record.job.key()] = Measured(record.job, record.result, record.host)
    return list(found.values())


def together(measured: Sequence[Measured], part: str, task: str | None = None) -> list[Measured]:
    """Those of a part with rows; jobs on one input that differ in contestants become one."""
    found: dict[tuple[Any, ...], Measured] = {}
    for each in measured:
        job = each.job
        if job.part != part or not each.rows or task not in (None, job.task):
            continue
        key = (job.task, job.shape, job.length, job.batch, job.channels, job.steps)
        if key in found:
            before = found[key]
            rows = {**before.rows, **each.rows}
            found[key] = Measured(before.job, {**before.result, "contestants": rows}, each.host)
        else:
            found[key] = each
    return sorted(found.values(), key=lambda m: (m.job.task, m.job.length, m.job.batch))


def name_of(contestant: str) -> str:
    """How the page calls it: `ours, Triton, CUDA graph`."""
    engine, *rest = contestant.split("+")
    return ", ".join([NAMES.get(engine, engine), *(["CUDA graph"] if "graph" in rest else [])])


def size(job: Job) -> str:
    """Batch and length of a job, and its channels where it has some."""
    channels = f" × {job.channels}" if job.channels else ""
    return f"{job.batch} × {job.length:,}{channels}"


def rates_of(measured: Sequence[Measured]) -> tuple[Mapping[str, Any], Limits | None] | None:
    """The measured rates of the machine, and its data sheet where that is known."""
    for each in reversed(measured):
        if each.job.part == "limits" and "products" in each.result:
            return each.result, sheet_limits(str(each.host["device"]))
    return None


def limits_of(measured: Sequence[Measured]) -> Limits | None:
    """The measured rates of the machine, where its data sheet is known and they were measured."""
    rates, sheet = rates_of(measured) or ({}, None)
    return measured_limits(rates, sheet.vector) if sheet else None


def work_of(each: Measured, name: str) -> Work | None:
    """What a contestant has to do: its own count, or else that of the job, where there is one."""
    found = each.rows[name].get("work") or each.result.get("work")
    return Work(**found) if found else None


def least(each: Measured, name: str, limits: Limits | None) -> Bound | None:
    """The least time for a contestant by its counts, where both are there."""
    work = work_of(each, name)
    return bound(work, limits) if work and limits else None
