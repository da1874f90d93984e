"""Rows of a labelled table: sequences in a column, or cut from a genome."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hyenadna.alphabet import SEP, Ids, encode
from hyenadna.data.columns import ChosenColumns, ColumnNames, choose_columns
from hyenadna.data.cuts import Cut, Outside, cut_tokens, make_cut
from hyenadna.data.labelled_data import Task
from hyenadna.data.labelled_rows import LabelledRows
from hyenadna.data.tables import listed, open_table
from hyenadna.data.text_files import stem_of
from hyenadna.errors import InputError
from hyenadna.genome.fasta import GenomeReader

FILE_CLASS = "class"
"""Name of the label that a file's or folder's name gives."""


def read_table_rows(
    rows: LabelledRows,
    path: Path,
    *,
    names: ColumnNames,
    task: Task | None,
    genome: GenomeReader | None,
    window: int | None,
    outside: Outside,
    split: str = "",
    label: str | None = None,
) -> None:
    """Add the rows of one table to `rows`.

    names: of the columns. task: where it is known. genome: to cut intervals from; `window` and
    `outside` as in `make_cut` and `cut_tokens`. split, label: of all rows, where the name of the
    file gives them.

    Raises InputError, naming file and line, for what is wrong with the table or a row of it.
    """
    table = open_table(path)
    chosen = choose_columns(table, names, genome=genome is not None, task=task)
    if window is not None and chosen.interval is None:
        raise InputError(
            f"{path}: holds sequences, not intervals; a window cannot be laid (--window)"
        )
    rows.columns = rows.columns or listed(table.columns)
    wanted = [c for c in _wanted(chosen) if c is not None]
    for number, cells in table.rows(wanted):
        cell: dict[str | None, str] = dict(zip(wanted, cells, strict=True))
        place = table.place(number)
        cut, sequence = None, np.empty(0, dtype=np.uint8)
        if chosen.interval is not None and genome is not None:
            cut, sequence = _cut(genome, chosen, cell, place, window, outside)
        else:
            sequence = encode(cell[chosen.sequence].strip(), name=place)
        if chosen.pair is not None:
            sequence = _joined(sequence, encode(cell[chosen.pair].strip(), name=place), place)
        if names.group is not None and not cell[chosen.group].strip():
            raise InputError(
                f"{place}: column {names.group!r} is empty; give each row a group, or leave out "
                "--group"
            )
        texts = {column: cell[column].strip() for column in chosen.labels}
        rows.add(
            place,
            sequence,
            labels=texts if label is None else {FILE_CLASS: label},
            split=split or cell.get(chosen.split, ""),
            id=cell.get(chosen.id, "").strip() or f"{stem_of(path)}:{number}",
            group=cell.get(chosen.group, "").strip(),
            cut=cut,
        )


def _wanted(chosen: ChosenColumns) -> list[str | None]:
    """All columns that are read, each once."""
    interval = chosen.interval or ()
    others = (chosen.sequence, chosen.pair, chosen.strand, chosen.split, chosen.id, chosen.group)
    return list(dict.fromkeys((*interval, *others, *chosen.labels)))


def _cut(
    genome: GenomeReader,
    chosen: ChosenColumns,
    cell: dict[str | None, str],
    place: str,
    window: int | None,
    outside: Outside,
) -> tuple[Cut, Ids]:
    contig, start, stop = (cell[c].strip() for c in chosen.interval or ())
    strand = cell.get(chosen.strand, "").strip()
    cut = make_cut(place, contig, start, stop, strand, window)
    return cut, cut_tokens(genome, cut, outside=outside, place=place)


def _joined(first: Ids, second: Ids, place: str) -> Ids:
    """first [SEP] second."""
    if not len(first) or not len(second):
        raise InputError(f"{place}: a sequence of the pair is empty; take the row out")
    return np.concatenate([first, np.array([SEP], dtype=np.uint8), second])
