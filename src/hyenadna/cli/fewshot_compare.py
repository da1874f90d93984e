"""What a few-shot run is set beside: models and baselines that learn from all training rows."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from rich.console import Console

from hyenadna.cli.fewshot_options import FewshotRequest
from hyenadna.cli.finetune_data import PreparedData
from hyenadna.cli.finetune_job import FinetuneJob, check_job, measure_job, train_job
from hyenadna.cli.finetune_measure import NAMES, fit
from hyenadna.cli.finetune_models import ModelSource
from hyenadna.cli.finetune_options import HeadOptions
from hyenadna.cli.prompt_job import TUNED
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
        trained = 0
        if key in NAMES:
            said = fit(key, data.learning, request.context.seed, console).said(measured)
        else:
            job = check_job(_job(key, data, source, request, measured, device))
            place, name = folder / FOLDER / key, TUNED[key][1]
            runs = train_job(job, place, console, f"{name}: ", resume=True)
            said, trained = measure_job(job, key, name, runs, place, console), job.trained
        right = said.runs[0].argmax(1) == np.asarray(measured.targets)
        found.append(Compared(key, right, trained, said.seconds, said.note))
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
