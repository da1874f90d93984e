"""Tables and a picture of benchmark runs, from ledger entries and published figures alone.

A run of a subset stands in a row of its own, marked, without published figures beside it; so does
one whose test part was made here, marked `own split`. A task without a run has an empty row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hyenadna.data.benchmarks.chromatin import GROUPS
from hyenadna.data.benchmarks.published import figure_columns
from hyenadna.data.benchmarks.species import task_length
from hyenadna.data.benchmarks.suites import SUITES
from hyenadna.train.ledger import LedgerEntry, make_table
from hyenadna.training_config import FinetuneConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What the papers call our metrics.
_PUBLISHED_AS: Final = {"f1_macro": "f1"}
# A lowercase word for what is in the row, and what it means; only those that occur are told.
_MARKS: Final = {
    "subset": "some rows of the task only, for a quick look",
    "own split": "the source has no test part (or no train part), so the parts were made here; "
    "no published figure is of the same rows",
    "other rows": "the test part has not as many rows as the published one",
}
_ROWS_OFF: Final = 0.02  # share by which counts in papers and files differ

Figures = list[tuple[str, str]]


def published_figures(suite: str, task: str, metric: str) -> Figures:
    """(column, text) of the published figures of a task by one of our metrics."""
    return figure_columns(suite, task, _PUBLISHED_AS.get(metric, metric))


def marks(entry: LedgerEntry) -> list[str]:
    """Why figures of a run cannot stand beside published ones; nothing where they can."""
    config = entry.config
    found = ["subset"] if config.get("subset") is not None else []
    if config.get("split", {}).get("own"):
        return [*found, "own split"]
    published = _published_rows(entry)
    if not found and published is not None:
        off = abs(entry.rows[entry.scored_on] - published)
        found += ["other rows"] * (off > _ROWS_OFF * published)
    return found


def _published_rows(entry: LedgerEntry) -> int | None:
    """Rows of the test part as it was published, where that is known."""
    suite = SUITES.get(entry.suite)
    tasks = suite.list_tasks() if suite and entry.scored_on == "test" else ()
    return next((task.test for task in tasks if task.name == entry.task), None)


def suite_table(
    suite: str, tasks: Mapping[str, str], entries: Iterable[LedgerEntry]
) -> tuple[str, list[str]]:
    """(markdown table of a suite, sentences that explain it).

    tasks: name and metric of each task, in the order of the rows; tasks of entries that are not
    among them come after. For chromatin a row is a group of labels.
    """
    mine = [e for e in entries if e.suite == suite]
    metrics = dict(tasks) | {e.task: e.metric for e in mine if e.task not in tasks}
    keys: list[tuple[str, str]] = []
    figures: dict[tuple[str, str], Figures] = {}
    shown: list[LedgerEntry] = []
    for task, metric in metrics.items():
        for group, each in _rows_of(suite, metric):
            label = f"{task} {group}".strip()
            of = [_relabelled(e, label, each) for e in mine if e.task == task and each in e.scores]
            of = _told_apart(of)
            plain = (suite, label)
            figures[plain] = published_figures(suite, task, each)
            # the row with published figures stays, empty where there is no run to stand in it
            keys += dict.fromkeys([plain, *((suite, e.task) for e in of)])
            shown += of
    used = {mark for e in mine for mark in marks(e)}
    notes = [f"{mark}: {text}." for mark, text in _MARKS.items() if mark in used]
    marked = {(suite, e.task) for e in shown if marks(e)}
    unmarked = {(e.suite, e.task) for e in shown if not marks(e)}
    # without a figure to show, the empty row beside a marked one says nothing
    rest = [
        key
        for key in keys
        if key in marked | unmarked or figures.get(key) or not _has_marked(key, marked)
    ]
    return make_table(shown, rest, figures), notes


def _has_marked(key: tuple[str, str], marked: set[tuple[str, str]]) -> bool:
    return any(suite == key[0] and task.startswith(f"{key[1]} (") for suite, task in marked)


def _rows_of(suite: str, metric: str) -> list[tuple[str, str]]:
    """(group, metric) of the rows of a task."""
    if suite == "chromatin":
        return [(group, f"auroc_median_{group}") for group in GROUPS]
    return [("", metric)]


def _relabelled(entry: LedgerEntry, label: str, metric: str) -> LedgerEntry:
    reasons = marks(entry)
    name = f"{label} ({', '.join(reasons)})" if reasons else label
    return dataclasses.replace(entry, task=name, metric=metric)


def _told_apart(entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """The entries of a task; those of one model say in their names what options differ."""
    found = []
    for entry in entries:
        same = [e for e in entries if (e.task, e.model) == (entry.task, entry.model)]
        mine = _options(entry)
        others = [_options(e) for e in same]
        told = [f"{k} {v}" for k, v in mine.items() if any(o.get(k, v) != v for o in others)]
        found.append(dataclasses.replace(entry, model=", ".join([entry.model, *told])))
    return found


def _named_by_options(entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """The entries of several tasks; runs of one model with other options have names of their own.

    The first way that a model was run keeps its name.
    """
    ways: dict[str, list[dict[str, object]]] = {}
    found = []
    for entry in entries:
        own = ways.setdefault(entry.model, [])
        mine = _options(entry)
        if mine not in own:
            own.append(mine)
        told = [f"{k} {v}" for k, v in mine.items() if own[0].get(k) != v]
        found.append(dataclasses.replace(entry, model=", ".join([entry.model, *told])))
    return found


def _options(entry: LedgerEntry) -> dict[str, object]:
    """What can tell two runs of a model on a task apart, in words."""
    groups = (dict(entry.config.get(name, {})) for name in ("finetune", "head", "split"))
    found = {k.replace("_", " "): v for group in groups for k, v in group.items() if k != "own"}
    found["subset"] = entry.config.get("subset")
    found["weights"] = (entry.config.get("model", {}).get("weights") or "")[:8]
    return found | {"seeds": " ".join(map(str, entry.seeds))}


def _beaten(entry: LedgerEntry) -> list[str]:
    """The baselines that a run is not above, in words; its metric is one where more is better."""
    score = entry.scores[entry.metric].mean
    return [
        f"{entry.task}, {entry.model} ({score:.3f}, {name} {values[entry.metric]:.3f})"
        for name, values in entry.baselines.items()
        if values.get(entry.metric, score - 1) >= score
    ]


def _pretraining(entries: Sequence[LedgerEntry]) -> list[str]:
    """What the models were pretrained on, a line for each."""
    models = [entry.config.get("model", {}) for entry in entries]
    said = dict.fromkeys(
        f"- {model['name']} was pretrained on {', '.join(model['pretrained_on'])}."
        for model in models
        if model.get("pretrained_on")
    )
    return [*said, ""] if said else []


def _choices(entry: LedgerEntry) -> str:
    """Options of the training that are not the defaults, in words."""
    default = FinetuneConfig().to_dict() | {"metric": entry.metric}
    given = entry.config.get("finetune", {})
    told = [f"{k.replace('_', ' ')} {v}" for k, v in given.items() if default.get(k, v) != v]
    return ", ".join(told) or "the defaults"


def cells(table: str) -> list[list[str]]:
    """The rows of a markdown table as text, its head first, without the line of dashes."""
    lines = [line.strip().strip("|") for line in table.splitlines()]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    return [rows[0], *rows[2:]]


def suite_section(
    suite: str, tasks: Mapping[str, str], entries: Sequence[LedgerEntry]
) -> list[str]:
    """The lines of a page about a suite: the table, what its words mean, what was done to data.

    tasks: as in `suite_table`.
    """
    table, notes = suite_table(suite, tasks, entries)
    mine = [e for e in entries if e.suite == suite]
    lines = [table]
    if mine:
        notes = [
            "Score: mean and standard deviation over seeds, 95 % bootstrap interval over the rows "
            "measured. Rows: train, valid, test. Minutes: training of all seeds.",
            *notes,
        ]
        lines += ["  \n".join(notes), ""]
    machines = dict.fromkeys(f"{e.machine}; torch {e.versions.get('torch', '?')}" for e in mine)
    lines += ["  \n".join(f"Machine: {machine}." for machine in machines), ""] * bool(machines)
    options = dict.fromkeys(_choices(e) for e in mine)
    lines += ["Options that are not the defaults: " + "; or ".join(options) + ".", ""] * bool(
        options
    )
    lines += _pretraining(mine)
    beaten = dict.fromkeys(text for e in mine for text in _beaten(e))
    lines += ["Not above a baseline: " + "; ".join(beaten) + ".", ""] * bool(beaten)
    said = dict.fromkeys(f"- {e.task}: {e.note}" for e in mine if e.note)
    return [*lines, *said, ""] if said else lines


@dataclass(frozen=True)
class LengthScore:
    """A score at one length of windows."""

    bases: int
    value: float
    interval: tuple[float, float] | None = None
    """Low and high end of the bootstrap interval, where there is one."""
    rows: int = 0
    """Windows measured; a share of none of them lies below 1 / rows."""


Curves = Mapping[str, Sequence[LengthScore]]
"""Name of a model or baseline -> its scores by rising length."""


def length_section(suite: str, entries: Sequence[LedgerEntry], path: Path) -> list[str]:
    """The lines of a page about scores by length of windows, whose picture is written to `path`.

    None but for species, measured at more than one length. It says whether longer was better: by
    the metric, and where that is the same by the log-loss.
    """
    mine = [e for e in entries if e.suite == suite and e.config.get("subset") is None]
    mine = _named_by_options(mine)
    if suite != "species" or len({e.task for e in mine}) < 2:
        return []
    metric = mine[0].metric
    lengths = {e.task: task_length(e.task) for e in mine}
    scores, losses = (length_curves(mine, lengths, name) for name in (metric, "log_loss"))
    errors = {name: [error_of(point) for point in points] for name, points in scores.items()}
    context_plot({f"1 - {metric}": errors, "log-loss": losses}, path)
    lines = [f"![{metric} by length]({path.name})", ""]
    for name in dict.fromkeys(e.model for e in mine):
        if len(scores[name]) > 1:
            lines.append(f"- {name}: {longer_text(scores[name], losses.get(name, ()))}")
    return [*lines, ""]


def longer_text(scores: Sequence[LengthScore], losses: Sequence[LengthScore]) -> str:
    """Whether the longest windows give a better score than the shortest, with the figures.

    scores: more is better, two or more, by rising length. losses: of the same lengths, or none.
    """
    first, last = scores[0], scores[-1]
    better = last.value > first.value
    if last.value == first.value and losses:
        better = losses[-1].value < losses[0].value
    text = (
        f"longer is {'better' if better else 'not better'}: {first.value:.3f} at "
        f"{first.bases:,} bases, {last.value:.3f} at {last.bases:,}"
    )
    if first.interval and last.interval:
        apart = last.interval[0] > first.interval[1] or first.interval[0] > last.interval[1]
        text += "" if apart else " (their intervals overlap)"
    if losses:
        text += f"; log-loss {losses[0].value:.3g} and {losses[-1].value:.3g}"
    return text


def error_of(score: LengthScore) -> LengthScore:
    """The share that is wrong, of a share that is right."""
    ends = score.interval and (1 - score.interval[1], 1 - score.interval[0])
    return dataclasses.replace(score, value=1 - score.value, interval=ends)


def length_curves(
    entries: Sequence[LedgerEntry], lengths: Mapping[str, int], metric: str
) -> dict[str, list[LengthScore]]:
    """Model or baseline -> scores by rising length; the last entry of a length counts.

    lengths: bases of each task. Baselines have the name of theirs, and no intervals.
    """
    found: dict[str, dict[int, LengthScore]] = {}
    for entry in entries:
        bases, rows = lengths[entry.task], entry.rows[entry.scored_on]
        score = entry.scores.get(metric)
        if score is not None:
            point = LengthScore(bases, score.mean, score.interval, rows)
            found.setdefault(entry.model, {})[bases] = point
        for name, scores in entry.baselines.items():
            if metric in scores:
                found.setdefault(name, {})[bases] = LengthScore(bases, scores[metric], None, rows)
    return {name: [points[n] for n in sorted(points)] for name, points in found.items()}


def context_plot(panels: Mapping[str, Curves], path: Path) -> None:
    """Write a picture of scores against bases of context, on logarithmic axes.

    panels: what is drawn in each part of the picture, by its name; less is better. A score of 0
    stands where half a window would be wrong, hollow.

    Raises InputError where it cannot be written.
    """
    from hyenadna.report.plots import new_axes, save_figure

    figure, axes = new_axes("", "", "")
    axes.remove()
    figure.set_size_inches(5.4 * len(panels), 4.2)
    ticks = sorted({p.bases for curves in panels.values() for of in curves.values() for p in of})
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    for number, (title, curves) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), number)
        for name, points in curves.items():
            _draw(axes, name, points, f"C{names.index(name)}")
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_xlabel("bases")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
        axes.yaxis.set_minor_formatter(lambda y, _: "")
        axes.set_xticks(ticks, [f"{bases:,}" for bases in ticks])
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e8eb", linewidth=0.8)
        axes.set_axisbelow(True)
    figure.axes[0].legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def _draw(axes: Axes, name: str, points: Sequence[LengthScore], colour: str) -> None:
    """One curve, with its intervals."""
    bases = [point.bases for point in points]
    # a logarithmic axis has no 0
    least = [0.5 / point.rows if point.rows else 1e-6 for point in points]
    values = [p.value if p.value > 0 else low for p, low in zip(points, least, strict=True)]
    axes.plot(bases, values, "-", color=colour, linewidth=1.4, label=name)
    for x, y, low, point in zip(bases, values, least, points, strict=True):
        face = "white" if point.value <= 0 else colour
        axes.plot(x, y, "o", color=colour, markerfacecolor=face, markersize=4.5)
        if point.interval:
            ends = [end if end > 0 else low for end in point.interval]
            axes.plot([x, x], ends, color=colour, linewidth=1, alpha=0.6)
