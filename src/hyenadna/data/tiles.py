"""A genome in windows side by side, for targets that files over the genome give."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from hyenadna.alphabet import Ids, N
from hyenadna.data.cuts import Cut
from hyenadna.data.labelled_rows import LabelledRows
from hyenadna.errors import InputError
from hyenadna.genome.fasta import GenomeReader
from hyenadna.genome.intervals import Interval

BLOCK: Final = 50_000
"""Most bases of a stretch whose windows stay on one side of a split: dozens of bacterial genes."""
FEWEST_BLOCKS: Final = 10
"""Stretches of even a small genome (a phage, an organelle), so that it can be split."""
MOST_N: Final = 0.5
"""Windows with more N than this share are left out."""


def add_tiles(
    rows: LabelledRows,
    genome: GenomeReader,
    length: int,
    *,
    contigs: Collection[str] | None = None,
) -> list[str]:
    """Add windows of `length` bases that do not overlap; returns what was left out, in notes.

    Windows begin at the first base of each contig. Its end is a shorter window of at least half the
    length, or is left out; so are windows that are mostly N. The group of a window is its stretch
    of about 50,000 bases (a tenth of a small genome), so that a split by group leaves whole
    stretches together: windows beside each other share genes. contigs: of the genome, all when left
    out.

    Raises InputError for a length below 1, and where no window is left.
    """
    if length < 1:
        raise InputError(f"--tile is {length}; it must be at least 1 base")
    sizes = genome.contigs.values()
    few = sum(-(-size // BLOCK) for size in sizes) < FEWEST_BLOCKS
    block = sum(sizes) / FEWEST_BLOCKS if few else BLOCK
    stretch = max(1, round(block / length)) * length
    short, masked, before = 0, 0, len(rows)
    gone = [contig for contig in genome.contigs if contigs is not None and contig not in contigs]
    for contig, size in genome.contigs.items():
        if contig in gone:
            continue
        ids = genome.tokens(contig, 0, size)
        for start in range(0, size, length):
            stop = min(start + length, size)
            window = ids[start:stop]
            if 2 * (stop - start) < length:
                short += 1
            elif (window == N).mean() > MOST_N:
                masked += 1
            else:
                _add(rows, genome, Interval(contig, start, stop), window, start // stretch)
    if len(rows) == before:
        raise InputError(f"{genome.path}: no window of {length} bases is left; give a smaller one")
    notes = [
        f"{len(rows) - before:,} windows of {length:,} bases side by side; groups are stretches of "
        f"{stretch:,} bases, which a split by group keeps whole",
    ]
    if short or masked:
        notes.append(
            f"left out: {masked:,} windows with more than {MOST_N:.0%} N, and {short:,} ends of "
            "contigs shorter than half a window"
        )
    if gone:
        notes.append(f"contigs without annotation left out: {len(gone)} ({', '.join(gone[:5])})")
    return notes


def _add(rows: LabelledRows, genome: GenomeReader, at: Interval, window: Ids, stretch: int) -> None:
    rows.add(
        f"{genome.path}: {at}",
        window,
        labels={},
        id=str(at),
        group=f"{at.contig} stretch {stretch + 1}",
        cut=Cut(at, at.start, at.stop, reverse=False),
    )
