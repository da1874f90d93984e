"""A first pass over a file of variants: what is in it, and whether it fits the genome."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from hyenadna.errors import InputError
from hyenadna.genome.fasta import GenomeReader
from hyenadna.genome.variant_file import VariantFile
from hyenadna.genome.variants import Allele, AlleleReader, Note, Record
from hyenadna.infer.score_background import group_of

SHAPES: Final = 1000
"""Alleles of each class and length whose lengths are kept."""
_TOLD_EVERY: Final = 1000


@dataclass
class Survey:
    """Counts over all records of a file."""

    records: int = 0
    alts: int = 0
    """Alternative alleles."""
    alleles: int = 0
    """Of them, those with a sequence that fits the genome."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Of these, by class: snv, mnv, insertion, deletion, indel; none where ALT is REF."""
    notes: Counter[Note] = field(default_factory=Counter)
    """Of the others, by reason; with NO_ALT for records without ALT."""
    in_order: bool = True
    """Whether each contig comes in one piece, and its positions in order: it can be indexed."""
    contigs: list[str] = field(default_factory=list)
    """Names in the order in which they first come."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Names that the genome spells otherwise."""
    unknown: list[str] = field(default_factory=list)
    """Names that the genome has not."""
    digest: str = ""
    """SHA-256 (hex) of header and records."""
    tags: dict[tuple[str, str], bool] = field(default_factory=dict)
    """What records use, as (INFO, FORMAT or FILTER, ID), and whether it is a flag; only on request.
    """
    shapes: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """By group of `score_background.group_of` the lengths of ref and alt, without what they share,
    of at most 1,000 alleles drawn at random."""
    groups: Counter[str] = field(default_factory=Counter)
    """Alleles in each group."""


def survey(
    file: VariantFile,
    genome: GenomeReader,
    *,
    seed: int = 0,
    bcf: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Survey:
    """What a file of variants holds.

    seed: for the draw of allele lengths. bcf: that the records become BCF: note the IDs that they
    use, and refuse text that it cannot hold. progress: told how many records have been read, now
    and then. Raises InputError for a line that is no record, for such text, and where there are
    alleles of sequence, but none fits the genome.
    """
    found, reader = Survey(), AlleleReader(genome)
    digest = hashlib.sha256(file.header.text.encode("utf-8", "surrogateescape"))
    rng = np.random.default_rng(seed)
    if bcf:
        _require_utf8(file, file.header.text, 0)
    last, seen = ("", -1), set[str]()
    for record in file.records():
        digest.update("\t".join([*record.columns, record.rest]).encode("utf-8", "surrogateescape"))
        digest.update(b"\n")
        contig = record.columns[0]
        if contig != last[0]:
            found.in_order &= contig not in seen
            if contig not in seen:
                seen.add(contig)
                found.contigs.append(contig)
        elif record.start < last[1]:
            found.in_order = False
        last = (contig, record.start)
        _count(found, record, reader.alleles(record), rng)
        if bcf:
            _require_utf8(file, "\t".join([*record.columns, record.rest]), found.records)
            _note_tags(found.tags, record)
        if progress and found.records % _TOLD_EVERY == 0:
            progress(found.records)
    found.digest = digest.hexdigest()
    found.renamed, found.unknown = reader.names.renamed, reader.names.unknown
    _require_some(found, file, genome)
    return found


def _count(
    found: Survey, record: Record, alleles: list[Allele | Note], rng: np.random.Generator
) -> None:
    found.records += 1
    found.alts += len(record.alts)
    for allele in alleles:
        if isinstance(allele, Note):
            found.notes[allele] += 1
            continue
        found.alleles += 1
        found.kinds[allele.kind] += 1
        group = group_of(allele)
        if not group:
            continue
        found.groups[group] += 1
        shape, kept = (len(allele.ref), len(allele.alt)), found.shapes.setdefault(group, [])
        if len(kept) < SHAPES:
            kept.append(shape)
        else:
            at = int(rng.integers(0, found.groups[group]))
            if at < SHAPES:
                kept[at] = shape


def _require_utf8(file: VariantFile, text: str, record: int) -> None:
    """Refuse text in another encoding, which a BCF is not read back with."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        where = f"record {record:,}" if record else "the header"
        raise InputError(
            f"{file.path}: {where} holds text that is not UTF-8, which a BCF cannot have; write "
            ".vcf.gz"
        ) from None


def _note_tags(tags: dict[tuple[str, str], bool], record: Record) -> None:
    *_, filters, info = record.columns
    for each in info.split(";"):
        name, equals, _ = each.partition("=")
        tags["INFO", name] = tags.get(("INFO", name), True) and not equals
    for name in filters.split(";"):
        tags["FILTER", name] = False
    for name in record.rest[1:].partition("\t")[0].split(":"):
        tags["FORMAT", name] = False


def _require_some(found: Survey, file: VariantFile, genome: GenomeReader) -> None:
    """Refuse a file of which no allele of sequence fits the genome, with the probable cause."""
    misfits = {
        note: found.notes[note]
        for note in (Note.CONTIG_UNKNOWN, Note.PAST_THE_END, Note.REF_MISMATCH)
    }
    if found.alleles or not sum(misfits.values()):
        return
    worst = max(misfits, key=lambda note: misfits[note])
    if worst is Note.CONTIG_UNKNOWN:
        shown = ", ".join(found.contigs[:3]) + (", …" if len(found.contigs) > 3 else "")
        there = ", ".join(list(genome.contigs)[:3]) + (", …" if len(genome.contigs) > 3 else "")
        cause = f"its contigs are named {shown}, those of {genome.path} {there}; rename one"
    elif worst is Note.PAST_THE_END:
        cause = f"positions lie past the ends of contigs of {genome.path}: another assembly?"
    else:
        cause = f"REF is not what {genome.path} has there: another assembly?"
    raise InputError(
        f"{file.path}: none of {found.records:,} record{'s'[: found.records != 1]} fits "
        f"the genome: {cause}"
    )
