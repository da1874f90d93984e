"""What a few-shot run is set beside: models and baselines that learn from all training rows."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from rich.console import Console

from hyenadna.cli.fewshot_options import FewshotRequest
from hyenadna.cli.finetune_data import PreparedData
from hyenadna.cli.finetune_job import NAMES, FinetuneJob, check_job, run_job
from hyenadna.cli.finetune_models import ModelSource
from hyenadna.cli.finetune_options import HeadOptions
from hyenadna.cli.prompt_job import TUNED
from hyenadna.cli.units import duration
from hyenadna.training_config import FinetuneConfig

if TYPE_CHECKING:
    import torch

    from hyenadna.data.labelled_data import LabelledData

FOLDER: Final = "compare"


@dataclass(frozen=True, eq=False)
class Compared:
    """One that learnt from all training rows, on the rows measured."""

    key: str
    """As `--compare` names it."""
    right: np.ndarray
    """Whether each row's class was the most probable one, bool (n,)."""
    trained: int
    """Parameters that were trained; 0 for a baseline."""
    seconds: float
    note: str

    @property
    def name(self) -> str:
        """For people."""
        return _name(self.key)


def _name(key: str) -> str:
    return TUNED[key][1] if key in TUNED else NAMES[key]


def check_compared(
    data: PreparedData, source: ModelSource, request: FewshotRequest, device: torch.device
) -> None:
    """Raises InputError for what would stop a run that is compared with."""
    for key in request.compare:
        if key in TUNED:
            check_job(_job(key, data, source, request, data.measured, device))


def run_compared(
    data: PreparedData,
    source: ModelSource,
    request: FewshotRequest,
    measured: LabelledData,
    device: torch.device,
    folder: Path,
    console: Console,
) -> tuple[Compared, ...]:
    """Train what the request names on all training rows, choose on valid, and measure.

    measured: the rows to measure on. folder: keeps the states, so that an interrupted run goes on.
    Raises Interrupted after a signal, and InputError as training does.
    """
    found = []
    for key in request.compare:
        console.print(f"compared with: {_name(key)}")
        if key == "kmer":
            found.append(_kmers(data, request, measured, console))
            continue
        job = check_job(_job(key, data, source, request, measured, device))
        outcome = run_job(job, folder / FOLDER / key, console, resume=True)
        right = outcome.outputs.argmax(1) == np.asarray(measured.targets)
        run = outcome.runs[outcome.kept]
        found.append(Compared(key, right, job.trained, run.seconds, f"epoch {run.best.epoch}"))
    return tuple(found)


def _job(
    key: str,
    data: PreparedData,
    source: ModelSource,
    request: FewshotRequest,
    measured: LabelledData,
    device: torch.device,
) -> FinetuneJob:
    config = FinetuneConfig(mode=TUNED[key][0], epochs=request.context.compare_epochs)
    return FinetuneJob(
        data=dataclasses.replace(data, measured=measured),
        source=source,
        head=HeadOptions(),
        config=config,
        seeds=(request.context.seed,),
        baselines=(),
        device=device,
    )


def _kmers(
    data: PreparedData, request: FewshotRequest, measured: LabelledData, console: Console
) -> Compared:
    from hyenadna.train.baselines import fit_baseline

    start = time.monotonic()
    with console.status("counting k-mers …"):
        fitted = fit_baseline("kmer", data.learning, request.context.seed)
    right = fitted.predict(measured.sequences).argmax(1) == np.asarray(measured.targets)
    seconds = time.monotonic() - start
    console.print(f"{NAMES['kmer']} ({fitted.chosen}); {duration(seconds)}")
    return Compared("kmer", right, 0, seconds, fitted.chosen)
