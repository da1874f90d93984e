"""Asking one model about data: queries behind each draw's demonstrations, with all controls."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hyenadna.alphabet import Ids
from hyenadna.cli.fewshot_cells import (
    CHOICE,
    NONE,
    REORDERED,
    SHUFFLED,
    TRUE,
    Asked,
    Cell,
    CellResult,
    Int64s,
)
from hyenadna.cli.fewshot_progress import FewshotLines
from hyenadna.data.demonstrations import Demonstrations, others, reordered, with_shuffled_labels

if TYPE_CHECKING:
    from hyenadna.cli.fewshot_job import FewshotJob
    from hyenadna.model.backbone import HyenaDNA
    from hyenadna.model.decoding.decoder import Decoder

_TWIN_ROWS: Final = 2  # queries that are also asked the slow way, in every cell
_TUNING_COST: Final = 4  # a tuned token costs as much as so many that are only read


class Asker:
    """One model that is asked, with what its cells have in common."""

    def __init__(
        self,
        job: FewshotJob,
        model: HyenaDNA,
        lines: FewshotLines,
        require_going: Callable[[], None],
    ) -> None:
        self.job, self.model, self.lines = job, model, lines
        self.require_going = require_going
        self._bare: Asked | None = None

    def of(self, model: HyenaDNA) -> Asker:
        """One that asks another model."""
        return Asker(self.job, model, self.lines, self.require_going)

    @cached_property
    def decoder(self) -> Decoder:
        """Made when it is first needed: all cells may be done."""
        from hyenadna.model.decoding.decoder import Decoder

        return Decoder(self.model)

    def cell(self, cell: Cell, notes: dict[str, Any], start: float) -> CellResult:
        """Ask what a cell asks; notes and start: of its tuning."""
        job, seed = self.job, self.job.request.context.seed
        shown = [job.shown(cell.shots, number) for number in range(job.draws_of(cell.shots))]
        asked: dict[str, Asked] = {}
        asked[TRUE], asked[CHOICE] = self._both(cell, shown)
        if cell.shots:
            if not cell.tuned:  # which makes no difference to it
                notes |= self._saving(cell, shown[0], asked[CHOICE])
            false = [
                with_shuffled_labels(each, job.classes, seed=seed, number=number)
                for number, each in enumerate(shown)
            ]
            turned = [reordered(each, seed=seed, number=n) for n, each in enumerate(shown)]
            asked[SHUFFLED] = self._asked(cell, false, SHUFFLED)
            asked[REORDERED] = self._asked(cell, turned, REORDERED)
            asked[NONE] = self._bare or self._asked(cell, [job.shown(0, 0)], NONE)
        prefixes = [len(self._prefix(each)) for each in shown]
        notes |= {
            "prefix_tokens": float(np.mean(prefixes)),
            "calibration_rows": len(self._calibration(cell, shown[0])),
            "seconds": time.monotonic() - start,
        }
        result = CellResult(cell, asked, notes)
        self.know(result)
        return result

    def know(self, result: CellResult) -> None:
        """Without demonstrations one model says the same in all its cells."""
        self._bare = result.asked[NONE if result.cell.shots else TRUE]

    def _both(self, cell: Cell, shown: Sequence[Demonstrations]) -> tuple[Asked, Asked]:
        """Measured rows and rows to choose by, behind the same prefixes."""
        count = len(self.job.measured)
        rows = (*self.job.measured.sequences, *self.job.valid.sequences)
        whole = self._asked(cell, shown, TRUE, rows)
        return (
            Asked(whole.nats[:, :count], whole.spelled[:, :count], whole.prior),
            Asked(whole.nats[:, count:], whole.spelled[:, count:], whole.prior),
        )

    def _asked(
        self,
        cell: Cell,
        shown: Sequence[Demonstrations],
        control: str,
        sequences: Sequence[Ids] | None = None,
    ) -> Asked:
        """Queries (the measured rows when left out) behind the demonstrations of each draw."""
        from hyenadna.infer.fewshot import answers, class_prior

        job = self.job
        wanted = job.measured.sequences if sequences is None else sequences
        nats, spelled, priors = [], [], []
        for number, each in enumerate(shown):
            calibration = self._calibration(cell, each)
            asked = [*wanted, *(job.train.sequences[row] for row in calibration.tolist())]
            queries = [job.layout.query(sequence) for sequence in asked]
            found = answers(
                self.decoder,
                self._prefix(each),
                queries,
                job.words,
                batch_tokens=job.request.context.batch_tokens,
            )
            nats.append(found.log_probabilities[: len(wanted)])
            spelled.append(found.spelled[: len(wanted)])
            rest = found.log_probabilities[len(wanted) :]
            priors.append(class_prior(rest) if len(rest) else np.zeros(job.classes))
            work = _tokens(job, len(each) // job.classes, asked)
            self.lines.asked(cell, control, number, len(shown), work)
            self.require_going()
        return Asked(np.stack(nats), np.stack(spelled), np.stack(priors))

    def _prefix(self, shown: Demonstrations) -> Ids:
        return self.job.layout.prefix(self.job.train.sequences, shown)

    def _calibration(self, cell: Cell, shown: Demonstrations) -> Int64s:
        """Training rows that are neither shown nor tuned on; none where nothing is calibrated."""
        context = self.job.request.context
        if context.calibrate == "none":
            return np.empty(0, np.int64)
        used = np.concatenate([shown.rows, self.job.tuned_rows(cell.tuned)])
        return others(self.job.targets, context.calibration_rows, without=used, seed=context.seed)

    def _saving(self, cell: Cell, shown: Demonstrations, fast: Asked) -> dict[str, float]:
        """What one pass over the prefix saves, beyond what batching does: seconds both ways.

        The rows to choose by behind one shared prefix, and in batches of as many tokens of prefix
        and query together. Of the latter a full batch of rows is timed, and counted for all. Both
        ways are warm. A few answers are also compared with those of the plain way, one by one.
        """
        from hyenadna.infer.fewshot import answers, answers_one_by_one, answers_together

        job, most = self.job, self.job.request.context.batch_tokens
        prefix, words = self._prefix(shown), job.words
        queries = [job.layout.query(sequence) for sequence in job.valid.sequences]
        longest = len(prefix) + max(map(len, queries)) + words.length - 1
        some = queries[: _rows_together(job, longest)]

        def shared() -> object:
            return answers(self.decoder, prefix, queries, words, batch_tokens=most)

        def together() -> object:
            return answers_together(self.model, prefix, some, words, batch_tokens=most)

        seconds = [_seconds(way) for way in (shared, together)]
        few = queries[:_TWIN_ROWS]
        slow = answers_one_by_one(self.model, prefix, few, words)
        gap = abs(fast.nats[0, : len(few)] - slow.log_probabilities).max()
        self.lines.asked(cell, "timing", 0, 1, _timing_work(job, cell.shots))
        self.require_going()
        return {
            "shared_seconds": seconds[0],
            "together_seconds": seconds[1] * len(queries) / len(some),
            "timed_rows": len(queries),
            "together_rows": len(some),
            "largest_difference": float(gap),
        }


def _seconds(way: Callable[[], object]) -> float:
    """Of a call, after one to warm up."""
    way()
    start = time.monotonic()
    way()
    return time.monotonic() - start


def _rows_together(job: FewshotJob, longest: int) -> int:
    """Rows to choose by whose prefixes and queries, of so many tokens, fill a batch; all at most.

    Each stands there once for every beginning of a word.
    """
    batch = job.request.context.batch_tokens // (longest * len(job.words.beginnings))
    return min(len(job.valid), max(1, batch))


def _mean_tokens(job: FewshotJob) -> int:
    """Of a demonstration, about."""
    return job.layout.tokens_of(round(float(job.train.lengths.mean())))


def _tokens(job: FewshotJob, shots: int, sequences: Sequence[Ids]) -> float:
    """About how many tokens are read to ask about sequences behind so many shots."""
    mean = _mean_tokens(job)
    query = mean if job.layout.width else 0
    rows = sum(max(query, len(sequence) + job.words.length) for sequence in sequences)
    return shots * job.classes * mean + rows * len(job.words.beginnings)


def _timing_work(job: FewshotJob, shots: int) -> float:
    """About how many tokens are read to see what a shared prefix saves: twice each way."""
    whole = (shots * job.classes + 1) * _mean_tokens(job)
    alone = 2 * _rows_together(job, whole) + min(_TWIN_ROWS, len(job.valid))
    shared = 2 * _tokens(job, shots, job.valid.sequences)
    return shared + alone * whole * len(job.words.beginnings)


def tuning_work(job: FewshotJob, cell: Cell) -> float:
    """What the tuning of a cell costs, in tokens that are read."""
    return (
        _TUNING_COST
        * job.request.tuning.epochs
        * cell.tuned
        * _tokens(job, cell.shots, job.train.sequences[:1])
    )


def cell_work(job: FewshotJob, cell: Cell) -> float:
    """About how many tokens a cell reads, for the time left."""
    context = job.request.context
    extra = context.calibration_rows if context.calibrate == "train" else 0
    calibration = list(job.train.sequences[:extra])
    measured = [*job.measured.sequences, *calibration]
    work = tuning_work(job, cell)
    draws = job.draws_of(cell.shots)
    work += draws * _tokens(job, cell.shots, [*measured, *job.valid.sequences])
    if cell.shots:
        work += 2 * draws * _tokens(job, cell.shots, measured)
        work += 0 if cell.tuned else _timing_work(job, cell.shots)
        # without demonstrations each model is asked once: the untuned one in its first cell
        if cell.tuned or cell == min(each for each in job.cells if not each.tuned):
            work += _tokens(job, 0, measured)
    return work
