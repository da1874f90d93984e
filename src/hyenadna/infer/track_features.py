"""Kinds of bases over which a track is compared: features of annotations, and letter case."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from hyenadna.data.annotation import Feature, is_annotation, read_annotation
from hyenadna.data.text_files import stem_of
from hyenadna.errors import InputError
from hyenadna.genome.contig_names import matched_names
from hyenadna.genome.fasta import GenomeReader
from hyenadna.genome.intervals import Interval, merge, read_bed, subtract

_WHOLE_GENES: Final = ("transcript", "mRNA")
_MEMBERS: Final = ("exon", "CDS")


@dataclass(frozen=True)
class BaseKinds:
    """Named sets of bases of a genome; a base may be in several."""

    intervals: Mapping[str, Mapping[str, Sequence[Interval]]]
    """By kind and contig: sorted, not overlapping."""

    @property
    def names(self) -> tuple[str, ...]:
        """In the order of the files."""
        return tuple(self.intervals)

    def mask(self, kind: str, at: Interval) -> npt.NDArray[np.bool_]:
        """Which bases of a stretch are of the kind: (bases,)."""
        found = np.zeros(at.length, dtype=bool)
        mine = self.intervals[kind].get(at.contig, ())
        first = bisect.bisect_right(mine, at.start, key=lambda interval: interval.stop)
        for interval in mine[first:]:
            if interval.start >= at.stop:
                break
            found[max(interval.start - at.start, 0) : interval.stop - at.start] = True
        return found


def read_kinds(files: Sequence[Path], genome: GenomeReader) -> tuple[BaseKinds, list[str]]:
    """The kinds of bases that annotation files know of, and notes.

    A BED file is one kind: its rows, and `outside` it. Of a GFF3 or GTF, each type of feature is
    one; where there are exons, also `intron` (in a transcript, but in no exon) and `between genes`.

    Raises InputError for a file that is none, and one that has nothing on the genome.
    """
    kinds: dict[str, list[Interval]] = {}
    notes: list[str] = []
    for file in files:
        own = _features(file) if is_annotation(file) else _rows(file)
        contigs = list(dict.fromkeys(i.contig for each in own.values() for i in each))
        names = matched_names(contigs, genome.contigs)
        if not names:
            raise InputError(
                f"{file}: its contigs are {', '.join(contigs[:5])}, but {genome.path} has "
                f"{', '.join(list(genome.contigs)[:5])}; rename those of one of the two"
            )
        renamed = [f"{one} is {other}" for one, other in names.items() if one != other]
        if renamed:
            notes.append(f"{file}: contigs are named in another way: {', '.join(renamed[:5])}")
        for name, intervals in own.items():
            known = [
                Interval(names[i.contig], i.start, min(i.stop, genome.contigs[names[i.contig]]))
                for i in intervals
                if i.contig in names and i.start < genome.contigs[names[i.contig]]
            ]
            kinds.setdefault(name, []).extend(known)
        if not is_annotation(file):
            whole = [Interval(names[c], 0, genome.contigs[names[c]]) for c in names]
            kinds[f"outside {stem_of(file)}"] = subtract(whole, kinds[stem_of(file)])
        elif "intron" in own:
            whole = [Interval(names[c], 0, genome.contigs[names[c]]) for c in names]
            genes = [i for name in ("exon", "intron") for i in kinds[name]]
            kinds["between genes"] = subtract(whole, genes)
    return BaseKinds({name: _by_contig(found) for name, found in kinds.items()}), notes


def _rows(file: Path) -> dict[str, list[Interval]]:
    return {stem_of(file): [row.interval for row in read_bed(file)]}


def _features(file: Path) -> dict[str, list[Interval]]:
    features = read_annotation(file).features
    found: dict[str, list[Interval]] = {}
    for feature in features:
        found.setdefault(feature.type, []).append(feature.interval)
    if "exon" in found:
        found["intron"] = subtract(_gene_spans(features), [*found["exon"], *found.get("CDS", [])])
    return found


def _gene_spans(features: Iterable[Feature]) -> list[Interval]:
    """Where genes and transcripts lie: their rows, and from first to last exon of each."""
    spans: list[Interval] = []
    ends: dict[tuple[str, str], tuple[int, int]] = {}
    for feature in features:
        at = feature.interval
        if feature.type.casefold().endswith("gene") or feature.type in _WHOLE_GENES:
            spans.append(at)
        owner = feature.first("transcript_id", "Parent")
        if feature.type in _MEMBERS and owner:
            start, stop = ends.get((at.contig, owner), (at.start, at.stop))
            ends[at.contig, owner] = min(start, at.start), max(stop, at.stop)
    return spans + [Interval(contig, *span) for (contig, _), span in ends.items()]


def _by_contig(intervals: Iterable[Interval]) -> dict[str, list[Interval]]:
    found: dict[str, list[Interval]] = {}
    for interval in merge(intervals):
        found.setdefault(interval.contig, []).append(interval)
    return found
