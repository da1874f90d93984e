"""`hyenadna track`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console

from hyenadna import __version__
from hyenadna.cli.console import make_console, make_table
from hyenadna.cli.memory import explain_memory, fit_batch, note_no_effect
from hyenadna.cli.pretrain import Repeated, comma_list
from hyenadna.cli.progress import progress_bar
from hyenadna.cli.run_options import RunOptions, make_record
from hyenadna.cli.spread import USUAL, Spread, SpreadOptions, begin
from hyenadna.cli.track_browser import BrowserJob
from hyenadna.cli.units import bases, duration, size
from hyenadna.errors import InputError

if TYPE_CHECKING:
    import torch

    from hyenadna.genome.fasta import Genome
    from hyenadna.infer.track import Value
    from hyenadna.infer.track_features import BaseKinds
    from hyenadna.infer.track_files import Track
    from hyenadna.infer.track_spill import TrackSpill
    from hyenadna.infer.track_windows import TrackPlan, TrackWindow
    from hyenadna.model.backbone import HyenaDNA

_CAVEATS = (
    "Surprisal is that of this model. It is low where the model has learned, or remembers, what "
    "comes: in tandem repeats and in sequence that it has met often, before all. Low surprisal "
    "alone is no sign of function, and high surprisal none of its absence.",
    "A base of the forward strand is predicted from what lies to its left, one of the reverse "
    "strand from what lies to its right: from at least as many bases as --context says, and from "
    "fewer at the ends of a contig.",
    "Lower-case (soft-masked) bases count as upper-case ones do. At an N there is no surprisal.",
)


@dataclass(frozen=True)
class _Job:
    """What is computed and written."""

    out: Path
    reader: Genome
    plan: TrackPlan
    values: tuple[Value, ...]
    tracks: list[Track]
    paths: list[Path]
    bin: int
    kinds: BaseKinds
    browser: BrowserJob | None


def track(
    model: str,
    genome: Path,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    bed: Path | None = None,
    region: Annotated[tuple[str, ...], Repeated] = (),
    contigs: str = "",
    values: str = "surprisal",
    strands: Literal["average", "forward", "reverse", "each"] = "average",
    length: int | None = None,
    context: int | None = None,
    bin: int = 1,
    annotation: Annotated[tuple[Path, ...], Repeated] = (),
    browser: Path | None = None,
    browser_region: str | None = None,
    resume: bool = False,
    spread: SpreadOptions = USUAL,
    on: RunOptions = RunOptions(),  # noqa: B008 - frozen
) -> None:
    """Write tracks for a genome browser: how surprised a model is at every base.

    Every base is predicted from those before it on its strand, on both strands, and the mean is
    written. Windows overlap, so that each base has at least `--context` bases before it.

    Parameters
    ----------
    model
        Run folder, checkpoint folder or model name.
    genome
        FASTA, plain, gzip or bgzip.
    out
        New file: bigWig (`.bw`), bedGraph (`.bedgraph`, `.bedgraph.gz`) or a table (`.parquet`,
        `.tsv`). Several tracks: a table holds all; of the others each is a file whose name begins
        as this one (`x.bw`: `x.surprisal.forward.bw`).
    bed
        Regions, as BED; the whole genome when left out. What lies around them is context.
    region
        Region such as `chr1:1-100000` (from 1); may be given again.
    contigs
        Contigs to read, separated by commas.
    values
        Of `surprisal`, `entropy` (of the predicted A C G T) and `probabilities` (of A, C, G and T:
        four tracks), separated by commas.
    strands
        `average` of both; `forward` (context to the left) or `reverse` (to the right) alone; or
        `each`, in tracks of their own.
    length
        Bases of a window; the longest that the model reads, less 2, when left out.
    context
        Least number of bases before a base (windows overlap by it); half a window when left out.
    bin
        Bases of a value: means over so many, for an overview.
    annotation
        GFF, GTF or BED file: means over its features are told, and the browser page shows it; may
        be given again.
    browser
        New file, `.html`: a genome browser with these tracks that needs no network.
    browser_region
        What it shows, such as `chr1:1-20000`, up to 200,000 bases; the first bases that have a
        value when left out.
    resume
        Go on with an interrupted run of the same command; one with other settings is refused.
    """
    run = begin("track", dict(locals()))
    if run is None:
        return
    on.prepare()
    from hyenadna.infer.track_windows import stretches

    begun = time.monotonic()
    console = make_console()
    job = _prepare(
        run,
        genome,
        values=_chosen_values(values),
        strands=strands,
        bin=bin,
        console=console,
        places={"bed": bed, "regions": region, "contigs": comma_list(contigs)},
        annotation=annotation,
        page=(browser, browser_region),
        model=model,
    )
    network = on.load(model, console)
    job = _with_windows(job, network, length, context)
    settings, batch_tokens = _settings(job, run, model, network, on, console)
    units = (
        (len(stretch), sum(each.length for each in stretch))
        for stretch in stretches(job.plan.windows(), batch_tokens)
    )
    cut = run.cut(job.plan.count, units, "bases to read", console)
    spill = _open_spill(job, run, settings, console)
    _announce(console, job, spill)
    with explain_memory(
        "go on with --resume and a (smaller) --max-memory, or start over with a shorter --length"
    ):
        _compute(spill, network, job, cut.items, run, batch_tokens, on.dtype(), console)
    figures = _finish(spill, job, console) if run.shard is None else {}
    seconds = time.monotonic() - begun
    record = make_record(
        verb="track",
        model=model,
        network=network,
        machine=on.machine(network),
        begun=begun,
        inputs={
            "genome": str(genome.absolute()),
            "contigs": len({region.contig for region in job.plan.regions}),
            "regions": len(job.plan.regions),
            "bed": str(bed.absolute()) if bed else None,
            "annotation": [str(file.absolute()) for file in annotation],
        },
        settings=settings,
        figures={
            "bases": job.plan.bases,
            "files": {
                track.name: path.name
                for track, path in zip(job.tracks, _path_of_each(job), strict=True)
            },
            "bases_per_second": job.plan.bases / max(seconds, 1e-9),
            **figures,
        },
        caveats=_CAVEATS,
    )
    run.end(spill, cut, record, console)


def _chosen_values(text: str) -> tuple[Value, ...]:
    from hyenadna.infer.track import CHANNELS

    chosen = comma_list(text)
    for value in chosen:
        if value not in CHANNELS:
            raise InputError(f"--values has {value!r}; it takes {', '.join(CHANNELS)}")
    if not chosen:
        raise InputError(f"--values names nothing; it takes {', '.join(CHANNELS)}")
    return tuple(value for value in CHANNELS if value in chosen)


def _prepare(
    run: Spread,
    genome: Path,
    *,
    values: tuple[Value, ...],
    strands: Literal["average", "forward", "reverse", "each"],
    bin: int,
    console: Console,
    places: dict[str, Any],
    annotation: Sequence[Path],
    page: tuple[Path | None, str | None],
    model: str,
) -> _Job:
    """Everything that can be wrong before the model is loaded."""
    from hyenadna.genome.fasta import Genome
    from hyenadna.infer.track_features import read_kinds
    from hyenadna.infer.track_files import (
        chosen_tracks,
        require_fit,
        require_free,
        strands_read,
        track_paths,
    )
    from hyenadna.infer.track_regions import read_regions
    from hyenadna.infer.track_windows import TrackPlan

    out, tracks = run.out, chosen_tracks(values, strands)
    paths = track_paths(out, tracks)
    require_free(out, paths, resume=run.arguments["resume"], shard=run.shard)
    if bin < 1:
        raise InputError(f"--bin is {bin}; it must be at least 1 base")
    reader = Genome.open(genome)
    require_fit(out, reader.contigs)
    regions, notes = read_regions(reader, **places)
    kinds, more = read_kinds(annotation, reader)
    browser = BrowserJob.prepare(page, reader, regions, annotation, model)
    for note in [*notes, *more]:
        console.print(f"note: {note}")
    plan = TrackPlan(reader.contigs, regions, 1, 0, strands_read(strands))
    return _Job(out, reader, plan, values, tracks, paths, bin, kinds, browser)


def _with_windows(job: _Job, network: HyenaDNA, length: int | None, context: int | None) -> _Job:
    from dataclasses import replace

    from hyenadna.infer.evaluate import require_window

    length, context = require_window(network, length, context)
    return replace(job, plan=replace(job.plan, length=length, context=context))


def _settings(
    job: _Job, run: Spread, model: str, network: HyenaDNA, on: RunOptions, console: Console
) -> tuple[dict[str, Any], int]:
    """All that the values depend on, and the tokens of a pass."""
    from hyenadna.data.batches import BATCH_TOKENS
    from hyenadna.infer.interrupted import stored_tokens
    from hyenadna.model.digest import weights_digest

    plan = job.plan
    # a resumed run must keep its batches, whatever memory there is now
    batch_tokens, need = fit_batch(
        network,
        plan.longest,
        stored_tokens(run.place, BATCH_TOKENS) if run.arguments["resume"] else BATCH_TOKENS,
        precision=on.dtype(),
        most=max(plan.tokens, 1),
    )
    note_no_effect(console, on.max_memory, engine=need is not None)
    with console.status(f"reading {job.reader.name} …"):
        digest = job.reader.digest({region.contig for region in plan.regions})
    settings = {
        "hyenadna": __version__,
        "model": model,
        "weights": weights_digest(network),
        "genome": digest,
        "regions": _regions_digest(plan),
        "values": list(job.values),
        "strands": list(dict.fromkeys(track.strand for track in job.tracks)),
        "length": plan.length,
        "context": plan.context,
        "bin": job.bin,
        "precision": on.precision,
        "batch_tokens": batch_tokens,
    }
    return settings, batch_tokens


def _regions_digest(plan: TrackPlan) -> str:
    import hashlib

    text = "\n".join(f"{region.contig}\t{region.start}\t{region.stop}" for region in plan.regions)
    return hashlib.sha256(text.encode()).hexdigest()


def _open_spill(job: _Job, run: Spread, settings: dict[str, Any], console: Console) -> TrackSpill:
    from hyenadna.infer.track import channels
    from hyenadna.infer.track_spill import TrackSpill

    names = channels(job.values)
    if not run.arguments["resume"]:
        return TrackSpill.start(job.out, job.plan, names, settings, run.shard)
    spill, note = TrackSpill.resume(job.out, job.plan, names, settings, run.shard)
    run.told(note, console)
    return spill


def _announce(console: Console, job: _Job, spill: TrackSpill) -> None:
    plan = job.plan
    console.print(
        f"{bases(plan.bases)} in {len(plan.regions):,} region{'s' * (len(plan.regions) != 1)}, "
        f"{' and '.join(plan.strands)}: {plan.count:,} windows of up to {plan.longest:,} bases, "
        f"{bases(plan.tokens)} to read; each base behind at least {plan.context:,}"
    )
    named = list(dict.fromkeys(str(path) for path in job.paths))
    console.print(
        f"{len(job.tracks)} track{'s' * (len(job.tracks) != 1)}: {', '.join(named)}; "
        f"{size(spill.size)} beside until it is done"
    )
    free = shutil.disk_usage(job.out.absolute().parent).free
    written = spill.size + 5 * plan.bases * len(job.tracks) // job.bin
    if written > free:
        console.print(
            f"note: only {size(free)} are free on the disk, and about {size(written)} are needed"
        )


def _compute(
    spill: TrackSpill,
    network: HyenaDNA,
    job: _Job,
    wanted: range,
    spread: Spread,
    batch_tokens: int,
    precision: torch.dtype | None,
    console: Console,
) -> None:
    """Values of all windows that are left."""
    from hyenadna.infer.track import track as run

    before, strands = spill.windows_done, len(job.plan.strands)
    left = wanted[before:]
    skipped, total = (
        _bases(job.plan, range(wanted.start, end)) for end in (left.start, wanted.stop)
    )
    if before and not spread.merging:
        console.print(f"resuming behind {bases(min(skipped, total) / strands)}")
    done, begun = skipped, time.monotonic()
    warm: tuple[float, int] | None = None  # the first pass makes the filters
    told = False
    try:
        with progress_bar(console, f"tracking {job.reader.name}") as show:
            for windows in _left(job.plan, left, batch_tokens):
                for batch in run(
                    network,
                    job.reader,
                    windows,
                    values=job.values,
                    batch_tokens=batch_tokens,
                    precision=precision,
                ):
                    spill.append(batch)
                    done = min(done + sum(each.values.shape[1] for each in batch.tracked), total)
                    now = time.monotonic()
                    if warm is None:
                        warm = (now, done)
                    elif not told and now - warm[0] > 2 and warm[1] < done < total:
                        seconds = (total - done) / (done - warm[1]) * (now - warm[0])
                        sample = bases((done - warm[1]) / strands)
                        console.print(f"about {duration(seconds)} left, by a sample of {sample}")
                        told = True
                    show(done // strands, total // strands)
    except KeyboardInterrupt:
        console.print(
            f"stopped at {bases(done / strands)} of {bases(total / strands)}; go on with --resume"
        )
        raise
    seconds = time.monotonic() - begun
    if left:
        rate = (done - skipped) / strands / max(seconds, 1e-9)
        console.print(
            f"{bases((done - skipped) / strands)} in {duration(seconds)}, "
            f"{bases(rate)} a second on {' and '.join(job.plan.strands)}"
        )


def _bases(plan: TrackPlan, wanted: range) -> int:
    """Bases that these windows give values to."""
    return sum(each.last - each.first for each in islice(plan.windows(), wanted.start, wanted.stop))


def _left(plan: TrackPlan, wanted: range, batch_tokens: int) -> Iterator[list[TrackWindow]]:
    """The windows of these numbers, in the stretches of the whole run."""
    from hyenadna.infer.track_windows import stretches

    at = 0
    for stretch in stretches(plan.windows(), batch_tokens):
        first, last = max(wanted.start - at, 0), min(wanted.stop - at, len(stretch))
        if first < last:
            yield stretch[first:last]
        at += len(stretch)
        if at >= wanted.stop:
            return


def _finish(spill: TrackSpill, job: _Job, console: Console) -> dict[str, Any]:
    """Write the files and the page; returns the figures of the tracks, which are also printed."""
    from hyenadna.infer.track_files import write_tracks
    from hyenadna.infer.track_summary import summarise

    with console.status("summing up …"):
        figures = summarise(spill, job.tracks, job.reader, job.kinds)
    page = job.browser.values(spill, job.tracks) if job.browser else None
    with progress_bar(console, "writing") as show:
        paths = write_tracks(spill, job.tracks, job.out, bin=job.bin, progress=show)
    _show(console, figures)
    for path in paths:
        console.print(f"{path}: {size(path.stat().st_size)}")
    if job.browser and page:
        job.browser.write(page, job.plan)
        console.print(f"{job.browser.path}: a genome browser with {job.browser.region}")
    return figures


def _show(console: Console, figures: dict[str, Any]) -> None:
    table = make_table("per base", "track", "bases", "mean", "5 % below", "median", "95 % below")
    for row in figures["tracks"]:
        table.add_row(
            row["track"], f"{row['bases']:,}",
            *(_number(row[key]) for key in ("mean", "5% below", "50% below", "95% below")),
        )  # fmt: skip
    console.print(table)
    kinds = [row for row in figures["kinds"] if row["bases"]]
    if len(kinds) > 1:
        table = make_table(f"{figures['tracks'][0]['track']} by kind of base", "", "bases", "mean")
        for row in kinds:
            table.add_row(row["kind"], f"{row['bases']:,}", _number(row["mean"]))
        console.print(table)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _path_of_each(job: _Job) -> list[Path]:
    return job.paths if len(job.paths) == len(job.tracks) else job.paths * len(job.tracks)
