"""The sequences of `hyenadna embed`: which file is read how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hyenadna.cli.finetune_options import Outside
from hyenadna.cli.pretrain import comma_list
from hyenadna.errors import InputError

if TYPE_CHECKING:
    from hyenadna.data.records import RecordSource
    from hyenadna.genome.fasta import Genome

_FASTA: Final = (".fa", ".fasta", ".fna", ".fas")


@dataclass(frozen=True, kw_only=True)
class SourceChoice:
    """What the user says of the input; stored in the record of a run, to find it again."""

    path: str
    contigs: str = ""
    sequence: str | None = None
    id: str | None = None
    genome: str | None = None
    window: int | None = None
    outside: Outside = "refuse"
    feature: str = ""

    @classmethod
    def restore(cls, stored: Mapping[str, Any]) -> SourceChoice:
        """The choice in the record of a run. Raises InputError where there is none."""
        try:
            return cls(**{key: stored[key] for key in cls.__dataclass_fields__})
        except (KeyError, TypeError):
            raise InputError("the record of the run does not say what was embedded") from None

    def stored(self) -> dict[str, Any]:
        """Plain values, paths from the root."""
        absolute = {
            key: str(Path(text).absolute())
            for key, text in (("path", self.path), ("genome", self.genome))
            if text is not None
        }
        return {**asdict(self), **absolute}


@dataclass(frozen=True)
class OpenSource:
    """Sequences that are ready to be read."""

    records: RecordSource
    kind: str
    """What they are called: contigs, sequences, features."""
    id: str = "id"
    """Column of their names."""
    places: tuple[str, str] = ("bin_start", "bin_stop")
    """Columns of the ends of a bin."""
    tiled: Genome | None = None
    """The genome whose contigs are read piece by piece."""
    notes: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Contigs that the genome calls otherwise, as far as the source has been read."""


def open_source(choice: SourceChoice, *, tiled: bool) -> OpenSource:
    """The sequences of a file, in its order.

    tiled: contigs of a FASTA are cut into bins: they are read from where they lie, and not held.

    Raises InputError for a file that is missing or of another kind, and for options that have no
    meaning for it.
    """
    from hyenadna.data.annotation import is_annotation
    from hyenadna.data.records import RowRecords
    from hyenadna.data.sequences import SequenceFile, require_column
    from hyenadna.data.sources import KNOWN
    from hyenadna.data.text_files import suffix_of
    from hyenadna.genome.fasta import Genome

    path = Path(choice.path)
    genome = Genome.open(choice.genome) if choice.genome is not None else None
    if is_annotation(path):
        return _open_features(path, genome, choice)
    if choice.feature:
        raise InputError(f"--feature is for GFF and GTF; {path} is neither")
    if choice.window is not None and genome is None:
        raise InputError("--window is laid around intervals of a genome; give --genome as well")
    if tiled and genome is None and suffix_of(path) in _FASTA:
        return _open_contigs(path, choice)
    file = SequenceFile(
        path=path,
        sequence=choice.sequence,
        id=choice.id,
        genome=genome,
        window=choice.window,
        outside=choice.outside,
    )
    if not path.is_dir() and path.is_file() and suffix_of(path) not in KNOWN:
        raise InputError(
            f"{path}: it is not clear what this holds; give FASTA, CSV, TSV, Parquet, BED, GFF or "
            "GTF, by its suffix (also .gz)"
        )
    if choice.contigs and file.kind != "fasta":
        raise InputError(f"--contigs chooses records of a FASTA; {path} is a table")
    if file.kind == "table":
        require_column(path, choice.sequence)
    elif choice.sequence or choice.id:
        raise InputError(f"--sequence and --id name columns of a table; {path} is FASTA")
    records = RowRecords(file, comma_list(choice.contigs))
    return OpenSource(records, "sequences", renamed=file.renamed)


def _open_contigs(path: Path, choice: SourceChoice) -> OpenSource:
    from hyenadna.data.records import ContigRecords
    from hyenadna.genome.fasta import Genome
    from hyenadna.genome.intervals import unknown_contig

    genome, contigs = Genome.open(path), comma_list(choice.contigs)
    for contig in contigs:
        if contig not in genome.contigs:
            raise InputError(unknown_contig(contig, genome.contigs, str(path)))
    lengths = [n for contig, n in genome.contigs.items() if not contigs or contig in contigs]
    if not any(lengths):
        raise InputError(f"{path}: no base to embed in {len(lengths)} contigs")
    records = ContigRecords(genome, contigs)
    return OpenSource(records, "contigs", "contig", ("start", "stop"), genome)


def _open_features(path: Path, genome: Genome | None, choice: SourceChoice) -> OpenSource:
    from hyenadna.data.feature_sequences import open_features
    from hyenadna.data.records import RowRecords

    if genome is None:
        raise InputError(f"{path}: holds features; give the genome to cut them from (--genome)")
    file = open_features(
        path,
        genome,
        comma_list(choice.feature),
        window=choice.window,
        outside=choice.outside,
    )
    return OpenSource(RowRecords(file), "features", notes=file.notes)
