"""The report of a fine-tuning run as one HTML file: what was run, on what, how good, how sure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy.typing as npt
from matplotlib.figure import Figure

from hyenadna.report import classifier_plots as plots
from hyenadna.report.page import (
    NO_VALUE,
    Block,
    Cell,
    caveat,
    details,
    heading,
    number_text,
    paragraph,
    picture,
    pictures,
    records,
    table,
    write_page,
)
from hyenadna.report.regression_plots import predicted_plot
from hyenadna.task_kinds import TaskKind
from hyenadna.train.bootstrap import Difference, Interval
from hyenadna.train.curves import confusion, precision_recall, reliability, roc
from hyenadna.train.metrics import (
    COUNTS,
    LOWER_IS_BETTER,
    is_better,
    main_metric,
    per_output,
    scored_classes,
)
from hyenadna.train.scored import Scored, scored

_FIRST: Final[Mapping[str, tuple[str, ...]]] = {
    "classes": ("mcc", "accuracy", "f1_macro", "auroc"),
    "tokens": ("mcc", "accuracy", "f1_macro", "auroc"),
    "labels": ("auroc", "auroc_median", "auprc", "f1"),
    "values": ("pearson", "spearman", "r2", "rmse"),
}
_GAP: Final = "\u00a0"  # a space at which no line ends
_TARGETS_DRAWN: Final = 6
_ROWS_OPEN: Final = 20  # a longer table is folded
_MOST_CURVES: Final = 40  # more classes or labels than this have no curves each


@dataclass(frozen=True)
class Predictor:
    """One line of the table of results: the fine-tuned model, or a baseline."""

    name: str
    scores: Mapping[str, Interval]
    """Metric -> value and interval; over several seeds, the mean value."""
    spread: Mapping[str, float] = field(default_factory=dict)
    """Metric -> standard deviation over seeds."""
    seeds: int = 1
    note: str = ""
    differences: Mapping[str, Difference] = field(default_factory=dict)
    """Metric -> the model less this predictor, on the same rows (for baselines)."""


@dataclass(frozen=True, kw_only=True)
class FinetunePage:
    """Everything that the page shows, in plain values."""

    title: str
    kind: TaskKind
    names: Sequence[str]
    """Classes, labels or targets."""
    data: str
    """Where the labelled sequences are from."""
    backbone: str
    """What was fine-tuned, such as a folder, or random weights."""
    splits: Mapping[str, Mapping[str, int]]
    """Split -> what is counted -> count, such as {"train": {"sequences": 900, "splice": 450}}."""
    predictors: Sequence[Predictor]
    """The fine-tuned model first, then baselines."""
    targets: npt.NDArray[Any]
    """Of the part measured, as `hyenadna.train.metrics.metrics` takes them."""
    outputs: npt.NDArray[Any]
    """Of the model, for the pictures; one seed of several."""
    part: str = "test"
    """The part measured."""
    chosen_on: Literal["valid", "test"] = "valid"
    """The part by which step and settings were chosen."""
    settings: Mapping[str, Cell] = field(default_factory=dict)
    leaks: Sequence[str] = ()
    """What two splits have in common, a sentence each; empty where nothing was found."""
    overlaps: Sequence[Mapping[str, Cell]] = ()
    """The same in numbers, a line for each two splits."""
    history: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Run -> its evaluations: step, train_loss, valid_loss, value, best."""
    label_groups: Sequence[str] | None = None
    caveats: Sequence[str] = ()
    verb: str = "fine-tuned"
    """What was done with the backbone."""
    more: Sequence[Block] = ()
    """Stands after the results."""
    footer: str = ""
    """What made the page, and when."""


def write_finetune_page(page: FinetunePage, path: Path) -> None:
    """Write the report, whole or not at all.

    Raises InputError where it cannot be written, and for targets and outputs that do not fit.
    """
    rows = scored(page.kind, page.targets, page.outputs)
    blocks = [
        *_summary(page, rows),
        *_results(page),
        *page.more,
        *_pictures(page, rows),
        *_each_output(page),
        *data_blocks(page.data, page.splits, page.leaks, page.overlaps),
        *_training(page),
    ]
    write_page(path, page.title, blocks, footer=page.footer)


def _summary(page: FinetunePage, rows: Scored) -> list[Block]:
    what = {
        "classes": f"one of {len(page.names)} classes for each sequence",
        "labels": f"{len(page.names)} yes/no labels for each sequence",
        "values": f"{len(page.names)} number{'s' * (len(page.names) > 1)} for each sequence",
        "tokens": f"one of {len(page.names)} classes for each base",
    }[page.kind]
    unit = "bases" if page.kind == "tokens" else "sequences"
    blocks = [
        paragraph(
            f"{page.backbone}, {page.verb} on {page.data}: {what}. Measured on {len(rows):,} "
            f"{unit} of the {page.part} part."
        ),
        *map(paragraph, _verdict(page)),
    ]
    return blocks + [caveat(text) for text in _caveats(page)]


