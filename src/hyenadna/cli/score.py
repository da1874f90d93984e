"""`hyenadna score`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import Parameter
from rich.console import Console

from hyenadna import __version__
from hyenadna.cli.console import make_console
from hyenadna.cli.memory import explain_memory, peak_text
from hyenadna.cli.progress import progress_bar
from hyenadna.cli.run_options import RunOptions, make_record
from hyenadna.cli.spread import USUAL as SPREAD
from hyenadna.cli.spread import Spread, SpreadOptions, begin
from hyenadna.cli.units import counted, duration
from hyenadna.errors import InputError

if TYPE_CHECKING:
    from hyenadna.genome.fasta import Genome
    from hyenadna.genome.variant_file import Header, VariantFile
    from hyenadna.genome.variants import Record
    from hyenadna.infer.rows_file import RowsFile
    from hyenadna.infer.score import Score, Scorer, Windows
    from hyenadna.infer.score_file import Ranking
    from hyenadna.infer.score_survey import Survey

_FIRST_CHUNK: Final = 128
"""Records after which the time of all is estimated."""
_CHUNK: Final = 256
"""Records of all others. What is read again where chunks of neighbours meet costs 5 % at one
variant in 30 bases, and less where they are fewer; shards are cut there."""
_CHUNK_LETTERS: Final = 1 << 24
"""Letters of records, with which a chunk ends before: records of many samples are long."""
_USUAL: Final = RunOptions()


def score(
    model: str,
    variants: Path,
    /,
    *,
    genome: Path,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    region: list[str] | None = None,
    strands: Literal["average", "forward", "reverse"] = "average",
    length: int | None = None,
    context: int | None = None,
    after: int | None = None,
    background: int = 0,
    seed: int = 0,
    method: Literal["shared", "whole"] = "shared",
    resume: bool = False,
    spread: SpreadOptions = SPREAD,
    on: RunOptions = _USUAL,
) -> None:
    """Score the variants of a VCF: how likely a model finds each allele beside REF.

    Each ALT is compared with REF on both strands: the log-likelihood of the allele and of the bases
    behind it, given the bases before. Every record comes out again as it was, with `HDNA_` fields
    in INFO, or as rows of a table; what cannot be scored has a note that says why.

    Parameters
    ----------
    model
        Run folder, checkpoint folder or model name.
    variants
        VCF (plain, gzip or bgzip) or BCF. Contigs may be named with or without `chr`.
    genome
        FASTA of the assembly that the variants are on: plain, gzip or bgzip.
    out
        New file: `.vcf.gz` (bgzip, with an index), `.vcf`, `.bcf`, `.parquet`, `.tsv` or `.csv`.
    region
        Only records that overlap, such as `chr22:17,000,000-18,000,000` or `chr22`; may be
        repeated, or separated by blanks. Needs a bgzipped VCF or a BCF with its index.
    strands
        Read both strands and take the average, or one alone.
    length
        Bases of a window; the longest that the model reads less 2, at most 8,192, when left out.
    context
        Bases before a variant, at least; half a window when left out.
    after
        Bases behind the allele that count; 128, at most a quarter of a window, when left out.
    background
        Random variants of the genome for each class (snv, insertion, …) and length (1, 2, 3, 4-5,
        6-9, 10-19, 20-49, 50+) that occur: scores then also have a percentile among them. 1000 is a
        good number.
    seed
        For the random variants.
    method
        `shared` reads the genome once for neighbouring variants; `whole` passes each haplotype
        through the model by itself, much slower, to the same values up to rounding.
    resume
        Go on with an interrupted run of the same command; one with other settings is refused.
    """
    run = begin("score", dict(locals()))
    if run is None:
        return
    on.prepare()
    from hyenadna.checkpoint.task import is_task
    from hyenadna.genome.fasta import Genome
    from hyenadna.genome.variant_file import VariantFile
    from hyenadna.infer.score import Scorer, plan_windows
    from hyenadna.infer.score_file import is_variants, require_free
    from hyenadna.infer.score_survey import survey as read_all
    from hyenadna.model.digest import weights_digest

    console = make_console()
    require_free(out, resume=resume, shard=run.shard)
    if is_task(model):
        raise InputError(
            f"{model}: is a fine-tuned model, whose likelihoods were not trained along; score with "
            "the model it came from"
        )
    if background < 0:
        raise InputError(f"--background is {background}; give the number of random variants, or 0")
    regions = [each for text in region or [] for each in text.split()]
    if region and not regions:
        raise InputError("--region is empty; give contig or contig:first-last, or leave it out")
    file = VariantFile.open(variants, regions=regions)
    reader = Genome.open(genome)
    network = on.load(model, console)
    windows = plan_windows(network.config, length=length, context=context, after=after)
    for warning in file.warnings:
        console.print(f"note: {warning}")
    with console.status(f"reading {variants} …") as status:

        def told(records: int) -> None:
            status.update(f"reading {variants}: {records:,} records …")

        found = read_all(file, reader, seed=seed, bcf=out.suffix == ".bcf", progress=told)
    _announce(console, file, found, windows)
    with console.status(f"reading {genome} …"):
        genome_digest = reader.digest()
    settings = {
        "hyenadna": __version__,
        "model": model,
        "weights": weights_digest(network),
        "genome": genome_digest,
        "variants": found.digest,
        "regions": [str(each) for each in file.regions],
        "strands": strands,
        "length": windows.length,
        "context": windows.context,
        "after": windows.after,
        "method": method,
        "background": background,
        "seed": seed,
        "precision": on.precision,
    }
    scorer = Scorer(
        network, reader, windows=windows, strands=strands, method=method, precision=on.dtype()
    )
    header = _header(file, found, reader.contigs, windows, background)
    chunks = _chunks(file, range(found.records), samples=is_variants(out))
    cut = run.cut(found.records, ((len(each), len(each)) for each in chunks), "records", console)
    target = _open_target(run, header, settings, background > 0, console)
    begun, before = time.monotonic(), target.inputs_done
    with explain_memory("go on with --resume and a shorter --length"):
        try:
            ranked = _background(target, scorer, reader, found, run, console)
            scoring = time.monotonic()
            _run(target, scorer, file, reader, ranked, cut.items, run, console)
        except KeyboardInterrupt:
            console.print(
                f"stopped after {target.inputs_done:,} of "
                f"{counted(len(cut.items), 'record')}; go on with --resume"
            )
            raise
    seconds, left = time.monotonic() - scoring, len(cut.items) - before
    if run.shard is None:
        _finish(target, reader.contigs, console)
        figures = _figures(out, found, left, seconds, ranked)
    else:
        figures = {"records_of_this_run": left, "scoring_seconds": seconds}
    record = make_record(
        verb="score",
        model=model,
        network=network,
        machine=on.machine(network),
        begun=begun,
        inputs=_inputs(file, found, reader, genome_digest),
        settings=settings,
        figures=figures,
        caveats=_caveats(on, background),
    )
    if run.shard is not None:
        console.print(f"{counted(left, 'record')} in {duration(seconds)}: {run.place}")
    run.end(target, cut, record, console)
    if run.shard is None:
        _conclude(console, run, found, figures, before)


def _announce(console: Console, file: VariantFile, found: Survey, windows: Windows) -> None:
    """What the file holds, and what does not fit."""
    from hyenadna.genome.contig_names import renamed_text

    if not found.records:
        where = " in these regions" if file.regions else ""
        console.print(f"note: {file.path} holds no records{where}; neither does the output")
        return
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.kinds.most_common())
    console.print(
        f"{counted(found.records, 'record')} with {counted(found.alts, 'alternative allele')}; "
        f"{counted(found.alleles, 'fits', 'fit')} the genome{f' ({kinds})' if kinds else ''}"
    )
    if found.renamed:
        console.print(f"note: {renamed_text(found.renamed)}")
    if found.unknown:
        shown = ", ".join(found.unknown[:3]) + (", …" if len(found.unknown) > 3 else "")
        many = counted(len(found.unknown), "contig is", "contigs are")
        console.print(f"note: {many} not in the genome: {shown}")
    if found.notes:
        shown = ", ".join(f"{count:,} {note.value}" for note, count in found.notes.most_common())
        console.print(f"note: without a score, with a note instead: {shown}")
    console.print(
        f"windows of up to {windows.length:,} bases, at least {windows.context:,} of them before a "
        f"variant where the contig has them; {windows.after} behind count"
    )


def _header(
    file: VariantFile,
    found: Survey,
    contigs: Mapping[str, int],
    windows: Windows,
    background: int,
) -> Header:
    """Of the output: that of the input, our fields, and contigs that it does not declare."""
    from hyenadna.genome.contig_names import ContigNames
    from hyenadna.genome.variant_file import contig_lines, tag_lines
    from hyenadna.infer.score_file import info_lines

    names = ContigNames(contigs)
    lengths: dict[str, int | None] = {}
    for name in found.contigs:
        there = names[name]
        lengths[name] = None if there is None else contigs[there]
    if not found.contigs and not file.header.declared("contig"):
        lengths = dict(contigs)
    added = info_lines(after=windows.after, background=background)
    declared = [*contig_lines(file.header, lengths), *tag_lines(file.header, found.tags)]
    return file.header.with_lines([*declared, *added])


def _open_target(
    run: Spread, header: Header, settings: dict[str, Any], background: bool, console: Console
) -> RowsFile:
    from hyenadna.infer.score_file import open_rows

    target, note = open_rows(
        run.out,
        header,
        settings,
        background=background,
        resume=run.arguments["resume"],
        shard=run.shard,
    )
    run.told(note, console)
    return target


def _background(
    target: RowsFile,
    scorer: Scorer,
    genome: Genome,
    found: Survey,
    run: Spread,
    console: Console,
) -> Ranking | None:
    """Scores of random variants; those of the interrupted run where there are some.

    A shard scores its share of them, and leaves the ranks to the merge.
    """
    import numpy as np

    from hyenadna.infer.score_background import Background, random_alleles, shapes_to_draw
    from hyenadna.infer.score_shards import UnknownBackground, kept_of_shard, pieces

    count, seed = run.arguments["background"], run.arguments["seed"]
    if not count:
        return None
    kept = target.kept()
    if isinstance(kept, dict):
        return UnknownBackground() if run.shard else Background(kept)
    shapes = shapes_to_draw(found.shapes, scorer.windows)
    drawn = random_alleles(genome, shapes, count, np.random.default_rng(seed)) if shapes else {}
    cut = pieces(drawn)
    own = range(len(cut)) if run.shard is None else run.shard.units(range(1, len(cut) + 1))
    begun = time.monotonic()
    scores: dict[tuple[str, int], Score] = {}
    with progress_bar(console, f"scoring {count:,} random variants of each kind") as show:
        for done, piece in enumerate(cut[own.start : own.stop], start=1):
            found_scores = scorer.scores([drawn[group][i] for group, i in piece])
            scores.update(zip(piece, found_scores, strict=True))
            show(done, len(own))
    if scores:
        console.print(
            f"background of {count:,} random variants for each class and length "
            f"({', '.join(drawn)}){f', {len(scores):,} in this shard' if run.shard else ''} "
            f"in {duration(time.monotonic() - begun)}"
        )
    if run.shard is not None:
        target.keep(kept_of_shard([(group, score) for (group, _), score in scores.items()]))
        return UnknownBackground()
    ranked = Background.of({group: [scores[group, i] for i in range(count)] for group in drawn})
    target.keep(ranked.to_dict())
    return ranked


def _run(
    target: RowsFile,
    scorer: Scorer,
    file: VariantFile,
    genome: Genome,
    ranked: Ranking | None,
    records: range,
    spread: Spread,
    console: Console,
) -> None:
    """Score all of these records that are left."""
    from hyenadna.genome.variants import AlleleReader
    from hyenadna.infer.score_file import VcfRows, table_rows, vcf_row

    reader, before = AlleleReader(genome), target.inputs_done
    if before and not spread.merging:
        console.print(f"resuming after record {records.start + before:,}")
    begun, total = time.monotonic(), len(records)
    with progress_bar(console, f"scoring {file.path.name}") as show:
        for chunk in _chunks(file, records[before:], samples=isinstance(target, VcfRows)):
            done = target.inputs_done
            alleles = [reader.alleles(record) for record in chunk]
            flat = [allele for own in alleles for allele in own]

            def moved(part: int, whole: int, done: int = done, size: int = len(chunk)) -> None:
                show(done + size * part // whole, total)

            scores = iter(scorer.scores(flat, progress=moved))
            rows = []
            for record, own in zip(chunk, alleles, strict=True):
                mine = list(islice(scores, len(own)))
                if isinstance(target, VcfRows):
                    rows.append(vcf_row(record, own, mine, ranked))
                else:
                    rows += table_rows(record, own, mine, ranked)
            target.append(rows, len(chunk))
            if done == before and target.inputs_done < total:
                each = (time.monotonic() - begun) / len(chunk)
                seconds = each * (total - target.inputs_done)
                console.print(
                    f"about {duration(seconds)} by the first {counted(len(chunk), 'record')}"
                )
            show(target.inputs_done, total)


def _chunks(file: VariantFile, wanted: range, *, samples: bool) -> Iterator[list[Record]]:
    """These records, always cut at the same places.

    wanted: their numbers in the file, which begin where a chunk does. samples: with FORMAT and
    samples, which tables do not hold.
    """
    most = _CHUNK if wanted.start else _FIRST_CHUNK
    chunk: list[Record] = []
    letters = 0
    for record in islice(file.records(), wanted.start, wanted.stop):
        kept = record if samples else record._replace(rest="")
        chunk.append(kept)
        letters += sum(map(len, kept.columns)) + len(kept.rest)
        if len(chunk) >= most or letters >= _CHUNK_LETTERS:
            yield chunk
            most, chunk, letters = _CHUNK, [], 0
    if chunk:
        yield chunk


def _finish(target: RowsFile, contigs: Mapping[str, int], console: Console) -> None:
    from hyenadna.infer.score_file import VcfRows

    if isinstance(target, VcfRows):
        target.long_contigs = max(contigs.values(), default=0) >= 1 << 29
    target.finish()
    for note in target.notes if isinstance(target, VcfRows) else []:
        console.print(f"note: {note}")


def _inputs(file: VariantFile, found: Survey, genome: Genome, digest: str) -> dict[str, Any]:
    return {
        "variants": {
            "path": str(file.path),
            "packing": file.packing,
            "records": found.records,
            "alternative_alleles": found.alts,
            "digest": found.digest,
            "contigs_renamed": dict(list(found.renamed.items())[:20]),
            "contigs_unknown": found.unknown[:20],
        },
        "genome": {"path": str(genome.path), "bases": genome.bases, "digest": digest},
    }


def _figures(
    out: Path, found: Survey, records: int, seconds: float, ranked: Ranking | None
) -> dict[str, Any]:
    """Numbers of the run, from the finished file."""
    from hyenadna.infer.score_background import Background
    from hyenadna.infer.score_reading import summarise

    summary = summarise(out)
    share = records / max(found.records, 1)
    return {
        "records": found.records,
        "alternative_alleles": found.alts,
        "scored": summary.scored,
        "notes": dict(summary.notes.most_common()),
        "classes": dict(summary.kinds.most_common()),
        "records_of_this_run": records,
        "scoring_seconds": seconds,
        "variants_per_second": summary.scored * share / max(seconds, 1e-9),
        "quantiles": summary.quantiles(),
        **({"background": ranked.quantiles()} if isinstance(ranked, Background) else {}),
    }


def _caveats(on: RunOptions, background: int) -> Sequence[str]:
    told = [
        "These are zero-shot likelihoods: the model has seen no variant labelled harmful or "
        "harmless. On ClinVar, others report an AUROC of 0.503 for likelihoods of HyenaDNA, which "
        "is chance (GENERator, Li et al. 2025); they are no evidence about disease.",
        "To tell variants apart, learn from labels: `hyenadna finetune` on sequence windows with "
        "both alleles (`--sequence`, `--pair`), or a classifier on `hyenadna embed`.",
    ]
    if not background:
        told.append(
            "Raw differences mean little by themselves: they depend on the class and the length of "
            "the variant. Give --background 1000 for percentiles among variants drawn at random."
        )
    else:
        told.append(
            "The background is random variants at uniform places, with uniform letters; real "
            "variants are not uniform (transitions, CpG), so a percentile is no p-value."
        )
    if on.precision != "float32":
        told.append("In bf16 scores are rounded to about a hundredth of a nat.")
    return told


def _conclude(
    console: Console, run: Spread, found: Survey, figures: Mapping[str, Any], before: int
) -> None:
    left = found.records - before
    if not run.merging:
        console.print(
            f"{counted(left, 'record')}, {counted(figures['scored'], 'allele')} scored in all, in "
            f"{duration(figures['scoring_seconds'])}, {figures['variants_per_second']:.1f} a second"
            f"{peak_text()}: {run.out}"
        )
    quantiles = figures["quantiles"].get("llr")
    if quantiles:
        console.print(
            f"LLR: half of the alleles from {quantiles['0.25']:.3f} to {quantiles['0.75']:.3f} "
            f"nats, 1 % below {quantiles['0.01']:.3f}"
        )
