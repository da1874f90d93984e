"""Cells of the page's tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.long_context.jobs import NAMES
from benchmarks.long_context.summary import Row


def table_head(columns: Sequence[str]) -> list[str]:
    """Header and rule of a table, two lines."""
    return [cells(columns), "|---" * len(columns) + "|"]


def cells(values: Sequence[str]) -> str:
    """One row of a table; a `|` within a value is escaped."""
    return "| " + " | ".join(value.replace("|", "\\|") for value in values) + " |"


def case_cells(row: Row, *, batch: bool = True) -> list[str]:
    """Task, model, length (with the batch) and process settings of a row."""
    job = row.job
    length = f"{job.batch} × {job.length:,}" if batch else f"{job.length:,}"
    return [job.task, job.shape, length, f"{job.memory}, {job.waiting}"]


def sorting(row: Row) -> tuple[Any, ...]:
    """Where a row stands: by task, tiny models first, then by length."""
    job = row.job
    return (job.task, job.shape.split("-")[0] != "tiny", job.length, job.shape, job.batch,
            job.memory)  # fmt: skip


def order(names: Iterable[str]) -> list[str]:
    """The competitors in the order of all tables."""
    found = set(names)
    return [name for name in NAMES if name in found]


def timed(row: Row, name: str) -> str:
    """Time and ratio of a competitor, empty where it has none."""
    seconds = row.time(name)
    if seconds is None:
        return ""
    times = ratio(row, name)
    return duration(seconds) + (f" ({times})" if times else "")


def ratio(row: Row, name: str) -> str:
    """How many times as fast as the original; `~` where they ran in different processes."""
    times = row.ratio(name)
    if times is None or name == "original":
        return ""
    sign = "" if row.paired(name) else "~"
    return f"{sign}{times:.2f}×" if times < 0.95 else f"{sign}{times:.1f}×"


def duration(seconds: float | None) -> str:
    """Seconds or milliseconds with three digits."""
    if seconds is None:
        return ""
    return f"{figure(1000 * seconds)} ms" if seconds < 1 else f"{figure(seconds)} s"


def figure(value: float) -> str:
    """Three digits."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f}"


def gib(size: int | None) -> str:
    """Bytes as GiB."""
    return "" if size is None else f"{size / 2**30:.2f} GiB"
