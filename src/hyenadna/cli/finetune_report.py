"""What a fine-tuning run leaves behind: the best model, predictions, figures, a page.

RUN/best/             the model that was best on the valid part, with its head
RUN/predictions.csv   what it says of each row measured
RUN/report.html       everything in one file
RUN/metrics.json      the figures; written last, so that it says that the run is complete
"""

from __future__ import annotations

import csv
import datetime
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.console import Console

from hyenadna import __version__
from hyenadna.alphabet import IGNORED
from hyenadna.cli.console import make_table
from hyenadna.cli.finetune_data import PreparedData, data_name, leak_lines, overlap_rows
from hyenadna.cli.finetune_job import Outcome, SeedRun
from hyenadna.cli.finetune_measure import Floats, flat_rows
from hyenadna.cli.finetune_options import FinetuneRequest
from hyenadna.data.labelled_data import LabelledData
from hyenadna.errors import InputError
from hyenadna.task_kinds import TaskKind

if TYPE_CHECKING:
    from hyenadna.report.finetune_page import FinetunePage, Predictor

METRICS: Final = "metrics.json"
_SHOWN: Final = {
    "classes": ("mcc", "accuracy", "auroc"),
    "tokens": ("mcc", "accuracy", "auroc"),
    "labels": ("auroc", "auprc", "f1"),
    "values": ("pearson", "spearman", "r2"),
}


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run and all that its report says."""

    outcome: Outcome
    request: FinetuneRequest
    seconds: float
    """Of the whole command, an interrupted start not counted."""

    @property
    def caveat(self) -> str:
        """See `caveat_of`."""
        return caveat_of(self.outcome.job.data)


def caveat_of(data: PreparedData) -> str:
    """What a reader of the figures must know first; empty where all is as it should be."""
    if data.part == "test" and data.chosen_on == "test":
        return (
            "the model was chosen on the test part (--choose-on-test, the paper's protocol): "
            "the figures are too good, and only comparable with others made so"
        )
    if data.part == "valid":
        return (
            "there is no test part: these figures are of the valid part, on which the model "
            "was chosen, and too good"
        )
    return ""


def write_results(run: FinishedRun, folder: Path) -> dict[str, Any]:
    """Write the four things above; returns what `metrics.json` holds."""
    from hyenadna.report.finetune_page import write_finetune_page

    _save_best(run, folder)
    outcome = run.outcome
    rows = prediction_rows(outcome.job.data.measured, outcome.outputs)
    write_csv(folder / "predictions.csv", rows)
    write_finetune_page(_page(run), folder / "report.html")
    summary = _summary(run)
    write_json(folder / METRICS, summary)
    return summary


def _save_best(run: FinishedRun, folder: Path) -> None:
    """The kept seed's model as `RUN/best`, with what predicting must know beside."""
    from hyenadna.checkpoint.task import SavedTask, load_task, save_task

    outcome = run.outcome
    kept = outcome.runs[outcome.kept]
    model = load_task(folder / f"seed-{kept.seed}" / "best")
    task = model.task
    assert isinstance(task, SavedTask)
    settings = dict(task.settings) | {
        "model": run.request.model,
        "data": data_name(run.request, outcome.job.data.learning),
        "data_digest": outcome.job.data.digest,
        "reading": run.request.reading.for_predicting(),
    }
    save_task(
        model,
        folder / "best",
        max_length=task.max_length,
        base_digest=task.base_digest,
        settings=settings,
    )


def prediction_rows(rows: LabelledData, outputs: Floats) -> Iterator[list[str]]:
    """Header and a line for each row: id, what is true, what was predicted.

    For a class of each base: the labels of all bases, one letter each (`.` where masked), or words
    with spaces between.
    """
    task, targets = rows.task, rows.targets
    if task.kind == "tokens":
        yield ["id", "target", "predicted"]
        starts = np.cumsum([0, *rows.lengths.tolist()])
        for i, id in enumerate(rows.ids):
            best = outputs[starts[i] : starts[i + 1]].argmax(1)
            yield [id, base_labels(targets[i], task.names), base_labels(best, task.names)]
        return
    known = np.asarray(targets)
    if task.kind == "labels" and known.dtype == np.bool_:
        known = known.astype(np.float32)
    if task.kind == "classes":
        yield ["id", "target", "predicted", *(f"p_{name}" for name in task.names)]
        for id, target, row in zip(rows.ids, known.tolist(), outputs, strict=True):
            true = "" if target == IGNORED else task.names[target]
            yield [id, true, task.names[int(row.argmax())], *row.astype(str).tolist()]
        return
    before = "p_" if task.kind == "labels" else "predicted_"
    columns = (f"target_{name}" for name in task.names)
    yield ["id", *columns, *(f"{before}{name}" for name in task.names)]
    for id, target, row in zip(rows.ids, known, outputs, strict=True):
        true = ["" if math.isnan(x) else str(x) for x in target]
        yield [id, *true, *row.astype(str).tolist()]


