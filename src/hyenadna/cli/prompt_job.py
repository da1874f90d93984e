"""Prompt tuning from data and model to figures: every number of soft tokens, and what to compare.

    job = check_job(job)                    # refuses what cannot work, before anything is computed
    outcome = run_job(job, folder, console)

Nothing of the measured rows is read before all training is done.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from rich.console import Console

from hyenadna.cli.finetune_data import PreparedData, cropped
from hyenadna.cli.finetune_job import (
    FinetuneJob,
    SeedRun,
    best_run,
    measure_job,
    require_metric,
    train_job,
    train_seeds,
)
from hyenadna.cli.finetune_job import check_job as check_finetuning
from hyenadna.cli.finetune_measure import (
    NAMES,
    Floats,
    Said,
    compare,
    fit,
    flat_rows,
    predict_rows,
)
from hyenadna.cli.finetune_models import ModelSource
from hyenadna.cli.finetune_options import HeadOptions
from hyenadna.cli.progress import progress_bar
from hyenadna.errors import InputError
from hyenadna.label_words import LabelWords, label_words
from hyenadna.training_config import FinetuneConfig, FinetuneMode, PromptConfig

if TYPE_CHECKING:
    import torch

    from hyenadna.data.labelled_data import LabelledData
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
    compared: Mapping[str, FinetuneJob] = field(default_factory=dict)
    """What is trained to compare with, by name; set by `check_job`."""
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
    compared = {
        name: check_finetuning(_as_finetuning(job, name)) for name in job.compare if name in TUNED
    }
    memory = max(_memory(job, most), *(each.memory for each in compared.values()), 0)
    return dataclasses.replace(job, compared=compared, memory=memory)


def _as_finetuning(job: PromptJob, name: str) -> FinetuneJob:
    """A comparison as a job of its own: its own rates, our rows and patience."""
    same = (
        "epochs", "patience", "metric", "batch_size", "micro_batch_tokens", "precision",
        "reverse_complement", "class_weights", "max_length",
    )  # fmt: skip
    own = job.options.finetune()
    return FinetuneJob(
        data=job.data,
        source=job.source,
        head=job.head if job.words is None else HeadOptions(),
        config=FinetuneConfig(mode=TUNED[name][0], **{each: getattr(own, each) for each in same}),
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
            trained[f"tokens-{count}"] = train_seeds(
                partial(job.prompted, count),
                job.data.learning,
                job.options.finetune(),
                seeds=job.seeds,
                device=job.device,
                folder=folder / f"tokens-{count}",
                console=console,
                prefix=f"{count:,} soft tokens: ",
                resume=resume,
            )
    compared = {
        name: train_job(each, folder / "compare" / name, console, f"{TUNED[name][1]}: ",
                        resume=resume)
        for name, each in job.compared.items()
    }  # fmt: skip
    fitted = [
        fit(name, job.data.learning, job.seeds[0], console, device=str(job.device))
        for name in job.compare
        if name in NAMES
    ]
    prompts = tuple(
        _prompt_arm(job, count, trained.get(f"tokens-{count}", ()), folder, console)
        for count in counts
    )
    others = tuple(
        Arm(name, TUNED[name][1], job.compared[name].trained, runs,
            measure_job(job.compared[name], name, TUNED[name][1], runs,
                        folder / "compare" / name, console))
        for name, runs in compared.items()
    )  # fmt: skip
    others += tuple(
        Arm(each.key, NAMES[each.key], 0, (), each.said(job.data.measured)) for each in fitted
    )
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


def _prompt_arm(
    job: PromptJob, count: int, runs: Sequence[SeedRun], folder: Path, console: Console
) -> Arm:
    """What the model says behind so many tokens, for each seed; as it is where there are none."""
    from hyenadna.checkpoint.prompt_file import PROMPT_FILE, load_prompt

    key = f"tokens-{count}"
    if not runs:
        model = job.prompted(count).eval()
        title, said = "no soft tokens, untuned", _predicted(job, model, job.data.measured)
        untuned = _chosen_by(job, model)
        return Arm(key, title, 0, (), Said(key, title, (said,)), count, untuned)
    title, outputs, trained = f"{count:,} soft tokens", [], 0
    for run in runs:
        path = folder / key / f"seed-{run.seed}" / "best" / PROMPT_FILE
        model = load_prompt(path, job.source.make()).to(job.device)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        with progress_bar(console, f"{title}: the {job.data.part} part") as show:
            outputs.append(_predicted(job, model, job.data.measured, show))
    note = "epoch " + ", ".join(str(run.best.epoch) for run in runs)
    seconds = sum(run.seconds for run in runs)
    said_all = Said(key, title, tuple(outputs), note, seconds)
    return Arm(key, title, trained, tuple(runs), said_all, count)


def _chosen_by(job: PromptJob, model: TaskModel) -> float:
    """The metric that chooses, of a model on the valid part."""
    from hyenadna.train.metrics import metrics

    valid = job.data.learning.part("valid")
    targets, _ = flat_rows(valid)
    found = metrics(valid.task.kind, targets, _predicted(job, model, valid))
    return found[_choosing_metric(job)]


def _predicted(
    job: PromptJob,
    model: TaskModel,
    rows: LabelledData,
    progress: Callable[[int, int], None] | None = None,
) -> Floats:
    """As `predict_rows`, in passes of the usual size."""
    from hyenadna.data.batches import BATCH_TOKENS

    return predict_rows(model, rows, batch_tokens=BATCH_TOKENS, progress=progress)
