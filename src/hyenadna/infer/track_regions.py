"""The bases that tracks are made of: whole contigs, BED rows, intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hyenadna.errors import InputError
from hyenadna.genome.contig_names import matched_names
from hyenadna.genome.fasta import GenomeReader
from hyenadna.genome.intervals import Interval, merge, read_bed, require_within, unknown_contig


def read_regions(
    genome: GenomeReader,
    *,
    bed: Path | None = None,
    regions: Sequence[str] = (),
    contigs: Sequence[str] = (),
) -> tuple[tuple[Interval, ...], list[str]]:
    """Regions in the order of the genome, which neither overlap nor touch; and notes on them.

    bed: a BED file, the rows of which are joined where they overlap. regions: as `chr1:1-100`.
    contigs: names. All contigs where nothing is given. A contig that the genome has under its other
    name (`1` and `chr1`) is taken for that, with a note; a row of no bases is passed over.

    Raises InputError, for a BED with its line, for an unknown contig and an interval that runs past
    the end of its contig; and where no base is left.
    """
    found: list[Interval] = []
    notes: list[str] = []
    for contig in contigs:
        name = _named(Interval(contig, 0, 0), genome, [], notes).contig
        if name not in genome.contigs:
            raise InputError(unknown_contig(contig, genome.contigs, str(genome.path)))
        found.append(Interval(name, 0, genome.contigs[name]))
    found += [read_region(text, genome, notes) for text in regions]
    if bed is not None:
        found += _bed_regions(genome, bed, notes)
    if bed is None and not regions and not contigs:
        found = [Interval(contig, 0, length) for contig, length in genome.contigs.items()]
    rank = {contig: i for i, contig in enumerate(genome.contigs)}
    chosen = tuple(sorted(merge(found), key=lambda i: (rank[i.contig], i.start)))
    if not chosen:
        raise InputError(f"{bed or genome.path}: no base to make a track of")
    return chosen, list(dict.fromkeys(notes))


def read_region(text: str, genome: GenomeReader, notes: list[str]) -> Interval:
    """The interval of `chr1:1-100`, by the name that the genome has for its contig.

    notes: a line is added where that is another name. Errors as for `read_regions`.
    """
    interval = _named(Interval.parse(text), genome, [], notes)
    require_within(interval, genome.contigs, genome=str(genome.path))
    return interval


def _bed_regions(genome: GenomeReader, bed: Path, notes: list[str]) -> list[Interval]:
    rows = read_bed(bed)
    if not rows:
        raise InputError(f"{bed}: holds no rows")
    own = list(dict.fromkeys(row.interval.contig for row in rows))
    renamed: list[str] = []
    found = []
    for row in rows:
        interval = _named(row.interval, genome, own, renamed)
        require_within(interval, genome.contigs, genome=str(genome.path), where=f"{bed}:{row.line}")
        found.append(interval)
    notes += [f"{bed}: {note}" for note in dict.fromkeys(renamed)]
    empty = sum(not interval.length for interval in found)
    if empty:
        notes.append(f"{bed}: {empty:,} rows of no bases are passed over")
    kept = [interval for interval in found if interval.length]
    joined = len(kept) - len(merge(kept))
    if joined:
        notes.append(f"{bed}: {joined:,} rows overlap or touch others and are joined with them")
    return kept


def _named(
    interval: Interval, genome: GenomeReader, own: Sequence[str], notes: list[str]
) -> Interval:
    """The interval by the name that the genome has for its contig; own: names of its file."""
    name = matched_names({*own, interval.contig}, genome.contigs).get(interval.contig)
    if name is None or name == interval.contig:
        return interval
    notes.append(f"contig {interval.contig} is taken for {name} of {genome.path}")
    return Interval(name, interval.start, interval.stop)
