"""Labelled sequences from files: the door to CSV, TSV, Parquet, FASTA, folders, BED with a genome.

Handled in a stated way: case makes no difference, U is T and ambiguity codes are N; ids that come
again get a number; missing labels and values are masked. Everything else that is odd is an error
that names the row, or what the arguments below say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hyenadna.data.annotation_classes import (
    AnnotatedClasses,
    frame_classes,
    gene_classes,
    track_classes,
)
from hyenadna.data.columns import ColumnNames
from hyenadna.data.cuts import Cut, Outside
from hyenadna.data.labelled_data import LabelledData, Targets, Task, TooLong, fit_length
from hyenadna.data.labelled_fasta import HeaderLabel, read_fasta_rows, read_sequence_file
from hyenadna.data.labelled_rows import Empty, LabelledRows
from hyenadna.data.labelled_table import read_table_rows
from hyenadna.data.sources import Source, find_files, kind_of, source_name
from hyenadna.data.targets import (
    LabelColumns,
    Missing,
    label_warnings,
    make_targets,
    require_seen,
)
from hyenadna.data.tiles import add_tiles
from hyenadna.data.tracks import base_classes, bigwig_means
from hyenadna.errors import InputError
from hyenadna.genome.fasta import Genome, GenomeReader
from hyenadna.task_kinds import TaskKind

__all__ = ["LabelledData", "Task", "fit_length", "read_labelled"]


def read_labelled(
    source: Source | None,
    *,
    task: TaskKind | Task | None = None,
    sequence: str | None = None,
    pair: str | None = None,
    labels: Sequence[str] | None = None,
    split: str | None = None,
    id: str | None = None,
    group: str | None = None,
    header: HeaderLabel = "auto",
    genome: str | Path | GenomeReader | None = None,
    window: int | None = None,
    outside: Outside = "refuse",
    tile: int | None = None,
    tracks: Mapping[str, str | Path] | None = None,
    background: str | None = "none",
    frames: str | Path | None = None,
    genes: str | Path | None = None,
    stranded: bool = False,
    bigwigs: Mapping[str, str | Path] | None = None,
    missing: Missing = "refuse",
    empty: Empty = "refuse",
    max_length: int | None = None,
    too_long: TooLong = "refuse",
    name: str | None = None,
) -> LabelledData:
    """The labelled sequences of a file, of several, of a folder, or of files by split.

    source: see `hyenadna.data.sources` for what names of files and folders say; None with `tile`.
    task: a kind, or a whole task (then its names count, in its order: a trained model's); inferred
    as `hyenadna.data.targets` says, and noted, when left out.
    sequence, pair, labels, split, id, group: names of columns, the usual ones when left out (labels
    may be patterns such as `y_*`; FASTA: keys in the header). `pair` is a second sequence, joined
    by [SEP]. An empty `labels` reads none.
    header: where in a FASTA header the label stands.
    genome: to cut intervals from, of a BED or of columns chrom, start, end (0-based, half open) and
    strand; `-` is read on the other strand. window: bases to cut around the middle of each.
    outside: a window past the end of a contig is refused, or padded with N.
    tile: bases of windows that are laid side by side over the genome, instead of a source
    (`tiles.add_tiles`). tracks, background: BED, or features of GFF or GTF, by class, for a class
    of each base; frames: GFF or GTF, for the coding frame of each base; genes: GFF or GTF, for
    exon, intron and intergenic; stranded: the classes of features on either strand are two
    (`hyenadna.data.annotation_classes`).
    bigwigs: files by name, for values over each interval (`tracks.bigwig_means`).
    missing: a row without a class is refused, or masked (with a whole task there may then be no
    labels at all); missing labels and values are always masked.
    empty: an empty sequence is refused, or the row dropped.
    max_length, too_long: as in `fit_length`.
    name: of the data; that of the source when left out.

    Raises InputError, in one line with file and row, for whatever does not fit.
    """
    reader = Genome.open(genome) if isinstance(genome, str | Path) else genome
    where = name or _name(source, reader)
    over = OverGenome(tracks, background, frames, genes, stranded, bigwigs)
    names = ColumnNames(
        sequence=sequence, pair=pair, labels=labels, split=split, id=id, group=group
    )
    over.require_one(labels)
    if over.given:
        names = dataclasses.replace(names, labels=())
    annotated = over.classes(reader)
    known = task if isinstance(task, Task) else None
    rows = LabelledRows(empty)
    notes: list[str] = list(annotated.notes) if annotated else []
    if tile is not None:
        notes += _tiles(rows, source, reader, tile, window, over, annotated)
    for file in find_files(source) if source is not None else ():
        kind = kind_of(file)
        _require_fitting(file.path, kind, header, window)
        # what is said of labels counts before the name of a file
        file = dataclasses.replace(
            file, label=None if header != "auto" or names.labels else file.label
        )
        if kind == "table":
            read_table_rows(
                rows, file.path, names=names, task=known, genome=reader, window=window,
                outside=outside, split=file.split, label=file.label,
            )  # fmt: skip
        elif kind == "fasta":
            read_fasta_rows(
                rows, file.path, header=header, labels=names.labels, split=file.split,
                label=file.label, optional=known is not None and missing == "mask",
            )  # fmt: skip
        else:
            read_sequence_file(rows, file.path, split=file.split, label=file.label or "")
    if not len(rows):
        raise InputError(f"{where}: holds no rows{' but empty ones' * bool(rows.dropped)}")
    if reader is not None and not over.given and not any(rows.cuts):
        raise InputError(
            f"{where}: holds sequences, not intervals; there is nothing to cut from a genome "
            "(--genome)"
        )
    found, targets = (
        _targets_over_genome(rows, reader, task, annotated, bigwigs)
        if over.given
        else make_targets(_label_columns(where, rows), task, missing)
    )
    data = _as_data(where, rows, found, targets, inferred=task is None and not over.given)
    if not over.given:
        notes += label_warnings(_label_columns(where, rows), found)
    data = data.with_notes(*notes)
    if known is None and not over.given:
        require_seen(where, found, targets, data.splits, rows.places)
    return fit_length(data, max_length, too_long)


@dataclasses.dataclass(frozen=True)
class OverGenome:
    """Files over the genome that give the targets; at most one kind."""

    tracks: Mapping[str, str | Path] | None
    background: str | None
    frames: str | Path | None
    genes: str | Path | None
    stranded: bool
    bigwigs: Mapping[str, str | Path] | None

    @property
    def given(self) -> list[str]:
        """Which kinds are given."""
        kinds = ("tracks", "frames", "genes", "bigwigs")
        return [kind for kind in kinds if getattr(self, kind)]

    def require_one(self, labels: Sequence[str] | None) -> None:
        """Nothing, where one thing at most gives the targets. Raises InputError otherwise."""
        given = [*(["labels"] if labels else []), *self.given]
        if len(given) > 1:
            raise InputError(f"{' and '.join(given)} are given; targets come from one of them")
        if self.stranded and not (self.tracks or self.genes):
            raise InputError("stranded is for tracks and genes (frames always have a strand)")

    def classes(self, genome: GenomeReader | None) -> AnnotatedClasses | None:
        """Classes of the bases of the genome; None where no classes are asked for."""
        if not (self.tracks or self.frames or self.genes):
            return None
        if genome is None:
            raise InputError(f"{self.given[0]} need the genome that they lie on")
        if self.frames:
            return frame_classes(genome, self.frames)
        if self.genes:
            return gene_classes(genome, self.genes, stranded=self.stranded)
        return track_classes(
            genome, self.tracks or {}, background=self.background, stranded=self.stranded
        )


def _require_fitting(path: Path, kind: str, header: HeaderLabel, window: int | None) -> None:
    """Nothing, where the options are for files of this kind. Raises InputError otherwise."""
    if kind != "table" and window is not None:
        raise InputError(
            f"{path}: holds sequences, not intervals; a window cannot be laid (--window)"
        )
    if kind != "fasta" and header != "auto":
        raise InputError(f"{path}: is no FASTA; leave out --header (name the column by --label)")


def _name(source: Source | None, genome: GenomeReader | None) -> str:
    if source is not None:
        return source_name(source)
    return genome.name if genome is not None else "data"


def _tiles(
    rows: LabelledRows,
    source: Source | None,
    genome: GenomeReader | None,
    tile: int,
    window: int | None,
    over: OverGenome,
    annotated: AnnotatedClasses | None,
) -> list[str]:
    """Add the windows of the genome; returns notes."""
    if source is not None or window is not None:
        raise InputError("tile lays windows over the whole genome; leave out files and window")
    if genome is None or not over.given:
        raise InputError("tile needs a genome, and tracks, frames, genes or bigwigs over it")
    return add_tiles(rows, genome, tile, contigs=annotated.contigs if annotated else None)


def _label_columns(where: str, rows: LabelledRows) -> LabelColumns:
    lengths = np.array([len(ids) for ids in rows.sequences], dtype=np.int64)
    return LabelColumns(where, rows.labels, lengths, rows.places, rows.columns)


def _targets_over_genome(
    rows: LabelledRows,
    genome: GenomeReader | None,
    task: TaskKind | Task | None,
    annotated: AnnotatedClasses | None,
    bigwigs: Mapping[str, str | Path] | None,
) -> tuple[Task, Targets]:
    cuts: list[Cut] = [cut for cut in rows.cuts if cut is not None]
    if genome is None or len(cuts) < len(rows):
        raise InputError("tracks and bigwigs need intervals (BED) and the genome they lie on")
    found: Task
    targets: Targets
    if annotated is not None:
        found, targets = base_classes(cuts, genome, annotated)
    else:
        found, targets = bigwig_means(cuts, bigwigs or {})
    fits = task is None or task in (found, found.kind)
    if not fits:
        raise InputError(
            f"task is {task}, but the files give {found.kind} ({', '.join(found.names)})"
        )
    return found, targets


def _as_data(
    where: str, rows: LabelledRows, task: Task, targets: Targets, *, inferred: bool
) -> LabelledData:
    notes = rows.notes()
    if inferred:
        shown = ", ".join(task.names[:8]) + (", …" if task.outputs > 8 else "")
        notes.insert(0, f"task, by the look of the labels: {task.kind} ({task.outputs}: {shown})")
    return LabelledData(
        name=where,
        sequences=tuple(rows.sequences),
        targets=targets,
        task=task,
        splits=np.array(rows.splits, dtype=np.str_),
        ids=tuple(rows.ids),
        groups=tuple(rows.groups) if all(rows.groups) else None,
        notes=tuple(notes),
    )
