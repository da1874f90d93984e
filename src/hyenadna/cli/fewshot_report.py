"""What a few-shot run leaves behind: figures, a page, predictions.

RUN/best/             the tuned model that was best on the valid rows, where one was tuned
RUN/predictions.csv   what the best cell says of each row measured, in each draw
RUN/report.html       everything in one file
RUN/metrics.json      the figures; written last, so that it says that the run is complete
RUN/cells/            the answers of each cell
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from hyenadna import __version__
from hyenadna.cli.console import make_table
from hyenadna.cli.fewshot_cells import NONE, REORDERED, SHUFFLED, TRUE, CellResult
from hyenadna.cli.fewshot_job import FewshotOutcome, best_cell, valid_accuracy
from hyenadna.cli.finetune_data import data_name, leak_lines, overlap_rows
from hyenadna.cli.finetune_report import METRICS, finite, made_by, write_csv, write_json
from hyenadna.cli.units import duration

if TYPE_CHECKING:
    from hyenadna.report.fewshot_page import CellFigures, ComparedFigures, FewshotPage


@dataclass(frozen=True, eq=False)
class FinishedFewshot:
    """A run and all that its report says."""

    outcome: FewshotOutcome
    seconds: float
    """Of the whole command, an interrupted start not counted."""

    @cached_property
    def cells(self) -> list[CellFigures]:
        """The figures of each cell."""
        return [cell_figures(self.outcome, result) for result in self.outcome.results]

    @cached_property
    def best(self) -> int:
        """Which cell is the best on the valid rows."""
        found = best_cell(self.outcome.job, self.outcome.results)
        return next(i for i, each in enumerate(self.outcome.results) if each is found)

    @cached_property
    def chance(self) -> float:
        """Accuracy of always naming the class that most of the measured rows have."""
        counts = np.bincount(np.asarray(self.outcome.job.measured.targets))
        return float(counts.max() / counts.sum())

    @cached_property
    def compared(self) -> list[ComparedFigures]:
        """The figures of what is compared with."""
        from hyenadna.report.fewshot_page import ComparedFigures
        from hyenadna.train.bootstrap_draws import draws_interval

        return [
            ComparedFigures(
                name=each.name,
                accuracy=draws_interval(each.right[None]),
                trained=each.trained,
                seconds=round(each.seconds, 3),
                note=each.note,
            )
            for each in self.outcome.compared
        ]

    @cached_property
    def verdict(self) -> list[str]:
        """In two sentences."""
        from hyenadna.report.fewshot_page import verdict

        job = self.outcome.job
        rows, draws = len(job.measured), job.request.context.draws
        return verdict(self.cells, self.best, self.chance, rows=rows, draws=draws)


def cell_figures(outcome: FewshotOutcome, result: CellResult) -> CellFigures:
    """The figures of one cell on the rows measured."""
    from hyenadna.report.fewshot_page import CellFigures
    from hyenadna.train.bootstrap_draws import draws_difference, draws_interval
    from hyenadna.train.metrics import metrics

    job, notes = outcome.job, result.notes
    targets = np.asarray(job.measured.targets)
    right = {name: asked.classes() == targets for name, asked in result.asked.items()
             if name in (TRUE, SHUFFLED, REORDERED, NONE)}  # fmt: skip
    true = result.asked[TRUE]
    each = [metrics("classes", targets, outputs) for outputs in true.probabilities()]
    figures = CellFigures(
        title=result.cell.title,
        tuned=result.cell.tuned,
        shots=result.cell.shots,
        accuracy=draws_interval(right[TRUE]),
        raw=draws_interval(true.classes(calibrated=False) == targets),
        strict=draws_interval(true.spelled == targets),
        mcc=float(np.mean([found["mcc"] for found in each])),
        auroc=float(np.mean([found["auroc"] for found in each])),
        valid=valid_accuracy(job, result),
        prefix_tokens=float(notes["prefix_tokens"]),
        seconds=round(float(notes["seconds"]), 3),
        tuning_seconds=round(float(notes.get("tuning_seconds", 0.0)), 3),
    )
    if SHUFFLED not in right:
        return figures
    changed = true.classes() != result.asked[REORDERED].classes()
    return dataclasses.replace(
        figures,
        shuffled=draws_interval(right[SHUFFLED]),
        reordered=draws_interval(right[REORDERED]),
        none=draws_interval(right[NONE]),
        less_shuffled=draws_difference(right[TRUE], right[SHUFFLED]),
        less_none=draws_difference(right[TRUE], right[NONE]),
        changed=float(changed.mean()),
        saving=notes["together_seconds"] / max(notes["shared_seconds"], 1e-9)
        if "shared_seconds" in notes
        else math.nan,
    )


def write_results(run: FinishedFewshot, folder: Path) -> dict[str, Any]:
    """Write predictions, page, curve and figures; returns what `metrics.json` holds."""
    from hyenadna.report.fewshot_page import shots_plot, write_fewshot_page
    from hyenadna.report.plots import save_figure

    write_csv(folder / "predictions.csv", prediction_rows(run))
    page = _page(run)
    write_fewshot_page(page, folder / "report.html")
    save_figure(shots_plot(page), folder / "curve.png")
    summary = _summary(run)
    write_json(folder / METRICS, summary)
    return summary


def prediction_rows(run: FinishedFewshot) -> Iterator[list[str]]:
    """Header, and a line for each row measured and draw: what the best cell says of it.

    `spelled` is the class that the most probable letters of the whole vocabulary name, empty where
    they name none; `predicted` and the probabilities are calibrated where the run calibrates.
    """
    job = run.outcome.job
    rows, names = job.measured, job.words.names
    asked = run.outcome.results[run.best].asked[TRUE]
    yield ["id", "draw", "target", "predicted", "spelled", *(f"p_{name}" for name in names)]
    for draw, (said, spelled) in enumerate(
        zip(asked.probabilities().astype(np.float32), asked.spelled, strict=True)
    ):
        for id, target, row, word in zip(rows.ids, rows.targets, said, spelled, strict=True):
            by_letters = names[word] if word >= 0 else ""
            best = names[int(row.argmax())]
            yield [id, str(draw), names[target], best, by_letters, *row.astype(str).tolist()]


def _summary(run: FinishedFewshot) -> dict[str, Any]:
    outcome, job = run.outcome, run.outcome.job
    data, request = job.data, job.request
    cells = []
    for figures, result in zip(run.cells, outcome.results, strict=True):
        entry = dataclasses.asdict(figures)
        entry["per_draw"] = _per_draw(outcome, result)
        entry["notes"] = dict(result.notes)
        cells.append(entry)
    return finite(
        {
            "hyenadna": __version__,
            "model": request.source.model,
            "model_digest": job.model_digest,
            "data": data_name(request.source, data.learning),
            "data_digest": data.digest,
            "task": {"kind": "classes", "names": list(job.words.names)},
            "label_words": dict(zip(job.words.names, job.words.words, strict=True)),
            "part": data.part,
            "chosen_on": data.chosen_on,
            "caveats": job.caveats,
            "counts": data.counts,
            "measured_rows": len(job.measured),
            "choice_rows": len(job.valid),
            "calibrated": request.context.calibrate == "train",
            "chance": run.chance,
            "verdict": run.verdict,
            "best": run.cells[run.best].title,
            "cells": cells,
            "compared": {
                each.key: dataclasses.asdict(figures)
                for each, figures in zip(outcome.compared, run.compared, strict=True)
            },
            "levels": request.context.levels,
            "request": request.to_dict(),
            "seconds": round(run.seconds, 3),
        }
    )


def _per_draw(outcome: FewshotOutcome, result: CellResult) -> dict[str, list[float]]:
    """Accuracy of each draw, by control."""
    targets = np.asarray(outcome.job.measured.targets)
    return {
        name: (result.asked[name].classes() == targets).mean(1).tolist()
        for name in (TRUE, SHUFFLED, REORDERED, NONE)
        if name in result.asked
    }


def _page(run: FinishedFewshot) -> FewshotPage:
    from hyenadna.report.fewshot_page import FewshotPage

    job = run.outcome.job
    data, request = job.data, job.request
    near = request.source.splitting.leaks == "near"
    return FewshotPage(
        title=f"{data.learning.name}: {job.source.title}, asked in context",
        model=job.source.described,
        data=data_name(request.source, data.learning),
        words=dict(zip(job.words.names, job.words.words, strict=True)),
        splits=data.counts,
        part=data.part,
        rows=len(job.measured),
        draws=request.context.draws,
        calibrated=request.context.calibrate == "train",
        cells=run.cells,
        best=run.best,
        chance=run.chance,
        compared=run.compared,
        full="full" in request.compare,
        levels=request.context.levels,
        caveats=job.caveats,
        settings=_settings(run),
        leaks=leak_lines(data.leaks) if data.leaks else (),
        overlaps=overlap_rows(data.leaks, near=near) if data.leaks else (),
        footer=made_by("fewshot"),
    )


def _settings(run: FinishedFewshot) -> dict[str, Any]:
    job = run.outcome.job
    shown: dict[str, Any] = {
        "model": job.request.source.model,
        "device": str(job.device),
        "time": duration(run.seconds),
        "rows to choose by": len(job.valid),
        "notes on the data": "; ".join(job.data.learning.notes),
    }
    plain = job.request.to_dict()
    groups = (plain["context"], plain["tuning"], plain["source"]["splitting"])
    for group in groups:
        shown |= {
            name.replace("_", " "): str(value)
            for name, value in group.items()
            if value not in (None, (), [])
        }
    return shown


def show_results(run: FinishedFewshot, console: Console) -> None:
    """Print the figures as a table, and the verdict."""
    from hyenadna.report.fewshot_page import difference, score

    job = run.outcome.job
    title = f"{job.data.part} part, {len(job.measured):,} sequences: accuracy"
    columns = ("true labels", "shuffled", "true less shuffled", "none", "spelled")
    table = make_table(title, "", *columns)
    for i, cell in enumerate(run.cells):
        table.add_row(
            cell.title,
            score(cell.accuracy),
            _short(cell.shuffled),
            difference(cell.less_shuffled),
            _short(cell.none),
            _short(cell.strict),
            style="bold" if i == run.best else None,
        )
    for each in run.compared:
        table.add_row(each.name, score(each.accuracy), *[""] * 4)
    for name, value in job.request.context.levels.items():
        table.add_row(name, f"{value:.3f}", *[""] * 4)
    table.add_row("largest class", f"{run.chance:.3f}", *[""] * 4)
    console.print(table)
    timed = [cell for cell in run.cells if math.isfinite(cell.saving)]
    shown = max(timed, key=lambda cell: cell.prefix_tokens, default=None)
    if shown is not None:
        console.print(
            f"{shown.title}: one pass over {shown.prefix_tokens:,.0f} tokens of demonstrations for "
            f"the {len(job.valid):,} rows to choose by is {shown.saving:.1f} times as fast as one "
            "for each, in batches of as many tokens"
        )
    for text in run.verdict:
        console.print(text)


def _short(interval: Any) -> str:
    return "–" if interval is None else f"{interval.value:.3f}"
