"""The report of a few-shot run as one HTML file: how good, how sure, and whether it was learned in
context."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from hyenadna.report.context_plots import ContextPoint, context_plot
from hyenadna.report.finetune_page import between, data_blocks, short, signed
from hyenadna.report.page import (
    NO_VALUE,
    Block,
    Cell,
    caveat,
    details,
    heading,
    paragraph,
    picture,
    pictures,
    table,
    write_page,
)
from hyenadna.train.bootstrap import Difference, Interval

_FEWEST_ROWS: Final = 30
_FEWEST_DRAWS: Final = 2


@dataclass(frozen=True, kw_only=True)
class CellFigures:
    """One cell, measured: accuracies are means over rows and draws."""

    title: str
    tuned: int
    shots: int
    accuracy: Interval
    """Of the most probable class; calibrated, where the run calibrates."""
    raw: Interval
    """The same without calibration."""
    strict: Interval
    """How often the most probable letters of the whole vocabulary spell the right class."""
    mcc: float
    auroc: float
    """Means over draws, as `hyenadna.train.metrics` defines them."""
    valid: float
    """Accuracy on the rows to choose by."""
    shuffled: Interval | None = None
    """The controls; None where nothing was demonstrated."""
    reordered: Interval | None = None
    none: Interval | None = None
    less_shuffled: Difference | None = None
    """Accuracy with true less that with shuffled labels, on the same rows and draws."""
    less_none: Difference | None = None
    changed: float = math.nan
    """Share of answers that another order of the same demonstrations changes."""
    prefix_tokens: float = 0.0
    seconds: float = 0.0
    tuning_seconds: float = 0.0
    saving: float = math.nan
    """How many times faster the rows to choose by are answered behind a shared prefix than in
    batches, of as many tokens, of prefix and query together."""


@dataclass(frozen=True, kw_only=True)
class ComparedFigures:
    """One that learnt from all training rows."""

    name: str
    accuracy: Interval
    trained: int
    seconds: float
    note: str


@dataclass(frozen=True, kw_only=True)
class FewshotPage:
    """Everything that the page shows, in plain values."""

    title: str
    model: str
    """What was asked, such as a folder."""
    data: str
    """Where the labelled sequences are from."""
    words: Mapping[str, str]
    """Class -> the letters that stand for it."""
    splits: Mapping[str, Mapping[str, int]]
    part: str
    """The part measured."""
    rows: int
    """Rows measured."""
    draws: int
    calibrated: bool
    cells: Sequence[CellFigures]
    best: int
    """The cell with the best accuracy on the rows to choose by."""
    chance: float
    """Accuracy of always naming the largest class."""
    compared: Sequence[ComparedFigures] = ()
    full: bool = False
    """Whether the full fine-tuned model is among them."""
    levels: Mapping[str, float] = field(default_factory=dict)
    """Accuracies that the user gave."""
    caveats: Sequence[str] = ()
    settings: Mapping[str, Cell] = field(default_factory=dict)
    leaks: Sequence[str] = ()
    overlaps: Sequence[Mapping[str, Cell]] = ()
    footer: str = ""


def write_fewshot_page(page: FewshotPage, path: Path) -> None:
    """Write the report, whole or not at all. Raises InputError where it cannot be written."""
    blocks = [*_summary(page), *_results(page), *_pictures(page)]
    blocks += data_blocks(page.data, page.splits, page.leaks, page.overlaps)
    if page.settings:
        shown = table(["setting", "value"], [[k, v] for k, v in page.settings.items()])
        blocks += [details("Settings", [shown])]
    write_page(path, page.title, blocks, footer=page.footer)


def verdict(
    cells: Sequence[CellFigures], best: int, chance: float, *, rows: int, draws: int
) -> list[str]:
    """How the best cell stands against guessing, and whether anything was learned in context.

    The second sentence is of the cell with demonstrations that is best on the rows to choose by.
    rows: measured. draws: of demonstrations. Too few of either, and nothing is called certain.
    """
    cell = cells[best]
    text = f"Best on the rows to choose by: {cell.title}, accuracy {score(cell.accuracy)}; "
    text += f"always naming the largest class gives {chance:.3f}: "
    few = _too_few(rows, draws if cell.shots else None)
    if few:
        return [f"{text}cannot tell ({few}).", _learned(cells, rows, draws)]
    if cell.accuracy.low > chance:
        text += "clearly above it."
    elif cell.accuracy.high < chance:
        text += "clearly BELOW it."
    else:
        text += "NOT above it."
    return [text + _no_width(cell.accuracy), _learned(cells, rows, draws)]


def _verdict(page: FewshotPage) -> list[str]:
    return verdict(page.cells, page.best, page.chance, rows=page.rows, draws=page.draws)


def _too_few(rows: int, draws: int | None) -> str:
    """Why nothing is certain, empty where it may be. draws: None where nothing was drawn."""
    if rows < _FEWEST_ROWS:
        return f"{rows:,} row{'s' * (rows != 1)} measured, fewer than {_FEWEST_ROWS}"
    if draws is not None and draws < _FEWEST_DRAWS:
        return "one draw: cannot tell draws apart from luck; give --draws 3 or more"
    return ""


def _no_width(interval: Interval) -> str:
    """A sentence where there is nothing to be resampled."""
    if interval.low < interval.high:
        return ""
    return " All rows agree, so the interval has no width and says too little."


def _learned(cells: Sequence[CellFigures], rows: int, draws: int) -> str:
    """Whether true labels beat shuffled ones."""
    shown = [cell for cell in cells if cell.less_shuffled is not None]
    if not shown:
        return "No demonstrations were given, so nothing can have been learned in context."
    cell = max(shown, key=lambda each: each.valid)
    gap = cell.less_shuffled
    assert gap is not None
    text = f"{difference(gap)} at {cell.title}"
    few = _too_few(rows, draws)
    if few:
        return (
            "Cannot tell whether it was learned in context: true labels less shuffled ones, in "
            f"accuracy, are {text} ({few})."
        )
    beaten = sum(each.less_shuffled is not None and each.less_shuffled.low > 0 for each in shown)
    several = f"; in {beaten} of {len(shown)} cells with demonstrations they do"
    text += (several if len(shown) > 1 else "") + "." + _no_width(gap)
    if gap.low > 0:
        return f"Learned in context: true labels beat shuffled ones in accuracy by {text}"
    if gap.high < 0:
        return f"NOT learned in context: true labels are worse than shuffled ones, {text}"
    return (
        "NOT shown to be learned in context: true labels do not beat shuffled ones in accuracy, "
        f"{text}"
    )


def _summary(page: FewshotPage) -> list[Block]:
    words = ", ".join(f"{name} is {word}" for name, word in page.words.items())
    blocks = [
        paragraph(
            f"{page.model}, asked for the class of sequences of {page.data} behind demonstrations; "
            f"{words}. {page.rows:,} rows of the {page.part} part, {page.draws} "
            f"draw{'s' * (page.draws != 1)} of demonstrations from the train part."
        )
    ]
    blocks += [paragraph(text) for text in _verdict(page)]
    blocks += [caveat(text) for text in page.caveats]
    if page.leaks:
        blocks.append(caveat(f"The splits have sequences in common: {'; '.join(page.leaks)}."))
    return blocks


def _results(page: FewshotPage) -> list[Block]:
    columns = ["", "accuracy ↑", "shuffled labels", "true less shuffled", "no demonstrations",
               "mcc ↑", "auroc ↑", "valid"]  # fmt: skip
    rows: list[list[Cell]] = [
        [
            cell.title,
            score(cell.accuracy),
            score(cell.shuffled),
            difference(cell.less_shuffled),
            score(cell.none),
            cell.mcc,
            cell.auroc,
            cell.valid,
        ]
        for cell in page.cells
    ]
    how = "calibrated" if page.calibrated else "not calibrated"
    blocks = [
        heading("Results"),
        table(columns, rows, strong=[page.best]),
        paragraph(
            f"Accuracy of the most probable class, {how}; 95 % bootstrap intervals over rows and "
            "draws (too narrow where there are few draws). Shuffled labels: the same "
            "demonstrations in the same order, labels right no more than by chance. Differences "
            "are paired by row and draw. Bold: best on the valid rows.",
            soft=True,
        ),
    ]
    more: list[list[Cell]] = [
        [
            cell.title,
            score(cell.raw),
            score(cell.strict),
            score(cell.reordered),
            cell.changed,
            difference(cell.less_none),
            round(cell.prefix_tokens),
            cell.saving,
            cell.tuning_seconds or None,
            cell.seconds,
        ]
        for cell in page.cells
    ]
    columns = ["", "not calibrated", "spelled", "another order", "answers changed",
               "true less none", "tokens shown", "times faster", "tuning, s", "all, s"]  # fmt: skip
    blocks += [
        table(columns, more, caption="More on each cell"),
        paragraph(
            "Spelled: the most probable letters of the whole vocabulary are the class's (the "
            "original's accuracy). Answers changed: by another order of the same demonstrations. "
            "Times faster (the model as it is): the rows to choose by behind one shared pass over "
            "the demonstrations, against batches, of as many tokens, of demonstrations and query "
            "together (timed on one full batch, or all rows where they are fewer, and counted for "
            "all). Both are timed after a call to warm up; more queries save more.",
            soft=True,
        ),
    ]
    if page.compared:
        lines: list[list[Cell]] = [
            [each.name, score(each.accuracy), each.trained or None, each.seconds, each.note]
            for each in page.compared
        ]
        columns = ["", "accuracy ↑", "trained parameters", "seconds", "note"]
        caption = "Trained on all training rows, measured on the same rows"
        blocks.append(table(columns, lines, caption=caption))
    if not page.full:
        blocks.append(
            paragraph(
                "The full fine-tuned model was not measured: a run with --compare full trains it "
                "on all training rows and adds its figure here, and --level full=0.85 draws one "
                "that is known."
            )
        )
    return blocks


def shots_plot(page: FewshotPage) -> Figure:
    """Accuracy against shots, a curve for each number of tuning samples."""
    figure, _ = _against_shots(page)
    return figure


def _against_shots(page: FewshotPage) -> tuple[Figure, str]:
    curves = {
        name: [_point(cell.shots, cell.accuracy) for cell in own]
        for name, own in _by_tuning(page).items()
    }
    return _curves(page, ("Accuracy against shots", "demonstrations of each class"), curves)


def _by_tuning(page: FewshotPage) -> dict[str, list[CellFigures]]:
    """The cells of each number of tuning samples, by a few words for it."""
    return {
        f"tuned on {n}" if n else "untuned": [cell for cell in page.cells if cell.tuned == n]
        for n in sorted({cell.tuned for cell in page.cells})
    }


def _pictures(page: FewshotPage) -> list[Block]:
    tuned = sorted({cell.tuned for cell in page.cells})
    shots = sorted({cell.shots for cell in page.cells})
    drawn = [_against_shots(page)]
    if len(tuned) > 1:
        by_tuned = {
            f"{k} shot{'s' * (k != 1)}": [
                _point(cell.tuned, cell.accuracy) for cell in page.cells if cell.shots == k
            ]
            for k in shots
        }
        drawn.append(_curves(page, ("Accuracy against tuning samples", "rows tuned on"), by_tuned))
    gaps = {
        name: [_point(cell.shots, cell.less_shuffled) for cell in own if cell.less_shuffled]
        for name, own in _by_tuning(page).items()
    }
    if any(gaps.values()):
        figure = context_plot(
            "True less shuffled labels", "demonstrations of each class", "accuracy difference",
            gaps, {"nothing learned in context": 0.0},
        )  # fmt: skip
        drawn.append((figure, "What true labels are worth: above 0 it was learned in context."))
    return [heading("Pictures"), pictures([picture(figure, text) for figure, text in drawn])]


def _curves(
    page: FewshotPage, titles: tuple[str, str], curves: Mapping[str, Sequence[ContextPoint]]
) -> tuple[Figure, str]:
    """Accuracy curves with the levels of the page, and what they show. titles: of plot and axis."""
    levels = {each.name: each.accuracy.value for each in page.compared} | dict(page.levels)
    figure = context_plot(*titles, "accuracy", curves, levels, chance=page.chance)
    return figure, f"{titles[0]}; bands are 95 % intervals."


def _point(amount: int, interval: Interval) -> ContextPoint:
    return ContextPoint(amount, interval.value, interval.low, interval.high)


def score(interval: Interval | None) -> str:
    """Such as "0.812 (0.790 to 0.831)"; a dash for None."""
    return NO_VALUE if interval is None else short(interval.value) + between(short, interval)


def difference(gap: Difference | None) -> str:
    """Such as "+0.052 (+0.010 to +0.091)"; a dash for None."""
    return NO_VALUE if gap is None else signed(gap.value) + between(signed, gap)
