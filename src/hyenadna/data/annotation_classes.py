"""The classes that files over a genome give to its bases: tracks, coding frames, exons and introns.

    tracks         one class for each BED, or for some features of a GFF or GTF
    coding frame   none, +1 +2 +3, -1 -2 -3: the base of a codon, and on which strand
    genes          exon, intron, intergenic

A class whose name begins with + or - lies on the strand that a sequence is read on, or on the other
one. A base that would have two classes of one kind (two frames, both strands) has none: it is
masked.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final, NamedTuple

from hyenadna.alphabet import IGNORED, decode, reverse_complement_ids
from hyenadna.data.annotation import (
    Annotation,
    Feature,
    FeatureChoice,
    contig_notes,
    match_contigs,
    parse_track,
    read_annotation,
    read_parents,
    root_names,
)
from hyenadna.errors import InputError
from hyenadna.genome.fasta import GenomeReader
from hyenadna.genome.intervals import Interval, merge, read_bed, require_within

FRAME_NAMES: Final = ("+1", "+2", "+3", "-1", "-2", "-3", "none")
MOST_CLASSES: Final = 100
"""As many fit one signed byte for each base, beside those that are masked."""

_STARTS: Final = frozenset({"ATG", "GTG", "TTG"})
_CODING: Final = ("CDS", "stop_codon")


class Stretch(NamedTuple):
    """Bases of a contig whose classes are known."""

    start: int
    stop: int
    classes: tuple[int, ...]
    """Numbers of classes, which come again and again from `start` on."""


Layer = Mapping[str, Sequence[Stretch]]
"""By contig of the genome."""
ClassesOf = Callable[[Feature], tuple[int, ...]]
"""Classes of the bases of a feature from its leftmost base on, which come again and again."""


@dataclass(frozen=True, eq=False)
class AnnotatedClasses:
    """Classes of the bases of a genome, not yet laid out."""

    names: tuple[str, ...]
    """Of the classes, sorted."""
    layers: tuple[Layer, ...]
    """Where several cover a base, the first one counts."""
    rest: int | None
    """Number of the class of a base that none covers; None masks it."""
    notes: tuple[str, ...] = ()
    contigs: frozenset[str] = frozenset()
    """Contigs of the genome that the files say something of."""


def track_classes(
    genome: GenomeReader,
    tracks: Mapping[str, str | Path],
    *,
    background: str | None = "none",
    stranded: bool = False,
) -> AnnotatedClasses:
    """A class for each track; where two cover a base, the first one counts.

    tracks: by class, a BED (its strand is not looked at) or what `annotation.parse_track` takes.
    background: class of a base that no track covers; None masks it. stranded: a class of features
    is two, `+name` and `-name`; BED files are then refused.

    Raises InputError for a track that has nothing on the genome, features without a strand where it
    is needed, and for fewer than two classes.
    """
    sources = {name: parse_track(str(track)) for name, track in tracks.items()}
    own = [
        signed
        for name, source in sources.items()
        for signed in (_signed(name) if stranded else (name,))
    ]
    names = _sorted_names([*own, *([background] if background is not None else [])])
    number = {name: i for i, name in enumerate(names)}
    layers, notes, contigs = [], [], set[str]()
    for name, source in sources.items():
        if isinstance(source, FeatureChoice):
            placed = _Placed(source.read(), genome)
            placed.require_any(source.type)
            notes += placed.notes
            contigs |= placed.contigs
            classes = placed.named(name, number, stranded=stranded)
            layers.append(placed.layer(placed.annotation.features, classes))
        elif stranded:
            raise InputError(f"{source}: BED tracks have no strand; give GFF or GTF features")
        else:
            layers.append(_bed_layer(source, genome, number[name]))
            contigs |= set(genome.contigs)  # a BED without a contig says that nothing is there
    rest = None if background is None else number[background]
    return AnnotatedClasses(names, tuple(layers), rest, _once(notes), frozenset(contigs))


def frame_classes(genome: GenomeReader, path: str | Path) -> AnnotatedClasses:
    """The base of its codon that each base is: none, `+1` `+2` `+3`, `-1` `-2` `-3`.

    path: GFF3 or GTF with CDS features, whose phase counts; where a row has none, it goes on from
    the CDS before it in the transcript; in each of its transcripts, where it is of several (a base
    that then has two frames is masked). Stop codons beside the CDS (GTF) are coding.

    Raises InputError for a file without CDS, and for one that is not on the genome or on no strand.
    """
    placed = _Placed(read_annotation(path, _CODING), genome)
    segments = [f for f in placed.annotation.features if placed.has(f)]
    if not any(f.type == "CDS" for f in segments):
        raise InputError(
            f"{path}: has no CDS on {genome.path}, which is needed for frames; it has "
            f"{', '.join(placed.annotation.types[:8])}"
        )
    number = {name: i for i, name in enumerate(FRAME_NAMES)}
    phased = [each for chain in _chains(segments) for each in _phased(chain)]
    # a row stands in the chain of each of its transcripts, most often in one and the same phase
    by_phase = {(p.feature.line, p.phase): p for p in phased}

    def classes(feature: Feature) -> tuple[int, ...]:
        frame = tuple(number[f"{placed.strand(feature)}{i}"] for i in (1, 2, 3))
        turn = -(feature.phase or 0) % 3
        frame = frame[turn:] + frame[:turn]  # from the 5' end of the feature
        if feature.strand == "+":
            return frame
        last = (feature.interval.length - 1) % 3  # the leftmost base is the last one read
        return tuple(frame[(last - i) % 3] for i in range(3))

    layer = placed.layer(
        [dataclasses.replace(p.feature, phase=p.phase) for p in by_phase.values()], classes
    )
    notes = [*placed.notes, *_frame_notes(Path(path), phased, placed, genome)]
    return AnnotatedClasses(
        FRAME_NAMES, (layer,), number["none"], _once(notes), frozenset(placed.contigs)
    )


def gene_classes(
    genome: GenomeReader, path: str | Path, *, stranded: bool = False
) -> AnnotatedClasses:
    """`exon` where a transcript has an exon, `intron` where only genes are, else `intergenic`.

    path: GFF3 or GTF with exon features. A gene is a row of type gene (or one that ends in `gene`),
    or reaches from the first to the last exon of a transcript. Of a gene without exons (bacteria,
    as NCBI writes them) the CDS are the exons; one without either is masked, but where it has exons
    of others. stranded: `+exon`, `-exon`, `+intron`, `-intron`; an exon of one strand counts more
    than an intron of the other.

    Raises InputError for a file without exons, and for one that is not on the genome.
    """
    everything = read_annotation(path, ())
    kinds = [name for name in everything.types if name.casefold().endswith("gene")]
    placed = _Placed(read_annotation(path, {"exon", *_CODING, *kinds}), genome)
    on_genome = [f for f in placed.annotation.features if placed.has(f)]
    exons = [f for f in on_genome if f.type == "exon"]
    if not exons:
        raise InputError(
            f"{path}: has no exon on {genome.path}; it has {', '.join(placed.annotation.types[:8])}"
        )
    coding = [f for f in on_genome if f.type in _CODING]
    more = _without_exons(Path(path), coding, exons)
    genes = [f for f in on_genome if f.type in kinds]
    bare = _bare(genes, [*exons, *coding])
    lines = {f.line for f in bare}
    transcripts, around = _transcripts([*exons, *more], placed)
    spans = [*(f for f in genes if f.line not in lines), *transcripts]
    own = [
        signed for name in ("exon", "intron") for signed in (_signed(name) if stranded else (name,))
    ]
    names = _sorted_names([*own, "intergenic"])
    number = {name: i for i, name in enumerate(names)}
    named = [placed.named(name, number, stranded=stranded) for name in ("exon", "intron")]
    layers = (
        placed.layer([*exons, *more], named[0]),
        placed.layer(bare, lambda _: (IGNORED,)),
        placed.layer(spans, named[1]),
    )
    notes = [*placed.notes, *_gene_notes(Path(path), more, bare, around)]
    return AnnotatedClasses(
        names, layers, number["intergenic"], _once(notes), frozenset(placed.contigs)
    )


class _Placed:
    """An annotation on a genome: its contigs by the genome's names, its features within them."""

    def __init__(self, annotation: Annotation, genome: GenomeReader) -> None:
        self.annotation, self.genome = annotation, genome
        self.names = match_contigs(annotation, genome)
        self.notes = contig_notes(annotation, genome)
        self.contigs = set(self.names.values())

    def has(self, feature: Feature) -> bool:
        """Whether the feature lies on a contig of the genome."""
        return feature.interval.contig in self.names

    def require_any(self, kind: str) -> None:
        """Nothing; raises InputError where no feature lies on a contig of the genome."""
        if not any(map(self.has, self.annotation.features)):
            found = ", ".join(sorted({f.interval.contig for f in self.annotation.features})[:8])
            raise InputError(
                f"{self.annotation.path}: has no {kind} as asked for on {self.genome.path}; they "
                f"lie on {found}"
            )

    def strand(self, feature: Feature) -> str:
        """`+` or `-`. Raises InputError for a feature of no strand."""
        if feature.strand == ".":
            raise InputError(
                f"{self.annotation.path}:{feature.line}: {feature.type} has no strand, which is "
                "needed here; take the row out, or give the classes without strands"
            )
        return feature.strand

    def named(self, name: str, number: Mapping[str, int], *, stranded: bool) -> ClassesOf:
        """The class of features of one name, on their strand where classes are stranded."""
        if stranded:
            return lambda feature: (number[self.strand(feature) + name],)
        return lambda _: (number[name],)

    def layer(self, features: Iterable[Feature], classes: ClassesOf) -> Layer:
        """The features as stretches of the genome, with their classes."""
        found: dict[str, list[Stretch]] = {}
        for feature in features:
            if self.has(feature):
                contig = self.names[feature.interval.contig]
                found.setdefault(contig, []).extend(self._stretches(feature, contig, classes))
        return found

    def _stretches(self, feature: Feature, contig: str, classes: ClassesOf) -> list[Stretch]:
        """The feature's one stretch, or two where it runs over the end of a circular contig."""
        start, stop = feature.interval.start, feature.interval.stop
        length, pattern = self.genome.contigs[contig], classes(feature)
        around = feature.interval.contig in self.annotation.circular
        if stop <= length:
            return [Stretch(start, stop, pattern)]
        if not around or start >= length or stop - start > length:
            require_within(
                Interval(contig, start, stop),
                self.genome.contigs,
                genome=str(self.genome.path),
                where=f"{self.annotation.path}:{feature.line}",
            )
        turn = (length - start) % len(pattern)
        return [
            Stretch(start, length, pattern),
            Stretch(0, stop - length, pattern[turn:] + pattern[:turn]),
        ]