def base_labels(classes: Sequence[int] | Any, names: Sequence[str]) -> str:
    """Classes of bases as text: one letter each where all names are letters, else words."""
    separator = "" if all(len(name) == 1 for name in names) else " "
    return separator.join("." if c == IGNORED else names[c] for c in np.asarray(classes).tolist())


def write_csv(path: Path, rows: Iterator[list[str]]) -> None:
    """Write rows as CSV beside and rename. Raises InputError where that cannot be done."""
    beside = path.with_name(f".{path.name}.part")
    try:
        with beside.open("w", newline="", encoding="utf-8") as text:
            csv.writer(text, lineterminator="\n").writerows(rows)
        beside.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON beside and rename. Raises InputError where that cannot be done."""
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _summary(run: FinishedRun) -> dict[str, Any]:
    outcome, job, request = run.outcome, run.outcome.job, run.request
    data, task = job.data, job.data.learning.task
    from hyenadna.train.metrics import main_metric

    models = dict(zip(outcome.keys, outcome.predictors, strict=True))
    baselines = {}
    for said in outcome.said[1:]:
        entry = figures(models[said.key])
        baselines[said.key] = {"name": said.name, "note": said.note, **entry}
        baselines[said.key]["seconds"] = round(said.seconds, 3)
    return finite(
        {
            "hyenadna": __version__,
            "model": request.model,
            "data": data_name(request, data.learning),
            "data_digest": data.digest,
            "task": {"kind": task.kind, "names": list(task.names)},
            "part": data.part,
            "chosen_on": data.chosen_on,
            "caveat": run.caveat,
            "rows": {split: each["sequences"] for split, each in data.counts.items()},
            "counts": data.counts,
            "leaks": None if data.leaks is None else overlap_rows(data.leaks, near=_near(request)),
            "leaks_complete": None if data.leaks is None else data.leaks.complete,
            "seeds": list(job.seeds),
            "kept_seed": outcome.runs[outcome.kept].seed,
            "main_metric": main_metric(task.kind).name,
            **figures(outcome.predictors[0]),
            "per_seed": _per_seed(run),
            "valid": [
                {
                    "seed": each.seed,
                    "epoch": each.best.epoch,
                    "metric": each.best.metric,
                    "value": each.best.value,
                    "metrics": dict(each.best.metrics),
                    "seconds": round(each.seconds, 3),
                }
                for each in outcome.runs
            ],
            "baselines": baselines,
            "precision": job.precision,
            "request": request.to_dict(),
            "seconds": round(run.seconds, 3),
        }
    )


def _per_seed(run: FinishedRun) -> list[dict[str, float]]:
    """Metrics of each seed on the rows measured."""
    from hyenadna.train.metrics import metrics

    data = run.outcome.job.data.measured
    targets, _ = flat_rows(data)
    groups = run.outcome.job.label_groups
    return [
        metrics(data.task.kind, targets, outputs, label_groups=groups)
        for outputs in run.outcome.said[0].runs
    ]


def figures(each: Predictor) -> dict[str, Any]:
    """Metrics of a predictor in plain values, with spread and interval."""
    found: dict[str, Any] = {
        "metrics": {
            name: {
                "value": score.value,
                "sd": each.spread.get(name, math.nan),
                "low": score.low,
                "high": score.high,
            }
            for name, score in each.scores.items()
        }
    }
    if each.differences:
        found["model_less_this"] = {name: vars(gap) for name, gap in each.differences.items()}
    return found


def finite(value: Any) -> Any:
    """The value with None for numbers that JSON has no word for, and plain containers."""
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def _near(request: FinetuneRequest) -> bool:
    return request.splitting.leaks == "near"


def _page(run: FinishedRun) -> FinetunePage:
    from hyenadna.report.finetune_page import FinetunePage

    outcome, request = run.outcome, run.request
    job = outcome.job
    data, task = job.data, job.data.learning.task
    targets, _ = flat_rows(data.measured)
    return FinetunePage(
        title=f"{data.learning.name}: {job.source.title}, fine-tuned",
        kind=task.kind,
        names=task.names,
        data=data_name(request, data.learning),
        backbone=job.source.described,
        splits=data.counts,
        predictors=outcome.predictors,
        targets=targets,
        outputs=outcome.outputs,
        part=data.part,
        chosen_on=data.chosen_on,
        settings=_settings(run),
        leaks=leak_lines(data.leaks) if data.leaks else (),
        overlaps=overlap_rows(data.leaks, near=_near(request)) if data.leaks else (),
        history=_history(outcome),
        label_groups=job.label_groups,
        footer=made_by("finetune"),
    )


def _history(outcome: Outcome) -> dict[str, list[Mapping[str, Any]]]:
    from hyenadna.train.finetune_reports import to_entry

    def entries(runs: Sequence[SeedRun], name: str) -> dict[str, list[Mapping[str, Any]]]:
        return {f"{name}seed {run.seed}": [to_entry(each) for each in run.history] for run in runs}

    found = entries(outcome.runs, "")
    for key, runs in outcome.baseline_runs.items():
        found |= entries(runs, f"{key}, ")
    return found


def _settings(run: FinishedRun) -> dict[str, Any]:
    from hyenadna.cli.units import duration

    outcome, request = run.outcome, run.request
    job = outcome.job
    shown: dict[str, Any] = {
        "model": request.model,
        "seeds": ", ".join(map(str, job.seeds)),
        "kept seed": outcome.runs[outcome.kept].seed,
        "trained parameters": job.trained,
        "precision used": job.precision,
        "device": str(job.device),
        "time": duration(run.seconds),
        "peak learning rate": job.config.peak_lr,
        "notes on the data": "; ".join(job.data.learning.notes),
    }
    plain = request.to_dict()
    for group in ("head", "options", "splitting", "reading"):
        for name, value in plain[group].items():
            if value not in (None, (), []):
                shown[name.replace("_", " ")] = value if _is_cell(value) else str(value)
    return shown


def _is_cell(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def made_by(command: str) -> str:
    """What made a page, and when."""
    from hyenadna.train.ledger import machine_text, versions

    made = ", ".join(f"{name} {version}" for name, version in versions().items())
    day = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    return f"Made by `hyenadna {command}` on {day}; {made}; {machine_text()}."


def show_results(run: FinishedRun, console: Console) -> None:
    """Print the figures as a table, and what a reader must know first."""
    data = run.outcome.job.data
    title = f"{data.part} part, {len(data.measured):,} sequences"
    show_predictors(title, data.learning.task.kind, run.outcome.predictors, console)
    if run.caveat:
        console.print(f"warning: {run.caveat}")


def show_predictors(
    title: str, kind: TaskKind, predictors: Sequence[Predictor], console: Console
) -> None:
    """Print the figures of the model, the first of the predictors, beside those of the others."""
    model = predictors[0]
    names = [name for name in _SHOWN[kind] if name in model.scores]
    main, *others = names
    table = make_table(title, "", main, "95 % interval", *others)
    for each in predictors:
        table.add_row(
            each.name,
            _value(each, main),
            _ends(each, main),
            *(_value(each, name, spread=False) for name in others),
            style="bold" if each is model else None,
        )
    # a file has no width, and must not lose letters
    console.print(table)
    for each in predictors[1:]:
        gap = each.differences.get(main)
        if gap is not None and not math.isnan(gap.low):
            console.print(
                f"{main} of the model less that of {each.name}: {gap.value:+.3f} "
                f"({gap.low:+.3f} to {gap.high:+.3f})"
            )


def _value(each: Predictor, name: str, *, spread: bool = True) -> str:
    """A metric, with its standard deviation over seeds where there are several."""
    score = each.scores.get(name)
    if score is None or math.isnan(score.value):
        return "–"
    sd = each.spread.get(name, math.nan) if spread else math.nan
    return f"{score.value:.3f}" + ("" if math.isnan(sd) else f" ± {sd:.3f}")


def _ends(each: Predictor, name: str) -> str:
    score = each.scores.get(name)
    if score is None or math.isnan(score.low):
        return ""
    return f"{score.low:.3f} to {score.high:.3f}"
