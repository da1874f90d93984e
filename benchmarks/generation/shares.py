"""The section of the page on where a step's time goes, and why the ways cross where they do."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.generation.jobs import Job
from benchmarks.generation.summary import Points, Split, costs, crossing, points, splits
from benchmarks.generation.tables import brief, size, titled
from benchmarks.long_context.cells import cells, figure, table_head
from benchmarks.measurements import Record


def section(records: Sequence[Record[Job]]) -> list[str]:
    """Table of the parts, and the crossover in words."""
    found = splits(records)
    if not found:
        return []
    lines = [
        "## Where a step goes, and where the ways cross", "",
        f"Mean step of all rows after {found[0].job.context:,} bases, {found[0].job.new} steps. "
        "*Weights*: their bytes at the rate at which one thread reads as many, measured in the "
        "same process. *Sum*: what one more sample costs (the growth of a step over as many steps "
        "with nothing folded), times the mean number of samples in a block. *Folds*: what the "
        "steps at the ends of blocks cost more. *Python*: a step of as many layers of width 16. "
        "*Rest*: what remains of the step: arithmetic beyond the reading of the weights, norms, "
        "gates, short filter; negative where the parts overlap. *Sampling* comes on top of a step: "
        "what `generate` takes more.", "",
        *table_head(["model", "step", "weights", "sum", "folds", "Python", "rest", "sampling"]),
    ]  # fmt: skip
    for split in found:
        parts = (split.weights, split.direct, split.folds, split.python, split.rest)
        shown = [f"{brief(part)} ({part / split.step:.0%})" for part in parts]
        row = [titled(split.job), brief(split.step), *shown, brief(split.sampling)]
        lines.append(cells(row))
    for split in found:
        if split.job.batch == 1:
            lines += ["", _explained(split, records)]
    return lines


def _explained(split: Split, records: Sequence[Record[Job]]) -> str:
    """Numbers of one model in words."""
    result, shape = split.result, split.job.shape
    ways = costs(records, "ways")
    sentences = [
        f"**{shape}**: every step reads {size(result['weights'])} of weights, at "
        f"{figure(result['read'] / 1e9)} GB/s {brief(split.weights)}, whatever the way and the "
        "context; full recompute reads them once for all positions and pays with arithmetic at "
        "each of them.",
        f"One more sample in the direct sum costs {brief(result['sample'])}: "
        f"{size(result['sample_bytes'])} of samples and filter, {figure(split.sample_rate / 1e9)} "
        f"GB/s. Folds cost {brief(split.folds)} a base, as much as "
        f"{figure(split.folds / result['sample']) if result['sample'] > 0 else '∞'} samples; with "
        f"the {result['samples']:g} of a block the sum over everything costs less below "
        f"{figure(split.worth)} bases of context.",
    ]
    ours = points(ways, "ours", shape)
    sentences += _versus("The direct sum", points(ways, "direct", shape), ours)
    sentences += _versus("Full recompute", points(ways, "recompute", shape), ours)
    sentences += _predicted(split, points(ways, "direct", shape))
    return " ".join(sentences)


def _versus(name: str, slow: Points, ours: Points) -> list[str]:
    """Where ours begins to win, and by how much at the ends."""
    other = dict(ours)
    shared = [(n, seconds / other[n]) for n, seconds in slow if n in other]
    if not shared:
        return []
    kind, at = crossing(slow, ours)
    where = {
        "always": "costs more than ours at every context measured",
        "never": "costs less than ours at the longest context measured",
        "from": f"costs more than ours from about {at:,.0f} bases of context on",
    }[kind]
    ends = dict([shared[0], shared[-1]])
    times = ", ".join(f"{figure(ratio)} times ours at {n:,}" for n, ratio in ends.items())
    return [f"{name} {where}: {times}."]


def _predicted(split: Split, direct: Points) -> list[str]:
    """The direct sum at its longest context, by the slope inside a block."""
    if not direct:
        return []
    context, seconds = direct[-1]
    fixed = split.step - split.direct - split.folds
    slope = split.result["sample"]
    bytes_each = split.result["sample_bytes"]
    rate = bytes_each * context / max(seconds - fixed, 1e-12)
    return [
        f"At that slope {context:,} samples would take {brief(fixed + slope * context)}; measured "
        f"are {brief(seconds)}, {size(bytes_each * context)} of samples and filter at "
        f"{figure(rate / 1e9)} GB/s."
    ]
