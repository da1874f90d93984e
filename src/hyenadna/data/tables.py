"""Tables of text: CSV, TSV, Parquet and BED behind one door, read row by row."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from hyenadna.data.text_files import open_text, suffix_of
from hyenadna.errors import InputError

BED_COLUMNS: Final = ("chrom", "start", "end", "name", "score", "strand")
"""Names of the first six columns of a BED; those behind are called by number, from `7` on."""

_BED_PASSED_OVER: Final = ("#", "track", "browser")
_ROWS_AT_ONCE: Final = 4096
_LONGEST_CELL: Final = 2**31 - 1


class Table(ABC):
    """Named columns of text; made by `open_table`."""

    path: Path
    columns: tuple[str, ...]

    @abstractmethod
    def rows(self, wanted: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
        """(number, cells of the wanted columns, in that order) of each row.

        Missing values are empty texts. Raises InputError for a row that does not fit the header.
        """

    def place(self, number: int) -> str:
        """Where a row stands, for messages."""
        return f"{self.path}:{number}"


def open_table(path: Path) -> Table:
    """The table of a `.csv`, `.tsv`, `.txt`, `.parquet` or `.bed` file, packed with gzip or not.

    Cells may be quoted; line ends and a byte-order mark do not matter.

    Raises InputError for a file that is missing, empty or damaged, and for a header with a name
    that comes twice.
    """
    suffix = suffix_of(path)
    if suffix == ".parquet":
        return ParquetTable(path)
    if suffix == ".bed":
        return BedTable(path)
    return CsvTable(path)


class CsvTable(Table):
    """A text table whose first line names the columns.

    The separator is a tab in a `.tsv`, and otherwise the first of comma, tab and semicolon that
    stands in the header.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_text(path) as text:
            first = text.readline()
        self._separator = _separator(first) if suffix_of(path) != ".tsv" else "\t"
        header = next((cells for _, cells in self._cells()), None)
        if not header or not any(header):
            raise InputError(f"{path}: is empty; the first line must name the columns")
        self.columns = tuple(name.strip() for name in header)
        _require_different(path, self.columns)

    def rows(self, wanted: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
        """See `Table.rows`; rows are numbered by the line on which they end."""
        at = [self.columns.index(name) for name in wanted]
        width = len(self.columns)
        cells_of = self._cells()
        next(cells_of)
        for number, cells in cells_of:
            if len(cells) != width:
                raise InputError(
                    f"{self.place(number)}: the row has {len(cells)} columns, the header {width}; "
                    "quote cells that hold the separator"
                )
            yield number, [cells[i] for i in at]

    def _cells(self) -> Iterator[tuple[int, list[str]]]:
        # A sequence may have a million letters; csv stops at 131,072. The limit is one for the
        # whole process, so it is never put back: another reader may be in mid-file.
        csv.field_size_limit(_LONGEST_CELL)
        with open_text(self.path) as text:
            reader = csv.reader(text, delimiter=self._separator, strict=True)
            try:
                for cells in reader:
                    if cells:
                        yield reader.line_num, cells
            except csv.Error as error:
                raise InputError(
                    f"{self.place(reader.line_num)}: is not a row of a table ({error}); a quote "
                    "may be open"
                ) from None


class BedTable(Table):
    """A BED file: columns by `BED_COLUMNS`, or by a line that begins with `#chrom` or `#chr`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        header, width = self._survey()
        names = BED_COLUMNS + tuple(str(i) for i in range(len(BED_COLUMNS) + 1, width + 1))
        named = header[:width] if len(header) >= width else ()
        self.columns = (*BED_COLUMNS[:3], *named[3:]) if named else names[:width]
        _require_different(path, self.columns)

    def _survey(self) -> tuple[tuple[str, ...], int]:
        """Names in the header, where there is one, and the columns of the first row."""
        header: tuple[str, ...] = ()
        with open_text(self.path) as text:
            for line in text:
                if line.casefold().startswith(("#chrom", "#chr")):
                    header = tuple(name.strip() for name in _bed_cells(line[1:]))
                elif line.strip() and not line.startswith(_BED_PASSED_OVER):
                    width = len(_bed_cells(line))
                    if width >= 3:
                        return header, width
                    raise InputError(
                        f"{self.path}: a BED row has at least contig, start and end; the first "
                        f"has {width} columns"
                    )
        raise InputError(f"{self.path}: holds no rows")

    def rows(self, wanted: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
        """See `Table.rows`; rows are numbered by line."""
        at = [self.columns.index(name) for name in wanted]
        width = len(self.columns)
        with open_text(self.path) as text:
            for number, line in enumerate(text, start=1):
                if not line.strip() or line.startswith(_BED_PASSED_OVER):
                    continue
                cells = _bed_cells(line)
                if len(cells) != width:
                    raise InputError(
                        f"{self.place(number)}: the row has {len(cells)} columns, the first "
                        f"{width}; all rows must have the same"
                    )
                yield number, [cells[i].strip() for i in at]


class ParquetTable(Table):
    """A Parquet file, read through pyarrow."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise InputError(
                f"{path}: Parquet is read by pyarrow, which is not installed; "
                "`pip install pyarrow`, or save the table as CSV"
            ) from None
        try:
            self._file: Any = parquet.ParquetFile(path)
        except (pyarrow.ArrowException, OSError) as error:
            why = str(error).split("\n")[0]
            raise InputError(f"{path}: is no readable Parquet file ({why})") from None
        self.columns = tuple(self._file.schema_arrow.names)
        _require_different(path, self.columns)

    def rows(self, wanted: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
        """See `Table.rows`; rows are numbered from 1."""
        number = 0
        for batch in self._file.iter_batches(_ROWS_AT_ONCE, columns=list(dict.fromkeys(wanted))):
            columns = [batch.column(name).to_pylist() for name in wanted]
            for cells in zip(*columns, strict=True):
                number += 1
                yield number, [_cell_text(cell) for cell in cells]

    def place(self, number: int) -> str:
        """Where a row stands: Parquet has no lines."""
        return f"{self.path}: row {number}"


def listed(names: Sequence[str], most: int = 12) -> str:
    """Column names for a message: the first ones, long ones shortened."""
    shown = ", ".join(name if len(name) <= 24 else f"{name[:24]}…" for name in names[:most])
    return f"{shown}, … ({len(names)} in all)" if len(names) > most else shown


def _separator(header: str) -> str:
    return next((mark for mark in (",", "\t", ";") if mark in header), ",")


def _bed_cells(line: str) -> list[str]:
    line = line.rstrip("\r\n")
    return line.split("\t") if "\t" in line else line.split()


def _cell_text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return str(int(cell))
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace")
    return str(cell)


def _require_different(path: Path, columns: Sequence[str]) -> None:
    twice = [name for i, name in enumerate(columns) if name in columns[:i]]
    if twice:
        raise InputError(f"{path}: two columns are named {twice[0]!r}; rename one")
