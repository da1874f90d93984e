"""`hyenadna embed`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console

from hyenadna import __version__
from hyenadna.cli.console import make_console
from hyenadna.cli.embed_source import OpenSource, SourceChoice, open_source
from hyenadna.cli.finetune_options import Outside
from hyenadna.cli.memory import (
    explain_memory,
    fit_batch,
    limit_memory,
    note_no_effect,
    peak_memory,
    peak_text,
)
from hyenadna.cli.pretrain import comma_list
from hyenadna.cli.process import (
    announce_native,
    announce_slow_bf16,
    available_memory,
    choose_device,
)
from hyenadna.cli.progress import progress_bar
from hyenadna.cli.prompt_option import load_maybe_prompted, soft_prompt_settings
from hyenadna.cli.run_options import RunOptions, make_record
from hyenadna.cli.spread import USUAL, Cut, Spread, SpreadOptions, begin
from hyenadna.cli.units import bases, counted, duration, size

if TYPE_CHECKING:
    from hyenadna.data.records import Record, Survey
    from hyenadna.infer.embed import Mark
    from hyenadna.infer.embeddings_file import EmbeddingsFile
    from hyenadna.infer.reading import Reading
    from hyenadna.model.backbone import HyenaDNA
    from hyenadna.model.prompting.prompted import PromptedModel

_ONE_STRAND = (
    "The model reads each sequence from left to right, on the strand that is given: its reverse "
    "complement has other embeddings, and the first bases of a window are read with little context."
)
_MANY_CHUNKS = 50  # a sequence of more chunks is rather a contig to be tiled


def embed(
    model: str,
    source: Path,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    per: Literal["sequence", "bin", "base"] | None = None,
    pool: Literal["mean", "last"] = "mean",
    layer: int = -1,
    length: int | None = None,
    overlap: int | None = None,
    bin: int | None = None,
    contigs: str = "",
    sequence: str | None = None,
    id: str | None = None,
    genome: Path | None = None,
    window: int | None = None,
    outside: Outside = "refuse",
    feature: str = "",
    dtype: Literal["float32", "float16"] = "float32",
    prompt_file: Path | None = None,
    resume: bool = False,
    spread: SpreadOptions = USUAL,
    on: RunOptions = RunOptions(),  # noqa: B008 - frozen
) -> None:
    """Turn sequences or a genome into embeddings: hidden states of a layer, pooled.

    A row for each sequence, in the order of the input; with `--bin N` for each N bases of a genome,
    with `--per base` for each base. A base sees the bases before it. N counts like any base,
    padding never does. Sequences longer than the model are read in overlapping windows; a base
    counts once, in the window where it has the most bases before it.

    Parameters
    ----------
    model
        Run folder, checkpoint folder or model name.
    source
        FASTA; CSV, TSV or Parquet; BED, GFF or GTF with `--genome`. Other columns go along.
    out
        New file: `.npz`, `.parquet`, `.h5ad` (AnnData) or `.zarr` (AnnData).
    per
        What a row is of; `bin` where `--bin` is given, and else `sequence`.
    pool
        Mean over the bases, or the state of the last base of a sequence.
    layer
        0: embedded tokens, k: after block k, -1: after the final norm.
    length
        Bases of a window; the longest that the model reads, less 2 (and less the tokens of a soft
        prompt), when left out. Cut down to a multiple of `--bin`.
    overlap
        Bases of a window that the one before has read too; half of it, and 0 for bins, when left
        out.
    bin
        Bases of a row; the whole window when left out.
    contigs
        Records of a FASTA to read, separated by commas; all when left out.
    sequence
        Column of the sequences; the usual names when left out.
    id
        Column of the names; the usual ones when left out.
    genome
        FASTA to cut intervals or features from.
    window
        Bases around the middle of each interval; the interval itself when left out.
    outside
        What to do with a window past the end of a contig.
    feature
        Types of features of a GFF or GTF, separated by commas, such as `gene`; those on - are
        reverse-complemented.
    dtype
        Type of the numbers in the file.
    prompt_file
        Soft prompt of `hyenadna prompt-tune` for this model: every window is read behind its
        vectors, which leave it less room.
    resume
        Go on with an interrupted run of the same command; one with other settings is refused.
    """
    run = begin("embed", dict(locals()))
    if run is None:
        return
    on.prepare()
    from hyenadna.data.batches import BATCH_TOKENS
    from hyenadna.infer.embeddings_file import require_free
    from hyenadna.infer.interrupted import stored_tokens
    from hyenadna.infer.reading import make_reading
    from hyenadna.model.backbone import require_layer
    from hyenadna.model.digest import weights_digest

    console, begun = make_console(), time.monotonic()
    per = per or ("sequence" if bin is None else "bin")
    require_free(out, resume=resume, shard=run.shard)
    choice = SourceChoice(
        path=str(source),
        contigs=contigs,
        sequence=sequence,
        id=id,
        genome=None if genome is None else str(genome),
        window=window,
        outside=outside,
        feature=feature,
    )
    opened = open_source(choice, tiled=per == "bin")
    network, prompted = _load(model, prompt_file, on, console)
    require_layer(network.config, layer)
    reading = make_reading(
        network.config,
        per=per,
        pool=pool,
        length=length,
        overlap=overlap,
        bin=bin,
        soft_tokens=0 if prompted is None else len(prompted.prompt),
    )
    survey = _survey(opened, reading, source, contigs, console)
    longest = min(reading.length, survey.longest)
    # a resumed run must keep its batches, whatever memory there is now
    batch_tokens, need = fit_batch(
        network,
        longest,
        stored_tokens(run.place, BATCH_TOKENS) if resume else BATCH_TOKENS,
        precision=on.dtype(),
        most=survey.tokens,
        pass_memory=None if prompted is None else partial(prompted.pass_memory, answer=False),
    )
    note_no_effect(console, on.max_memory, engine=need is not None)
    settings = {
        "hyenadna": __version__,
        "model": model,
        "weights": weights_digest(network),
        **soft_prompt_settings(prompted),
        "sequences": survey.digest,
        "contigs": contigs,
        "per": per,
        "pool": pool,
        "layer": layer,
        "length": reading.length,
        "overlap": reading.overlap,
        "bin": reading.bin,
        "dtype": dtype,
        "precision": on.precision,
        "batch_tokens": batch_tokens,
    }
    part = _part(run, opened, survey, reading, network, batch_tokens, console)
    file = _open_file(run, opened, survey, reading, network, dtype, settings, part, console)
    if need is None:
        need = _plain_memory(network, prompted, longest, batch_tokens, survey)
    if prompted is not None:  # on a line of its own, the next one is long
        console.print(f"each window behind {len(prompted.prompt):,} soft tokens of {prompt_file}")
    caveats = _announce(console, opened, survey, reading, file, need, on, network)
    work = _Work(file, prompted or network, opened, survey, reading, layer, batch_tokens, part)
    with explain_memory(
        "go on with --resume and a (smaller) --max-memory, or start over with a shorter --length"
    ):
        figures, notes = _run(work, run, on, console)
    record = make_record(
        verb="embed",
        model=model,
        network=network,
        machine=on.machine(network),
        begun=begun,
        inputs={
            "source": choice.stored(),
            opened.kind: survey.sequences,
            "bases": survey.bases,
            "longest": survey.longest,
            "digest": survey.digest,
            **({"soft_prompt": str(prompt_file)} if prompt_file else {}),
        },
        settings=settings,
        figures=figures,
        caveats=[_ONE_STRAND, *caveats, *notes],
    )
    run.end(file, part.cut, record, console)


@dataclass(frozen=True)
class _Survey:
    """What there is to read, and what will be of it."""

    sequences: int
    bases: int
    longest: int
    digest: str
    chunks: int
    tokens: int
    rows: int


@dataclass(frozen=True)
class _Part:
    """What of the input this run reads: all of it, or a shard."""

    cut: Cut
    """In stretches."""
    first: Mark
    last: Mark


@dataclass(frozen=True)
class _Work:
    """All that a run needs."""

    file: EmbeddingsFile
    model: HyenaDNA | PromptedModel
    source: OpenSource
    survey: _Survey
    reading: Reading
    layer: int
    batch_tokens: int
    part: _Part

    @property
    def ended(self) -> bool:
        """Whether all that this run reads is done."""
        first, last = self.part.first, self.part.last
        done = first.sequences + self.file.sequences_done
        return (done, self.file.chunks_done) == (last.sequences, last.within)


def _load(
    model: str, prompt_file: Path | None, on: RunOptions, console: Console
) -> tuple[HyenaDNA, PromptedModel | None]:
    where = choose_device(on.device)
    network, prompted = load_maybe_prompted(model, prompt_file, where)
    announce_native(console, network.config)
    announce_slow_bf16(console, on.precision, where)
    limit_memory(network, on.max_memory)
    return network.eval(), prompted


def _survey(
    opened: OpenSource, reading: Reading, path: Path, contigs: str, console: Console
) -> _Survey:
    """Read the whole input once: a bad row is told before the first window."""
    from hyenadna.data.records import survey_records
    from hyenadna.errors import InputError
    from hyenadna.genome.contig_names import renamed_text

    chunks = tokens = rows = 0
    chosen = comma_list(contigs) or None

    def count(length: int) -> None:
        nonlocal chunks, tokens, rows
        chunks += reading.count(length)
        tokens += reading.tokens(length)
        rows += reading.rows(length)

    for note in opened.notes:
        console.print(f"note: {note}")
    if opened.tiled is not None:
        if chosen is None:
            with progress_bar(console, f"reading {opened.tiled.name}") as show:
                for warning in opened.tiled.check(progress=show).warnings:
                    console.print(f"note: {warning}")
        found = _survey_contigs(opened, chosen, count)
    else:
        with console.status(f"reading {path} …"):
            found = survey_records(opened.records, count)
    if not found.sequences:
        raise InputError(f"{path}: holds no {opened.kind} to embed")
    if opened.renamed:
        console.print(f"note: {renamed_text(opened.renamed)}")
    return _Survey(found.sequences, found.bases, found.longest, found.digest, chunks, tokens, rows)


def _survey_contigs(opened: OpenSource, chosen: Sequence[str] | None, count: Any) -> Survey:
    """The same of a genome: of the chosen contigs alone, or of one that has been looked at."""
    from hyenadna.data.records import Survey

    assert opened.tiled is not None
    lengths = []
    for record in opened.records:
        lengths.append(record.length)
        count(record.length)
    return Survey(len(lengths), sum(lengths), max(lengths), opened.tiled.digest(chosen))


def _part(
    run: Spread,
    opened: OpenSource,
    survey: _Survey,
    reading: Reading,
    network: HyenaDNA,
    batch_tokens: int,
    console: Console,
) -> _Part:
    from hyenadna.infer.embed import Mark, marks

    whole = Mark(survey.sequences, 0, survey.tokens, survey.rows)
    found = [Mark()]
    if run.shard is not None:
        width = network.config.d_model
        found += marks(opened.records, reading, batch_tokens, width)
    work = ((1, after.tokens - before.tokens) for before, after in pairwise(found))
    cut = run.cut(0, work, "bases to read", console)
    if run.shard is None:
        return _Part(cut, Mark(), whole)
    first, last = found[cut.units.start], found[cut.units.stop]
    return _Part(replace(cut, results=last.rows - first.rows), first, last)


def _open_file(
    run: Spread,
    opened: OpenSource,
    survey: _Survey,
    reading: Reading,
    network: HyenaDNA,
    dtype: Literal["float32", "float16"],
    settings: dict[str, Any],
    part: _Part,
    console: Console,
) -> EmbeddingsFile:
    from hyenadna.infer.embeddings_file import EmbeddingsFile
    from hyenadna.infer.embeddings_spill import RowLayout

    places: tuple[str, ...] = ()
    if reading.bin is not None:
        places = ("position",) if settings["per"] == "base" else opened.places
    layout = RowLayout(
        rows=survey.rows,
        width=network.config.d_model,
        dtype=dtype,
        id=opened.id,
        columns=_renamed(opened.records.columns, {opened.id, *places}),
        bin=reading.bin,
        places=places,
    )
    within = part.first.within
    if not run.arguments["resume"]:
        return EmbeddingsFile.start(run.out, layout, settings, run.shard, within)
    file, note = EmbeddingsFile.resume(run.out, layout, settings, run.shard, within)
    run.told(note, console)
    return file


def _renamed(columns: tuple[str, ...], ours: set[str]) -> tuple[str, ...]:
    """The columns of the input; one that is called as one of ours is `input_…`."""
    found: list[str] = []
    for name in columns:
        while name in ours or name in found:
            name = f"input_{name}"
        found.append(name)
    return tuple(found)


def _plain_memory(
    network: HyenaDNA,
    prompted: PromptedModel | None,
    longest: int,
    batch_tokens: int,
    survey: _Survey,
) -> int:
    """Estimated bytes of the process in a pass of the plain modules."""
    from hyenadna.model.memory import inference_bytes

    tokens = max(longest, min(batch_tokens, survey.tokens))
    if prompted is not None:  # the vectors stand in front of every row
        tokens += -(-tokens // longest) * len(prompted.prompt)
    return (peak_memory() or 0) + inference_bytes(network.config, tokens=tokens, engine=False)


def _announce(
    console: Console,
    opened: OpenSource,
    survey: _Survey,
    reading: Reading,
    file: EmbeddingsFile,
    need: int,
    on: RunOptions,
    network: HyenaDNA,
) -> list[str]:
    """Say what will be read and written; returns what the record should say of it."""
    import shutil

    from hyenadna.model.engine.sizes import resident_bytes

    rows_bytes = file.layout.row_bytes * survey.rows
    console.print(
        f"{counted(survey.sequences, opened.kind[:-1])}, {bases(survey.bases)}, the longest "
        f"{survey.longest:,}; {counted(survey.chunks, 'window')} of up to {reading.length:,} "
        f"bases; {counted(survey.rows, 'row')} of {file.layout.width} ({size(rows_bytes)}) for "
        f"{file.path}; about {size(need)} of memory"
    )
    free = available_memory()
    on_cpu = network.head_weight.device.type == "cpu"
    if on_cpu and free is not None and need - resident_bytes() > free:
        console.print(f"note: only {size(free)} are free; give --max-memory or a shorter --length")
    room = shutil.disk_usage(file.path.absolute().parent).free
    if 2 * rows_bytes > room:
        console.print(
            f"note: rows and file take {size(2 * rows_bytes)} of disk until the end, and "
            f"{size(room)} are free; --dtype float16 takes half"
        )
    caveats = _chunk_caveats(survey, reading)
    for caveat in caveats:
        console.print(f"note: {caveat}")
    if reading.bin is None and survey.longest > _MANY_CHUNKS * reading.length:
        console.print(
            f"note: a row for each of {counted(survey.sequences, opened.kind[:-1])}, the longest "
            f"of {bases(survey.longest)}; for rows along them give --bin"
        )
    return caveats


def _chunk_caveats(survey: _Survey, reading: Reading) -> list[str]:
    """How sequences that are longer than the model were read, in a sentence."""
    if survey.longest <= reading.length:
        return []
    if reading.pool == "last":
        return [
            f"of sequences longer than {reading.length:,} bases the last {reading.length:,} are "
            "read"
        ]
    if reading.overlap:
        return [
            f"sequences longer than {reading.length:,} bases are read in windows of that length "
            f"that overlap by {reading.overlap:,}; each base counts once, in the window where it "
            f"has the most bases before it, at least {reading.overlap:,} or all there are"
        ]
    return [
        f"windows of {reading.length:,} bases stand side by side: the first bases of each have "
        "little before them (--overlap)"
    ]


def _run(
    work: _Work, spread: Spread, on: RunOptions, console: Console
) -> tuple[dict[str, Any], list[str]]:
    """Embed all that is left, finish the file, and say what it took; figures and notes."""
    from hyenadna.infer.embed import embed as run

    file, survey, part = work.file, work.survey, work.part
    tokens, most = part.last.tokens - part.first.tokens, part.last.rows - part.first.rows
    before = _tokens_done(work)
    if file.rows_done and not spread.merging:
        console.print(f"resuming after {file.sequences_done:,} {work.source.kind}, {bases(before)}")
    begun, done, rows, batches = time.monotonic(), before, file.rows_done, 0
    since = begun
    with progress_bar(console, "embedding") as show:

        def progress(read: int) -> None:
            nonlocal done, batches, since
            done += read
            batches += 1
            show(done, tokens)
            now = time.monotonic()
            if batches == 2 and done < tokens:  # the first has computed the filters as well
                left = (tokens - done) / read * (now - since)
                console.print(f"about {duration(left)} left, by {bases(read)}")
            since = now

        stretches = run(
            work.model,
            _left(work),
            work.reading,
            layer=work.layer,
            within=file.chunks_done,
            batch_tokens=work.batch_tokens,
            precision=on.dtype(),
            progress=progress,
        )
        try:
            while not work.ended:
                stretch = next(stretches)
                file.append(stretch.embeddings, stretch.ended, stretch.within)
        except KeyboardInterrupt:
            console.print(f"stopped after {file.rows_done:,} of {most:,} rows; go on with --resume")
            raise
    notes = file.finish() if spread.shard is None else []
    seconds = time.monotonic() - begun
    rows = most - rows
    if not spread.merging:
        console.print(
            f"{counted(rows, 'row')} in {duration(seconds)}, "
            f"{bases((done - before) / max(seconds, 1e-9))} a second"
            f"{peak_text()}: {spread.place}"
        )
    for note in notes:
        console.print(f"note: {note}")
    figures = {
        "rows": survey.rows,
        "width": file.layout.width,
        "windows": survey.chunks,
        "tokens_read": survey.tokens,
        "rows_a_second": rows / max(seconds, 1e-9),
        "bases_a_second": (done - before) / max(seconds, 1e-9),
    }
    return figures, notes


def _left(work: _Work) -> Iterator[Record]:
    """The sequences that are not done, the one in work first."""
    done = work.part.first.sequences + work.file.sequences_done
    return islice(iter(work.source.records), done, None)


def _tokens_done(work: _Work) -> int:
    """Tokens of this part that were read before an interruption."""
    file, reading, before = work.file, work.reading, work.part.first
    if not file.rows_done:
        return 0
    done = -before.tokens
    for number, record in enumerate(work.source.records):
        if number == before.sequences + file.sequences_done:
            first = islice(reading.chunks(record.length), file.chunks_done)
            return done + sum(chunk.stop - chunk.start for chunk in first)
        done += reading.tokens(record.length)
    return done
