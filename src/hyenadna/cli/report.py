"""`hyenadna report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hyenadna.cli.console import make_console
from hyenadna.errors import InputError


def report(
    output: Path,
    /,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
) -> None:
    """Show what a run was and what came out, on one page: pictures, figures, caveats.

    For the outputs of `embed`, `score`, `mutate` and `track`. One HTML file that needs nothing else
    and no network. `finetune`, `prompt-tune` and `fewshot` write their pages themselves.

    Parameters
    ----------
    output
        What the run wrote; its record, `OUTPUT.run.json`, must stand beside it.
    out
        The page; `OUTPUT.html` when left out. An earlier page is replaced.
    """
    from hyenadna.infer.run_record import read_record
    from hyenadna.report.run_page import write_run_page

    own = output / "report.html"
    if own.is_file():
        raise InputError(f"{output}: this run has written its page already: {own}")
    path = output.with_name(output.name + ".html") if out is None else out
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{path}: a report is HTML; give a name that ends in .html")
    record = read_record(output)
    console = make_console()
    with console.status(f"reading {output} …"):
        write_run_page(output, record, path)
    console.print(f"report: {path}")
