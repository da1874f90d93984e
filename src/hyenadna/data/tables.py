"""Tables of text: CSV, TSV, Parquet and BED behind one door, read row by row."""

from __future__ import annotations

import csv
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hyenadna.data.text_files import open_text, suffix_of
from hyenadna.errors import InputError

BED_COLUMNS: Final = ("chrom", "start", "end", "name", "score", "strand")
"""Names of the first six columns of a BED; those behind are called by number, from `7` on."""

BED_SUFFIXES: Final = (".bed", ".narrowpeak", ".broadpeak")

_BED_PASSED_OVER: Final = ("#", "track", "browser")
_CONTIG_WORDS: Final = ("chrom", "chr", "chromosome", "contig", "seqnames")
_LIST: Final = re.compile(r"\[\s*([^\s,\[\]\"']+([,\s]+[^\s,\[\]\"']+)*)\s*,?\s*\]")
_NUMBERS: Final = re.compile(r"[-+.\deE,\s]|nan|None|True|False", re.IGNORECASE)
_SHORTEST_TOLD: Final = 10  # a list as long as a sequence of so many bases is no accident
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

    def first_row(self) -> list[str] | None:
        """All cells of the first row; None where there is none."""
        return next((cells for _, cells in self.rows(self.columns)), None)

    def place(self, number: int) -> str:
        """Where a row stands, for messages."""
        return f"{self.path}:{number}"


def open_table(path: Path) -> Table:
    """The table of a `.csv`, `.tsv`, `.txt`, `.parquet` or `.bed` file, packed with gzip or not.

    Cells may be quoted; line ends and a byte-order mark do not matter. A column `label` of lists of
    numbers (`[0, 1]`) is columns `label_0`, `label_1` and so on.

    Raises InputError for a file that is missing, empty or damaged, and for a header with a name
    that comes twice.
    """
    suffix = suffix_of(path)
    if is_bed(path):
        return BedTable(path)
    table: Table = ParquetTable(path) if suffix == ".parquet" else CsvTable(path)
    lists = _list_columns(table)
    return ListTable(table, lists) if lists else table


def is_bed(path: Path) -> bool:
    """Whether a file is a BED by its name, be it of peaks."""
    return suffix_of(path) in BED_SUFFIXES


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
            reader = csv.reader(text, delimiter=self._separator, skipinitialspace=True, strict=True)
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
    """A BED file: columns by `BED_COLUMNS`, or by a line that begins with `#chrom` or `chrom`."""

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
                if _is_bed_header(line):
                    header = tuple(name.strip() for name in _bed_cells(line.lstrip("# ")))
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
                if not line.strip() or line.startswith(_BED_PASSED_OVER) or _is_bed_header(line):
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
        for columns in self._batches(wanted, _ROWS_AT_ONCE):
            for cells in zip(*columns, strict=True):
                number += 1
                yield number, [_cell_text(cell) for cell in cells]

    def first_row(self) -> list[str] | None:
        """See `Table.first_row`; no more is decoded than has to be."""
        columns = next(self._batches(self.columns, 1), None)
        return None if columns is None else [_cell_text(column[0]) for column in columns]

    def _batches(self, wanted: Sequence[str], rows: int) -> Iterator[list[list[object]]]:
        """Columns of some rows at a time."""
        import pyarrow

        try:
            for batch in self._file.iter_batches(rows, columns=list(dict.fromkeys(wanted))):
                if batch.num_rows:
                    yield [batch.column(name).to_pylist() for name in wanted]
        except (pyarrow.ArrowException, OSError) as error:
            why = str(error).split("\n")[0]
            raise InputError(
                f"{self.path}: the Parquet file is damaged ({why}); write or download it again"
            ) from None

    def place(self, number: int) -> str:
        """Where a row stands: Parquet has no lines."""
        return f"{self.path}: row {number}"


