"""`hyenadna report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hyenadna.cli.console import make_console
from hyenadna.cli.pretrain import Repeated
from hyenadna.errors import InputError


def report(
    output: Path,
    /,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    browser_region: str | None = None,
    annotation: Annotated[tuple[Path, ...], Repeated] = (),
) -> None:
    """Show what a run was and what came out, on one page: pictures, figures, caveats.

    For the outputs of `embed`, `score`, `mutate` and `track`. One HTML file that needs nothing else
    and no network. `finetune`, `prompt-tune` and `fewshot` write their pages themselves.

    Parameters
    ----------
    output
        What the run wrote; its record, `OUTPUT.run.json`, must stand beside it.
    out
        The page; `OUTPUT.html` when left out, with `--browser-region` `OUTPUT.browser.html`. An
        earlier page is replaced.
    browser_region
        Instead of the report a genome browser with the tracks of `track`, as `track --browser`
        writes one: over this region, such as `chr1:1-20000`, up to 200,000 bases.
    annotation
        GFF, GTF or BED file that the browser shows; may be given again.
    """
    from hyenadna.infer.run_record import read_record

    own = output / "report.html"
    if own.is_file():
        raise InputError(f"{output}: this run has written its page already: {own}")
    if annotation and browser_region is None:
        raise InputError("--annotation is for the browser page; give --browser-region as well")
    ending = ".html" if browser_region is None else ".browser.html"
    path = output.with_name(output.name + ending) if out is None else out
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{path}: a page is HTML; give a name that ends in .html")
    record = read_record(output)
    console = make_console()
    with console.status(f"reading {output} …"):
        if browser_region is None:
            from hyenadna.report.run_page import write_run_page

            write_run_page(output, record, path)
        else:
            from hyenadna.report.track_browser import write_stored_browser

            write_stored_browser(path, output, record, browser_region, annotation)
    console.print(f"{'report' if browser_region is None else 'browser'}: {path}")