def _bed_layer(path: Path, genome: GenomeReader, number: int) -> Layer:
    rows = read_bed(path)
    for row in rows:
        require_within(
            row.interval, genome.contigs, genome=str(genome.path), where=f"{path}:{row.line}"
        )
    found: dict[str, list[Stretch]] = {}
    for interval in merge(row.interval for row in rows):
        stretch = Stretch(interval.start, interval.stop, (number,))
        found.setdefault(interval.contig, []).append(stretch)
    return found


class _Phased(NamedTuple):
    """A CDS or stop codon with the phase that it is read in."""

    feature: Feature
    phase: int
    first: bool
    """Whether its transcript begins with it."""
    goes_on: bool
    """Whether the phase is what the segment before it leaves over."""


def _chains(segments: Iterable[Feature]) -> list[list[Feature]]:
    """The CDS and stop codons of each transcript, in the order in which they are read."""
    chains: defaultdict[tuple[str, ...], list[Feature]] = defaultdict(list)
    for feature in segments:
        for name in _transcripts_of(feature) or (feature.first("ID") or str(feature.line),):
            chains[feature.interval.contig, feature.strand, name].append(feature)
    for (_, strand, _), chain in chains.items():
        chain.sort(key=lambda f: (f.interval.start, f.interval.stop), reverse=strand == "-")
    whole = [list(_without_inner_stops(chain)) for chain in chains.values()]
    return [part for chain in whole for part in _by_product(chain)]


