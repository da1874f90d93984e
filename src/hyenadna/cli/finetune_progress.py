"""What a user sees of fine-tuning: the step in progress, a line for each evaluation."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from rich.console import Console

from hyenadna.cli.progress import progress_bar
from hyenadna.cli.units import duration

if TYPE_CHECKING:
    from hyenadna.train.finetune_reports import (
        FinetuneEvaluation,
        FinetuneResult,
        FinetuneStep,
    )

_QUIET_INTERVAL: Final = 15.0
"""Seconds between lines where the output is no terminal."""
_STEPS_TIMED: Final = 5
_SHOWN: Final = {
    "classes": ("accuracy", "auroc"),
    "tokens": ("accuracy", "auroc"),
    "labels": ("auprc",),
    "values": ("spearman", "r2"),
}


class FinetuneLines:
    """The lines of the runs of one model, one run a seed."""

    def __init__(self, console: Console, kind: str, *, seeds: int, prefix: str = "") -> None:
        self.console, self.kind, self.seeds, self.prefix = console, kind, seeds, prefix
        self._recent: deque[FinetuneStep] = deque(maxlen=50)
        self._last_print = 0.0
        self._timed = 0
        self._told = False
        self._evaluated = 0.0

    def step(self, seed: int, report: FinetuneStep) -> None:
        """Update the line of the step; after a few steps of the first seed, say how long it is."""
        self._recent.append(report)
        self._timed += 1
        if not self._told and self._timed > min(_STEPS_TIMED, report.steps - 1):
            self._estimate(report)
        now = time.monotonic()
        interval = 0.2 if self.console.is_terminal else _QUIET_INTERVAL
        if now - self._last_print < interval:
            return
        self._last_print = now
        seconds = sum(r.seconds for r in self._recent)
        rate = sum(r.sequences for r in self._recent) / max(seconds, 1e-9)
        losses = [r.loss for r in self._recent if not math.isnan(r.loss)] or [math.nan]
        left = report.share_left * seconds / sum(r.share for r in self._recent)
        text = (
            f"{self._name(seed)}step {report.step:,}/{report.steps:,}  {_length(report)}"
            f"loss {sum(losses) / len(losses):.4f}  {rate:,.0f} sequences/s  "
            f"at most {duration(left)} left"
        )
        if self.console.is_terminal:
            self.console.print(text + " " * 4, end="\r", soft_wrap=False, no_wrap=True, crop=True)
        else:
            self._say(text)

    def evaluation(self, seed: int, report: FinetuneEvaluation) -> None:
        """Print a line."""
        others = [name for name in _SHOWN[self.kind] if name != report.metric]
        shown = {report.metric: report.value} | {
            name: report.metrics[name] for name in others if name in report.metrics
        }
        figures = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
        best = "  (best so far)" if report.best else ""
        self._say(
            f"{self._name(seed)}epoch {report.epoch}  {_length(report)}"
            f"train loss {report.train_loss:.4f}  valid loss {report.loss:.4f}  "
            f"{figures}{best}"
        )

    def result(self, report: FinetuneResult) -> None:
        """Say how a run ended."""
        if report.best is None or report.stopped == "interrupted":
            return
        why = "" if report.stopped == "epochs" else ", then none was better for a while"
        self._say(
            f"{self._name(report.seed)}best at epoch {report.best.epoch}{why}: valid "
            f"{report.best.metric} {report.best.value:.4f}; {duration(report.seconds)}"
        )

    def _estimate(self, report: FinetuneStep) -> None:
        self._told = True
        # the first step may have compiled kernels
        timed = list(self._recent)[1:] or list(self._recent)
        whole = sum(r.seconds for r in timed) / sum(r.share for r in timed)
        left = whole * (report.share_left + self.seeds - 1)
        seeds = f"{self.seeds} seeds" if self.seeds > 1 else "one seed"
        self._say(
            f"{self.prefix}at most {duration(left)} for {report.steps:,} steps and {seeds}, by the "
            "first steps (evaluation not counted; less where it stops early)"
        )

    def _name(self, seed: int) -> str:
        return f"{self.prefix}seed {seed}  " if self.seeds > 1 or seed else self.prefix

    def _say(self, text: str) -> None:
        self.console.print(text + " " * 8 * self.console.is_terminal)


def _length(report: FinetuneStep | FinetuneEvaluation) -> str:
    """The length of a stage of length warm-up, for a line; nothing at full length."""
    return "" if report.length is None else f"length {report.length:,}  "


class FeatureBar:
    """A bar for the features of a frozen model: comes with the first call, goes with the last."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._open = ExitStack()
        self._show: Callable[[int, int], None] | None = None

    def __call__(self, done: int, total: int) -> None:
        """How many sequences have their features, and of how many."""
        if self._show is None:
            bar = progress_bar(self.console, "features of the frozen model")
            self._show = self._open.enter_context(bar)
        self._show(done, total)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Take the bar away."""
        self._open.close()
        self._show = None
