"""Features of a genome from GFF3 and GTF files, plain, gzip or bgzip.

Which of the two a row is, its last column says: `ID=x;Parent=y` or `gene_id "x"; tag "y";`.
Positions there are counted from 1 and the last base is in; here they are 0-based and half open.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final
from urllib.parse import unquote

from hyenadna.data.text_files import open_text, suffix_of
from hyenadna.errors import InputError
from hyenadna.genome.contig_names import matched_names
from hyenadna.genome.fasta import GenomeReader
from hyenadna.genome.intervals import Interval

SUFFIXES: Final = (".gff", ".gff3", ".gtf", ".gff2")
BIOTYPE: Final = "biotype"
BIOTYPE_NAMES: Final = (
    "transcript_biotype", "transcript_type", "biotype", "gene_biotype", "gene_type",
)  # fmt: skip
"""What `biotype` is called by Ensembl, GENCODE and NCBI; the first that a row has counts."""

_COLUMNS: Final = 9
_GTF_PAIR: Final = re.compile(r'\s*([^\s;="]+)\s+(?:"([^"]*)"|([^";]*))\s*(?:;|$)')
_PARENTS: Final = 10
"""Generations that an attribute is looked for in; a loop of parents ends there."""
_SHOWN: Final = 5
_FOR_BROWSERS: Final = ("track", "browser")
"""First words of lines that are no rows, but say how a genome browser shows them."""

Attributes = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Feature:
    """One row of an annotation."""

    interval: Interval
    type: str
    """Third column: gene, exon, CDS, …"""
    strand: str
    """`+`, `-`, or `.` where the row does not say."""
    phase: int | None
    """Bases of the feature, from its 5' end, before the first whole codon: 0 .. 2 or None."""
    attributes: Attributes
    """Values by name."""
    line: int

    def first(self, *names: str) -> str:
        """The first value of the first attribute of these that is there; an empty text for none."""
        return next((self.attributes[name][0] for name in names if self.attributes.get(name)), "")


@dataclass(frozen=True, eq=False)
class Annotation:
    """Features of one file, in its order; made by `read_annotation`."""

    path: Path
    features: tuple[Feature, ...]
    contigs: tuple[str, ...]
    """All contigs that the file names, also those without a feature that was asked for."""
    types: tuple[str, ...]
    """All types of features in the file, sorted."""
    circular: frozenset[str] = frozenset()
    """Contigs that the file says are circular."""


