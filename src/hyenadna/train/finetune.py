"""Fine-tuning: a task model fitted to labelled sequences, chosen on their valid part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from hyenadna.data.labelled_data import LabelledData
from hyenadna.errors import InputError
from hyenadna.model.heads import TaskModel
from hyenadna.model.parallel.ranks import ALONE, Ranks
from hyenadna.train.finetune_examples import Progress
from hyenadna.train.finetune_folder import FinetuneFolder
from hyenadna.train.finetune_loop import Finetuner
from hyenadna.train.finetune_reports import (
    FinetuneEvaluation,
    FinetuneResult,
    FinetuneStep,
    Stopped,
)
from hyenadna.training_config import FinetuneConfig

Report = FinetuneStep | FinetuneEvaluation | FinetuneResult


def finetune(
    model: TaskModel,
    data: LabelledData,
    config: FinetuneConfig,
    *,
    seed: int = 0,
    device: str | torch.device | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    should_stop: Callable[[], object] = lambda: False,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
    sharded: bool = False,
) -> Iterator[Report]:
    """Train on the rows `train`, choose on the rows `valid`, and never look at others.

    Yields a report for each step and each evaluation, and the result last. After that, or when the
    iteration is given up, `model` holds the weights that were best on the valid part, plain and in
    evaluation mode. It runs on one device to the same weights for the same seed, bit for bit.

    seed: of the order of rows, strands, dropout and adapters; not of the model's own first weights.
    device: that of the model when left out. folder: for the state at each evaluation, the log and
    the best model, see `hyenadna.train.finetune_folder`. resume: go on from the state there, if
    there is one; the model must be as it was when the run began, and the result equals that of an
    unbroken run. should_stop: when it turns true the state is saved after the step in progress and
    the run ends. progress: told how many sequences have their features, where these are kept.
    ranks: the processes that train together; all must iterate, and one of them writes. sharded:
    see `Finetuner`; the result has the model then.

    Raises InputError for data that does not fit, options that do not go together, a loss that
    stays infinite, and a folder with a run in it, or with another run to resume.
    """
    run = FinetuneFolder(Path(folder), writes=ranks.first) if folder is not None else None
    device = model.device if device is None else torch.device(device)
    try:
        if run and run.has_state and not resume:
            raise InputError(f"{run.path}: holds a run already; resume it, or give another folder")
        tuner = Finetuner(
            model, data, config, seed=seed, device=device, progress=progress, ranks=ranks,
            sharded=sharded,
        )  # fmt: skip
    except BaseException:
        if run:
            run.close()
        raise
    try:
        if run:
            ranks.require_one_folder(run.path, run.has_state)
        if run and run.has_state:
            run.restore(tuner)
            ranks.require_one_folder(run.path, tuner.steps_done)
        elif run:
            run.clear_log()
        interrupted = False
        while not tuner.stopped and not interrupted:
            yield from _one_step(tuner, run)
            interrupted = ranks.any(bool(should_stop()), device) and not tuner.stopped
        if interrupted and run:
            run.save_state(tuner)
        tuner.finish()
        if run and tuner.best:
            run.save_best(tuner)
        ranks.wait()  # until the best model can be read
        yield _result(tuner, cast(Stopped, "interrupted" if interrupted else tuner.stopped))
    finally:
        tuner.finish()
        if run:
            run.close()


def _one_step(tuner: Finetuner, run: FinetuneFolder | None) -> Iterator[Report]:
    """A step, and what is due after it."""
    report = tuner.step()
    if run:
        run.log(report)
    yield report
    if tuner.evaluation_due:
        evaluation = tuner.evaluate()
        if run:
            run.log(evaluation)
            run.save_state(tuner)
        yield evaluation


def _result(tuner: Finetuner, stopped: Stopped) -> FinetuneResult:
    return FinetuneResult(
        model=tuner.model,
        seed=tuner.seed,
        step=tuner.steps_done,
        epoch=tuner.epoch,
        best=tuner.best,
        history=tuple(tuner.history),
        stopped=stopped,
        seconds=tuner.seconds,
        precision=tuner.precision_name,
    )


@dataclass(frozen=True)
class SeedReport:
    """A report of the run of one seed."""

    seed: int
    report: Report


def run_seeds(
    make_model: Callable[[], TaskModel],
    data: LabelledData,
    config: FinetuneConfig,
    *,
    seeds: Sequence[int],
    device: str | torch.device | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    should_stop: Callable[[], object] = lambda: False,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
    sharded: bool = False,
) -> Iterator[SeedReport]:
    """The reports of `finetune` for one seed after the other, each on a model of its own.

    make_model: gives the model to begin with; torch's generator stands at the seed while it does,
    so that a fresh head (or a whole fresh model) differs from seed to seed, and nowhere else.
    folder: each seed gets `seed-N` in it. With `resume` seeds that are done are not run again; they
    report their result. The other arguments: as in `finetune`. The iteration ends with an
    interrupted seed. For mean and spread: `hyenadna.train.finetune_reports.over_seeds`.

    Raises InputError for no seeds, one twice or negative, and as `finetune` does.
    """
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise InputError(f"seeds are {list(seeds)}; give one or more, each once, from 0")
    for seed in seeds:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = make_model()
        own = None if folder is None else Path(folder) / f"seed-{seed}"
        for report in finetune(
            model,
            data,
            config,
            seed=seed,
            device=device,
            folder=own,
            resume=resume,
            should_stop=should_stop,
            progress=progress,
            ranks=ranks,
            sharded=sharded,
        ):
            yield SeedReport(seed, report)
            if isinstance(report, FinetuneResult) and report.stopped == "interrupted":
                return
