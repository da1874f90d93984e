"""Sequences without labels from files, one after the other: FASTA, tables, BED with a genome.

Nothing is held: a file of any size is read row by row, in its order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hyenadna.alphabet import SEP, Ids, encode
from hyenadna.data.columns import ChosenColumns, ColumnNames, choose_columns
from hyenadna.data.cuts import Cut, Outside, cut_tokens, make_cut
from hyenadna.data.sources import SourceFile, kind_of
from hyenadna.data.tables import Table, listed, open_table
from hyenadna.data.text_files import open_text, stem_of
from hyenadna.errors import InputError
from hyenadna.genome.contig_names import known_name
from hyenadna.genome.fasta import GenomeReader


class SequenceRow(NamedTuple):
    """One sequence of a file."""

    place: str
    """`file:line`, for messages."""
    id: str
    """As the file has it, its white space as single spaces; the place where there is none."""
    ids: Ids
    """Tokens (L,), at least one; of a pair, with [SEP] between."""
    cells: tuple[str, ...] = ()
    """Values of the columns `others` of its file."""


@dataclass(frozen=True, kw_only=True)
class SequenceFile:
    """A file of sequences; iterating reads it from the start, each time."""

    path: Path
    sequence: str | None = None
    """Column of the sequences in a table; the usual names where it is left out or not there."""
    pair: str | None = None
    """Column of the second sequence, joined by [SEP]; none when left out."""
    id: str | None = None
    """Column of the names; the usual ones when left out."""
    genome: GenomeReader | None = None
    """To cut intervals from (BED, or columns chrom, start, end)."""
    window: int | None = None
    """Bases around the middle of each interval; the interval itself when left out."""
    outside: Outside = "refuse"
    """A window past the end of a contig is refused, or padded with N."""
    renamed: dict[str, str] = field(default_factory=dict, compare=False)
    """Contigs met so far that the genome calls otherwise (`chr1` for `1`), with its name."""

    @property
    def others(self) -> tuple[str, ...]:
        """Columns of a table that are neither sequence nor id; none of a FASTA.

        Raises InputError as iterating does.
        """
        if self.kind == "fasta":
            return ()
        table = open_table(self.path)
        return self._others(table, self._chosen(table))

    def __iter__(self) -> Iterator[SequenceRow]:
        """The rows in their order.

        Raises InputError, naming file and line, for an empty sequence, a letter that is no base, a
        table without the columns, an interval without a genome or off its contig.
        """
        rows = self._fasta() if self.kind == "fasta" else self._table()
        for place, id, ids, cells in rows:
            if not len(ids):
                raise InputError(f"{place}: the sequence is empty; take the row out")
            yield SequenceRow(place, " ".join(id.split()) or place, ids, cells)

    @property
    def kind(self) -> str:
        """`fasta` or `table`. Raises InputError for a folder, and for another suffix."""
        if self.path.is_dir():
            raise InputError(f"{self.path}: is a folder; name one file")
        if not self.path.is_file():
            raise InputError(f"{self.path}: no such file")
        return kind_of(SourceFile(self.path))

    def cuts(self) -> Iterator[tuple[str, str, Cut]]:
        """Place (`file:line`), name and cut of each row, where the file holds intervals.

        Nothing is read from the genome. Raises InputError as iterating does, for the rows alone.
        """
        if self.kind == "fasta":
            self._require_intervals(None)
        table = open_table(self.path)
        chosen = self._chosen(table)
        self._require_intervals(chosen)
        if chosen.interval is None:
            raise InputError(f"{self.path}: holds sequences, not intervals")
        single = [c for c in (chosen.strand, chosen.id) if c is not None]
        wanted = list(dict.fromkeys([*chosen.interval, *single]))
        for number, cells in table.rows(wanted):
            cell, place = dict(zip(wanted, cells, strict=True)), table.place(number)
            name = cell[chosen.id] if chosen.id is not None else ""
            yield place, " ".join(name.split()) or place, self._cut(chosen, cell, place)

    def _fasta(self) -> Iterator[SequenceRow]:
        self._require_intervals(None)
        if self.pair is not None:
            raise InputError(
                f"{self.path}: the model reads pairs; give a table with columns "
                f"{self.sequence or 'sequence'} and {self.pair}"
            )
        line, header, parts = 0, "", list[str]()

        def record() -> SequenceRow:
            place, words = f"{self.path}:{line}", header.split(maxsplit=1)
            name = words[0] if words else f"{stem_of(self.path)}:{line}"
            return SequenceRow(place, name, encode("".join(parts), name=f"{place} {name}"))

        with open_text(self.path) as text:
            for number, raw in enumerate(text, start=1):
                stripped = raw.strip()
                if stripped.startswith(">"):
                    if line:
                        yield record()
                    line, header, parts = number, stripped[1:], []
                elif line:
                    parts.append(stripped)
                elif stripped:
                    raise InputError(
                        f"{self.path}: is not FASTA: it begins with {stripped[:20]!r}, not '>'"
                    )
        if line:
            yield record()

    def _table(self) -> Iterator[SequenceRow]:
        table = open_table(self.path)
        chosen = self._chosen(table)
        self._require_intervals(chosen)
        others = self._others(table, chosen)
        single = (chosen.sequence, chosen.pair, chosen.strand, chosen.id)
        columns = [c for c in (*(chosen.interval or ()), *single, *others) if c is not None]
        wanted = list(dict.fromkeys(columns))
        for number, cells in table.rows(wanted):
            cell = dict(zip(wanted, cells, strict=True))
            place = table.place(number)
            ids = self._ids(chosen, cell, place)
            if chosen.pair is not None:
                second = encode(cell[chosen.pair].strip(), name=place)
                if not len(ids) or not len(second):
                    raise InputError(f"{place}: a sequence of the pair is empty; take the row out")
                ids = np.concatenate([ids, np.array([SEP], dtype=np.uint8), second])
            name = cell[chosen.id] if chosen.id is not None else ""
            said = tuple(cell[column] for column in others)
            yield SequenceRow(place, name or f"{stem_of(self.path)}:{number}", ids, said)

    def _chosen(self, table: Table) -> ChosenColumns:
        names = self._names(table)
        return choose_columns(table, names, genome=self.genome is not None, task=None)

    @staticmethod
    def _others(table: Table, chosen: ChosenColumns) -> tuple[str, ...]:
        read = {chosen.sequence, chosen.pair, chosen.id}
        return tuple(column for column in table.columns if column not in read)

    def _require_intervals(self, chosen: ChosenColumns | None) -> None:
        """Nothing, where there are intervals to cut, or no genome. Raises InputError otherwise."""
        if self.genome is not None and (chosen is None or chosen.interval is None):
            raise InputError(
                f"{self.path}: holds sequences, not intervals; there is nothing to cut from a "
                "genome - leave out --genome and --window"
            )

    def _names(self, table: Table) -> ColumnNames:
        sequence = self.sequence if self.sequence in table.columns else None
        return ColumnNames(sequence=sequence, pair=self.pair, labels=(), id=self.id)

    def _ids(self, chosen: ChosenColumns, cell: dict[str, str], place: str) -> Ids:
        if chosen.sequence is not None:
            return encode(cell[chosen.sequence].strip(), name=place)
        assert self.genome is not None
        cut = self._cut(chosen, cell, place)
        return cut_tokens(self.genome, cut, outside=self.outside, place=place)

    def _cut(self, chosen: ChosenColumns, cell: dict[str, str], place: str) -> Cut:
        assert chosen.interval is not None
        contig, start, stop = (cell[column].strip() for column in chosen.interval)
        strand = cell[chosen.strand].strip() if chosen.strand is not None else ""
        return make_cut(place, self._contig(contig), start, stop, strand, self.window)

    def _contig(self, name: str) -> str:
        """The genome's name of a contig, or the file's where it has none."""
        return name if self.genome is None else known_name(name, self.genome.contigs, self.renamed)


def require_column(path: Path, column: str | None) -> None:
    """Nothing, where a table has the column, where none is named, and for a FASTA.

    For a name that a user has just given: `SequenceFile` takes the usual column where its own is
    not there. Raises InputError otherwise, with the columns that there are.
    """
    if column is None or SequenceFile(path=path).kind != "table":
        return
    columns = open_table(path).columns
    if column not in columns:
        raise InputError(f"{path}: has no column {column!r}; it has {listed(columns)}")