class ListTable(Table):
    """A table some of whose columns are lists of numbers: a column for each of their entries."""

    def __init__(self, table: Table, lists: Mapping[str, int]) -> None:
        """lists: name of a column -> entries of its lists."""
        self.path, self._table = table.path, table
        self._origin: dict[str, tuple[str, int | None]] = {}
        self._lists = lists
        for name in table.columns:
            if name in lists:
                self._origin |= {f"{name}_{i}": (name, i) for i in range(lists[name])}
            else:
                self._origin[name] = (name, None)
        self.columns = tuple(self._origin)
        if len(self.columns) < sum(lists.get(name, 1) for name in table.columns):
            raise InputError(
                f"{self.path}: has a list in column {next(iter(lists))!r}, and columns of the "
                "names that its entries would get; rename them"
            )

    def rows(self, wanted: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
        """See `Table.rows`. Raises InputError for a list of another length than the first."""
        origins = [self._origin[name] for name in wanted]
        columns = list(dict.fromkeys(name for name, _ in origins))
        for number, cells in self._table.rows(columns):
            cell = dict(zip(columns, cells, strict=True))
            entries = {
                name: self._entries(number, name, cell[name])
                for name in columns
                if name in self._lists
            }
            yield (
                number,
                [cell[name] if i is None else entries[name][i] for name, i in origins],
            )

    def place(self, number: int) -> str:
        """See `Table.place`."""
        return self._table.place(number)

    def _entries(self, number: int, name: str, text: str) -> list[str]:
        count = self._lists[name]
        if not text.strip():
            return [""] * count
        entries = _list_entries(text)
        if entries is None or len(entries) != count:
            raise InputError(
                f"{self.place(number)}: column {name!r} is {text[:30]!r}, not a list of {count} "
                "numbers as in the first row; all must have the same"
            )
        return entries


def _list_columns(table: Table) -> dict[str, int]:
    """Columns that are lists of numbers, by the first row: entries of each."""
    cells = table.first_row() or []
    found = {
        name: len(entries)
        for name, text in zip(table.columns, cells, strict=False)
        if (entries := _list_entries(text))
    }
    for name, count in found.items():
        if count >= _SHORTEST_TOLD and any(len(text.strip()) == count for text in cells):
            raise InputError(
                f"{table.path}: column {name!r} is a list of {count} labels, one for each base; "
                "write them as a text with a letter for each base, such as 0110"
            )
    return found


def _list_entries(text: str) -> list[str] | None:
    """The entries of a list of numbers, as texts; None for any other text."""
    text = text.strip()
    inside = _LIST.fullmatch(text) if text.startswith("[") else None
    if inside is None or _NUMBERS.sub("", inside[1]):
        return None
    entries = re.split(r"[,\s]+", inside[1])
    return ["" if entry.casefold() in ("none", "nan") else entry for entry in entries]


def listed(names: Sequence[str], most: int = 12) -> str:
    """Column names for a message: the first ones, long ones shortened."""
    shown = ", ".join(name if len(name) <= 24 else f"{name[:24]}…" for name in names[:most])
    return f"{shown}, … ({len(names)} in all)" if len(names) > most else shown


def _separator(header: str) -> str:
    return next((mark for mark in (",", "\t", ";") if mark in header), ",")


def _is_bed_header(line: str) -> bool:
    """`#chrom start end …`, with or without the sign; `chr 10 20` is a row."""
    cells = _bed_cells(line.lstrip("# ")) if line[:1] in "#cCsS" else []
    return (
        len(cells) >= 3
        and cells[0].strip().casefold() in _CONTIG_WORDS
        and not cells[1].strip().isdecimal()
    )


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
    folded = [name.casefold() for name in columns]
    for i, name in enumerate(columns):
        if (first := folded.index(folded[i])) < i:
            raise InputError(
                f"{path}: columns {columns[first]!r} and {name!r} differ in case alone; rename one"
            )
