"""What a prompt-tuning run leaves behind: the best prompt, predictions, figures, a page.

RUN/best/prompt.safetensors   the vectors that were best on the valid part
RUN/predictions.csv           what the model says of each row measured, behind these
RUN/report.html               everything in one file
RUN/metrics.json              the figures; written last, so that it says that the run is complete
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from hyenadna import __version__
from hyenadna.cli.finetune_data import data_name, leak_lines, overlap_rows
from hyenadna.cli.finetune_measure import flat_rows
from hyenadna.cli.finetune_report import (
    caveat_of,
    figures,
    finite,
    made_by,
    prediction_rows,
    show_predictors,
    write_csv,
    write_json,
)
from hyenadna.cli.prompt_job import Arm, PromptOutcome
from hyenadna.cli.prompt_options import PromptRequest
from hyenadna.cli.units import duration

if TYPE_CHECKING:
    from hyenadna.report.context_plots import ContextPoint
    from hyenadna.report.finetune_page import FinetunePage
    from hyenadna.report.page import Block


@dataclass(frozen=True, eq=False)
class FinishedPrompts:
    """A run and all that its report says."""

    outcome: PromptOutcome
    request: PromptRequest
    seconds: float
    """Of the whole command, an interrupted start not counted."""


def write_results(run: FinishedPrompts, folder: Path) -> dict[str, Any]:
    """Write the four things above; returns what `metrics.json` holds."""
    from hyenadna.report.finetune_page import write_finetune_page

    outcome = run.outcome
    _save_best(run, folder)
    outputs = outcome.chosen.said.runs[outcome.kept]
    rows = prediction_rows(outcome.job.data.measured, outputs)
    write_csv(folder / "predictions.csv", rows)
    _save_curve(run, folder)
    write_finetune_page(_page(run), folder / "report.html")
    summary = _summary(run)
    write_json(folder / "metrics.json", summary)
    return summary


def _save_best(run: FinishedPrompts, folder: Path) -> None:
    """The kept prompt as `RUN/best`, with what predicting must know; nothing where none is."""
    from hyenadna.checkpoint.prompt_file import PROMPT_FILE, load_prompt, save_prompt

    outcome, asked = run.outcome, run.request.source
    chosen = outcome.chosen
    if not chosen.runs:
        return
    seed = f"seed-{chosen.runs[outcome.kept].seed}"
    prompted = load_prompt(
        folder / chosen.key / seed / "best" / PROMPT_FILE, outcome.job.source.make()
    )
    saved: Any = prompted.task
    settings = dict(saved.settings) | {
        "data": data_name(asked, outcome.job.data.learning),
        "data_digest": outcome.job.data.digest,
        "prompt": run.request.options.to_dict(),
        "reading": asked.reading.for_predicting(),
    }
    save_prompt(
        prompted,
        folder / "best" / PROMPT_FILE,
        base=asked.model,
        base_digest=saved.base_digest,
        max_length=saved.max_length,
        settings=settings,
    )


def _page(run: FinishedPrompts) -> FinetunePage:
    from hyenadna.report.finetune_page import FinetunePage
    from hyenadna.train.finetune_reports import to_entry

    outcome, asked = run.outcome, run.request.source
    job, chosen = outcome.job, outcome.chosen
    data, task = job.data, job.data.learning.task
    targets, _ = flat_rows(data.measured)
    arms = [chosen, *outcome.others]
    return FinetunePage(
        title=f"{data.learning.name}: {job.source.title}, {chosen.title}",
        kind=task.kind,
        names=task.names,
        data=data_name(asked, data.learning),
        backbone=f"{job.source.described}, frozen",
        splits=data.counts,
        predictors=[outcome.predictors[arm.key] for arm in arms],
        targets=targets,
        outputs=chosen.said.runs[outcome.kept],
        part=data.part,
        chosen_on=data.chosen_on,
        settings=_settings(run),
        leaks=leak_lines(data.leaks) if data.leaks else (),
        overlaps=overlap_rows(data.leaks, near=asked.splitting.leaks == "near")
        if data.leaks
        else (),
        history={
            f"{arm.title}, seed {each.seed}": [to_entry(entry) for entry in each.history]
            for arm in (*outcome.prompts, *outcome.others)
            for each in arm.runs
        },
        verb=f"behind {chosen.title} learned" if chosen.tokens else "with a head learned",
        more=_more(run),
        footer=made_by("prompt-tune"),
    )


def _more(run: FinishedPrompts) -> list[Block]:
    """The curve over the number of tokens, and all ways side by side."""
    measured = "full" in run.request.compare
    from hyenadna.report.page import heading, paragraph, picture, pictures, records

    drawn = [
        picture(_curve(run, metric), f"{metric} of the {run.outcome.job.data.part} part.")
        for metric in _curve_metrics(run)
    ]
    return [
        heading("Number of soft tokens"),
        paragraph(
            f"Chosen on the valid part: {run.outcome.chosen.title}. Shaded: 95 % bootstrap "
            "interval over the sequences measured (mean over seeds)."
            + ("" if measured else " Full fine-tuning was not measured (--compare full)."),
            soft=True,
        ),
        pictures(drawn),
        records(_table(run), caption="Trained parameters, time and scores"),
    ]


def _curve_metrics(run: FinishedPrompts) -> list[str]:
    from hyenadna.train.metrics import main_metric

    kind = run.outcome.job.data.learning.task.kind
    main = main_metric(kind).name
    return ["accuracy", main] if kind == "classes" else [main]


def _curve(run: FinishedPrompts, metric: str) -> Any:
    from hyenadna.report.context_plots import context_plot

    outcome = run.outcome
    points = {"soft prompt": [_point(run, arm, metric) for arm in outcome.prompts]}
    levels = {
        arm.title: outcome.predictors[arm.key].scores[metric].value
        for arm in outcome.others
        if arm.key != "majority" and metric in outcome.predictors[arm.key].scores
    }
    return context_plot(
        f"{outcome.job.data.learning.name}: {outcome.job.source.title}, frozen",
        "soft tokens",
        f"{metric} ({outcome.job.data.part})",
        points,
        {name: value for name, value in levels.items() if not math.isnan(value)},
        chance=_chance(run, metric),
    )


def _point(run: FinishedPrompts, arm: Arm, metric: str) -> ContextPoint:
    from hyenadna.report.context_plots import ContextPoint

    score = run.outcome.predictors[arm.key].scores[metric]
    ends = [score.value if math.isnan(end) else end for end in (score.low, score.high)]
    return ContextPoint(arm.tokens or 0, score.value, *ends)


def _chance(run: FinishedPrompts, metric: str) -> float | None:
    """What the constant answer gets on the rows measured; None where that says nothing."""
    if metric == "mcc":
        return 0.0
    if metric != "accuracy":
        return None
    targets = np.asarray(run.outcome.job.data.measured.targets)
    counts = np.bincount(targets[targets >= 0])
    return float(counts.max() / counts.sum())


def _save_curve(run: FinishedPrompts, folder: Path) -> None:
    from hyenadna.report.plots import save_figure

    save_figure(_curve(run, _curve_metrics(run)[0]), folder / "curve.png")


def _table(run: FinishedPrompts) -> list[dict[str, Any]]:
    """A line for each way to adapt the model."""
    outcome = run.outcome
    rows = []
    for arm in (*outcome.prompts, *outcome.others):
        each = outcome.predictors[arm.key]
        rows.append(
            {
                "": arm.title + (" (chosen)" if arm is outcome.chosen else ""),
                "trained": arm.trained if arm.runs else None,
                "time": duration(arm.said.seconds) if arm.said.seconds else None,
                "valid": None if math.isnan(arm.valid) else arm.valid,
            }
            | {metric: each.scores[metric].value for metric in _curve_metrics(run)}
        )
    return rows


def _settings(run: FinishedPrompts) -> dict[str, Any]:
    job, asked = run.outcome.job, run.request.source
    shown: dict[str, Any] = {
        "model": asked.model,
        "seeds": ", ".join(map(str, job.seeds)),
        "device": str(job.device),
        "time": duration(run.seconds),
        "peak learning rate": job.options.finetune().peak_lr,
        "notes on the data": "; ".join(job.data.learning.notes),
    }
    if job.words:
        pairs = zip(job.words.names, job.words.words, strict=True)
        shown["label words"] = ", ".join(f"{name} = {word}" for name, word in pairs)
    groups: tuple[Mapping[str, Any], ...] = (
        run.request.options.to_dict(),
        vars(asked.splitting),
        vars(asked.reading),
    )
    for values in groups:
        for name, value in values.items():
            if value not in (None, (), []):
                shown.setdefault(name.replace("_", " "), str(value))
    return shown


def _summary(run: FinishedPrompts) -> dict[str, Any]:
    from hyenadna.train.metrics import main_metric

    outcome, job = run.outcome, run.outcome.job
    data, task = job.data, job.data.learning.task
    arms = {
        arm.key: {
            "name": arm.title,
            "tokens": arm.tokens,
            "trained": arm.trained,
            "seconds": round(arm.said.seconds, 3),
            "valid_mean": arm.valid,
            "valid": [
                {"seed": r.seed, "epoch": r.best.epoch, "metric": r.best.metric,
                 "value": r.best.value}
                for r in arm.runs
            ],
            **figures(outcome.predictors[arm.key]),
        }
        for arm in (*outcome.prompts, *outcome.others)
    }  # fmt: skip
    near = run.request.source.splitting.leaks == "near"
    return finite(
        {
            "hyenadna": __version__,
            "model": run.request.source.model,
            "data": data_name(run.request.source, data.learning),
            "data_digest": data.digest,
            "task": {"kind": task.kind, "names": list(task.names)},
            "label_words": list(job.words.words) if job.words else None,
            "part": data.part,
            "chosen_on": data.chosen_on,
            "caveat": caveat_of(data),
            "rows": {split: each["sequences"] for split, each in data.counts.items()},
            "leaks": None if data.leaks is None else overlap_rows(data.leaks, near=near),
            "seeds": list(job.seeds),
            "main_metric": main_metric(task.kind).name,
            "chance": {metric: _chance(run, metric) for metric in _curve_metrics(run)},
            "chosen": outcome.chosen.key,
            "kept_seed": outcome.chosen.runs[outcome.kept].seed if outcome.chosen.runs else None,
            "arms": arms,
            "request": run.request.to_dict(),
            "seconds": round(run.seconds, 3),
        }
    )


def show_results(run: FinishedPrompts, console: Console) -> None:
    """Print the figures as a table, and what a reader must know first."""
    outcome = run.outcome
    data = outcome.job.data
    arms = [outcome.chosen, *(a for a in outcome.prompts if a is not outcome.chosen)]
    arms += outcome.others
    title = f"{data.part} part, {len(data.measured):,} sequences"
    predictors = [outcome.predictors[arm.key] for arm in arms]
    show_predictors(title, data.learning.task.kind, predictors, console)
    if caveat_of(data):
        console.print(f"warning: {caveat_of(data)}")
