"""Stretches of bases that are worked on, and all that stands around them: sequences, intervals.

A sequence of a file is its own text. An interval of a genome lies in its contig, so that what is
read of it does not end where it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hyenadna.alphabet import Ids
from hyenadna.data.sequences import SequenceFile, require_column
from hyenadna.errors import InputError
from hyenadna.genome.contig_names import known_name
from hyenadna.genome.fasta import GenomeReader
from hyenadna.genome.intervals import Interval, require_within


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """The bases start .. stop - 1 of a text."""

    place: str
    """`file:line`, for messages."""
    id: str
    contig: str | None
    """Name of the text on its genome; None for a sequence by itself."""
    start: int
    stop: int
    length: int
    """Bases of the text."""
    reverse: bool
    """Whether it is about the other strand of its text."""
    text: Callable[[int, int], Ids]
    """Token ids of bases of the text, from 0, half open."""


def sequence_stretches(file: SequenceFile) -> Iterator[Stretch]:
    """Each sequence of a file, whole. Raises InputError as iterating over the file does."""
    for row in file:
        yield Stretch(
            place=row.place,
            id=row.id,
            contig=None,
            start=0,
            stop=len(row.ids),
            length=len(row.ids),
            reverse=False,
            text=partial(_slice, row.ids),
        )


def interval_stretches(file: SequenceFile) -> Iterator[Stretch]:
    """Each interval of a file, on its contig of `file.genome`.

    Raises InputError, naming file and line, for a row that is no interval, one without bases, an
    unknown contig, and one that leaves its contig.
    """
    assert file.genome is not None
    for place, id, cut in file.cuts():
        interval = Interval(cut.interval.contig, max(0, cut.start), max(0, cut.stop))
        if cut.start < 0:
            raise InputError(
                f"{place}: the window {cut.start}..{cut.stop} (from 0) leaves {interval.contig}; "
                "take the row out, or make --window smaller"
            )
        yield _on_genome(file.genome, interval, place, id, cut.reverse)


def region_stretch(genome: GenomeReader, region: str, renamed: dict[str, str]) -> Stretch:
    """The stretch `chr1:101-200` (first and last base, from 1).

    renamed: collects a contig that the genome calls otherwise.

    Raises InputError for other text, an unknown contig, and one that leaves its contig.
    """
    try:
        given = Interval.parse(region)
    except InputError as error:
        raise InputError(f"--region: {error}") from None
    contig = known_name(given.contig, genome.contigs, renamed)
    interval = Interval(contig, given.start, given.stop)
    return _on_genome(genome, interval, f"--region {region}", region.strip(), False)


def _on_genome(
    genome: GenomeReader, interval: Interval, place: str, id: str, reverse: bool
) -> Stretch:
    require_within(interval, genome.contigs, genome=str(genome.path), where=place)
    if not interval.length:
        raise InputError(f"{place}: the interval holds no bases; take the row out")
    return Stretch(
        place=place,
        id=id,
        contig=interval.contig,
        start=interval.start,
        stop=interval.stop,
        length=genome.contigs[interval.contig],
        reverse=reverse,
        text=partial(genome.tokens, interval.contig),
    )


def _slice(ids: Ids, start: int, stop: int) -> Ids:
    return ids[start:stop]


def open_stretches(
    source: Path | None,
    region: str | None,
    genome: GenomeReader | None,
    *,
    sequence: str | None = None,
    id: str | None = None,
    window: int | None = None,
    renamed: dict[str, str] | None = None,
) -> Callable[[], Iterator[Stretch]]:
    """A function that reads the stretches from the start, each time it is called.

    source: a file of sequences or intervals; or region, as `region_stretch` takes it. renamed:
    collects contigs that the genome calls otherwise, as they are read. The others: see
    `hyenadna.data.sequences.SequenceFile`.

    Raises InputError unless there is one of the two, without a genome where one is needed, and for
    a column that a table has not.
    """
    renamed = {} if renamed is None else renamed
    if (source is None) == (region is None):
        raise InputError("give a file of sequences or intervals, or --region with --genome")
    if source is None:
        if genome is None:
            raise InputError("--region is cut from a genome; give --genome as well")
        assert region is not None
        one = region_stretch(genome, region, renamed)
        return lambda: iter([one])
    require_column(source, sequence)
    file = SequenceFile(
        path=source, genome=genome, sequence=sequence, id=id, window=window, renamed=renamed
    )
    if genome is None:
        if window is not None:
            raise InputError("--window is laid around intervals of a genome; give --genome as well")
        return lambda: sequence_stretches(file)
    return lambda: interval_stretches(file)
