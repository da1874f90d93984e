"""Sections of the page: ways, memory, blocks, agreement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.generation.jobs import NAMES, RAISED, Job, Way
from benchmarks.generation.summary import Cost, above_best, block_rows, costs
from benchmarks.long_context.cells import cells, figure, table_head
from benchmarks.measurements import Record

WAYS: Final[tuple[Way, ...]] = ("ours", "recompute", "direct")


def brief(seconds: float | None) -> str:
    """A time with three digits, in the unit that suits it."""
    if seconds is None:
        return ""
    if seconds < 0:
        return f"-{brief(-seconds)}"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{figure(seconds / scale)} {unit}"
    return f"{figure(seconds * 1e9)} ns"


def size(count: float | None) -> str:
    """Bytes with three digits."""
    if count is None:
        return ""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20)):
        if abs(count) >= scale:
            return f"{figure(count / scale)} {unit}"
    return f"{figure(count / 1024)} KiB"


def by_context(found: Sequence[Cost]) -> dict[tuple[str, int], dict[str, Cost]]:
    """Costs by (shape, context), and there by way; `rows` are ours of several rows."""
    table: dict[tuple[str, int], dict[str, Cost]] = {}
    for cost in found:
        name = cost.job.task if cost.job.batch == 1 else "rows"
        table.setdefault((cost.job.shape, cost.job.context), {})[name] = cost
    return dict(
        sorted(table.items(), key=lambda item: (not item[0][0].startswith("tiny"), item[0]))
    )


def one_base(records: Sequence[Record[Job]]) -> list[str]:
    """Time of one more base in the three ways."""
    table = by_context(costs(records, "ways"))
    if not table:
        return []
    batch = max(cost.job.batch for row in table.values() for cost in row.values())
    raised = ", ".join(f"{shape} with max_seq_len {n:,}" for shape, n in RAISED.items())
    lines = [
        "## One more base", "",
        "*Ours*: `Decoder.step`, mean of 512 steps after the prompt with all their folds. "
        "*Full recompute*: the engine on the whole sequence for each new base, median of calls "
        "with one base more each. *Direct cached sum*: our decoder with nothing folded, all "
        "samples and the filter at all lags in memory; median of 16 steps after as many "
        "that do not count. All are measured right after a prompt of that length; what folding "
        "thousands of new bases costs is in the run of many bases below. One sequence, where "
        "ours and the direct sum use one thread (more could divide the sum by their number at "
        "most) and recompute all of them; and the time of one "
        f"base of {batch} branches of one prompt together. {raised}. In brackets: times ours. "
        "*Prompt*: reading it once.", "",
        *table_head(["model", "context", *(NAMES[way] for way in WAYS), f"ours, {batch} rows",
                     "prompt, ours"]),
    ]  # fmt: skip
    for (shape, context), row in table.items():
        ours = row.get("ours")
        prompt = brief(ours.result["prefill"]) if ours else ""
        found = [_against(row.get(name), ours) for name in (*WAYS, "rows")]
        lines.append(cells([shape, f"{context:,}", *found, prompt]))
    return lines


def _against(cost: Cost | None, ours: Cost | None) -> str:
    if cost is None:
        return ""
    alone = ours is None or cost is ours or cost.job.batch > 1
    times = "" if alone or ours is None else f" ({figure(cost.seconds / ours.seconds)}×)"
    return brief(cost.seconds) + times


def memory(records: Sequence[Record[Job]]) -> list[str]:
    """Memory of the three ways."""
    table = by_context(costs(records, "ways"))
    if not table:
        return []
    lines = [
        "## Memory", "",
        "*Peak*: largest resident memory of a process of its own less that after the imports: "
        "model, decoder, the prompt's pass, states. *State*: what belongs to the sequence. Ours "
        "holds the effect of all that has been read on the outputs to come, so it grows with the "
        "room for new bases (here 1,024) and not with the context; the direct sum holds every "
        "sample. *Filters*: what all sequences of a model share.", "",
        *table_head(["model", "context", *(f"peak, {NAMES[way]}" for way in WAYS),
                     "state, ours", "state, direct", "filters, ours", "filters, direct"]),
    ]  # fmt: skip
    for (shape, context), row in table.items():
        peaks = [size(row[way].memory) if way in row else "" for way in WAYS]
        held = [
            size(row[way].result[name]) if way in row else ""
            for name in ("state", "filters")
            for way in ("ours", "direct")
        ]
        lines.append(cells([shape, f"{context:,}", *peaks, *held]))
    return lines


def blocks(records: Sequence[Record[Job]]) -> list[str]:
    """Time of a base by block, and which block is best."""
    rows = block_rows(records)
    if not rows:
        return []
    names = sorted({block for _, seconds, _ in rows for block in seconds})
    lines = [
        "## The switch point", "",
        "Time of a base by the number of samples that are added one by one before an FFT folds "
        "them in (`BLOCK` in conv/online.py): means over 1,024 steps after 1,000 bases, the blocks "
        "in alternation in one process, median of three rounds; the best in bold.", "",
        *table_head(["model", "rows", *(f"{block:,}" for block in names)]),
    ]  # fmt: skip
    for job, seconds, _ in rows:
        best = min(seconds.values())
        found = [brief(seconds[b]) if b in seconds else "" for b in names]
        marked = [f"**{t}**" if seconds.get(b) == best else t
                  for b, t in zip(names, found, strict=True)]  # fmt: skip
        lines.append(cells([job.shape, f"{job.batch}", *marked]))
    return [*lines, "", _verdict([seconds for _, seconds, _ in rows], rows[-1][2])]


def _verdict(rows: Sequence[dict[int, float]], default: int) -> str:
    shared = sorted(set.intersection(*(set(seconds) for seconds in rows)))
    best = min(shared, key=lambda block: above_best(rows, block))
    mean, most = above_best(rows, best)
    text = (
        f"Over all rows, blocks of {best} cost least: "
        f"{mean:.1%} above the best of each in the mean, {most:.1%} at the most."
    )
    if default == best:
        return f"{text} That is the package's block."
    if default not in shared:
        return f"{text} The package's block is {default}."
    mean, most = above_best(rows, default)
    return f"{text} The package's block is {default}: {mean:.1%} and {most:.1%}."


def agreement(records: Sequence[Record[Job]]) -> list[str]:
    """The largest difference from the full pass."""
    found = [c for part in ("ways", "whole") for c in costs(records, part)
             if "difference" in c.result]  # fmt: skip
    if not found:
        return []
    lines = [
        "## The same function", "",
        "Largest difference of the last logits from those of the full forward pass over the same "
        "tokens, and the largest logit, over all the measurements above. More than 2e-4 would "
        "have stopped the benchmark. The weights are those that training starts from.", "",
        *table_head(["way", "model", "measurements", "difference", "at context", "largest logit"]),
    ]  # fmt: skip
    for way in WAYS:
        for shape in dict.fromkeys(c.job.shape for c in found if c.job.task == way):
            own = [c for c in found if (c.job.task, c.job.shape) == (way, shape)]
            worst = max(own, key=lambda c: c.result["difference"])
            largest = max(c.result["largest"] for c in own)
            lines.append(cells([
                NAMES[way], shape, f"{len(own)}", f"{worst.result['difference']:.1e}",
                f"{worst.job.context:,}", figure(largest),
            ]))  # fmt: skip
    return lines


def titled(job: Job) -> str:
    """Model and rows."""
    return job.shape if job.batch == 1 else f"{job.shape}, {job.batch} rows"