def _transcripts_of(feature: Feature) -> tuple[str, ...]:
    """The transcripts that a row is a part of: all parents (GFF3), or the one it names (GTF)."""
    found = feature.attributes.get("Parent") or feature.attributes.get("transcript_id") or ()
    return tuple(name for name in dict.fromkeys(found) if name)


def _by_product(chain: list[Feature]) -> list[list[Feature]]:
    """The chain, or one for each ID where those of several lie over each other.

    These are several products of one gene, such as tau and gamma of dnaX.
    """
    coding = sorted((f for f in chain if f.type == "CDS"), key=lambda f: f.interval.start)
    last = coding[0] if coding else None  # that reaches furthest
    for feature in coding:
        assert last is not None
        over = feature.interval.start < last.interval.stop
        if over and feature.first("ID") != last.first("ID"):
            break
        if feature.interval.stop > last.interval.stop:
            last = feature
    else:
        return [chain]
    found: defaultdict[str, list[Feature]] = defaultdict(list)
    for feature in chain:
        found[feature.first("ID") or str(feature.line)].append(feature)
    return list(found.values())


def _without_inner_stops(chain: Sequence[Feature]) -> Iterable[Feature]:
    """The chain without the stop codons that are part of its CDS already (GFF3)."""
    coding = [f.interval for f in chain if f.type == "CDS"]
    for feature in chain:
        at = feature.interval
        if feature.type == "CDS" or not any(
            c.start < at.stop and at.start < c.stop for c in coding
        ):
            yield feature


