"""What a user sees while something runs."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

from hyenadna.cli.units import duration

if TYPE_CHECKING:
    from hyenadna.train.loop import StepReport
    from hyenadna.train.pretrain import EvaluationReport

_QUIET_INTERVAL = 15.0
"""Seconds between lines where the output is no terminal."""


class TrainingLine:
    """One line that is rewritten on a terminal, and now and then a new line elsewhere."""

    def __init__(self, console: Console, steps: int, tokens_left: Callable[[int], int]) -> None:
        """`tokens_left(step)`: tokens of all steps after `step`."""
        self.console, self.steps, self.tokens_left = console, steps, tokens_left
        self.recent: deque[StepReport] = deque(maxlen=50)
        self.last_print = 0.0

    def show(self, report: StepReport) -> None:
        """Update the line."""
        self.recent.append(report)
        now = time.monotonic()
        interval = 0.2 if self.console.is_terminal else _QUIET_INTERVAL
        if now - self.last_print < interval and report.step != self.steps:
            return
        self.last_print = now
        seconds = sum(r.seconds for r in self.recent)
        tokens = sum(r.batch_size * r.length for r in self.recent)
        rate = tokens / max(seconds, 1e-9)
        counted = [r for r in self.recent if not r.skipped] or [report]
        loss = sum(r.loss for r in counted) / len(counted)
        bits = sum(r.bits_per_base for r in counted) / len(counted)
        left = self.tokens_left(report.step) / rate
        text = (
            f"step {report.step:,}/{self.steps:,}  length {report.length:,}  loss {loss:.4f}  "
            f"{bits:.4f} bits/base  {rate / 1000:.1f}k tokens/s  {duration(left)} left"
        )
        if self.console.is_terminal:
            self.console.print(text + " " * 4, end="\r", soft_wrap=False, no_wrap=True, crop=True)
        else:
            self.say(text)

    def show_evaluation(self, report: EvaluationReport) -> None:
        """Print a line, and for several genomes one with each."""
        best = "  (best so far)" if report.best else ""
        self.say(f"step {report.step:,}  valid {report.bits_per_base:.4f} bits/base{best}")
        if len(report.by_genome) > 1:
            self.say("    " + "  ".join(f"{n} {b:.4f}" for n, b in report.by_genome.items()))

    def say(self, text: str) -> None:
        """Print a lasting line."""
        self.console.print(text + " " * 8 * self.console.is_terminal)


@contextmanager
def progress_bar(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A function (done, total) that moves a bar with the time left; the bar goes at the end."""
    columns = ("{task.description}", BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(escape(what), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], int | None]]:
    """A function that tells which of SIGINT and SIGTERM has come, if any; a second SIGINT stops at
    once."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        # not through a console: a handler may run in the middle of its printing
        os.write(2, b"\nstopping after this step, saving (again to stop at once)\n")
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
