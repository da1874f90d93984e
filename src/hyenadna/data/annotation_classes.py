"""The classes that files over a genome give to its bases: tracks, coding frames, exons and introns.

    tracks         one class for each BED, or for some features of a GFF or GTF
    coding frame   none, +1 +2 +3, -1 -2 -3: the base of a codon, and on which strand
    genes          exon, intron, intergenic

A class whose name begins with + or - lies on the strand that a sequence is read on, or on the other
one. A base that would have two classes of one kind (two frames, both strands) has none: it is
masked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from hyenadna.alphabet import decode, reverse_complement_ids
from hyenadna.data.annotation import (
    Annotation,
    Feature,
    FeatureChoice,
    contig_notes,
    match_contigs,
    parse_track,
    read_annotation,
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

    Raises InputError for a track that is not on the genome, features without a strand where it is
    needed, and for fewer than two classes.
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
    the CDS before it in the transcript. Stop codons beside the CDS (GTF) are coding.

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
    phase_of = {each.feature.line: each.phase for each in phased}

    def classes(feature: Feature) -> tuple[int, ...]:
        frame = tuple(number[f"{placed.strand(feature)}{i}"] for i in (1, 2, 3))
        turn = -phase_of[feature.line] % 3
        frame = frame[turn:] + frame[:turn]  # from the 5' end of the feature
        if feature.strand == "+":
            return frame
        last = (feature.interval.length - 1) % 3  # the leftmost base is the last one read
        return tuple(frame[(last - i) % 3] for i in range(3))

    layer = placed.layer([each.feature for each in phased], classes)
    notes = [*placed.notes, *_frame_notes(Path(path), phased, placed, genome)]
    return AnnotatedClasses(
        FRAME_NAMES, (layer,), number["none"], _once(notes), frozenset(placed.contigs)
    )


def gene_classes(
    genome: GenomeReader, path: str | Path, *, stranded: bool = False
) -> AnnotatedClasses:
    """`exon` where a transcript has an exon, `intron` where only genes are, else `intergenic`.

    path: GFF3 or GTF with exon features. A gene is a row of type gene (or one that ends in `gene`),
    or reaches from the first to the last exon of a transcript. stranded: `+exon`, `-exon`,
    `+intron`, `-intron`; an exon of one strand counts more than an intron of the other.

    Raises InputError for a file without exons, and for one that is not on the genome.
    """
    everything = read_annotation(path, ())
    kinds = [name for name in everything.types if name.casefold().endswith("gene")]
    placed = _Placed(read_annotation(path, {"exon", *kinds}), genome)
    exons = [f for f in placed.annotation.features if f.type == "exon" and placed.has(f)]
    if not exons:
        raise InputError(
            f"{path}: has no exon on {genome.path}; it has {', '.join(placed.annotation.types[:8])}"
        )
    genes = [f for f in placed.annotation.features if f.type != "exon" and placed.has(f)]
    spans = [*genes, *_transcripts(exons)]
    own = [
        signed for name in ("exon", "intron") for signed in (_signed(name) if stranded else (name,))
    ]
    names = _sorted_names([*own, "intergenic"])
    number = {name: i for i, name in enumerate(names)}
    layers = [
        placed.layer(features, placed.named(name, number, stranded=stranded))
        for name, features in (("exon", exons), ("intron", spans))
    ]
    return AnnotatedClasses(
        names,
        tuple(layers),
        number["intergenic"],
        _once(placed.notes),
        frozenset(placed.contigs),
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
        name = feature.first("Parent", "transcript_id", "ID") or str(feature.line)
        chains[feature.interval.contig, feature.strand, name].append(feature)
    for (_, strand, _), chain in chains.items():
        chain.sort(key=lambda f: (f.interval.start, f.interval.stop), reverse=strand == "-")
    return [list(_without_inner_stops(chain)) for chain in chains.values()]


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
    heads = [p for p in phased if p.first and not p.phase and p.feature.interval.length >= 3]
    starts = sum(_codon(p.feature, placed, genome) in _STARTS for p in heads)
    if heads:
        notes.append(
            f"{path}: {len(heads):,} coding sequences, {starts / len(heads):.1%} of which begin "
            "with ATG, GTG or TTG"
        )
    missing = sum(p.feature.phase is None and p.feature.type == "CDS" for p in phased)
    if missing:
        notes.append(
            f"{path}: {missing:,} CDS have no phase; it goes on from the CDS before, from 0 at the "
            "start"
        )
    breaks = sum(not p.goes_on for p in phased)
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


def _transcripts(exons: Iterable[Feature]) -> list[Feature]:
    """From the first to the last exon of each transcript, as features."""
    found: dict[tuple[str, ...], Feature] = {}
    for exon in exons:
        for name in exon.attributes.get("Parent") or exon.attributes.get("transcript_id") or ():
            key = (exon.interval.contig, exon.strand, name)
            other = found.get(key, exon).interval
            start = min(other.start, exon.interval.start)
            stop = max(other.stop, exon.interval.stop)
            span = Interval(exon.interval.contig, start, stop)
            found[key] = Feature(span, "transcript", exon.strand, None, {}, exon.line)
    return list(found.values())


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