def _phased(chain: Sequence[Feature]) -> list[_Phased]:
    """Phases of a transcript's segments: their own, else what the one before leaves over."""
    found: list[_Phased] = []
    left_over = 0
    for feature in chain:
        phase = left_over if feature.phase is None else feature.phase
        found.append(_Phased(feature, phase, not found, not found or phase == left_over))
        left_over = (phase - feature.interval.length) % 3
    return found


def _frame_notes(
    path: Path, phased: Sequence[_Phased], placed: _Placed, genome: GenomeReader
) -> list[str]:
    """What the annotation's frames look like on the genome: starts, phases that were missing."""
    notes = []
    # a codon that two exons share, or that the annotation cuts off, is not looked at
    rows = {p.feature.line: p for p in phased if p.first and not p.phase}.values()
    heads = [p for p in rows if p.feature.interval.length >= 3]
    starts = sum(_codon(p.feature, placed, genome) in _STARTS for p in heads)
    if heads:
        notes.append(
            f"{path}: {len(heads):,} coding sequences, {starts / len(heads):.1%} of which begin "
            "with ATG, GTG or TTG"
        )
    missing = len(
        {p.feature.line for p in phased if p.feature.phase is None and p.feature.type == "CDS"}
    )
    if missing:
        notes.append(
            f"{path}: {missing:,} CDS have no phase; it goes on from the CDS before, from 0 at the "
            "start"
        )
    breaks = len({p.feature.line for p in phased if not p.goes_on})
    if breaks:
        notes.append(
            f"{path}: {breaks:,} CDS do not go on in the phase that the one before leaves; theirs "
            "counts"
        )
    return notes


def _codon(feature: Feature, placed: _Placed, genome: GenomeReader) -> str:
    """The first three bases of a feature, in the direction of its strand."""
    contig, at = placed.names[feature.interval.contig], feature.interval
    length = genome.contigs[contig]
    first = at.start if feature.strand == "+" else at.stop - 3
    if first + 3 > length:
        return ""  # over the end of a circular contig
    ids = genome.tokens(contig, first, first + 3)
    return decode(ids if feature.strand == "+" else reverse_complement_ids(ids))


