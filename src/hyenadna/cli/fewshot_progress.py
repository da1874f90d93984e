"""What a user sees of a few-shot run: now and then where it is, and a line for each cell."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from rich.console import Console

from hyenadna.cli.units import duration

if TYPE_CHECKING:
    from hyenadna.cli.fewshot_cells import Cell, CellResult
    from hyenadna.train.instruct import InstructStep

_QUIET_INTERVAL: Final = 15.0
"""Seconds between lines where the output is no terminal."""


class FewshotLines:
    """One line that is rewritten on a terminal, and now and then a new line elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._work = self._done = 0.0
        self._start = self._last = time.monotonic()
        self._moves = 0

    def begin(self, work: float) -> None:
        """The clock starts; work: tokens that will be read in all, about."""
        self._work, self._done = work, 0.0
        self._start = self._last = time.monotonic()

    def asked(self, cell: Cell, control: str, number: int, draws: int, work: float) -> None:
        """A draw of a control is done, which took so much work."""
        self._moved(f"{cell.title}: {control}, draw {number + 1} of {draws}", work)

    def tuning(self, cell: Cell, report: InstructStep, work: float) -> None:
        """A step of tuning is done."""
        text = f"{cell.title}: step {report.step:,}/{report.steps:,}, loss {report.loss:.4f}"
        self._moved(text, work)

    def cell(self, result: CellResult, valid: float) -> None:
        """A cell is done."""
        seconds = duration(float(result.notes["seconds"]))
        self._say(f"{result.cell.title}: valid accuracy {valid:.3f}; {seconds}")

    def _moved(self, text: str, work: float) -> None:
        now = time.monotonic()
        self._moves += 1
        if self._moves == 1:  # it may have compiled kernels: nothing is known yet
            self._work, self._start = self._work - work, now
            return
        self._done += work
        spent = now - self._start
        left = duration(spent * max(0.0, self._work / self._done - 1))
        if self._moves == 2:
            self._say(f"about {left} for all cells, by the first answers")
        interval = 0.2 if self.console.is_terminal else _QUIET_INTERVAL
        if now - self._last < interval:
            return
        self._last = now
        text = f"{text}; about {left} left"
        if self.console.is_terminal:
            self.console.print(text + " " * 8, end="\r", soft_wrap=False, no_wrap=True, crop=True)
        else:
            self._say(text)

    def _say(self, text: str) -> None:
        self.console.print(text + " " * 12 * self.console.is_terminal)
