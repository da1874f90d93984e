"""The one way to print: plain text as it is, no markup in paths, no wrapped lines."""

from __future__ import annotations

from typing import IO

from rich.console import Console
from rich.table import Table

from hyenadna.cli.ranks import rank_text

_PIPED_COLUMNS = 120  # rich takes 80 where there is no terminal, which cuts figures off


def make_console(*, stderr: bool = False, file: IO[str] | None = None) -> Console:
    """A console that prints text unchanged: brackets and colons in names are not markup."""
    # of the ranks that torchrun has started one speaks for all; each tells its own errors
    quiet = not stderr and file is None and bool(rank_text())
    console = Console(
        stderr=stderr, file=file, markup=False, emoji=False, highlight=False, soft_wrap=True,
        quiet=quiet,
    )  # fmt: skip
    if not console.is_terminal:
        console.width = max(console.width, _PIPED_COLUMNS)
    return console


def make_table(title: str, *columns: str) -> Table:
    """A table whose first column is text and whose other columns are numbers."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    return table
