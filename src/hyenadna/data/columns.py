"""Which column of a table is which: by the names that are given, or by the usual ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from hyenadna.data.labelled_data import Task, split_named
from hyenadna.data.tables import Table, is_bed, listed
from hyenadna.errors import InputError

# Names that are understood without being told, in lower case; the first that is there is taken.
SEQUENCE: Final = ("sequence", "seq", "dna", "dna_sequence", "sequences")
LABEL: Final = ("label", "labels", "target", "class", "y")
LABEL_PATTERNS: Final = ("label_*", "labels_*", "target_*", "y_*")
SPLIT: Final = ("split", "set", "subset", "partition")
NO_SPLIT: Final = "none"
ID: Final = ("id", "name", "seq_id", "sequence_id", "seqid")
GROUP: Final = ("group", "chrom", "chr", "chromosome", "contig")
CONTIG: Final = ("chrom", "chr", "chromosome", "contig", "seqnames", "region")
START: Final = ("start", "start0", "chromstart")
STOP: Final = ("end", "stop", "chromend")
STRAND: Final = ("strand",)

_BASES: Final = frozenset("ACGTUN")


@dataclass(frozen=True, kw_only=True)
class ColumnNames:
    """Names of columns as a user gives them; None: the usual names are looked for."""

    sequence: str | None = None
    pair: str | None = None
    """Column of the second sequence of a pair; there is none unless it is named."""
    labels: Sequence[str] | None = None
    """Names, or patterns such as `y_*`; an empty sequence: no labels."""
    split: str | None = None
    """`none` says that there is none."""
    id: str | None = None
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class ChosenColumns:
    """Columns of one table, all of which it has."""

    sequence: str | None
    """None where the sequence is cut from a genome."""
    pair: str | None
    interval: tuple[str, str, str] | None
    """Contig, start and end."""
    strand: str | None
    labels: tuple[str, ...]
    split: str | None
    id: str | None
    group: str | None


def choose_columns(
    table: Table, names: ColumnNames, *, genome: bool, task: Task | None
) -> ChosenColumns:
    """The columns of a table that hold sequence, labels and the rest.

    genome: whether sequences can be cut from one, where the table has intervals and no sequence.
    task: where it is known; its labels or targets are then looked for by name.

    Raises InputError where a column that is named, the sequence, or an interval is missing.
    """
    sequence = _chosen(table, names.sequence, SEQUENCE)
    interval = _interval(table) if sequence is None or is_bed(table.path) else None
    if interval is not None and not genome:
        raise InputError(
            f"{table.path}: holds intervals; give the genome to cut them from (--genome)"
        )
    if sequence is None and interval is None:
        raise InputError(_no_sequence(table))
    strand = _chosen(table, None, STRAND) if interval else None
    used = {sequence, *(interval or ())}
    labels = _labels(table, names.labels, task, used)
    free = {name for name in table.columns if name not in labels}
    contig = interval[0] if interval else None
    return ChosenColumns(
        sequence=sequence if interval is None else None,
        pair=_chosen(table, names.pair, ()),
        interval=interval,
        strand=strand,
        labels=labels,
        split=_split(table, names.split, free),
        id=_chosen(table, names.id, ID, free),
        group=_chosen(table, names.group, GROUP, free) or contig,
    )


def _chosen(
    table: Table, named: str | None, usual: Iterable[str], free: set[str] | None = None
) -> str | None:
    """The column that is named, else the first usual one that is there (and free)."""
    if named is not None:
        if named not in table.columns:
            raise InputError(
                f"{table.path}: has no column {named!r}; it has {listed(table.columns)}"
            )
        return named
    by_name = {c.casefold(): c for c in table.columns if free is None or c in free}
    return next((by_name[name] for name in usual if name in by_name), None)


def _split(table: Table, named: str | None, free: set[str]) -> str | None:
    """The column of the splits; NO_SPLIT says that there is none.

    A column `set`, `subset` or `partition` that holds no word for a split is about something else.
    """
    if named == NO_SPLIT and named not in table.columns:
        return None
    found = _chosen(table, named, SPLIT, free)
    if named is not None or found is None or found.casefold() == SPLIT[0]:
        return found
    words = {cells[0] for _, cells in table.rows([found])}
    return found if any(split_named(word) for word in words) else None


def _interval(table: Table) -> tuple[str, str, str] | None:
    if is_bed(table.path):
        return (table.columns[0], table.columns[1], table.columns[2])
    contig, start, stop = (_chosen(table, None, usual) for usual in (CONTIG, START, STOP))
    return (contig, start, stop) if contig and start and stop else None


def _labels(
    table: Table, named: Sequence[str] | None, task: Task | None, used: set[str | None]
) -> tuple[str, ...]:
    if named is not None:
        return tuple(dict.fromkeys(c for name in named for c in _matching(table, name, used)))
    if task is not None and task.kind in ("labels", "values"):
        if all(name in table.columns for name in task.names):
            return task.names
        if task.outputs > 1:
            return ()
    usual = LABEL + (("name",) if is_bed(table.path) else ())
    one = _chosen(table, None, usual, {c for c in table.columns if c not in used})
    if one is not None:
        return (one,)
    for pattern in LABEL_PATTERNS:
        several = [c for c in table.columns if fnmatchcase(c.casefold(), pattern)]
        if several:
            return tuple(several)
    return ()


def _matching(table: Table, name: str, used: set[str | None]) -> list[str]:
    """The column of that name, or all that fit the pattern."""
    if name in table.columns:
        return [name]
    found = [c for c in table.columns if c not in used and fnmatchcase(c, name)]
    if not found:
        kind = "column that fits" if any(mark in name for mark in "*?[") else "column"
        raise InputError(f"{table.path}: has no {kind} {name!r}; it has {listed(table.columns)}")
    return found


def _no_sequence(table: Table) -> str:
    headless = any(len(c) >= 10 and set(c.upper()) <= _BASES for c in table.columns)
    hint = (
        "the first line must name the columns, such as sequence,label"
        if headless
        else "name the column that holds the sequence (--sequence)"
    )
    return (
        f"{table.path}: has no column of sequences ({', '.join(SEQUENCE)}); it has "
        f"{listed(table.columns)}; {hint}"
    )
