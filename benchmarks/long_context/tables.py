"""Sections of the page that compare competitors: time, ratio, memory, agreement."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.long_context.cells import (
    case_cells,
    cells,
    duration,
    gib,
    order,
    ratio,
    sorting,
    table_head,
    timed,
)
from benchmarks.long_context.jobs import NAMES
from benchmarks.long_context.summary import LONG_FAMILY, MILLION, Row, series


def long_sequences(table: Sequence[Row]) -> list[str]:
    """The long sequences: time, ratio, peak."""
    chosen = [row for row in table if row.alone and row.job.length >= 65_536]
    if not chosen:
        return []
    chosen.sort(key=lambda row: (row.job.task, row.job.length, row.job.memory))
    lines = table_head(["task", "model", "length", "freed memory, waiting", "competitor", "time",
                    "ratio", "peak"])  # fmt: skip
    for row in chosen:
        for name in order(row.alone):
            figures = [duration(row.time(name)), ratio(row, name), gib(row.peak.get(name))]
            lines.append(cells([*case_cells(row, batch=False), NAMES[name], *figures]))
    per_token = _scaling(table)
    return ["## Long sequences", "", *lines, *(["", per_token] if per_token else [])]


def _scaling(table: Sequence[Row]) -> str:
    """Time at a million against the time at 160k, for our engines."""
    found = []
    for name in ("native", "torch"):
        points = dict(series(table, name, **LONG_FAMILY))
        if {159_999, MILLION} <= points.keys():
            share = points[MILLION] / points[159_999] / (MILLION / 159_999)
            found.append(f"{NAMES[name]} {share:.2f}")
    return f"Time a token at {MILLION:,}, over that at 159,999: {', '.join(found)}." * bool(found)


def races(title: str, table: Sequence[Row], *, parts: Sequence[str], note: str = "") -> list[str]:
    """Seconds and ratios by competitor for the rows of some parts."""
    chosen = [row for row in table if row.job.part in parts]
    if not chosen:
        return []
    chosen.sort(key=sorting)
    names = order({name for row in chosen for name in row.raced | row.alone})
    lines = [f"## {title}", ""] + ([note, ""] if note else [])
    lines += table_head(
        ["task", "model", "length", "freed memory, waiting", *(NAMES[n] for n in names)]
    )
    for row in chosen:
        lines.append(cells([*case_cells(row), *(timed(row, name) for name in names)]))
        if row.job.part == "headline":
            task, *rest = case_cells(row)
            called = Row(row.job, raced={name: [seconds] for name, seconds in row.first.items()})
            columns = (timed(called, name) for name in names)
            lines.append(cells([f"{task}, first call", *rest, *columns]))
    return lines


def neighbour(table: Sequence[Row]) -> list[str]:
    """A step on a quiet machine and beside a process that keeps a core busy."""
    chosen = [row for row in table if row.job.part == "neighbour"]
    quiet = {(r.job.memory, r.job.waiting): r for r in chosen if not r.job.neighbour}
    busy = {(r.job.memory, r.job.waiting): r for r in chosen if r.job.neighbour}
    lines = table_head(["freed memory, waiting", "competitor", "quiet", "ratio", "busy", "ratio",
                    "busy / quiet"])  # fmt: skip
    for setting, before in quiet.items():
        after = busy.get(setting, Row(before.job))
        for name in order(before.raced | before.alone):
            slow, fast = after.time(name), before.time(name)
            if slow and fast:
                lines.append(cells([
                    ", ".join(setting), NAMES[name], duration(fast), ratio(before, name),
                    duration(slow), ratio(after, name), f"{slow / fast:.1f}",
                ]))  # fmt: skip
    if len(lines) == 2:
        return []
    text = (
        "Training step of tiny-1k, 16 × 1,024, quiet and while another process keeps a core busy."
    )
    return ["## A busy neighbour", "", text, "", *lines]


def peak_memory(table: Sequence[Row]) -> list[str]:
    """Peak resident memory below the long sequences."""
    chosen = [row for row in table if row.peak and row.job.length < 65_536]
    if not chosen:
        return []
    chosen.sort(key=sorting)
    names = order({name for row in chosen for name in row.peak})
    imports = [size for row in table for size in row.imports.values()]
    text = (
        "Largest resident memory of a process of its own; the imports alone take "
        f"{min(imports) / 2**20:,.0f} to {max(imports) / 2**20:,.0f} MiB of it."
    )
    lines = ["## Peak memory", "", text, ""]
    lines += table_head(
        ["task", "model", "length", "freed memory, waiting", *(NAMES[n] for n in names)]
    )
    for row in chosen:
        lines.append(cells([*case_cells(row), *(gib(row.peak.get(name)) for name in names)]))
    return lines


def agreement(table: Sequence[Row]) -> list[str]:
    """The largest difference from the original of each competitor, by task."""
    worst: dict[tuple[str, str], tuple[float, Row]] = {}
    for row in table:
        for name in order(row.sample):
            value = row.deviation(name)
            if value is None:
                continue
            key = (row.job.task, name)
            if name not in ("original", "attention") and value >= worst.get(key, (-1.0, row))[0]:
                worst[key] = (value, row)
    if not worst:
        return []
    text = (
        "Deviation from the original's output (for a step: from its first loss) where it is "
        "the largest of all rows: the largest over the largest value, and root mean squares. At "
        "lengths in processes of their own it is that of 16 channels of the last position. The "
        "weights are those that training starts from."
    )
    lines = ["## The same function", "", text, ""]
    lines += table_head(["task", "competitor", "largest", "rms", "at"])
    for (task, name), (value, row) in sorted(worst.items(), key=lambda item: item[0]):
        at = f"{row.job.shape}, {row.job.length:,}"
        rms = f"{row.rms[name]:.1e}" if name in row.rms else ""
        lines.append(cells([task, NAMES[name], f"{value:.1e}", rms, at]))
    return lines
