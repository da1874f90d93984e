"""Fine-tuning from data and model to figures: train each seed, fit baselines, measure once.

    job = check_job(job)                    # refuses what cannot work, before anything is computed
    outcome = run_job(job, folder, console)

Nothing of the measured rows is read before all training is done (`hyenadna.cli.finetune_data`
compares sequences and counts rows, which no model sees).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from rich.console import Console

from hyenadna.cli.finetune_data import PreparedData, cropped
from hyenadna.cli.finetune_measure import NAMES, Floats, Said, compare, fit, predict_rows
from hyenadna.cli.finetune_models import ModelSource
from hyenadna.cli.finetune_options import HeadOptions
from hyenadna.cli.finetune_progress import FeatureBar, FinetuneLines
from hyenadna.cli.memory import fit_batch
from hyenadna.cli.progress import progress_bar, stop_on_signals
from hyenadna.errors import InputError
from hyenadna.training_config import FinetuneConfig

if TYPE_CHECKING:
    import torch

    from hyenadna.data.labelled_data import LabelledData
    from hyenadna.model.heads import TaskModel
    from hyenadna.model.parallel.ranks import Ranks
    from hyenadna.report.finetune_page import Predictor
    from hyenadna.train.finetune_reports import FinetuneEvaluation, FinetuneResult

TRAINED_BASELINES: Final = ("random", "transformer")


class Interrupted(Exception):
    """A signal has ended training; all is saved."""

    def __init__(self, signal: int) -> None:
        self.signal = signal


@dataclass(frozen=True, eq=False, kw_only=True)
class FinetuneJob:
    """A model to be fitted to data and measured, beside baselines."""

    data: PreparedData
    source: ModelSource
    head: HeadOptions
    config: FinetuneConfig
    seeds: tuple[int, ...]
    baselines: tuple[str, ...]
    device: torch.device
    ranks: Ranks | None = None
    """The processes that train together, of which the first fits baselines and measures; None for
    this one alone."""
    sharded: bool = False
    """Whether parameters lie in parts on the ranks while they train (FSDP2)."""
    label_groups: Sequence[str] | None = None
    """For labels: the group of each, whose medians are then given."""
    predict_tokens: int = 1 << 16
    """Tokens of a pass when predicting; `check_job` fits it to the memory."""
    memory: int = 0
    """Estimated bytes; set by `check_job`."""
    engine: bool = True
    """Whether passes heed `max_memory`; set by `check_job`."""
    trained: int = 0
    """Parameters that are trained, with the head; set by `check_job`."""
    precision: str = "float32"
    """Of the training; set by `check_job`."""


@dataclass(frozen=True)
class SeedRun:
    """How the training of one seed went."""

    seed: int
    best: FinetuneEvaluation
    history: tuple[FinetuneEvaluation, ...]
    stopped: str
    seconds: float
    precision: str


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a job came to."""

    job: FinetuneJob
    predictors: list[Predictor]
    """The model, then baselines."""
    keys: tuple[str, ...]
    """Short names of the predictors: `model`, `kmer`, …"""
    said: tuple[Said, ...]
    """In the same order."""
    runs: tuple[SeedRun, ...]
    """One for each seed of the model."""
    kept: int
    """Which of the runs was the best on the valid part."""
    baseline_runs: dict[str, tuple[SeedRun, ...]] = field(default_factory=dict)

    @property
    def outputs(self) -> Floats:
        """What the kept model says of the rows measured."""
        return self.said[0].runs[self.kept]


