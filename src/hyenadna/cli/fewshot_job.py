"""Few-shot from data and model to answers: draw, lay out, tune, ask, with all controls.

    job = check_job(request, data, source, device)    # refuses what cannot work, before it is slow
    outcome = run_job(job, folder, console)

Demonstrations, tuning and calibration rows are training rows; the measured rows are queries only,
and never chosen by.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.console import Console

from hyenadna.alphabet import IGNORED, Ids
from hyenadna.cli.fewshot_ask import Asker, cell_work, tuning_work
from hyenadna.cli.fewshot_cells import CHOICE, Cell, CellResult, Int64s, read_cell, write_cell
from hyenadna.cli.fewshot_compare import Compared, check_compared, run_compared
from hyenadna.cli.fewshot_options import FewshotRequest
from hyenadna.cli.fewshot_progress import FewshotLines
from hyenadna.cli.finetune_data import PreparedData, cropped
from hyenadna.cli.finetune_job import Interrupted
from hyenadna.cli.finetune_models import ModelSource
from hyenadna.cli.progress import stop_on_signals
from hyenadna.data.demonstrations import (
    Demonstrations,
    Layout,
    draw,
    require_rows,
    right_when_shuffled,
    some_of_each,
    tuning_queries,
    tuning_row,
)
from hyenadna.data.labelled_data import LabelledData
from hyenadna.errors import InputError
from hyenadna.label_words import LabelWords, label_words

if TYPE_CHECKING:
    import torch

    from hyenadna.model.backbone import HyenaDNA

CELLS: Final = "cells"
BEST: Final = "best"
_TUNING_DRAW: Final = 1 << 20  # draws of tuning are numbered from here


@dataclass(frozen=True, eq=False, kw_only=True)
class FewshotJob:
    """A model to be asked about data; made by `check_job`."""

    request: FewshotRequest
    data: PreparedData
    source: ModelSource
    model: HyenaDNA
    """The model as it is, in evaluation mode on the device; nothing changes it."""
    words: LabelWords
    layout: Layout
    train: LabelledData
    """Rows with a class, to demonstrate, calibrate and tune with."""
    valid: LabelledData
    """Rows to choose by, within the limit."""
    measured: LabelledData
    """Rows to measure on, within the limit."""
    device: torch.device

    @property
    def cells(self) -> list[Cell]:
        """In the order in which they are asked."""
        request = self.request
        return [Cell(n, k) for n in request.tuning_samples for k in request.shots]

    @property
    def classes(self) -> int:
        """How many there are, T."""
        return len(self.words.names)

    @cached_property
    def model_digest(self) -> str:
        """Of the model as it is."""
        from hyenadna.model.digest import function_digest

        return function_digest(self.model)

    @property
    def targets(self) -> Int64s:
        """Classes of the training rows."""
        return np.asarray(self.train.targets)

    @property
    def caveats(self) -> list[str]:
        """What a reader of the figures must know first."""
        data, found = self.data, []
        if data.part == "test" and data.chosen_on == "test":
            found.append(
                "settings were chosen on the test part (--choose-on-test): the best cell's figures "
                "are too good"
            )
        elif data.part == "valid":
            found.append(
                "there is no test part: the figures are of the valid part, on which the best cell "
                "is chosen, and too good (--test-fraction holds some rows out)"
            )
        whole = int((np.asarray(data.measured.targets) != IGNORED).sum())
        if len(self.measured) < whole:
            found.append(
                f"measured on {len(self.measured):,} of {whole:,} rows (--limit), of each class "
                "its share"
            )
        odd = [k for k in self.request.shots if k % self.classes]
        if odd:
            shares = ", ".join(
                f"{right_when_shuffled(k, self.classes):.0%} at {k} shot{'s' * (k != 1)}"
                for k in odd
            )
            found.append(
                f"shuffled labels are right less often than chance ({1 / self.classes:.0%}): "
                f"{shares}; these cells may overstate true less shuffled (give multiples of "
                f"{self.classes} for --shots, the number of classes)"
            )
        return found

    def shown(self, shots: int, number: int) -> Demonstrations:
        """The demonstrations of a draw."""
        seed = self.request.context.seed
        return draw(self.targets, shots, self.classes, seed=seed, number=number)

    def draws_of(self, shots: int) -> int:
        """How many draws there are: nothing can be drawn for no shots."""
        return self.request.context.draws if shots else 1

    def tuned_rows(self, tuned: int) -> Int64s:
        """Training rows that are tuned on."""
        seed = self.request.context.seed
        return tuning_queries(self.targets, tuned, self.classes, seed=seed)

    def samples(self, cell: Cell) -> Iterator[tuple[Ids, Int64s]]:
        """What a cell's model is tuned on: each query with demonstrations of its own."""
        seed = self.request.context.seed
        for i, query in enumerate(self.tuned_rows(cell.tuned).tolist()):
            number = _TUNING_DRAW + i
            shown = draw(
                self.targets, cell.shots, self.classes, seed=seed, number=number, without=query
            )
            target = int(self.targets[query])
            yield tuning_row(
                self.layout,
                self.train.sequences,
                shown,
                query,
                target,
                every_label=self.request.tuning.tune_on == "all",
            )


