"""Labelled sequences from files: the door to CSV, TSV, Parquet, FASTA, folders, BED with a genome.

Handled in a stated way: case makes no difference, U is T and ambiguity codes are N; ids that come
again get a number; missing labels and values are masked. Everything else that is odd is an error
that names the row, or what the arguments below say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hyenadna.data.columns import ColumnNames
from hyenadna.data.cuts import Cut, Outside
from hyenadna.data.labelled_data import LabelledData, Targets, Task, TooLong, fit_length
from hyenadna.data.labelled_fasta import HeaderLabel, read_fasta_rows, read_sequence_file
from hyenadna.data.labelled_rows import Empty, LabelledRows
from hyenadna.data.labelled_table import read_table_rows
from hyenadna.data.sources import Source, find_files, kind_of, source_name
from hyenadna.data.targets import LabelColumns, Missing, make_targets, require_seen
from hyenadna.data.tracks import base_classes, bigwig_means
from hyenadna.errors import InputError
from hyenadna.genome.fasta import Genome, GenomeReader
from hyenadna.task_kinds import TaskKind

__all__ = ["LabelledData", "Task", "fit_length", "read_labelled"]


def read_labelled(
    source: Source,
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
    tracks: Mapping[str, str | Path] | None = None,
    background: str | None = "none",
    bigwigs: Mapping[str, str | Path] | None = None,
    missing: Missing = "refuse",
    empty: Empty = "refuse",
    max_length: int | None = None,
    too_long: TooLong = "refuse",
    name: str | None = None,
) -> LabelledData:
    """The labelled sequences of a file, of several, of a folder, or of files by split.

    source: see `hyenadna.data.sources` for what names of files and folders say.
    task: a kind, or a whole task (then its names count, in its order: a trained model's); inferred
    as `hyenadna.data.targets` says, and noted, when left out.
    sequence, pair, labels, split, id, group: names of columns, the usual ones when left out (labels
    may be patterns such as `y_*`; FASTA: keys in the header). `pair` is a second sequence, joined
    by [SEP]. An empty `labels` reads none.
    header: where in a FASTA header the label stands.
    genome: to cut intervals from, of a BED or of columns chrom, start, end (0-based, half open) and
    strand; `-` is read on the other strand. window: bases to cut around the middle of each.
    outside: a window past the end of a contig is refused, or padded with N.
    tracks, background: BED files by class, for a class of each base (`tracks.base_classes`).
    bigwigs: files by name, for values over each interval (`tracks.bigwig_means`).
    missing: a row without a class is refused, or masked (with a whole task there may then be no
    labels at all); missing labels and values are always masked.
    empty: an empty sequence is refused, or the row dropped.
    max_length, too_long: as in `fit_length`.
    name: of the data; that of the source when left out.

    Raises InputError, in one line with file and row, for whatever does not fit.
    """
    where = name or source_name(source)
    names = ColumnNames(
        sequence=sequence, pair=pair, labels=labels, split=split, id=id, group=group
    )
    over_genome = bool(tracks or bigwigs)
    if over_genome:
        names = _without_labels(names, tracks, bigwigs)
    reader = Genome.open(genome) if isinstance(genome, str | Path) else genome
    known = task if isinstance(task, Task) else None
    rows = LabelledRows(empty)
    for file in find_files(source):
        kind = kind_of(file)
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
    found, targets = (
        _targets_over_genome(rows, reader, task, tracks, background, bigwigs)
        if over_genome
        else make_targets(_label_columns(where, rows), task, missing)
    )
    data = _as_data(where, rows, found, targets, inferred=task is None)
    if known is None and not over_genome:
        require_seen(where, found, targets, data.splits, rows.places)
    return fit_length(data, max_length, too_long)


def _without_labels(names: ColumnNames, tracks: object, bigwigs: object) -> ColumnNames:
    if names.labels or (tracks and bigwigs):
        raise InputError("labels, tracks and bigwigs: give one of the three")
    return ColumnNames(
        sequence=names.sequence, labels=(), split=names.split, id=names.id, group=names.group
    )


def _label_columns(where: str, rows: LabelledRows) -> LabelColumns:
    lengths = np.array([len(ids) for ids in rows.sequences], dtype=np.int64)
    return LabelColumns(where, rows.labels, lengths, rows.places)


def _targets_over_genome(
    rows: LabelledRows,
    genome: GenomeReader | None,
    task: TaskKind | Task | None,
    tracks: Mapping[str, str | Path] | None,
    background: str | None,
    bigwigs: Mapping[str, str | Path] | None,
) -> tuple[Task, Targets]:
    cuts: list[Cut] = [cut for cut in rows.cuts if cut is not None]
    if genome is None or len(cuts) < len(rows):
        raise InputError("tracks and bigwigs need intervals (BED) and the genome they lie on")
    found: Task
    targets: Targets
    if tracks:
        found, targets = base_classes(cuts, genome, tracks, background)
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
