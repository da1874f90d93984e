"""Variants of VCF and BCF files: records as they stand, alleles, and whether they fit a genome.

Records are text that is not touched: the first 8 columns are split off, the rest is kept as it is.
Positions are 0-based inside; `POS` of a record counts from 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np

from hyenadna.alphabet import BYTE_TO_ID, INVALID, A, Ids, N, T
from hyenadna.errors import InputError
from hyenadna.genome.contig_names import ContigNames
from hyenadna.genome.fasta import GenomeReader

COLUMNS: Final = 8
"""Fixed columns of a record: CHROM POS ID REF ALT QUAL FILTER INFO."""

_LETTERS: Final = re.compile(r"[A-Za-z]+")
_STRETCH: Final = 1 << 16
_SHOWN: Final = 40
"""Letters of a value in a message."""


class Note(StrEnum):
    """Why an alternative allele has no score, or what is unusual about the one that it has."""

    NO_ALT = "NO_ALT"
    SYMBOLIC = "SYMBOLIC"
    SPANNING_DELETION = "SPANNING_DELETION"
    BREAKEND = "BREAKEND"
    NOT_ACGT = "NOT_ACGT"
    CONTIG_UNKNOWN = "CONTIG_UNKNOWN"
    PAST_THE_END = "PAST_THE_END"
    REF_MISMATCH = "REF_MISMATCH"
    ALLELE_TOO_LONG = "ALLELE_TOO_LONG"
    ONE_STRAND = "ONE_STRAND"
    NO_CONTEXT = "NO_CONTEXT"


NOTE_TEXTS: Final[Mapping[Note, str]] = {
    Note.NO_ALT: "the record has no alternative allele",
    Note.SYMBOLIC: "symbolic allele, such as <DEL>: its bases are not given",
    Note.SPANNING_DELETION: "*: the base is deleted by another record",
    Note.BREAKEND: "breakend: no sequence of one contig",
    Note.NOT_ACGT: "a letter other than A C G T in REF, ALT or the genome under REF",
    Note.CONTIG_UNKNOWN: "the genome has no such contig",
    Note.PAST_THE_END: "the position is not on the contig",
    Note.REF_MISMATCH: "REF is not what the genome has: another assembly, or a damaged file",
    Note.ALLELE_TOO_LONG: "the allele and its surroundings are more than the model reads",
    Note.ONE_STRAND: "scored on one strand: on the other no base comes before it",
    Note.NO_CONTEXT: "no base comes before it on a strand that was asked for",
}


class Record(NamedTuple):
    """One line of a VCF."""

    columns: list[str]
    """The first 8, as they stand."""
    rest: str
    """FORMAT and samples, with the tab before; empty without."""
    start: int
    """POS - 1: 0-based; -1 for POS 0, which is before the first base."""

    @property
    def alts(self) -> list[str]:
        """Alternative alleles as they stand; none for `.`."""
        text = self.columns[4]
        return [] if text in (".", "") else text.split(",")


class Allele(NamedTuple):
    """A change of a genome: the bases start .. start + len(ref) - 1 become `alt`.

    As short as it goes: ref and alt share neither a last nor a first base. Both are token ids, of
    A C G T only; both empty for no change.
    """

    contig: str
    start: int
    ref: Ids
    alt: Ids

    @property
    def stop(self) -> int:
        """Behind the last base that is replaced."""
        return self.start + len(self.ref)

    @property
    def kind(self) -> str:
        """snv, mnv, insertion, deletion, indel (both lengths, unequal), or none: no change."""
        ref, alt = len(self.ref), len(self.alt)
        if ref == alt:
            return "none" if not ref else "snv" if ref == 1 else "mnv"
        return "insertion" if not ref else "deletion" if not alt else "indel"


KINDS: Final = ("snv", "mnv", "insertion", "deletion", "indel")


def parse_record(line: str, where: str) -> Record:
    """The record of a line without its line end.

    Raises InputError, with `where`, for too few columns, for POS that is no whole number, and for
    bytes that no text has.
    """
    if "\0" in line:
        raise InputError(f"{where}: holds NUL bytes: this is no VCF")
    columns = line.split("\t", COLUMNS)
    if len(columns) < COLUMNS:
        hint = " (columns are split at tabs)" if "\t" not in line else ""
        raise InputError(
            f"{where}: a record has at least {COLUMNS} columns, CHROM to INFO; this has "
            f"{len(columns)}{hint}: {line[:60]!r}"
        )
    pos = columns[1]
    if not (pos.isascii() and pos.isdigit()):
        raise InputError(f"{where}: POS is {_cut(pos)!r}, not a whole number")
    if not columns[0] or not columns[3]:
        raise InputError(f"{where}: {'REF' if columns[0] else 'CHROM'} is empty")
    rest = "\t" + columns.pop() if len(columns) > COLUMNS else ""
    return Record(columns, rest, int(pos) - 1)


def _cut(value: str) -> str:
    return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…"


def trimmed(contig: str, start: int, ref: Ids, alt: Ids) -> Allele:
    """The same change without the last, then the first bases that both have.

    So a haplotype has one allele whatever its padding. An indel in a repeat stays where it is.
    """
    shorter = min(len(ref), len(alt))
    back = 0
    while back < shorter and ref[len(ref) - 1 - back] == alt[len(alt) - 1 - back]:
        back += 1
    front = 0
    while front < shorter - back and ref[front] == alt[front]:
        front += 1
    return Allele(contig, start + front, ref[front : len(ref) - back], alt[front : len(alt) - back])


def applied(tokens: Ids, allele: Allele, *, offset: int = 0) -> Ids:
    """A stretch of the genome with the allele in it; `offset`: position of its first base.

    Raises InputError where the allele is not inside.
    """
    first, last = allele.start - offset, allele.stop - offset
    if not 0 <= first <= last <= len(tokens):
        raise InputError(
            f"variant at {allele.contig}:{allele.start + 1} is not within the bases "
            f"{offset + 1} to {offset + len(tokens)}"
        )
    return np.concatenate([tokens[:first], allele.alt, tokens[last:]])


class Stretches:
    """A genome read in stretches, of which the last is kept: cheap for neighbouring positions."""

    def __init__(self, genome: GenomeReader) -> None:
        self.genome = genome
        self._contig, self._start, self._ids = "", 0, np.zeros(0, np.uint8)

    def tokens(self, contig: str, start: int, stop: int) -> Ids:
        """As `GenomeReader.tokens`; raises as that does."""
        inside = self._start <= start and stop <= self._start + len(self._ids)
        if contig != self._contig or not inside:
            self.genome.require_range(contig, start, stop)
            end = min(self.genome.contigs[contig], max(stop, start + _STRETCH))
            self._contig, self._start = contig, start
            self._ids = self.genome.tokens(contig, start, end)
        return self._ids[start - self._start : stop - self._start]


class AlleleReader:
    """The alleles of records, as far as they fit a genome."""

    def __init__(self, genome: GenomeReader) -> None:
        self.names = ContigNames(genome.contigs)
        self._stretches = Stretches(genome)
        self._contigs = genome.contigs

    def alleles(self, record: Record) -> list[Allele | Note]:
        """One for each alternative allele, or why it has no sequence that could be scored.

        Raises InputError where the genome cannot be read.
        """
        alts = record.alts
        if not alts:
            return [Note.NO_ALT]
        place = self._reference(record.columns[0], record.start, record.columns[3])
        if isinstance(place, Note):
            return [_without_letters(alt) or place for alt in alts]
        contig, ref = place
        return [_allele(contig, record.start, ref, alt) for alt in alts]

    def allele(self, contig: str, start: int, ref: str, alt: str) -> Allele | Note:
        """The change of letters `ref` at `start` (0-based) to `alt`, or why it is none.

        Raises InputError where `ref` is empty, and where the genome cannot be read.
        """
        if not ref:
            raise InputError(
                f"variant at {contig}:{start + 1}: REF is empty; give the base before an insertion "
                "in both alleles, as a VCF does"
            )
        place = self._reference(contig, start, ref)
        if isinstance(place, Note):
            return _without_letters(alt) or place
        return _allele(place[0], start, place[1], alt)

    def _reference(self, name: str, start: int, letters: str) -> tuple[str, Ids] | Note:
        """The genome's name of the contig, and REF, which the genome has there."""
        contig = self.names[name]
        if contig is None:
            return Note.CONTIG_UNKNOWN
        stop = start + len(letters)
        if not 0 <= start < stop <= self._contigs[contig]:
            return Note.PAST_THE_END
        ref = _ids(letters)
        there = self._stretches.tokens(contig, start, stop)
        if ref is None:
            return Note.NOT_ACGT
        known = (ref <= T) & (there <= T)
        if bool((ref != there)[known].any()):
            return Note.REF_MISMATCH
        return (contig, ref) if known.all() else Note.NOT_ACGT


def _allele(contig: str, start: int, ref: Ids, alt: str) -> Allele | Note:
    note = _without_letters(alt)
    if note:
        return note
    ids = _ids(alt)
    if ids is None or bool((ids > T).any()):
        return Note.NOT_ACGT
    return trimmed(contig, start, ref, ids)


def _without_letters(alt: str) -> Note | None:
    """Why an ALT is no sequence of letters; None where it is one."""
    if _LETTERS.fullmatch(alt):
        return None
    if "[" in alt or "]" in alt or (len(alt) > 1 and (alt[0] == "." or alt[-1] == ".")):
        return Note.BREAKEND
    if alt.startswith("<"):
        return Note.SYMBOLIC
    if alt == "*":
        return Note.SPANNING_DELETION
    return Note.NO_ALT if alt in ("", ".") else Note.NOT_ACGT


def _ids(letters: str) -> Ids | None:
    """Token ids, A C G T or N; None where a letter is none of an alphabet of bases."""
    ids = BYTE_TO_ID[np.frombuffer(letters.encode("latin-1", "replace"), dtype=np.uint8)]
    return None if bool((ids == INVALID).any()) else ids


assert A < T < N