def check_job(job: FinetuneJob) -> FinetuneJob:
    """The job with sequences cropped as it says, and with passes that fit the memory.

    Raises InputError for whatever would stop it later: sequences too long, options that do not go
    with model or task, a metric that the task has not, a single class, too little memory.
    """
    import torch

    from hyenadna.model.parallel.ranks import ALONE
    from hyenadna.train.baseline_kmers import require_two_classes
    from hyenadna.train.finetune_examples import run_stages
    from hyenadna.train.finetune_loop import require_shardable
    from hyenadna.train.finetune_setup import choose_parameters, choose_precision, class_weights

    longest = job.source.config.max_seq_len
    learning = cropped(job.data.learning, job.config.max_length, longest)
    measured = cropped(job.data.measured, job.config.max_length, longest)
    data = dataclasses.replace(job.data, learning=learning, measured=measured)
    train = learning.part("train")
    if learning.task.kind in ("classes", "tokens"):
        require_two_classes(train)
    run_stages(train, learning.part("valid"), job.config)
    class_weights(train, job.config)
    require_metric(learning, job.config)
    _check_baselines(job)
    with torch.random.fork_rng(devices=[]):
        probe = job.source.make_task(learning.task, job.head)
        choose_parameters(probe, job.config)
    if job.sharded:
        require_shardable(probe, job.config, job.ranks or ALONE)
    probe.to(job.device)
    precision = choose_precision(probe, job.config, job.device)
    trained = sum(p.numel() for p in probe.parameters() if p.requires_grad)
    job = dataclasses.replace(job, data=data, precision=precision, trained=trained)
    return _fit_memory(job, probe)


def require_metric(learning: LabelledData, config: FinetuneConfig) -> None:
    """Nothing, where the task has the metric to choose by. Raises InputError otherwise."""
    if config.metric is None:
        return
    from hyenadna.cli.finetune_measure import flat_rows
    from hyenadna.train.baselines import Majority
    from hyenadna.train.metrics import COUNTS, metrics

    valid = learning.part("valid")
    guess = Majority.fit(learning.part("train")).predict(valid.sequences)
    found = metrics(learning.task.kind, flat_rows(valid)[0], guess)
    known = ["loss", *(name for name in found if name not in COUNTS)]
    if config.metric not in known:
        raise InputError(f"--metric is {config.metric}; this task has {', '.join(known)}")


def _check_baselines(job: FinetuneJob) -> None:
    if "hmm" in job.baselines and job.data.learning.task.kind != "tokens":
        raise InputError("--baselines hmm: it is for a class of each base; leave it out")
    if "random" in job.baselines and job.source.weights is None:
        raise InputError("--baselines random: the model starts from random weights itself")
    if "transformer" in job.baselines:
        if job.source.config.mixer == "attention":
            raise InputError("--baselines transformer: the model is a Transformer itself")
        job.source.transformer()