def _verdict(page: FinetunePage) -> list[str]:
    """How the model stands against the best baseline, in the metric of its task."""
    metric = main_metric(page.kind).name
    model, *baselines = page.predictors
    value = model.scores[metric].value
    text = f"{metric} of {model.name}: {_score(model, metric)}."
    best: Predictor | None = None
    for each in baselines:
        score = each.scores.get(metric, Interval(math.nan)).value
        if is_better(metric, score, best.scores[metric].value if best else math.nan):
            best = each
    if best is None:
        return [text]
    text += f" Best baseline ({best.name}): {_score(best, metric)}."
    gap = best.differences.get(metric)
    if gap is None or math.isnan(gap.low):
        return [
            text,
            f"The model is {'' if value > best.scores[metric].value else 'NOT '}above it.",
        ]
    if gap.low > 0:
        verdict = "The model is clearly above it"
    elif gap.high < 0:
        verdict = "The model is clearly BELOW it"
    else:
        verdict = "The difference is within the noise of the rows measured"
    return [text, f"{verdict}: {signed(gap.value)} ({signed(gap.low)} to {signed(gap.high)})."]


def _caveats(page: FinetunePage) -> list[str]:
    found = list(page.caveats)
    if page.chosen_on == page.part:
        found.insert(
            0,
            f"The model was chosen on the {page.part} part, the one it is measured on: the figures "
            "are too good, and only to be set beside others that were made so.",
        )
    if page.leaks:
        found.append(f"The splits have sequences in common: {'; '.join(page.leaks)}.")
    if page.predictors[0].seeds == 1:
        found.append("One seed only: how much another seed would change is not known.")
    return found


def _results(page: FinetunePage) -> list[Block]:
    model, *baselines = page.predictors
    first = [name for name in _FIRST[page.kind] if name in model.scores]
    rows: list[list[Cell]] = [
        [each.name, *(_score(each, name) for name in first), each.seeds, each.note]
        for each in page.predictors
    ]
    columns = ["", *map(_titled, first), "seeds", "note"]
    if not any(each.note for each in page.predictors):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    blocks = [heading("Results"), table(columns, rows, strong=[0])]
    blocks.append(
        paragraph(
            "Value ± standard deviation over seeds (95 % bootstrap interval over the sequences "
            "measured). ↑ higher is better, ↓ lower is better. – undefined.",
            soft=True,
        )
    )
    every = [name for name in model.scores if name not in COUNTS]
    full = [[_titled(name), *(_score(each, name) for each in page.predictors)] for name in every]
    names = [each.name for each in page.predictors]
    blocks.append(details("All metrics", [table(["", *names], full)]))
    counts = [f"{name.replace('_', ' ')}: {model.scores[name].value:.0f}"
              for name in model.scores if name in COUNTS]  # fmt: skip
    if counts:
        blocks.append(paragraph(", ".join(counts) + ".", soft=True))
    gaps = [
        [each.name, *(_difference(each, name) for name in first)]
        for each in baselines
        if each.differences
    ]
    if gaps:
        title = "The model less each baseline, on the same rows"
        blocks.append(table(["", *map(_titled, first)], gaps, caption=title))
    return blocks


def _titled(metric: str) -> str:
    return f"{metric} {'↓' if metric in LOWER_IS_BETTER else '↑'}"


def _score(each: Predictor, metric: str) -> str:
    """Such as "0.812 ± 0.004 (0.790 to 0.831)", which may break before the interval."""
    score = each.scores.get(metric)
    if score is None or math.isnan(score.value):
        return NO_VALUE
    text = short(score.value)
    if not math.isnan(each.spread.get(metric, math.nan)):
        text += f"{_GAP}±{_GAP}{short(each.spread[metric])}"
    return text + between(short, score)


def between(shown: Callable[[float], str], interval: Interval) -> str:
    """The interval behind a value, on one line; nothing where it is not known."""
    if math.isnan(interval.low):
        return ""
    return f" ({shown(interval.low)}{_GAP}to{_GAP}{shown(interval.high)})"


def _difference(each: Predictor, metric: str) -> str:
    gap = each.differences.get(metric)
    if gap is None or math.isnan(gap.value):
        return NO_VALUE
    return signed(gap.value) + between(signed, gap)


def short(value: float) -> str:
    """To three places, or as a table shows a large number."""
    return f"{value:.3f}".replace("-", "−") if abs(value) < 1000 else number_text(value)


def signed(value: float) -> str:
    """With its sign, to three places."""
    return f"{value:+.3f}".replace("-", "−")


def _pictures(page: FinetunePage, rows: Scored) -> list[Block]:
    drawn = _values_pictures(page, rows) if rows.kind == "values" else _yes_no_pictures(page, rows)
    shown = [picture(figure, text) for figure, text in drawn]
    return [heading("Pictures"), pictures(shown)]


