"""The sequences of features of a genome: genes, exons, … of a GFF or GTF, on their own strand.

Each row of the annotation is a sequence by itself: a gene or transcript is its whole stretch of
genome, introns and all; a spliced transcript is a table or FASTA of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from hyenadna.alphabet import Ids, reverse_complement_ids
from hyenadna.data.annotation import (
    BIOTYPE_NAMES,
    Annotation,
    Attributes,
    Feature,
    contig_notes,
    each_feature,
    match_contigs,
)
from hyenadna.data.cuts import Outside, cut_tokens, make_cut
from hyenadna.data.sequences import SequenceRow
from hyenadna.errors import InputError
from hyenadna.genome.fasta import GenomeReader

COLUMNS: Final = ("type", "biotype", "gene", "gene_name", "contig", "start", "stop", "strand")
"""What is said of each feature; start and stop count from 0, half open."""
# These have no children, and are most of a large annotation.
_LEAVES: Final = frozenset(
    {
        "exon", "CDS", "start_codon", "stop_codon", "UTR", "five_prime_UTR", "three_prime_UTR",
        "stop_codon_redefined_as_selenocysteine", "Selenocysteine", "intron",
    }
)  # fmt: skip
_GENE_NAMES: Final = ("gene_name", "gene", "Name")
_KEPT: Final = frozenset({"Parent", "gene_id", *BIOTYPE_NAMES, *_GENE_NAMES})
_GENERATIONS: Final = 10


@dataclass(frozen=True, kw_only=True)
class FeatureFile:
    """Features of some types; iterating reads the annotation from the start, each time.

    Made by `open_features`.
    """

    path: Path
    genome: GenomeReader
    types: tuple[str, ...]
    window: int | None = None
    """Bases around the middle of each feature; the feature itself when left out."""
    outside: Outside = "refuse"
    parents: Mapping[str, Attributes] = field(repr=False, default_factory=dict)
    contigs: Mapping[str, str] = field(repr=False, default_factory=dict)
    """Name in the genome by name in the annotation."""
    circular: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def others(self) -> tuple[str, ...]:
        """Columns of each row besides its id."""
        return COLUMNS

    def __iter__(self) -> Iterator[SequenceRow]:
        """The features in their order, those on - reverse-complemented.

        Features on contigs that the genome has not are passed over. Raises InputError, naming file
        and line, for a row that is none, and for one past the end of its contig, unless the file
        says that the contig is circular.
        """
        for feature in each_feature(self.path, self.types):
            contig = self.contigs.get(feature.interval.contig)
            if contig is None:
                continue
            place = f"{self.path}:{feature.line}"
            at = feature.interval
            ids = self._tokens(feature, contig, place)
            line = self._line(feature)
            cells = (
                feature.type,
                _first(line, BIOTYPE_NAMES),
                _gene(line),
                _gene_name(line),
                contig,
                str(at.start),
                str(at.stop),
                feature.strand,
            )
            yield SequenceRow(place, " ".join(_id(feature).split()) or str(at), ids, cells)

    def _line(self, feature: Feature) -> list[Attributes]:
        """Attributes of a feature, its parent, the parent of that, and so on."""
        line: list[Attributes] = [feature.attributes]
        while len(line) < _GENERATIONS:
            above = self.parents.get(line[-1].get("Parent", ("",))[0])
            if above is None:
                break
            line.append(above)
        return line

    def _tokens(self, feature: Feature, contig: str, place: str) -> Ids:
        at = feature.interval
        length = self.genome.contigs[contig]
        cut = make_cut(place, contig, str(at.start), str(at.stop), feature.strand, self.window)
        if at.contig in self.circular and (cut.start < 0 or cut.stop > length):
            if at.start >= length or max(at.stop - at.start, cut.stop - cut.start) > length:
                what = at if self.window is None else f"the window of {self.window:,} bases"
                raise InputError(f"{place}: {what} goes round {contig} more than once")
            ids = self._around(contig, cut.start, cut.stop)
            return reverse_complement_ids(ids) if cut.reverse else ids
        return cut_tokens(self.genome, cut, outside=self.outside, place=place)

    def _around(self, contig: str, start: int, stop: int) -> Ids:
        """Bases of a circular contig that leave one of its ends, and come in at the other."""
        length = self.genome.contigs[contig]
        first = start % length
        last = first + stop - start
        ends = ((first, min(last, length)), (0, max(last - length, 0)))
        return np.concatenate([self.genome.tokens(contig, *end) for end in ends])


def open_features(
    path: Path,
    genome: GenomeReader,
    types: Sequence[str],
    *,
    window: int | None = None,
    outside: Outside = "refuse",
) -> FeatureFile:
    """The features of these types, on the contigs that the genome has.

    Reads the annotation once: of rows that others may descend from, the few attributes that are
    handed down are held. Notes say what contigs are passed over, or named in another way.

    Raises InputError where there is no such feature, naming the types that there are, and where the
    genome has none of the contigs.
    """
    parents: dict[str, Attributes] = {}
    contigs: dict[str, None] = {}
    found: dict[str, int] = {}
    circular: set[str] = set()
    for feature in each_feature(path):
        found[feature.type] = found.get(feature.type, 0) + 1
        contigs.setdefault(feature.interval.contig)
        if feature.first("Is_circular") == "true":
            circular.add(feature.interval.contig)
        if "ID" in feature.attributes and feature.type not in _LEAVES:
            kept = {k: v for k, v in feature.attributes.items() if k in _KEPT}
            parents[feature.attributes["ID"][0]] = kept
    missing = [kind for kind in types if kind not in found]
    if missing or not types:
        there = ", ".join(f"{kind} ({count:,})" for kind, count in sorted(found.items()))
        which = f"has no feature of type {missing[0]!r}" if missing else "say which (--feature)"
        raise InputError(f"{path}: {which}; it has {there or 'none'}")
    seen = Annotation(path, (), tuple(contigs), tuple(sorted(found)), frozenset(circular))
    return FeatureFile(
        path=path,
        genome=genome,
        types=tuple(types),
        window=window,
        outside=outside,
        parents=parents,
        contigs=match_contigs(seen, genome),
        circular=frozenset(circular),
        notes=tuple(contig_notes(seen, genome)),
    )


def _id(feature: Feature) -> str:
    """The name of a feature: by its type, else its ID, else that of what it belongs to."""
    own = "gene_id" if feature.type.endswith("gene") else f"{feature.type}_id"
    return feature.first(own, "ID", "transcript_id", "gene_id", "Name")


def _gene(line: Sequence[Attributes]) -> str:
    """Name of the gene that a feature is of, the same for all of its features."""
    found = _first(line, ("gene_id",))
    if found or len(line) > 1 or "ID" in line[0]:
        return found or _root(line)
    return ""


def _root(line: Sequence[Attributes]) -> str:
    """The ID at the head of a line: that of the last that has a child in it, or its own."""
    below = line[-2].get("Parent", ("",))[0] if len(line) > 1 else ""
    return below or line[0].get("Parent", line[0].get("ID", ("",)))[0]


def _gene_name(line: Sequence[Attributes]) -> str:
    return _first(line, _GENE_NAMES[:2]) or line[-1].get("Name", ("",))[0]


def _first(line: Sequence[Attributes], names: Sequence[str]) -> str:
    """The first value of the first of these attributes that the nearest in the line has."""
    for attributes in line:
        for name in names:
            if attributes.get(name):
                return attributes[name][0]
    return ""
