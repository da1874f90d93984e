"""Prompt tuning from data and model to figures: every number of soft tokens, and what to compare.

    job = check_job(job)                    # refuses what cannot work, before anything is computed
    outcome = run_job(job, folder, console)

Nothing of the measured rows is read before all training is done.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from rich.console import Console

from hyenadna.cli.finetune_data import PreparedData, cropped
from hyenadna.cli.finetune_job import (
    NAMES,
    FinetuneJob,
    SeedRun,
    best_run,
    require_metric,
    train_seeds,
)
from hyenadna.cli.finetune_job import check_job as check_finetuning
from hyenadna.cli.finetune_measure import Said, compare, flat_rows, predict_rows
from hyenadna.cli.finetune_models import ModelSource
from hyenadna.cli.finetune_options import HeadOptions
from hyenadna.cli.progress import progress_bar
from hyenadna.cli.units import duration
from hyenadna.errors import InputError
from hyenadna.label_words import LabelWords, label_words
from hyenadna.training_config import FinetuneConfig, FinetuneMode, PromptConfig

if TYPE_CHECKING:
    import torch

    from hyenadna.model.heads import TaskModel
    from hyenadna.model.prompting.prompted import PromptedModel
    from hyenadna.report.finetune_page import Predictor

TUNED: Final[dict[str, tuple[FinetuneMode, str]]] = {
    "linear": ("frozen", "linear probe"),
    "lora": ("lora", "LoRA"),
    "full": ("full", "full fine-tuning"),
}
"""Comparisons that are trained: mode of fine-tuning, and name."""
_CALIBRATED: Final = 512
"""Training rows by whose mean words are calibrated, at most."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PromptJob:
    """A frozen model to be adapted to data by soft tokens, and measured beside others."""

    data: PreparedData
    source: ModelSource
    head: HeadOptions
    options: PromptConfig
    compare: tuple[str, ...]
    seeds: tuple[int, ...]
    device: torch.device
    words: LabelWords | None = None
    """Set by `check_job`."""
    memory: int = 0
    """Estimated bytes; set by `check_job`."""

    def prompted(self, tokens: int, *, calibrated: bool = True) -> PromptedModel:
        """The model behind so many fresh soft tokens, from torch's global generator.

        calibrated: where the options want it.
        """
        from hyenadna.model.prompting.prompted import PromptedModel

        prompted = PromptedModel(
            self.source.make(),
            self.data.learning.task,
            tokens=tokens,
            words=self.words,
            pooling=None if self.words else self.head.pooling,
            strands=self.head.strands,
            dropout=self.options.prompt_dropout,
            head_dropout=self.head.dropout,
            over_vocabulary=self.options.label_loss == "vocabulary",
        ).to(self.device)
        if calibrated and self.words and self.options.calibrate == "train":
            prompted.calibrate(self._some_rows())
        return prompted

    def _some_rows(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Tokens and lengths of training rows, spread over all of them."""
        from hyenadna.data.labelled_batches import labelled_batches

        train = self.data.learning.part("train")
        index = np.linspace(0, len(train) - 1, min(len(train), _CALIBRATED)).astype(np.int64)
        for batch in labelled_batches(train.select(np.unique(index))):
            yield batch.tokens, batch.lengths


@dataclass(frozen=True, eq=False)
class Arm:
    """One way to adapt the model, with all its seeds, measured."""

    key: str
    """`tokens-32`, `full`, …; the name of its folder too."""
    title: str
    trained: int
    """Parameters."""
    runs: tuple[SeedRun, ...]
    """None for what was not trained."""
    said: Said
    tokens: int | None = None
    """Soft tokens, of a prompt."""
    untuned: float = math.nan
    """Metric of the valid part that chooses, of a model that nothing was learned for."""

    @property
    def valid(self) -> float:
        """Mean over seeds of the metric of the valid part that chooses; NaN for a baseline."""
        values = [run.best.value for run in self.runs]
        return float(np.mean(values)) if values else self.untuned


@dataclass(frozen=True, eq=False)
class PromptOutcome:
    """What a job came to."""

    job: PromptJob
    prompts: tuple[Arm, ...]
    """By rising number of tokens."""
    others: tuple[Arm, ...]
    """Comparisons."""
    predictors: dict[str, Predictor]
    """By the key of the arm; differences are those of the chosen prompt less the arm."""
    chosen: Arm
    """The number of tokens that is best on the valid part."""
    kept: int
    """Which of its runs is best on the valid part."""


def check_job(job: PromptJob) -> PromptJob:
    """The job with sequences cropped as it says, and with its words.

    Raises InputError for whatever would stop it later: a task without classes to spell, sequences
    that are too long behind the most tokens, options that do not go together.
    """
    import torch

    from hyenadna.train.baseline_kmers import require_two_classes
    from hyenadna.train.finetune_setup import class_weights

    task = job.data.learning.task
    words = None
    if job.options.readout == "label":
        if task.kind != "classes":
            raise InputError(
                f"--readout label spells classes, but the task is {task.kind}; give --readout head"
            )
        words = label_words(task.names, job.options.label_words)
        if job.head != HeadOptions():
            raise InputError(
                "--pooling, --strands and --dropout are of a head; leave them out with "
                "--readout label"
            )
    job = dataclasses.replace(job, words=words)
    most = max(job.options.counts())
    longest = job.source.config.max_seq_len
    if most >= longest:
        raise InputError(
            f"--tokens {most}: this model reads {longest:,} tokens in all, the sequence included"
        )
    with torch.random.fork_rng(devices=[]):
        room = job.prompted(most, calibrated=False).max_length
    fitting = []
    for rows in (job.data.learning, job.data.measured):
        kept = cropped(rows, job.options.max_length, longest)
        if len(kept) and int(kept.lengths.max()) > room:
            raise InputError(
                f"{rows.name}: a sequence of {int(kept.lengths.max()):,} tokens behind {most:,} "
                f"soft tokens, but this model reads {longest:,} in all; give fewer --tokens, or "
                f"--max-length {max(room, 0)}"
            )
        fitting.append(kept)
    data = dataclasses.replace(job.data, learning=fitting[0], measured=fitting[1])
    if task.kind in ("classes", "tokens"):
        require_two_classes(data.learning.part("train"))
    class_weights(data.learning.part("train"), job.options.finetune())
    require_metric(data.learning, job.options.finetune())
    job = dataclasses.replace(job, data=data)
    needs = [_memory(job, most)]
    for name in job.compare:
        if name in TUNED:
            needs.append(check_finetuning(_as_finetuning(job, name)).memory)
    return dataclasses.replace(job, memory=max(needs))


def _as_finetuning(job: PromptJob, name: str) -> FinetuneJob:
    """A comparison as a job of its own, to be checked."""
    return FinetuneJob(
        data=job.data,
        source=job.source,
        head=job.head if job.words is None else HeadOptions(),
        config=_comparison(job, name),
        seeds=job.seeds,
        baselines=(),
        device=job.device,
    )


def _memory(job: PromptJob, tokens: int) -> int:
    """Estimated bytes of the process in a step behind so many soft tokens."""
    from hyenadna.model.engine.sizes import resident_bytes
    from hyenadna.model.memory import training_bytes

    options = job.options.finetune()
    longest = int(job.data.learning.lengths.max()) + 1
    rows = max(1, min(options.batch_size, options.micro_batch_tokens // longest))
    rows *= len(job.words.beginnings) if job.words else 1
    process = resident_bytes() if job.device.type == "cpu" else 0
    passed = tokens + rows * longest
    return process + training_bytes(
        job.source.config, tokens=passed, precision="float32", engine=False
    )


def run_job(
    job: PromptJob, folder: Path, console: Console, *, resume: bool = False
) -> PromptOutcome:
    """Tune every number of tokens, train what is compared, and measure all of it once.

    folder: gets `tokens-P/seed-N` and `compare/NAME/seed-N`. resume: go on with what is there.

    Raises Interrupted after a signal, and InputError as training does.
    """
    counts = job.options.counts()
    trained: dict[str, tuple[SeedRun, ...]] = {}
    for count in counts:
        if count or job.words is None:
            trained[f"tokens-{count}"] = _train(
                job, partial(job.prompted, count), job.options.finetune(),
                folder / f"tokens-{count}", console, f"{count:,} soft tokens: ", resume=resume,
            )  # fmt: skip
    for name in job.compare:
        if name in TUNED:
            trained[name] = _train(
                job, partial(_plain, job), _comparison(job, name), folder / "compare" / name,
                console, f"{TUNED[name][1]}: ", resume=resume,
            )  # fmt: skip
    fitted = [_fit(job, name, console) for name in job.compare if name not in TUNED]
    prompts = tuple(
        _prompt_arm(job, count, trained.get(f"tokens-{count}", ()), folder, console)
        for count in counts
    )
    others = tuple(
        _comparison_arm(job, name, trained[name], folder, console)
        for name in job.compare
        if name in TUNED
    )
    others += tuple(Arm(said.key, said.name, 0, (), said) for said in fitted)
    chosen = _chosen(job, prompts)
    with console.status("metrics and their intervals …"):
        arms = [chosen, *(arm for arm in (*prompts, *others) if arm is not chosen)]
        found = compare(job.data.measured, chosen.said, [arm.said for arm in arms[1:]])
    predictors = {arm.key: each for arm, each in zip(arms, found, strict=True)}
    kept = best_run(chosen.runs) if chosen.runs else 0
    return PromptOutcome(job, prompts, others, predictors, chosen, kept)


def _chosen(job: PromptJob, prompts: Sequence[Arm]) -> Arm:
    """The best on the valid part; of equals the one with fewer tokens."""
    from hyenadna.train.metrics import is_better

    metric = _choosing_metric(job)
    best = prompts[0]
    for arm in prompts[1:]:
        if is_better(metric, arm.valid, best.valid):
            best = arm
    return best


def _choosing_metric(job: PromptJob) -> str:
    """Name of the metric of the valid part that chooses, as `metrics` gives it."""
    from hyenadna.train.metrics import main_metric

    name = job.options.metric or main_metric(job.data.learning.task.kind).name
    return "log_loss" if name == "loss" else name


def _plain(job: PromptJob) -> TaskModel:
    """The model with a fresh head over the mean, for what is compared."""
    head = job.head if job.words is None else HeadOptions()
    return job.source.make_task(job.data.learning.task, head)


def _comparison(job: PromptJob, name: str) -> FinetuneConfig:
    """Options of fine-tuning for what is compared: its own rates, our rows and patience."""
    same = (
        "epochs", "patience", "metric", "batch_size", "micro_batch_tokens", "precision",
        "reverse_complement", "class_weights", "max_length",
    )  # fmt: skip
    own = job.options.finetune()
    return FinetuneConfig(mode=TUNED[name][0], **{field: getattr(own, field) for field in same})


def _train(
    job: PromptJob,
    make: Callable[[], TaskModel],
    config: FinetuneConfig,
    folder: Path,
    console: Console,
    prefix: str,
    *,
    resume: bool,
) -> tuple[SeedRun, ...]:
    """All seeds of one arm. Raises Interrupted after a signal."""
    return train_seeds(
        make,
        job.data.learning,
        config,
        seeds=job.seeds,
        device=job.device,
        folder=folder,
        console=console,
        prefix=prefix,
        resume=resume,
    )


def _fit(job: PromptJob, name: str, console: Console) -> Said:
    """A fitted baseline and what it says."""
    from hyenadna.train.baselines import fit_baseline

    start = time.monotonic()
    with console.status(f"{NAMES[name]} …"):
        fitted = fit_baseline(name, job.data.learning, job.seeds[0])  # type: ignore[arg-type]
        outputs = fitted.predict(job.data.measured.sequences)
    seconds = time.monotonic() - start
    console.print(f"{NAMES[name]} ({fitted.chosen}); {duration(seconds)}")
    return Said(name, NAMES[name], (outputs,), fitted.chosen, seconds)


def _prompt_arm(
    job: PromptJob, count: int, runs: Sequence[SeedRun], folder: Path, console: Console
) -> Arm:
    """What the model says behind so many tokens, for each seed."""
    models: list[Callable[[], TaskModel]] = [
        partial(_tuned, job, count, run, folder) for run in runs
    ]
    models = models or [partial(job.prompted, count)]
    key, title = f"tokens-{count}", f"{count:,} soft tokens" if runs else "no soft tokens, untuned"
    said, trained = _measure(job, key, title, models, runs, console)
    if runs:
        return Arm(key, title, trained, tuple(runs), said, count)
    return Arm(key, title, 0, (), said, count, _untuned(job, count))


def _untuned(job: PromptJob, count: int) -> float:
    """The metric that chooses, on the valid part, of the model as it is."""
    from hyenadna.data.batches import BATCH_TOKENS
    from hyenadna.train.metrics import metrics

    valid = job.data.learning.part("valid")
    model = job.prompted(count).eval()
    outputs = predict_rows(model, valid, batch_tokens=BATCH_TOKENS)
    targets, _ = flat_rows(valid)
    return metrics(valid.task.kind, targets, outputs)[_choosing_metric(job)]


def _tuned(job: PromptJob, count: int, run: SeedRun, folder: Path) -> TaskModel:
    """The model behind the prompt of a run."""
    from hyenadna.checkpoint.prompt_file import PROMPT_FILE, load_prompt

    place = folder / f"tokens-{count}" / f"seed-{run.seed}" / "best"
    return load_prompt(place / PROMPT_FILE, job.source.make())


def _comparison_arm(
    job: PromptJob, name: str, runs: Sequence[SeedRun], folder: Path, console: Console
) -> Arm:
    from hyenadna.checkpoint.task import load_task
    from hyenadna.train.finetune_setup import choose_parameters

    place = folder / "compare" / name
    models = [partial(load_task, place / f"seed-{run.seed}" / "best") for run in runs]
    title = TUNED[name][1]
    said, _ = _measure(job, name, title, models, runs, console)
    probe = _plain(job)
    choose_parameters(probe, _comparison(job, name))
    return Arm(name, title, _trained(probe), tuple(runs), said)


def _trained(model: TaskModel) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _measure(
    job: PromptJob,
    key: str,
    title: str,
    models: Sequence[Callable[[], TaskModel]],
    runs: Sequence[SeedRun],
    console: Console,
) -> tuple[Said, int]:
    """(what the models say of the measured rows, trained parameters of the last one)."""
    from hyenadna.data.batches import BATCH_TOKENS

    outputs, trained = [], 0
    for make in models:
        model = make().to(job.device).eval()
        trained = _trained(model)
        with progress_bar(console, f"{title}: the {job.data.part} part") as show:
            outputs.append(
                predict_rows(model, job.data.measured, batch_tokens=BATCH_TOKENS, progress=show)
            )
    note = "epoch " + ", ".join(str(run.best.epoch) for run in runs) if runs else ""
    seconds = float(np.sum([run.seconds for run in runs])) if runs else 0.0
    return Said(key, title, tuple(outputs), note, seconds), trained