def _values_pictures(page: FinetunePage, rows: Scored) -> list[tuple[Figure, str]]:
    drawn = [
        (
            predicted_plot(rows.targets[:, column], rows.outputs[:, column], name),
            f"Predicted against true {name}; the dotted line is a perfect prediction.",
        )
        for column, name in enumerate(page.names[:_TARGETS_DRAWN])
    ]
    if len(page.names) > _TARGETS_DRAWN:
        each = {"": [float(row["pearson"]) for row in _rows(page)]}
        figure = plots.spread_plot(each, metric="Pearson", what="targets")
        drawn.append((figure, f"Pearson correlation of each of the {len(page.names)} targets."))
    return drawn


def _yes_no_pictures(page: FinetunePage, rows: Scored) -> list[tuple[Figure, str]]:
    """Pictures of classes or labels."""
    drawn: list[tuple[Figure, str]] = []
    width = len(page.names)
    if rows.by_class:
        figure = plots.confusion_plot(confusion(rows), page.names)
        drawn.append((figure, "True classes (rows) and what they were taken for (columns)."))
        columns: Sequence[int] = scored_classes(width)
    else:
        drawn += _spread_over_labels(page) if width > 1 else []
        columns = range(width)
    if len(columns) <= _MOST_CURVES:
        curves = [roc(rows, column, page.names[column]) for column in columns]
        drawn.append((plots.roc_plot(curves), "True against false positives at every threshold."))
        curves = [precision_recall(rows, column, page.names[column]) for column in columns]
        figure = plots.precision_recall_plot(curves)
        drawn.append((figure, "Precision against recall at every threshold."))
    promise = "probability of the class predicted" if rows.by_class else "predicted probability"
    drawn.append(
        (
            plots.reliability_plot(reliability(rows), promise=promise),
            "How often a prediction came true, against its probability; the dotted line is perfect "
            "calibration, the grey bars are the share of predictions.",
        )
    )
    return drawn


def _spread_over_labels(page: FinetunePage) -> list[tuple[Figure, str]]:
    groups = page.label_groups or [""] * len(page.names)
    figures = []
    for key, metric in (("auroc", "AUROC"), ("auprc", "AUPRC")):
        values: dict[str, list[float]] = {group: [] for group in dict.fromkeys(groups)}
        for group, row in zip(groups, _rows(page), strict=True):
            values[group].append(float(row[key]))
        figure = plots.spread_plot(values, metric=metric, what="labels")
        figures.append((figure, f"{metric} of each label; those with one answer are left out."))
    return figures


def _rows(page: FinetunePage) -> list[dict[str, str | float]]:
    return per_output(page.kind, page.targets, page.outputs, page.names)


def _each_output(page: FinetunePage) -> list[Block]:
    if page.kind == "values" and len(page.names) == 1:
        return []
    what = {"values": "target", "labels": "label"}.get(page.kind, "class")
    block = records(_rows(page))
    if len(page.names) > _ROWS_OPEN:
        block = details(f"all {len(page.names):,}", [block])
    return [heading(f"Each {what}"), block]


def data_blocks(
    data: str,
    splits: Mapping[str, Mapping[str, int]],
    leaks: Sequence[str],
    overlaps: Sequence[Mapping[str, Cell]],
) -> list[Block]:
    """What the splits hold, and what they have in common; arguments as the page's fields."""
    counted = list(dict.fromkeys(name for counts in splits.values() for name in counts))
    rows: list[list[Cell]] = [
        [split, *(counts.get(name) for name in counted)] for split, counts in splits.items()
    ]
    blocks = [heading("Data"), paragraph(data), table(["split", *counted], rows)]
    if overlaps:
        blocks.append(records(overlaps, caption="What the splits have in common"))
        if not leaks:
            blocks.append(paragraph("No sequence was found in two splits.", soft=True))
    elif not leaks:
        blocks.append(paragraph("Leaks between the splits were not looked for.", soft=True))
    return blocks


def _training(page: FinetunePage) -> list[Block]:
    blocks = [heading("Training")]
    if any(page.history.values()):
        metric = _chosen_by(page)
        losses = plots.learning_plot(
            page.history, {"train_loss": "training", "valid_loss": "valid"}, title="Loss", y="loss"
        )
        values = plots.learning_plot(
            page.history, {"value": f"valid {metric}"}, title="Choice of the model", y=metric
        )
        blocks.append(
            pictures(
                [
                    picture(losses, "Loss while training; the ring is the model that was kept."),
                    picture(values, f"Valid {metric}, by which the model was chosen (ring)."),
                ]
            )
        )
    if page.settings:
        shown = table(["setting", "value"], [[k, v] for k, v in page.settings.items()])
        blocks.append(details("Settings", [shown]))
    return blocks if len(blocks) > 1 else []


def _chosen_by(page: FinetunePage) -> str:
    """The metric of the valid part that chose the model."""
    named = (entry.get("metric") for entries in page.history.values() for entry in entries)
    return next((str(name) for name in named if name), main_metric(page.kind).name)