@dataclass(frozen=True)
class FeatureChoice:
    """Which features of a file are meant: those of a type, with all of some attributes."""

    path: Path
    type: str
    values: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Name of an attribute, and the values of which it has one."""

    def read(self) -> Annotation:
        """The features chosen. Raises InputError where there is none, naming what there is."""
        found = read_annotation(self.path, {self.type}, inherit=[name for name, _ in self.values])
        if not found.features:
            raise InputError(
                f"{self.path}: has no feature of type {self.type!r}; it has {_listed(found.types)}"
            )
        kept = found.features
        for name, values in self.values:
            there = sorted({v for feature in kept for v in _values(feature, name)})
            kept = tuple(f for f in kept if not set(values).isdisjoint(_values(f, name)))
            if not kept:
                raise InputError(
                    f"{self.path}: no {self.type} has {name}={'|'.join(values)}; "
                    f"{name} is {_listed(there)}"
                )
        return dataclasses.replace(found, features=kept)


def is_annotation(path: Path) -> bool:
    """Whether a file is GFF or GTF by its suffix (also with .gz)."""
    return suffix_of(path) in SUFFIXES


def parse_track(text: str) -> Path | FeatureChoice:
    """What `FILE` or `FILE:TYPE[,NAME=VALUE[|VALUE…]…]` means: a BED, or features of a GFF or GTF.

    The name of the file may hold colons: it is the longest part before one that is a file.

    Raises InputError where no part is a file, for a GFF without a type and a BED with one.
    """
    ends = [len(text), *(i for i in range(len(text) - 1, 0, -1) if text[i] == ":")]
    end = next((i for i in ends if Path(text[:i]).is_file()), None)
    if end is None:
        raise InputError(f"{text}: no such file, also not before a colon")
    path, rest = Path(text[:end]), text[end + 1 :]
    if not is_annotation(path):
        if end < len(text):
            raise InputError(f"{text}: only GFF and GTF have types of features; give {path} alone")
        return path
    kind, *pairs = rest.split(",")
    if not kind:
        types = read_annotation(path, ()).types
        raise InputError(
            f"{path}: say which features are meant, such as {path}:{types[0] if types else 'exon'};"
            f" it has {_listed(types)}"
        )
    values = []
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise InputError(f"{text}: {pair!r} is not NAME=VALUE, such as biotype=rRNA")
        values.append((name, tuple(value.split("|"))))
    return FeatureChoice(path, kind, tuple(values))


def read_annotation(
    path: str | Path, types: Collection[str] | None = None, *, inherit: Collection[str] = ()
) -> Annotation:
    """The features of these types (all where left out) of a GFF3 or GTF file.

    inherit: attributes that a feature has from its parents (GFF3) where it has none itself; with
    `biotype` whatever that is called there.

    Raises InputError, naming file and line, for a row that is none, and for a file that is missing,
    damaged or without a row.
    """
    path = Path(path)
    with open_text(path) as text:
        return _read(path, text, types, tuple(inherit))


def _read(
    path: Path, text: IO[str], types: Collection[str] | None, inherit: tuple[str, ...]
) -> Annotation:
    wanted: list[Feature] = []
    parents: dict[str, Attributes] = {}
    contigs: dict[str, None] = {}
    seen: set[str] = set()
    circular: set[str] = set()
    for line, columns in _rows(path, text, contigs):
        contigs.setdefault(_contig(columns), None)
        seen.add(columns[2])
        if "Is_circular=true" in columns[8]:
            circular.add(_contig(columns))
        take = types is None or columns[2] in types
        if not take and not (inherit and "ID=" in columns[8]):
            continue
        attributes = _attributes(columns[8])
        if inherit and "ID" in attributes:
            parents[attributes["ID"][0]] = attributes
        if take:
            wanted.append(_feature(f"{path}:{line}", line, columns, attributes))
    if not seen:
        raise InputError(f"{path}: holds no feature; is it GFF3 or GTF?")
    if inherit:
        wanted = [_with_inherited(feature, parents, inherit) for feature in wanted]
    return Annotation(path, tuple(wanted), tuple(contigs), tuple(sorted(seen)), frozenset(circular))


def each_feature(path: str | Path, types: Collection[str] | None = None) -> Iterator[Feature]:
    """The features of these types (all where left out), one after the other; none is held.

    Nothing is inherited. Raises InputError as `read_annotation` does, but for a file without rows.
    """
    path = Path(path)
    with open_text(path) as text:
        for line, columns in _rows(path, text, {}):
            if types is None or columns[2] in types:
                yield _feature(f"{path}:{line}", line, columns, _attributes(columns[8]))


def read_parents(path: str | Path) -> dict[str, tuple[str, ...]]:
    """The `Parent` of each `ID` (GFF3) that has one; raises InputError as `read_annotation`."""
    path, parents = Path(path), dict[str, tuple[str, ...]]()
    with open_text(path) as text:
        for _, columns in _rows(path, text, {}):
            if "Parent=" in columns[8] and "ID=" in columns[8]:
                attributes = _attributes(columns[8])
                for name in attributes.get("ID", ()):
                    parents[name] = parents.get(name, ()) + attributes.get("Parent", ())
    return {name: found for name, found in parents.items() if found}


def root_names(names: Collection[str], parents: Mapping[str, tuple[str, ...]]) -> set[str]:
    """The names of those at the head: the genes of transcripts, say; parents: `read_parents`."""
    found = set(names)
    for _ in range(_PARENTS):
        found = {above for name in found for above in parents.get(name, (name,))}
    return found


def _rows(path: Path, text: IO[str], contigs: dict[str, None]) -> Iterator[tuple[int, list[str]]]:
    """Line number and columns of each row; notes the contigs that `##sequence-region` names."""
    for number, raw in enumerate(text, start=1):
        line = raw.rstrip("\r\n")
        if line.startswith("##FASTA"):
            return
        if line.startswith("##sequence-region"):
            contigs.update(dict.fromkeys(line.split()[1:2]))
        if not line.strip() or line.startswith("#"):
            continue
        columns = line.split("\t")
        if len(columns) != _COLUMNS and line.split(maxsplit=1)[0] in _FOR_BROWSERS:
            continue
        if len(columns) != _COLUMNS:
            raise InputError(
                f"{path}:{number}: a row of GFF or GTF has 9 columns with tabs between; this has "
                f"{len(columns)}: {line[:60]!r}"
            )
        yield number, columns


def _contig(columns: list[str]) -> str:
    return unquote(columns[0]) if "%" in columns[0] else columns[0]


def _feature(where: str, line: int, columns: list[str], attributes: Attributes) -> Feature:
    _, _, kind, first, last, _, strand, phase, _ = columns
    if not (_whole(first) and _whole(last) and 1 <= int(first) <= int(last)):
        raise InputError(
            f"{where}: start {first!r} and end {last!r}; they count from 1, and start is not "
            "behind end"
        )
    if strand not in ("+", "-", ".", "?"):
        raise InputError(f"{where}: strand is {strand!r}; it must be +, - or .")
    if phase not in (".", "0", "1", "2"):
        raise InputError(f"{where}: phase is {phase!r}; it must be 0, 1, 2 or .")
    return Feature(
        interval=Interval(_contig(columns), int(first) - 1, int(last)),
        type=kind,
        strand="." if strand == "?" else strand,
        phase=None if phase == "." else int(phase),
        attributes=attributes,
        line=line,
    )


def _whole(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _attributes(text: str) -> Attributes:
    """Values by name. A name that comes again (GTF) and values between commas (GFF3) add up."""
    found: dict[str, tuple[str, ...]] = {}
    head = re.match(r"\s*[^\s=]+", text)
    if head and text[head.end() : head.end() + 1] == "=":
        for pair in text.split(";"):
            name, equals, values = pair.strip().partition("=")
            if equals:
                found[name] = tuple(unquote(value) for value in values.split(","))
        return found
    for match in _GTF_PAIR.finditer(text):
        name, value = match[1], match[2] if match[2] is not None else match[3].strip()
        found[name] = (*found.get(name, ()), value)
    return found


def _values(feature: Feature, name: str) -> tuple[str, ...]:
    """Values of an attribute; of `biotype`, whatever it is called."""
    return next((feature.attributes[n] for n in _names(name) if n in feature.attributes), ())


def _names(name: str) -> tuple[str, ...]:
    return BIOTYPE_NAMES if name == BIOTYPE else (name,)


def _with_inherited(
    feature: Feature, parents: Mapping[str, Attributes], names: Collection[str]
) -> Feature:
    """The feature with the attributes of these names that its parents have and it has not."""
    more: dict[str, tuple[str, ...]] = {}
    for name in names:
        attributes, turns = feature.attributes, 0
        while not any(n in attributes for n in _names(name)) and turns < _PARENTS:
            parent = attributes.get("Parent", ("",))[0]
            attributes, turns = parents.get(parent, {}), turns + 1
        more |= {n: attributes[n] for n in _names(name) if n in attributes}
    return dataclasses.replace(feature, attributes={**more, **feature.attributes})


def match_contigs(annotation: Annotation, genome: GenomeReader) -> dict[str, str]:
    """Name in the genome of each contig of the annotation that the genome has.

    The same name; where there is none, the name with `chr` before it, or without (`9`, `chr9`),
    unless the annotation names that too. Contigs that the genome has not are left out.

    Raises InputError where the genome has none of them, naming both.
    """
    names = matched_names(annotation.contigs, genome.contigs)
    if not names:
        raise InputError(
            f"{annotation.path}: its contigs are {_listed(annotation.contigs)}, but {genome.path} "
            f"has {_listed(genome.contigs)}; rename those of one of the two"
        )
    return names


def contig_notes(annotation: Annotation, genome: GenomeReader) -> list[str]:
    """What `match_contigs` took for granted, one line each."""
    names = match_contigs(annotation, genome)
    renamed = [f"{own} is {other}" for own, other in names.items() if own != other]
    gone = [contig for contig in annotation.contigs if contig not in names]
    notes = []
    if renamed:
        notes.append(f"{annotation.path}: contigs are named in another way: {_listed(renamed)}")
    if gone:
        notes.append(
            f"{annotation.path}: contigs that {genome.path} has not are passed over: "
            + _listed(gone)
        )
    return notes


def _listed(names: Collection[str]) -> str:
    shown = list(names)[:_SHOWN]
    more = f", … ({len(names)} in all)" if len(names) > len(shown) else ""
    return (", ".join(shown) or "nothing") + more
