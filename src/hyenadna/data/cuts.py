"""Intervals cut from a genome: centred in a window, on either strand, padded past the ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hyenadna.alphabet import Ids, N, reverse_complement_ids
from hyenadna.errors import InputError
from hyenadna.genome.fasta import GenomeReader
from hyenadna.genome.intervals import Interval, unknown_contig

Outside = Literal["refuse", "pad"]

_STRANDS = {"+": False, "-": True, ".": False, "": False, "1": False, "-1": True}


@dataclass(frozen=True, slots=True)
class Cut:
    """A stretch to read from a genome."""

    interval: Interval
    """As the source gives it."""
    start: int
    """First base of the window, from 0; below 0 where it sticks out of the contig."""
    stop: int
    """One past the last base of the window."""
    reverse: bool
    """Whether it is read on the other strand."""


def make_cut(
    place: str, contig: str, start: str, stop: str, strand: str, window: int | None
) -> Cut:
    """The cut of a row: texts of its columns (0-based, half open), and the window's bases.

    The window is centred: it begins `window // 2` bases before (start + stop) // 2, counted in the
    direction of the strand, so that the other strand of the genome gives the same window. None for
    `window` is the interval itself.

    Raises InputError where a column does not hold what it should, and for a window below 1.
    """
    if window is not None and window < 1:
        raise InputError(f"--window is {window}; it must be at least 1")
    ends = []
    for column, text in (("start", start), ("end", stop)):
        if not (text.isascii() and text.isdigit()):
            raise InputError(f"{place}: {column} is {text!r}, not a whole number of at least 0")
        ends.append(int(text))
    if ends[0] > ends[1]:
        raise InputError(f"{place}: start {start} is behind end {stop}")
    if strand not in _STRANDS:
        raise InputError(f"{place}: strand is {strand!r}; it must be +, - or .")
    first, last = ends
    reverse = _STRANDS[strand]
    if window is not None:
        # on the other strand the middle of an odd interval is rounded the other way
        first = (
            (sum(ends) + 1) // 2 + window // 2 - window if reverse else sum(ends) // 2 - window // 2
        )
        last = first + window
    return Cut(Interval(contig, *ends), first, last, reverse)


def cut_tokens(genome: GenomeReader, cut: Cut, *, outside: Outside, place: str) -> Ids:
    """Token ids of a cut, uint8, (stop - start,), in the direction of its strand.

    outside: a window that leaves its contig is refused, or N stands where there is no base; one
    that is wholly outside is always refused, and so is an interval past the end of its contig.

    Raises InputError as said, and for an unknown contig or a letter that is no base.
    """
    contig = cut.interval.contig
    length = genome.contigs.get(contig)
    if length is None:
        raise InputError(f"{place}: {unknown_contig(contig, genome.contigs, str(genome.path))}")
    if cut.interval.stop > length:
        raise InputError(
            f"{place}: {cut.interval} runs past the end of {contig} in {genome.path}, which has "
            f"{length} bases - is it on another assembly?"
        )
    start, stop = max(cut.start, 0), min(cut.stop, length)
    if (start, stop) == (cut.start, cut.stop):
        ids = genome.tokens(contig, start, stop)
    elif outside == "refuse" or start >= stop:
        raise InputError(
            f"{place}: the window {cut.start}..{cut.stop} (from 0) leaves {contig}, which has "
            f"{length} bases; take the row out, make the window smaller, or pad with N "
            "(--outside pad)"
        )
    else:
        ids = np.full(cut.stop - cut.start, N, dtype=np.uint8)
        ids[start - cut.start : stop - cut.start] = genome.tokens(contig, start, stop)
    return reverse_complement_ids(ids) if cut.reverse else ids