@dataclass(frozen=True, eq=False)
class FewshotOutcome:
    """What a job came to."""

    job: FewshotJob
    results: tuple[CellResult, ...]
    """In the order of `job.cells`."""
    compared: tuple[Compared, ...]


def check_job(
    request: FewshotRequest, data: PreparedData, source: ModelSource, device: torch.device
) -> FewshotJob:
    """The job of a request.

    Raises InputError for whatever would stop it later: too few rows of a class, demonstrations
    longer than the model reads, words that do not fit, unfit runs to compare with.
    """
    import torch

    from hyenadna.cli.memory import limit_memory

    context = request.context
    longest = source.config.max_seq_len
    data = dataclasses.replace(
        data,
        learning=cropped(data.learning, context.max_length, longest),
        measured=cropped(data.measured, context.max_length, longest),
    )
    words = label_words(data.learning.task.names, context.label_words)
    train, valid = data.learning.part("train"), data.learning.part("valid")
    parts = [
        rows.select(some_of_each(np.asarray(rows.targets), most, seed=context.seed))
        for rows, most in ((train, None), (valid, context.limit), (data.measured, context.limit))
    ]
    width = max(int(rows.lengths.max()) for rows in parts) if context.layout == "paper" else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        model = source.make().to(device).eval()
    limit_memory(model, source.max_memory)
    job = FewshotJob(
        request=request,
        data=data,
        source=source,
        model=model,
        words=words,
        layout=Layout(words, width),
        train=parts[0],
        valid=parts[1],
        measured=parts[2],
        device=device,
    )
    _check_rows(job)
    for shots in request.shots:
        _check_length(job, shots)
    check_compared(job.data, source, request, device)
    return job


def _check_rows(job: FewshotJob) -> None:
    """Raises InputError where there are too few training rows."""
    names = job.words.names
    for name, count in zip(names, np.bincount(job.targets, minlength=job.classes), strict=True):
        if not count:
            raise InputError(f"{job.train.name}: the train part has no row of class {name!r}")
    for cell in job.cells:
        spare = cell.tuned > 0
        require_rows(job.targets, cell.shots, job.classes, names=names, spare=spare)
        used = len(job.tuned_rows(cell.tuned)) + cell.shots * job.classes
        if job.request.context.calibrate == "train" and used >= len(job.train):
            raise InputError(
                f"{job.train.name}: {cell.title} take {used:,} of {len(job.train):,} training "
                "rows, and none may be left to calibrate with; give fewer, or --calibrate none"
            )