def _fit_memory(job: FinetuneJob, probe: TaskModel) -> FinetuneJob:
    """The job with passes as small as its memory needs, and the estimate of it."""
    from hyenadna.data.batches import BATCH_TOKENS

    longest = int(job.data.learning.lengths.max())
    tokens = job.config.micro_batch_tokens
    while True:
        config = dataclasses.replace(job.config, micro_batch_tokens=tokens)
        try:
            need, engine = _training_memory(probe, config, job, longest)
            break
        except InputError:
            if tokens <= longest:
                raise
            tokens = max(longest, tokens // 2)
    measured = int(job.data.measured.lengths.max())
    predict_tokens, predicting = fit_batch(probe.model, measured, BATCH_TOKENS, precision=None)
    return dataclasses.replace(
        job,
        config=config,
        predict_tokens=predict_tokens,
        memory=max(need, predicting or 0),
        engine=engine,
    )


def _training_memory(
    probe: TaskModel, config: FinetuneConfig, job: FinetuneJob, longest: int
) -> tuple[int, bool]:
    """(estimated bytes of the process in a step, whether they heed `max_memory`)."""
    import torch

    from hyenadna.model.engine.sizes import resident_bytes
    from hyenadna.model.memory import inference_bytes, training_bytes
    from hyenadna.train.loop import PRECISIONS

    training = config.mode != "frozen"
    rows = max(1, config.micro_batch_tokens // longest)
    if training:
        rows = min(rows, -(-config.batch_size // (job.ranks.count if job.ranks else 1)))
    # two moments of the optimiser, and the best weights so far
    besides = 3 * sum(p.numel() * p.element_size() for p in probe.parameters() if p.requires_grad)
    shape = probe.model.config
    if training and probe.strands != "forward":  # one strand's states wait for the other
        besides += 4 * shape.n_layer * rows * longest * shape.d_model
    dtype = PRECISIONS[job.precision]
    with torch.autocast(job.device.type, dtype=dtype, enabled=dtype is not None):
        need = probe.model.pass_memory(rows, longest, training=training, besides=besides)
    if need is not None:
        return need, True
    process = resident_bytes() if job.device.type == "cpu" else 0
    if not training:
        return process + inference_bytes(shape, tokens=rows * longest, engine=False), False
    step = training_bytes(shape, tokens=rows * longest, precision=job.precision, engine=False)
    return process + besides + step, False


def run_job(job: FinetuneJob, folder: Path, console: Console, *, resume: bool = False) -> Outcome:
    """Train, choose, fit baselines, and measure; what is trained is kept in `folder`.

    folder: gets `seed-N` for each seed, and `baselines/NAME/seed-N`. resume: go on with what is
    there.

    Raises Interrupted after a signal, and InputError as training does.
    """
    return measure_all(job, train_all(job, folder, console, resume=resume), folder, console)


@dataclass(frozen=True)
class Trained:
    """How the trainings of a job went: of the model, and of baselines that are trained as it is."""

    runs: tuple[SeedRun, ...]
    others: dict[str, tuple[SeedRun, ...]]


def train_all(job: FinetuneJob, folder: Path, console: Console, *, resume: bool) -> Trained:
    """The first half of `run_job`, which all ranks do together."""
    runs = train_job(job, folder, console, resume=resume)
    others: dict[str, tuple[SeedRun, ...]] = {}
    for name in TRAINED_BASELINES:
        if name in job.baselines:
            source, config = _trained_baseline(job, name)
            place = folder / "baselines" / name
            title = f"{source.title}: "
            others[name] = _train(job, source, config, place, console, title, resume=resume)
    return Trained(runs, others)


def measure_all(job: FinetuneJob, trained: Trained, folder: Path, console: Console) -> Outcome:
    """The second half of `run_job`, which one rank does."""
    fitted = [
        fit(name, job.data.learning, job.seeds[0], console, device=str(job.device))
        for name in job.baselines
        if name in NAMES
    ]
    runs, others = trained.runs, trained.others
    said = [measure_job(job, "model", job.source.title, runs, folder, console)]
    said += [each.said(job.data.measured) for each in fitted]
    for name, of in others.items():
        title = _trained_baseline(job, name)[0].title
        said.append(measure_job(job, name, title, of, folder / "baselines" / name, console))
    with console.status("metrics and their intervals …"):
        predictors = compare(job.data.measured, said[0], said[1:], label_groups=job.label_groups)
    keys = tuple(each.key for each in said)
    return Outcome(job, predictors, keys, tuple(said), runs, best_run(runs), others)


def train_job(
    job: FinetuneJob, folder: Path, console: Console, prefix: str = "", *, resume: bool
) -> tuple[SeedRun, ...]:
    """How all seeds of the job's own model went; prefix: before each line.

    Raises Interrupted after a signal, and InputError as training does.
    """
    return _train(job, job.source, job.config, folder, console, prefix, resume=resume)


def _trained_baseline(job: FinetuneJob, name: str) -> tuple[ModelSource, FinetuneConfig]:
    """Model and options of a baseline that is trained as the model is, all of its weights."""
    source = job.source.random() if name == "random" else job.source.transformer()
    lr = job.config.lr if job.config.mode == "full" else None
    return source, dataclasses.replace(job.config, mode="full", lr=lr)


def _train(
    job: FinetuneJob,
    source: ModelSource,
    config: FinetuneConfig,
    folder: Path,
    console: Console,
    prefix: str = "",
    *,
    resume: bool,
) -> tuple[SeedRun, ...]:
    """All seeds of one model. Raises Interrupted after a signal."""
    task = job.data.learning.task
    return train_seeds(
        lambda: source.make_task(task, job.head),
        job.data.learning,
        config,
        seeds=job.seeds,
        device=job.device,
        folder=folder,
        console=console,
        prefix=prefix,
        resume=resume,
        ranks=job.ranks,
        sharded=job.sharded and config.mode == job.config.mode,
    )


def train_seeds(
    make: Callable[[], TaskModel],
    learning: LabelledData,
    config: FinetuneConfig,
    *,
    seeds: Sequence[int],
    device: torch.device,
    folder: Path,
    console: Console,
    prefix: str = "",
    resume: bool,
    ranks: Ranks | None = None,
    sharded: bool = False,
) -> tuple[SeedRun, ...]:
    """How the training of each seed went, with its lines on the console.

    make: the model to begin with. prefix: before each line. ranks: the processes that train
    together; this one alone when left out. sharded: see `FinetuneJob`. Raises Interrupted after a
    signal, and InputError as training does.
    """
    from hyenadna.model.parallel.ranks import ALONE
    from hyenadna.train.finetune import run_seeds
    from hyenadna.train.finetune_reports import (
        FinetuneEvaluation,
        FinetuneResult,
        FinetuneStep,
    )

    ranks = ranks or ALONE
    lines = FinetuneLines(console, learning.task.kind, seeds=len(seeds), prefix=prefix)
    bar = FeatureBar(console)
    found = []
    with stop_on_signals() as stopped:
        try:
            for each in run_seeds(
                make,
                learning,
                config,
                seeds=seeds,
                device=device,
                folder=folder,
                resume=resume,
                should_stop=lambda: stopped() is not None,
                progress=bar,
                ranks=ranks,
                sharded=sharded,
            ):
                report = each.report
                if isinstance(report, FinetuneStep):
                    lines.step(each.seed, report)
                elif isinstance(report, FinetuneEvaluation):
                    lines.evaluation(each.seed, report)
                elif isinstance(report, FinetuneResult):
                    lines.result(report)
                    if report.stopped != "interrupted":
                        found.append(seed_run(report))
        finally:
            bar.close()
        signal = stopped()
    if len(found) < len(seeds) or ranks.any(signal is not None, device):
        raise Interrupted(signal or 2)
    return tuple(found)


def seed_run(report: FinetuneResult) -> SeedRun:
    """How a run went that was not interrupted."""
    assert report.best is not None  # a run that was not interrupted has been evaluated
    return SeedRun(
        report.seed,
        report.best,
        report.history,
        report.stopped,
        report.seconds,
        report.precision,
    )


def best_run(runs: Sequence[SeedRun]) -> int:
    """Which run is the best on the valid part; the first of equals."""
    from hyenadna.train.metrics import is_better

    best = 0
    for i, run in enumerate(runs):
        metric = "log_loss" if run.best.metric == "loss" else run.best.metric
        if i and is_better(metric, run.best.value, runs[best].best.value):
            best = i
    return best


def measure_job(
    job: FinetuneJob,
    key: str,
    title: str,
    runs: Sequence[SeedRun],
    folder: Path,
    console: Console,
) -> Said:
    """What the models of all seeds in a folder say of the rows measured.

    key and title: of the predictor, see `Said`.
    """
    from hyenadna.checkpoint.task import load_task
    from hyenadna.cli.memory import limit_memory

    outputs = []
    for run in runs:
        model = load_task(folder / f"seed-{run.seed}" / "best", device=job.device)
        limit_memory(model.model, job.source.max_memory)
        with progress_bar(console, f"predicting the {job.data.part} part") as show:
            outputs.append(
                predict_rows(
                    model, job.data.measured, batch_tokens=job.predict_tokens, progress=show
                )
            )
    epochs = ", ".join(str(run.best.epoch) for run in runs)
    seconds = float(np.sum([run.seconds for run in runs]))
    return Said(key, title, tuple(outputs), f"epoch {epochs}", seconds)
