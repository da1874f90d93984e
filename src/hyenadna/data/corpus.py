"""The genomes of a run, each with its split and its weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hyenadna.data.windows import (
    PARTS,
    Part,
    Regions,
    Split,
    default_split,
    split_by_contigs,
    split_from_bed,
)
from hyenadna.errors import InputError
from hyenadna.genome.fasta import Genome, GenomeReader, GenomeSummary
from hyenadna.genome.intervals import BedRow, read_bed


@dataclass(frozen=True)
class CorpusGenome:
    """One genome of a corpus."""

    reader: GenomeReader
    split: Split
    weight: float
    """Relative chance that a training window comes from this genome."""
    summary: GenomeSummary | None = None

    @property
    def name(self) -> str:
        """The genome's name: that of its file without folder and suffix."""
        return self.reader.name


@dataclass(frozen=True)
class SplitRule:
    """How to split genomes into train, valid and test; see `apply`."""

    beds: tuple[Path, ...] = ()
    valid_contigs: tuple[str, ...] = ()
    test_contigs: tuple[str, ...] = ()
    exclude_contigs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.beds and (self.valid_contigs or self.test_contigs):
            raise InputError("--bed and held-out contigs exclude each other; give one of the two")

    def apply(self, readers: Sequence[GenomeReader]) -> list[Split]:
        """The split of each genome.

        One BED serves all genomes, several go with them in order. Without a BED, a genome that has
        contigs named for valid or test holds those out whole; any other genome takes the default
        split. Excluded contigs belong to no part. `GENOME:CONTIG` names a contig of one genome.

        Raises InputError for a contig that no genome has, and for a wrong number of BED files.
        """
        if len(self.beds) not in (0, 1, len(readers)):
            raise InputError(
                f"--bed: {len(self.beds)} files for {len(readers)} genomes; give one, or one each"
            )
        named = (*self.valid_contigs, *self.test_contigs, *self.exclude_contigs)
        for text in named:
            if not any(_own(reader, [text]) for reader in readers):
                contigs = [c for reader in readers for c in reader.contigs]
                listed = ", ".join(contigs[:8]) + (", …" if len(contigs) > 8 else "")
                raise InputError(f"contig {text!r} is in none of the genomes; they have {listed}")
        shared = self._shared_rows(readers)
        return [self._split(reader, index, shared) for index, reader in enumerate(readers)]

    def _shared_rows(self, readers: Sequence[GenomeReader]) -> list[BedRow]:
        """Rows of the one BED of several genomes, each of a contig that one of them has."""
        if len(self.beds) != 1 or len(readers) == 1:
            return []
        rows = read_bed(self.beds[0])
        contigs = {contig for reader in readers for contig in reader.contigs}
        for row in rows:
            if row.interval.contig not in contigs:
                raise InputError(
                    f"{self.beds[0]}:{row.line}: contig {row.interval.contig!r} is in none of the "
                    "genomes"
                )
        return rows

    def _split(self, reader: GenomeReader, index: int, shared: Sequence[BedRow]) -> Split:
        if self.beds:
            bed = self.beds[index if len(self.beds) > 1 else 0]
            rows = [row for row in shared if row.interval.contig in reader.contigs]
            if shared and not rows:
                raise InputError(f"{bed}: no region of {reader.path}; add some or leave it out")
            split = split_from_bed(reader, rows or read_bed(bed), where=str(bed))
        else:
            valid = _own(reader, self.valid_contigs)
            test = _own(reader, self.test_contigs)
            if valid or test:
                split = split_by_contigs(reader, valid=valid, test=test)
            else:
                split = default_split(reader)
        excluded = set(_own(reader, self.exclude_contigs))
        return _without(split, excluded) if excluded else split


def _own(reader: GenomeReader, contigs: Iterable[str]) -> list[str]:
    """Those of the named contigs that this genome has."""
    found = []
    for text in contigs:
        genome, colon, contig = text.partition(":")
        if text in reader.contigs:
            found.append(text)
        elif colon and genome == reader.name and contig in reader.contigs:
            found.append(contig)
    return found


def _without(split: Split, excluded: set[str]) -> Split:
    parts: dict[Part, Regions] = {}
    for part in PARTS:
        regions = split.part(part)
        kept = tuple(i for i in regions.intervals if i.contig not in excluded)
        parts[part] = replace(regions, intervals=kept)
    return Split(
        parts["train"],
        parts["valid"],
        parts["test"],
        f"{split.rule}; without {', '.join(sorted(excluded))}",
    )


def open_corpus(
    paths: Sequence[Path],
    rule: SplitRule,
    *,
    weights: Sequence[float] = (),
    max_bytes: int | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> list[CorpusGenome]:
    """Open and check all genomes, load them (1 byte a base), and split them.

    `weights`: relative chances, one per genome; by bases of the train part when left out.
    `max_bytes`: a genome with more bases stays on disk. `progress` is told the name of each genome
    before it is read.

    Raises InputError for a file that cannot be read, two genomes of one name, a genome without
    train bases, or weights that do not fit.
    """
    if not paths:
        raise InputError("no FASTA file given")
    if weights and (len(weights) != len(paths) or min(weights) <= 0):
        raise InputError(
            f"--weights: {len(weights)} for {len(paths)} genomes; give one positive number each"
        )
    genomes = [Genome.open(path) for path in paths]
    names = [genome.name for genome in genomes]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two genomes are named {name!r}; rename one of the files")
    splits = rule.apply(genomes)  # before the slow part: a wrong name is told at once
    corpus = []
    for index, (genome, split) in enumerate(zip(genomes, splits, strict=True)):
        progress(genome.name)
        loaded = genome.load(max_bytes=max_bytes)
        weight = weights[index] if weights else float(split.train.bases)
        if not split.train.bases and weight:  # an evaluation needs no train part, and no weight
            raise InputError(f"{genome.path}: no bases to train on ({split.rule})")
        corpus.append(CorpusGenome(loaded, split, weight, getattr(loaded, "summary", None)))
    return corpus


def split_as_bed(split: Split) -> str:
    """The regions of a split as BED text with the part in the 4th column."""
    return "".join(
        f"{i.contig}\t{i.start}\t{i.stop}\t{part}\n"
        for part in PARTS
        for i in split.part(part).intervals
    )