def _check_length(job: FewshotJob, shots: int) -> None:
    """Raises InputError where demonstrations, query and word are more than the model reads."""
    asked = [job.valid, job.measured]
    if job.request.context.calibrate == "train":
        asked.append(job.train)  # any of them may be
    queries = max(int(rows.lengths.max()) for rows in asked)
    most = job.source.config.max_seq_len
    query = len(job.layout.query(np.empty(queries, np.uint8))) + job.words.length - 1

    def longest(shots: int) -> int:
        lengths = job.train.lengths
        drawn = [job.shown(shots, number) for number in range(job.draws_of(shots))]
        return query + max(
            sum(job.layout.tokens_of(length) for length in lengths[each.rows].tolist())
            for each in drawn
        )

    need = longest(shots)
    for tuned in job.request.tuning_samples:
        for ids, _ in job.samples(Cell(tuned, shots)):
            need = max(need, len(ids))
    if need <= most:
        return
    fits = max((k for k in range(shots) if longest(k) <= most), default=None)
    way_out = "crop sequences with --max-length" if fits is None else f"give --shots {fits}"
    raise InputError(
        f"--shots {shots}: demonstrations, query and label have up to {need:,} tokens, but this "
        f"model reads {most:,} (max_seq_len); {way_out}, a shorter --max-length, or a model that "
        "reads more"
    )


def run_job(job: FewshotJob, folder: Path, console: Console) -> FewshotOutcome:
    """Ask all cells and train what is compared; finished cells in `folder` are taken as they are.

    Raises Interrupted after a signal.
    """
    results: list[CellResult] = []
    lines = FewshotLines(console)
    with stop_on_signals() as stopped:

        def require_going() -> None:
            signal = stopped()
            if signal is not None:
                raise Interrupted(signal)

        todo = [cell for cell in job.cells if read_cell(cell, folder / CELLS) is None]
        lines.begin(sum(cell_work(job, cell) for cell in todo))
        untuned = Asker(job, job.model, lines, require_going)
        for cell in job.cells:
            result = read_cell(cell, folder / CELLS)
            if result is None:
                result = _run_cell(job, cell, untuned, results, folder)
                write_cell(result, folder / CELLS)
            elif not cell.tuned:
                untuned.know(result)
            results.append(result)
            lines.cell(result, valid_accuracy(job, result))
            require_going()
    compared = run_compared(job.data, job.source, job.request, job.measured, job.device, folder,
                            console)  # fmt: skip
    return FewshotOutcome(job, tuple(results), compared)


def valid_accuracy(job: FewshotJob, result: CellResult) -> float:
    """By what cells are chosen: the mean accuracy over draws on the valid rows."""
    asked = result.asked[CHOICE]
    return float((asked.classes() == np.asarray(job.valid.targets)).mean())


def best_cell(job: FewshotJob, results: Sequence[CellResult]) -> CellResult | None:
    """The one that is best on the valid rows, the first of equals; None for none."""
    return max(results, key=lambda result: valid_accuracy(job, result), default=None)


def _run_cell(
    job: FewshotJob, cell: Cell, untuned: Asker, before: Sequence[CellResult], folder: Path
) -> CellResult:
    """Ask one cell; a tuned model that is the best so far is kept as `RUN/best`."""
    start = time.monotonic()
    notes: dict[str, Any] = {}
    asker = untuned
    if cell.tuned:
        model, notes = _tuned(job, cell, untuned)
        asker = untuned.of(model)
    result = asker.cell(cell, notes, start)
    if cell.tuned:
        rival = best_cell(job, [each for each in before if each.cell.tuned])
        if rival is None or valid_accuracy(job, result) > valid_accuracy(job, rival):
            from hyenadna.checkpoint.save import save

            save(asker.model, folder / BEST)
    return result


def _tuned(job: FewshotJob, cell: Cell, untuned: Asker) -> tuple[HyenaDNA, dict[str, Any]]:
    """A copy of the model, tuned for a cell, and how that went."""
    from hyenadna.cli.memory import limit_memory
    from hyenadna.train.instruct import instruct

    start = time.monotonic()
    model = copy.deepcopy(job.model)
    limit_memory(model, job.source.max_memory)
    samples = list(job.samples(cell))
    losses = []
    for report in instruct(model, samples, job.request.tuning, seed=job.request.context.seed):
        losses.append(report.loss)
        untuned.lines.tuning(cell, report, tuning_work(job, cell) / report.steps)
        untuned.require_going()
    return model, {"losses": losses, "tuning_seconds": time.monotonic() - start}
