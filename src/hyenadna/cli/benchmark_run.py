"""One model on one benchmark task: trained, measured, and a ledger entry of it.

A run has a folder whose name says the task, the model and a digest of all that the result depends
on, so that the same run goes on where it stopped and another never meets it.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console

from hyenadna.cli.benchmark_data import BenchmarkDataOptions, TaskData
from hyenadna.cli.finetune_data import PreparedData
from hyenadna.cli.finetune_models import IN_A_RUN, ModelSource
from hyenadna.cli.finetune_options import FinetuneRequest, HeadOptions
from hyenadna.errors import InputError
from hyenadna.training_config import FinetuneConfig

if TYPE_CHECKING:
    import torch

    from hyenadna.data.benchmarks.suite import Suite
    from hyenadna.train.ledger import LedgerEntry


_GENOMES_NAMED = 3  # more than this are counted in a title; the ledger names them all


@dataclass(frozen=True, kw_only=True)
class BenchmarkRequest:
    """What a suite is run with."""

    suite: Suite
    data: Path
    rows: BenchmarkDataOptions
    head: HeadOptions
    config: FinetuneConfig
    seeds: tuple[int, ...]
    baselines: tuple[str, ...]
    out: Path
    ledger: Path
    device: torch.device


@dataclass(frozen=True, eq=False)
class Contestant:
    """A model to be measured; made by `contestant`."""

    source: ModelSource
    title: str
    """In words that a table can show, with what it was pretrained on where that is known."""
    facts: Mapping[str, Any]
    """Name, shape, digest of the weights, genomes of the pretraining: for the ledger."""


def contestant(source: ModelSource, request: BenchmarkRequest) -> Contestant:
    """A model with its title: the name, what it was pretrained on, and how it is fitted."""
    from hyenadna.model.digest import weights_digest

    weights = None if source.weights is None else weights_digest(source.weights)
    path = Path(source.name)
    run = path.parent if path.name in IN_A_RUN else path
    genomes = [] if weights is None else _pretrained_on(run)
    title = source.title + (f", pretrained on {_listed(genomes)}" if genomes else "")
    if request.config.mode != "full":
        title += f", {request.config.mode}"
    if request.head.strands != "forward":
        title += f", strands {request.head.strands}"
    facts = {
        "name": run.name or source.name,
        "weights": weights,
        "shape": source.config.to_dict(),
        "pretrained_on": genomes,
    }
    return Contestant(source, title, facts)


def _listed(genomes: Sequence[str]) -> str:
    return ", ".join(genomes) if len(genomes) <= _GENOMES_NAMED else f"{len(genomes)} genomes"


def _pretrained_on(run: Path) -> list[str]:
    """Names of the genomes of a run of `hyenadna pretrain`; none for other folders."""
    try:
        genomes = json.loads((run / "run.json").read_text(encoding="utf-8"))["genomes"]
        return [str(genome["name"]) for genome in genomes]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def describe(request: BenchmarkRequest, task: TaskData, model: Contestant) -> dict[str, Any]:
    """All that the result depends on but seeds and code, as plain values for the ledger."""
    rows, split = request.rows, task.splitting
    found: dict[str, Any] = {
        "source_digest": task.source_digest,
        "model": model.facts,
        "head": vars(request.head),
        "finetune": _config(request, task).to_dict(),
        "split": vars(split) | {"own": task.own_split},
        "subset": rows.subset,
        "baselines": _baselines(request, model),
    }
    return cast(dict[str, Any], json.loads(json.dumps(found)))


def _config(request: BenchmarkRequest, task: TaskData) -> FinetuneConfig:
    """The options, choosing by the metric of the task where none is named."""
    if request.config.metric is not None:
        return request.config
    return dataclasses.replace(request.config, metric=task.facts.metric)


def _baselines(request: BenchmarkRequest, model: Contestant) -> tuple[str, ...]:
    """The baselines of a model; one that starts from random weights needs no `random`."""
    given = request.baselines
    return given if model.source.weights is not None else tuple(b for b in given if b != "random")


def find_entry(
    request: BenchmarkRequest, task: TaskData, model: Contestant, entries: Iterable[LedgerEntry]
) -> LedgerEntry | None:
    """The entry of the same run by the same code, or None."""
    from hyenadna.train.code_version import code_digest

    wanted = describe(request, task, model)
    for entry in entries:
        if (
            (entry.suite, entry.task) == (request.suite.name, task.facts.name)
            and entry.model == model.title
            and entry.config == wanted
            and entry.seeds == request.seeds
            and entry.versions.get("code") == code_digest()
        ):
            return entry
    return None


def run_folder(request: BenchmarkRequest, task: TaskData, model: Contestant) -> Path:
    """The folder of a run in OUT."""
    from hyenadna.train.code_version import code_digest

    what = [describe(request, task, model), list(request.seeds), code_digest()]
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model.source.title).strip("-")
    return request.out / task.facts.name / f"{name}-{digest[:8]}"


def run_pair(
    request: BenchmarkRequest,
    task: TaskData,
    data: PreparedData,
    model: Contestant,
    console: Console,
) -> LedgerEntry:
    """Train and measure a model on a task, or go on with it; writes the run and its entry.

    Raises Interrupted after a signal, and InputError as fine-tuning does.
    """
    from hyenadna.cli.finetune_job import FinetuneJob, check_job, run_job
    from hyenadna.cli.finetune_report import FinishedRun, write_results
    from hyenadna.train.ledger import write_entry

    if request.suite.name != "species":  # whose classes are those of the folder
        _require_classes(task, data)
    start = time.monotonic()
    folder = run_folder(request, task, model)
    config, baselines = _config(request, task), _baselines(request, model)
    job = check_job(
        FinetuneJob(
            data=data,
            source=model.source,
            head=request.head,
            config=config,
            seeds=request.seeds,
            baselines=baselines,
            device=request.device,
            label_groups=task.label_groups,
        )
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot make the run folder ({error.strerror})") from error
    outcome = run_job(job, folder, console, resume=True)
    name = model.source.name
    asked = FinetuneRequest(
        model=name if model.source.weights is not None else f"random:{name}",
        data=(str(request.data),),
        splitting=task.splitting,
        head=request.head,
        options=config,
        seeds=request.seeds,
        baselines=baselines,
    )
    with console.status("writing the report …"):
        summary = write_results(FinishedRun(outcome, asked, time.monotonic() - start), folder)
    seconds = sum(run.seconds for run in outcome.runs)
    entry = make_entry(request, task, data, model, summary, seconds)
    write_entry(entry, request.ledger)
    return entry


def _require_classes(task: TaskData, data: PreparedData) -> None:
    """Nothing, where the data has as many classes as the task, or is no such task.

    Raises InputError otherwise: files that were taken for another thing give no entry.
    """
    found, facts = data.learning.task, task.facts
    if facts.kind == found.kind == "classes" and found.outputs != facts.outputs:
        raise InputError(
            f"{facts.name}: the task has {facts.outputs} classes, but the files have "
            f"{found.outputs} ({', '.join(found.names[:5])}); give those of the task"
        )


def make_entry(
    request: BenchmarkRequest,
    task: TaskData,
    data: PreparedData,
    model: Contestant,
    summary: Mapping[str, Any],
    seconds: float,
) -> LedgerEntry:
    """The ledger entry of a finished run. seconds: of the training of all seeds.

    Raises InputError where the rows measured do not give the metric of the task.
    """
    from hyenadna.train.code_version import code_digest
    from hyenadna.train.ledger import LedgerEntry, Score, versions

    scores = {}
    for name, value in summary["metrics"].items():
        each = [seed.get(name) for seed in summary["per_seed"]]
        if any(x is None for x in each):
            continue
        ends = (value["low"], value["high"])
        scores[name] = Score.of(each, None if None in ends else cast(tuple[float, float], ends))
    metric = task.facts.metric
    if metric not in scores:
        raise InputError(f"{task.facts.name}: the rows measured give no {metric}; take more rows")
    baselines = {
        key: {
            name: each["value"] for name, each in of["metrics"].items() if each["value"] is not None
        }
        for key, of in summary["baselines"].items()
    }
    subset = f"a subset of {len(task.data)} rows" if request.rows.subset is not None else ""
    notes = [task.own_split, subset, *data.learning.notes]
    return LedgerEntry(
        suite=request.suite.name,
        task=task.facts.name,
        model=model.title,
        data_digest=data.digest,
        rows=dict(summary["rows"]),
        config=describe(request, task, model),
        seeds=request.seeds,
        metric=metric,
        scores=scores,
        baselines=baselines,
        protocol=data.chosen_on,
        scored_on=data.part,
        seconds=round(seconds, 3),
        machine=_machine(request.device),
        versions=versions() | {"code": code_digest()},
        date=datetime.datetime.now().astimezone().date().isoformat(),
        note="; ".join(dict.fromkeys(note for note in notes if note)),
    )


def _machine(device: torch.device) -> str:
    import torch

    from hyenadna.train.ledger import machine_text

    if device.type == "cuda":
        return f"{machine_text()}, {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"{machine_text()}, {threads} thread{'s' * (threads != 1)} used"