def _transcripts(exons: Iterable[Feature], placed: _Placed) -> tuple[list[Feature], int]:
    """From the first to the last exon of each transcript, as features; how many are left out.

    Left out are those of several exons that reach over more than half of a circular contig: they
    run over its origin, and what is between the exons is the rest of the contig.
    """
    found: dict[tuple[str, ...], Feature] = {}
    several = set[tuple[str, ...]]()
    for exon in exons:
        for name in _transcripts_of(exon):
            key = (exon.interval.contig, exon.strand, name)
            if key in found:
                several.add(key)
            other = found.get(key, exon).interval
            start = min(other.start, exon.interval.start)
            stop = max(other.stop, exon.interval.stop)
            span = Interval(exon.interval.contig, start, stop)
            found[key] = Feature(span, "transcript", exon.strand, None, {}, exon.line)
    around = {key for key in several if _runs_around(found[key].interval, placed)}
    return [span for key, span in found.items() if key not in around], len(around)


def _runs_around(span: Interval, placed: _Placed) -> bool:
    """Whether a span over several exons is more than half of a circular contig."""
    length = placed.genome.contigs[placed.names[span.contig]]
    return span.contig in placed.annotation.circular and 2 * span.length > length


def _without_exons(
    path: Path, coding: Sequence[Feature], exons: Iterable[Feature]
) -> list[Feature]:
    """The CDS (and stop codons) of the genes that have no exon."""
    direct = {key for exon in exons for key in _keys(exon, {})}
    loose = [f for f in coding if direct.isdisjoint(_keys(f, {}))]
    if not loose:
        return []
    # an exon may hang on a transcript where the CDS hangs on the gene
    parents = read_parents(path)
    genes = {key for exon in exons for key in _keys(exon, parents)}
    return [f for f in loose if genes.isdisjoint(_keys(f, parents))]


def _keys(feature: Feature, parents: Mapping[str, tuple[str, ...]]) -> set[tuple[str, str]]:
    """(contig, name) of the genes that a row belongs to; where none is known, of itself."""
    names = feature.attributes.get("Parent", ())
    found = root_names(names, parents) or {feature.first("gene_id", "transcript_id", "ID")}
    return {(feature.interval.contig, name or str(feature.line)) for name in found}


def _bare(genes: Iterable[Feature], parts: Iterable[Feature]) -> list[Feature]:
    """The genes within which there is no exon and no CDS on their strand."""
    starts: defaultdict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for part in parts:
        at = part.interval
        for strand in {part.strand, "."} if part.strand != "." else "+-.":
            starts[at.contig, strand].append((at.start, at.stop))
    # the nearest end of all that begin at a place or behind it
    ends = {}
    for where, found in starts.items():
        found.sort()
        ends[where] = list(accumulate((stop for _, stop in reversed(found)), min))[::-1]
    bare = []
    for gene in genes:
        where, at = (gene.interval.contig, gene.strand), gene.interval
        nth = bisect_left(starts[where], (at.start, 0))
        if nth == len(starts[where]) or ends[where][nth] > at.stop:
            bare.append(gene)
    return bare


def _gene_notes(
    path: Path, more: Sequence[Feature], bare: Sequence[Feature], around: int
) -> list[str]:
    """What `gene_classes` took for granted."""
    notes = []
    if more:
        notes.append(f"{path}: {len(more):,} CDS of genes without an exon count as exons")
    if bare:
        notes.append(f"{path}: {len(bare):,} genes without an exon or a CDS are masked")
    if around:
        notes.append(
            f"{path}: {around:,} transcripts run over the origin of a circular contig; what lies "
            "between their exons is no intron"
        )
    return notes


def _signed(name: str) -> tuple[str, str]:
    return f"+{name}", f"-{name}"


def _sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """The classes; raises InputError for fewer than two, or too many."""
    found = tuple(sorted(set(names)))
    if not 2 <= len(found) <= MOST_CLASSES:
        raise InputError(
            f"tracks: {len(found)} class{'es' * (len(found) != 1)} ({', '.join(found[:8])}); give "
            f"2 to {MOST_CLASSES}"
        )
    return found


def _once(notes: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(notes))
