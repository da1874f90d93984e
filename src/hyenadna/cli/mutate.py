"""`hyenadna mutate`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import Parameter
from rich.console import Console

from hyenadna import __version__
from hyenadna.cli.console import make_console
from hyenadna.cli.memory import explain_memory, fit_batch, limit_memory
from hyenadna.cli.process import announce_native, announce_slow_bf16, choose_device
from hyenadna.cli.progress import progress_bar
from hyenadna.cli.run_options import RunOptions, record_run
from hyenadna.cli.units import bases, duration, size
from hyenadna.errors import InputError

if TYPE_CHECKING:
    from hyenadna.cli.mutate_job import Job, Stretches, Survey
    from hyenadna.data.stretches import Stretch
    from hyenadna.infer.rows_file import RowsFile

PICTURES: Final = (".png", ".svg", ".pdf")
_ESTIMATE_SECONDS: Final = 2.0


def mutate(
    model: str,
    source: Path | None = None,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    after: str | None = None,
    context: int | None = None,
    strands: Literal["forward", "reverse", "average"] | None = None,
    output: str | None = None,
    region: str | None = None,
    genome: Path | None = None,
    window: int | None = None,
    sequence: str | None = None,
    id: str | None = None,
    picture: Path | None = None,
    logo: Path | None = None,
    resume: bool = False,
    on: RunOptions = RunOptions(),  # noqa: B008
) -> None:
    """Score every substitution of every base: which ones a model finds unlikely.

    A row for each base that does not stand there, at each position: id, position (from 0), ref,
    alt and score, the change of the log-likelihood, in nats, of the base and those that follow it,
    given all before; score_allele is that of the base alone. Below 0: less likely than the
    reference. With a fine-tuned model the score is the change of the log odds of a class or label,
    or of a value, and output what the model says. Positions that are not A, C, G or T have rows
    without scores.

    Intervals of a genome are read with what stands around them. Their positions, ref and alt are
    those of the contig, on its forward strand.

    Parameters
    ----------
    model
        Run folder, checkpoint folder or model name; or a folder with a fine-tuned model.
    source
        FASTA, CSV, TSV, Parquet, or BED with `--genome`.
    out
        New file: `.csv`, `.tsv` or `.parquet`.
    after
        Bases behind a substitution whose likelihood counts, or `all`; 128 when left out, less in a
        model that reads less than 512.
    context
        Bases that are read before a position, at least; 4,096 of a genome, and all that the model
        can read of a sequence, when left out.
    strands
        Read the sequence as it is, its reverse complement, or both for the mean, which is what is
        done when left out. A fine-tuned model reads them as it was trained.
    output
        Class, label or value of a fine-tuned model whose change is the score; the second of two
        classes, or the only output, when left out.
    region
        Bases of the genome, such as `chr1:101-200` (first and last, from 1), instead of a file.
    genome
        FASTA to cut intervals from.
    window
        Bases around the middle of each interval; the interval itself when left out.
    sequence
        Column of the sequences; the usual names when left out.
    id
        Column of the names; the usual ones when left out.
    picture
        Heat map of the first sequence, `.png`, `.svg` or `.pdf`.
    logo
        Letters of the first sequence, as high as their substitutions hurt; `.png`, `.svg`, `.pdf`.
    resume
        Go on with an interrupted run of the same command.
    """
    begun = time.monotonic()
    on.prepare()
    from hyenadna.checkpoint.task import is_task
    from hyenadna.cli.mutate_job import survey
    from hyenadna.data.stretches import open_stretches
    from hyenadna.genome.contig_names import renamed_text
    from hyenadna.genome.fasta import Genome
    from hyenadna.infer.interrupted import stored_settings
    from hyenadna.infer.rows_file import require_free

    console = make_console()
    require_free(out, what="scores", resume=resume)
    for path in (picture, logo):
        _require_picture(path)
    behind = _behind(after)
    if context is not None and context < 0:
        raise InputError(f"--context is {context}; it must be at least 0")
    reader = Genome.open(genome) if genome is not None else None
    renamed: dict[str, str] = {}
    stretches = open_stretches(
        source, region, reader, sequence=sequence, id=id, window=window, renamed=renamed
    )
    job: Job
    if output is not None or is_task(model):
        _refuse_for_tasks(after=after, context=context, strands=strands)
        job = _task_job(model, output, reader is not None, on, console)
    else:
        job = _likelihood_job(
            model, behind, context, strands or "average", reader is not None, on, console
        )
    name = str(source or region)
    with console.status(f"reading {name} …"):
        found = survey(job, stretches, name)
    if renamed:
        console.print(f"note: {renamed_text(renamed)}")
    # a resumed run must keep its passes, whatever memory there is now
    stored = stored_settings(out) if resume else {}
    job.row_tokens, need = fit_batch(
        job.network,
        found.window,
        int(stored.get("row_tokens") or job.row_tokens),
        precision=on.dtype(),
    )
    settings = {
        "hyenadna": __version__,
        "model": model,
        "bases": found.digest,
        **job.settings(),
        "precision": on.precision,
        "row_tokens": job.row_tokens,
    }
    target = _open_target(out, job, settings, resume, console)
    console.print(_work(found, need))
    with explain_memory("go on with --resume and a (smaller) --max-memory"):
        substitutions, seconds = _run(target, job, stretches, found, name, console)
    rate = substitutions / max(seconds, 1e-9)
    console.print(
        f"{substitutions:,} substitutions in {duration(seconds)}, {rate:,.0f} a second: {out}"
    )
    record_run(
        out,
        verb="mutate",
        model=model,
        network=job.network,
        options=on,
        begun=begun,
        inputs={
            key: str(value)
            for key, value in {"sequences": source, "region": region, "genome": genome}.items()
            if value is not None
        },
        settings=settings,
        figures={
            "sequences": found.stretches,
            "positions": found.positions,
            "substitutions": found.substitutions,
            "positions_without_a_base": found.unknown,
            "tokens_read": found.tokens,
            "substitutions_per_second": rate,
        },
        caveats=job.caveats,
    )
    _draw(out, settings, picture, logo, console)


def _require_picture(path: Path | None) -> None:
    if path is not None and path.suffix not in PICTURES:
        raise InputError(
            f"{path}: pictures are written as {', '.join(PICTURES)}; give a name that ends so"
        )
    if path is not None and path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    if path is not None and not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; make it first")


def _behind(after: str | None) -> int | Literal["all"] | None:
    """What `--after` says. Raises InputError for anything but a number of bases and `all`."""
    if after is None:
        return None
    if after == "all":
        return "all"
    try:
        count = int(after)
    except ValueError:
        raise InputError(f"--after is {after!r}; give a number of bases or all") from None
    if count < 0:
        raise InputError(f"--after is {count}; it must be at least 0")
    return count


def _refuse_for_tasks(**given: object) -> None:
    for name, value in given.items():
        if value is not None:
            raise InputError(
                f"--{name} is for likelihoods; a fine-tuned model reads the whole sequence, on the "
                "strands that it was trained on - leave it out"
            )


def _likelihood_job(
    model: str,
    after: int | Literal["all"] | None,
    context: int | None,
    strands: Literal["forward", "reverse", "average"],
    flanks: bool,
    on: RunOptions,
    console: Console,
) -> Job:
    """flanks: whether there is a genome around what is scored."""
    from hyenadna.cli.mutate_job import FLANK, LikelihoodJob
    from hyenadna.infer.mutate import AFTER, most_positions

    network = on.load(model, console)
    longest = network.config.max_seq_len
    if after == "all" and flanks:
        raise InputError("--after all would be to the end of the contig; give a number of bases")
    behind = min(AFTER, longest // 4) if after is None else after
    if context is None and flanks:
        assert isinstance(behind, int)
        context = min(FLANK, max(1, longest - behind - most_positions(longest)))
    return LikelihoodJob(
        network,
        after=None if behind == "all" else behind,
        context=context,
        strands=strands,
        genome=flanks,
        precision=on.dtype(),
    )


def _task_job(
    model: str, output: str | None, genome: bool, on: RunOptions, console: Console
) -> Job:
    from hyenadna.checkpoint.task import load_task
    from hyenadna.cli.mutate_job import TaskJob

    task_model = load_task(model, device=choose_device(on.device))
    announce_native(console, task_model.model.config)
    announce_slow_bf16(console, on.precision, task_model.device)
    limit_memory(task_model.model, on.max_memory)
    return TaskJob(task_model, output, genome=genome, precision=on.dtype())


def _open_target(
    out: Path, job: Job, settings: dict[str, Any], resume: bool, console: Console
) -> RowsFile:
    from hyenadna.infer.rows_file import RowsFile

    if not resume:
        return RowsFile.start(out, job.columns, settings)
    file, note = RowsFile.resume(out, job.columns, settings)
    if note:
        console.print(f"note: {note}")
    return file


def _work(found: Survey, need: int | None) -> str:
    """What there is to do, in a line or two."""
    several = found.stretches > 1
    text = (
        f"{found.stretches:,} sequence{'s' * several}, {bases(found.positions)}"
        f"{f', the longest {found.longest:,}' * several}: {found.substitutions:,} substitutions, "
        f"{bases(found.tokens)} to read for them"
        + (f", about {size(need)} of memory" if need is not None else "")
    )
    if found.unknown:
        text += (
            f"\nnote: {found.unknown:,} positions are not A, C, G or T; they have no scores"
            if found.unknown > 1
            else "\nnote: 1 position is not A, C, G or T; it has no scores"
        )
    return text


def _run(
    target: RowsFile,
    job: Job,
    stretches: Stretches,
    found: Survey,
    name: str,
    console: Console,
) -> tuple[int, float]:
    """Score all parts that are left and finish the file: substitutions and seconds."""
    before = target.inputs_done
    if before:
        console.print(f"resuming after part {before:,} of {found.parts:,}")
    begun, rows = time.monotonic(), 0
    try:
        with progress_bar(console, f"mutating {name}") as show:
            work = _Work(found.tokens, show, console)
            for number, (stretch, first, last) in enumerate(_parts(job, stretches)):
                if number < before:
                    work.skip(job.tokens(stretch, first, last))
                    continue
                scored = list(job.rows(stretch, first, last, work.done))
                target.append(scored, 1)
                rows += sum(row[-2] != "" for row in scored)
    except KeyboardInterrupt:
        console.print(
            f"stopped after part {target.inputs_done:,} of {found.parts:,}; go on with --resume"
        )
        raise
    target.finish()
    return rows, time.monotonic() - begun


def _parts(job: Job, stretches: Stretches) -> Iterator[tuple[Stretch, int, int]]:
    for stretch in stretches():
        for first, last in job.parts(stretch):
            yield stretch, first, last


class _Work:
    """Tokens that have been read, shown as a bar, and once as the time that all will take."""

    def __init__(self, total: int, show: Callable[[int, int], None], console: Console) -> None:
        self.total, self.show, self.console = total, show, console
        self.skipped = self.read = 0
        self.told = False
        self.begun = time.monotonic()

    def skip(self, tokens: int) -> None:
        """They were read in an earlier run."""
        self.skipped += tokens

    def done(self, tokens: int) -> None:
        """So many more have been read."""
        self.read += tokens
        self.show(self.skipped + self.read, self.total)
        seconds = time.monotonic() - self.begun
        if not self.told and seconds > _ESTIMATE_SECONDS:
            self.told = True
            left = seconds / self.read * (self.total - self.skipped)
            self.console.print(f"about {duration(left)} by the first {bases(self.read)}")


def _draw(
    out: Path, settings: dict[str, Any], picture: Path | None, logo: Path | None, console: Console
) -> None:
    """The pictures of the first sequence that were asked for."""
    if picture is None and logo is None:
        return
    from hyenadna.report.mutate_map import MOST_POSITIONS, first_maps
    from hyenadna.report.mutate_plots import heat_map, importance_logo, score_unit
    from hyenadna.report.plots import save_figure

    found = first_maps(out, count=1)[0]
    for path, draw in ((picture, heat_map), (logo, importance_logo)):
        if path is not None:
            save_figure(draw(found, score_unit(settings)), path)
            console.print(f"{found.title}: {path}")
    if found.cut:
        console.print(f"note: the pictures show its first {MOST_POSITIONS:,} positions")
